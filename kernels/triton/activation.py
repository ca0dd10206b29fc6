"""The products of gated MLPs, SwiGLU and GeGLU: act(gate) * up, gate and up being the two halves of one row.

Spec: ``ref.silu_mul`` and ``ref.gelu_tanh_mul``; act(gate) is rounded to the dtype before the product, as there.

Roofline: bound by bytes, 6 N a row in bf16 (two halves read, one written) for about 8 N flops. Fused they spare the
round trip of act(gate), 4 N bytes. At decode the rows sit in L2 and what is paid is the launch.

Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.triton.overlap import LAUNCH, start_next, wait_for_inputs

BLOCK = 1024  # numbers of a program: 8 a thread, 16 bytes in bf16, the widest load


@triton.jit
def _gated(gate_up_ptr, out_ptr, token_stride, N: tl.constexpr, GELU: tl.constexpr, BLOCK: tl.constexpr):
    start_next()
    wait_for_inputs()
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < N
    gate_up_ptr += token * token_stride
    gate = tl.load(gate_up_ptr + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + N + column, mask=inside, other=0.0).to(tl.float32)
    slope = gate
    if GELU:  # (1 + tanh z) / 2 = sigmoid(2 z): one exponential, and no overflow at either end
        slope = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)  # 2 sqrt(2 / pi)
    dtype = out_ptr.dtype.element_ty
    active = (gate * tl.sigmoid(slope)).to(dtype).to(tl.float32)
    tl.store(out_ptr + token * N + column, (active * up).to(dtype), mask=inside)


def silu_mul(gate_up: Tensor) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.silu_mul`; rows may be cut out of wider ones."""
    return _launch(gate_up, gelu=False)


def gelu_tanh_mul(gate_up: Tensor) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.gelu_tanh_mul`; rows may be cut out of wider ones."""
    return _launch(gate_up, gelu=True)


def _launch(gate_up: Tensor, gelu: bool) -> Tensor:
    if gate_up.dim() != 2 or gate_up.shape[1] % 2:
        raise ValueError(f"a gated activation takes two halves of one size, [T, 2 * N], got {list(gate_up.shape)}")
    if gate_up.stride(1) != 1:
        gate_up = gate_up.contiguous()
    tokens, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((tokens, size), dtype=gate_up.dtype, device=gate_up.device)
    grid = (tokens, triton.cdiv(size, BLOCK))
    _gated[grid](gate_up, out, gate_up.stride(0), size, gelu, BLOCK, num_warps=4, **LAUNCH)
    return out
