"""The named points where a student's code replaces ours. Resolved once, when an engine is built.

A seam takes and returns plain ints and arrays and has at most five methods; the same seam serves the public check,
the hidden check and the live engine. A factory registered here for a name is used instead of the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

KV_BLOCK_POOL = "kv.block_pool"
KV_BLOCK_KEY = "kv.block_key"
SCHED_POLICY = "sched.policy"
SAMPLE = "sample"
SPEC_VERIFY = "spec.verify"
ATTENTION_PAGED = "attention.paged"
GUIDED_COMPILE = "guided.compile"

SEAMS: Mapping[str, str] = {
    KV_BLOCK_POOL: "factory(num_blocks) -> allocate, free, share, refs, num_free; see kv.block_pool.BlockPool",
    KV_BLOCK_KEY: "function(key of the block before, token ids) -> bytes, the key of a full block; see "
    "kv.prefix_cache.block_key",
    SCHED_POLICY: "factory() -> rank; see sched.policy.Policy",
    SAMPLE: "function(logits, settings) -> token ids, none whose logit is -inf; see sample.sampler.sample",
    SPEC_VERIFY: "function(drafts, draft probs or None, target probs, uniforms) -> the drafts that stand and one token "
    "more; see sample.rejection.verify",
    ATTENTION_PAGED: "function(queries, keys, values, tables, seq_lens, query_lens, scale) -> one row a query, on the "
    "CPU; see attention.plugged",
    GUIDED_COMPILE: "function(schema, text of each token or None, end token) -> allowed, accept; see guided.plugged",
}


class Seams:
    """Chosen implementations by seam name. ``Seams({"kv.block_pool": MyPool})``; unknown names raise KeyError."""

    def __init__(self, chosen: Mapping[str, Callable[..., Any]] | None = None):
        for name in chosen or {}:
            if name not in SEAMS:
                raise KeyError(f"unknown seam {name!r}; the seams are {', '.join(sorted(SEAMS))}")
        self._chosen = dict(chosen or {})

    def has(self, name: str) -> bool:
        """Whether somebody chose an implementation for ``name``."""
        return name in self._chosen

    def get(self, name: str, default: Callable[..., Any] | None = None) -> Callable[..., Any]:
        """The implementation chosen for ``name``, else ``default``. Raises KeyError where there is neither."""
        chosen = self._chosen.get(name, default)
        if chosen is None:
            raise KeyError(name)
        return chosen
