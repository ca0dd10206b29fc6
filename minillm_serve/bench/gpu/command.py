"""``minillm bench gpu``: throughput on one GPU beside vLLM and transformers, and how near to the device's limits it is.

Every engine runs all cells of a shape in a process of its own, one after another. ``--kernels`` measures the Triton ops
one by one instead, ``--speculation`` a single request with and without drafts; ``--profile`` adds where a step's time
goes. ``--json FILE --add`` keeps what FILE holds of other
engines, shapes and cells: a measurement in several parts, on one machine.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minillm_serve.bench.gpu.cells import (
    CELLS,
    GPU_MEMORY_UTILIZATION,
    MAX_MODEL_LEN,
    MAX_NUM_SEQS,
    MEASURED_SHAPES,
    SHAPES,
    TEMPERATURE,
    Cell,
    make_cell,
    write_shape,
)
from minillm_serve.bench.gpu.kernels import ALWAYS, row_line
from minillm_serve.bench.gpu.processes import WorkerError, follow
from minillm_serve.bench.gpu.profile import profile_lines
from minillm_serve.bench.gpu.report import OURS, Report, public, result_lines
from minillm_serve.bench.gpu.speculation import speculation_line
from minillm_serve.config import ConfigError, EngineConfig

PEERS = ("vllm", "transformers")
ONE_BY_ONE = ("transformers",)
ONE_BY_ONE_CELL = "home50"
DECODES = {"single": [256], "home50": [192] * 50, "mix256": [850] * 256}  # lengths halfway through each cell
PROMPT_LENGTH = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags on ``parser``."""
    parser.add_argument("--shapes", default="both", help=f"by comma, of {', '.join(SHAPES)}; both: the first two")
    parser.add_argument(
        "--cells", help=f"by comma, of {', '.join(CELLS)}; all (the default, if nothing else is measured)"
    )
    parser.add_argument("--peers", default="", metavar="NAMES",
                        help="engines after ours, of vllm, transformers; minillm: its place among them")  # fmt: skip
    parser.add_argument("--vllm-site", type=Path, metavar="DIR", help="folder of packages for vLLM's process alone")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each cell (%(default)s); transformers: one")
    parser.add_argument("--sample", type=int, default=50, help="prompts of home50 for transformers (%(default)s)")
    parser.add_argument("--kernels", nargs="?", const="", metavar="PART",
                        help="measure the Triton ops (with PART in their name), cells only if asked for")  # fmt: skip
    parser.add_argument("--speculation", action="store_true",
                        help="measure one request with and without drafts on the first shape")  # fmt: skip
    parser.add_argument("--profile", action="store_true", help="show where a step's time goes, by kernel and by phase")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
                        help="an EngineConfig field of our engine; may be repeated")  # fmt: skip
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the command out")
    parser.add_argument("--scale", type=float, default=1.0, help="share of prompts and lengths to keep (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, as they come")
    parser.add_argument("--add", action="store_true", help="keep what FILE holds of other engines, shapes and cells")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds an engine may say nothing (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """0; 1 if an engine failed on a shape. Raises :class:`ConfigError` on what cannot be measured."""
    shapes = _chosen("shapes", ",".join(MEASURED_SHAPES) if args.shapes == "both" else args.shapes, tuple(SHAPES))
    cells = _cells(args)
    backends = _chosen("peers", args.peers, (*PEERS, OURS)) if args.peers else []
    backends = backends if OURS in backends else [OURS, *backends]
    settings = _settings(args)
    _check(args)
    report = Report({"repeats": args.repeats, "scale": args.scale, "engine": settings}, args.json, _kept(args))
    with tempfile.TemporaryDirectory() as folder, _ended_cleanly():
        for shape in shapes:
            write_shape(shape, Path(folder) / shape)
            for backend in backends if cells else [OURS]:
                job = _job(args, backend, shape, cells, settings, Path(folder))
                if backend == OURS and shape == shapes[0]:
                    job["tasks"] |= _device_tasks(args, shapes)
                if job["cells"] or job["tasks"]:
                    _measure(job, shape, args, report)
    for line in result_lines(report.document):
        print(line)
    return 1 if report.failed else 0


@contextmanager
def _ended_cleanly() -> Iterator[None]:
    """A polite end of this process (``timeout``, a service manager) ends the worker too, which holds the GPU."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _measure(job: dict[str, Any], shape: str, args: argparse.Namespace, report: Report) -> None:
    backend = job["backend"]
    site = args.vllm_site if backend == "vllm" else None
    cells = {name: Cell(name, cell["prompts"], cell["new"]) for name, cell in job["cells"].items()}
    start = time.monotonic()
    _say(f"{backend} on {shape}: starting")
    try:
        for message in follow(job, site, args.timeout):
            report.take(message, backend, shape, cells.get(message.get("run", {}).get("cell")))
            for line in _told(message, f"{backend} on {shape}"):
                _say(f"[{time.monotonic() - start:5.0f} s] {line}")
    except WorkerError as error:
        report.fail(backend, shape, str(error))
        _say(f"{backend} on {shape} failed: {public(str(error))}")


def _told(message: dict[str, Any], who: str) -> list[str]:
    """What a reader who waits is shown of a message."""
    [(kind, value)] = message.items()
    if kind == "run":
        return [f"{who}, {value['cell']}: {value['tokens'] / value['seconds']:.0f} tok/s"]
    if kind == "kernel":
        return [row_line(value)]
    if kind == "speculation":
        return [f"{who}, {speculation_line(value)}"]
    if kind == "profile":
        return [f"{who}, {value['steps']}:", *profile_lines(value)]
    return [f"{who}: " + ", ".join(f"{name} {part}" for name, part in value.items() if not isinstance(part, dict))]


def _job(
    args: argparse.Namespace, backend: str, shape: str, cells: list[str], settings: dict[str, Any], folder: Path
) -> dict[str, Any]:
    one_by_one = backend in ONE_BY_ONE
    made = [make_cell(name, args.scale) for name in cells if not one_by_one or name == ONE_BY_ONE_CELL]
    if one_by_one:
        made = [replace(cell, prompts=cell.prompts[: args.sample], new=cell.new[: args.sample]) for cell in made]
    ours = backend == OURS
    return {
        "backend": backend,
        "folder": str(folder / shape),
        "device": args.device,
        "cells": {
            cell.name: {k: v for k, v in asdict(cell).items() if k != "name"}
            | {"warm_up": 1 if one_by_one else len(cell.new)}
            for cell in made
        },
        "repeats": 1 if one_by_one else args.repeats,
        "temperature": TEMPERATURE,
        "max_model_len": MAX_MODEL_LEN,
        "max_num_seqs": MAX_NUM_SEQS,
        "gpu_memory_utilization": GPU_MEMORY_UTILIZATION,
        "settings": settings if ours else {},
        "tasks": {"profile": _profiles(args, cells)} if ours and cells else {},
    }


def _profiles(args: argparse.Namespace, cells: list[str]) -> dict[str, Any]:
    """Which steps to watch: always those of ``single``, for what a graph node costs; the others if asked."""
    names = [name for name in cells if args.profile or name == "single"]
    steps: dict[str, Any] = {
        name: {"lengths": [max(1, round(n * args.scale)) for n in DECODES[name][: max(1, round(256 * args.scale))]]}
        for name in names
    }
    return steps | ({"prompts": {"length": max(1, round(PROMPT_LENGTH * args.scale))}} if args.profile else {})


def _device_tasks(args: argparse.Namespace, shapes: list[str]) -> dict[str, Any]:
    """The limits, and what is measured beside or instead of cells: kernels (with cells, decode attention over many
    tokens at least), a request with drafts."""
    tasks: dict[str, Any] = {"limits": True}
    if args.speculation:
        tasks["speculation"] = {"shape": SHAPES[shapes[0]], "repeats": args.repeats, "scale": args.scale}
    if args.kernels is not None or _cells(args):
        only = ALWAYS if args.kernels is None else args.kernels
        tasks["kernels"] = {"shapes": {name: SHAPES[name] for name in shapes}, "only": only}
    return tasks


def _cells(args: argparse.Namespace) -> list[str]:
    if args.cells is None:
        return [] if args.speculation or args.kernels is not None else list(CELLS)
    return _chosen("cells", ",".join(CELLS) if args.cells == "all" else args.cells, CELLS)


def _chosen(flag: str, text: str, known: tuple[str, ...]) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names or set(names) - set(known) or len(set(names)) < len(names):
        raise ConfigError(f"--{flag} takes different names by comma among {', '.join(known)}, got {text!r}")
    return names


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of ``--set``: JSON where it is JSON, else text."""
    settings: dict[str, Any] = {}
    for text in args.settings:
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--set takes KEY=VALUE, got {text!r}")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = {"None": None, "True": True, "False": False}.get(value, value)
    try:
        EngineConfig(model="", device=args.device, **settings)
    except TypeError as error:
        raise ConfigError(f"--set: {error}") from error
    return settings


def _check(args: argparse.Namespace) -> None:
    for name in ("repeats", "sample"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if not 0 < args.scale <= 1:
        raise ConfigError(f"--scale must be above 0 and at most 1, got {args.scale:g}")
    if not args.timeout > 0:
        raise ConfigError(f"--timeout must be more than 0 seconds, got {args.timeout:g}")
    if args.vllm_site is not None and not args.vllm_site.is_dir():
        raise ConfigError(f"--vllm-site {args.vllm_site}: no such folder")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {args.json}: the folder does not exist")
    if args.add and args.json is None:
        raise ConfigError("--add keeps what a file holds: name it with --json")
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ConfigError("torch finds no CUDA GPU here; --device cpu --shapes tiny tries the command out")


def _kept(args: argparse.Namespace) -> dict[str, Any] | None:
    if not args.add or not args.json.is_file():
        return None
    try:
        return json.loads(args.json.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"--json {args.json} is not a file of this command: {error}") from error


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
