"""From timed answers to figures: tokens per second, latencies, bandwidth, ratios, equality. No clock, no I/O.

A result's keys: ``backend``, ``dtype``, ``cell``, ``tok_s`` (median of the runs), ``tok_s_min``, ``tok_s_max``,
``tok_s_runs``, ``decode_tok_s``, ``ttft_ms`` and ``itl_ms`` (medians), ``latency`` (their percentiles), ``peak_mb``,
``gb_s``, ``gflop_s``, ``share_of_bandwidth``, ``share_of_compute``, ``others_cpu``, ``same_tokens_as``, ``reason``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from minillm_serve.bench.rounds import Answered, Measured, Run
from minillm_serve.bench.stats import describe
from minillm_serve.compare.weights import ModelSize

REFERENCES = ("transformers", "transformers-batch", "transformers-cb", "vllm")
Limits = dict[str, float | None]


def result_of(measured: Measured, size: ModelSize, limits: Limits, gguf_bytes: int | None = None) -> dict[str, Any]:
    """All figures of one engine on one cell. gguf_bytes: what llama.cpp reads at each step."""
    backend, cell, runs = measured.backend, measured.cell, measured.runs
    result: dict[str, Any] = {
        "backend": backend.kind,
        "label": backend.label,
        "dtype": backend.dtype,
        "cell": cell.name,
        "requests": sum(map(len, cell.waves[cell.prepare :])),
        "concurrency": cell.concurrency,
        "prompt_tokens": sum(len(prompt) for wave in cell.waves[cell.prepare :] for prompt in wave),
        "max_tokens": cell.max_tokens,
        "settings": dict(backend.settings),
        "info": measured.info,
        "load_s": measured.load_s,
        "peak_mb": measured.peak_mb,
        "reason": measured.reason,
    }
    if not runs:
        return result
    rates = [run.new_tokens / run.seconds for run in runs]
    answers = [answer for run in runs for answer in run.answers]
    result |= {
        "tok_s": median(rates),
        "tok_s_min": min(rates),
        "tok_s_max": max(rates),
        "tok_s_runs": rates,
        "seconds_runs": [run.seconds for run in runs],
        "others_cpu": [run.others_cpu for run in runs],
        "decode_tok_s": decode_rate(answers, cell.max_tokens) if cell.concurrency == 1 else None,
        **latencies(answers),
        "same_tokens_in_all_runs": same_in_all_runs(runs),
    }
    return result | efficiency(result, size, limits, gguf_bytes)


def latencies(answers: Sequence[Answered]) -> dict[str, Any]:
    """TTFT and the pauses between tokens, in milliseconds, over all requests of all runs."""
    first = describe([answer.times[0] * 1e3 for answer in answers if answer.times])
    gaps = describe([(late - early) * 1e3 for answer in answers for early, late in pairwise(answer.times)])
    return {
        "ttft_ms": first["p50"] if first else None,
        "itl_ms": gaps["p50"] if gaps else None,
        "latency": {"ttft_ms": first, "itl_ms": gaps},
    }


def decode_rate(answers: Sequence[Answered], max_tokens: int) -> float | None:
    """Tokens per second of one request after its first token: the median over the requests."""
    rates = [
        (max_tokens - 1) / (answer.times[-1] - answer.times[0])
        for answer in answers
        if len(answer.times) > 1 and answer.times[-1] > answer.times[0]
    ]
    return median(rates) if rates else None


def efficiency(result: dict[str, Any], size: ModelSize, limits: Limits, gguf_bytes: int | None) -> dict[str, Any]:
    """How near the machine's limits: bytes of weights each decode step reads (one request), operations per second.

    A share is left out where its limit, or the type of the arithmetic (llama.cpp's mixed ones), is not known.
    """
    dtype = result["dtype"]
    kept = (result.get("info") or {}).get("weight_bytes")  # an engine may keep weights smaller than it computes
    step_bytes = gguf_bytes if dtype == "gguf" else kept or size.step_bytes(dtype)
    rate = result["decode_tok_s"]
    gb_s = rate * step_bytes / 1e9 if rate and step_bytes else None
    flop = size.flop(result["prompt_tokens"], result["requests"] * result["max_tokens"])
    gflop_s = flop / median(result["seconds_runs"]) / 1e9
    compute = limits.get({"float32": "fp32_gflop_s", "int8": "int8_gop_s"}.get(dtype, ""))
    return {
        "gb_s": gb_s,
        "gflop_s": gflop_s,
        "share_of_bandwidth": _share(gb_s, limits.get("read_gb_s")),
        "share_of_compute": _share(gflop_s, compute),
    }


def _share(reached: float | None, limit: float | None) -> float | None:
    return reached / limit if reached is not None and limit else None


def same_in_all_runs(runs: Sequence[Run]) -> bool | None:
    """Whether every run gave the same tokens; None where the engine does not tell its tokens."""
    if not all(answer.token_ids for run in runs for answer in run.answers):
        return None
    return len({tuple(answer.token_ids for answer in run.answers) for run in runs}) == 1


def compare_tokens(cell: Sequence[Measured]) -> list[dict[str, Any] | None]:
    """For each engine of a cell: how many greedy answers equal those of the first fp32 reference that ran.

    Only fp32 engines that tell their tokens can be judged, over the prompts that both answered; sums in another order
    may break a tie the other way, so a few unequal answers are no proof of an error.
    """
    answers = [_first_answers(measured) for measured in cell]
    order = sorted(range(len(cell)), key=lambda i: (_rank(cell[i]), i))
    reference = next((i for i in order if answers[i]), None)
    verdicts: list[dict[str, Any] | None] = []
    for i, own in enumerate(answers):
        if reference is None or i == reference or not own:
            verdicts.append(None)
            continue
        common = own.keys() & answers[reference].keys()
        equal = sum(own[prompt] == answers[reference][prompt] for prompt in common)
        verdicts.append({"backend": cell[reference].backend.label, "equal": equal, "of": len(common)})
    return verdicts


def _first_answers(measured: Measured) -> dict[tuple[int, ...], tuple[int, ...]]:
    if measured.backend.dtype != "float32" or not measured.runs:
        return {}
    return {answer.prompt: answer.token_ids for answer in measured.runs[0].answers if answer.token_ids}


def _rank(measured: Measured) -> int:
    kind = measured.backend.kind
    return REFERENCES.index(kind) if kind in REFERENCES else len(REFERENCES)


def ratios(results: Sequence[dict[str, Any]], key: str = "tok_s") -> list[dict[str, Any]]:
    """Ours over theirs, cell by cell: each minillm result against every other engine's and the later ones of ours.

    ``ratio``: of the medians. ``low``, ``high``: the lowest and highest ratio of two runs of the same turn (throughput
    alone).
    """
    measured = [result for result in results if result.get(key)]
    rows = []
    for i, ours in enumerate(measured):
        for j, theirs in enumerate(measured):
            if ours["backend"] != "minillm" or ours["cell"] != theirs["cell"]:
                continue
            if j == i or (theirs["backend"] == "minillm" and j < i):
                continue
            turns = [a / b for a, b in zip(ours["tok_s_runs"], theirs["tok_s_runs"], strict=False)]
            rows.append(
                {
                    "cell": ours["cell"],
                    "of": ours["label"],
                    "to": theirs["label"],
                    "ratio": ours[key] / theirs[key],
                    **({"low": min(turns), "high": max(turns)} if key == "tok_s" else {}),
                }
            )
    return rows
