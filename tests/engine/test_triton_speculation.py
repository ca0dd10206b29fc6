"""Speculation on the Triton engine: its tokens are those of torch's kernels without drafts, and its drafts those of the
plain drafter. In the interpreter where there is no GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from one_layer import PROMPTS, answers, finish, start, triton_core, truth
from tiny_drafts import noisy_copy, tiny_head

from minillm_serve import LLM
from minillm_serve.bench.draft_strip import draft_strip
from minillm_serve.config import ConfigError
from minillm_serve.engine.core import EngineCore
from minillm_serve.engine.replay import verify
from minillm_serve.plan import StepPlan

pytest.importorskip("triton", reason="triton is not installed")

from minillm_serve.runner.gpu.draft_step import Part
from minillm_serve.runner.gpu.drafter import GPUDrafter
from minillm_serve.runner.gpu.graphs import DecodeGraphs, batch_sizes

pytestmark = pytest.mark.usefixtures("small_work_lists")
METHODS = {
    "ngram": {"num_speculative_tokens": 3, "prompt_lookup_min": 1, "prompt_lookup_max": 2},
    "draft_model": {"num_speculative_tokens": 3},
    "eagle": {"num_speculative_tokens": 3},
}
FEW = (40, 41, 42, 43)  # of so few tokens, some drafts stand and some fall
TIGHT = {"num_kv_blocks": 5, "max_num_batched_tokens": 9, "max_num_seqs": 2}  # preemptions, chunks beside drafts


@pytest.fixture(scope="module")
def drafting(one_layer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Method -> its configuration: every step drafts all that it may."""
    folder = tmp_path_factory.mktemp("drafts")
    models = {
        "draft_model": {"model": str(noisy_copy(one_layer_dir, folder / "noisy"))},
        "eagle": {"model": str(tiny_head(one_layer_dir, folder / "head", (*FEW, 7, 8), (0,)))},
    }
    return {name: {"method": name, "dynamic": False, **METHODS[name], **models.get(name, {})} for name in METHODS}


class Drafts:
    """Every draft of an engine, by request and length of its text, and how many tokens of all of them stood.

    uneven: texts of different lengths are given from none to three.
    """

    def __init__(self, core: EngineCore, uneven: bool = False):
        speculation = core.runner.speculation
        self.made: dict[tuple[int, int], tuple[int, ...]] = {}
        self.drafted = self.accepted = 0
        self._uneven = uneven
        self._batch, self._propose = speculation.batch, speculation.proposer.propose
        self._reader = speculation.reader
        self._observe = speculation.lengths.observe
        speculation.proposer.propose, speculation.lengths.observe = self.propose, self.observe

    def propose(self, limits: dict[int, int]) -> dict[int, tuple[int, ...]]:
        if self._uneven:
            limits = {rid: min(limit, self._length(rid) % 4) for rid, limit in limits.items()}
        drafts = self._propose({rid: limit for rid, limit in limits.items() if limit})
        made = self._reader.made() if any(tokens[0] < 0 for tokens in drafts.values()) else drafts
        assert {rid: len(tokens) for rid, tokens in made.items()} == {rid: len(own) for rid, own in drafts.items()}
        self.made |= {(rid, self._length(rid)): tokens for rid, tokens in made.items()}
        return drafts

    def _length(self, rid: int) -> int:
        return int(self._batch.num_tokens[self._batch.row_of(rid)])

    def observe(self, rid: int, drafted: int, accepted: int) -> None:
        self.drafted, self.accepted = self.drafted + drafted, self.accepted + accepted
        self._observe(rid, drafted, accepted)


def run(core: EngineCore, prompts: list[list[int]], uneven: bool = False, **params: Any) -> tuple[list[Any], Drafts]:
    drafts = Drafts(core, uneven)
    rids = start(core, prompts, **params)
    done = finish(core)
    core.scheduler.check()
    return [done[rid] for rid in rids], drafts


