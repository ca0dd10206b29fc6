"""The baselines that a ratio must name, measured by the same code as ``make demo``, in a process of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from minillm_serve.bench.child import run_child
from minillm_serve.bench.environment import available_cores
from minillm_serve.bench.prompts import conversation, evenly_spaced


def mide_bases(folder: str, prompts: Sequence[str], new_tokens: int, sample: int) -> dict[str, float] | None:
    """Tokens per second of the transformers pipeline: ``una_a_una`` (on ``sample`` prompts) and ``en_lote`` (on all).

    float32, greedy, exactly ``new_tokens`` tokens each, warm-up discarded. None when transformers is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        return None
    job = {
        "model": folder,
        "dtype": "float32",
        "threads": available_cores(),
        "max_tokens": new_tokens,
        "conversations": [conversation(p) for p in prompts],
        "sample": evenly_spaced(sample, len(prompts)),
        "batch_runs": 1,
    }
    measurements = run_child("minillm_serve.bench.baseline", job, lambda notice: None)
    return {"una_a_una": _speed(measurements["one_by_one"]), "en_lote": _speed(measurements["padded_batch"])}


def _speed(runs: list[dict[str, float]]) -> float:
    """All tokens over all time, which is not the mean of the speeds."""
    return sum(t["tokens"] for t in runs) / sum(t["seconds"] for t in runs)
