"""What a draft head proposes does not hang on how the request got where it is.

In every engine its drafts equal those that it makes of the whole text at once, with nothing cached: after a prefix hit,
a prompt read in chunks, a preemption, and drafts of which some fell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest
import torch
from tiny_drafts import noisy_copy, tiny_head
from torch import Tensor

from minillm_kernels import resolve
from minillm_serve import LLM, SamplingParams
from minillm_serve.attention.backends import KVCache
from minillm_serve.engine import speculation
from minillm_serve.model.linear import Unquantized
from minillm_serve.model.llama import LlamaModel, Taps
from minillm_serve.runner.runner import Runner
from minillm_serve.spec import length

ENGINES = {
    "one batch": {"num_kv_blocks": 400},
    "chunked prefill": {"num_kv_blocks": 400, "max_num_batched_tokens": 5},
    "small blocks": {"num_kv_blocks": 400, "block_size": 4},
    "preemption": {"num_kv_blocks": 24, "block_size": 4},
}
Made = tuple[list[int], tuple[int, ...]]  # a text, and the drafts that were made of it
SPOKEN = list(range(3, 500, 3))


def contiguous(cache: KVCache, first: int, count: int):
    """Attention of one sequence whose slots lie in their order."""
    slots = torch.arange(first, first + count)
    blocks = torch.arange(-(-(first + count) // cache.block_size))[None]
    return cache.plan(slots, blocks, [first + count], [count])


def head_by_hand(runner: Runner, token_ids: Sequence[int], count: int) -> list[int]:
    """``count`` drafts after a text, by the definition: features of the target, then the head's own outputs."""
    model: LlamaModel = runner.model
    net = runner.speculation.reader.net
    length, ops = len(token_ids), model.ops
    ids, every = torch.tensor(token_ids), torch.arange(len(token_ids))
    cache = KVCache(model.config, ops, 100, 16, torch.float32)
    taps = Taps(net.aux_layers)
    hidden = model.hidden(ids, every, contiguous(cache, 0, length), every, taps)
    features = torch.cat((*taps.states, hidden), 1)
    before = torch.cat((torch.zeros(1, features.shape[1]), features[:-1]))
    own = KVCache(net.config, ops, 100, 16, torch.float32)
    logits, state = net.first(ids, every, contiguous(own, 0, length), every[-1:], before)
    drafts = [int(net.token_map[logits[0].argmax()])]
    while len(drafts) < count:
        at = length + len(drafts) - 1
        attention = contiguous(own, at, 1)
        logits, state = net.further(torch.tensor(drafts[-1:]), torch.tensor([at]), attention, every[:1], state)
        drafts.append(int(net.token_map[logits[0].argmax()]))
    return drafts


def model_by_hand(runner: Runner, token_ids: Sequence[int], count: int) -> list[int]:
    """``count`` drafts of a whole model: it goes on greedily."""
    model: LlamaModel = runner.speculation.reader.net.model
    text = list(token_ids)
    while len(text) < len(token_ids) + count:
        every = torch.arange(len(text))
        cache = KVCache(model.config, model.ops, 100, 16, torch.float32)
        logits = model.forward(torch.tensor(text), every, contiguous(cache, 0, len(text)), every[-1:])
        text.append(int(logits[0].argmax()))
    return text[len(token_ids) :]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", ["eagle", "draft_model"])
def test_drafts_equal_those_of_the_whole_text(tiny_model_dir, tmp_path, method, engine):
    if method == "eagle":
        folder, by_hand = tiny_head(tiny_model_dir, tmp_path / "head", SPOKEN, aux_layers=(0, 1)), head_by_hand
    else:
        folder, by_hand = noisy_copy(tiny_model_dir, tmp_path / "noisy"), model_by_hand
    config = {"method": method, "model": str(folder), "num_speculative_tokens": 3, "dynamic": False}
    llm = LLM(tiny_model_dir, speculative_config=config, **ENGINES[engine])
    made = watched(llm.core.runner)
    shared, prompts, params = requests()
    llm.generate(shared, SamplingParams(temperature=0, max_tokens=8))
    outputs = llm.generate(prompts, params)
    assert (llm.stats().num_preemptions > 0) == (engine == "preemption")
    assert engine != "small blocks" or any(output.num_cached_tokens for output in outputs)
    assert len(made) > 100
    check(llm.core.runner, made, by_hand)


class AtRandom:
    """Stops each chain of drafts somewhere, now and then without its newest token."""

    def __init__(self) -> None:
        self.random, self.counts = Random(6), Counter()

    def chains(self) -> AtRandom:
        return self

    def grown(self, rids, may, confidences):
        assert all(0 < confidence <= 1 for confidence in confidences)
        worth = [self.random.random() < 0.9 for _ in rids]
        for rid, stays in zip(rids, worth, strict=True):
            self.counts[rid] += stays
        return worth, [a and b and self.random.random() < 0.8 for a, b in zip(worth, may, strict=True)]


