"""What lies between the qkv projection and attention, in one kernel: norms of the heads, rotation, write to the cache.

Spec: ``ref.rms_norm`` on query and key heads (where the model has such norms), ``ref.rope`` on both, then the keys and
values of ``ref.write_kv``. Queries change in place; keys and values go from qkv straight to their slots, and qkv keeps
the old ones. All is fp32 between the load and the store: one rounding, where the three ops apart round after each step.

A program has a few heads of one token, all queries, all keys or all values, as two tiles [heads, D/2]: the halves that
the rotation pairs. Half sizes that are no power of two (D = 80, 96) are padded and masked.

Roofline: bound by bytes. A token of H query and G KV heads moves 2 (H + 2 G) D numbers (each read once, written once)
and D of the tables; three ops apart move H + G heads twice more. The tables' rows stay in L2 for all layers, and at
decode so does qkv: what is paid is the launch, one in place of up to six.

Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.ops import HeadNorms
from minillm_kernels.triton.cache import TritonKV
from minillm_kernels.triton.overlap import LAUNCH, start_next, wait_for_inputs

PROGRAM = 512  # numbers of a program of one warp: two loads of 16 bytes a thread in bf16


@triton.jit
def _normalize_and_turn(
    first, second, weight_ptr, eps, cos_ptr, sin_ptr, positions_ptr, token, D: tl.constexpr, HALF: tl.constexpr
):
    """RMSNorm of each head where there is a weight, then the rotation where there are tables. [heads, HALF] each."""
    i = tl.arange(0, HALF)
    inside = i < D // 2
    if weight_ptr is not None:
        mean_square = (tl.sum(first * first, 1) + tl.sum(second * second, 1)) / D
        scale = tl.rsqrt(mean_square + eps)[:, None]
        first *= scale * tl.load(weight_ptr + i, mask=inside, other=0.0).to(tl.float32)[None, :]
        second *= scale * tl.load(weight_ptr + D // 2 + i, mask=inside, other=0.0).to(tl.float32)[None, :]
    if cos_ptr is not None:
        angle = tl.load(positions_ptr + token).to(tl.int64) * (D // 2) + i
        cos = tl.load(cos_ptr + angle, mask=inside, other=0.0).to(tl.float32)[None, :]
        sin = tl.load(sin_ptr + angle, mask=inside, other=0.0).to(tl.float32)[None, :]
        first, second = first * cos - second * sin, second * cos + first * sin
    return first, second


@triton.jit
def _round_int8(x):
    """To the nearest integer, ties to even as torch.round: at 1.5 * 2**23 the fp32 numbers are one apart."""
    return ((x + 12582912.0) - 12582912.0).to(tl.int8)


@triton.jit
def _write(
    first, second, data_ptr, scales_ptr, slot, head,
    G: tl.constexpr, BLOCK_SIZE: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Store heads at their slot of one cache tensor [blocks, G, BLOCK_SIZE, D]; a negative slot: nowhere."""
    i = tl.arange(0, HALF)
    real = head < tl.where(slot >= 0, G, 0)
    place = (slot // BLOCK_SIZE * G + head) * BLOCK_SIZE + slot % BLOCK_SIZE  # 64 bits, as slot is
    dtype = data_ptr.dtype.element_ty
    if scales_ptr is not None:  # int8: the largest component of a head becomes 127
        largest = tl.maximum(tl.max(tl.abs(first), 1), tl.max(tl.abs(second), 1))
        tl.store(scales_ptr + place, largest / 127, mask=real)
        factor = (127 / tl.maximum(largest, 1e-30))[:, None]
        first, second = _round_int8(first * factor), _round_int8(second * factor)
    elif dtype == tl.float8e4nv:  # 448 is its largest number, beyond it lies only NaN
        first = tl.clamp(first, -448.0, 448.0, tl.PropagateNan.ALL).to(dtype)
        second = tl.clamp(second, -448.0, 448.0, tl.PropagateNan.ALL).to(dtype)
    else:
        first, second = first.to(dtype), second.to(dtype)
    at = place[:, None] * D + i[None, :]
    mask = real[:, None] & (i < D // 2)[None, :]
    tl.store(data_ptr + at, first, mask=mask)
    tl.store(data_ptr + at + D // 2, second, mask=mask)


@triton.jit
def _rope_kv(
    qkv_ptr, token_stride, head_stride, q_weight_ptr, k_weight_ptr, eps, cos_ptr, sin_ptr, positions_ptr,
    keys_ptr, values_ptr, key_scales_ptr, value_scales_ptr, slots_ptr,
    H: tl.constexpr, G: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    start_next()
    wait_for_inputs()
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    keys_from: tl.constexpr = (H + HEADS - 1) // HEADS  # parts of the queries come first, then keys, then values
    values_from: tl.constexpr = keys_from + (G + HEADS - 1) // HEADS
    if part < keys_from:  # heads of qkv's row; a kind's last part may have fewer than HEADS
        start, end = part * HEADS, H
    elif part < values_from:
        start, end = H + (part - keys_from) * HEADS, H + G
    else:
        start, end = H + G + (part - values_from) * HEADS, H + 2 * G
    head = start + tl.arange(0, HEADS)
    i = tl.arange(0, HALF)
    mask = (head < end)[:, None] & (i < D // 2)[None, :]
    at = qkv_ptr + token * token_stride + head[:, None] * head_stride + i[None, :]
    first = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(at + D // 2, mask=mask, other=0.0).to(tl.float32)
    if part < keys_from:
        first, second = _normalize_and_turn(
            first, second, q_weight_ptr, eps, cos_ptr, sin_ptr, positions_ptr, token, D, HALF
        )
        dtype = qkv_ptr.dtype.element_ty
        tl.store(at, first.to(dtype), mask=mask)
        tl.store(at + D // 2, second.to(dtype), mask=mask)
    elif part < values_from:
        first, second = _normalize_and_turn(
            first, second, k_weight_ptr, eps, cos_ptr, sin_ptr, positions_ptr, token, D, HALF
        )
        slot = tl.load(slots_ptr + token).to(tl.int64)
        _write(first, second, keys_ptr, key_scales_ptr, slot, head - H, G, BLOCK_SIZE, D, HALF)
    else:
        slot = tl.load(slots_ptr + token).to(tl.int64)
        _write(first, second, values_ptr, value_scales_ptr, slot, head - H - G, G, BLOCK_SIZE, D, HALF)


def rope_kv(
    qkv: Tensor,
    norms: HeadNorms | None,
    angles: tuple[Tensor, Tensor, Tensor] | None,
    cache: TritonKV,
    slots: Tensor,
) -> None:
    """Normalise and rotate the queries of qkv in place, and the keys on their way to the cache; write the values too.

    qkv: [T, H + 2 * G, D], G being the cache's heads; norms: weights [D], None: heads are not normalised; angles: cos
    and sin tables [positions, D/2] and the tokens' positions [T], None: not rotated; slots: [T] int64, all different
    where not negative. A token with a negative slot (padding of a CUDA graph) is not written.
    """
    tokens, heads, dim = qkv.shape
    _, kv_heads, block_size, cached_dim = cache.keys.shape
    if dim % 2 or dim != cached_dim or heads <= 2 * kv_heads or qkv.stride(2) != 1:
        raise ValueError(
            f"qkv is [T, H + 2 * {kv_heads}, {cached_dim}] with an even head size and components side by side, "
            f"got {list(qkv.shape)} with strides {qkv.stride()}"
        )
    cos, sin, positions = (None, None, None) if angles is None else angles
    q_weight, k_weight, eps = (None, None, 0.0) if norms is None else (norms.q, norms.k, norms.eps)
    if slots.shape != (tokens,) or (positions is not None and positions.shape != (tokens,)):
        got = [list(x.shape) for x in (slots, positions) if x is not None]
        raise ValueError(f"{tokens} tokens take as many slots and positions, got {got}")
    if cos is not None and not cos.shape[1] == sin.shape[1] == dim // 2:
        raise ValueError(f"heads of {dim} take angles of [positions, {dim // 2}], got {list(cos.shape)}")
    if q_weight is not None and not q_weight.shape == k_weight.shape == (dim,):
        raise ValueError(f"norms of heads of {dim} take weights of [{dim}], got {list(q_weight.shape)}")
    half = triton.next_power_of_2(dim // 2)
    per_program = max(PROGRAM // (2 * half), 1)
    queries = heads - 2 * kv_heads
    grid = (tokens, triton.cdiv(queries, per_program) + 2 * triton.cdiv(kv_heads, per_program))
    _rope_kv[grid](
        qkv, qkv.stride(0), qkv.stride(1), q_weight, k_weight, eps, cos, sin, positions,
        cache.keys, cache.values, cache.key_scales, cache.value_scales, slots,
        H=queries, G=kv_heads, BLOCK_SIZE=block_size, D=dim, HALF=half, HEADS=per_program,
        num_warps=max(2 * half * per_program // PROGRAM, 1), **LAUNCH,
    )  # fmt: skip
