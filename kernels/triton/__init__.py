"""The Triton rows of the table of operations: one page per op, for NVIDIA GPUs, and for any CPU in the interpreter.

With ``TRITON_INTERPRET=1`` set before triton is imported, every kernel runs on the CPU, slowly and to the letter.
"""

from __future__ import annotations

from collections.abc import Callable


def rows() -> dict[str, Callable]:
    """The rows that have a Triton kernel; the others are the reference's. Raises ImportError without triton."""
    from minillm_kernels.triton import activation, attention, cache, linear, linear_fp8, linear_int8, linear_w4, norms

    modules = {
        norms: ("rms_norm", "add_rms_norm"),
        activation: ("silu_mul", "gelu_tanh_mul"),
        linear: ("pack_linear", "linear"),
        linear_int8: ("linear_int8",),
        linear_fp8: ("linear_fp8",),
        linear_w4: ("linear_w4",),
        cache: ("make_kv_cache", "kv_bytes_per_token"),
        attention: ("angles", "write_kv", "plan_attention", "attention", "attend", "fused_attend_qkv"),
    }
    return {name: getattr(module, name) for module, names in modules.items() for name in names}