@pytest.mark.parametrize("method", ["eagle", "draft_model"])
def test_drafts_that_end_early_are_the_beginnings_of_longer_ones(tiny_model_dir, tmp_path, method):
    """Some requests stop, the others go on; and what is said is what is said without drafts."""
    if method == "eagle":
        folder, by_hand = tiny_head(tiny_model_dir, tmp_path / "head", SPOKEN, aux_layers=(0, 1)), head_by_hand
    else:
        folder, by_hand = noisy_copy(tiny_model_dir, tmp_path / "noisy"), model_by_hand
    config = {"method": method, "model": str(folder), "num_speculative_tokens": 5, "dynamic": False}
    llm = LLM(tiny_model_dir, speculative_config=config, num_kv_blocks=400, block_size=4)
    rule = llm.core.runner.speculation.proposer.lengths = AtRandom()
    made = watched(llm.core.runner)
    _, prompts, params = requests()
    plain = LLM(tiny_model_dir, num_kv_blocks=400)
    told, expected = (
        [output.outputs[0].token_ids for output in each.generate(prompts, params)] for each in (llm, plain)
    )
    assert told == expected
    assert {len(drafts) for _, drafts in made} == {1, 2, 3, 4, 5}
    assert sum(len(drafts) for _, drafts in made) == rule.counts.total()
    check(llm.core.runner, made, by_hand)


def watched(runner: Runner) -> list[Made]:
    """What the runner's drafter will have made, and of what texts."""
    drafter, batch = runner.speculation.proposer, runner.batch
    made: list[Made] = []
    propose = drafter.propose

    def remember(limits):
        drafts = propose(limits)
        for rid, tokens in drafts.items():
            row = batch.row_of(rid)
            made.append((batch.tokens[row, : batch.num_tokens[row]].tolist(), tokens))
        return drafts

    drafter.propose = remember
    return made


def requests() -> tuple[list[int], list[list[int]], list[SamplingParams]]:
    """A text, prompts that begin as it does, and how to go on with them."""
    rng = Random(3)
    shared = [rng.randrange(3, 500) for _ in range(21)]
    prompts = [shared[: rng.randrange(1, 21)] + [rng.randrange(3, 500)] * rng.randrange(9) for _ in range(12)]
    return (
        shared,
        prompts,
        [SamplingParams(temperature=i % 2, seed=i, max_tokens=20, ignore_eos=True) for i in range(12)],
    )


@torch.inference_mode()
def check(runner: Runner, made: list[Made], by_hand: Callable[[Runner, Sequence[int], int], list[int]]) -> None:
    for text, drafts in Random(4).sample(made, min(len(made), 60)):
        assert list(drafts) == by_hand(runner, text, len(drafts)), f"after {len(text)} tokens"


@pytest.mark.skipif(resolve("auto").name != "cpp", reason="only the C++ kernels read 8-bit heads")
def test_a_head_in_8_bits_bears_features_that_stick_out(tiny_model_dir, tmp_path, monkeypatch):
    """Some channels of a residual stream are a thousand times larger than the rest."""
    folder = tiny_head(tiny_model_dir, tmp_path / "head", SPOKEN)
    config = {"method": "eagle", "model": str(folder), "num_speculative_tokens": 3}

    def logits() -> Tensor:
        net = LLM(tiny_model_dir, speculative_config=config, num_kv_blocks=8).core.runner.speculation.reader.net
        sizes.append(net.step_bytes)
        ids = torch.randint(500, (40,), generator=torch.Generator().manual_seed(1))
        features = torch.randn(40, 2 * net.config.hidden_size, generator=torch.Generator().manual_seed(2))
        features[:, 5] *= 1000
        every = torch.arange(40)
        attention = contiguous(KVCache(net.config, net.layers.ops, 4, 16, torch.float32), 0, 40)
        return net.first(ids, every, attention, every, features)[0]

    sizes: list[int] = []
    with torch.inference_mode():
        rounded = logits()
        monkeypatch.setattr(speculation, "head_method", Unquantized)
        whole = logits()
    assert sizes[0] < 0.6 * sizes[1]
    assert 0 < (rounded - whole).norm() < 0.03 * whole.norm()


@pytest.mark.parametrize("method", ["eagle", "draft_model"])
def test_a_network_that_rests_reads_nothing_and_drafts_again_afterwards(tiny_model_dir, tmp_path, monkeypatch, method):
    """Three requests fill the machine; the one that is left has drafts again, and every text is the plain one."""
    monkeypatch.setitem(length.STEP_COSTS, "cpu", length.StepCosts(free=2, slope=2.0))
    monkeypatch.setattr(speculation, "_cost", lambda net, model: 0.1)
    head = tiny_head(tiny_model_dir, tmp_path / "head", SPOKEN) if method == "eagle" else None
    model = head or noisy_copy(tiny_model_dir, tmp_path / "noisy")
    config = {"method": method, "model": str(model), "num_speculative_tokens": 3}
    llm = LLM(tiny_model_dir, speculative_config=config, num_kv_blocks=400)
    drafter, asked = llm.core.runner.speculation.proposer, []
    propose = drafter.propose
    monkeypatch.setattr(drafter, "propose", lambda limits: asked.append(limits) or propose(limits))
    steps: list[tuple[int, int, int]] = []
    llm.core.on_step = lambda stats: steps.append((stats.new_tokens, len(asked), len(stats.drafts)))
    params = [SamplingParams(temperature=0, max_tokens=count, ignore_eos=True) for count in (8, 8, 40)]
    prompts = [[5, 6, 7], [9, 10, 11], [12, 13]]
    got = llm.generate(prompts, params)
    plain = LLM(tiny_model_dir, num_kv_blocks=400).generate(prompts, params)
    assert [one.outputs[0].token_ids for one in got] == [one.outputs[0].token_ids for one in plain]
    together = [asked_so_far for new, asked_so_far, _ in steps if new == 3]
    assert len(together) == 8 and set(together) == {0}
    assert sum(drafts for *_, drafts in steps) > 3