@pytest.mark.parametrize("method", METHODS)
def test_tokens_are_those_of_an_engine_without_drafts(
    one_layer_dir: Path, drafting: dict[str, Any], method: str
) -> None:
    """Requests are preempted and come back; where the method knows nothing of few tokens, all steps are plain."""
    asked = {"temperature": 0.8, "seed": 3, "max_tokens": 11}
    if method != "draft_model":
        asked["allowed_token_ids"] = FEW
    core = triton_core(one_layer_dir, speculative_config=drafting[method], **TIGHT)
    got, drafts = run(core, PROMPTS[:3], **asked)
    assert got == truth(one_layer_dir, PROMPTS[:3], **asked)
    assert 0 < drafts.accepted < drafts.drafted
    assert core.stats().num_preemptions > 0


def test_a_step_that_only_verifies_replays_the_decode_graph(one_layer_dir: Path, drafting: dict[str, Any]) -> None:
    core = triton_core(one_layer_dir, speculative_config=drafting["draft_model"], max_num_seqs=1)
    graphs, ran = core.runner.graphs, []
    works = graphs.run
    graphs.run = lambda size: ran.append(size) or works(size)
    asked = {"temperature": 0, "max_tokens": 10}
    got, drafts = run(core, PROMPTS[:1], **asked)
    assert got == truth(one_layer_dir, PROMPTS[:1], **asked)
    assert drafts.accepted
    verified = [1 + len(tokens) for tokens in drafts.made.values()]
    assert ran[: len(verified)] == verified and set(ran[len(verified) :]) <= {1}


def test_the_host_plans_before_it_knows_the_drafts_and_the_trace_names_them(
    one_layer_dir: Path, drafting: dict[str, Any], tmp_path: Path
) -> None:
    """Also for requests that are preempted, and for one that ends while its drafts are made."""
    settings = {"speculative_config": drafting["draft_model"], "trace_file": tmp_path / "trace.json"}
    core = triton_core(one_layer_dir, **settings, **TIGHT)
    plans: list[StepPlan] = []
    submit = core.runner.submit
    core.runner.submit = lambda plan: plans.append(plan) or submit(plan)
    asked = {"temperature": 0.8, "seed": 3, "max_tokens": 11}
    got, drafts = run(core, PROMPTS[:3], **asked)
    assert got == truth(one_layer_dir, PROMPTS[:3], **asked)
    named = [ids for plan in plans for ids in plan.drafts.values()]
    assert {ids for ids in named} <= {(-2,), (-2, -3), (-2, -3, -4)}
    trace = json.loads(json.dumps(core.trace.content()))
    assert verify(trace) == len(trace["steps"])
    strip = [(int(rid), entry) for rid, row in draft_strip(trace).items() for entry in row if entry.drafts]
    assert len(strip) == len(named)
    for rid, entry in strip:
        assert entry.drafts == drafts.made[rid, entry.first][: len(entry.drafts)]


def test_drafts_that_nobody_has_seen_beside_a_prompt(one_layer_dir: Path, drafting: dict[str, Any]) -> None:
    """No graph is replayed there: the ids are looked up by plain launches."""
    core = triton_core(one_layer_dir, speculative_config=drafting["draft_model"])
    plans: list[StepPlan] = []
    submit = core.runner.submit
    core.runner.submit = lambda plan: plans.append(plan) or submit(plan)
    asked, done, drafts = {"temperature": 0, "max_tokens": 12}, {}, Drafts(core)
    rids = []
    for prompt in PROMPTS[:3]:
        rids += start(core, [prompt], **asked)
        for _ in range(2):
            done |= {output.rid: answers(output) for output in core.step() if output.finished}
    done |= finish(core)
    assert [done[rid] for rid in rids] == truth(one_layer_dir, PROMPTS[:3], **asked)
    beside = [plan for plan in plans if plan.drafts and plan.new_requests]
    assert any(len(own) > 1 and own[0] < 0 for plan in beside for own in plan.drafts.values())
    assert drafts.accepted


