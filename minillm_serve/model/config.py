"""What a model is: the shape of a decoder, read from the ``config.json`` of its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from minillm_serve.config import ConfigError


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a Llama-family model, from the ``config.json`` of a Hugging Face folder.

    attention_scale: factor on q·k. sliding_windows: per layer, how many tokens back (itself included) a token may
    look; 0 means all of them.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    attention_bias: bool
    eos_token_ids: tuple[int, ...]
    attention_scale: float
    sliding_windows: tuple[int, ...]

    @classmethod
    def from_folder(cls, folder: str | Path) -> ModelConfig:
        """Read ``config.json`` (and ``generation_config.json`` for more EOS ids). Raises :class:`ConfigError`."""
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise ConfigError(f"{folder} is not a model folder: it has no config.json")
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is not readable JSON: {error}") from error
        generation = Path(folder) / "generation_config.json"
        extra = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else {}
        return cls.from_hf(raw, extra.get("eos_token_id"))

    @classmethod
    def from_hf(cls, raw: dict, generation_eos: int | list[int] | None = None) -> ModelConfig:
        """Translate a Hugging Face config dict; refuses what the model code would silently get wrong."""
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            if not isinstance(raw.get(name), int) or raw[name] < 1:
                raise ConfigError(f"config.json needs {name} as a positive integer, it has {raw.get(name)!r}")
        architecture = (raw.get("architectures") or ["?"])[0]
        if architecture != "LlamaForCausalLM":
            raise ConfigError(f"architecture {architecture} is not supported; supported: LlamaForCausalLM")
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise ConfigError(f"RoPE scaling {rope} is not supported; only the default rotary embedding is")
        if raw.get("hidden_act", "silu") != "silu" or raw.get("mlp_bias"):
            raise ConfigError("only SwiGLU MLPs without bias are supported")
        heads = raw["num_attention_heads"]
        head_dim = raw.get("head_dim") or raw["hidden_size"] // heads
        return cls(
            architecture=architecture,
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            intermediate_size=raw["intermediate_size"],
            num_layers=raw["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=raw.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
            rope_theta=float(rope.get("rope_theta", raw.get("rope_theta", 10000.0))),
            max_position_embeddings=raw.get("max_position_embeddings", 2048),
            tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
            attention_bias=bool(raw.get("attention_bias", False)),
            attention_scale=head_dim**-0.5,
            sliding_windows=(0,) * raw["num_hidden_layers"],
            eos_token_ids=tuple(sorted({*_as_ids(raw.get("eos_token_id")), *_as_ids(generation_eos)})),
        )

    @property
    def kv_elements_per_token(self) -> int:
        """Numbers (keys and values, all layers) that one token keeps in the cache."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim


def _as_ids(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)
