"""More requests at one moment than the queue takes: each is served or told when to come back, and all are counted."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable

import numpy as np

from minillm_serve.bench.load.target import Target, completion, serving
from minillm_serve.bench.load.verdict import Figure, Verdict, exactly
from minillm_serve.bench.load.wire import Answer, once

TURNED_AWAY = (429, 503)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--posts", type=int, default=2000, help="simultaneous requests (default: %(default)s)")
    parser.add_argument("--queue", type=int, default=256, help="requests that may wait (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=64, help="tokens of each (default: %(default)s)")


async def measure(args: argparse.Namespace, say: Callable[[str], None]) -> Verdict:
    """Every client gets 200, or 503 or 429 with Retry-After, and the books balance."""
    with serving(args.model, ["--max-num-queued-reqs", str(args.queue), "--max-num-seqs", "64"]) as target:
        await target.complete()
        before = await target.page()
        say(f"{args.posts} requests at once, a queue of {args.queue}")
        answers = await asyncio.gather(*(_post(target, args.max_tokens) for _ in range(args.posts)))
        await target.until_idle(10.0)
        after = await target.page()
        fresh = await target.complete()

    def counted(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    came = [answer for answer in answers if answer is not None]
    served = [answer for answer in came if answer.status == 200]
    refused = [answer for answer in came if answer.status in TURNED_AWAY]
    tokens = sum(answer.json()["usage"]["completion_tokens"] for answer in served)
    figures = (
        exactly("clients without an answer", args.posts - len(came), 0),
        exactly("answers other than 200, 429 and 503", len(came) - len(served) - len(refused), 0),
        Figure("served", len(served), least=args.queue),
        Figure("turned away", len(refused)),
        exactly("turned away without Retry-After", sum("retry-after" not in a.headers for a in refused), 0),
        Figure("turned away, 99th percentile", _percentile(refused), "s", most=2.0),
        exactly("requests that the server counts as served", _ended(counted), len(served)),
        exactly("rejections that the server counts", counted("admission_rejections_total"), len(refused)),
        exactly("generated tokens, /metrics less usage", counted("generation_tokens_total") - tokens, 0),
        exactly("status of the next request", fresh.status, 200),
    )
    return Verdict("burst", figures, {"statuses": Counter(str(answer.status) for answer in came)})


def _ended(counted: Callable[..., float]) -> float:
    return sum(counted("request_success_total", finished_reason=reason) for reason in ("stop", "length"))


def _percentile(answers: list[Answer]) -> float:
    return float(np.percentile([answer.seconds for answer in answers], 99)) if answers else 0.0


async def _post(target: Target, max_tokens: int) -> Answer | None:
    """The answer; None when the connection was refused or broke."""
    body = completion(max_tokens=max_tokens, ignore_eos=True)
    try:
        return await once(target.address, "POST", "/v1/completions", body)
    except (OSError, EOFError):
        return None
