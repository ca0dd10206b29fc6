"""Writes a tiny Hugging Face folder as a GGUF file, by the conventions of llama.cpp's converter, in any tensor type.

Types that the ``gguf`` package can quantise to are quantised by it; blocks of the K types are drawn at random. What the
blocks mean is computed here from the definition of each type in ggml (``ggml-quants.c``), number by number: an oracle
that shares no code with what it checks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from safetensors.numpy import load_file

TO_GGUF = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{kind}"
    layer, part = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{TO_GGUF[part]}.{kind}"


def write_gguf(
    path: Path, folder: Path, kind: str = "F32", metadata: dict[str, Any] | None = None, skip: str = "", seed: int = 0
) -> dict[str, np.ndarray]:
    """Write ``folder`` (llama, mistral, qwen2, qwen3 or gemma) to ``path``; matrices get the type ``kind``.

    metadata: more or other keys (ints, floats, strings). skip: a GGUF tensor to leave out. Returns the numbers that the
    file stands for, under their Hugging Face names and in Hugging Face's order.
    """
    config = json.loads((folder / "config.json").read_text())
    family = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(path, family)
    for key, value in (header(config, family) | (metadata or {})).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
        add[type(value)](key, value)
    write_tokenizer(writer, folder)
    random, meant = np.random.default_rng(seed), {}
    for name, weight in load_file(folder / "model.safetensors").items():
        stored = weight.astype(np.float32)
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        if family == "llama" and heads:
            stored = swap_rotary(stored, config[heads], to_llama_cpp=True)
        if family == "gemma" and name.endswith("norm.weight"):
            stored = stored + 1
        raw, numbers = coded(stored, kind if stored.ndim == 2 else "F32", random)
        if gguf_name(name) != skip:
            writer.add_tensor(gguf_name(name), raw, raw_dtype=GGMLQuantizationType[kind if stored.ndim == 2 else "F32"])
        if family == "llama" and heads:
            numbers = swap_rotary(numbers, config[heads], to_llama_cpp=False)
        meant[name] = numbers - 1 if family == "gemma" and name.endswith("norm.weight") else numbers
    if config.get("rope_parameters", {}).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def header(config: dict[str, Any], family: str) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    keys: dict[str, Any] = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": float(config.get("rope_parameters", config)["rope_theta"]),
        "rope.dimension_count": head_dim,
    }
    if config["model_type"] == "mistral" and config["sliding_window"]:
        keys["attention.sliding_window"] = config["sliding_window"]
    return {f"{family}.{key}": value for key, value in keys.items()}


def write_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") and token.endswith("|>") else 1 for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def swap_rotary(weight: np.ndarray, heads: int, to_llama_cpp: bool) -> np.ndarray:
    """Rows (i, i + D/2) of each head become neighbours (2i, 2i + 1), or back."""
    half = weight.shape[0] // heads // 2
    split = (heads, 2, half, -1) if to_llama_cpp else (heads, half, 2, -1)
    return np.ascontiguousarray(weight.reshape(split).swapaxes(1, 2)).reshape(weight.shape)


def llama3_divisors(config: dict[str, Any]) -> np.ndarray:
    rope, dim = config["rope_parameters"], config["hidden_size"] // config["num_attention_heads"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    divisors = []
    for pair in range(dim // 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (2 * pair / dim)
        turns = rope["original_max_position_embeddings"] / wavelength
        smooth = min(max((turns - low) / (high - low), 0), 1)
        divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def coded(weight: np.ndarray, kind: str, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A matrix in the type ``kind``: (what the file holds, the numbers it means)."""
    if kind == "F32":
        return weight, weight
    if kind == "F16":
        return weight.astype(np.float16), weight.astype(np.float16).astype(np.float32)
    if kind == "BF16":
        raw = gguf.quants.quantize(weight, GGMLQuantizationType.BF16)
        return raw, (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(weight.shape)
    numbers_per_block, bytes_per_block = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    if kind.endswith("_K"):
        raw = random_k_blocks(weight.shape, kind, numbers_per_block, bytes_per_block, random)
    else:
        raw = gguf.quants.quantize(weight, GGMLQuantizationType[kind])
    blocks = raw.reshape(-1, bytes_per_block)
    return raw, np.concatenate([MEANING[kind](block) for block in blocks]).reshape(weight.shape)


def random_k_blocks(
    shape: tuple[int, ...], kind: str, numbers: int, size: int, random: np.random.Generator
) -> np.ndarray:
    """Random bits in every field, but for the half-precision factors, which are kept small."""
    rows, blocks = shape[0], shape[1] // numbers
    raw = random.integers(0, 256, (rows, blocks, size), np.uint8)
    factors = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind]
    for at in factors:
        values = random.uniform(0.5e-4, 2e-4, (rows, blocks, 1)).astype(np.float16)
        raw[..., at : at + 2] = values.view(np.uint8)
    return raw.reshape(rows, blocks * size)


