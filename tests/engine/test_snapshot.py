"""A look at a growing list is the tuple that a copy would have been."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minillm_serve.engine.snapshot import Snapshot

BOUND = st.none() | st.integers(-12, 12)
STEP = st.sampled_from([None, 1, 2, -1])
ITEMS = st.lists(st.integers(), max_size=10)


@given(ITEMS, st.integers(0, 5), ITEMS, BOUND, BOUND, STEP)
def test_it_equals_the_copy_whatever_comes_later(items, start, later, low, high, step):
    start = min(start, len(items))
    copy = tuple(items[start:])
    look = Snapshot(items, start)
    items.extend(later)
    assert look == copy and copy == look and look == list(copy)
    assert len(look) == len(copy) and list(look) == list(copy) and repr(look) == repr(copy)
    assert look[low:high:step] == copy[low:high:step]
    assert [look[i] for i in range(-len(copy), len(copy))] == [copy[i] for i in range(-len(copy), len(copy))]
    assert look != (*copy, 1) and look != "other"
    assert all(item in look for item in copy)