def test_padding_of_a_draft_graph_is_nobodys_draft(one_layer_dir: Path, drafting: dict[str, Any]) -> None:
    """Three requests in a graph for four."""
    core = triton_core(one_layer_dir, speculative_config=drafting["draft_model"])
    sizes = []
    for graphs in core.runner.speculation.proposer.graphs:
        size_for = graphs.size_for
        graphs.size_for = lambda count, size_for=size_for: sizes.append((count, size_for(count))) or sizes[-1][1]
    asked = {"temperature": 0, "max_tokens": 12}
    got, drafts = run(core, PROMPTS[:3], **asked)
    assert got == truth(one_layer_dir, PROMPTS[:3], **asked)
    assert (3, 4) in sizes and drafts.accepted


def test_drafts_that_the_host_has_a_say_in_are_waited_for(one_layer_dir: Path, drafting: dict[str, Any]) -> None:
    core = triton_core(one_layer_dir, speculative_config=drafting["eagle"])
    plans: list[StepPlan] = []
    submit = core.runner.submit
    core.runner.submit = lambda plan: plans.append(plan) or submit(plan)
    asked = {"temperature": 0, "max_tokens": 8, "allowed_token_ids": FEW}
    got, _ = run(core, PROMPTS[:2], **asked)
    assert got == truth(one_layer_dir, PROMPTS[:2], **asked)
    named = [ids for plan in plans for ids in plan.drafts.values()]
    assert named and all(token in FEW for ids in named for token in ids)


def plain_core(folder: Path, **more: Any) -> EngineCore:
    """The same engine on torch's kernels, with the plain runner and drafter."""
    settings = {"dtype": "float32", "max_num_seqs": 4, "max_model_len": 40, "num_kv_blocks": 60, "block_size": 4}
    return LLM(folder, kernels="torch", **(settings | more)).core


@pytest.mark.parametrize("method", ["draft_model", "eagle"])
def test_drafts_are_those_of_the_plain_drafter(one_layer_dir: Path, drafting: dict[str, Any], method: str) -> None:
    """After prompts in chunks, preemptions, steps without drafts, prefix hits in blocks of both read and generated
    tokens, and where one of two requests may have fewer drafts. The head's keys show what it has read, and where:
    a wrong feature need not change the likeliest token."""
    settings = {"speculative_config": drafting[method], "async_scheduling": False, **TIGHT, "num_kv_blocks": 7}
    ours, theirs = triton_core(one_layer_dir, **settings), plain_core(one_layer_dir, **settings)
    assert isinstance(ours.runner.speculation.proposer, GPUDrafter)
    prompts = [list(range(100, 107))]
    for number in range(3):
        asked = {"temperature": 0, "max_tokens": 7, "uneven": True}
        got, drafts = run(ours, prompts, **asked)
        expected, their_drafts = run(theirs, prompts, **asked)
        assert got == expected
        assert drafts.made == their_drafts.made
        assert drafts.made
        if method == "eagle":  # of a whole model, what nobody asks to go on from is left unread
            [mine], [their] = (core.runner.speculation.proposer.kv_cache.layers for core in (ours, theirs))
            torch.testing.assert_close(mine.keys.cpu(), their.keys.transpose(1, 2), rtol=1e-3, atol=1e-4)
        prompts = [[*prompts[0], *got[0][0], 3], [9, 10]] if number == 0 else [[11, 12, 13], [14]]
    assert ours.stats().prefix_cache_hits >= 8  # the second block ends with a generated token


def test_what_a_request_may_not_draft_has_no_place_in_the_cache(one_layer_dir: Path, drafting: dict[str, Any]) -> None:
    """The others' drafts go on: what is made of it beside them must not be written to a block that it does not own."""
    step = triton_core(one_layer_dir, speculative_config=drafting["eagle"]).runner.speculation.proposer.step
    parts = [Part(0, 0, 4, 5, 1, 0, 4, 4, True), Part(1, 1, 8, 9, 3, 0, 8, 8, True), Part(2, 2, 6, 7, 2, 0, 6, 6, True)]
    step.fill_chain(parts)
    places = step.inputs.device["seq_lens"][:6].tolist()
    assert places == [0, 10, 8, 0, 11, 0]  # the second token of each draft, then the third


