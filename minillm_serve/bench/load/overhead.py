"""What HTTP costs: 50 streams against the server beside the same prompts given to the engine without one.

Each round measures both, in processes of their own, now the one first and now the other. What counts is the median of
the rounds' ratios: a machine that others share drifts by more than the limit within minutes, less within a round. The
client has no machine of its own: its CPU time is reported too.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from minillm_serve.bench.cells import Prompt, chat_prompts
from minillm_serve.bench.child import run_child
from minillm_serve.bench.load.target import Target, completion, serving
from minillm_serve.bench.load.verdict import Figure, Verdict, exactly
from minillm_serve.bench.load.wire import DONE, Connection
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model

MODES: dict[str, dict[str, str]] = {"fp32": {}, "int8": {"quantization": "int8", "kv_cache_dtype": "int8"}}
LEAST_SHARE = 0.9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.set_defaults(model=DEFAULT_MODEL)
    parser.add_argument("--streams", type=int, default=50, help="streams at once (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=64, help="tokens of each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each (default: %(default)s)")
    parser.add_argument("--mode", choices=MODES, default="fp32", help="arithmetic (default: %(default)s)")


async def measure(args: argparse.Namespace, say: Callable[[str], None]) -> Verdict:
    """Tokens per second of both; prefix caching off, since the warm-up has seen the prompts."""
    folder = resolve_model(args.model)
    prompts = chat_prompts(folder, args.streams)
    engine = {**MODES[args.mode], "enable_prefix_caching": False}
    job = {"model": str(folder), "engine": engine, "prompts": prompts, "max_tokens": args.max_tokens}
    alone, served, client = [], [], []

    async def measure_alone() -> None:
        result = await asyncio.to_thread(run_child, "minillm_serve.bench.load.offline", job, say)
        alone.append(result["tokens"] / result["seconds"])

    async def measure_served() -> None:
        rate, share = await _served(str(folder), prompts, args)
        served.append(rate)
        client.append(share)

    for number in range(args.rounds):
        both = (measure_alone, measure_served)
        for one in both if number % 2 == 0 else reversed(both):
            await one()
        say(f"round {number + 1}: engine alone {alone[-1]:.0f} tok/s, served {served[-1]:.0f} tok/s")
    ratios = [over_http / without for over_http, without in zip(served, alone, strict=True)]
    figures = (
        Figure("engine alone, tokens per second", statistics.median(alone)),
        Figure("served, tokens per second", statistics.median(served)),
        Figure("served / alone", statistics.median(ratios), "x", least=LEAST_SHARE),
        Figure("the same, lowest round", min(ratios), "x"),
        Figure("the same, highest round", max(ratios), "x"),
        Figure("CPU of the client", statistics.median(client) * 100, "% of a core"),
        exactly("rounds", len(served), args.rounds),
    )
    return Verdict("overhead", figures, {"mode": args.mode, "alone": alone, "served": served, "client_cpu": client})


async def _served(model: str, prompts: Sequence[Prompt], args: argparse.Namespace) -> tuple[float, float]:
    """(tokens per second from the first request sent to the last token here, share of a core that this client took)."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in MODES[args.mode].items()]
    with serving(model, [*flags, "--no-enable-prefix-caching"]) as target:
        await asyncio.gather(*(_stream(target, prompt, 4) for prompt in prompts))
        started, cpu = time.perf_counter(), time.process_time()
        tokens = await asyncio.gather(*(_stream(target, prompt, args.max_tokens) for prompt in prompts))
        seconds = time.perf_counter() - started
        return sum(tokens) / seconds, (time.process_time() - cpu) / seconds


async def _stream(target: Target, prompt: Prompt, max_tokens: int) -> int:
    """Events that brought text; one for each token, as vLLM's clients count them."""
    connection = await Connection.open(target.address)
    body: dict[str, Any] = completion(prompt=prompt, max_tokens=max_tokens, ignore_eos=True, stream=True)
    last, count = b"", -1
    async for _, event in connection.events("/v1/completions", body):
        last, count = event, count + 1
    connection.close()
    if last != DONE:
        raise ConnectionError("a stream ended without [DONE]")
    return count
