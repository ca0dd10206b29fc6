"""``minillm bench prefix``: requests that begin alike: TTFT of the later ones, prefix cache on and off."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from minillm_serve.bench.cells import shared_prefix
from minillm_serve.bench.session import Plan, add_shared_arguments, check_shared, chosen_backends, finish, run_plan
from minillm_serve.bench.tables import PREFIX, print_results
from minillm_serve.compare.backend import KINDS, Backend
from minillm_serve.config import ConfigError

BACKENDS = "minillm:int8,minillm:fp32,vllm,llamacpp"
ON, OFF = "cache on", "cache off"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags on ``parser``."""
    add_shared_arguments(parser, BACKENDS, repeats=3)
    parser.add_argument("--requests", type=int, default=8, help="requests; the first fills the cache (%(default)s)")
    parser.add_argument("--prefix-tokens", type=int, default=1000, help="tokens that they share (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=8, help="new tokens each (%(default)s)")
    parser.add_argument("--together", action="store_true", help="the later requests come at once, not one by one")


def run(args: argparse.Namespace) -> int:
    """0; 1 if no engine could be measured."""
    folder = check_shared(args)
    if args.max_tokens < 1:
        raise ConfigError(f"--max-tokens must be at least 1, got {args.max_tokens}")
    cell = shared_prefix(folder, args.prefix_tokens, args.requests, args.max_tokens, args.together)
    plan = Plan("prefix", [cell], on_and_off(chosen_backends(args)), on_against_off)
    console = Console()
    document = run_plan(plan, args, folder, console)
    print_results(document, PREFIX, console)
    return finish(document)


def on_and_off(backends: Sequence[Backend]) -> list[Backend]:
    """Every backend twice: its prefix cache on, and off. Raises :class:`ConfigError` for one that has none."""
    pairs: list[Backend] = []
    for backend in backends:
        setting = backend.spec.prefix_setting
        if setting is None:
            able = ", ".join(name for name, kind in KINDS.items() if kind.prefix_setting)
            raise ConfigError(f"{backend.kind} has no prefix cache to switch; backends that have one: {able}")
        if setting in backend.settings:
            raise ConfigError(f"{setting} is what this benchmark switches: leave it out of --set")
        for variant, value in ((ON, True), (OFF, False)):
            pairs.append(replace(backend, settings={**backend.settings, setting: value}, variant=variant))
    return pairs


def on_against_off(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times less the later requests wait for their first token with the cache on, engine by engine."""
    waits = {result["label"]: result["ttft_ms"] for result in results if result.get("ttft_ms")}
    rows = []
    for result in results:
        name = result["label"].removesuffix(ON)
        if name != result["label"] and result["label"] in waits and name + OFF in waits:
            ratio = waits[name + OFF] / waits[result["label"]]
            rows.append({"cell": result["cell"], "of": name + OFF, "to": result["label"], "ratio": ratio})
    return rows
