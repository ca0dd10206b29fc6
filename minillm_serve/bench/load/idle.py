"""Ten thousand keep-alive connections that say nothing, and streams that must not notice them."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from minillm_serve.bench.load.target import Target, completion, serving
from minillm_serve.bench.load.verdict import Figure, Verdict, exactly
from minillm_serve.bench.load.wire import DONE, Connection, once
from minillm_serve.config import ConfigError

AT_ONCE = 200
PROBE_EVERY_S = 0.05
KB = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--connections", type=int, default=10_000, help="idle connections (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=32, help="active streams (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=1000, help="tokens of each (default: %(default)s)")


async def measure(args: argparse.Namespace, say: Callable[[str], None]) -> Verdict:
    """Each idle connection has been used once, and once again at the end."""
    _check_file_limit(args.connections + 200)
    flags = ["--keep-alive-timeout", "600", "--max-connections", str(args.connections + 500)]
    with serving(args.model, flags) as target:
        await target.complete()
        before = target.resident_mb()
        connections: list[Connection] = []
        refused = 0
        for start in range(0, args.connections, AT_ONCE):
            count = min(AT_ONCE, args.connections - start)
            opened = await asyncio.gather(*(_used_once(target) for _ in range(count)), return_exceptions=True)
            connections += [one for one in opened if isinstance(one, Connection)]
            refused += sum(isinstance(one, BaseException) for one in opened)
        grown = target.resident_mb() - before
        say(f"{len(connections)} idle connections open; {args.streams} streams of {args.max_tokens} tokens")
        streams = asyncio.gather(*(_stream(target, args.max_tokens) for _ in range(args.streams)))
        probes = await _probe_until(target, streams)
        finished = await streams
        alive = await _still_alive(connections)
        for connection in connections:
            connection.close()
    figures = (
        exactly("connections refused or reset", refused, 0),
        exactly("idle connections that still answer at the end", alive, len(connections)),
        exactly("streams that ended well", sum(finished), args.streams),
        Figure("/health, 99th percentile", float(np.percentile(probes, 99)) * 1000, "ms", most=250.0),
        Figure("memory per idle connection", grown * 1e6 / KB / max(1, len(connections)), "kB", most=60.0),
        Figure("/health, probes", len(probes)),
    )
    return Verdict("idle", figures)


def _check_file_limit(needed: int) -> None:
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < needed:
        raise ConfigError(f"{needed} open files are needed and the limit is {limit}: ulimit -n, or fewer --connections")


async def _used_once(target: Target) -> Connection:
    connection = await Connection.open(target.address)
    await connection.ask("GET", "/health")
    return connection


async def _stream(target: Target, max_tokens: int) -> bool:
    connection = await Connection.open(target.address)
    last = b""
    async for _, event in connection.events(
        "/v1/completions", completion(max_tokens=max_tokens, ignore_eos=True, stream=True)
    ):
        last = event
    connection.close()
    return last == DONE


async def _probe_until(target: Target, done: asyncio.Future[list[bool]]) -> list[float]:
    """Seconds of GET /health, each over a new connection, until ``done``."""
    probes: list[float] = []
    while not done.done() or not probes:
        started = asyncio.get_running_loop().time()
        await once(target.address, "GET", "/health")
        probes.append(asyncio.get_running_loop().time() - started)
        await asyncio.sleep(PROBE_EVERY_S)
    return probes


async def _still_alive(connections: Sequence[Connection]) -> int:
    async def answers(connection: Connection) -> bool:
        try:
            return (await connection.ask("GET", "/health")).status == 200
        except (OSError, EOFError):
            return False

    alive = 0
    for start in range(0, len(connections), AT_ONCE):
        alive += sum(await asyncio.gather(*map(answers, connections[start : start + AT_ONCE])))
    return alive
