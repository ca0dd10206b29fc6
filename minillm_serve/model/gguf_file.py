"""The GGUF file format (version 2 and 3, little-endian), read with the same distrust as everything from a model folder.

Layout: magic, version, counts | metadata: key, type, value | tensors: name, shape, type, offset | padding | data.
Specification: the ``docs/gguf.md`` of ggml. Every length is checked against the bytes that are left before it is
believed, so no damaged file makes us allocate or loop; a vocabulary is a list of texts, not of arrays.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from minillm_serve.model.loader import CheckpointError

SUPPORTED = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MAX_DIMENSIONS = 4


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor's bytes are and how they are coded. shape: rows first, as in torch; start, stop: file offsets."""

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


class GGUFFile:
    """``metadata``: key -> value; ``tensors``: name -> :class:`TensorInfo`. The file stays mapped, not read.

    Raises :class:`CheckpointError` on a file that is damaged or uses a tensor type not in :data:`SUPPORTED`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            reader = _Reader(self._map)
            self.metadata, self.tensors = reader.header()
        except (OSError, ValueError, struct.error) as error:
            raise CheckpointError(f"{self.path} is not a readable GGUF file: {error}") from error

    def dequantize(self, name: str) -> NDArray[np.float32]:
        """One tensor as fp32, in its own shape. Float32 tensors are a read-only view of the file."""
        info = self.tensors[name]
        coded = np.frombuffer(self._map, np.uint8, info.stop - info.start, info.start)
        rows = dequantize(coded.reshape(*info.shape[:-1], -1), info.kind)
        return rows.reshape(info.shape)


class _Reader:
    """A cursor over the header. Every method raises ValueError or struct.error where the file does not hold up."""

    def __init__(self, data: mmap.mmap):
        self.data = data
        self.at = 0

    def header(self) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        magic, version, num_tensors, num_keys = self.unpack("<4sIQQ")
        if magic != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        if version not in (2, 3):
            raise ValueError(f"version {version} is not supported; supported: 2, 3 (little-endian)")
        self.room(num_keys, 13)
        metadata: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self.string()
            if key in metadata:
                raise ValueError(f"the key {key} appears twice")
            metadata[key] = self.value(*self.unpack("<I"))
        self.room(num_tensors, 24)
        listed = [self.tensor() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment is {alignment!r}, expected a power of two")
        base = -(-self.at // alignment) * alignment
        tensors = {name: _placed(name, shape, kind, base + offset) for name, shape, kind, offset in listed}
        if len(tensors) != len(listed):
            raise ValueError("two tensors have the same name")
        self.check_ranges(tensors)
        return metadata, tensors

    def unpack(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def room(self, count: int, size: int) -> None:
        """Refuse a count of things, each at least ``size`` bytes long, that the rest of the file cannot hold."""
        if count * size > len(self.data) - self.at:
            raise ValueError(f"it declares {count} entries at byte {self.at} of {len(self.data)}: cut or damaged")

    def string(self) -> str:
        (length,) = self.unpack("<Q")
        self.room(length, 1)
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array()
        if kind not in SCALARS:
            raise ValueError(f"metadata of unknown type {kind} before byte {self.at}")
        return self.unpack("<" + SCALARS[kind])[0]

    def array(self) -> list[Any]:
        kind, count = self.unpack("<IQ")
        if kind == STRING:
            self.room(count, 8)
            return [self.string() for _ in range(count)]
        if kind not in SCALARS:
            raise ValueError(f"an array of type {kind} before byte {self.at} is not supported")
        self.room(count, struct.calcsize(SCALARS[kind]))
        return list(self.unpack(f"<{count}{SCALARS[kind]}"))

    def tensor(self) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
        name = self.string()
        (dimensions,) = self.unpack("<I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"tensor {name} has {dimensions} dimensions")
        *shape, kind, offset = self.unpack(f"<{dimensions}QIQ")
        known = {int(member): member for member in GGMLQuantizationType}
        if kind not in known or known[kind].name not in SUPPORTED:
            label = known[kind].name if kind in known else f"number {kind}"
            raise ValueError(
                f"tensor {name} has type {label}, which is not supported; supported: {', '.join(SUPPORTED)}"
            )
        return name, tuple(reversed(shape)), known[kind], offset

    def check_ranges(self, tensors: dict[str, TensorInfo]) -> None:
        """No tensor reaches past the end of the file or into another one."""
        end = 0
        for name, info in sorted(tensors.items(), key=lambda item: item[1].start):
            if info.start < end or info.stop > len(self.data):
                raise ValueError(
                    f"tensor {name} claims bytes {info.start}..{info.stop} of {len(self.data)}, not its own"
                )
            end = info.stop


def _placed(name: str, shape: tuple[int, ...], kind: GGMLQuantizationType, start: int) -> TensorInfo:
    block, size = GGML_QUANT_SIZES[kind]
    if not all(shape) or shape[-1] % block:
        raise ValueError(
            f"tensor {name} of shape {list(shape)} cannot be {kind.name}, whose blocks hold {block} numbers"
        )
    return TensorInfo(shape, kind, start, start + prod(shape) // block * size)
