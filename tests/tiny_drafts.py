"""What drafts for the tiny model: a copy of it with noise on its weights, and an untrained EAGLE-style head."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from minillm_serve.model.draft_head import ARCHITECTURE


def noisy_copy(target: Path, folder: Path, noise: float = 0.05) -> Path:
    """The target, a little beside itself: it often says the same, and often does not."""
    shutil.copytree(target, folder)
    generator = torch.Generator().manual_seed(1)
    weights = load_file(str(target / "model.safetensors"))
    for name, weight in weights.items():
        if weight.dim() == 2:
            weights[name] = weight + noise * weight.std() * torch.randn(weight.shape, generator=generator)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def tiny_head(target: Path, folder: Path, token_map: Sequence[int], aux_layers: Sequence[int] = (1,)) -> Path:
    """A head of one layer with random weights and an LM head of its own."""
    raw = json.loads((target / "config.json").read_text(encoding="utf-8"))
    hidden, inner, vocab = raw["hidden_size"], raw["intermediate_size"], raw["vocab_size"]
    heads, kv_heads = raw["num_attention_heads"], raw["num_key_value_heads"]
    dim = hidden // heads
    generator = torch.Generator().manual_seed(2)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * (1.5 / columns**0.5)

    layer = "layers.0."
    tensors = {
        "fc.weight": matrix(hidden, (len(aux_layers) + 1) * hidden),
        "input.weight": matrix(hidden, 2 * hidden),
        f"{layer}self_attn.q_proj.weight": matrix(heads * dim, hidden),
        f"{layer}self_attn.k_proj.weight": matrix(kv_heads * dim, hidden),
        f"{layer}self_attn.v_proj.weight": matrix(kv_heads * dim, hidden),
        f"{layer}self_attn.o_proj.weight": matrix(hidden, heads * dim),
        f"{layer}mlp.gate_proj.weight": matrix(inner, hidden),
        f"{layer}mlp.up_proj.weight": matrix(inner, hidden),
        f"{layer}mlp.down_proj.weight": matrix(hidden, inner),
        "lm_head.weight": matrix(len(token_map), hidden),
        "token_map": torch.tensor(token_map, dtype=torch.int32),
    }
    norms = ("embed_norm", "feature_norm", "norm", f"{layer}input_layernorm", f"{layer}post_attention_layernorm")
    tensors |= {f"{name}.weight": 1 + 0.2 * torch.randn(hidden, generator=generator) for name in norms}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = {
        "architectures": [ARCHITECTURE],
        "method": "eagle",
        "num_hidden_layers": 1,
        "head_dim": dim,
        "aux_layers": list(aux_layers),
        "draft_vocab_size": len(token_map),
        "vocab_size": vocab,
    }
    kept = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "rms_norm_eps")
    kept += ("rope_theta", "max_position_embeddings")
    config |= {name: raw[name] for name in kept}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
