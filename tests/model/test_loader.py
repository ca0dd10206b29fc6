"""A model folder is data: damaged or dangerous files are refused before a byte of them is believed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minillm_serve.model.loader import Checkpoint, CheckpointError, check_header


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


def test_code_named_in_a_config_is_never_imported(tiny_model_dir, tmp_path):
    """A folder with ``auto_map`` and a module beside it: loading the model leaves the module alone."""
    import shutil

    from minillm_serve import LLM, SamplingParams

    folder = tmp_path / "trap"
    shutil.copytree(tiny_model_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "trap.Trap", "AutoConfig": "trap.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()")
    LLM(folder, num_kv_blocks=8).generate("hello", SamplingParams(max_tokens=2))
    assert not (tmp_path / "sprung").exists()
