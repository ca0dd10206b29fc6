"""Linear layers with nothing to compile: fp32 weights laid out once for oneDNN's blocked matrix kernels.

torch's default (MKL sgemm) re-packs the weight at each call, which costs most where decoding lives: 1 to 128 rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class BlockedWeight:
    """A weight in oneDNN's own layout (``blocked`` True) or as it came (other dtypes, or no oneDNN in this torch)."""

    data: Tensor
    blocked: bool


def pack_linear(weight: Tensor) -> BlockedWeight:
    """weight: [out, in]. fp32 weights are re-ordered; the original may be dropped by the caller."""
    if weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return BlockedWeight(weight, blocked=False)
    return BlockedWeight(torch.ops.mkldnn._reorder_linear_weight(weight), blocked=True)


def linear(x: Tensor, weight: BlockedWeight, bias: Tensor | None) -> Tensor:
    """x: [T, in] -> [T, out]; same sums as the reference in another order (fp32 rounding differs)."""
    if not weight.blocked:
        return functional.linear(x, weight.data, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight.data, bias, "none", [], "")
