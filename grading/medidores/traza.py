"""Traces: what a real vLLM answered to fifty clients, chunk by chunk, with the pipeline measured beside it.

A trace is recorded once (:mod:`.grabar`) and replayed in virtual time for every student; its name says where it
comes from, its sha256 goes into each record.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from random import Random
from typing import Any

from minilab.pruebas.servidor_simulado import Script
from minilab_grading.medidores.banco import MeterError
from minilab_grading.medidores.pipeline import measure_pipeline
from minilab_grading.medidores.preguntas import (
    Answer,
    ask_all,
    free_body,
    nonce_prompts,
    refuse_dishonest,
    server_version,
)
from minillm_serve.bench.contention import BUSY_LIMIT
from minillm_serve.bench.environment import available_cores, cpu_model, memory_gib
from minillm_serve.model.store import weights_name

FOLDER = Path(__file__).resolve().parents[1] / "trazas"
SCHEMA = "minilab-traza/1"
CLIENTS, NEW_TOKENS, SAMPLE = 50, 32, 6
WARM_UP = 8


@dataclass(frozen=True)
class Trace:
    """data: as written in the file; sha256: of the file's bytes."""

    name: str
    sha256: str
    data: dict[str, Any]

    @property
    def answers(self) -> list[Answer]:
        return [Answer.from_plain(a) for a in self.data["respuestas"]]

    @property
    def pipeline_tok_s(self) -> float:
        return self.data["pipeline"]["una_a_una"]["tok_s"]

    def stamp(self) -> dict[str, Any]:
        """What a grade's record says about it."""
        about = {key: self.data[key] for key in ("fecha", "entorno")}
        return {"modo": "traza grabada", "traza": self.name, "sha256": self.sha256, **about}


def load_trace(name: str, folder: Path = FOLDER) -> Trace:
    """Raises :class:`MeterError` for a trace that is not there or is not one."""
    try:
        raw = (folder / f"{name}.json").read_bytes()
        data = json.loads(raw)
    except (OSError, ValueError) as error:
        known = ", ".join(sorted(f.stem for f in folder.glob("*.json"))) or "ninguna"
        raise MeterError(f"no se puede leer la traza «{name}» (hay: {known}): {error}") from error
    if not isinstance(data, dict) or data.get("esquema") != SCHEMA:
        raise MeterError(f"{name}.json no es una traza {SCHEMA}")
    return Trace(name, hashlib.sha256(raw).hexdigest(), data)


def script_of_answer(answer: Answer) -> Script:
    """The simulated server's script: the role, the text as it came, the usage."""
    first = {"t": answer.chunks[0][0], "rol": "assistant", "contenido": ""}
    texts = [{"t": t, "contenido": text} for t, text in answer.chunks]
    return [first, *texts, {"t": answer.end, "uso": answer.tokens}]


@dataclass(frozen=True)
class Collected:
    """Prompts and what a server answered to them, all at once. model: what it calls itself; version: of vLLM."""

    prompts: list[str]
    answers: list[Answer]
    new_tokens: int
    version: str


def collect(
    base_url: str, model: str, folder: Path, device: str = "cpu", clients: int = CLIENTS, new_tokens: int = NEW_TOKENS
) -> Collected:
    """Ask a running server, after a warm-up that is discarded. Raises :class:`MeterError` for dishonest answers.

    base_url: ends in ``/v1``. model: what the server calls it; folder: the same weights, with their tokenizer.
    """
    prompts = nonce_prompts(Random(), clients)
    ask_all(base_url, [free_body(model, p, new_tokens) for p in nonce_prompts(Random(), WARM_UP)])
    answers = ask_all(base_url, [free_body(model, p, new_tokens) for p in prompts])
    refuse_dishonest(answers, folder, new_tokens, device)
    return Collected(prompts, answers, new_tokens, server_version(base_url))


def write_trace(
    path: Path,
    collected: Collected,
    folder: Path,
    order: Sequence[str],
    device: str = "cpu",
    dtype: str = "float32",
    threads: int | None = None,
    busy_limit: float = BUSY_LIMIT,
) -> Trace:
    """Measure the pipeline on the same prompts and write ``path`` (its stem becomes the trace's name).

    order: the command that started the server, without paths. device, dtype: of the pipeline, the same as the server's.
    On a CPU the server must have ended: even an idle one takes the cores from the pipeline. busy_limit: share of CPU
    that other programs may take; past it nothing is written and :class:`MeterError` is raised.
    """
    pipeline = measure_pipeline(folder, collected.prompts, collected.new_tokens, SAMPLE, device, dtype, threads)
    if (share := pipeline["una_a_una"]["otros_cpu"] or 0) > busy_limit:
        raise MeterError(
            f"otros programas se llevaron el {share:.0%} de la CPU: graba en un equipo que no haga nada más"
        )
    data = {
        "esquema": SCHEMA,
        "fecha": datetime.now(UTC).strftime("%Y-%m-%d"),
        "orden": list(order),
        "entorno": trace_environment(device, threads, {"vllm": collected.version}),
        "modelo": weights_name(folder),
        "dtype": dtype,
        "tokens_nuevos": collected.new_tokens,
        "pipeline": pipeline,
        "respuestas": [a.to_plain() for a in collected.answers],
    }
    rows = [f" {json.dumps(k)}: {_value(k, v)}" for k, v in data.items()]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    return load_trace(path.stem, path.parent)


def record_trace(
    path: Path,
    base_url: str,
    model: str,
    folder: Path,
    *,
    order: Sequence[str],
    device: str = "cpu",
    dtype: str = "float32",
    threads: int | None = None,
) -> Trace:
    """Both at once, for a server that may go on running beside the pipeline: one on a GPU."""
    return write_trace(path, collect(base_url, model, folder, device), folder, order, device, dtype, threads)


def _value(key: str, value: Any) -> str:
    """One answer a line: a trace is read in a diff, too."""
    if key != "respuestas":
        return json.dumps(value, ensure_ascii=False)
    return "[\n" + ",\n".join("  " + json.dumps(a, ensure_ascii=False) for a in value) + "\n ]"


def trace_environment(device: str, threads: int | None, versions: Mapping[str, str]) -> dict[str, Any]:
    """The machine, its load average when the answers are in, and what ran on it."""
    machine: dict[str, Any] = {"cpu": cpu_model(), "nucleos": available_cores(), "memoria_gib": memory_gib()}
    if device != "cpu":
        import torch

        machine["gpu"] = torch.cuda.get_device_name()
    own = {name: metadata.version(name) for name in ("torch", "transformers")}
    load = round(os.getloadavg()[0], 1)
    return {**machine, "carga_media": load, "hilos": threads or available_cores(), **own, **versions}


def throughput(answers: Sequence[Answer]) -> float:
    """Tokens of the whole system per second: from the first send to the last chunk."""
    return sum(a.tokens for a in answers) / max(a.end for a in answers)
