"""Block tables: which physical block holds each logical block of each sequence, and which prefixes are cached."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minillm_serve.config import ConfigError
from minillm_serve.kv.block_pool import BlockPool
from minillm_serve.kv.prefix_cache import HashChain, PrefixCache, block_key


@dataclass
class PrefixStats:
    """Totals since the start. queries: tokens of requests admitted for the first time (resumes would flatter the
    figure: they mostly find their own blocks); hits: those found in the cache; evictions: blocks."""

    queries: int = 0
    hits: int = 0
    evictions: int = 0


class KVManager:
    """Grows, shares and frees the block table of each request. Tables are append-only while a request holds them.

    A table may never be edited in place: the runner holds a copy that is kept in step by appended deltas alone. Only
    full blocks are shared, and a hit ends on a block's edge: nobody ever writes into a block that another one reads.

    enable_prefix_caching: keep the blocks of finished requests until their memory is needed. Without it only requests
    alive at the same time can share (the samples of one prompt). make_pool: see :class:`BlockPool`; a pool without
    ``share`` serves as long as prefix caching is off. Raises ConfigError otherwise. key_of: see :func:`block_key`.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        make_pool: Callable[[int], BlockPool] = BlockPool,
        enable_prefix_caching: bool = True,
        key_of: Callable[[bytes, Sequence[int]], bytes] = block_key,
    ):
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.enable_prefix_caching = enable_prefix_caching
        self.pool = make_pool(num_blocks)
        self._key_of = key_of
        self.cache = PrefixCache(keep_idle=enable_prefix_caching)
        self.stats = PrefixStats()
        self._can_share = callable(getattr(self.pool, "share", None))
        if enable_prefix_caching and not self._can_share:
            raise ConfigError(
                f"prefix caching needs a block pool with share(blocks) (one more reference to each block), and "
                f"{type(self.pool).__name__} has none: add it, or set enable_prefix_caching=False"
            )
        self._tables: dict[int, list[int]] = {}
        self._chains: dict[int, HashChain] = {}  # of requests that may share; the waiting ones keep theirs too
        self._num_full: dict[int, int] = {}  # leading blocks of a table that will never be written again
        self._promised: deque[list[bytes]] = deque()  # by step in flight: published and not yet written

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that ``num_tokens`` tokens occupy."""
        return -(-num_tokens // self.block_size)

    def fits(self, num_tokens: int) -> bool:
        """Whether a sequence of this length could ever run, with the whole pool to itself."""
        return self.blocks_for(num_tokens) <= self.num_blocks

    def lookup(self, rid: int, token_ids: Sequence[int], salt: tuple[str, ...] | None) -> tuple[int, ...]:
        """Blocks of the longest cached prefix of a request not yet admitted. Takes nothing.

        At most ``len(token_ids) - 1`` tokens, in full blocks: the last token must be computed to get its logits.
        salt None: share nothing, now or later.
        """
        if salt is None or not self._can_share:
            return ()
        if (chain := self._chains.get(rid)) is None:
            chain = self._chains[rid] = self._chain(salt)
        return self._longest_prefix(chain, token_ids)

    def peek(self, token_ids: Sequence[int], salt: tuple[str, ...] | None = ()) -> int:
        """How many tokens of a prompt are cached now (for policies and routers)."""
        if salt is None:
            return 0
        return len(self._longest_prefix(self._chain(salt), token_ids)) * self.block_size

    def _chain(self, salt: tuple[str, ...]) -> HashChain:
        return HashChain(salt, self.block_size, self._key_of)

    def _longest_prefix(self, chain: HashChain, token_ids: Sequence[int]) -> tuple[int, ...]:
        blocks = []
        for index in range((len(token_ids) - 1) // self.block_size):
            if (block := self.cache.find(chain.key(index, token_ids))) is None:
                break
            blocks.append(block)
        return tuple(blocks)

    def admit(self, rid: int, hit: tuple[int, ...], num_tokens: int) -> tuple[int, ...] | None:
        """Give a request its block table: the blocks of ``hit`` (just looked up), then room up to ``num_tokens``.

        Returns the table, or None when the pool has too few blocks: nothing changed.
        """
        fresh = self.blocks_for(num_tokens) - len(hit)
        if fresh > self.num_free_blocks - sum(map(self.cache.is_idle, hit)):
            return None
        if hit:
            self.pool.share(hit)
            self.cache.claim(hit)
        table = hit + self._allocate(fresh)
        self._tables[rid], self._num_full[rid] = list(table), len(hit)
        return table

    def grow(self, rid: int, num_tokens: int) -> tuple[int, ...] | None:
        """Make room for the first ``num_tokens`` tokens of an admitted request.

        Returns the blocks appended to its table (often none), or None when the pool has too few: nothing changed.
        """
        table = self._tables[rid]
        if num_tokens <= len(table) * self.block_size:
            return ()
        fresh = self.blocks_for(num_tokens) - len(table)
        if fresh > self.num_free_blocks:
            return None
        new = self._allocate(fresh)
        table.extend(new)
        return new

    def _allocate(self, count: int) -> tuple[int, ...]:
        """``count`` blocks that are there for certain: free ones first, then the longest idle of the cache."""
        if (missing := count - self.pool.num_free) > 0:
            self.pool.free(self.cache.evict(missing))
            self.stats.evictions += missing
        return self.pool.allocate(count)

    def publish(self, rid: int, token_ids: Sequence[int], num_tokens: int) -> None:
        """The step now planned computes a request up to ``num_tokens``: let others find the blocks it fills.

        They may be found before they are written, even by a request of the same step: in each layer a step writes the
        keys and values of all its tokens before any of them attends, a planned block is always computed in that very
        step (victims are chosen among requests not yet planned; one aborted meanwhile is computed all the same), and
        ``written`` confirms it. A step that failed is undone by ``withdraw_promised``.
        """
        first, full = self._num_full[rid], num_tokens // self.block_size
        if first == full:
            return
        self._num_full[rid] = full
        if (chain := self._chains.get(rid)) is not None:
            table = self._tables[rid]
            for index in range(first, full):
                key = chain.key(index, token_ids)
                if self.cache.add(key, table[index]):
                    self.pool.share(table[index : index + 1])
                    self._promised[-1].append(key)

    def begin_step(self) -> None:
        """What is published from here on belongs to the next step, which is now being planned."""
        self._promised.append([])

    def written(self) -> None:
        """The oldest step in flight has been computed: what it published is really there."""
        self._promised.popleft()

    def withdraw_promised(self) -> None:
        """All steps in flight failed: what they published holds nothing. Their requests must be computed again."""
        self.pool.free(self.cache.withdraw([key for step in self._promised for key in step]))
        self._promised.clear()

    def free(self, rid: int) -> None:
        """Give back all blocks of a request, last first, so that the tail of a sequence is reused before its head.

        Blocks that the cache knows stay there, idle, unless another request holds them too.
        """
        self._chains.pop(rid, None)
        self._num_full.pop(rid, None)
        blocks = self._tables.pop(rid, [])
        blocks.reverse()
        self.pool.free(blocks)
        if len(self.cache):
            idle = [block for block in blocks if block in self.cache and self.pool.refs(block) == 1]
            self.pool.free(self.cache.release(idle))

    def reset_prefix_cache(self) -> None:
        """Forget every cached prefix (the weights changed, say). Running requests go on but publish nothing more."""
        self.pool.free(self.cache.clear())
        for step in self._promised:
            step.clear()
        for rid in self._tables:
            self._chains.pop(rid, None)

    def table(self, rid: int) -> tuple[int, ...]:
        """The blocks a request holds, in logical order (empty when it holds none)."""
        return tuple(self._tables.get(rid, ()))

    def tables(self) -> dict[int, tuple[int, ...]]:
        """The block table of every admitted request."""
        return {rid: tuple(table) for rid, table in self._tables.items()}

    @property
    def num_free_blocks(self) -> int:
        """Blocks that can be had now: the free ones, and the cached ones that nobody holds."""
        return self.pool.num_free + self.cache.num_idle

    @property
    def num_cached_blocks(self) -> int:
        """Blocks whose content can be found again, in use or idle."""
        return len(self.cache)

    def check(self) -> None:
        """Assert the invariants that hold between steps. Costs a walk over all tables: for tests, not for serving."""
        self.cache.check()
        cached = set(self.cache.blocks())
        counts = Counter(block for table in self._tables.values() for block in table)
        for block in range(self.num_blocks):
            held, kept = counts[block], block in cached
            assert self.pool.refs(block) == held + kept, f"block {block}: {held} tables, cached {kept}, refs differ"
            assert self.cache.is_idle(block) == (kept and not held), f"block {block}: idle is cached and in no table"
        assert self.pool.num_free + len(cached | counts.keys()) == self.num_blocks, "blocks lost"
        for rid, table in self._tables.items():
            assert len(set(table)) == len(table), f"request {rid} holds a block twice"
            for block in table[self._num_full[rid] :]:
                assert counts[block] == 1 and block not in cached, f"block {block} is shared and still to be written"
        assert self._tables.keys() == self._num_full.keys(), "a table without its count of full blocks"
