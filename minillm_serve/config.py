"""Frozen configuration: how the engine runs a model."""

from __future__ import annotations

from dataclasses import dataclass

from minillm_serve.errors import ConfigError
from minillm_serve.speculative import SpeculativeConfig, speculative_config

CHOICES: dict[str, tuple[str | None, ...]] = {
    "device": ("cpu", "cuda"),
    "dtype": ("auto", "float32", "bfloat16"),
    "load_format": ("auto", "dummy"),
    "kv_cache_dtype": ("auto", "int8", "fp8"),
    "batching": ("continuous", "static"),
    "scheduling_policy": ("fcfs", "priority"),
    "quantization": (None, "int8", "fp8", "int4", "awq", "gptq"),
    "attention_backend": ("paged", "none"),
    "kernels": ("auto", "torch", "ref", "triton"),
}
DEFAULT_DTYPE = {"cpu": "float32", "cuda": "bfloat16"}
DEFAULT_BATCHED_TOKENS = {"cpu": 512, "cuda": 8192}


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How the engine runs a model; names and meanings follow vLLM's flags.

    What a field of ``None`` or ``auto`` stands for may hang on ``device``: once made, a configuration names it.

    Model. device: ``cpu`` or ``cuda``. dtype: ``auto`` is float32 on a CPU, which has no bfloat16 arithmetic worth the
    name, and bfloat16 on a GPU. load_format: ``auto`` reads the checkpoint; ``dummy`` draws random weights, for
    measurements. skip_tokenizer_init: no tokenizer is loaded: token ids in, token ids out.

    Memory. block_size: tokens per KV block. num_kv_blocks: size of the pool; None: as many as fit in
    kv_cache_memory_bytes; both None: a share of the memory that is free once the model is loaded, on a GPU what is left
    of gpu_memory_utilization, a share of its whole memory (None: 0.9). kv_cache_dtype: ``auto`` (the model's dtype),
    ``int8`` or, on a GPU, ``fp8``. enable_prefix_caching: keep the blocks of finished requests for later ones that
    begin alike.

    Batch. max_num_seqs: requests in one step. max_num_batched_tokens: token budget of one step, prefill and decode
    together; None: 8192 on a GPU, on a CPU a quarter of vLLM's 2048: it takes seconds over 2048 prompt tokens, and with
    smaller steps the first prompts decode while later ones are still being read. enable_chunked_prefill: a prompt may
    be read over several steps. batching: ``continuous``, or ``static`` (a new batch starts when the last one has ended
    whole). scheduling_policy: ``fcfs`` or ``priority``. max_model_len: prompt plus output, in tokens (None: what the
    model was trained for).

    Guided decoding. json_always_closes: a constrained text is complete within its max_tokens (a request may say
    otherwise: ``structured_outputs.always_closes``); without it, a text that is cut ends with ``length``.
    guided_jump_ahead: text that the constraint leaves no choice about is appended without asking the model.
    guided_cache_mib: memory for compiled constraints, in MiB; those in use stay whatever it says.

    Arithmetic. quantization: None (as the checkpoint has it), ``int8`` or ``fp8`` (8-bit weights and activations; fp8
    is made for GPUs of Ada's and Hopper's generation and later), ``int4`` (4-bit weights, the LM head whole), ``awq``
    or ``gptq`` (only to insist that the checkpoint is one); fp8 and 4 bits are slow on a CPU. attention_backend:
    ``paged``, or ``none`` (no KV cache: every step reads the whole sequence again). kernels: ``auto`` (on a GPU
    Triton, on a CPU compiled where a compiler exists), ``torch``, ``ref`` or ``triton`` (on a CPU only in Triton's
    interpreter, with TRITON_INTERPRET=1: to learn from, not to serve). num_threads: threads of torch (None: its own
    choice).

    GPU. enforce_eager: launch every kernel by itself, without CUDA graphs. async_scheduling: plan and launch a step
    before the tokens of the one before it have come back; None: on a GPU.

    Speculation. speculative_config: how tokens are drafted to be verified together (None: they are not); also taken as
    a mapping or as JSON, with the keys of :class:`SpeculativeConfig`.
    """

    model: str
    dtype: str = "auto"
    device: str = "cpu"
    load_format: str = "auto"
    skip_tokenizer_init: bool = False
    max_model_len: int | None = None
    block_size: int = 16
    num_kv_blocks: int | None = None
    kv_cache_memory_bytes: int | None = None
    gpu_memory_utilization: float | None = None
    kv_cache_dtype: str = "auto"
    enable_prefix_caching: bool = True
    max_num_seqs: int = 128
    max_num_batched_tokens: int | None = None
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
    enforce_eager: bool = False
    async_scheduling: bool | None = None
    speculative_config: SpeculativeConfig | None = None

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(map(str, known))}, got {getattr(self, name)!r}")
        self._resolve()
        for name in ("block_size", "max_num_seqs", "max_num_batched_tokens", "guided_cache_mib"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_model_len", "num_kv_blocks", "kv_cache_memory_bytes", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1 when given, got {value}")
        share = self.gpu_memory_utilization
        if share is not None and self.device == "cpu":
            raise ConfigError("gpu_memory_utilization needs device cuda: on a CPU give kv_cache_memory_bytes")
        if share is not None and not 0 < share <= 1:
            raise ConfigError(f"gpu_memory_utilization must be above 0 and at most 1, got {share}")
        if self.device == "cpu" and self.kv_cache_dtype == "fp8":
            raise ConfigError("kv_cache_dtype fp8 needs device cuda: on a CPU use int8")

    def _resolve(self) -> None:
        """Put what this device takes by default in the place of ``auto`` and None."""
        chosen = {
            "dtype": DEFAULT_DTYPE[self.device] if self.dtype == "auto" else self.dtype,
            "max_num_batched_tokens": DEFAULT_BATCHED_TOKENS[self.device]
            if self.max_num_batched_tokens is None
            else self.max_num_batched_tokens,
            "gpu_memory_utilization": 0.9
            if self.device == "cuda" and self.gpu_memory_utilization is None
            else self.gpu_memory_utilization,
            "async_scheduling": self.device == "cuda" if self.async_scheduling is None else self.async_scheduling,
            "speculative_config": speculative_config(self.speculative_config),
        }
        for name, value in chosen.items():
            object.__setattr__(self, name, value)
