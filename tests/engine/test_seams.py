"""A student's own parts run inside the real engine, and the engine's promises hold for them."""

from __future__ import annotations

import pytest
import torch

from minillm_serve import LLM, SamplingParams
from minillm_serve.config import ConfigError
from minillm_serve.kv.block_pool import BlockPool
from minillm_serve.sched.policy import FCFS
from minillm_serve.seams import (
    ATTENTION_PAGED,
    GUIDED_COMPILE,
    KV_BLOCK_KEY,
    KV_BLOCK_POOL,
    SAMPLE,
    SCHED_POLICY,
    SEAMS,
    SPEC_VERIFY,
    Seams,
)

PROMPTS = ["one", "two two", "three three three", "four"]
GREEDY = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)


class LastFreedFirst(BlockPool):
    """Hands out the block that was freed last."""

    def allocate(self, count: int) -> tuple[int, ...] | None:
        self._free.reverse()
        blocks = super().allocate(count)
        self._free.reverse()
        return blocks


class LastComeFirstServed(FCFS):
    def rank(self, request):
        return -request.rid


def test_another_pool_gives_other_blocks_and_the_same_tokens(tiny_model_dir):
    plain = LLM(tiny_model_dir, num_kv_blocks=64)
    mine = LLM(tiny_model_dir, num_kv_blocks=64, seams=Seams({KV_BLOCK_POOL: LastFreedFirst}))
    assert isinstance(mine.core.scheduler.kv.pool, LastFreedFirst)
    assert [o.outputs for o in mine.generate(PROMPTS, GREEDY)] == [o.outputs for o in plain.generate(PROMPTS, GREEDY)]
    mine.core.scheduler.kv.check()


class NoSharing:
    """The four methods that a pool needs when nothing is shared."""

    def __init__(self, num_blocks: int):
        pool = BlockPool(num_blocks)
        self.allocate, self.free, self.refs = pool.allocate, pool.free, pool.refs
        self._pool = pool

    @property
    def num_free(self) -> int:
        return self._pool.num_free


def test_a_pool_without_share_runs_with_prefix_caching_off_and_is_refused_with_it_on(tiny_model_dir):
    seams = Seams({KV_BLOCK_POOL: NoSharing})
    mine = LLM(tiny_model_dir, num_kv_blocks=64, enable_prefix_caching=False, seams=seams)
    plain = LLM(tiny_model_dir, num_kv_blocks=64)
    assert [o.outputs for o in mine.generate(PROMPTS, GREEDY)] == [o.outputs for o in plain.generate(PROMPTS, GREEDY)]
    assert mine.stats().kv_blocks_used == 0
    with pytest.raises(ConfigError, match="enable_prefix_caching=False"):
        LLM(tiny_model_dir, num_kv_blocks=64, seams=seams)


def test_another_policy_changes_who_goes_first(tiny_model_dir):
    def order(llm: LLM) -> list[int]:
        outputs = llm.generate(PROMPTS, GREEDY)
        return sorted(range(len(outputs)), key=lambda i: outputs[i].metrics.first_token)

    assert order(LLM(tiny_model_dir, num_kv_blocks=64, max_num_seqs=1)) == [0, 1, 2, 3]
    seams = Seams({SCHED_POLICY: LastComeFirstServed})
    assert order(LLM(tiny_model_dir, num_kv_blocks=64, max_num_seqs=1, seams=seams)) == [3, 2, 1, 0]


def test_another_sampler_chooses_the_tokens(tiny_model_dir):
    def always_seven(logits, settings):
        return torch.full((len(logits),), 7)

    llm = LLM(tiny_model_dir, num_kv_blocks=64, seams=Seams({SAMPLE: always_seven}))
    assert all(set(output.outputs[0].token_ids) == {7} for output in llm.generate(PROMPTS, GREEDY))


def test_an_unknown_seam_is_refused_with_the_list_of_known_ones():
    with pytest.raises(KeyError, match=r"kv\.block_pool"):
        Seams({"kv.blockpool": BlockPool})
    assert set(SEAMS) == {
        KV_BLOCK_POOL,
        KV_BLOCK_KEY,
        SCHED_POLICY,
        SAMPLE,
        SPEC_VERIFY,
        ATTENTION_PAGED,
        GUIDED_COMPILE,
    }
    with pytest.raises(KeyError, match="sample"):
        Seams().get(SAMPLE)
