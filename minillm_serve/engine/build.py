"""From a configuration to a running engine core: loads the model, sizes the KV cache, connects the parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minillm_kernels import Ops, resolve
from minillm_serve.attention.backends import KVCache
from minillm_serve.attention.no_cache import NoCache
from minillm_serve.attention.plugged import plugged
from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.engine.admission import Admission
from minillm_serve.engine.core import EngineCore
from minillm_serve.engine.grammars import GrammarCache
from minillm_serve.engine.scheduling import build_scheduler
from minillm_serve.engine.speculation import build_speculation, draft_bytes_per_token, feature_width, load_draft_net
from minillm_serve.engine.trace import Recorder, Trace
from minillm_serve.guided.constraints import compile_constraint
from minillm_serve.guided.plugged import PluggedCompiler
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.draft_head import DraftNet
from minillm_serve.model.dummy import DummyCheckpoint
from minillm_serve.model.linear import LinearMethod, Unquantized
from minillm_serve.model.llama import LlamaModel
from minillm_serve.model.source import ModelSource, open_model
from minillm_serve.model.store import resolve_model
from minillm_serve.model.weights import StoredLayers, load_weights
from minillm_serve.quant.fp8 import Fp8, StoredFp8, check_fp8_format
from minillm_serve.quant.int8 import Int8
from minillm_serve.quant.w4 import FORMATS, Int4, StoredW4, W4Format
from minillm_serve.runner.batch import PersistentBatch
from minillm_serve.runner.memory import num_kv_blocks, spare_host_bytes
from minillm_serve.runner.runner import Runner
from minillm_serve.sample.sampler import SampleSettings, sample
from minillm_serve.seams import ATTENTION_PAGED, GUIDED_COMPILE, SAMPLE, Seams


def build_core(config: EngineConfig, trace: bool = False, seams: Seams | None = None) -> EngineCore:
    """Load everything. Raises :class:`ConfigError` on a model or a setting that cannot work."""
    seams = seams or Seams()
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    device, dtype = _device(config), getattr(torch, config.dtype)
    if "fp8" in (config.quantization, config.kv_cache_dtype):
        _check_fp8(config)
    ops = _ops(config, seams)
    dummy = DummyCheckpoint(device, dtype) if config.load_format == "dummy" else None
    source = open_model(resolve_model(config.model), dummy=dummy, tokenizer=not config.skip_tokenizer_init)
    model_config, tokenizer = source.config, source.tokenizer
    max_model_len = _max_model_len(config, model_config)
    stored = None if dummy else _stored(config, source, ops, dtype, device)
    method = _method(config, ops) if stored is None else Unquantized(ops)
    head_method = Unquantized(ops) if config.quantization == "int4" else None
    weights = load_weights(source.checkpoint, model_config, method, dtype, device, stored, head_method)
    model = LlamaModel(model_config, weights, ops, max_model_len)
    draft_net = load_draft_net(config, source, model, max_model_len)
    num_blocks, kv_cache = _kv_storage(config, model, max_model_len, draft_net)
    scheduler = build_scheduler(config, num_blocks, seams)
    grammars = GrammarCache(
        tokenizer,
        model_config.vocab_size,
        config.guided_cache_mib << 20,
        jump_ahead=config.guided_jump_ahead,
        always_closes=config.json_always_closes,
        compiler=PluggedCompiler(seams.get(GUIDED_COMPILE)) if seams.has(GUIDED_COMPILE) else compile_constraint,
    )
    batch = PersistentBatch(
        config.max_num_seqs,
        max_model_len,
        config.block_size,
        grammars.guide,
        isinstance(kv_cache, NoCache),
        tokenizer.eos_token_ids,
    )
    runner = _runner(config, draft_net, model, kv_cache, batch, seams.get(SAMPLE, sample))
    runner.speculation = build_speculation(config, draft_net, runner, num_blocks, seams)
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


def _ops(config: EngineConfig, seams: Seams) -> Ops:
    """The kernels for the device, or a refusal of those that cannot run on it."""
    if seams.has(ATTENTION_PAGED):
        _check_plugged_attention(config)
        return plugged(seams.get(ATTENTION_PAGED))
    if config.device == "cpu" and config.kernels == "triton" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(
            "kernels triton need a GPU, or TRITON_INTERPRET=1 to run them (slowly) in Triton's interpreter"
        )
    if config.device == "cuda" and config.kernels not in ("auto", "triton"):
        raise ConfigError(f"kernels {config.kernels} are for the CPU: on device cuda they are auto or triton")
    if config.attention_backend == "none" and (config.device == "cuda" or config.kernels == "triton"):
        raise ConfigError("attention_backend none is for the CPU's own kernels (auto, torch, ref), not for triton")
    try:
        return resolve("triton" if config.device == "cuda" else config.kernels)
    except RuntimeError as error:
        raise ConfigError(str(error)) from error


def _check_plugged_attention(config: EngineConfig) -> None:
    """It reads pages of real numbers by torch's own operations."""
    wanted = {
        "device": ("cpu",),
        "kernels": ("auto", "torch"),
        "attention_backend": ("paged",),
        "kv_cache_dtype": ("auto",),
    }
    for name, values in wanted.items():
        if (value := getattr(config, name)) not in values:
            raise ConfigError(f"the seam {ATTENTION_PAGED} needs {name} {' or '.join(values)}, got {value}")


