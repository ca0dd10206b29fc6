"""A linear layer as the model sees it: something to call. How its weight is kept is a method chosen at load time."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

from torch import Tensor

from minillm_kernels import Ops


class Linear(Protocol):
    """x: [T, in] -> [T, out]."""

    packed: Any

    def __call__(self, x: Tensor) -> Tensor: ...


class LinearMethod(Protocol):
    """Turns a checkpoint's weight [out, in] and bias [out] into a layer (the seam ``quantize linear``)."""

    def make(self, weight: Tensor, bias: Tensor | None) -> Linear: ...


@dataclass(frozen=True)
class PackedLinear:
    """A weight in the layout that ``ops.linear`` wants."""

    ops: Ops
    packed: Any
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return self.ops.linear(x, self.packed, self.bias)


@dataclass(frozen=True)
class Unquantized:
    """Weights in the model's own dtype."""

    ops: Ops

    def make(self, weight: Tensor, bias: Tensor | None) -> PackedLinear:
        return PackedLinear(self.ops, self.ops.pack_linear(weight), bias)


def weight_bytes(layer: Linear) -> int:
    """Memory of a layer's weight as it is kept, which is what a step reads of it."""
    packed = layer.packed
    parts = [getattr(packed, field.name) for field in fields(packed)] if is_dataclass(packed) else [packed]
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))
