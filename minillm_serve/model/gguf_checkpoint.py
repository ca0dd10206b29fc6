"""The tensors of a GGUF file under their Hugging Face names and in Hugging Face's order, dequantised one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_serve.model.gguf_config import ROPE_DIVISORS, hf_config
from minillm_serve.model.gguf_file import GGUFFile
from minillm_serve.model.loader import CheckpointError

WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GGUFCheckpoint:
    """A GGUF file as :class:`minillm_serve.model.weights.TensorSource`; ``config``: the config.json it stands for.

    Raises :class:`CheckpointError` if the file is damaged, its model is not supported or a tensor has no place in it.
    """

    def __init__(self, path: str | Path):
        self.file = GGUFFile(path)
        self.config = hf_config(self.file)
        self._stored = {hf_name(name): name for name in self.file.tensors if name != ROPE_DIVISORS}

    def names(self) -> list[str]:
        """All tensor names, as Hugging Face has them."""
        return sorted(self._stored)

    def read(self, name: str, shape: Sequence[int]) -> Tensor:
        """One tensor in fp32, which must have exactly this shape. Raises :class:`CheckpointError`."""
        stored = self._stored.get(name)
        if stored is None:
            raise CheckpointError(f"{self.file.path} has no tensor for {name}")
        if (found := self.file.tensors[stored].shape) != tuple(shape):
            raise CheckpointError(f"GGUF tensor {stored} has shape {list(found)}, expected {list(shape)}")
        weight, part = self.file.dequantize(stored), stored.split(".")[-2]
        if self.config["model_type"] in ("llama", "mistral") and part in ("attn_q", "attn_k"):
            heads = self.config["num_attention_heads" if part == "attn_q" else "num_key_value_heads"]
            weight = unpermute_rotary(weight, heads)
        if self.config["model_type"] == "gemma" and part.endswith("norm"):
            weight = weight - 1.0  # llama.cpp's converter adds the 1 that Hugging Face's model adds when it runs
        return torch.from_numpy(weight if weight.flags.writeable else weight.copy())


def hf_name(name: str) -> str:
    """``blk.3.attn_q.weight`` -> ``model.layers.3.self_attn.q_proj.weight``. Raises :class:`CheckpointError`."""
    match name.split("."):
        case [whole, kind] if whole in WHOLE:
            return f"{WHOLE[whole]}.{kind}"
        case ["blk", layer, part, kind] if part in PARTS:
            return f"model.layers.{layer}.{PARTS[part]}.{kind}"
    raise CheckpointError(f"GGUF tensor {name} is not supported: no code here uses it")


def unpermute_rotary(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of ``weight`` [heads * head_dim, ...] from llama.cpp's order to Hugging Face's.

    llama.cpp rotates neighbouring rows (2i, 2i+1) of a head, Hugging Face rotates rows i and i + head_dim/2.
    """
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(weight.shape)
