"""Block tables: which physical block holds each logical block of each sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from minillm_serve.kv.block_pool import BlockPool


class KVManager:
    """Grows and frees the block table of each request. Tables are append-only while a request holds them.

    A table may never be edited in place: the runner holds a copy that is kept in step by appended deltas alone.
    """

    def __init__(self, num_blocks: int, block_size: int, make_pool: Callable[[int], BlockPool] = BlockPool):
        self.block_size = block_size
        self.pool = make_pool(num_blocks)
        self._tables: dict[int, list[int]] = {}

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that ``num_tokens`` tokens occupy."""
        return -(-num_tokens // self.block_size)

    def fits(self, num_tokens: int) -> bool:
        """Whether a sequence of this length could ever run, with the whole pool to itself."""
        return self.blocks_for(num_tokens) <= self.pool.num_blocks

    def grow(self, rid: int, num_tokens: int) -> tuple[int, ...] | None:
        """Make room for the first ``num_tokens`` tokens of a request (its first call admits it).

        Returns the blocks appended to its table (often none), or None when the pool has too few: nothing changed.
        """
        table = self._tables.get(rid, [])
        new = self.pool.allocate(max(0, self.blocks_for(num_tokens) - len(table)))
        if new is None:
            return None
        self._tables.setdefault(rid, table).extend(new)
        return new

    def table(self, rid: int) -> tuple[int, ...]:
        """The blocks a request holds, in logical order (empty when it holds none)."""
        return tuple(self._tables.get(rid, ()))

    def free(self, rid: int) -> None:
        """Give back all blocks of a request, last first, so that the tail of a sequence is reused before its head."""
        self.pool.free(reversed(self._tables.pop(rid, [])))

    @property
    def num_free_blocks(self) -> int:
        return self.pool.num_free

    @property
    def num_blocks(self) -> int:
        return self.pool.num_blocks

    def check(self) -> None:
        """Assert the invariants that hold between steps. Costs a walk over all tables: for tests, not for serving."""
        counts = Counter(block for table in self._tables.values() for block in table)
        assert all(self.pool.refs(block) == n for block, n in counts.items()), "refcount differs from table occurrences"
        assert all(n == 1 for n in counts.values()), "two requests write the same block"
        assert self.pool.num_free + self.pool.num_used == self.pool.num_blocks, "blocks lost"
        assert self.pool.num_used == len(counts), "a block is in use but in no table"
