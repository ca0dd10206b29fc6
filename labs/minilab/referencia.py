"""The baselines that a ratio must name, measured by the same code as ``make demo``, in a process of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from minillm_serve.bench.child import run_child
from minillm_serve.bench.environment import available_cores
from minillm_serve.bench.prompts import conversation, evenly_spaced


def mide_bases(carpeta: str, prompts: Sequence[str], nuevos: int, muestra: int) -> dict[str, float] | None:
    """Tokens per second of the transformers pipeline: ``una_a_una`` (on ``muestra`` prompts) and ``en_lote`` (on all).

    float32, greedy, exactly ``nuevos`` tokens each, warm-up discarded. None when transformers is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        return None
    trabajo = {
        "model": carpeta,
        "dtype": "float32",
        "threads": available_cores(),
        "max_tokens": nuevos,
        "conversations": [conversation(p) for p in prompts],
        "sample": evenly_spaced(muestra, len(prompts)),
        "batch_runs": 1,
    }
    medidas = run_child("minillm_serve.bench.baseline", trabajo, lambda aviso: None)
    return {"una_a_una": _velocidad(medidas["one_by_one"]), "en_lote": _velocidad(medidas["padded_batch"])}


def _velocidad(tandas: list[dict[str, float]]) -> float:
    """All tokens over all time, which is not the mean of the speeds."""
    return sum(t["tokens"] for t in tandas) / sum(t["seconds"] for t in tandas)
