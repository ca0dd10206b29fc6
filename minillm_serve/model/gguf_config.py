"""The ``config.json`` that a GGUF file's metadata stands for."""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm_serve.model.gguf_file import GGUFFile
from minillm_serve.model.loader import CheckpointError

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma": "GemmaForCausalLM",
}
ROPE_DIVISORS = "rope_freqs.weight"  # llama.cpp's form of Llama 3.1's rotary scaling, worked out per frequency
ROPE_SCALING = {"type", "factor", "original_context_length", "finetuned"}


def hf_config(file: GGUFFile) -> dict[str, Any]:
    """What ``ModelConfig.from_hf`` reads. Raises :class:`CheckpointError` on what we would compute wrongly."""
    metadata, tensors = file.metadata, file.tensors
    model = _Section(file, metadata.get("general.architecture"))
    heads, hidden = model.integer("attention.head_count"), model.integer("embedding_length")
    head_dim = model.integer("attention.key_length", hidden // heads)
    for key, value in (("attention.value_length", head_dim), ("rope.dimension_count", head_dim), ("expert_count", 0)):
        if (found := model.get(key, value)) != value:
            raise CheckpointError(f"GGUF {model.name}.{key} = {found!r} is not supported, only {value}")
    window = model.integer("attention.sliding_window", 0)
    if window and model.name != "llama":
        raise CheckpointError(f"GGUF architecture {model.name!r} with a sliding window is not supported")
    if "token_embd.weight" not in tensors:
        raise CheckpointError(f"{file.path} has no tensor token_embd.weight")
    # Chat models end their turn with a token of its own, beside the one that ends a text.
    eos, *turns = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    more = [id for id in turns if id not in (None, eos)]
    config = {
        "architectures": ["MistralForCausalLM" if window else ARCHITECTURES[model.name]],
        "model_type": "mistral" if window else model.name,
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "hidden_size": hidden,
        "intermediate_size": model.integer("feed_forward_length"),
        "num_hidden_layers": model.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": model.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "gelu_pytorch_tanh" if model.name == "gemma" else "silu",
        "max_position_embeddings": model.integer("context_length"),
        "rms_norm_eps": model.number("attention.layer_norm_rms_epsilon", 1e-6),
        "rope_theta": model.number("rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": model.name != "qwen2" and "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": [eos, *more] if more and eos is not None else eos,
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "bfloat16",
    }
    if window:
        config["sliding_window"] = window
    if scaling := _rope_scaling(file, model):
        config["rope_scaling"] = scaling
    return config


class _Section:
    """The metadata under ``architecture.``, each value of the type it is asked for."""

    def __init__(self, file: GGUFFile, name: Any):
        if name not in ARCHITECTURES:
            raise CheckpointError(f"GGUF architecture {name!r} is not supported; supported: {', '.join(ARCHITECTURES)}")
        self.file = file
        self.name = name

    def get(self, key: str, default: Any = None) -> Any:
        return self.file.metadata.get(f"{self.name}.{key}", default)

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or (value < 1 and value != default):
            raise CheckpointError(f"{self.file.path} needs {self.name}.{key} as a positive integer, it has {value!r}")
        return value

    def number(self, key: str, default: float) -> float:
        """The shortest decimal that is the same float32: 1e-05 where the file's bits say 9.99999974e-06."""
        value = self.get(key, default)
        if not isinstance(value, float) or not value > 0:
            raise CheckpointError(f"{self.file.path} needs {self.name}.{key} as a positive number, it has {value!r}")
        return float(str(np.float32(value)))


def _rope_scaling(file: GGUFFile, model: _Section) -> dict[str, Any] | None:
    prefix = f"{model.name}.rope.scaling."
    found = {key.removeprefix(prefix) for key in file.metadata if key.startswith(prefix)}
    kind = model.get("rope.scaling.type", "none")
    if odd := found - ROPE_SCALING:
        raise CheckpointError(f"GGUF rotary scaling with {', '.join(sorted(odd))} is not supported")
    if ROPE_DIVISORS in file.tensors:
        if kind != "none":
            raise CheckpointError(f"GGUF rotary scaling {kind!r} together with {ROPE_DIVISORS} is not supported")
        return {"rope_type": "divisors", "divisors": file.dequantize(ROPE_DIVISORS).tolist()}
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise CheckpointError(f"GGUF rotary scaling {kind!r} is not supported; supported: linear, yarn")
    scaling = {"rope_type": kind, "factor": model.number("rope.scaling.factor", 0.0)}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = model.integer("rope.scaling.original_context_length")
    return scaling
