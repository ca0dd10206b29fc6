"""A GGUF file computes what transformers computes with the same numbers, for every tensor type and architecture."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from gguf_writer import write_gguf
from safetensors.numpy import save_file
from tiny_model import FAMILIES, build_tiny_model
from transformers import AutoModelForCausalLM

from minillm_kernels import resolve
from minillm_serve import LLM, SamplingParams
from minillm_serve.attention.backends import KVCache
from minillm_serve.model.gguf_checkpoint import hf_name
from minillm_serve.model.gguf_file import SUPPORTED
from minillm_serve.model.linear import Unquantized
from minillm_serve.model.llama import LlamaModel
from minillm_serve.model.loader import CheckpointError
from minillm_serve.model.source import ModelSource, open_model
from minillm_serve.model.store import DEFAULT_MODEL, cache_root, known_model, resolve_model
from minillm_serve.model.weights import load_weights

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32, "rope_theta": 500.0}  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0}
MODELS = {
    "llama": ({}, {}),
    "llama-smollm": ({"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3}, {}),
    "llama-biases": ({"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}, {}),
    "llama3-rope": ({"rope_parameters": LLAMA3}, {}),
    "llama-linear-rope": (
        {"rope_parameters": LINEAR}, {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    ),
    "qwen3-yarn": (
        FAMILIES["qwen3"] | {"rope_parameters": YARN},
        {"qwen3.rope.scaling.type": "yarn", "qwen3.rope.scaling.factor": 4.0,
         "qwen3.rope.scaling.original_context_length": 16},
    ),
    "mistral": (FAMILIES["mistral"], {}),
    "qwen2": (FAMILIES["qwen2"] | {"use_sliding_window": False}, {}),
    "qwen3": (FAMILIES["qwen3"], {}),
    "gemma": (FAMILIES["gemma"], {}),
}  # fmt: skip


def logits(source: ModelSource, ids: torch.Tensor) -> torch.Tensor:
    ops, config, count = resolve("ref"), source.config, len(ids)
    weights = load_weights(source.checkpoint, config, Unquantized(ops), torch.float32)
    attention = KVCache(config, ops, 1, count, torch.float32).plan(
        torch.arange(count), torch.tensor([[0]]), [count], [count]
    )
    with torch.inference_mode():
        return LlamaModel(config, weights, ops).forward(ids, torch.arange(count), attention, torch.arange(count))


def transformers_logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(ids.unsqueeze(0)).logits[0]


def assert_same_logits(folder: Path, path: Path) -> None:
    ids = torch.randint(3, 500, (21,), generator=torch.Generator().manual_seed(1))
    expected = transformers_logits(folder, ids)
    torch.testing.assert_close(logits(open_model(path), ids), expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture(tmp_path, name):
    overrides, metadata = MODELS[name]
    folder = build_tiny_model(tmp_path / "model", seed=5, **overrides)
    write_gguf(tmp_path / "model.gguf", folder, metadata=metadata)
    assert_same_logits(folder, tmp_path / "model.gguf")


@pytest.mark.parametrize("kind", SUPPORTED)
def test_every_tensor_type(tmp_path, kind):
    """The folder gets the numbers that an independent reading of the blocks gives; the file must mean the same."""
    folder = build_tiny_model(
        tmp_path / "model", hidden_size=256, intermediate_size=256, num_attention_heads=2, num_key_value_heads=1,
        num_hidden_layers=1,
    )  # fmt: skip
    meant = write_gguf(tmp_path / "model.gguf", folder, kind)
    save_file(meant, folder / "model.safetensors", metadata={"format": "pt"})
    source = open_model(tmp_path / "model.gguf")
    for name, numbers in meant.items():
        read = source.checkpoint.read(name, numbers.shape)
        torch.testing.assert_close(read, torch.from_numpy(numbers), rtol=1e-6, atol=1e-9, msg=name)
    assert_same_logits(folder, tmp_path / "model.gguf")


def test_the_engine_loads_a_file_as_it_loads_a_folder(tmp_path, tiny_model_dir):
    write_gguf(tmp_path / "tiny.gguf", tiny_model_dir)
    assert resolve_model(tmp_path / "tiny.gguf") == tmp_path / "tiny.gguf"
    params = SamplingParams(max_tokens=12, temperature=0.0)
    prompts = [[5, 6, 7, 8], [300, 20, 31]]
    from_file, from_folder = (
        [output.outputs[0].token_ids for output in LLM(str(model), num_kv_blocks=16).generate(prompts, params)]
        for model in (tmp_path / "tiny.gguf", tiny_model_dir)
    )
    assert from_file == from_folder


def test_the_end_of_a_turn_ends_a_text_too(tmp_path, tiny_model_dir):
    write_gguf(tmp_path / "chat.gguf", tiny_model_dir, metadata={"tokenizer.ggml.eot_token_id": 7})
    source = open_model(tmp_path / "chat.gguf")
    assert source.config.eos_token_ids == (2, 7)
    assert source.tokenizer.eos_token_ids == {2, 7}


@pytest.mark.parametrize(
    ("metadata", "skip", "sentence"),
    [
        ({"llama.expert_count": 8}, "", "expert_count = 8 is not supported"),
        ({"llama.rope.dimension_count": 8}, "", "dimension_count = 8 is not supported"),
        ({"llama.rope.scaling.type": "longrope"}, "", "'longrope' is not supported"),
        ({"llama.rope.scaling.type": "linear"}, "", r"needs llama\.rope\.scaling\.factor"),
        ({"llama.rope.scaling.yarn_beta_fast": 3.0}, "", "yarn_beta_fast is not supported"),
        ({"llama.block_count": 1}, "", "9 tensors that LlamaForCausalLM does not use"),
        ({"llama.block_count": 3}, "", r"no tensor for model\.layers\.2"),
        ({"llama.attention.head_count": 0}, "", r"needs llama\.attention\.head_count as a positive integer"),
        ({"llama.embedding_length": 65}, "", r"shape \[512, 64\], expected \[512, 65\]"),
        ({"llama.context_length": "long"}, "", r"needs llama\.context_length as a positive integer"),
        ({}, "token_embd.weight", r"no tensor token_embd\.weight"),
        ({}, "blk.1.attn_k.weight", r"no tensor for model\.layers\.1\.self_attn\.k_proj"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused_by_name(tmp_path, tiny_model_dir, metadata, skip, sentence):
    write_gguf(tmp_path / "odd.gguf", tiny_model_dir, metadata=metadata, skip=skip)
    with pytest.raises(CheckpointError, match=sentence):
        source = open_model(tmp_path / "odd.gguf")
        load_weights(source.checkpoint, source.config, Unquantized(resolve("ref")), torch.float32)


@pytest.mark.model
def test_the_real_file_and_the_folder_made_of_it_hold_the_same_weights():
    """The folder keeps bfloat16, the file's own numbers are finer: every weight agrees to bfloat16's rounding."""
    path = cache_root() / "downloads" / Path(known_model(DEFAULT_MODEL).member).name
    if not path.is_file():
        pytest.skip(f"the downloaded {os.path.basename(path)} was not kept")
    file, folder = open_model(path), open_model(resolve_model(DEFAULT_MODEL))
    assert file.config == folder.config
    assert file.checkpoint.names() == folder.checkpoint.names()
    text = "The capital of France is Paris: 1234, ¿año?"
    assert file.tokenizer.encode(text) == folder.tokenizer.encode(text)
    for stored, info in file.checkpoint.file.tensors.items():
        name = hf_name(stored)
        assert torch.equal(file.checkpoint.read(name, info.shape).bfloat16(), folder.checkpoint.read(name, info.shape))
