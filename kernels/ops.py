"""The table of operations: one row per op, one column per backend. Resolved once, when the engine starts.

Model code calls ``ops.rms_norm(...)`` and never asks what machine it runs on. A backend is the reference table
with some rows replaced, so an op that nobody has made faster yet still works everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minillm_kernels import kv_cache, ref, ref_fp8, ref_w4
from minillm_kernels.cpu.build import library


@dataclass(frozen=True)
class HeadNorms:
    """RMSNorm of each head's query and key (Qwen3, Gemma 3). q, k: weights [D]."""

    q: Tensor
    k: Tensor
    eps: float


@dataclass(frozen=True)
class Ops:
    """Shapes: T tokens of all sequences laid end to end, B sequences, H query heads, G KV heads, D head size.

    rms_norm(x [T, N], weight [N], eps) -> [T, N]
    add_rms_norm(x [T, N], residual [T, N], weight [N], eps) -> (normed, x + residual); may overwrite residual
    angles((cos, sin) tables [positions, D/2], positions [T]) -> opaque, what ``attend_qkv`` turns heads by
    rope(qk [T, heads, D] (a slice of qkv), cos [T, D/2], sin [T, D/2]) -> [T, heads, D]; may rotate qk in place
    silu_mul(gate_up [T, 2*N]) -> [T, N]
    gelu_tanh_mul(gate_up [T, 2*N]) -> [T, N]
    pack_linear(weight [out, in]) -> packed; linear(x [T, in], packed, bias [out] | None) -> [T, out]
    pack_linear_int8(weight) -> packed; linear_int8(x [T, in], packed, bias) -> [T, out]: 8-bit weights and activations
    pack_linear_fp8(weight, per_tensor) -> ref_fp8.Fp8Weight; linear_fp8(x [T, in], packed, bias) -> [T, out]: both e4m3
    pack_linear_w4(weight) -> ref_w4.W4Weight; linear_w4(x [T, in], packed, bias) -> [T, out]: weights alone in 4 bits
    make_kv_cache(num_layers, num_blocks, block_size, G, D, dtype, quantized, device) -> one opaque cache per layer
    kv_bytes_per_token(G, D, dtype, quantized) -> bytes of one token in one layer of it
    argmax(x [S, N]) -> [S] int64, the first of the largest
    write_kv(k [T, G, D], v [T, G, D], cache, slots [T]) -> None
    plan_attention(tables [B, max_blocks], seq_lens, query_lens (B ints each), block_size) -> plan, once per step
    attention(q [T, H, D], cache, plan, scale, window) -> [T, H, D]; window 0: a token sees all before it
    attend(q, k, v, cache, slots, plan, scale, window) -> [T, H, D]: write_kv, then attention, in one call
    fused_attend_qkv: :meth:`attend_qkv` in as few kernels as the backend can; None: of the other rows
    """

    name: str
    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = ref.rms_norm
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] = ref.add_rms_norm
    angles: Callable[[tuple[Tensor, Tensor], Tensor], Any] = ref.angles
    rope: Callable[[Tensor, Tensor, Tensor], Tensor] = ref.rope
    silu_mul: Callable[[Tensor], Tensor] = ref.silu_mul
    gelu_tanh_mul: Callable[[Tensor], Tensor] = ref.gelu_tanh_mul
    pack_linear: Callable[[Tensor], Any] = ref.pack_linear
    linear: Callable[[Tensor, Any, Tensor | None], Tensor] = ref.linear
    pack_linear_int8: Callable[[Tensor], Any] = ref.pack_linear_int8
    linear_int8: Callable[[Tensor, Any, Tensor | None], Tensor] = ref.linear_int8
    pack_linear_fp8: Callable[[Tensor, bool], ref_fp8.Fp8Weight] = ref_fp8.pack_linear_fp8
    linear_fp8: Callable[[Tensor, ref_fp8.Fp8Weight, Tensor | None], Tensor] = ref_fp8.linear_fp8
    pack_linear_w4: Callable[[Tensor], ref_w4.W4Weight] = ref_w4.pack_linear_w4
    linear_w4: Callable[[Tensor, ref_w4.W4Weight, Tensor | None], Tensor] = ref_w4.linear_w4
    make_kv_cache: Callable[..., list[Any]] = kv_cache.make_kv_cache
    kv_bytes_per_token: Callable[..., int] = kv_cache.kv_bytes_per_token
    argmax: Callable[[Tensor], Tensor] = ref.argmax
    write_kv: Callable[[Tensor, Tensor, Any, Tensor], None] = ref.write_kv
    plan_attention: Callable[[Tensor, Sequence[int], Sequence[int], int], Any] = ref.plan_attention
    attention: Callable[[Tensor, Any, Any, float, int], Tensor] = ref.attention
    attend: Callable[[Tensor, Tensor, Tensor, Any, Tensor, Any, float, int], Tensor] = ref.attend
    fused_attend_qkv: Callable[..., Tensor] | None = None

    def attend_qkv(
        self,
        qkv: Tensor,
        norms: HeadNorms | None,
        angles: Any | None,
        cache: Any,
        slots: Tensor,
        plan: Any,
        kv_heads: int,
        scale: float,
        window: int,
    ) -> Tensor:
        """All that lies between two projections: norms of the heads, rotation, KV write, attention -> [T, H, D].

        qkv: [T, H + 2 * kv_heads, D], may be overwritten; norms None: heads are not normalised; angles: from the row of
        that name, None: not rotated.
        """
        if self.fused_attend_qkv is not None:
            return self.fused_attend_qkv(qkv, norms, angles, cache, slots, plan, kv_heads, scale, window)
        heads = qkv.shape[1] - 2 * kv_heads
        qk, v = qkv.split_with_sizes((heads + kv_heads, kv_heads), 1)
        if norms is not None:
            q, k = qk.split_with_sizes((heads, kv_heads), 1)
            q, k = (self.rms_norm(x, weight, norms.eps) for x, weight in ((q, norms.q), (k, norms.k)))
            qk = torch.cat((q, k), 1)
        if angles is not None:
            qk = self.rope(qk, *angles)
        q, k = qk.split_with_sizes((heads, kv_heads), 1)
        return self.attend(q, k, v, cache, slots, plan, scale, window)


