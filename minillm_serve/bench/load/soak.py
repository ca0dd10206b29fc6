"""Half an hour at 70 % load: nothing grows, nothing is left over, and the last minutes are as fast as the first.

Open loop: requests come when they come (Poisson), whatever the server does; the rate is a share of what the same
requests reach when sixteen clients each send the next one as soon as they have their answer. A machine drifts within
half an hour, and at this load a little shows a lot: so at the end the old server is measured in turns with a new one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minillm_serve.bench.load.target import Page, Target, completion, serving
from minillm_serve.bench.load.verdict import Figure, Verdict, exactly
from minillm_serve.bench.load.wire import Connection, StreamRefused, once

CLIENTS = 16
KV_BLOCKS = 2048
SAMPLE_EVERY_S = 5.0
SATURATED_S = 20.0  # less in a soak of less than a minute
TURNS = 6  # of the old server and a new one, each a sixtieth of the time
BAD: tuple[Any, ...] = (
    b"{",
    completion(temperature=9),
    completion(prompt=""),
    completion(max_tokens=0),
    completion(prompt=[2**40]),
    completion(response_format={"type": "json_schema"}),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: %(default)s)")
    parser.add_argument("--load", type=float, default=0.7, help="share of the saturated rate (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=48, help="most tokens of a request (default: %(default)s)")
    parser.add_argument("--warm-up", type=float, default=0.2, help="share of the time left out (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of arrivals and requests (default: %(default)s)")


@dataclass
class _Log:
    """What has been seen so far. e2e: (when it was sent, seconds) of each whole answer; times since the start."""

    started: float = field(default_factory=time.perf_counter)
    e2e: list[tuple[float, float]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    samples: list[dict[str, float]] = field(default_factory=list)

    def now(self) -> float:
        return time.perf_counter() - self.started


async def measure(args: argparse.Namespace, say: Callable[[str], None]) -> Verdict:
    """5 % of the requests are given up by their clients and 5 % are wrong."""
    chance = random.Random(args.seed)
    # A small KV cache: its memory is touched block by block, and would look like a leak until all of it has been.
    flags = ["--num-gpu-blocks-override", str(KV_BLOCKS)]
    with serving(args.model, flags) as target:
        before = await target.page()
        rate = args.load * await _saturated(target, args, chance)
        log = _Log()
        say(f"{rate:.1f} requests a second for {args.minutes:g} minutes")
        await _run(target, args, rate, args.minutes * 60, chance, log)
        idle = await target.until_idle(10.0)
        log.samples.append(await _sample(target, log.now()))
        aborts = _aborts(await target.page()) - _aborts(before)
        with serving(args.model, flags) as fresh:
            await _saturated(fresh, args, chance)
            say("the server of the soak in turns with a fresh one")
            pair = await _in_turns((target, fresh), args, rate, chance)
    wrong = sum((each.wrong for each in pair), log.wrong)
    return Verdict("soak", _figures(args, log, idle, aborts, wrong, pair), _details(rate, log, wrong))


async def _in_turns(
    targets: tuple[Target, Target], args: argparse.Namespace, rate: float, chance: random.Random
) -> tuple[_Log, _Log]:
    """What each of two servers did at the same load, one after the other and over again."""
    logs = _Log(), _Log()
    for _ in range(TURNS):
        for target, log in zip(targets, logs, strict=True):
            turn = _Log()
            await _run(target, args, rate, args.minutes, chance, turn)
            log.e2e += turn.e2e
            log.wrong += turn.wrong
    return logs


def _figures(
    args: argparse.Namespace, log: _Log, idle: float, aborts: float, wrong: Counter[str], pair: tuple[_Log, _Log]
) -> tuple[Figure, ...]:
    start = args.warm_up * args.minutes * 60
    steady = [sample for sample in log.samples if sample["time"] >= start]
    early, late = _p99_of_thirds([(sent, seconds) for sent, seconds in log.e2e if sent >= start])
    old, new = (float(np.percentile([seconds for _, seconds in each.e2e], 99)) for each in pair)
    return (
        exactly("wrong answers", wrong.total(), 0),
        Figure("requests", sum(log.kinds.values()), least=1),
        Figure("memory, slope", _slope(steady, "resident_mb") * 60, "MB/min", most=1.0),
        Figure("open files, slope", _slope(steady, "open_files") * 60, "/min", most=0.5),
        Figure("asyncio tasks, slope", _slope(steady, "tasks") * 60, "/min", most=0.5),
        Figure("answer time, 99th percentile, first third", early * 1000, "ms"),
        Figure("answer time, 99th percentile, last third", late * 1000, "ms"),
        Figure("the same at the end, this server", old * 1000, "ms"),
        Figure("the same at the end, a fresh server in turns with it", new * 1000, "ms"),
        Figure("drift", (old / new - 1) * 100, "%", most=10.0),
        exactly("aborts counted less clients that left", aborts - log.kinds["left"], 0),
        Figure("every KV block free after", idle, "s", most=2.0),
    )


def _aborts(page: Page) -> float:
    return page.value("request_success_total", finished_reason="abort")


def _details(rate: float, log: _Log, wrong: Counter[str]) -> dict[str, Any]:
    minutes: dict[int, list[float]] = {}
    for sent, seconds in log.e2e:
        minutes.setdefault(int(sent // 60), []).append(seconds)
    p99 = {minute: float(np.percentile(values, 99)) for minute, values in sorted(minutes.items())}
    return {"rate": rate, "kinds": log.kinds, "wrong": wrong, "samples": log.samples, "p99_by_minute": p99}


async def _saturated(target: Target, args: argparse.Namespace, chance: random.Random) -> float:
    """Requests a second with CLIENTS clients that never pause."""
    seconds = min(SATURATED_S, args.minutes * SATURATED_S)
    end = time.perf_counter() + seconds
    done = 0

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await once(target.address, "POST", "/v1/completions", _request(args, chance))
            done += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return done / seconds


async def _run(
    target: Target, args: argparse.Namespace, rate: float, seconds: float, chance: random.Random, log: _Log
) -> None:
    """All arrivals of so many seconds, then the end of the last request."""
    watcher = asyncio.create_task(_watch(target, log))
    tasks: set[asyncio.Task[None]] = set()
    next_arrival = 0.0
    while next_arrival < seconds:
        await asyncio.sleep(max(0.0, next_arrival - log.now()))
        task = asyncio.create_task(_one(target, args, chance, log))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        next_arrival += chance.expovariate(rate)
    await asyncio.gather(*tasks)
    watcher.cancel()


async def _one(target: Target, args: argparse.Namespace, chance: random.Random, log: _Log) -> None:
    lot = chance.random()
    kind, client = ("bad", _wrong) if lot < 0.05 else ("leaving", _leave) if lot < 0.1 else ("whole", _whole)
    log.kinds[kind] += 1
    try:
        await client(target, args, chance, log)
    except (OSError, EOFError, StreamRefused) as error:
        log.wrong[f"{kind}: {type(error).__name__}: {str(error)[:100]}"] += 1


async def _wrong(target: Target, args: argparse.Namespace, chance: random.Random, log: _Log) -> None:
    answer = await once(target.address, "POST", "/v1/completions", chance.choice(BAD))
    if answer.status != 400:
        log.wrong[f"bad: status {answer.status}"] += 1


async def _leave(target: Target, args: argparse.Namespace, chance: random.Random, log: _Log) -> None:
    """Read a few events and go; ``left`` counts those whose answer was not done."""
    connection = await Connection.open(target.address)
    body = _request(args, chance) | {"stream": True, "max_tokens": 4000}
    seen = 0
    async for _ in connection.events("/v1/completions", body):
        seen += 1
        if seen == 5:
            log.kinds["left"] += 1
            break
    connection.close()


async def _whole(target: Target, args: argparse.Namespace, chance: random.Random, log: _Log) -> None:
    sent, started = log.now(), time.perf_counter()
    body = _request(args, chance)
    answer = await once(target.address, "POST", "/v1/completions", body)
    if answer.status != 200 or answer.json()["usage"]["completion_tokens"] != body["max_tokens"]:
        log.wrong[f"whole: status {answer.status}"] += 1
    log.e2e.append((sent, time.perf_counter() - started))


def _request(args: argparse.Namespace, chance: random.Random) -> dict[str, Any]:
    prompt = [chance.randrange(1000, 2000) for _ in range(chance.randrange(8, 128))]
    return completion(prompt=prompt, max_tokens=chance.randrange(4, args.max_tokens + 1), ignore_eos=True)


async def _watch(target: Target, log: _Log) -> None:
    while True:
        log.samples.append(await _sample(target, log.now()))
        await asyncio.sleep(SAMPLE_EVERY_S)


async def _sample(target: Target, now: float) -> dict[str, float]:
    page = await target.page()
    return {
        "time": now,
        "resident_mb": target.resident_mb(),
        "open_files": target.open_files(),
        "tasks": page.value("event_loop_tasks"),
        "running": page.value("num_requests_running"),
        "waiting": page.value("num_requests_waiting"),
        "kv_usage": page.value("kv_cache_usage_perc"),
    }


def _slope(samples: Sequence[dict[str, float]], name: str) -> float:
    """Least-squares slope, per second; 0 for fewer than three samples."""
    if len(samples) < 3:
        return 0.0
    times, values = [sample["time"] for sample in samples], [sample[name] for sample in samples]
    return float(np.polyfit(times, values, 1)[0])


def _p99_of_thirds(answers: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The 99th percentile of the first third's seconds and of the last third's, by when they were sent."""
    ordered = [seconds for _, seconds in sorted(answers)]
    third = max(1, len(ordered) // 3)
    return float(np.percentile(ordered[:third], 99)), float(np.percentile(ordered[-third:], 99))
