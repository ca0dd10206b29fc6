"""RMSNorm, alone and together with the addition that feeds it: one program per row, the row in registers.

Spec: ``ref.rms_norm`` and ``ref.add_rms_norm``. The mean square is taken in fp32; the normalised row is rounded to x's
dtype before it meets the weight, as the checkpoints' own code does.

Roofline: bound by bytes. A row of N numbers is read and written once, 4 N bytes in bf16 for about 4 N flops: 1 a byte,
where an H100 has some 250 for each byte it reads. With the addition, 4 rows move (8 N bytes), where addition and norm
apart move 5: the sum is not read back. At decode the rows sit in L2 and what is paid is the launch.

Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.triton.overlap import LAUNCH, start_next, wait_for_inputs


@triton.jit
def _normalize(x, mean_square, weight, eps, dtype: tl.constexpr):
    """x / sqrt(mean_square + eps), rounded to dtype, times weight; fp32 in and out."""
    return (x * tl.rsqrt(mean_square + eps)).to(dtype).to(tl.float32) * weight


@triton.jit
def _rms_norm(
    x_ptr, weight_ptr, out_ptr, token_stride, head_stride, eps,
    HEADS: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    start_next()
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < N
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    wait_for_inputs()
    x_ptr += row // HEADS * token_stride + row % HEADS * head_stride
    x = tl.load(x_ptr + column, mask=inside, other=0.0).to(tl.float32)  # the zeros add nothing to the sum of squares
    dtype = out_ptr.dtype.element_ty
    out = _normalize(x, tl.sum(x * x) / N, weight, eps, dtype)
    tl.store(out_ptr + row * N + column, out.to(dtype), mask=inside)


@triton.jit
def _add_rms_norm(
    x_ptr, residual_ptr, weight_ptr, out_ptr, x_stride, residual_stride, eps, N: tl.constexpr, BLOCK: tl.constexpr
):
    start_next()
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < N
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    wait_for_inputs()
    residual_ptr += row * residual_stride
    dtype = out_ptr.dtype.element_ty
    x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    residual = tl.load(residual_ptr + column, mask=inside, other=0.0).to(tl.float32)
    total = (x + residual).to(dtype)
    tl.store(residual_ptr + column, total, mask=inside)
    total = total.to(tl.float32)  # the norm reads the sum as the next layer will: rounded
    out = _normalize(total, tl.sum(total * total) / N, weight, eps, dtype)
    tl.store(out_ptr + row * N + column, out.to(dtype), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.rms_norm`; x: [T, N], or [T, heads, N] cut out of wider rows."""
    if x.stride(-1) != 1:
        x = x.contiguous()
    size = _check(x, weight)
    heads, head_stride = (1, 0) if x.dim() == 2 else (x.shape[1], x.stride(1))
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    block, warps = _tile(size)
    _rms_norm[(x.shape[0] * heads,)](
        x,
        weight,
        out,
        x.stride(0),
        head_stride,
        eps,
        HEADS=heads,
        N=size,
        BLOCK=block,
        num_warps=warps,
        **LAUNCH,
    )
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`minillm_kernels.ref.add_rms_norm`; the sum takes the place of ``residual``."""
    if x.shape != residual.shape or x.dtype != residual.dtype or x.dim() != 2:
        raise ValueError(f"x and residual are one shape [T, N] and dtype, got {_show(x)} and {_show(residual)}")
    x, residual = (a if a.stride(1) == 1 else a.contiguous() for a in (x, residual))
    size = _check(x, weight)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    block, warps = _tile(size)
    _add_rms_norm[(x.shape[0],)](
        x,
        residual,
        weight,
        out,
        x.stride(0),
        residual.stride(0),
        eps,
        N=size,
        BLOCK=block,
        num_warps=warps,
        **LAUNCH,
    )
    return out, residual


def _tile(size: int) -> tuple[int, int]:
    """Columns of a program and its warps: 16 numbers a thread, 16 warps at most."""
    block = triton.next_power_of_2(size)
    return block, min(max(block // 512, 1), 16)


def _check(x: Tensor, weight: Tensor) -> int:
    """The size of a row. Raises ValueError where the weight would be read beyond its end or wrongly."""
    size = x.shape[-1]
    if weight.shape != (size,) or weight.dtype != x.dtype or not weight.is_contiguous():
        raise ValueError(f"the norm of {_show(x)} takes a contiguous weight [{size}] of its dtype, got {_show(weight)}")
    if x.dim() not in (2, 3):
        raise ValueError(f"rms_norm takes [T, N] or [T, heads, N], got {_show(x)}")
    return size


def _show(x: Tensor) -> str:
    return f"{list(x.shape)} {x.dtype}"
