"""What a model is: the shape of a decoder, read from the ``config.json`` of its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minillm_serve.config import ConfigError
from minillm_serve.model.architectures import fields_from_hf
from minillm_serve.model.rope import Rope


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a Llama-family decoder. Which ``architecture`` it has shows only in these fields, nowhere in the code.

    qkv_bias, output_bias, mlp_bias: which projections add a bias. qk_norm: each head's query and key are normed before
    they rotate. sandwich_norms: attention and MLP are normed after as well as before. norm_offset: what is added to a
    checkpoint's norm weights (Gemma keeps w - 1). embedding_scale: factor on token embeddings. activation: ``silu`` or
    ``gelu_tanh``. attention_scale: factor on q·k. sliding_windows: per layer, how many tokens back (itself included) a
    token may look; 0: all. ropes: per layer, its rotary embedding; None: it does not rotate. quantization: what
    config.json says of weights that the checkpoint keeps quantised.
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
    max_position_embeddings: int
    tie_word_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    sandwich_norms: bool
    norm_offset: float
    embedding_scale: float
    activation: str
    attention_scale: float
    sliding_windows: tuple[int, ...]
    ropes: tuple[Rope | None, ...]
    eos_token_ids: tuple[int, ...]
    quantization: Mapping[str, Any] | None = None

    @classmethod
    def from_folder(cls, folder: str | Path) -> ModelConfig:
        """Read ``config.json`` (and ``generation_config.json`` for more EOS ids). Raises :class:`ConfigError`."""
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise ConfigError(f"{folder} is not a model folder: it has no config.json")
        generation = Path(folder) / "generation_config.json"
        extra = _read_object(generation) if generation.is_file() else {}
        return cls.from_hf(_read_object(path), extra.get("eos_token_id"))

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], generation_eos: int | list[int] | None = None) -> ModelConfig:
        """Translate a Hugging Face config dict; refuses what the model code would silently get wrong."""
        eos = {*_as_ids(raw.get("eos_token_id")), *_as_ids(generation_eos)}
        return cls(**fields_from_hf(raw), eos_token_ids=tuple(sorted(eos)))

    @property
    def kv_elements_per_token(self) -> int:
        """Numbers (keys and values, all layers) that one token keeps in the cache."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold a JSON object, it holds {type(value).__name__}")
    return value


def _as_ids(value: Any) -> list[int]:
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(isinstance(id, bool) or not isinstance(id, int) or id < 0 for id in ids):
        raise ConfigError(f"eos_token_id must be token ids, got {value!r}")
    return ids
