"""Frozen configuration: how the engine runs a model."""

from __future__ import annotations

from dataclasses import dataclass


class ConfigError(ValueError):
    """A configuration or model folder that cannot work; says what was expected and what to do."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How the engine runs a model; names and meanings follow vLLM's flags.

    block_size: tokens per KV block. num_kv_blocks: size of the pool (None: from ``kv_cache_memory_bytes``).
    max_num_seqs: requests in one step. max_num_batched_tokens: token budget of one step, prefill and decode together.
    Its default is a quarter of vLLM's 2048: a CPU takes seconds over 2048 prompt tokens, and with smaller steps the
    first prompts decode while later ones are still being read.
    max_model_len: prompt plus output, in tokens (None: what the model was trained for).
    """

    model: str
    dtype: str = "float32"
    device: str = "cpu"
    max_model_len: int | None = None
    block_size: int = 16
    num_kv_blocks: int | None = None
    kv_cache_memory_bytes: int = 1 << 30
    max_num_seqs: int = 128
    max_num_batched_tokens: int = 512
    num_threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("block_size", "kv_cache_memory_bytes", "max_num_seqs", "max_num_batched_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_model_len", "num_kv_blocks", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1 when given, got {value}")
        if self.device != "cpu":
            raise ConfigError(f"device must be cpu (GPUs come with the Triton kernels), got {self.device!r}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")
