"""Meters: what is timed, or asked of a real vLLM, outside the sandbox. :func:`meters` chooses them by mode."""

from __future__ import annotations

from pathlib import Path

from minilab_grading.arnes.calificar import Meter
from minilab_grading.medidores.banco import MeterError

__all__ = ["CLOCKS", "DEFAULT_TRACE", "VLLM", "MeterError", "close_meters", "meters"]

CLOCKS = ("real", "contado", "no")
VLLM = ("traza", "vivo", "no")
DEFAULT_TRACE = "vllm-0.32-cpu"


def meters(
    clock: str = "real",
    vllm: str = "traza",
    *,
    model: str = "smollm2-135m",
    course: Path | None = None,
    trace: str = DEFAULT_TRACE,
    device: str = "cpu",
    threads: int | None = None,
) -> dict[str, Meter]:
    """Level -> meter, for ``grade_timed``; a level whose mode is ``no`` is left out. Close them with `close_meters`.

    clock: ``real`` (the model and the pipeline), ``contado`` (a tiny model and counted costs). vllm: ``traza`` (the
    recorded ``trace``), ``vivo`` (a vLLM of this machine on ``device``). model: a known name or a folder. course: the
    course folder, where the machine's ceiling is kept. Nothing is loaded before the first measurement.
    Raises :class:`MeterError` for a model, trace or vLLM that is not there, and ValueError for an unknown mode.
    """
    if clock not in CLOCKS or vllm not in VLLM:
        raise ValueError(f"modes are {CLOCKS} and {VLLM}, got {clock!r} and {vllm!r}")
    chosen: dict[str, Meter] = {}
    if clock == "contado":
        from minilab_grading.medidores.reloj_contado import CountedClock

        chosen["reloj_real"] = CountedClock()
    elif clock == "real":
        from minilab_grading.medidores.reloj_real import RealClock

        chosen["reloj_real"] = RealClock(_model(model), threads, course)
    if vllm == "traza":
        from minilab_grading.medidores.vllm_traza import RecordedVllm

        chosen["vllm"] = RecordedVllm(trace)
    elif vllm == "vivo":
        from minilab_grading.medidores.vllm_vivo import LiveVllm

        chosen["vllm"] = LiveVllm(_model(model), device, threads)
    return chosen


def close_meters(chosen: dict[str, Meter]) -> None:
    """End the measuring processes; without this they end with the grader."""
    for meter in chosen.values():
        meter.close()


def _model(name: str) -> Path:
    from minillm_serve.config import ConfigError
    from minillm_serve.model.store import resolve_model

    try:
        return resolve_model(name)
    except ConfigError as error:
        raise MeterError(f"no hay modelo «{name}» para medir; consíguelo con: minillm model get ({error})") from error
