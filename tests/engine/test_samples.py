"""n and best_of: the samples of a request are what single requests would be, share its prompt, and end together."""

from __future__ import annotations

import pytest
from dead_end import DeadEnd
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_serve import LLM, RequestError, SamplingParams, StructuredOutputsParams
from minillm_serve.engine.group import derived_seed

PROMPT = "The scheduler gives every request its share of the token budget, and the cache keeps what was computed."
WARM = {"temperature": 1.0, "max_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module", params=[True, False], ids=["prefix caching", "no prefix caching"])
def llm(request, tiny_model_dir):
    return LLM(tiny_model_dir, block_size=4, num_kv_blocks=300, enable_prefix_caching=request.param)


@pytest.fixture(scope="module")
def plain(tiny_model_dir):
    return LLM(tiny_model_dir, block_size=4, num_kv_blocks=300, enable_prefix_caching=False)


def token_ids(output):
    return [sample.token_ids for sample in output.outputs]


def test_each_sample_is_the_request_with_its_derived_seed(llm, plain):
    [together] = llm.generate(PROMPT, SamplingParams(n=4, seed=7, **WARM))
    alone = [plain.generate(PROMPT, SamplingParams(seed=derived_seed(7, i), **WARM))[0].outputs[0] for i in range(4)]
    assert token_ids(together) == [sample.token_ids for sample in alone]
    assert [sample.text for sample in together.outputs] == [sample.text for sample in alone]
    assert [sample.index for sample in together.outputs] == [0, 1, 2, 3]
    assert len(set(token_ids(together))) == 4, "samples should differ"


def test_a_sample_is_the_same_whatever_n_is(llm):
    few, many = (llm.generate(PROMPT, SamplingParams(n=n, seed=3, **WARM))[0] for n in (2, 5))
    [one] = llm.generate(PROMPT, SamplingParams(seed=3, **WARM))
    assert token_ids(many)[:2] == token_ids(few) and token_ids(few)[:1] == token_ids(one)
    assert derived_seed(3, 1) != derived_seed(4, 0) and derived_seed(-(2**63), 9) >= 0


def test_samples_hold_the_full_blocks_of_their_prompt_once(llm):
    core = llm.core
    group = core.prepare(PROMPT, SamplingParams(n=5, seed=0, **WARM))
    core.add("shared", group)
    core.step()
    kv = core.scheduler.kv
    kv.check()
    shared = (len(group.prompt_token_ids) - 1) // kv.block_size
    tables = [kv.table(rid) for rid in group.rids]
    assert shared > 3 and len({table[:shared] for table in tables}) == 1
    assert core.stats().kv_blocks_used == shared + 5 * (len(tables[0]) - shared)
    tails = [block for table in tables for block in table[shared:]]
    assert len(set(tails)) == len(tails), "what a sample writes is its own"
    core.abort([group.rid])
    assert core.stats().kv_blocks_used == 0 and not core.has_work()
    core.scheduler.kv.check()


def test_without_prefix_caching_two_requests_share_nothing(plain):
    groups = [plain.core.prepare(PROMPT, SamplingParams(n=2, seed=i, **WARM)) for i in range(2)]
    for group in groups:
        plain.core.add("a", group)
    plain.core.step()
    first, second = (set(plain.core.scheduler.kv.table(group.rid)) for group in groups)
    assert not first & second
    plain.core.abort([group.rid for group in groups])


def test_samples_come_back_in_order_when_memory_is_short(tiny_model_dir, plain):
    """Too small a pool for all samples at once: some are preempted and resumed, and the answers do not change."""
    tight = LLM(tiny_model_dir, block_size=4, num_kv_blocks=24, max_num_batched_tokens=9)
    params = SamplingParams(n=4, seed=11, temperature=1.0, max_tokens=40, ignore_eos=True)
    assert token_ids(tight.generate(PROMPT[:20], params)[0]) == token_ids(plain.generate(PROMPT[:20], params)[0])
    assert tight.stats().num_preemptions > 0 and tight.stats().kv_blocks_used == 0


def test_more_samples_than_seats_wait_for_their_turn(tiny_model_dir, plain):
    narrow = LLM(tiny_model_dir, block_size=4, num_kv_blocks=300, max_num_seqs=2)
    params = SamplingParams(n=5, seed=2, **WARM)
    [output] = narrow.generate(PROMPT, params)
    assert token_ids(output) == token_ids(plain.generate(PROMPT, params)[0])
    metrics = output.metrics
    assert metrics.arrival <= metrics.first_scheduled <= metrics.first_token <= metrics.finished