def half(block: np.ndarray, at: int) -> np.float32:
    return np.float32(block[at : at + 2].view(np.float16)[0])


def q4_0(block: np.ndarray) -> np.ndarray:
    d, q = half(block, 0), block[2:].astype(np.int32)
    return np.concatenate((d * ((q & 15) - 8), d * ((q >> 4) - 8))).astype(np.float32)


def q4_1(block: np.ndarray) -> np.ndarray:
    d, m, q = half(block, 0), half(block, 2), block[4:].astype(np.int32)
    return np.concatenate((d * (q & 15) + m, d * (q >> 4) + m)).astype(np.float32)


def fifth_bits(block: np.ndarray) -> np.ndarray:
    return np.array([(int(block.view("<u4")[0]) >> bit & 1) << 4 for bit in range(32)])


def q5_0(block: np.ndarray) -> np.ndarray:
    d, high, q = half(block, 0), fifth_bits(block[2:6].copy()), block[6:].astype(np.int32)
    return (d * ((np.concatenate((q & 15, q >> 4)) | high) - 16)).astype(np.float32)


def q5_1(block: np.ndarray) -> np.ndarray:
    d, m, high, q = half(block, 0), half(block, 2), fifth_bits(block[4:8].copy()), block[8:].astype(np.int32)
    return (d * (np.concatenate((q & 15, q >> 4)) | high) + m).astype(np.float32)


def q8_0(block: np.ndarray) -> np.ndarray:
    return (half(block, 0) * block[2:].view(np.int8)).astype(np.float32)


def scale_and_min(packed: np.ndarray, index: int) -> tuple[int, int]:
    """Six bits each, of sub-block ``index`` out of eight, from twelve bytes."""
    b = packed.astype(int)
    if index < 4:
        return b[index] & 63, b[index + 4] & 63
    return (b[index + 4] & 15) | (b[index - 4] >> 6) << 4, (b[index + 4] >> 4) | (b[index] >> 6) << 4


def q4_k(block: np.ndarray, high: np.ndarray | None = None) -> np.ndarray:
    """Eight sub-blocks of 32; ``high`` [32]: Q5_K's fifth bits, bit i for sub-block i."""
    d, dmin, packed = half(block, 0), half(block, 2), block[4:16]
    q = block[16 + (0 if high is None else 32) :].astype(np.int32)
    out = []
    for index in range(8):
        scale, minimum = scale_and_min(packed, index)
        part = q[index // 2 * 32 :][:32] >> 4 * (index % 2) & 15
        if high is not None:
            part = part + 16 * (high >> index & 1)
        out.append(d * np.float32(scale) * part - dmin * np.float32(minimum))
    return np.concatenate(out).astype(np.float32)


def q5_k(block: np.ndarray) -> np.ndarray:
    return q4_k(block, block[16:48].astype(np.int32))


def q6_k(block: np.ndarray) -> np.ndarray:
    low, high, scales, d = block[:128].astype(int), block[128:192].astype(int), block[192:208].view(np.int8), None
    d, out = half(block, 208), np.zeros(256, np.float32)
    for n in range(2):
        for lane in range(32):
            bits = high[32 * n + lane]
            fours = (low[64 * n + lane] & 15, low[64 * n + 32 + lane] & 15,
                     low[64 * n + lane] >> 4, low[64 * n + 32 + lane] >> 4)  # fmt: skip
            for quarter, four in enumerate(fours):
                q = (four | (bits >> 2 * quarter & 3) << 4) - 32
                out[128 * n + 32 * quarter + lane] = d * scales[8 * n + lane // 16 + 2 * quarter] * q
    return out


MEANING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k,
}  # fmt: skip
