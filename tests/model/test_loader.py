"""A model folder is data: damaged or dangerous files are refused before a byte of them is believed."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minillm_kernels import resolve
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.linear import Unquantized
from minillm_serve.model.loader import Checkpoint, CheckpointError, check_header
from minillm_serve.model.weights import Weights, load_weights


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def tensor(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_a_good_file_reads_back_equal(tmp_path):
    tensors = {"a": torch.randn(3, 5), "b": torch.randn(4).bfloat16()}
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.names() == ["a", "b"]
    assert torch.equal(checkpoint.read("a", (3, 5)), tensors["a"])
    with pytest.raises(CheckpointError, match=r"shape \[3, 5\]"):
        checkpoint.read("a", (5, 3))
    with pytest.raises(CheckpointError, match="no tensor c"):
        checkpoint.read("c", (1,))


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({}, b"", 1 << 40),
        ({}, b"", 1 << 20),
        (b"not json", b"", None),
        (b"[1, 2]", b"", None),
        (b"[" * 100_000, b"", None),
        ({"a": tensor(0, 1 << 40, [1 << 38])}, b"", None),
        ({"a": tensor(0, 8, [3])}, b"12345678", None),
        ({"a": tensor(0, 4, [1]), "b": tensor(2, 6, [1])}, b"123456", None),
        ({"a": tensor(4, 8, [1])}, b"12345678", None),
        ({"a": tensor(0, 4, [1], "PICKLE")}, b"1234", None),
        ({"a": {"dtype": "F32"}}, b"", None),
        ({"a": 3}, b"", None),
    ],
    ids=[
        "terabyte header", "header past the end", "no json", "no object", "deep json", "tensor past the end",
        "wrong byte count", "overlap", "gap", "unknown dtype", "no offsets", "no dict",
    ],
)  # fmt: skip
def test_a_lying_header_is_refused(tmp_path, header, data, length):
    with pytest.raises(CheckpointError):
        check_header(write(tmp_path / "model.safetensors", header, data, length))


def test_a_file_cut_short_is_refused(tmp_path):
    save_file({"a": torch.randn(100)}, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    for size in (0, 5, 8, 40, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            Checkpoint(tmp_path)


def test_pickles_are_never_opened(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(CheckpointError, match="can run code"):
        Checkpoint(tmp_path)


def test_shards_are_joined_and_may_not_point_outside(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(2)}, tmp_path / "model-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    checkpoint = Checkpoint(tmp_path)
    assert torch.equal(checkpoint.read("b", (2,)), torch.zeros(2))
    for bad in ("../secret.safetensors", "/etc/passwd", "model-3.safetensors", "model.bin", 7):
        index.write_text(json.dumps({"weight_map": {"a": bad}}))
        with pytest.raises(CheckpointError):
            Checkpoint(tmp_path)
    for broken in ("", "[]", "{}", '{"weight_map": 3}'):
        index.write_text(broken)
        with pytest.raises(CheckpointError):
            Checkpoint(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    for name in ("model-1.safetensors", "model-2.safetensors"):
        save_file({"a": torch.ones(2)}, tmp_path / name)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="tensor a is both in"):
        Checkpoint(tmp_path)


def tensors_of(weights: Weights) -> list[torch.Tensor]:
    layer = weights.layers[-1]
    return [weights.embedding, weights.final_norm, layer.input_norm, layer.qkv.packed, layer.down.packed]


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Weights:
    return load_weights(Checkpoint(folder), ModelConfig.from_folder(folder), Unquantized(resolve("ref")), dtype)


def rewrite(folder: Path, target: Path, change) -> Path:
    """A copy of a model folder whose tensors have gone through ``change(dict) -> dict``."""
    shutil.copytree(folder, target)
    save_file(change(load_file(target / "model.safetensors")), target / "model.safetensors")
    return target


def test_shards_load_like_one_file(tiny_model_dir, tmp_path):
    """Cut so that one layer's q, k and v lie in different shards."""
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_model_dir, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-{index % 3 + 1:05d}-of-00003.safetensors" for index, name in enumerate(sorted(tensors))}
    for shard in set(weight_map.values()):
        save_file({name: tensors[name] for name, place in weight_map.items() if place == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert all(map(torch.equal, tensors_of(load(folder)), tensors_of(load(tiny_model_dir))))


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16])
def test_checkpoints_of_any_float_type_are_converted(tiny_model_dir, tmp_path, stored, wanted):
    folder = rewrite(tiny_model_dir, tmp_path / "copy", lambda tensors: {n: t.to(stored) for n, t in tensors.items()})
    for got, original in zip(tensors_of(load(folder, wanted)), tensors_of(load(tiny_model_dir)), strict=True):
        assert got.dtype == wanted
        assert torch.equal(got, original.to(stored).to(wanted))


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("model.layers.0.self_attn.q_proj.bias", r"1 tensors that LlamaForCausalLM does not use \(model\.layers\.0"),
        ("model.layers.2.input_layernorm.weight", "does not use"),
        ("model.layers.0.self_attn.q_norm.weight", "does not use"),
        ("model.layers.0.mlp.experts.0.up_proj.weight", "does not use"),
    ],
)
def test_a_tensor_that_nothing_uses_is_refused(tiny_model_dir, tmp_path, extra, sentence):
    folder = rewrite(tiny_model_dir, tmp_path / "copy", lambda tensors: tensors | {extra: torch.ones(64)})
    with pytest.raises(CheckpointError, match=sentence):
        load(folder)


def test_leftovers_of_old_versions_are_passed_over(tiny_model_dir, tmp_path):
    extra = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(8) for layer in range(2)}
    folder = rewrite(tiny_model_dir, tmp_path / "copy", lambda tensors: tensors | extra)
    assert all(map(torch.equal, tensors_of(load(folder)), tensors_of(load(tiny_model_dir))))


def test_integers_where_weights_should_be_are_refused(tiny_model_dir, tmp_path):
    name = "model.layers.1.mlp.down_proj.weight"
    change = {name: torch.ones(64, 96, dtype=torch.int8)}
    folder = rewrite(tiny_model_dir, tmp_path / "copy", lambda tensors: tensors | change)
    with pytest.raises(CheckpointError, match=r"torch\.int8, not floating-point"):
        load(folder)


def test_code_named_in_a_config_is_never_imported(tiny_model_dir, tmp_path):
    """A folder with ``auto_map`` and a module beside it: loading the model leaves the module alone."""
    from minillm_serve import LLM, SamplingParams

    folder = tmp_path / "trap"
    shutil.copytree(tiny_model_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "trap.Trap", "AutoConfig": "trap.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()")
    LLM(folder, num_kv_blocks=8).generate("hello", SamplingParams(max_tokens=2))
    assert not (tmp_path / "sprung").exists()
