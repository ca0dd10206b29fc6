"""``minillm bench throughput``: tokens per second of this engine and others on the same prompts, side by side.

Cells: ``homeN`` is N of the demo's chats at once; ``single`` is one chat alone. ``--sweep`` tries several values of a
setting, such as the token budget: ``--backends minillm --sweep max_num_batched_tokens=128,256,512,1024``.
"""

from __future__ import annotations

import argparse

from rich.console import Console

from minillm_serve.bench.cells import Cell, chat_prompts, together
from minillm_serve.bench.session import (
    Plan,
    add_shared_arguments,
    check_shared,
    chosen_backends,
    finish,
    run_plan,
    sweep,
)
from minillm_serve.bench.tables import THROUGHPUT, print_results
from minillm_serve.compare.backend import KINDS
from minillm_serve.config import ConfigError

BACKENDS = ",".join(["minillm:int8", "minillm:fp32", *(name for name in KINDS if name != "minillm")])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags on ``parser``."""
    add_shared_arguments(parser, BACKENDS, repeats=3)
    parser.add_argument("--cells", default="home,single", help="home, single or both (%(default)s)")
    parser.add_argument("--prompts", type=int, default=50, help="prompts of home (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=64, help="new tokens each in home (%(default)s)")
    parser.add_argument("--single-tokens", type=int, default=128, help="new tokens in single (%(default)s)")
    parser.add_argument("--sweep", metavar="KEY=V1,V2", help="try several values of a minillm setting")


def run(args: argparse.Namespace) -> int:
    """0; 1 if no engine could be measured."""
    folder = check_shared(args)
    for flag in ("prompts", "max_tokens", "single_tokens"):
        if getattr(args, flag) < (2 if "tokens" in flag else 1):
            raise ConfigError(f"--{flag.replace('_', '-')} is too small: {getattr(args, flag)}")
    cells: dict[str, Cell] = {
        "home": together(f"home{args.prompts}", chat_prompts(folder, args.prompts), args.max_tokens),
        "single": together("single", chat_prompts(folder, 1), args.single_tokens),
    }
    asked = args.cells.split(",")
    if unknown := set(asked) - cells.keys():
        raise ConfigError(f"--cells takes home and single, got {', '.join(sorted(unknown))}")
    backends = chosen_backends(args)
    plan = Plan("throughput", [cells[name] for name in asked], sweep(backends, args.sweep) if args.sweep else backends)
    console = Console()
    document = run_plan(plan, args, folder, console)
    print_results(document, THROUGHPUT, console)
    return finish(document)
