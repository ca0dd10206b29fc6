"""``minillm bench WHAT``: each subcommand is imported when it is asked for."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

COMMANDS = {
    "throughput": ("minillm_serve.bench.throughput", "tokens per second beside other engines"),
    "latency": ("minillm_serve.bench.latency", "time to first token and between tokens"),
    "prefix": ("minillm_serve.bench.prefix", "time to first token with the prefix cache on and off"),
    "guided": ("minillm_serve.bench.guided", "JSON Schema: right verdicts, time per mask, beside other engines"),
    "guided-soundness": (
        "minillm_serve.bench.guided_soundness",
        "JSON Schema: texts of the engine, strictly parsed and validated",
    ),
    "guided-throughput": (
        "minillm_serve.bench.guided_throughput",
        "tokens per second with and without a constraint",
    ),
    "spec": ("minillm_serve.bench.spec", "speculative decoding: acceptance, speed-up, where it loses"),
    "fuzz": ("minillm_serve.bench.fuzz.command", "odd bodies and broken HTTP against the server"),
    "load": ("minillm_serve.bench.load.command", "load and faults against the server, with pass figures"),
    "gpu": ("minillm_serve.bench.gpu.command", "tokens per second on a GPU, beside its limits and other engines"),
    "rerank": ("minillm_serve.bench.rerank", "which way of scoring puts the answering passage first"),
    "stages": ("minillm_serve.bench.stage_table", "the engine's story, stage by stage"),
}


class LazyParser(argparse.ArgumentParser):
    """A subcommand's parser that imports its module, and declares its flags, when it is first used."""

    module: str | None = None

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        if self.module is not None:
            implementation, self.module = importlib.import_module(self.module), None
            implementation.add_arguments(self)
            self.set_defaults(run_benchmark=implementation.run)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands on ``parser``."""
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="WHAT", parser_class=LazyParser)
    for name, (module, summary) in COMMANDS.items():
        commands.add_parser(name, help=summary, description=summary).module = module


def run(args: argparse.Namespace) -> int:
    """Run the subcommand that was asked for."""
    return args.run_benchmark(args)