def _method(config: EngineConfig, ops: Ops) -> LinearMethod:
    if config.quantization in FORMATS:
        raise ConfigError(
            f"the checkpoint holds no {config.quantization} weights; quantization int4 rounds any model to 4 bits"
        )
    return {None: Unquantized, "int8": Int8, "fp8": Fp8, "int4": Int4}[config.quantization](ops)


def _check_fp8(config: EngineConfig) -> None:
    if config.device == "cuda" and torch.cuda.get_device_capability() < (8, 9):
        raise ConfigError("FP8 needs a GPU of Ada's or Hopper's generation or a later one: use int8")


def _stored(
    config: EngineConfig, source: ModelSource, ops: Ops, dtype: torch.dtype, device: torch.device
) -> StoredLayers | None:
    """What makes the layers that a checkpoint holds quantised, if it does; the others stay whole."""
    raw = source.config.quantization
    if raw is None:
        return None
    w4 = W4Format.from_hf(raw) if str(raw.get("quant_method")) in FORMATS else None
    if w4 is None:
        check_fp8_format(raw)
    kind = "fp8" if w4 is None else w4.method
    if config.quantization not in (None, kind):
        raise ConfigError(
            f"the checkpoint holds {kind.upper()} weights: quantization {config.quantization} cannot be had from it"
        )
    if w4 is not None:
        return StoredW4(ops, source.checkpoint, w4, dtype, device)
    _check_fp8(config)
    return StoredFp8(ops, source.checkpoint, dtype, device)


def _runner(
    config: EngineConfig,
    net: DraftNet | None,
    model: LlamaModel,
    kv_cache: KVCache,
    batch: PersistentBatch,
    sample_fn: Callable[[Tensor, SampleSettings], Tensor],
) -> Runner:
    if model.ops.name != "triton":
        return Runner(model, kv_cache, batch, sample_fn)
    from minillm_serve.runner.gpu.runner import GPURunner  # triton is there only where it is used

    spec = config.speculative_config
    drafts = 0 if spec is None else spec.num_speculative_tokens
    aux_layers = None if net is None else net.aux_layers
    return GPURunner(model, kv_cache, batch, sample_fn, config.enforce_eager, drafts, aux_layers)


def _kv_storage(
    config: EngineConfig, llama: LlamaModel, max_model_len: int, net: DraftNet | None
) -> tuple[int, KVCache]:
    """Blocks that the scheduler may hand out, and the memory behind them: none where there is no cache.

    net: keeps something of every token, too.
    """
    model, ops, weights = llama.config, llama.ops, llama.weights
    device, int8_kv = weights.embedding.device, config.kv_cache_dtype == "int8"
    dtype = torch.float8_e4m3fn if config.kv_cache_dtype == "fp8" else weights.dtype
    if config.attention_backend == "paged":
        per_token = KVCache.bytes_per_token(model, ops, dtype, int8_kv) + draft_bytes_per_token(
            net, llama, config.block_size
        )
        blocks = num_kv_blocks(
            config, per_token, max_model_len, partial(_spare_bytes, config, llama, max_model_len, net)
        )
        return blocks, KVCache(model, ops, blocks, config.block_size, dtype, int8_kv, device)
    for name in ("kv_cache_memory_bytes", "num_kv_blocks"):
        if getattr(config, name) is not None:
            raise ConfigError(f"attention_backend none keeps no KV cache: leave {name} out")
    if int8_kv:
        raise ConfigError("attention_backend none keeps no KV cache: kv_cache_dtype must be auto, got int8")
    blocks = config.max_num_seqs * -(-max_model_len // config.block_size)
    return blocks, NoCache(model, ops, config.block_size, dtype)


def _spare_bytes(config: EngineConfig, model: LlamaModel, max_model_len: int, net: DraftNet | None) -> int:
    if config.device == "cpu":
        return spare_host_bytes()
    from minillm_serve.runner.gpu.memory import kv_bytes

    return kv_bytes(config, model, max_model_len, feature_width(net))


def _max_model_len(config: EngineConfig, model: ModelConfig) -> int:
    if config.max_model_len is None:
        return model.max_position_embeddings
    if config.max_model_len > model.max_position_embeddings:
        raise ConfigError(
            f"max_model_len {config.max_model_len} is more than the {model.max_position_embeddings} positions "
            "the model was trained for"
        )
    return config.max_model_len
