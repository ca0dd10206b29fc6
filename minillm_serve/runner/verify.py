"""Which drafts stand: those that the target itself has drawn in their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minillm_serve.runner.constraints import NewTokens


def verify(
    drawn: Sequence[int | None], drafts: Sequence[int], book: Callable[[int], NewTokens]
) -> tuple[NewTokens, int]:
    """What a request goes on with, and how many of its drafts that holds: all of them up to the first that differs.

    drawn: the target's token after its last known one, then after each draft; None: there was none that the request
    allows. book: takes a drawn token, returns it and what its constraint puts behind it; no token if it is forbidden.
    No tokens at all: the request cannot go on.

    A token that was drawn after drafts that all stand was drawn after the very text that plain decoding would have
    there, with the same noise (it is a function of seed and position): so it is the same token, at any temperature.
    Text that a constraint puts behind a draw is compared with the drafts too; what they say in its places was computed,
    so the next draw is there already.
    """
    tokens: list[int] = []
    stand = 0
    while True:
        token = drawn[stand]
        new = NewTokens(()) if token is None else book(token)
        if not new.tokens:
            # All so far are drafts that stand. The last of them goes on as if it had just been drawn: the next step
            # computes it once more, and fails there.
            return NewTokens(tuple(tokens)), max(stand - 1, 0)
        tokens += new.tokens
        same = _common(new.tokens, drafts[stand:])
        stand += same
        if same < len(new.tokens):
            return NewTokens(tuple(tokens), new.forced), stand


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the beginning that two sequences share."""
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))
