"""A GGUF file is data: however it is damaged, it is refused in one sentence, without a crash or a huge allocation."""

from __future__ import annotations

import contextlib
import random
import struct
import sys
from pathlib import Path

import pytest
import torch
from gguf_writer import write_gguf
from tiny_model import build_tiny_model

from minillm_kernels import resolve
from minillm_serve.config import ConfigError
from minillm_serve.model.gguf_file import GGUFFile
from minillm_serve.model.linear import Unquantized
from minillm_serve.model.loader import CheckpointError
from minillm_serve.model.source import open_model
from minillm_serve.model.weights import load_weights


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("gguf")
    model = build_tiny_model(folder / "model", num_hidden_layers=1)
    write_gguf(folder / "good.gguf", model, "Q8_0")
    return (folder / "good.gguf").read_bytes()


def write(path: Path, keys: list[bytes] = [], tensors: list[bytes] = [], data: bytes = b"", **counts: int) -> Path:  # noqa: B006
    """A file of the given pieces, with lying ``num_keys``, ``num_tensors`` or ``version`` where asked."""
    head = struct.pack(
        "<4sIQQ", b"GGUF", counts.get("version", 3), counts.get("num_tensors", len(tensors)),
        counts.get("num_keys", len(keys)),
    )  # fmt: skip
    body = head + b"".join(keys) + b"".join(tensors)
    path.write_bytes(body + b"\0" * (-len(body) % 32) + data)
    return path


def text(value: str | bytes, length: int | None = None) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def tensor(shape: tuple[int, ...], kind: int = 0, offset: int = 0, name: str = "a", dims: int | None = None) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape) if dims is None else dims, *shape, kind, offset)


def array(kind: int, count: int, data: bytes = b"") -> bytes:
    return text("k") + struct.pack("<IIQ", 9, kind, count) + data


def test_a_good_file_is_mapped_and_its_values_keep_their_types(tmp_path):
    keys = [
        text("i") + struct.pack("<Ii", 5, -7),
        text("b") + struct.pack("<I?", 7, True),
        text("f") + struct.pack("<If", 6, 0.5),
        text("s") + struct.pack("<I", 8) + text("año"),
        array(8, 2, text("x") + text("")),
    ]
    data = struct.pack("<6f", *range(6))
    file = GGUFFile(write(tmp_path / "good.gguf", keys, [tensor((3, 2))], data))
    assert file.metadata == {"i": -7, "b": True, "f": 0.5, "s": "año", "k": ["x", ""]}
    assert file.tensors["a"].shape == (2, 3)
    assert file.dequantize("a").tolist() == [[0, 1, 2], [3, 4, 5]]


LIES = {
    "no magic": lambda p: p.write_bytes(b"GGML" + bytes(60)),
    "empty": lambda p: p.write_bytes(b""),
    "version 1": lambda p: write(p, version=1),
    "big-endian": lambda p: write(p, version=3 << 24),
    "a billion keys": lambda p: write(p, num_keys=1 << 30),
    "2^64 tensors": lambda p: write(p, num_tensors=(1 << 64) - 1),
    "string past the end": lambda p: write(p, [text("k") + struct.pack("<I", 8) + text("v", 1 << 62)]),
    "key that is no text": lambda p: write(p, [text(b"\xff\xfe") + struct.pack("<IB", 0, 1)]),
    "twice the same key": lambda p: write(p, [text("k") + struct.pack("<IB", 0, 1)] * 2),
    "unknown value type": lambda p: write(p, [text("k") + struct.pack("<IQ", 99, 1)]),
    "array past the end": lambda p: write(p, [array(0, 1 << 40)]),
    "array of many empty strings": lambda p: write(p, [array(8, 1 << 40)]),
    "array of arrays": lambda p: write(p, [array(9, 1, struct.pack("<IQ", 9, 1))]),
    "tensor past the end": lambda p: write(p, tensors=[tensor((1 << 20, 1 << 20))], data=bytes(64)),
    "offset past the end": lambda p: write(p, tensors=[tensor((4,), offset=1 << 63)], data=bytes(64)),
    "overflowing shape": lambda p: write(p, tensors=[tensor((1 << 63, 1 << 63, 4))], data=bytes(64)),
    "no dimension": lambda p: write(p, tensors=[tensor((), dims=0)], data=bytes(64)),
    "a thousand dimensions": lambda p: write(p, tensors=[tensor((2, 2), dims=1000)], data=bytes(64)),
    "empty tensor": lambda p: write(p, tensors=[tensor((0, 4))], data=bytes(64)),
    "half a block": lambda p: write(p, tensors=[tensor((33,), kind=8)], data=bytes(64)),
    "overlap": lambda p: write(p, tensors=[tensor((8,)), tensor((8,), offset=16, name="b")], data=bytes(64)),
    "into the header": lambda p: write(p, tensors=[tensor((4,), offset=(1 << 64) - 8)], data=bytes(64)),
    "same name": lambda p: write(p, tensors=[tensor((4,)), tensor((4,), offset=32)], data=bytes(64)),
    "alignment of 3": lambda p: write(p, [text("general.alignment") + struct.pack("<II", 4, 3)]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_refused(tmp_path, lie):
    LIES[lie](tmp_path / "bad.gguf")
    with pytest.raises(CheckpointError, match="not a readable GGUF file"):
        GGUFFile(tmp_path / "bad.gguf")


@pytest.mark.parametrize(("kind", "name"), [(10, "Q2_K"), (16, "IQ2_XXS"), (28, "F64"), (39, "MXFP4"), (4, "number 4")])
def test_other_tensor_types_are_refused_by_name(tmp_path, kind, name):
    write(tmp_path / "odd.gguf", tensors=[tensor((256,), kind=kind)], data=bytes(4096))
    with pytest.raises(CheckpointError, match=f"tensor a has type {name}, which is not supported; supported: F32"):
        GGUFFile(tmp_path / "odd.gguf")


def load(path: Path) -> None:
    source = open_model(path)
    load_weights(source.checkpoint, source.config, Unquantized(resolve("ref")), torch.float32)


def test_a_file_cut_anywhere_is_refused(tmp_path, good):
    cuts = [*random.Random(0).sample(range(len(good)), 60), len(good) - 1]
    for cut in cuts:
        (tmp_path / "cut.gguf").write_bytes(good[:cut])
        with pytest.raises(ConfigError):
            load(tmp_path / "cut.gguf")


def test_changed_bytes_never_crash_nor_take_memory(tmp_path, good):
    """Most changes are caught; one inside a name or a weight may load. Nothing else than ConfigError comes out."""
    resource = pytest.importorskip("resource", reason="Windows does not tell a process's peak memory this way")
    dice, before = random.Random(1), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    header = good.index(b"output_norm") + 4000
    for _ in range(200):
        damaged = bytearray(good)
        for _ in range(dice.choice((1, 1, 2, 8))):
            damaged[dice.randrange(header)] = dice.choice((0, 1, 127, 255, dice.randrange(256)))
        (tmp_path / "damaged.gguf").write_bytes(damaged)
        with contextlib.suppress(ConfigError):
            load(tmp_path / "damaged.gguf")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 200 << 20
