"""How many tokens a step brought, and how long each sequence had waited for its own: what a server's metrics ask."""

from __future__ import annotations

from collections.abc import Iterable

from minillm_serve.engine.group import Sample


def book_new_tokens(samples: Iterable[Sample], now: float) -> tuple[int, dict[float, int]]:
    """The number of new tokens of ``samples``, and seconds since a sequence's previous step -> sequences.

    Called once a step, with one ``now``: sequences that went side by side before have the very same interval, so that
    fifty of them are one entry. A sequence's first tokens have none. Several tokens of one step (a jump ahead) are one
    interval, as in vLLM, whose inter-token latency is the time between outputs.
    """
    new, intervals = 0, {}
    for sample in samples:
        tokens = sample.num_tokens
        if tokens == sample.booked_tokens:
            continue
        new += tokens - sample.booked_tokens
        if sample.booked_at is not None:
            interval = now - sample.booked_at
            intervals[interval] = intervals.get(interval, 0) + 1
        sample.booked_tokens, sample.booked_at = tokens, now
    return new, intervals
