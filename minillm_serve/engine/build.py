"""From a configuration to a running engine core: loads the model, sizes the KV cache, connects the parts."""

from __future__ import annotations

import torch

from minillm_kernels import resolve
from minillm_serve.attention.backends import KVCache
from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.engine.admission import Admission, GrammarCache
from minillm_serve.engine.core import EngineCore
from minillm_serve.engine.trace import Trace
from minillm_serve.kv.block_pool import BlockPool
from minillm_serve.kv.manager import KVManager
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.linear import Unquantized
from minillm_serve.model.llama import LlamaModel
from minillm_serve.model.loader import Checkpoint
from minillm_serve.model.store import resolve_model
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.model.weights import load_weights
from minillm_serve.runner.batch import PersistentBatch
from minillm_serve.runner.memory import num_kv_blocks
from minillm_serve.runner.runner import Runner
from minillm_serve.sample.sampler import sample
from minillm_serve.sched.policy import FCFS
from minillm_serve.sched.scheduler import Scheduler
from minillm_serve.seams import KV_BLOCK_POOL, SAMPLE, SCHED_POLICY, Seams


def build_core(config: EngineConfig, trace: bool = False, seams: Seams | None = None) -> EngineCore:
    """Load everything. Raises :class:`ConfigError` on a model or a setting that cannot work."""
    seams = seams or Seams()
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    folder = resolve_model(config.model)
    model_config = ModelConfig.from_folder(folder)
    tokenizer = Tokenizer.from_folder(folder, model_config.eos_token_ids)
    if tokenizer.vocab_size > model_config.vocab_size:
        raise ConfigError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {model_config.vocab_size}"
        )
    max_model_len = _max_model_len(config, model_config)
    dtype = getattr(torch, config.dtype)
    ops = resolve("cpu")
    model = LlamaModel(model_config, load_weights(Checkpoint(folder), model_config, Unquantized(ops), dtype), ops)
    num_blocks = num_kv_blocks(config, model_config.kv_elements_per_token * dtype.itemsize, max_model_len)

    kv = KVManager(num_blocks, config.block_size, seams.get(KV_BLOCK_POOL, BlockPool))
    scheduler = Scheduler(
        kv, config.max_num_seqs, config.max_num_batched_tokens, policy=seams.get(SCHED_POLICY, FCFS)()
    )
    grammars = GrammarCache(tokenizer, model_config.vocab_size)
    runner = Runner(
        model,
        KVCache(model_config, ops, num_blocks, config.block_size, dtype),
        PersistentBatch(config.max_num_seqs, max_model_len, config.block_size, grammars.get),
        seams.get(SAMPLE, sample),
    )
    admission = Admission(
        tokenizer, grammars, model_config.vocab_size, max_model_len, kv_tokens=num_blocks * config.block_size
    )
    return EngineCore(admission, scheduler, runner, Trace(config) if trace else None)


def _max_model_len(config: EngineConfig, model: ModelConfig) -> int:
    if config.max_model_len is None:
        return model.max_position_embeddings
    if config.max_model_len > model.max_position_embeddings:
        raise ConfigError(
            f"max_model_len {config.max_model_len} is more than the {model.max_position_embeddings} positions "
            "the model was trained for"
        )
    return config.max_model_len
