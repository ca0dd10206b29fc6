"""Tensors with a fence around them, so that a kernel's strayed loads and stores are seen and do no harm.

A pointer in Triton knows no bounds. Here what lies before, between and after the elements of a tensor is NaN
(integers: 0): a strayed load makes the result NaN, a strayed store is found afterwards. There are three NaN, told apart
by their low bits, which copies carry along and arithmetic may: an element of the output that was never written is not
one that was computed as NaN, and a store outside is seen even if what it stores was loaded outside.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

FENCE = 1 << 16  # elements on either side; a kernel that strays further still reads and writes whatever is there
INPUT, SCRATCH, OUTPUT = 0x7FC0FACE, 0x7FC0BEAD, 0x7FC0DEAD  # quiet NaN of fp32


def device() -> torch.device:
    """Where kernels run: the GPU, or the CPU if triton interprets them."""
    return torch.device("cpu" if triton.knobs.runtime.interpret else "cuda")


class Fenced:
    """A tensor amid NaN: ``tensor`` is what kernels get."""

    def __init__(self, name: str, original: Tensor, nan: int = INPUT) -> None:
        """A copy of ``original``, fp32 or int32, strides kept."""
        self.name = name
        span = 1 + sum((size - 1) * stride for size, stride in zip(original.shape, original.stride(), strict=True))
        bits = nan if original.is_floating_point() else 0
        memory = torch.full((FENCE + span + FENCE,), bits, dtype=torch.int32, device=device())
        self._memory, self._at = memory, (original.shape, original.stride(), FENCE)
        self.tensor = memory.view(original.dtype).as_strided(*self._at)
        self.tensor.copy_(original)
        self._before = memory.clone()

    @classmethod
    def empty(cls, name: str, shape: tuple[int, ...], nan: int) -> Fenced:
        """A dense fp32 tensor that nobody has written: NaN too."""
        return cls(name, torch.full(shape, nan, dtype=torch.int32).view(torch.float32), nan)

    def unchanged(self) -> Tensor:
        """Which elements are as they began, bit by bit: same shape, bool."""
        return self._memory.as_strided(*self._at) == self._before.as_strided(*self._at)

    def strayed_store(self) -> int | None:
        """Where the first store outside the tensor landed, in elements from its start; negative: before it."""
        now = self._memory.clone()
        now.as_strided(*self._at).copy_(self._before.as_strided(*self._at))
        touched = (now != self._before).nonzero()
        return int(touched[0]) - FENCE if len(touched) else None
