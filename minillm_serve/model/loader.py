"""Checkpoints: safetensors files of a Hugging Face folder, checked before anything is believed.

Nothing in a model folder is ever executed: no pickle (``.bin``, ``.pt``), no ``auto_map`` code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minillm_serve.config import ConfigError

MAX_HEADER_BYTES = 100 << 20
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8,
        "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8}  # fmt: skip


class CheckpointError(ConfigError):
    """A checkpoint that is damaged, incomplete, of another shape than its config, or of a format we refuse."""


class Checkpoint:
    """Tensors by name, from ``model.safetensors`` or from the shards that ``model.safetensors.index.json`` lists.

    Files are mapped, not read: a tensor that the caller keeps as it is (fp32 in the file, fp32 wanted) stays in them.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._files: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        for path in self._paths():
            for name in check_header(path):
                if name in self._files:
                    raise CheckpointError(f"tensor {name} is both in {self._files[name].name} and in {path.name}")
                self._files[name] = path

    def _paths(self) -> list[Path]:
        single, index = self.folder / "model.safetensors", self.folder / "model.safetensors.index.json"
        if single.is_file():
            return [single]
        if not index.is_file():
            pickles = sorted(p.name for p in self.folder.glob("*") if p.suffix in (".bin", ".pt", ".pth"))
            hint = f"; {pickles[0]} is a pickle, which can run code: convert it to safetensors" if pickles else ""
            raise CheckpointError(f"{self.folder} has no model.safetensors{hint}")
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index} is not a safetensors index: {error!r}") from error
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
                raise CheckpointError(f"{index} names a shard outside its folder or of another format: {name!r}")
            if not (self.folder / name).is_file():
                raise CheckpointError(f"{index} names {name}, which is not in {self.folder}")
        return [self.folder / name for name in sorted(names)]

    def names(self) -> list[str]:
        """All tensor names."""
        return sorted(self._files)

    def read(self, name: str, shape: Sequence[int]) -> Tensor:
        """One tensor, which must have exactly this shape. Raises :class:`CheckpointError`."""
        tensor = self.read_any(name)
        if tuple(tensor.shape) != tuple(shape):
            raise CheckpointError(f"{name} has shape {list(tensor.shape)}, the config asks for {list(shape)}")
        return tensor

    def read_any(self, name: str) -> Tensor:
        """One tensor of floating-point numbers, whatever its shape. Raises :class:`CheckpointError`."""
        tensor = self._tensor(name)
        if not tensor.is_floating_point():
            raise CheckpointError(f"{name} holds {tensor.dtype}, not floating-point numbers: is it quantised?")
        return tensor

    def read_integers(self, name: str, shape: Sequence[int]) -> Tensor:
        """One tensor of int32, which must have exactly this shape. Raises :class:`CheckpointError`."""
        tensor = self._tensor(name)
        if tensor.dtype != torch.int32 or tuple(tensor.shape) != tuple(shape):
            raise CheckpointError(f"{name} is {list(tensor.shape)} of {tensor.dtype}, expected {list(shape)} of int32")
        return tensor

    def _tensor(self, name: str) -> Tensor:
        if name not in self._files:
            raise CheckpointError(f"{self.folder} has no tensor {name}")
        path = self._files[name]
        try:
            if path not in self._open:
                self._open[path] = safe_open(path, framework="pt")
            return self._open[path].get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error


def check_header(path: Path) -> list[str]:
    """Tensor names of a safetensors file whose header is sane: every declared byte exists, no two ranges overlap.

    Layout: 8-byte little-endian header length, JSON header, data. Raises :class:`CheckpointError`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise CheckpointError(f"{path} declares a header of {length} bytes, the file has {size}: cut or damaged")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} has no JSON header: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} has no JSON object as header")
    header.pop("__metadata__", None)
    data, end = size - 8 - length, 0
    try:
        for name, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, stop = info["data_offsets"]
            if start != end or stop > data or (stop - start) * 8 != prod(info["shape"]) * BITS[info["dtype"]]:
                raise CheckpointError(f"{path}: tensor {name} declares bytes {start}..{stop} of {data}, not its own")
            end = stop
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} has a malformed header: {error!r}") from error
    return list(header)
