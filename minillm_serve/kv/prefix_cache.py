"""Which block holds the keys and values of which prefix: full blocks by a chained hash, the idle ones in LRU order.

A token's keys and values depend on every token before it, so a block's name must too: ``key_i = H(key_{i-1}, tokens
of block i)``, and the chain starts from the salt. H is BLAKE2b with 256 bits: with a weak hash one tenant could craft
a prompt whose key equals another's, and be served from the other's memory. Follows vLLM's automatic prefix caching.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

KEY_BYTES = 32
TOKEN = "I"  # unsigned, at least 4 bytes: more than any vocabulary


def salt_key(salt: tuple[str, ...]) -> bytes:
    """Start of the chain. Each part goes in with its length, so that ``("ab", "c")`` and ``("a", "bc")`` differ."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES, person=b"salt")
    for part in salt:
        text = part.encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.digest()


def block_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Name of a full block: its tokens, and (through its parent's name) all tokens before them."""
    return hashlib.blake2b(parent + array(TOKEN, tokens).tobytes(), digest_size=KEY_BYTES, person=b"block").digest()


class HashChain:
    """The keys of one sequence's full blocks, each computed when it is first asked for.

    name: another function in the place of :func:`block_key`.
    """

    def __init__(
        self,
        salt: tuple[str, ...],
        block_size: int,
        name: Callable[[bytes, Sequence[int]], bytes] = block_key,
    ):
        self.block_size = block_size
        self._name = name
        self._start = salt_key(salt)
        self._keys: list[bytes] = []

    def key(self, index: int, token_ids: Sequence[int]) -> bytes:
        """Key of logical block ``index``; all its tokens must be in ``token_ids`` (which may only ever be appended)."""
        keys, size = self._keys, self.block_size
        while len(keys) <= index:
            first = len(keys) * size
            keys.append(self._name(keys[-1] if keys else self._start, token_ids[first : first + size]))
        return keys[index]


class PrefixCache:
    """One block per key, one key per block. A block is *idle* when no block table holds it: the next to be evicted.

    keep_idle: False drops a block as soon as it is idle, so that only requests alive at the same time share.
    The cache holds one reference of its own to each of its blocks; the KV manager keeps that count in the pool.
    """

    def __init__(self, keep_idle: bool = True):
        self.keep_idle = keep_idle
        self._block_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._block_of)

    def __contains__(self, block: int) -> bool:
        return block in self._key_of

    @property
    def num_idle(self) -> int:
        return len(self._idle)

    def is_idle(self, block: int) -> bool:
        return block in self._idle

    def blocks(self) -> tuple[int, ...]:
        """Every cached block, in use or idle."""
        return tuple(self._key_of)

    def find(self, key: bytes) -> int | None:
        return self._block_of.get(key)

    def add(self, key: bytes, block: int) -> bool:
        """Publish a block that a request holds. False (and no change) if its content is cached in another block."""
        if key in self._block_of:
            return False
        self._block_of[key], self._key_of[block] = block, key
        return True

    def claim(self, blocks: Iterable[int]) -> None:
        """These blocks stand in a block table again: not to be evicted."""
        for block in blocks:
            self._idle.pop(block, None)

    def release(self, blocks: Iterable[int]) -> list[int]:
        """No block table holds these cached blocks any more. Returns those that the cache gives up at once."""
        if self.keep_idle:
            self._idle.update(dict.fromkeys(blocks))
            return []
        return [self._forget(block) for block in blocks]

    def evict(self, count: int) -> list[int]:
        """Give up the ``count`` idle blocks that were used longest ago."""
        return [self._forget(next(iter(self._idle))) for _ in range(count)]

    def withdraw(self, keys: Iterable[bytes]) -> list[int]:
        """Forget these keys (those still known) and return their blocks."""
        return [self._forget(self._block_of[key]) for key in keys if key in self._block_of]

    def clear(self) -> list[int]:
        """Forget everything; returns the blocks."""
        return self.withdraw(list(self._block_of))

    def _forget(self, block: int) -> int:
        del self._block_of[self._key_of.pop(block)]
        self._idle.pop(block, None)
        return block

    def check(self) -> None:
        """Assert that keys and blocks are one to one and only cached blocks are idle."""
        assert {block: key for key, block in self._block_of.items()} == self._key_of, "keys and blocks differ"
        assert self._idle.keys() <= self._key_of.keys(), "an idle block is not cached"
        assert self.keep_idle or not self._idle, "an idle block was kept"