def test_best_of_returns_the_likeliest_and_hides_what_ranked_them(llm):
    [every] = llm.generate(PROMPT, SamplingParams(n=6, seed=5, logprobs=0, **WARM))
    [best] = llm.generate(PROMPT, SamplingParams(n=2, best_of=6, seed=5, **WARM))
    likeliest = sorted(every.outputs, key=lambda sample: sample.cumulative_logprob, reverse=True)[:2]
    assert token_ids(best) == [sample.token_ids for sample in likeliest]
    assert [sample.index for sample in best.outputs] == [0, 1]
    assert all(sample.logprobs is None and sample.cumulative_logprob is None for sample in best.outputs)
    for sample in every.outputs:
        assert sample.cumulative_logprob == pytest.approx(sum(entry.logprob for entry in sample.logprobs))


def test_best_of_shows_nothing_before_its_end(llm):
    core = llm.core
    core.add("best", core.prepare(PROMPT, SamplingParams(n=1, best_of=3, seed=5, **WARM)))
    outputs = [output for _ in range(100) if core.has_work() for output in core.step()]
    assert len(outputs) == 1 and outputs[0].finished


def test_snapshots_of_a_group_grow_sample_by_sample(llm):
    core = llm.core
    params = SamplingParams(n=3, seed=4, temperature=1.0, max_tokens=30)
    core.add("stream", core.prepare(PROMPT, params))
    seen = [((), "")] * 3
    snapshots = []
    while core.has_work():
        for output in core.step():
            snapshots.append(output)
            for index, sample in enumerate(output.outputs):
                tokens, text = seen[index]
                assert tuple(sample.token_ids[: len(tokens)]) == tokens and sample.text.startswith(text)
                seen[index] = (tuple(sample.token_ids), sample.text)
    assert [output.finished for output in snapshots] == [False] * (len(snapshots) - 1) + [True]
    lengths = [len(snapshots[0].outputs[i].token_ids) for i in range(3)]
    assert max(lengths) <= 1, "a snapshot does not change when the sequence grows behind it"
    [whole] = llm.generate(PROMPT, params)
    assert seen == [(sample.token_ids, sample.text) for sample in whole.outputs]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 12), st.integers(0, 25)), min_size=1, max_size=5),
    st.booleans(),
    st.booleans(),
)
def test_groups_can_be_aborted_at_any_moment(llm, plans, tight_budget, static):
    """(samples, step of arrival, steps until the abort) of each request; whatever the moment, no block stays."""
    core, kv = llm.core, llm.core.scheduler.kv
    live, ended = {}, set()
    budget, core.scheduler.max_num_batched_tokens = core.scheduler.max_num_batched_tokens, 7 if tight_budget else 512
    batching, core.scheduler.batching = core.scheduler.batching, "static" if static else "continuous"
    try:
        for step in range(80):
            for number, (n, arrival, _) in enumerate(plans):
                if arrival == step:
                    group = core.prepare(PROMPT[: 10 + 15 * number], SamplingParams(n=n, seed=number, **WARM))
                    core.add(str(number), group)
                    live[number] = group.rid
            for number, (_, arrival, patience) in enumerate(plans):
                if arrival + patience == step and number in live:
                    ended |= {output.rid for output in core.abort([live[number]]) if output.finished}
            kv.check()
            if core.has_work():
                ended |= {output.rid for output in core.step() if output.finished}
        while core.has_work():
            ended |= {output.rid for output in core.step() if output.finished}
    finally:
        core.scheduler.max_num_batched_tokens, core.scheduler.batching = budget, batching
        core.abort(live.values())
    assert ended == set(live.values()), "every request is answered"
    assert llm.stats().kv_blocks_used == 0 and not core._active and not core._samples
    kv.check()


def test_a_sample_that_cannot_go_on_fails_its_whole_request_and_no_other(plain):
    plain.core.admission.grammars.put(StructuredOutputsParams(json={}), DeadEnd())
    stuck = SamplingParams(n=3, seed=1, structured_outputs=StructuredOutputsParams(json={}), max_tokens=8)
    failed, fine = plain.generate([PROMPT, PROMPT], [stuck, SamplingParams(n=2, seed=1, **WARM)])
    assert {sample.finish_reason for sample in failed.outputs} == {"error"}
    assert {sample.finish_reason for sample in fine.outputs} == {"length"}
    assert plain.stats().kv_blocks_used == 0


@pytest.mark.parametrize(
    "fields", [{"n": 0}, {"n": 2, "temperature": 0}, {"n": 3, "best_of": 2}, {"n": True}, {"best_of": 2.0}]
)
def test_an_impossible_number_of_samples_is_refused_by_name(fields):
    with pytest.raises(RequestError) as caught:
        SamplingParams(**fields)
    assert caught.value.param in ("n", "best_of")
