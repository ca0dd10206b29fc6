"""Fixed-size blocks of KV memory, handed out and taken back: an operating system's page frames (arXiv:2309.06180)."""

from __future__ import annotations

from collections.abc import Iterable


class BlockPool:
    """Who holds which block, by reference count. Knows nothing of tokens or tensors.

    Invariant: every block is either in the free list with count 0, or out of it with count >= 1;
    so ``num_free + num_used == num_blocks`` at all times.
    """

    def __init__(self, num_blocks: int):
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._refs = [0] * num_blocks

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    def refs(self, block: int) -> int:
        """How many hold this block: the block tables it stands in, and the prefix cache if it keeps it."""
        return self._refs[block]

    def allocate(self, count: int) -> tuple[int, ...] | None:
        """Take ``count`` free blocks, or (None) not one. The last freed go first: the system has given their memory
        already, where a block never used costs a page fault (with huge pages, 2 MiB to clear) in the middle of a step.
        """
        if count > len(self._free):
            return None
        blocks = tuple(self._free.pop() for _ in range(count))
        for block in blocks:
            self._refs[block] = 1
        return blocks

    def share(self, blocks: Iterable[int]) -> None:
        """Add one reference to each block. Raises ValueError on a block nobody holds, before it changes anything."""
        for block in self._held(blocks):
            self._refs[block] += 1

    def free(self, blocks: Iterable[int]) -> None:
        """Drop one reference to each block. Raises ValueError on a block nobody holds, before it changes anything."""
        for block in self._held(blocks):
            self._refs[block] -= 1
            if self._refs[block] == 0:
                self._free.append(block)

    def _held(self, blocks: Iterable[int]) -> tuple[int, ...]:
        blocks = tuple(blocks)
        if len(set(blocks)) != len(blocks):
            raise ValueError("a block table holds each block once; a block is named twice")
        for block in blocks:
            if not 0 <= block < self.num_blocks or self._refs[block] == 0:
                raise ValueError(f"block {block} is not in use")
        return blocks
