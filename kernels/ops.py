"""The table of operations: one row per op, one column per backend. Resolved once, when the engine starts.

Model code calls ``ops.rms_norm(...)`` and never asks what machine it runs on. A backend is the reference table
with some rows replaced, so an op that nobody has made faster yet still works everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from minillm_kernels import ref


@dataclass(frozen=True)
class Ops:
    """Shapes: T tokens of all sequences laid end to end, B sequences, H query heads, G KV heads, D head size.

    rms_norm(x [T, N], weight [N], eps) -> [T, N]
    add_rms_norm(x [T, N], residual [T, N], weight [N], eps) -> (normed, x + residual)
    rope(qk [T, heads, D], cos [T, D/2], sin [T, D/2]) -> [T, heads, D]
    silu_mul(gate_up [T, 2*N]) -> [T, N]
    pack_linear(weight [out, in]) -> packed; linear(x [T, in], packed, bias [out] | None) -> [T, out]
    write_kv(k [T, G, D], v [T, G, D], kv_cache [blocks, block_size, 2, G, D], slots [T]) -> None
    plan_attention(tables [B, max_blocks], seq_lens, query_lens (B ints each), block_size) -> plan, once per step
    attention(q [T, H, D], kv_cache, plan) -> [T, H, D]
    """

    name: str
    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = ref.rms_norm
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] = ref.add_rms_norm
    rope: Callable[[Tensor, Tensor, Tensor], Tensor] = ref.rope
    silu_mul: Callable[[Tensor], Tensor] = ref.silu_mul
    pack_linear: Callable[[Tensor], Any] = ref.pack_linear
    linear: Callable[[Tensor, Any, Tensor | None], Tensor] = ref.linear
    write_kv: Callable[[Tensor, Tensor, Tensor, Tensor], None] = ref.write_kv
    plan_attention: Callable[[Tensor, Sequence[int], Sequence[int], int], Any] = ref.plan_attention
    attention: Callable[[Tensor, Tensor, Any], Tensor] = ref.attention


def resolve(backend: str) -> Ops:
    """The table for ``"ref"`` or ``"cpu"``. Raises ValueError for any other name."""
    if backend == "ref":
        return Ops("ref")
    if backend == "cpu":
        from minillm_kernels.cpu import attention, linear

        return Ops(
            "cpu",
            pack_linear=linear.pack_linear,
            linear=linear.linear,
            plan_attention=attention.plan_attention,
            attention=attention.attention,
        )
    raise ValueError(f"unknown kernel backend {backend!r}; known: 'ref', 'cpu'")
