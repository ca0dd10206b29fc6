"""So many requests and tokens a minute for each client; whoever wants more hears 429 and when to come again.

A client may use a minute's worth at once, and from then on what flows back: a token bucket each for requests and for
tokens. A request takes its place when it comes in, and its prompt plus all it may generate when it is queued; what it
did not use flows back at its end. All on the event loop: no two requests can take the same token.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from minillm_serve.engine.group import RequestGroup
from minillm_serve.request import RequestOutput
from minillm_serve.serve.caller import ANONYMOUS, Caller
from minillm_serve.serve.http.errors import ApiError
from minillm_serve.serve.limits.bucket import Bucket
from minillm_serve.serve.limits.keys import ApiKey
from minillm_serve.serve.limits.rejections import Reason, Rejections

Header = tuple[bytes, bytes]


class Quotas:
    """Gate and observer. requests_per_minute, tokens_per_minute: for clients whose key says nothing else; 0: no limit.

    Clients without a key are one client.
    """

    def __init__(
        self,
        keys: Sequence[ApiKey],
        requests_per_minute: int,
        tokens_per_minute: int,
        rejections: Rejections,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._rejections = rejections

        def buckets(name: str, default: int) -> dict[str, Bucket]:
            wanted = {ANONYMOUS: default, **{key.name: getattr(key, name) for key in keys}}
            sizes = {client: default if size is None else size for client, size in wanted.items()}
            return {client: Bucket(size, clock=clock) for client, size in sizes.items() if size}

        self._requests = buckets("requests_per_minute", requests_per_minute)
        self._tokens = buckets("tokens_per_minute", tokens_per_minute)

    def enter(self, caller: Caller) -> None:
        """Count a request that has come in. Raises ApiError 429 before its body is read."""
        bucket = self._requests.get(caller.client)
        if bucket is None:
            return
        if (wait := bucket.wait(1)) > 0:
            self._rejections.count(Reason.REQUESTS_PER_MINUTE)
            raise _too_many(f"{bucket.capacity} requests a minute", wait)
        bucket.take(1)

    def forgive(self, caller: Caller) -> None:
        """The request failed for the server's reasons: it does not count."""
        if (bucket := self._requests.get(caller.client)) is not None:
            bucket.give_back(1)

    def check(self, caller: Caller, groups: Sequence[RequestGroup]) -> None:
        """See Gate. Raises ApiError 429, or 400 for what the quota can never grant."""
        bucket = self._tokens.get(caller.client)
        if bucket is None:
            return
        wanted = sum(map(_reserved, groups))
        if wanted > bucket.capacity:
            raise ApiError(
                400,
                f"the request may take {wanted} tokens, prompt and output together; the quota is {bucket.capacity} "
                "tokens a minute: lower max_tokens or shorten the prompt",
                "max_tokens",
            )
        if (wait := bucket.wait(wanted)) > 0:
            self._rejections.count(Reason.TOKENS_PER_MINUTE)
            raise _too_many(f"{bucket.capacity} tokens a minute; this request may take {wanted}", wait)

    def watch(self, caller: Caller, group: RequestGroup) -> Reservation:
        """See Observer."""
        return Reservation(self._tokens.get(caller.client), group)

    def headers(self, caller: Caller) -> list[Header]:
        """``x-ratelimit-*`` as OpenAI has them: limit, remaining, and seconds until nothing is taken any more."""
        described: list[Header] = []
        for unit, buckets in ((b"requests", self._requests), (b"tokens", self._tokens)):
            if (bucket := buckets.get(caller.client)) is not None:
                for what, value in (
                    (b"limit", str(bucket.capacity)),
                    (b"remaining", str(max(0, math.floor(bucket.level + 1e-6)))),
                    (b"reset", f"{bucket.wait(bucket.capacity):.3f}s"),
                ):
                    described.append((b"x-ratelimit-" + what + b"-" + unit, value.encode()))
        return described


class Reservation:
    """The tokens of one engine request while it is under way."""

    def __init__(self, bucket: Bucket | None, group: RequestGroup):
        self._bucket = bucket
        self._group = group
        if bucket is not None:
            bucket.take(_reserved(group))

    def update(self, output: RequestOutput) -> None:
        """See Watch."""

    def end(self, reason: str) -> None:
        """See Watch. What a request that was cut off had already cost stays paid."""
        if self._bucket is not None:
            self._bucket.give_back(_reserved(self._group) - _used(self._group))


def _reserved(group: RequestGroup) -> int:
    """The prompt, which all samples share, and the longest output of each."""
    longest = sum(sample.request.max_total_tokens - len(group.prompt_token_ids) for sample in group.samples)
    return len(group.prompt_token_ids) + longest


def _used(group: RequestGroup) -> int:
    if group.samples[0].request.metrics.first_scheduled is None:
        return 0
    return len(group.prompt_token_ids) + sum(sample.num_tokens for sample in group.samples)


def _too_many(what: str, wait: float) -> ApiError:
    headers = {"Retry-After": str(math.ceil(wait)), "Retry-After-Ms": str(math.ceil(wait * 1000))}
    return ApiError(429, f"more than this client's {what}; try again in {wait:.1f} s", headers=headers)
