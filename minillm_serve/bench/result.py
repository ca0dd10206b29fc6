"""The demo's result: from measurements to the dict written as ``reports/demo.json``. No I/O, no clock.

Keys other tools read: ``baseline_tok_s``, ``baseline_batch_tok_s``, ``minillm_tok_s``, ``ratio``, ``ratio_batch``,
``json_total``, ``json_valid``, ``greedy_equal``, ``greedy_total``, ``environment``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import takewhile
from statistics import median
from typing import Any

from minillm_serve.bench.contention import BUSY_LIMIT
from minillm_serve.bench.judge import judge
from minillm_serve.bench.prompts import SCHEMA_CASES, GuidedCase
from minillm_serve.bench.stats import LoadResult, median_index

RATIO_TARGET = 8.0
HOMEWORK_RATIO = 5.0

Decode = Callable[[Sequence[int]], str]


def throughput(runs: Sequence[LoadResult], baselines: dict[str, Any], sample: Sequence[int]) -> dict[str, Any]:
    """The figures compared. Ours is the median run; one by one is all tokens over all time; the batch is its median."""
    chosen = median_index([run.tokens_per_second for run in runs])
    singles, batches = baselines["one_by_one"], baselines["padded_batch"]
    ours = runs[chosen].tokens_per_second
    one_by_one = sum(m["tokens"] for m in singles) / sum(m["seconds"] for m in singles)
    padded = median(m["tok_s"] for m in batches)
    return {
        "minillm_tok_s": ours,
        "baseline_tok_s": one_by_one,
        "baseline_batch_tok_s": padded,
        "ratio": ours / one_by_one,
        "ratio_batch": ours / padded,
        "minillm": {
            "runs": [run.summary() for run in runs],
            "median_run": chosen,
            "ttft_s": [t.ttft for t in runs[chosen].timelines],
            "same_tokens_in_all_runs": sum(
                len({tuple(t.token_ids) for t in timelines}) == 1
                for timelines in zip(*(run.timelines for run in runs), strict=True)
            ),
        },
        "baseline": {"sample": list(sample), **baselines},
        "others_cpu": {
            "minillm": runs[chosen].others_cpu,
            "one_by_one": _mean_share(singles),
            "padded_batch": _mean_share(batches),
        },
    }


def _mean_share(measurements: Sequence[dict[str, Any]]) -> float | None:
    """Mean of the CPU share other programs took, each measurement weighing as long as it took."""
    known = [(m["others_cpu"], m["seconds"]) for m in measurements if m.get("others_cpu") is not None]
    return sum(share * seconds for share, seconds in known) / sum(s for _, s in known) if known else None


def disturbed(result: dict[str, Any]) -> bool:
    """Other programs took so much of the CPU during some measurement that the ratios compare unequal conditions."""
    return any(share is not None and share > BUSY_LIMIT for share in result["others_cpu"].values())


def guided(cases: Sequence[GuidedCase], load: LoadResult) -> dict[str, Any]:
    """Every guided answer with its verdict; a failed request is an invalid answer."""
    answers = []
    for case, timeline in zip(cases, load.timelines, strict=True):
        verdict = judge(timeline.text, case.schema, timeline.finish_reason)
        answers.append(
            {
                "schema": case.name,
                "prompt": case.prompt,
                "text": timeline.text,
                "valid": verdict.valid and timeline.error is None,
                "reason": timeline.error or verdict.reason,
                "tokens": timeline.completion_tokens,
            }
        )
    return {
        "json_total": len(answers),
        "json_valid": sum(a["valid"] for a in answers),
        "guided": {
            "schemas": {case.name: case.schema for case in SCHEMA_CASES},
            "answers": answers,
            "load": load.summary(),
        },
    }


def equality(prompts: Sequence[str], measured: dict[str, Any], decode: Decode) -> dict[str, Any]:
    """How many answers transformers confirms, every tie and every wrong token spelled out."""
    comparisons = measured["comparisons"]

    def spelled(kind: str) -> list[dict[str, Any]]:
        return [
            {"prompt": prompt, **m, "served_text": decode([m["served"]]), "expected_text": decode([m["expected"]])}
            for prompt, comparison in zip(prompts, comparisons, strict=True)
            for m in comparison[kind]
        ]

    return {
        "greedy_total": len(comparisons),
        "greedy_equal": sum(c["equal"] for c in comparisons),
        "equality": {
            "tolerance": measured["tolerance"],
            "tokens_compared": sum(c["tokens"] for c in comparisons),
            "prompts_tokenised_alike": sum(c["prompt_equal"] for c in comparisons),
            "ties": spelled("ties"),
            "wrong": spelled("wrong"),
        },
    }


def answers(
    prompts: Sequence[str], load: LoadResult, measured: dict[str, Any], decode: Decode, eos: Collection[int]
) -> list[dict[str, Any]]:
    """Per prompt: what was answered, when, and whether transformers agrees.

    ``answer`` is the text up to the first EOS token, what a chat would show; ``text`` is all that was generated.
    """
    return [
        {
            "prompt": prompt,
            "answer": decode(before_eos(timeline.token_ids, eos)),
            "text": timeline.text,
            "token_ids": timeline.token_ids,
            "prompt_tokens": timeline.prompt_tokens,
            "completion_tokens": timeline.completion_tokens,
            "ttft_s": timeline.ttft,
            "e2e_s": timeline.e2e,
            "equal": comparison["equal"],
        }
        for prompt, timeline, comparison in zip(prompts, load.timelines, measured["comparisons"], strict=True)
    ]


def before_eos(token_ids: Sequence[int], eos: Collection[int]) -> list[int]:
    """The tokens up to, not including, the first end-of-text token."""
    return list(takewhile(lambda token: token not in eos, token_ids))


def passed(result: dict[str, Any]) -> bool:
    """Correctness alone decides: every JSON valid, every greedy answer equal. Speed is reported, it never fails."""
    return result["json_valid"] == result["json_total"] and result["greedy_equal"] == result["greedy_total"]
