"""Batched LoRA: every token of a batch may have its own adapter, or none; two kernels for all of them.

Spec: ``ref_lora.add_lora``: y [T, out] += scale * B A x, A, B and scale of each token's adapter, in place.

``_shrink``: hidden = A x, a few numbers for each token, the inputs split over programs (split-K) so that a decode step
fills the GPU; ``_expand`` sums the parts and adds scale * B hidden to y.

Tokens need no order and the host no list of who has what: a program takes a tile of tokens and goes through the
adapters in it, from the largest number down (``_next_adapter``), each with the tile's other tokens masked. Where many
adapters may meet in a tile (decode), PASSES programs share them; in a prompt all tokens of a tile mostly have the same.
A token has one adapter, so no two programs write the same element, and the result does not depend on their order.

Roofline: bytes, rank * (in + out) * itemsize for each (tile, adapter) pair, most of it from L2 where tiles share
adapters, and y twice; flops, 2 * T * rank * (in + out). Bandwidth is the bound, at decode the launches are: r = 16 on
4096 x 4096 is 0.8 % of the layer's own weight.
Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.ref_lora import LoraWeights

PROMPT = 256  # tokens from which a step is taken to be mostly prompts
PROGRAMS = 256  # of _shrink that splitting the inputs aims at
MAX_SPLITS = 8
INPUTS, OUTPUTS = 128, 64  # of a tile
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def _dot(a, b, acc):
    """acc + a @ b. The interpreter's tl.dot multiplies the bits of bf16 numbers, so there they are widened first."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def _next_adapter(index, adapter):
    """The largest adapter in the tile below ``adapter``; -1: none."""
    return tl.max(tl.where(index < adapter, index, -1), 0)


@triton.jit(do_not_specialize=["num_tokens"])
def _shrink(
    x_ptr,
    a_ptr,
    index_ptr,
    hidden_ptr,  # [SPLITS, num_tokens, SLICES * RANK] fp32
    num_tokens,
    num_inputs,
    x_stride,
    RANK: tl.constexpr,
    SLICES: tl.constexpr,
    PASSES: tl.constexpr,
    SPLITS: tl.constexpr,
    TOKENS: tl.constexpr,
    LANES: tl.constexpr,  # RANK, padded for tl.dot
    INPUTS: tl.constexpr,
):
    part, split = tl.program_id(1), tl.program_id(2)
    token = tl.program_id(0) // PASSES * TOKENS + tl.arange(0, TOKENS)
    index = tl.load(index_ptr + token, mask=token < num_tokens, other=-1)
    lane, token = tl.arange(0, LANES), token.to(tl.int64)
    hidden_at = (split * num_tokens + token)[:, None] * (SLICES * RANK) + (part * RANK + lane)[None, :]
    adapter = tl.max(index, 0)
    for _ in range(tl.program_id(0) % PASSES):
        adapter = _next_adapter(index, adapter)
    while adapter >= 0:
        mine = index == adapter
        a_row = (adapter.to(tl.int64) * SLICES + part) * RANK + lane
        acc = tl.zeros((TOKENS, LANES), tl.float32)
        for start in range(split * INPUTS, num_inputs, SPLITS * INPUTS):
            k = start + tl.arange(0, INPUTS)
            x = tl.load(
                x_ptr + token[:, None] * x_stride + k[None, :],
                mask=mine[:, None] & (k < num_inputs)[None, :],
                other=0.0,
            )
            a = tl.load(
                a_ptr + a_row[None, :] * num_inputs + k[:, None],
                mask=(lane < RANK)[None, :] & (k < num_inputs)[:, None],
                other=0.0,
            )
            acc = _dot(x, a, acc)
        tl.store(hidden_ptr + hidden_at, acc, mask=mine[:, None] & (lane < RANK)[None, :])
        for _ in range(PASSES):
            adapter = _next_adapter(index, adapter)


