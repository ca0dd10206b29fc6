"""One op on one shape as it is measured, and the numbers that the two models give the ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

COLD_BYTES = 200 << 20  # several times the L2 cache of 50 MB
MAX_COPIES = 64
Call = Callable[[int], object]  # one call of the op, on the copy of that number


@dataclass(frozen=True)
class OpCase:
    """One op on one shape. moved: bytes that one call cannot avoid to read and write; flops: of bf16 products.

    ours, torch: make operands, in ``copies`` copies where they would be read from memory, and return the call.
    """

    op: str
    shape: str
    moved: int
    flops: int
    ours: Callable[[], Call]
    torch: Callable[[], Call]
    baseline: str
    copies: int = 1

    @property
    def title(self) -> str:
        return f"{self.op} {self.shape}"


def copies_for(cold_bytes: int) -> int:
    """How many copies of an operand of that size L2 cannot hold."""
    return min(MAX_COPIES, max(1, -(-COLD_BYTES // max(1, cold_bytes))))


@dataclass(frozen=True)
class Sizes:
    """decodes: sequences x tokens of each; prompt: lengths of the prompts of one step; matrices: names of linear
    layers; linear, quantized, rows, draws, lora: tokens of a step."""

    decodes: Sequence[tuple[int, int]]
    prompt: Sequence[int]
    matrices: Sequence[str]
    linear: Sequence[int]
    quantized: Sequence[int]
    rows: Sequence[int]
    draws: Sequence[int]
    lora: Sequence[int]


ON_GPU = Sizes(
    decodes=((64, 1024), (256, 1024), (8, 8192), (50, 192), (1, 512)),
    prompt=(512, 512, 1024, 2048),
    matrices=("qkv", "o", "gate_up", "down", "head"),
    linear=(1, 8, 64, 256, 4096),
    quantized=(1, 64),
    rows=(1, 64, 256, 4096),
    draws=(1, 64, 256),
    lora=(1, 64, 4096),
)
ON_CPU = Sizes(
    ((2, 40),), (5, 20), ("o",), (1, 3), (1, 3), (2,), (2,), (3,)
)  # Triton's interpreter: to try the frame out


@dataclass(frozen=True)
class Model:
    """A shape's numbers. matrices: name -> (outputs, inputs) of the linear layers."""

    name: str
    device: torch.device
    sizes: Sizes
    heads: int
    kv_heads: int
    dim: int
    hidden: int
    inner: int
    vocab: int
    head_norms: bool
    dtype: torch.dtype = torch.bfloat16

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any], device: torch.device) -> Model:
        return cls(
            name,
            device,
            ON_GPU if device.type == "cuda" else ON_CPU,
            config["num_attention_heads"],
            config["num_key_value_heads"],
            config["head_dim"],
            config["hidden_size"],
            config["intermediate_size"],
            config["vocab_size"],
            config["model_type"] == "qwen3",
        )

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        queries = self.heads * self.dim
        return {
            "qkv": (queries + 2 * self.kv_heads * self.dim, self.hidden),
            "o": (self.hidden, queries),
            "gate_up": (2 * self.inner, self.hidden),
            "down": (self.hidden, self.inner),
            "head": (self.vocab, self.hidden),
        }

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=self.dtype, device=self.device)

    def copies(self, cold_bytes: int) -> int:
        return copies_for(cold_bytes) if self.device.type == "cuda" else 1

    def nbytes(self, *shape: int) -> int:
        return prod(shape) * self.dtype.itemsize
