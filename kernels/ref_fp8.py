"""The specification of FP8 linear layers: weights and activations in e4m3 (Micikevicius et al. 2022, arXiv:2209.05433).

Eight bits with an exponent: 3 bits of mantissa at every size from 2^-6 to 448, so that a channel far larger than the
rest costs the others no precision, and one scale per token is enough where int8 wants groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_FP8 = 448.0  # the largest number of e4m3, which has NaN but no infinity


@dataclass(frozen=True)
class Fp8Weight:
    """codes: [out, in] float8_e4m3fn; scales: [out] fp32, all equal where there is one per tensor."""

    codes: Tensor
    scales: Tensor


def quantize_rows_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """One scale per row. x: [rows, in] -> codes [rows, in] float8_e4m3fn, scales [rows] fp32; x = codes * scale."""
    largest = x.float().abs().amax(-1).clamp_min(1e-30)
    return (x.float() * (LARGEST_FP8 / largest).unsqueeze(-1)).to(torch.float8_e4m3fn), largest / LARGEST_FP8


def pack_linear_fp8(weight: Tensor, per_tensor: bool = False) -> Fp8Weight:
    """Round a [out, in] weight to e4m3, one scale per output or one for all, for :func:`linear_fp8`."""
    codes, scales = quantize_rows_fp8(weight.reshape(1, -1) if per_tensor else weight)
    return Fp8Weight(codes.view(weight.shape), scales.expand(weight.shape[0]).contiguous())


def linear_fp8(x: Tensor, weight: Fp8Weight, bias: Tensor | None) -> Tensor:
    """x: [T, in] is rounded too, one scale per token; products are summed in fp32 -> [T, out] in x's dtype."""
    codes, scales = quantize_rows_fp8(x)
    out = codes.float() @ weight.codes.float().T * scales.unsqueeze(-1) * weight.scales
    return (out if bias is None else out + bias.float()).to(x.dtype)
