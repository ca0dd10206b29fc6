"""The tokens of a vocabulary as a trie over their bytes, in flat arrays, built without a loop over nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Trie:
    """Nodes in depth-first order, without the root.

    byte: [nodes] uint8, the edge into a node. depth: [nodes] int32, 1 for a first byte. parent: [nodes] int32, -1 for
    the root. skip: [nodes] int32, the next node outside the subtree. first: [nodes + 1] int32: tokens[first[n]] up to
    tokens[first[n + 1] - 1] (int32) are the ids that end at node n.
    """

    byte: np.ndarray
    depth: np.ndarray
    parent: np.ndarray
    skip: np.ndarray
    first: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, token_bytes: Sequence[bytes | None]) -> Trie:
        """The trie of all tokens that have text."""
        ids = [token for token, text in enumerate(token_bytes) if text]
        ids.sort(key=token_bytes.__getitem__)  # type: ignore[arg-type]
        texts = [token_bytes[token] for token in ids]
        joined = np.frombuffer(b"".join(texts), dtype=np.uint8)  # type: ignore[arg-type]
        sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))  # type: ignore[arg-type]
        starts = np.cumsum(sizes) - sizes
        shared = _shared_with_previous(joined, starts, sizes)
        new = sizes - shared  # nodes that a token adds: those behind what it shares with the token before
        total = int(new.sum())
        place = np.arange(total) - np.repeat(np.cumsum(new) - new, new)
        depth = (np.repeat(shared, new) + place + 1).astype(np.int32)
        byte = joined[np.repeat(starts + shared, new) + place]
        parent, skip = _kin(depth, total)
        token_node = np.cumsum(new) - 1  # a token that adds no node equals the one before
        first = np.searchsorted(token_node, np.arange(total + 1)).astype(np.int32)
        return cls(byte, depth, parent, skip, first, np.array(ids, dtype=np.int32))


def _shared_with_previous(joined: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """[texts]: how many leading bytes each sorted text has in common with the one before."""
    shared = np.zeros(len(sizes), dtype=np.int64)
    alike = np.arange(1, len(sizes))
    place = 0
    while len(alike):
        alike = alike[(sizes[alike] > place) & (sizes[alike - 1] > place)]
        alike = alike[joined[starts[alike] + place] == joined[starts[alike - 1] + place]]
        place += 1
        shared[alike] = place
    return shared


def _kin(depth: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Parent and skip of each node: the last node one level up before it; the next one that is no deeper."""
    parent = np.full(total, -1, dtype=np.int32)
    skip = np.full(total, total, dtype=np.int32)
    order = np.argsort(depth, kind="stable").astype(np.int32)
    ends = np.cumsum(np.bincount(depth)) if total else np.zeros(1, dtype=np.int64)
    above = order[:0]
    for level in range(1, len(ends)):
        nodes = order[ends[level - 1] : ends[level]]
        if level > 1:
            parent[nodes] = above[np.searchsorted(above, nodes) - 1]
            skip[nodes] = skip[parent[nodes]]
        skip[nodes[:-1]] = np.minimum(skip[nodes[:-1]], nodes[1:])
        above = nodes
    return parent, skip
