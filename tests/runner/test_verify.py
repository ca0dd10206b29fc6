"""Which drafts stand, and what a request goes on with, one case a line."""

from __future__ import annotations

import pytest

from minillm_serve.runner.constraints import NewTokens
from minillm_serve.runner.verify import verify


def plainly(token: int) -> NewTokens:
    return NewTokens((token,))


def jumping(token: int) -> NewTokens:
    """After 5 a constraint leaves nothing but 6, 7; it forbids 99."""
    if token == 99:
        return NewTokens(())
    return NewTokens((5, 6, 7), 2) if token == 5 else NewTokens((token,))


@pytest.mark.parametrize(
    ("drawn", "drafts", "tokens", "stand"),
    [
        ([1], [], (1,), 0),
        ([1, 9, 9], [2, 3], (1,), 0),
        ([2, 1, 9], [2, 3], (2, 1), 1),
        ([2, 3, 4], [2, 3], (2, 3, 4), 2),
        ([1, 3, 4], [2, 3], (1,), 0),
    ],
)
def test_drafts_stand_up_to_the_first_that_was_not_drawn(drawn, drafts, tokens, stand):
    assert verify(drawn, drafts, plainly) == (NewTokens(tokens), stand)


@pytest.mark.parametrize(
    ("drawn", "drafts", "tokens", "forced", "stand"),
    [
        ([5], [], (5, 6, 7), 2, 0),
        ([5, 0, 0], [5, 8], (5, 6, 7), 2, 1),  # what follows 5 is certain: the draft that says otherwise falls
        ([5, 0, 0], [5, 6], (5, 6, 7), 2, 2),
        ([5, 0, 0, 4], [5, 6, 7], (5, 6, 7, 4), 0, 3),  # nothing was drawn in the places of 6 and 7
        ([5, 0, 0, 5, 0], [5, 6, 7, 5], (5, 6, 7, 5, 6, 7), 2, 4),
        ([1, 0], [5], (1,), 0, 0),
    ],
)
def test_text_that_must_follow_is_compared_with_the_drafts(drawn, drafts, tokens, forced, stand):
    assert verify(drawn, drafts, jumping) == (NewTokens(tokens, forced), stand)


def test_where_nothing_is_allowed_after_drafts_the_last_of_them_is_computed_again():
    assert verify([2, 3, None], [2, 3], jumping) == (NewTokens((2, 3)), 1)
    assert verify([2, 99, 4], [2, 3], jumping) == (NewTokens((2,)), 0)


def test_a_request_that_cannot_go_on_at_all_gets_no_token():
    assert verify([None, 3], [2], plainly) == (NewTokens(()), 0)
    assert verify([99], [], jumping) == (NewTokens(()), 0)


def test_a_draw_is_booked_once_and_none_beyond_what_stands():
    booked: list[int] = []

    def book(token: int) -> NewTokens:
        booked.append(token)
        return NewTokens((token,))

    verify([2, 3, 8, 5], [2, 3, 4], book)
    assert booked == [2, 3, 8]