def resolve(backend: str = "auto") -> Ops:
    """The table of a backend: ``"ref"``, ``"torch"`` (faster, nothing to compile), ``"cpp"``, ``"triton"``, ``"auto"``.

    ``"auto"`` is ``"cpp"`` where the C++ kernels compile, else ``"torch"``. Raises ValueError for any other name, and
    RuntimeError for ``"cpp"`` where there is no compiler and ``"triton"`` where it is not installed.
    """
    if backend == "ref":
        return Ops("ref")
    if backend == "torch" or (backend == "auto" and library() is None):
        return Ops("torch", **_torch_rows())
    if backend in ("cpp", "auto"):
        return Ops("cpp", **(_torch_rows() | _compiled_rows()))
    if backend == "triton":
        return Ops("triton", **_triton_rows())
    raise ValueError(f"unknown kernel backend {backend!r}; known: 'ref', 'torch', 'cpp', 'triton', 'auto'")


def _torch_rows() -> dict[str, Callable]:
    from minillm_kernels.cpu import attention_torch, int8_torch, linear_torch

    return {
        "pack_linear": linear_torch.pack_linear,
        "linear": linear_torch.linear,
        "linear_int8": int8_torch.linear_int8,
        "plan_attention": attention_torch.plan_attention,
        "attention": attention_torch.attention,
        "attend": attention_torch.attend,
    }


def _triton_rows() -> dict[str, Callable]:
    try:
        from minillm_kernels import triton

        return triton.rows()
    except ImportError as error:
        raise RuntimeError(f"the Triton kernels are not available: {error}; pip install triton") from error


def _compiled_rows() -> dict[str, Callable]:
    if library() is None:
        raise RuntimeError("the C++ kernels are not available: no compiler (g++ or clang++), or MINILLM_COMPILE=0")
    from minillm_kernels.cpu import attention_cpp, int8_cpp, linear_cpp, pointwise_cpp

    rows = {
        pointwise_cpp: ("rms_norm", "add_rms_norm", "rope", "silu_mul", "gelu_tanh_mul", "argmax"),
        attention_cpp: ("make_kv_cache", "kv_bytes_per_token", "write_kv", "plan_attention", "attention", "attend"),
        linear_cpp: ("pack_linear", "linear"),
        int8_cpp: ("pack_linear_int8", "linear_int8"),
    }
    return {name: getattr(module, name) for module, names in rows.items() for name in names}
