"""A KV cache that holds two of sixteen requests: all of them are done, with the same tokens as with room for all."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from minillm_serve.bench.load.target import Target, completion, serving
from minillm_serve.bench.load.verdict import Figure, Verdict, exactly
from minillm_serve.bench.load.wire import Answer, once

BLOCK = 16
FIRST_TOKEN_ID = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--requests", type=int, default=16, help="requests at once (default: %(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=192, help="tokens of each prompt (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=128, help="new tokens of each (default: %(default)s)")


async def measure(args: argparse.Namespace, say: Callable[[str], None]) -> Verdict:
    """The unconstrained run first; then blocks for two whole sequences."""
    each = -(-(args.prompt_tokens + args.max_tokens) // BLOCK)
    say(f"room for all: {each * (args.requests + 1)} blocks of {BLOCK}")
    with serving(args.model, _flags(each * (args.requests + 1))) as target:
        roomy, _ = await _ask_all(target, args)
    say(f"room for two: {2 * each} blocks")
    with serving(args.model, _flags(2 * each)) as target:
        tight, order = await _ask_all(target, args)
        preemptions = (await target.page()).value("num_preemptions_total")
        too_long = await once(target.address, "POST", "/v1/completions", _body(0, 2 * each * BLOCK, args.max_tokens))
        fresh = await target.complete()
        idle = await target.until_idle(5.0)
    figures = (
        exactly("requests done", sum(answer.status == 200 for answer in tight), args.requests),
        exactly("answers with the tokens of the roomy run", _equal(roomy, tight), args.requests),
        Figure("preemptions", preemptions, least=1),
        exactly("place at which the oldest request finished", order.index(0), 0),
        exactly("status of a request that can never fit", too_long.status, 400),
        exactly("status of the next request", fresh.status, 200),
        Figure("all gauges back at 0 after", idle, "s", most=2.0),
    )
    return Verdict("kv", figures, {"finished in this order": order})


def _flags(blocks: int) -> list[str]:
    return ["--num-gpu-blocks-override", str(blocks), "--block-size", str(BLOCK), "--no-enable-prefix-caching"]


def _body(index: int, prompt_tokens: int, max_tokens: int) -> dict[str, Any]:
    prompt = [FIRST_TOKEN_ID + (7 * index + place) % 1000 for place in range(prompt_tokens)]
    return completion(prompt=prompt, max_tokens=max_tokens, ignore_eos=True, return_token_ids=True)


async def _ask_all(target: Target, args: argparse.Namespace) -> tuple[Sequence[Answer], list[int]]:
    """The answers, and the order in which they came; the requests are sent one right after the other."""
    order: list[int] = []

    async def ask(index: int) -> Answer:
        await asyncio.sleep(0.02 * index)  # so that "oldest" means something
        body = _body(index, args.prompt_tokens, args.max_tokens)
        answer = await once(target.address, "POST", "/v1/completions", body)
        order.append(index)
        return answer

    return await asyncio.gather(*map(ask, range(args.requests))), order


def _equal(first: Sequence[Answer], second: Sequence[Answer]) -> int:
    return sum(_tokens(one) == _tokens(other) for one, other in zip(first, second, strict=True))


def _tokens(answer: Answer) -> Any:
    return answer.json()["choices"][0]["token_ids"]
