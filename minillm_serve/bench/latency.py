"""``minillm bench latency``: time to first token and the pauses between tokens, alone and with others at once."""

from __future__ import annotations

import argparse

from rich.console import Console

from minillm_serve.bench.cells import chat_prompts, together
from minillm_serve.bench.session import (
    Plan,
    add_shared_arguments,
    check_shared,
    chosen_backends,
    finish,
    run_plan,
    sweep,
)
from minillm_serve.bench.tables import LATENCY, print_results
from minillm_serve.config import ConfigError

BACKENDS = "minillm:int8,minillm:fp32,vllm,llamacpp"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags on ``parser``."""
    add_shared_arguments(parser, BACKENDS, repeats=3)
    parser.add_argument("--concurrency", default="1,8,50", help="requests at once, by comma (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=64, help="new tokens each (%(default)s)")
    parser.add_argument("--sweep", metavar="KEY=V1,V2", help="try several values of a minillm setting")


def run(args: argparse.Namespace) -> int:
    """0; 1 if no engine could be measured."""
    folder = check_shared(args)
    if args.max_tokens < 2:
        raise ConfigError(f"--max-tokens must be at least 2 (a pause needs two tokens), got {args.max_tokens}")
    try:
        counts = [int(text) for text in args.concurrency.split(",")]
    except ValueError:
        raise ConfigError(f"--concurrency takes numbers such as 1,8,50, got {args.concurrency!r}") from None
    if len(set(counts)) < len(counts):
        raise ConfigError(f"--concurrency names a number twice: {args.concurrency}")
    cells = [together(f"at-once-{count}", chat_prompts(folder, count), args.max_tokens) for count in counts]
    backends = chosen_backends(args)
    plan = Plan("latency", cells, sweep(backends, args.sweep) if args.sweep else backends)
    console = Console()
    document = run_plan(plan, args, folder, console)
    print_results(document, LATENCY, console)
    return finish(document)
