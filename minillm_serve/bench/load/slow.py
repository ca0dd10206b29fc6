"""Clients that ask for long streams and hardly read them: they cost little, hurt nobody, and are let go in the end."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np

from minillm_serve.bench.load.target import Page, Target, completion, serving
from minillm_serve.bench.load.verdict import Figure, Verdict, exactly
from minillm_serve.bench.load.wire import Connection, slow_stream

RECEIVE_BUFFER = 4096
BYTES_PER_SECOND = 10
KB = 1000
SAMPLES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--readers", type=int, default=100, help="slow readers (default: %(default)s)")
    parser.add_argument("--normal", type=int, default=8, help="timed streams beside them (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=6000, help="what a slow one asks for (default: %(default)s)")
    parser.add_argument("--write-timeout", type=int, default=10, help="of the server, in s (default: %(default)s)")


async def measure(args: argparse.Namespace, say: Callable[[str], None]) -> Verdict:
    """The same number of quick readers is what the timed streams are compared with: both fill the batch."""
    with serving(args.model, ["--write-timeout", str(args.write_timeout), "--max-num-seqs", "128"]) as target:
        await target.complete()
        say(f"{args.normal} timed streams beside {args.readers} that read as fast as they can")
        with _watching(target) as memory_beside_quick:
            quick = [asyncio.ensure_future(_read(target, args.max_tokens)) for _ in range(args.readers)]
            baseline = await _timed(target, args.normal)
            await asyncio.sleep(args.write_timeout)  # so that both rounds fill as much of the KV cache
        for task in quick:
            task.cancel()
        await asyncio.gather(*quick, return_exceptions=True)
        await target.until_idle(30.0)
        before = await target.page()
        say(f"the same beside {args.readers} that read {BYTES_PER_SECOND} bytes a second")
        body = completion(max_tokens=args.max_tokens, ignore_eos=True, stream=True)
        with _watching(target) as memory_beside_slow:
            slow = [
                asyncio.ensure_future(
                    slow_stream(target.address, "/v1/completions", body, BYTES_PER_SECOND, RECEIVE_BUFFER)
                )
                for _ in range(args.readers)
            ]
            beside = await _timed(target, args.normal)
            idle = await target.until_idle(120.0)
        after = await target.page()
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    grown = _settled(memory_beside_slow) - _settled(memory_beside_quick)
    aborted = _aborted(after) - _aborted(before)
    figures = (
        Figure("time between tokens, 99th percentile, beside quick readers", baseline * 1000, "ms"),
        Figure("the same beside slow readers", beside * 1000, "ms"),
        Figure("ratio", beside / baseline, "x", most=1.5),
        Figure(
            "memory per slow reader, beyond a quick one's", max(0.0, grown) * 1e6 / KB / args.readers, "kB", most=256.0
        ),
        Figure("all gauges back at 0 after", idle, "s", most=args.write_timeout + 60.0),
        exactly("slow readers let go, counted as aborts", aborted, args.readers),
    )
    return Verdict("slow", figures)


@contextmanager
def _watching(target: Target) -> Iterator[list[float]]:
    """Resident memory of the server in MB, SAMPLES a second, until the block ends."""
    samples: list[float] = []

    async def watch() -> None:
        while True:
            samples.append(target.resident_mb())
            await asyncio.sleep(1 / SAMPLES)

    task = asyncio.ensure_future(watch())
    try:
        yield samples
    finally:
        task.cancel()


def _settled(samples: Sequence[float]) -> float:
    """The most that was held for a second: what a step needs for its logits comes and goes within it."""
    return max(min(samples[first : first + SAMPLES]) for first in range(max(1, len(samples) - SAMPLES)))


def _aborted(page: Page) -> float:
    return page.value("request_success_total", finished_reason="abort")


async def _read(target: Target, max_tokens: int) -> list[float]:
    """When each event of a stream came."""
    connection = await Connection.open(target.address)
    try:
        body = completion(max_tokens=max_tokens, ignore_eos=True, stream=True)
        return [now async for now, _ in connection.events("/v1/completions", body)]
    finally:
        connection.close()


async def _timed(target: Target, streams: int, max_tokens: int = 400) -> float:
    """The 99th percentile of the seconds between two tokens, over all of ``streams``."""
    times = await asyncio.gather(*(_read(target, max_tokens) for _ in range(streams)))
    gaps = [after - before for moments in times for before, after in pairwise(moments)]
    return float(np.percentile(gaps, 99))
