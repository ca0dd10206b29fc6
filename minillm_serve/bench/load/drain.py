"""SIGTERM under load: with time to finish nothing that was accepted is lost; without, the process is gone at once."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from minillm_serve.bench.load.target import Target, completion, serving
from minillm_serve.bench.load.verdict import Figure, Verdict, exactly
from minillm_serve.bench.load.wire import DONE, Answer, Connection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--streams", type=int, default=32, help="requests under way (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=1500, help="tokens of each (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=30, help="time they get (default: %(default)s)")


async def measure(args: argparse.Namespace, say: Callable[[str], None]) -> Verdict:
    """First with ``--shutdown-timeout``, then without."""
    say(f"{args.streams} streams, then SIGTERM with {args.seconds} s to finish")
    drained = await _drain(args)
    say("the same with no time to finish")
    aborted = await _abort(args)
    return Verdict("drain", (*drained, *aborted))


async def _drain(args: argparse.Namespace) -> tuple[Figure, ...]:
    # Fewer run than were accepted: those in the queue must be finished too.
    flags = ["--shutdown-timeout", str(args.seconds), "--max-num-seqs", str(max(1, args.streams // 2))]
    with serving(args.model, flags) as target:
        streams, idle = await _under_way(target, args)
        target.process.tell_to_end()
        ready, refused = await _ask_closing(idle)
        whole = await asyncio.gather(*streams)
        code = await asyncio.to_thread(target.process.exit_code, args.seconds + 10.0)
    return (
        exactly("drain: accepted requests lost", args.streams - sum(whole), 0),
        exactly("drain: status of /ready meanwhile", ready.status, 503),
        exactly("drain: status of a new request meanwhile", refused.status, 503),
        exactly("drain: new request told when to come back", "retry-after" in refused.headers, 1),
        exactly("drain: exit code", -1 if code is None else code, 0),
    )


async def _abort(args: argparse.Namespace) -> tuple[Figure, ...]:
    with serving(args.model, ["--shutdown-timeout", "0"]) as target:
        streams, _ = await _under_way(target, args)
        children = _children(target.process.pid)
        target.process.tell_to_end()
        told = time.perf_counter()
        code = await asyncio.to_thread(target.process.exit_code, 30.0)
        seconds = time.perf_counter() - told
        whole = await asyncio.gather(*streams)
        orphans = sum(Path(f"/proc/{child}").exists() for child in children)
    return (
        Figure("abort: gone after", seconds, "s", most=4.0),
        exactly("abort: exit code", -1 if code is None else code, 0),
        exactly("abort: streams that pretend to be whole", sum(whole), 0),
        exactly("abort: processes left behind", orphans, 0),
    )


async def _under_way(target: Target, args: argparse.Namespace) -> tuple[list[asyncio.Task[bool]], list[Connection]]:
    """The streams, once the server has accepted all of them, and two idle connections that were open before."""
    idle = [await Connection.open(target.address) for _ in range(2)]
    for connection in idle:
        await connection.ask("GET", "/health")
    streams = [asyncio.create_task(_stream(target, args.max_tokens)) for _ in range(args.streams)]
    while True:
        page = await target.page()
        if page.value("num_requests_running") + page.value("num_requests_waiting") >= args.streams:
            return streams, idle
        await asyncio.sleep(0.01)


async def _stream(target: Target, max_tokens: int) -> bool:
    """Whether the stream came to its right end: as many tokens as asked for, a finish reason and [DONE]."""
    connection = await Connection.open(target.address)
    events: list[bytes] = []
    try:
        body = completion(max_tokens=max_tokens, ignore_eos=True, stream=True)
        events = [event async for _, event in connection.events("/v1/completions", body)]
    except (OSError, EOFError):
        return False
    finally:
        connection.close()
    return len(events) > 1 and events[-1] == DONE and b'"finish_reason":"length"' in events[-2]


async def _ask_closing(connections: list[Connection]) -> tuple[Answer, Answer]:
    """A completion and /ready, each over a connection that the closing server still has."""
    refusing, asking = connections
    while (refused := await refusing.ask("POST", "/v1/completions", completion(max_tokens=1))).status == 200:
        await asyncio.sleep(0.01)  # the signal has not been handled yet
    return await asking.ask("GET", "/ready"), refused


def _children(pid: int) -> list[int]:
    """Processes that ``pid`` has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
