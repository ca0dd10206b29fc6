"""A model of random weights behind a real tokenizer: it takes no time and knows nothing, so only masks make sense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")
SHAPE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}


def build_random_model(source: Path, folder: Path, seed: int = 0) -> Path:
    """Write a model folder with the tokenizer, vocabulary size and end tokens of ``source``; returns ``folder``."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    theirs = json.loads((source / "config.json").read_text(encoding="utf-8"))
    kept = {name: theirs[name] for name in ("vocab_size", "bos_token_id", "eos_token_id") if name in theirs}
    config = SHAPE | kept
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    generator = torch.Generator().manual_seed(seed)
    hidden, heads = config["hidden_size"], config["head_dim"]
    shapes = {
        "self_attn.q_proj": (config["num_attention_heads"] * heads, hidden),
        "self_attn.k_proj": (config["num_key_value_heads"] * heads, hidden),
        "self_attn.v_proj": (config["num_key_value_heads"] * heads, hidden),
        "self_attn.o_proj": (hidden, config["num_attention_heads"] * heads),
        "mlp.gate_proj": (config["intermediate_size"], hidden),
        "mlp.up_proj": (config["intermediate_size"], hidden),
        "mlp.down_proj": (hidden, config["intermediate_size"]),
    }
    weights = {
        f"model.layers.0.{name}.weight": torch.randn(shape, generator=generator) / shape[1] ** 0.5
        for name, shape in shapes.items()
    }
    weights["model.embed_tokens.weight"] = torch.randn(config["vocab_size"], hidden, generator=generator)
    for name in ("layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"):
        weights[f"model.{name}.weight"] = torch.ones(hidden)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder
