"""Clients that leave: what they asked for stops at once, and the next one is served.

The storm of vLLM's ``test_request_cancellation``: 200 requests for 10,000 tokens each, given up after half a second.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable

from minillm_serve.bench.load.target import Target, completion, serving
from minillm_serve.bench.load.verdict import Figure, Verdict, exactly
from minillm_serve.bench.load.wire import Connection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--requests", type=int, default=200, help="clients that leave (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=0.5, help="seconds until they do (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=8000, help="what each asks for (default: %(default)s)")


async def measure(args: argparse.Namespace, say: Callable[[str], None]) -> Verdict:
    """Half of the clients stream and half wait for the whole answer."""
    with serving(args.model, ["--max-num-queued-reqs", str(2 * args.requests)]) as target:
        await target.complete()
        before, files = await target.page(), target.open_files()
        say(f"{args.requests} requests, each given up after {args.patience} s")
        left = await asyncio.gather(*(_impatient(target, args, stream=i % 2 == 0) for i in range(args.requests)))
        fresh = await target.complete()
        idle = await target.until_idle(10.0)
        after = await target.page()
        aborted = after.value("request_success_total", finished_reason="abort") - before.value(
            "request_success_total", finished_reason="abort"
        )
        files_after = await _settled_files(target, files)
    figures = (
        exactly("clients that left before the end", sum(left), args.requests),
        exactly("status of the next request", fresh.status, 200),
        Figure("next request answered in", fresh.seconds, "s", most=5.0),
        Figure("all gauges back at 0 after", idle, "s", most=2.0),
        exactly("aborts counted", aborted, sum(left)),
        Figure("file descriptors left open", files_after - files, most=0),
    )
    return Verdict("cancel", figures)


async def _impatient(target: Target, args: argparse.Namespace, stream: bool) -> bool:
    """Whether the client left while its answer was still being made."""
    connection = await Connection.open(target.address)
    body = completion(max_tokens=args.max_tokens, ignore_eos=True, stream=stream)
    try:
        async with asyncio.timeout(args.patience):
            if stream:
                async for _ in connection.events("/v1/completions", body):
                    pass
            else:
                await connection.ask("POST", "/v1/completions", body)
        return False
    except TimeoutError:
        return True
    finally:
        connection.close()


async def _settled_files(target: Target, expected: int) -> int:
    """Open files once the server has noticed that its clients are gone."""
    for _ in range(100):
        if target.open_files() <= expected:
            break
        await asyncio.sleep(0.02)
    return target.open_files()