@triton.jit(do_not_specialize=["num_tokens"])
def _expand(
    hidden_ptr,
    b_ptr,
    scale_ptr,
    bound_ptr,
    index_ptr,
    y_ptr,
    num_tokens,
    num_outputs,
    y_stride,
    RANK: tl.constexpr,
    SLICES: tl.constexpr,
    PASSES: tl.constexpr,
    SPLITS: tl.constexpr,
    TOKENS: tl.constexpr,
    LANES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ALIGNMENT: tl.constexpr,  # what all slices' sizes are multiples of
):
    part = tl.program_id(2)
    first = tl.multiple_of(tl.load(bound_ptr + part), ALIGNMENT)
    end = tl.multiple_of(tl.load(bound_ptr + part + 1), ALIGNMENT)
    row = first + tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    in_slice = row < end
    token = tl.program_id(0) // PASSES * TOKENS + tl.arange(0, TOKENS)
    index = tl.load(index_ptr + token, mask=token < num_tokens, other=-1)
    lane, token = tl.arange(0, LANES), token.to(tl.int64)
    adapter = tl.max(index, 0)
    for _ in range(tl.program_id(0) % PASSES):
        adapter = _next_adapter(index, adapter)
    while adapter >= 0:
        mine, in_rank = index == adapter, lane < RANK
        hidden = tl.zeros((TOKENS, LANES), tl.float32)
        for split in tl.static_range(SPLITS):
            hidden_at = (split * num_tokens + token)[:, None] * (SLICES * RANK) + (part * RANK + lane)[None, :]
            hidden += tl.load(hidden_ptr + hidden_at, mask=mine[:, None] & in_rank[None, :], other=0.0)
        hidden *= tl.load(scale_ptr + adapter)
        b_row = adapter.to(tl.int64) * num_outputs + row
        b = tl.load(b_ptr + b_row[None, :] * RANK + lane[:, None], mask=in_rank[:, None] & in_slice[None, :], other=0.0)
        y_at = y_ptr + token[:, None] * y_stride + row[None, :]
        wanted = mine[:, None] & in_slice[None, :]
        y = tl.load(y_at, mask=wanted, other=0.0).to(tl.float32)
        y = _dot(hidden.to(b.dtype), b, y)
        tl.store(y_at, y.to(y_ptr.dtype.element_ty), mask=wanted)
        for _ in range(PASSES):
            adapter = _next_adapter(index, adapter)


def add_lora(y: Tensor, x: Tensor, weights: LoraWeights, index: Tensor) -> None:
    """In place; y: [T, out], x: [T, in], rows at any stride; index: [T] int32, -1: none, else below the adapters.

    Raises ValueError for shapes that do not fit together.
    """
    (num_tokens, num_inputs), num_outputs = x.shape, weights.b.shape[1]
    if y.shape != (num_tokens, num_outputs) or weights.a.shape[2] != num_inputs or index.shape != (num_tokens,):
        raise ValueError(
            f"y {tuple(y.shape)}, x {tuple(x.shape)} and index {tuple(index.shape)} do not fit adapters of "
            f"{weights.a.shape[2]} inputs and {num_outputs} outputs"
        )
    if x.stride(1) != 1 or y.stride(1) != 1:
        raise ValueError("rows of x and y must be dense")
    if num_tokens == 0:
        return
    slices, rank = len(weights.outputs), weights.rank
    tokens = 64 if num_tokens >= PROMPT else 16
    passes = 1 if num_tokens >= PROMPT else min(tokens, len(weights.a))
    tiles = triton.cdiv(num_tokens, tokens)
    splits = num_splits(tiles * slices, num_inputs)
    hidden = torch.empty((splits, num_tokens, slices * rank), dtype=torch.float32, device=x.device)
    shape = {
        "RANK": rank,
        "SLICES": slices,
        "PASSES": passes,
        "SPLITS": splits,
        "TOKENS": tokens,
        "LANES": max(16, triton.next_power_of_2(rank)),
    }
    _shrink[(tiles * passes, slices, splits)](
        x, weights.a, index, hidden, num_tokens, num_inputs, x.stride(0), **shape, INPUTS=INPUTS, num_warps=4
    )
    _expand[(tiles * passes, triton.cdiv(max(weights.outputs), OUTPUTS), slices)](
        hidden, weights.b, weights.scales, weights.bounds, index, y, num_tokens, num_outputs, y.stride(0), **shape,
        OUTPUTS=OUTPUTS, ALIGNMENT=math.gcd(8, *weights.outputs), num_warps=4,
    )  # fmt: skip


def num_splits(programs: int, num_inputs: int) -> int:
    """Into how many parts, a power of two, the inputs are cut to have about PROGRAMS programs."""
    wanted = min(MAX_SPLITS, PROGRAMS // programs, triton.cdiv(num_inputs, INPUTS))
    return 1 << max(wanted, 1).bit_length() - 1
