"""From a configuration to a running engine core: loads the model, sizes the KV cache, connects the parts."""

from __future__ import annotations

import os

import torch

from minillm_kernels import Ops, resolve
from minillm_serve.attention.backends import KVCache
from minillm_serve.attention.no_cache import NoCache
from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.engine.admission import Admission
from minillm_serve.engine.core import EngineCore
from minillm_serve.engine.grammars import GrammarCache
from minillm_serve.engine.scheduling import build_scheduler
from minillm_serve.engine.trace import Recorder, Trace
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.dummy import DummyCheckpoint
from minillm_serve.model.linear import Unquantized
from minillm_serve.model.llama import LlamaModel
from minillm_serve.model.source import open_model
from minillm_serve.model.store import resolve_model
from minillm_serve.model.weights import load_weights
from minillm_serve.quant.int8 import Int8
from minillm_serve.runner.batch import PersistentBatch
from minillm_serve.runner.memory import num_kv_blocks
from minillm_serve.runner.runner import Runner
from minillm_serve.sample.sampler import sample
from minillm_serve.seams import SAMPLE, Seams


def build_core(config: EngineConfig, trace: bool = False, seams: Seams | None = None) -> EngineCore:
    """Load everything. Raises :class:`ConfigError` on a model or a setting that cannot work."""
    seams = seams or Seams()
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    device, dtype = _device(config), getattr(torch, config.dtype)
    ops = _ops(config)
    dummy = DummyCheckpoint(device, dtype) if config.load_format == "dummy" else None
    source = open_model(resolve_model(config.model), dummy=dummy, tokenizer=not config.skip_tokenizer_init)
    model_config, tokenizer = source.config, source.tokenizer
    max_model_len = _max_model_len(config, model_config)
    method = Int8(ops) if config.quantization == "int8" else Unquantized(ops)
    weights = load_weights(source.checkpoint, model_config, method, dtype, device)
    model = LlamaModel(model_config, weights, ops, max_model_len)
    num_blocks, kv_cache = _kv_storage(config, model_config, ops, dtype, max_model_len)
    scheduler = build_scheduler(config, num_blocks, seams)
    grammars = GrammarCache(
        tokenizer,
        model_config.vocab_size,
        config.guided_cache_mib << 20,
        jump_ahead=config.guided_jump_ahead,
        always_closes=config.json_always_closes,
    )
    runner = Runner(
        model,
        kv_cache,
        PersistentBatch(
            config.max_num_seqs,
            max_model_len,
            config.block_size,
            grammars.guide,
            isinstance(kv_cache, NoCache),
            tokenizer.eos_token_ids,
        ),
        seams.get(SAMPLE, sample),
    )
    admission = Admission(
        tokenizer, grammars, model_config.vocab_size, max_model_len, num_blocks * config.block_size, config
    )
    record = Trace(config, num_blocks) if trace else None
    return EngineCore(
        admission,
        scheduler if record is None else Recorder(scheduler, record),
        runner,
        record,
        ahead=config.async_scheduling,
    )


def _device(config: EngineConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, and torch finds no CUDA GPU here: use device cpu")
    return torch.device(config.device)


def _ops(config: EngineConfig) -> Ops:
    """The kernels for the device, or a refusal of those that cannot run on it."""
    if config.device == "cpu" and config.kernels == "triton" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(
            "kernels triton need a GPU, or TRITON_INTERPRET=1 to run them (slowly) in Triton's interpreter"
        )
    on_gpu = config.device == "cuda" and config.kernels == "auto"
    return resolve("triton" if on_gpu else config.kernels)


def _kv_storage(
    config: EngineConfig, model: ModelConfig, ops: Ops, dtype: torch.dtype, max_model_len: int
) -> tuple[int, KVCache]:
    """Blocks that the scheduler may hand out, and the memory behind them: none where there is no cache."""
    int8_kv = config.kv_cache_dtype == "int8"
    if config.attention_backend == "paged":
        blocks = num_kv_blocks(config, KVCache.bytes_per_token(model, ops, dtype, int8_kv), max_model_len)
        return blocks, KVCache(model, ops, blocks, config.block_size, dtype, int8_kv)
    for name in ("kv_cache_memory_bytes", "num_kv_blocks"):
        if getattr(config, name) is not None:
            raise ConfigError(f"attention_backend none keeps no KV cache: leave {name} out")
    if int8_kv:
        raise ConfigError("attention_backend none keeps no KV cache: kv_cache_dtype must be auto, got int8")
    blocks = config.max_num_seqs * -(-max_model_len // config.block_size)
    return blocks, NoCache(model, ops, config.block_size, dtype)


def _max_model_len(config: EngineConfig, model: ModelConfig) -> int:
    if config.max_model_len is None:
        return model.max_position_embeddings
    if config.max_model_len > model.max_position_embeddings:
        raise ConfigError(
            f"max_model_len {config.max_model_len} is more than the {model.max_position_embeddings} positions "
            "the model was trained for"
        )
    return config.max_model_len
