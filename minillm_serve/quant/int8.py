"""8-bit linear layers: a quarter of the bytes to stream, four times the products per instruction (``quantize linear``).

Weights are rounded when the model is loaded, one scale per output; activations at each call, one scale per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from minillm_kernels import Ops


@dataclass(frozen=True)
class Int8Linear:
    """A weight in the layout that ``ops.linear_int8`` wants."""

    ops: Ops
    packed: Any
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return self.ops.linear_int8(x, self.packed, self.bias)


@dataclass(frozen=True)
class Int8:
    """The linear method ``int8`` (W8A8). The embedding stays as it is: only its copy in the LM head is rounded."""

    ops: Ops

    def make(self, weight: Tensor, bias: Tensor | None) -> Int8Linear:
        return Int8Linear(self.ops, self.ops.pack_linear_int8(weight), bias)
