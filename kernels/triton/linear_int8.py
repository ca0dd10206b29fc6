"""Linear layers of 8-bit integers (W8A8): int8 tensor cores, weights and activations of one byte.

Spec: ``ref.linear_int8``, but that 128 inputs share an activation scale, the depth of a tile, where the CPU has 96.
Weights as the reference packs them: one scale per output.

Roofline: N * K bytes of weights are read once whatever T is, for 2 * T * N * K operations at twice the rate of bf16:
bound by memory until T reaches some hundred tokens. Two launches: activations are rounded (``quantize.py``), then
multiplied. Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.ref import Int8Weight
from minillm_kernels.triton.eight_bit import DEPTH, check_shapes, multiply, own_tile, store_tile
from minillm_kernels.triton.quantize import quantize


@triton.jit(do_not_specialize=["T"])
def _product(x, x_scales, w, w_scales, bias, out, T, N, K, GROUP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """One program per tile [BM tokens, BN outputs]: a group is summed exactly in int32, the groups in fp32."""
    m, n = own_tile(T, N, BM, BN)
    k = tl.arange(0, GROUP)
    x_tile = x + m[:, None].to(tl.int64) * K + k[None, :]
    w_tile = w + n[None, :].to(tl.int64) * K + k[:, None]
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, K, GROUP):
        x_codes = tl.load(x_tile + start, mask=(m[:, None] < T) & (start + k[None, :] < K), other=0)
        w_codes = tl.load(w_tile + start, mask=(n[None, :] < N) & (start + k[:, None] < K), other=0)
        scale = tl.load(x_scales + start // GROUP * T + m, mask=m < T, other=0.0)
        acc += tl.dot(x_codes, w_codes).to(tl.float32) * scale[:, None]
    store_tile(acc, w_scales, bias, out, m, n, T, N)


def linear_int8(x: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
    """x: [T, in] -> [T, out] in x's dtype. Raises ValueError on a depth or a bias that is not the weight's."""
    check_shapes(x, weight, bias)
    codes, scales = quantize(x, torch.int8, DEPTH)
    return multiply(_product, codes, scales, DEPTH, weight, bias, x.dtype)
