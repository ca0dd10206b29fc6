"""Frozen configuration: how the engine runs a model."""

from __future__ import annotations

from dataclasses import dataclass


class ConfigError(ValueError):
    """A configuration or model folder that cannot work; says what was expected and what to do."""


CHOICES: dict[str, tuple[str | None, ...]] = {
    "dtype": ("float32", "bfloat16"),
    "kv_cache_dtype": ("auto", "int8"),
    "batching": ("continuous", "static"),
    "scheduling_policy": ("fcfs", "priority"),
    "quantization": (None, "int8"),
    "attention_backend": ("paged", "none"),
    "kernels": ("auto", "torch", "ref"),
}


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How the engine runs a model; names and meanings follow vLLM's flags.

    Memory. block_size: tokens per KV block. num_kv_blocks: size of the pool; None: as many as fit in
    kv_cache_memory_bytes; both None: a share of the memory that is free once the model is loaded. kv_cache_dtype:
    ``auto`` (the model's dtype) or ``int8``. enable_prefix_caching: keep the blocks of finished requests for later ones
    that begin alike.

    Batch. max_num_seqs: requests in one step. max_num_batched_tokens: token budget of one step, prefill and decode
    together; its default is a quarter of vLLM's 2048: a CPU takes seconds over 2048 prompt tokens, and with smaller
    steps the first prompts decode while later ones are still being read. enable_chunked_prefill: a prompt may be read
    over several steps. batching: ``continuous``, or ``static`` (a new batch starts when the last one has ended whole).
    scheduling_policy: ``fcfs`` or ``priority``. max_model_len: prompt plus output, in tokens (None: what the model was
    trained for).

    Guided decoding. json_always_closes: a constrained text is complete within its max_tokens (a request may say
    otherwise: ``structured_outputs.always_closes``); without it, a text that is cut ends with ``length``.
    guided_jump_ahead: text that the constraint leaves no choice about is appended without asking the model.
    guided_cache_mib: memory for compiled constraints, in MiB; those in use stay whatever it says.

    Arithmetic. quantization: None or ``int8`` (8-bit weights and activations). attention_backend: ``paged``, or
    ``none`` (no KV cache: every step reads the whole sequence again). kernels: ``auto`` (compiled where a compiler
    exists), ``torch`` or ``ref``. num_threads: threads of torch (None: its own choice).
    """

    model: str
    dtype: str = "float32"
    device: str = "cpu"
    max_model_len: int | None = None
    block_size: int = 16
    num_kv_blocks: int | None = None
    kv_cache_memory_bytes: int | None = None
    kv_cache_dtype: str = "auto"
    enable_prefix_caching: bool = True
    max_num_seqs: int = 128
    max_num_batched_tokens: int = 512
    enable_chunked_prefill: bool = True
    batching: str = "continuous"
    scheduling_policy: str = "fcfs"
    json_always_closes: bool = False
    guided_jump_ahead: bool = True
    guided_cache_mib: int = 256
    quantization: str | None = None
    attention_backend: str = "paged"
    kernels: str = "auto"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("block_size", "max_num_seqs", "max_num_batched_tokens", "guided_cache_mib"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_model_len", "num_kv_blocks", "kv_cache_memory_bytes", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1 when given, got {value}")
        if self.device != "cpu":
            raise ConfigError(f"device must be cpu (GPUs come with the Triton kernels), got {self.device!r}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(map(str, known))}, got {getattr(self, name)!r}")
