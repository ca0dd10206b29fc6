"""The pool and the block tables keep their books under any sequence of calls."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from minillm_serve.kv.block_pool import BlockPool
from minillm_serve.kv.manager import KVManager

NUM_BLOCKS, BLOCK_SIZE = 7, 4


class KVMachine(RuleBasedStateMachine):
    """Random grow/free calls against a model that only counts blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.kv = KVManager(NUM_BLOCKS, BLOCK_SIZE)
        self.lengths: dict[int, int] = {}

    @rule(rid=st.integers(0, 4), extra=st.integers(0, 15))
    def grow(self, rid: int, extra: int) -> None:
        length = self.lengths.get(rid, 0) + extra
        before = self.kv.table(rid)
        free = self.kv.num_free_blocks
        new = self.kv.grow(rid, length) if rid in self.lengths else self.kv.admit(rid, (), length)
        if new is None:
            assert self.kv.blocks_for(length) - len(before) > free, "refused although it fits"
            assert self.kv.table(rid) == before and self.kv.num_free_blocks == free, "a refusal changed something"
        else:
            self.lengths[rid] = length
            assert self.kv.table(rid) == before + new, "tables are append-only"
            assert len(self.kv.table(rid)) == max(len(before), self.kv.blocks_for(length))

    @rule(rid=st.integers(0, 4))
    def free(self, rid: int) -> None:
        self.kv.free(rid)
        self.lengths.pop(rid, None)
        assert self.kv.table(rid) == ()

    @invariant()
    def books_balance(self) -> None:
        self.kv.check()


KVMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestKVManager = KVMachine.TestCase


def test_allocation_is_all_or_nothing():
    pool = BlockPool(3)
    assert pool.allocate(2) == (0, 1)
    assert pool.allocate(2) is None
    assert (pool.num_free, pool.num_used) == (1, 2)


def test_freeing_what_nobody_holds_is_an_error_that_changes_nothing():
    pool = BlockPool(3)
    blocks = pool.allocate(2)
    for wrong in ([blocks[0], 2], [99], [-1], [blocks[0], blocks[0]]):
        with pytest.raises(ValueError):
            pool.free(wrong)
        assert pool.num_used == 2


def test_a_shared_block_is_free_when_its_last_holder_lets_go():
    pool = BlockPool(3)
    blocks = pool.allocate(2)
    pool.share(blocks[:1])
    assert [pool.refs(block) for block in range(3)] == [2, 1, 0]
    pool.free(blocks)
    assert (pool.num_free, pool.refs(0)) == (2, 1)
    pool.free(blocks[:1])
    assert (pool.num_free, pool.num_used) == (3, 0)


def test_sharing_what_nobody_holds_is_an_error_that_changes_nothing():
    pool = BlockPool(3)
    blocks = pool.allocate(1)
    for wrong in ([blocks[0], 2], [3], [-1], [blocks[0], blocks[0]]):
        with pytest.raises(ValueError):
            pool.share(wrong)
        assert pool.refs(blocks[0]) == 1


def test_check_notices_a_block_with_two_writers():
    kv = KVManager(4, 4)
    kv.admit(0, (), 4)
    kv.admit(1, (), 4)
    kv._tables[1][0] = kv._tables[0][0]
    with pytest.raises(AssertionError):
        kv.check()
