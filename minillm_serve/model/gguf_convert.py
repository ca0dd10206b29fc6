"""Dequantise a Llama-family GGUF file, once, into a Hugging Face folder of bfloat16 safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save

from minillm_serve.model.atomic import need_space, write_synced
from minillm_serve.model.gguf_tokenizer import build_tokenizer, tokenizer_config
from minillm_serve.model.store import SOURCE_FILE, ModelStoreError

BLOCK_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_gguf(gguf_path: Path, folder: Path, origin: dict[str, str], say: Callable[[str], None]) -> None:
    """Write ``folder`` (which exists and is empty) from ``gguf_path``.

    ``origin`` goes into the provenance record and must hold the honest ``name`` of the weights. Nothing is cleaned up
    on failure: the caller converts into a staging folder. Raises :class:`ModelStoreError`; ``OSError`` on disk errors.
    """
    reader = _open(gguf_path)
    metadata = {key: field.contents() for key, field in reader.fields.items()}
    config = hf_config(metadata, {tensor.name for tensor in reader.tensors})
    files = {
        "config.json": _json(config),
        "generation_config.json": _json({key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}),
        "tokenizer.json": build_tokenizer(metadata).to_str().encode(),
        "tokenizer_config.json": _json(tokenizer_config(metadata, config["max_position_embeddings"])),
    }
    parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
    need_space(folder, 2 * parameters + sum(map(len, files.values())), "the converted model")
    files["model.safetensors"] = save(dict(hf_tensors(reader, config, say)), metadata={"format": "pt"})
    records = {name: write_synced(folder / name, data) for name, data in files.items()}
    source = {
        **origin,
        "quantization": sorted({tensor.tensor_type.name for tensor in reader.tensors}),
        "parameters": parameters,
        "converted_with": {"minillm-serve": version("minillm-serve"), "gguf": version("gguf")},
        "files": records,
    }
    write_synced(folder / SOURCE_FILE, _json(source))


def hf_config(metadata: dict[str, Any], tensor_names: set[str]) -> dict[str, Any]:
    """``config.json`` of a plain Llama model; refuses architectures whose forward pass differs."""
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ModelStoreError(f"GGUF architecture {architecture!r} is not supported; supported: llama")
    if "rope_freqs.weight" in tensor_names or "llama.rope.scaling.type" in metadata:
        raise ModelStoreError("GGUF files with scaled rotary embeddings are not supported")
    hidden, heads = metadata["llama.embedding_length"], metadata["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": hidden,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get("llama.attention.head_count_kv", heads),
        "head_dim": metadata.get("llama.rope.dimension_count", hidden // heads),
        "hidden_act": "silu",
        "max_position_embeddings": metadata["llama.context_length"],
        "rms_norm_eps": _shortest(metadata["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": _shortest(metadata.get("llama.rope.freq_base", 10000.0)),
        "tie_word_embeddings": "output.weight" not in tensor_names,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "bfloat16",
    }


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """GGUF tensor name -> (Hugging Face name, shape) for every weight that ``config`` implies."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    block_shapes = {
        "attn_norm": (hidden,), "attn_q": (q, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden),
        "attn_output": (hidden, q), "ffn_norm": (hidden,), "ffn_gate": (inner, hidden), "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }  # fmt: skip
    shapes = {
        "token_embd.weight": ("model.embed_tokens.weight", (config["vocab_size"], hidden)),
        "output_norm.weight": ("model.norm.weight", (hidden,)),
    }
    if not config["tie_word_embeddings"]:
        shapes["output.weight"] = ("lm_head.weight", (config["vocab_size"], hidden))
    for layer in range(config["num_hidden_layers"]):
        for part, shape in block_shapes.items():
            shapes[f"blk.{layer}.{part}.weight"] = (f"model.layers.{layer}.{BLOCK_TENSORS[part]}.weight", shape)
    return shapes


def hf_tensors(
    reader: GGUFReader, config: dict[str, Any], say: Callable[[str], None]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (Hugging Face name, bfloat16 tensor); refuses missing, unknown or misshapen tensors."""
    wanted = tensor_shapes(config)
    found = {tensor.name for tensor in reader.tensors}
    if found != set(wanted):
        raise ModelStoreError(f"GGUF tensors do not fit its own header: {sorted(found ^ set(wanted))[:4]}")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for index, tensor in enumerate(reader.tensors, 1):
        name, shape = wanted[tensor.name]
        weight = dequantize(tensor.data, tensor.tensor_type)
        if weight.shape != shape:
            raise ModelStoreError(f"GGUF tensor {tensor.name} has shape {weight.shape}, expected {shape}")
        part = tensor.name.split(".")[-2]
        if part in heads:
            weight = unpermute_rotary(weight, heads[part])
        yield name, torch.from_numpy(np.array(weight, dtype=np.float32)).to(torch.bfloat16)
        if index % 68 == 0 or index == len(reader.tensors):
            say(f"  {index}/{len(reader.tensors)} tensors")


def unpermute_rotary(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of ``weight`` [heads * head_dim, in] from llama.cpp's order to Hugging Face's.

    llama.cpp rotates neighbouring rows (2i, 2i+1) of a head, Hugging Face rotates rows i and i + head_dim/2.
    """
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def _open(path: Path) -> GGUFReader:
    try:
        return GGUFReader(path)
    except (ValueError, IndexError, KeyError) as error:
        raise ModelStoreError(f"{path} is not a readable GGUF file: {error}") from error


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32: 1e-05 where the file's bits say 9.99999974e-06."""
    return float(str(np.float32(value)))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
