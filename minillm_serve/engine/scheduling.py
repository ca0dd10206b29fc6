"""The scheduler and KV manager that a configuration asks for: the same live and in a replay. Needs no torch."""

from __future__ import annotations

from minillm_serve.config import EngineConfig
from minillm_serve.kv.block_pool import BlockPool
from minillm_serve.kv.manager import KVManager
from minillm_serve.kv.prefix_cache import block_key
from minillm_serve.sched.policy import POLICIES
from minillm_serve.sched.scheduler import Scheduler
from minillm_serve.seams import KV_BLOCK_KEY, KV_BLOCK_POOL, SCHED_POLICY, Seams


def build_scheduler(config: EngineConfig, num_blocks: int, seams: Seams | None = None) -> Scheduler:
    """num_blocks: size of the pool, already chosen (``runner.memory.num_kv_blocks``).

    Without a KV cache there is nothing to find again: prefix caching is then off whatever the configuration says.
    """
    seams = seams or Seams()
    keeps_kv = config.attention_backend != "none"
    kv = KVManager(
        num_blocks,
        config.block_size,
        seams.get(KV_BLOCK_POOL, BlockPool),
        enable_prefix_caching=config.enable_prefix_caching and keeps_kv,
        key_of=seams.get(KV_BLOCK_KEY, block_key),
    )
    return Scheduler(
        kv,
        config.max_num_seqs,
        config.max_num_batched_tokens,
        policy=seams.get(SCHED_POLICY, POLICIES[config.scheduling_policy])(),
        enable_chunked_prefill=config.enable_chunked_prefill,
        batching=config.batching,
        lookahead=_lookahead(config),
    )


def _lookahead(config: EngineConfig) -> int:
    """A draft model writes the keys and values of what it drafts behind those of the known tokens."""
    spec = config.speculative_config
    return 0 if spec is None or spec.model is None else spec.num_speculative_tokens
