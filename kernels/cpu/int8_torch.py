"""8-bit linear layers with nothing to compile: the reference's integers by the fastest exact way torch has."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from minillm_kernels.ref import INT8_GROUP, Int8Weight, quantize_rows


def linear_int8(x: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
    """x: [T, in], weight: from :func:`minillm_kernels.ref.pack_linear_int8` -> [T, out] in x's dtype."""
    product = torch._int_mm if _int_mm_is_exact() else _float_product
    out = torch.zeros(x.shape[0], weight.codes.shape[0])
    for group, codes in zip(x.split(INT8_GROUP, 1), weight.codes.split(INT8_GROUP, 1), strict=True):
        rounded, scales = quantize_rows(group)
        out.addcmul_(product(rounded, codes.t()).float(), scales.unsqueeze(-1))
    out.mul_(weight.scales)
    return (out if bias is None else out.add_(bias)).to(x.dtype)


def _float_product(a: Tensor, b: Tensor) -> Tensor:
    """a: [T, in], b: [in, out], int8 -> [T, out]. A group's sums are below 2^24: float32 holds them exactly."""
    return a.float() @ b.float()


@functools.cache
def _int_mm_is_exact() -> bool:
    """Whether this machine's integer product sums in 32 bits: without VNNI some kernels saturate at 16."""
    low, high = torch.full((1, 64), -127, dtype=torch.int8), torch.full((64, 16), 127, dtype=torch.int8)
    try:
        return bool((torch._int_mm(low, high) == -64 * 127**2).all())
    except RuntimeError:
        return False
