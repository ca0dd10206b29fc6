"""``minillm bench load SCENARIO``: load and faults against a server of its own, with pass figures and a JSON result."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from minillm_serve.bench.environment import available_cores, describe_environment
from minillm_serve.bench.load.target import RANDOM
from minillm_serve.config import ConfigError

_PACKAGE = "minillm_serve.bench.load"
SCENARIOS = {
    "cancel": ("cancel", "200 clients ask for very long answers and leave"),
    "idle": ("idle", "10,000 idle keep-alive connections beside 32 streams"),
    "burst": ("burst", "2,000 simultaneous requests against a queue of 256"),
    "slow": ("slow", "100 clients that hardly read beside 8 that do"),
    "kv": ("kv", "16 requests in a KV cache that holds two of them"),
    "drain": ("drain", "SIGTERM under load, with and without time to finish"),
    "soak": ("soak", "half an hour at seven tenths of the load, with clients that leave and requests that are wrong"),
    "overhead": ("overhead", "tokens per second of 50 streams over HTTP beside the engine alone"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the scenarios on ``parser``."""
    commands = parser.add_subparsers(dest="scenario", required=True, metavar="SCENARIO", parser_class=_ScenarioParser)
    for name, (module, summary) in SCENARIOS.items():
        commands.add_parser(name, help=summary, description=summary).module = f"{_PACKAGE}.{module}"


class _ScenarioParser(argparse.ArgumentParser):
    """A scenario's parser: the flags of all, and its own once it is used."""

    module: str | None = None

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        if self.module is not None:
            self.add_argument(
                "--model", default=RANDOM, help="model to serve; random: one layer (default: %(default)s)"
            )
            self.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
            importlib.import_module(self.module).add_arguments(self)
            self.module = None
        return super().parse_known_args(args, namespace)


def run(args: argparse.Namespace) -> int:
    """0 when every figure keeps its limit, else 1."""
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise ConfigError(f"--json: the folder {args.json.parent} does not exist")
    if not sys.platform.startswith("linux"):
        raise ConfigError("minillm bench load needs Linux: it watches the server through /proc")
    _raise_file_limit()
    console = Console()
    scenario = importlib.import_module(f"{_PACKAGE}.{SCENARIOS[args.scenario][0]}")
    verdict = asyncio.run(scenario.measure(args, lambda text: console.print(f"  {text}", style="dim")))
    verdict.show(console)
    if args.json is not None:
        document = verdict.to_dict() | {"environment": describe_environment(available_cores(), "float32")}
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if verdict.passed else 1


def _raise_file_limit() -> None:
    """As many open files as the system allows, here and in the servers started from here."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
