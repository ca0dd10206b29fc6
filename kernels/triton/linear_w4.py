"""W4A16 linear layers: weights of 4 bits, scales and zero points by group, x in 16 bits (AWQ, GPTQ, ``int4``).

Spec: ``ref_w4.linear_w4``: x [T, in], W4Weight -> x @ weight.T (+ bias) [T, out], sums in fp32.

Three ways, by the number of tokens T:
- T = 1, ``_gemv``: a program owns a few outputs and multiplies codes with x lane by lane, in fp32.
- T < DEQUANTIZE_FROM, ``_gemm``: a block's eight nibbles are eight small tl.dot with the integers code - zero, exact in
  bf16; a group's scale multiplies its sum. The weight is dot's first operand, so that it can come from registers. Where
  outputs are few, SPLIT programs share the inputs; the last to finish adds up their sums, always in the same order.
- more, ``_dequantize``: write the weight once in x's dtype (here it is rounded to it) and let cuBLAS multiply, for the
  same codes would be unpacked again for each tile of tokens.

Roofline: bytes, out * in / 2 and 3 more for each group (128 inputs: 4.7 %), about a quarter of bf16's; flops,
2 * T * out * in. Up to some hundred tokens bandwidth is the bound, but only if unpacking keeps up: at 3 TB/s an H100
has time for about five instructions a weight. It converts integers to floats at an eighth of the rate of adding them,
so _nibble makes a float of a code by bit logic and one subtraction, and the zero point stays out of _gemv's inner loop:
sum x * (code - zero) = sum x * code - zero * sum x.
Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from minillm_kernels.ref_w4 import BLOCK, WORDS, W4Weight

DEQUANTIZE_FROM = 512  # tokens
PROGRAMS = 512  # of _gemm that splitting the inputs aims at
MAX_SPLIT = 8
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def _nibble(words, zero, NTH: tl.constexpr):
    """Code NTH of each word less ``zero``, in fp32, exactly.

    Put below the exponent of 2 ** (23 - shift), the bits [shift, shift + 4) of a float's mantissa count units.
    """
    if NTH >= 5:  # the mantissa has 23 bits
        words = words >> 20
        SHIFT: tl.constexpr = 4 * (NTH - 5)
    else:
        SHIFT: tl.constexpr = 4 * NTH
    bits = (words & (15 << SHIFT)) | ((127 + 23 - SHIFT) << 23)
    return bits.to(tl.float32, bitcast=True) - (zero + (1 << (23 - SHIFT)))


@triton.jit
def _gemv(
    x_ptr,
    code_ptr,
    scale_ptr,
    zero_ptr,
    bias_ptr,
    out_ptr,
    num_outputs,
    num_inputs,
    num_words,  # of a row
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    WORDS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,  # outputs of a program
    COLUMNS: tl.constexpr,  # words of each that it reads in one turn of the loop
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    in_rows = (row < num_outputs)[:, None]
    code_at = code_ptr + row.to(tl.int64)[:, None] * num_words
    acc = tl.zeros((ROWS, COLUMNS // 4), tl.float32)
    for start in range(0, num_words, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        words = tl.load(code_at + column[None, :], mask=in_rows & (column < num_words)[None, :], other=0)
        # Four words, a thread's share of a row, lie in one block and have their groups in common.
        block = start // WORDS + tl.arange(0, COLUMNS // 4) // (WORDS // 4)
        alive = in_rows & (block < num_words // WORDS)[None, :]
        for g in tl.static_range(BLOCK // GROUP):
            products = tl.zeros((ROWS, COLUMNS), tl.float32)
            x_sums = tl.zeros((COLUMNS,), tl.float32)
            for i in tl.static_range(GROUP // WORDS):
                k = column // WORDS * BLOCK + (g * GROUP + i * WORDS) + column % WORDS
                x = tl.load(x_ptr + k, mask=k < num_inputs, other=0.0).to(tl.float32)
                products += _nibble(words, 0, g * (GROUP // WORDS) + i) * x[None, :]
                x_sums += x
            group_at = (block * (BLOCK // GROUP) + g)[None, :] * num_outputs + row[:, None]
            scale = tl.load(scale_ptr + group_at, mask=alive, other=0.0).to(tl.float32)
            zero = tl.load(zero_ptr + group_at, mask=alive, other=0).to(tl.float32)
            products_of_four = tl.sum(products.reshape(ROWS, COLUMNS // 4, 4), 2)
            x_sums_of_four = tl.sum(x_sums.reshape(COLUMNS // 4, 4), 1)
            acc += scale * (products_of_four - zero * x_sums_of_four[None, :])
    out = tl.sum(acc, 1)
    if HAS_BIAS:
        out += tl.load(bias_ptr + row, mask=row < num_outputs, other=0.0).to(tl.float32)
    tl.store(out_ptr + row, out.to(out_ptr.dtype.element_ty), mask=row < num_outputs)


@triton.jit(do_not_specialize=["num_tokens"])
def _gemm(
    x_ptr,
    code_ptr,
    scale_ptr,
    zero_ptr,
    bias_ptr,
    out_ptr,
    partial_ptr,  # [row tiles, SPLIT, ROWS, TOKENS] fp32
    arrival_ptr,  # [row tiles], zeros before and after
    num_tokens,
    num_outputs,
    num_inputs,
    num_words,
    x_stride,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    WORDS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,  # outputs of a program
    TOKENS: tl.constexpr,
    SPLIT: tl.constexpr,  # programs that share a tile; above 1 only where one tile holds all tokens
):
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    in_tokens, in_rows = token < num_tokens, row < num_outputs
    lane = tl.arange(0, WORDS)
    x_at = x_ptr + token.to(tl.int64)[None, :] * x_stride
    code_at = code_ptr + row.to(tl.int64)[:, None] * num_words + lane[None, :]
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    num_blocks = num_words // WORDS
    share = (num_blocks + SPLIT - 1) // SPLIT
    begin = tl.program_id(2) * share
    for block in range(begin, tl.minimum(begin + share, num_blocks)):
        words = tl.load(code_at + block * WORDS, mask=in_rows[:, None], other=0)
        for g in tl.static_range(BLOCK // GROUP):
            here = (block * (BLOCK // GROUP) + g) * num_outputs + row
            scale = tl.load(scale_ptr + here, mask=in_rows, other=0.0).to(tl.float32)
            zero = tl.load(zero_ptr + here, mask=in_rows, other=0).to(tl.float32)
            sums = tl.zeros((ROWS, TOKENS), tl.float32)
            for i in tl.static_range(GROUP // WORDS):
                k = block * BLOCK + (g * GROUP + i * WORDS) + lane
                x = tl.load(x_at + k[:, None], mask=(k < num_inputs)[:, None] & in_tokens[None, :], other=0.0)
                codes = _nibble(words, zero[:, None], g * (GROUP // WORDS) + i)
                if INTERPRETED:  # its tl.dot multiplies the bits of bf16 numbers
                    x = x.to(tl.float32)
                codes = codes.to(x.dtype)
                sums = tl.dot(codes, x, sums, input_precision="ieee")
            acc += sums * scale[:, None]
    if SPLIT > 1:
        AREA: tl.constexpr = ROWS * TOKENS
        place = tl.arange(0, ROWS)[:, None] * TOKENS + tl.arange(0, TOKENS)[None, :]
        partial_at = partial_ptr + tl.program_id(1) * (SPLIT * AREA) + place
        tl.store(partial_at + tl.program_id(2) * AREA, acc)
        tl.debug_barrier()  # all threads have stored before one of them tells the other programs
        if tl.atomic_add(arrival_ptr + tl.program_id(1), 1, sem="acq_rel") != SPLIT - 1:
            return
        tl.store(arrival_ptr + tl.program_id(1), 0)  # for the next launch
        acc = tl.zeros((ROWS, TOKENS), tl.float32)
        for part in tl.static_range(SPLIT):
            acc += tl.load(partial_at + part * AREA)
    if HAS_BIAS:
        acc += tl.load(bias_ptr + row, mask=in_rows, other=0.0).to(tl.float32)[:, None]
    out_at = token.to(tl.int64)[None, :] * num_outputs + row[:, None]
    tl.store(out_ptr + out_at, acc.to(out_ptr.dtype.element_ty), mask=in_rows[:, None] & in_tokens[None, :])


@triton.jit
def _dequantize(
    code_ptr,
    scale_ptr,
    zero_ptr,
    out_ptr,
    num_outputs,
    num_inputs,
    num_words,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    WORDS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One block of some rows: [ROWS, BLOCK] of out [num_outputs, num_inputs]."""
    block, row = tl.program_id(0), tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    in_rows, lane, row64 = (row < num_outputs)[:, None], tl.arange(0, WORDS), row.to(tl.int64)
    words = tl.load(code_ptr + row64[:, None] * num_words + block * WORDS + lane[None, :], mask=in_rows, other=0)
    for i in tl.static_range(BLOCK // WORDS):
        here = (block * BLOCK + i * WORDS) // GROUP * num_outputs + row
        scale = tl.load(scale_ptr + here, mask=row < num_outputs, other=0.0).to(tl.float32)
        zero = tl.load(zero_ptr + here, mask=row < num_outputs, other=0).to(tl.float32)
        weight = _nibble(words, zero[:, None], i) * scale[:, None]
        k = block * BLOCK + i * WORDS + lane
        out_at = out_ptr + row64[:, None] * num_inputs + k[None, :]
        tl.store(out_at, weight.to(out_ptr.dtype.element_ty), mask=in_rows & (k < num_inputs)[None, :])


def linear_w4(x: Tensor, weight: W4Weight, bias: Tensor | None) -> Tensor:
    """x: [T, in], rows at any stride -> [T, out] in x's dtype. Raises ValueError for shapes that do not fit."""
    (num_outputs, num_words), num_inputs = weight.codes.shape, weight.num_inputs
    if x.ndim != 2 or x.shape[1] != num_inputs or (bias is not None and bias.shape != (num_outputs,)):
        raise ValueError(f"x {tuple(x.shape)} does not fit a 4-bit weight {(num_outputs, num_inputs)} and its bias")
    if weight.order is not None:
        x = x.index_select(1, weight.order)
    num_tokens = x.shape[0]
    if num_tokens >= DEQUANTIZE_FROM:
        return functional.linear(x, dequantize_w4(weight, x.dtype), bias)
    if x.stride(1) != 1:
        x = x.contiguous()
    out = torch.empty((num_tokens, num_outputs), dtype=x.dtype, device=x.device)
    if num_tokens == 0:
        return out
    inputs = (x, weight.codes, weight.scales, weight.zeros, out if bias is None else bias)
    layout = {"GROUP": weight.group, "BLOCK": BLOCK, "WORDS": WORDS, "HAS_BIAS": bias is not None}
    if num_tokens == 1:
        rows, columns, warps = gemv_tile(num_outputs, num_words)
        _gemv[(triton.cdiv(num_outputs, rows),)](
            *inputs, out, num_outputs, num_inputs, num_words, **layout, ROWS=rows, COLUMNS=columns, num_warps=warps,
            num_stages=1,
        )  # fmt: skip
        return out
    rows, tokens, split, warps, stages = gemm_tile(num_outputs, num_words // WORDS, num_tokens)
    tiles = triton.cdiv(num_outputs, rows)
    partial = out
    if split > 1:
        partial = torch.empty((tiles, split, rows, tokens), dtype=torch.float32, device=x.device)
    _gemm[(triton.cdiv(num_tokens, tokens), tiles, split)](
        *inputs, out, partial, weight.arrivals, num_tokens, num_outputs, num_inputs, num_words, x.stride(0), **layout,
        ROWS=rows, TOKENS=tokens, SPLIT=split, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out


def dequantize_w4(weight: W4Weight, dtype: torch.dtype) -> Tensor:
    """The weight [out, in] in ``dtype``, columns in the order of the codes."""
    (num_outputs, num_words), num_inputs = weight.codes.shape, weight.num_inputs
    out = torch.empty((num_outputs, num_inputs), dtype=dtype, device=weight.codes.device)
    rows = 64
    _dequantize[(num_words // WORDS, triton.cdiv(num_outputs, rows))](
        weight.codes, weight.scales, weight.zeros, out, num_outputs, num_inputs, num_words,
        GROUP=weight.group, BLOCK=BLOCK, WORDS=WORDS, ROWS=rows, num_warps=4,
    )  # fmt: skip
    return out


def gemv_tile(num_outputs: int, num_words: int) -> tuple[int, int, int]:
    """Rows, words of each and warps of a program of _gemv: 16 bytes of each row for a thread, so that layouts agree."""
    warps = min(4, triton.next_power_of_2(triton.cdiv(num_words, 128)))
    return 4 if num_outputs >= 8192 else 2, 128 * warps, warps


def gemm_tile(num_outputs: int, num_blocks: int, num_tokens: int) -> tuple[int, int, int, int, int]:
    """Rows, tokens, split, warps and stages of a program of _gemm.

    Two warps on 32 rows multiply by mma.sync, whose results the next dot does not wait for; four on 64 rows by wgmma,
    which triton waits for each time: that pays where a tile has tokens enough.
    """
    tokens = min(64, max(16, triton.next_power_of_2(num_tokens)))
    rows, warps, stages = (32, 2, 4) if tokens <= 32 else (64, 4, 3)
    if num_tokens > tokens:
        return rows, tokens, 1, warps, stages
    split = min(PROGRAMS // triton.cdiv(num_outputs, rows), num_blocks // 4, MAX_SPLIT)
    return rows, tokens, 1 << max(split, 1).bit_length() - 1, warps, stages
