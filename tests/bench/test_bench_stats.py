"""Arithmetic on recorded timestamps, and the figures the demo publishes."""

from __future__ import annotations

import pytest
from bench_samples import sample_result, timeline

from minillm_serve.bench import result
from minillm_serve.bench.stats import LoadResult, describe, median_index


def test_latencies_follow_their_definitions() -> None:
    seen = timeline("a", 10.0, [10.5, 10.75, 11.5])
    assert (seen.ttft, seen.e2e, seen.itl, seen.tpot) == (0.5, 1.5, [0.25, 0.75], 0.5)


def test_tpot_counts_tokens_not_chunks() -> None:
    """A chunk may carry several tokens: TPOT divides by the server's token count."""
    assert timeline("a", 0.0, [1.0, 3.0], completion_tokens=5).tpot == 0.5
    assert timeline("a", 0.0, [1.0], completion_tokens=1).tpot is None


def test_throughput_spans_first_send_to_last_chunk() -> None:
    load = LoadResult((timeline("a", 1.0, [2.0, 3.0]), timeline("b", 1.5, [2.0, 2.5, 5.0])))
    assert load.wall == 4.0
    assert load.completion_tokens == 5
    assert load.tokens_per_second == 1.25


def test_failed_requests_are_counted_and_left_out_of_latencies() -> None:
    failed = timeline("b", 0.0, [], error="refused", completion_tokens=0)
    summary = LoadResult((timeline("a", 0.0, [1.0, 2.0]), failed)).summary()
    assert (summary["requests"], summary["failed"], summary["completion_tokens"]) == (2, 1, 2)
    assert summary["ttft_s"]["max"] == 1.0


def test_a_load_where_everything_failed_has_no_latency_and_no_throughput() -> None:
    summary = LoadResult((timeline("a", 0.0, [], error="refused"),)).summary()
    assert summary["ttft_s"] is None
    assert summary["tok_s"] == 0.0


def test_percentiles_interpolate_linearly() -> None:
    stats = describe([1.0, 2.0, 3.0, 4.0, 5.0])
    assert stats == pytest.approx({"mean": 3, "p50": 3, "p95": 4.8, "p99": 4.96, "min": 1, "max": 5})


def test_the_median_run_is_a_real_run() -> None:
    assert median_index([300.0, 100.0, 200.0]) == 2
    assert median_index([300.0, 100.0]) == 1
    with pytest.raises(ValueError, match="no runs"):
        median_index([])


def test_ratios_are_quotients_of_the_published_figures() -> None:
    figures = sample_result()
    assert figures["baseline_tok_s"] == 16.0
    assert figures["baseline_batch_tok_s"] == 128.0
    assert figures["minillm_tok_s"] == 2.0  # runs of 4 and 2 tok/s: the lower one of two is the median
    assert figures["ratio"] == figures["minillm_tok_s"] / figures["baseline_tok_s"]
    assert figures["ratio_batch"] == figures["minillm_tok_s"] / figures["baseline_batch_tok_s"]


def test_one_by_one_is_all_tokens_over_all_time() -> None:
    """The mean of rates would overweight quick prompts."""
    runs = [LoadResult((timeline("a", 0.0, [1.0]),))]
    singles = [{"tokens": 10, "seconds": 1.0, "tok_s": 10.0}, {"tokens": 10, "seconds": 4.0, "tok_s": 2.5}]
    figures = result.throughput(runs, {"one_by_one": singles, "padded_batch": singles}, [0])
    assert figures["baseline_tok_s"] == 4.0


def test_runs_that_disagree_are_counted() -> None:
    same, other = timeline("a", 0.0, [1.0]), timeline("a", 0.0, [1.0], token_ids=[99])
    singles = [{"tokens": 1, "seconds": 1.0, "tok_s": 1.0}]
    figures = result.throughput(
        [LoadResult((same, same)), LoadResult((same, other))], {"one_by_one": singles, "padded_batch": singles}, [0]
    )
    assert figures["minillm"]["same_tokens_in_all_runs"] == 1


def test_only_correctness_decides_the_verdict() -> None:
    good = sample_result()
    assert good["ratio"] < result.RATIO_TARGET
    assert result.passed(good)
    assert not result.passed(sample_result(valid=False))
    assert not result.passed(good | {"greedy_equal": good["greedy_total"] - 1})


def test_a_disturbed_measurement_is_told_apart() -> None:
    calm = sample_result()
    assert calm["others_cpu"] == {"minillm": None, "one_by_one": 0.02, "padded_batch": None}
    assert not result.disturbed(calm)
    assert result.disturbed(calm | {"others_cpu": calm["others_cpu"] | {"minillm": 0.4}})


def test_an_answer_is_shown_up_to_its_end_of_text_token() -> None:
    assert result.before_eos([5, 6, 2, 7, 2], {2}) == [5, 6]
    assert result.before_eos([5, 6], {2}) == [5, 6]
