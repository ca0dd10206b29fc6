"""The baseline beside a server: the transformers pipeline in a fresh process, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minilab_grading.medidores.banco import MeterError
from minillm_serve.bench.baseline import PipelineBaseline
from minillm_serve.bench.child import ChildError, Progress, child_main, run_child
from minillm_serve.bench.contention import OtherPrograms
from minillm_serve.bench.environment import available_cores
from minillm_serve.bench.prompts import conversation, evenly_spaced


def measure_pipeline(
    folder: Path, prompts: Sequence[str], new_tokens: int, sample: int, device: str, dtype: str, threads: int | None
) -> dict[str, Any]:
    """``una_a_una`` on ``sample`` of the prompts, ``en_lote`` on all, padded; each with tokens, segundos, tok_s and
    ``otros_cpu``: the share of the CPU (0 to 1) that other programs took meanwhile, None where it is unknown.
    """
    job = {
        "model": str(folder),
        "dtype": dtype,
        "threads": threads or available_cores(),
        "device": device,
        "max_tokens": new_tokens,
        "conversations": [conversation(p) for p in prompts],
        "sample": evenly_spaced(min(sample, len(prompts)), len(prompts)),
    }
    try:
        return run_child("minilab_grading.medidores.pipeline", job, lambda text: None)
    except ChildError as error:
        raise MeterError(f"la pipeline no se pudo medir: {error}") from error


def _measure(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    import torch

    baseline = PipelineBaseline(job["model"], job["dtype"], job["threads"])
    if job["device"] != "cpu":
        baseline.pipeline.model.to(job["device"])
        baseline.pipeline.device = torch.device(job["device"])
    chats, new_tokens = job["conversations"], job["max_tokens"]
    baseline.generate(chats[:1], min(8, new_tokens), 1)
    one_by_one = _figure(baseline, [chats[i] for i in job["sample"]], new_tokens, 1)
    progress("una a una: medida")
    baseline.generate(chats[:8], 2, 8)
    return {"una_a_una": one_by_one, "en_lote": _figure(baseline, chats, new_tokens, len(chats))}


def _figure(baseline: PipelineBaseline, chats: list, new_tokens: int, batch: int) -> dict[str, float | None]:
    with OtherPrograms() as others:
        tokens, seconds = baseline.generate(chats, new_tokens, batch)
    share = None if others.share is None else round(others.share, 3)
    figure = {"tokens": tokens, "segundos": round(seconds, 4), "tok_s": round(tokens / seconds, 3)}
    return {**figure, "otros_cpu": share}


if __name__ == "__main__":
    child_main(_measure)