def test_more_requests_than_a_draft_graph_holds(
    one_layer_dir: Path, drafting: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minillm_serve.runner.gpu import drafter

    monkeypatch.setattr(drafter, "SIZES", (1, 2))
    settings = {"speculative_config": drafting["eagle"], "async_scheduling": False}
    asked = {"temperature": 0, "max_tokens": 5}
    got, drafts = run(triton_core(one_layer_dir, **settings), PROMPTS, **asked)
    expected, their_drafts = run(plain_core(one_layer_dir, **settings), PROMPTS, **asked)
    assert (got, drafts.made) == (expected, their_drafts.made)


def test_rejection_sampling_is_the_plain_runners(one_layer_dir: Path, drafting: dict[str, Any]) -> None:
    """It replaces what the graph has drawn; its random numbers hang on seed and position alone."""
    config = drafting["eagle"] | {"rejection_sample_method": "standard"}
    asked = {"temperature": 0.9, "seed": 4, "max_tokens": 6, "top_k": 4}
    settings = {"speculative_config": config, "async_scheduling": False}
    got, drafts = run(triton_core(one_layer_dir, **settings), PROMPTS[:2], **asked)
    expected, _ = run(plain_core(one_layer_dir, **settings), PROMPTS[:2], **asked)
    assert got == expected
    assert got != truth(one_layer_dir, PROMPTS[:2], **asked)
    assert drafts.drafted


@pytest.mark.parametrize("method", ["draft_model", "eagle"])
def test_drafts_come_back_after_steps_that_ran_ahead(
    one_layer_dir: Path, drafting: dict[str, Any], method: str
) -> None:
    """Two requests do not draft and run ahead, which overwrites features; the one that is left drafts again."""
    config = drafting[method] | {"num_speculative_tokens_per_batch_size": [[1, 1, 3], [2, 99, 0]]}
    core = triton_core(one_layer_dir, speculative_config=config)
    drafts, reader = Drafts(core), core.runner.speculation.reader
    seen: list[tuple[bool, bool]] = []
    observe = reader.observe

    def watched(batch: Any, features: Any) -> None:
        seen.append((batch is core.runner._newest, features is None))
        observe(batch, features)

    reader.observe = watched
    long = start(core, PROMPTS[:1], temperature=0, max_tokens=12)
    short = start(core, PROMPTS[1:2], temperature=0, max_tokens=4)
    done = finish(core)
    assert done[long[0]] == truth(one_layer_dir, PROMPTS[:1], temperature=0, max_tokens=12)[0]
    assert done[short[0]] == truth(one_layer_dir, PROMPTS[1:2], temperature=0, max_tokens=4)[0]
    assert drafts.drafted
    if method == "eagle":
        assert (False, True) in seen, "a step that was overtaken has kept its features"
        assert (True, True) not in seen, "a step that was not overtaken has lost its features"


def test_probabilities_that_would_have_to_come_to_the_host_are_refused(
    one_layer_dir: Path, drafting: dict[str, Any]
) -> None:
    config = drafting["eagle"] | {"rejection_sample_method": "standard", "draft_sample_method": "probabilistic"}
    with pytest.raises(ConfigError, match="greedy"):
        triton_core(one_layer_dir, speculative_config=config)


@pytest.mark.parametrize(("most", "drafts"), [(1, 5), (3, 2), (8, 4), (256, 5), (300, 24)])
def test_one_requests_drafts_have_a_graph_of_their_own_size(most: int, drafts: int) -> None:
    sizes = batch_sizes(most, drafts)
    graphs = DecodeGraphs(step=None, sizes=sizes, eager=True)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == max(most, min(64, most * (1 + drafts)))
    for count in range(1, min(drafts, 7) + 1):
        assert graphs.size_for(1 + count) == 1 + count
