"""Activations rounded to 8 bits: int8 or FP8 (e4m3), one scale per token or per token and group of inputs.

Spec: ``ref.quantize_rows`` and ``ref_fp8.quantize_rows_fp8``, the same codes. Roofline: reads x once and writes a byte
a number, bound by memory; for the few tokens of a decode step, by its launch. Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}  # what the largest number of a group becomes


@triton.jit
def _round_to(x, step):
    """x to the nearest multiple of step (a power of two), ties to even; |x| < 2^22 steps.

    At 1.5 * 2^23 steps fp32 has no digit below one step: the sum rounds, the difference undoes the shift exactly.
    """
    shift = step * 12582912.0
    return (x + shift) - shift


@triton.jit
def _e4m3_step(x):
    """What the last bit of x is worth in e4m3: x has 3 bits of mantissa, and below 2^-6 the steps stay as they are."""
    power = tl.maximum(x.to(tl.int32, bitcast=True) & 0x7F800000, (127 - 6) << 23)
    return (power - (3 << 23)).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["T"])  # another number of tokens is no other kernel
def _quantize(x, codes, scales, T, K, stride, LARGEST: tl.constexpr, GROUPS: tl.constexpr, GROUP: tl.constexpr):
    """One program per token, its whole row in registers as [GROUPS, GROUP]; each group has its scale."""
    token = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, GROUPS)
    column = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    row = tl.load(x + token * stride + column, mask=column < K, other=0.0).to(tl.float32)
    largest = tl.maximum(tl.max(tl.abs(row), 1), 1e-30)
    row_in_steps = row * (tl.div_rn(1.0, largest) * LARGEST)[:, None]
    step = 1.0 if codes.dtype.element_ty == tl.int8 else _e4m3_step(row_in_steps)
    tl.store(codes + token * K + column, _round_to(row_in_steps, step).to(codes.dtype.element_ty), mask=column < K)
    # A maximum ignores NaN, and int8 has none: the scale carries it (the sum is 0 where all are finite, else NaN).
    scale = tl.div_rn(largest, LARGEST) + tl.sum(row * 0.0, 1)
    tl.store(scales + group * T + token, scale, mask=group * GROUP < K)


def quantize(x: Tensor, dtype: torch.dtype, group: int) -> tuple[Tensor, Tensor]:
    """x: [T, K] -> codes [T, K] in ``dtype`` (int8 or float8_e4m3fn), scales [ceil(K / group), T] fp32.

    group: inputs that share a scale, a power of two. x = codes * scale.
    """
    tokens, depth = x.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    codes = torch.empty(tokens, depth, dtype=dtype, device=x.device)
    scales = torch.empty(triton.cdiv(depth, group), tokens, device=x.device)
    groups = triton.next_power_of_2(scales.shape[0])
    warps = min(max(groups * group // 1024, 4), 16)
    if tokens:
        operands = x, codes, scales, tokens, depth, x.stride(0), LARGEST[dtype], groups, group
        # No fused multiply-add: one rounding less than the reference's, and some ties would fall to the other side.
        _quantize[(tokens,)](*operands, num_warps=warps, enable_fp_fusion=False)
    return codes, scales
