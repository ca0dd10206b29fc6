"""From judged schemas to the figures of ``minillm bench guided``. No I/O but the table, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import compress
from statistics import mean, median
from typing import Any

from rich.console import Console
from rich.table import Table

REFERENCE = "llguidance"  # whose times the ratios are of
FAILURES = ("internal", "timeout", "memory", "crash")
Case = dict[str, Any]
Pass = dict[str, list[dict[str, Any]]]


def summarise(cases: Sequence[Case], passes: Sequence[Pass]) -> dict[str, Any]:
    """Verdicts from the first pass (a later one that differs is counted), times from all: medians over the passes."""
    engines = {name: _verdicts(cases, [one[name] for one in passes]) for name in passes[0]}
    for name, figures in engines.items():
        times = [_times(one[name]) for one in passes]
        figures["times"] = {key: median(t[key] for t in times) for key in times[0]} if all(times) else {}
        figures["times_of_passes"] = times
        if REFERENCE in passes[0] and all(times):
            others = [_times(one[REFERENCE]) for one in passes]
            pairs = list(zip(times, others, strict=True))
            if all(others):
                figures["ratios"] = {key: median(t[key] / o[key] for t, o in pairs) for key in times[0]}
                figures["ratios_common"] = _common([one[name] for one in passes], [one[REFERENCE] for one in passes])
    return {"engines": engines}


def _common(ours: Sequence[list[dict[str, Any]]], others: Sequence[list[dict[str, Any]]]) -> dict[str, float]:
    """Ratios of the times over those schemas alone that both engines take: the rest is often the harder part."""
    both = [a["outcome"] == b["outcome"] == "compiled" for a, b in zip(ours[0], others[0], strict=True)]
    pairs = [
        (_times(list(compress(a, both))), _times(list(compress(b, both)))) for a, b in zip(ours, others, strict=True)
    ]
    return {key: median(a[key] / b[key] for a, b in pairs) for key in pairs[0][0]}


def _verdicts(cases: Sequence[Case], passes: Sequence[list[dict[str, Any]]]) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    refusals: list[dict[str, Any]] = []
    tested = right = 0
    counts = {"valid": 0, "invalid": 0, "valid_refused": 0, "invalid_accepted": 0}
    for case, answer in zip(cases, passes[0], strict=True):
        outcomes[answer["outcome"]] += 1
        tested += bool(case["tests"])
        if answer["outcome"] != "compiled":
            entry = {"id": case["id"], "outcome": answer["outcome"], "why": answer["why"]}
            (failures if answer["outcome"] in FAILURES else refusals).append(entry)
            continue
        bad = 0
        for index, (test, instance) in enumerate(zip(case["tests"], answer["instances"], strict=True)):
            kind = "valid" if test["valid"] else "invalid"
            counts[kind] += 1
            if instance["accepted"] != test["valid"]:
                bad += 1
                counts["valid_refused" if test["valid"] else "invalid_accepted"] += 1
                wrong.append({"id": case["id"], "test": index, "valid": test["valid"], "at": instance["at"]})
        right += bool(case["tests"]) and not bad
    changed = sum(_verdict(a) != _verdict(b) for other in passes[1:] for a, b in zip(passes[0], other, strict=True))
    return {
        "schemas": len(cases),
        "outcomes": dict(outcomes),
        "with_tests": tested,
        "right": right,
        "right_share": right / tested if tested else None,
        **counts,
        "valid_refused_share": counts["valid_refused"] / counts["valid"] if counts["valid"] else None,
        "invalid_accepted_share": counts["invalid_accepted"] / counts["invalid"] if counts["invalid"] else None,
        "verdicts_that_changed": changed,
        "wrong": wrong,
        "failures": failures,
        "refusals": refusals,
    }


def _verdict(answer: dict[str, Any]) -> tuple[Any, ...]:
    return answer["outcome"], *(instance["accepted"] for instance in answer.get("instances", ()))


def _times(answers: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Microseconds of one pass. ``step`` is a mask and the token accepted after it."""
    compiled = [answer for answer in answers if answer["outcome"] == "compiled"]
    instances = [instance for answer in compiled for instance in answer["instances"]]
    masks = sorted(us for instance in instances for us in instance["mask_us"])
    accepts = sorted(us for instance in instances for us in instance["accept_us"])
    steps = sorted(
        m + a for instance in instances for m, a in zip(instance["mask_us"], instance["accept_us"], strict=False)
    )
    compiles = sorted(answer["compile_us"] for answer in compiled)
    if not masks or not accepts:
        return {}
    return {
        "mask_p50": _quantile(masks, 0.5),
        "mask_mean": mean(masks),
        "mask_p99": _quantile(masks, 0.99),
        "accept_mean": mean(accepts),
        "step_p50": _quantile(steps, 0.5),
        "step_mean": mean(steps),
        "step_p99": _quantile(steps, 0.99),
        "compile_p50": _quantile(compiles, 0.5),
        "compile_p90": _quantile(compiles, 0.9),
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def print_summary(document: dict[str, Any], console: Console) -> None:
    """Two tables: what was judged right, and how long it took."""
    verdicts = Table("engine", "schemas right", "valid refused", "invalid accepted", "refused", "failures")
    times = Table("engine", "mask p50 µs", "mean", "p99", "accept mean", "compile p50 ms", "p90")
    for name, figures in document["engines"].items():
        verdicts.add_row(
            name,
            f"{figures['right']}/{figures['with_tests']} ({_percent(figures['right_share'])})",
            f"{figures['valid_refused']}/{figures['valid']} ({_percent(figures['valid_refused_share'])})",
            f"{figures['invalid_accepted']}/{figures['invalid']} ({_percent(figures['invalid_accepted_share'])})",
            str(figures["outcomes"].get("refused", 0)),
            str(len(figures["failures"])),
        )
        if figures["times"]:
            t, r = figures["times"], figures.get("ratios", {})
            cells = [("mask_p50", 1), ("mask_mean", 1), ("mask_p99", 1), ("accept_mean", 1)]
            cells += [("compile_p50", 1000), ("compile_p90", 1000)]
            times.add_row(name, *(_time(t[key] / unit, r.get(key)) for key, unit in cells))
    console.print(verdicts, times)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def _time(value: float, ratio: float | None) -> str:
    return f"{value:.1f}" if ratio is None else f"{value:.1f} ({ratio:.2f}×)"
