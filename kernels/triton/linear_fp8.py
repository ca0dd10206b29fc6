"""Linear layers in FP8 (e4m3): FP8 tensor cores, weights scaled per output or per tensor, activations per token.

Spec: ``ref_fp8.linear_fp8``. Needs compute capability 8.9 (Ada) or 9.0 (Hopper) on a GPU.

Roofline: N * K bytes of weights are read once whatever T is, for 2 * T * N * K operations at twice the rate of bf16:
bound by memory until T reaches some hundred tokens. Two launches: activations are rounded (``quantize.py``), then
multiplied, more than ``MAX_TOKENS`` by torch, that is cuBLAS. Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.ref_fp8 import Fp8Weight
from minillm_kernels.triton.eight_bit import check_shapes, multiply, own_tile, store_tile
from minillm_kernels.triton.quantize import quantize

MAX_TOKENS = 64  # of the kernel below: measured on an H100, it is faster than cuBLAS for 50 tokens, slower for 256


@triton.jit(do_not_specialize=["T"])
def _product(x, x_scales, w, w_scales, bias, out, T, N, K, BK: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """One program per tile [BM tokens, BN outputs]. Scales are factors of its rows and columns: applied at the end."""
    m, n = own_tile(T, N, BM, BN)
    k = tl.arange(0, BK)
    x_tile = x + m[:, None].to(tl.int64) * K + k[None, :]
    w_tile = w + n[None, :].to(tl.int64) * K + k[:, None]
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, K, BK):
        x_codes = tl.load(x_tile + start, mask=(m[:, None] < T) & (start + k[None, :] < K), other=0.0)
        w_codes = tl.load(w_tile + start, mask=(n[None, :] < N) & (start + k[:, None] < K), other=0.0)
        acc = tl.dot(x_codes, w_codes, acc)
    acc *= tl.load(x_scales + m, mask=m < T, other=0.0)[:, None]
    store_tile(acc, w_scales, bias, out, m, n, T, N)


def linear_fp8(x: Tensor, weight: Fp8Weight, bias: Tensor | None) -> Tensor:
    """x: [T, in] -> [T, out] in x's dtype. Raises ValueError on a depth or a bias that is not the weight's."""
    check_shapes(x, weight, bias)
    row = triton.next_power_of_2(x.shape[1])  # one group: the whole row
    codes, scales = quantize(x, torch.float8_e4m3fn, row)
    if x.shape[0] > MAX_TOKENS and _cublas_takes(x, weight, bias):
        w_columns, w_scales = weight.codes.t(), weight.scales.view(1, -1)
        return torch._scaled_mm(
            codes, w_columns, scales.view(-1, 1), w_scales, bias, None, x.dtype, use_fast_accum=True
        )
    return multiply(_product, codes, scales, row, weight, bias, x.dtype)


def _cublas_takes(x: Tensor, weight: Fp8Weight, bias: Tensor | None) -> bool:
    """Whether torch multiplies FP8 matrices of these shapes, with scales per row, on this device."""
    outputs, depth = weight.codes.shape
    bf16 = x.dtype == torch.bfloat16 and (bias is None or bias.dtype == torch.bfloat16)
    return bf16 and outputs % 16 == 0 and depth % 16 == 0 and _multiplies_fp8(x.device)


@functools.cache
def _multiplies_fp8(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)
