"""Norms, rotary embedding and gated activations in C++ (pointwise.cpp), fp32; other dtypes go to the reference."""

from __future__ import annotations

import ctypes
from math import prod

import torch
from torch import Tensor

from minillm_kernels import ref
from minillm_kernels.cpu.build import bind

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_rms_norm = bind("rms_norm", [_POINTER, _INT, _INT, _POINTER, _FLOAT, _INT, _INT, _POINTER, _INT])
_add_rms_norm = bind("add_rms_norm", [_POINTER, _POINTER, _POINTER, _FLOAT, _INT, _INT, _POINTER, _INT])
_rope = bind("rope", [_POINTER, _INT, _POINTER, _POINTER, _INT, _INT, _INT, _INT])
_silu_mul = bind("silu_mul", [_POINTER, _INT, _INT, _POINTER, _INT])
_gelu_tanh_mul = bind("gelu_tanh_mul", [_POINTER, _INT, _INT, _POINTER, _INT])
_argmax = bind("argmax", [_POINTER, _INT, _INT, _POINTER, _INT])


def argmax(x: Tensor) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.argmax`."""
    rows, size = x.shape
    if x.dtype != torch.float32 or size == 0:
        return ref.argmax(x)
    x, out = x.contiguous(), torch.empty(rows, dtype=torch.int64)
    _argmax(x.data_ptr(), rows, size, out.data_ptr(), torch.get_num_threads())
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.rms_norm`; x: [T, N], or [T, heads, N] out of wider rows."""
    if x.dtype != torch.float32:
        return ref.rms_norm(x, weight, eps)
    if x.dim() != 3 or x.stride(2) != 1 or x.stride(1) != x.shape[2]:
        x = x.contiguous()
    size = _check(weight, x.shape[-1])
    inner, stride = (x.shape[1], x.stride(0)) if x.dim() == 3 else (1, size)
    out = torch.empty(*x.shape)
    rows = x.numel() // size
    _rms_norm(
        x.data_ptr(),
        stride,
        inner,
        weight.data_ptr(),
        eps,
        rows,
        size,
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`minillm_kernels.ref.add_rms_norm`; the sum takes the place of ``residual``."""
    if x.dtype != torch.float32 or residual.dtype != torch.float32 or x.shape != residual.shape:
        return ref.add_rms_norm(x, residual, weight, eps)
    x, residual = x.contiguous(), residual.contiguous()
    size = _check(weight, x.shape[-1])
    out = torch.empty_like(x)
    _add_rms_norm(
        x.data_ptr(),
        residual.data_ptr(),
        weight.data_ptr(),
        eps,
        x.numel() // size,
        size,
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out, residual


def rope(qk: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.rope`, in place: qk may be cut out of wider rows, and stays there.

    Queries, keys and values of a token then still lie side by side, and attention reads them without a copy.
    """
    tokens, heads, dim = qk.shape
    if qk.dtype != torch.float32 or cos.dtype != torch.float32 or sin.dtype != torch.float32:
        return ref.rope(qk, cos, sin)
    if cos.shape != (tokens, dim // 2) or sin.shape != cos.shape or dim % 2:
        raise ValueError(f"rope of {list(qk.shape)} takes angles of {[tokens, dim // 2]}, got {list(cos.shape)}")
    if qk.stride(2) != 1 or qk.stride(1) != dim:
        qk = qk.contiguous()
    cos, sin = cos.contiguous(), sin.contiguous()
    _rope(
        qk.data_ptr(),
        qk.stride(0),
        cos.data_ptr(),
        sin.data_ptr(),
        tokens,
        heads,
        dim // 2,
        torch.get_num_threads(),
    )
    return qk


def silu_mul(gate_up: Tensor) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.silu_mul`."""
    return _gated(_silu_mul, gate_up) if gate_up.dtype == torch.float32 else ref.silu_mul(gate_up)


def gelu_tanh_mul(gate_up: Tensor) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.gelu_tanh_mul`."""
    return _gated(_gelu_tanh_mul, gate_up) if gate_up.dtype == torch.float32 else ref.gelu_tanh_mul(gate_up)


def _gated(kernel: ctypes._CFuncPtr, gate_up: Tensor) -> Tensor:
    gate_up = gate_up.contiguous()
    *rows, both = gate_up.shape
    if both % 2:
        raise ValueError(f"a gated activation takes two halves of one size, got {list(gate_up.shape)}")
    out = torch.empty(*rows, both // 2)
    kernel(gate_up.data_ptr(), prod(rows), both // 2, out.data_ptr(), torch.get_num_threads())
    return out


def _check(weight: Tensor, size: int) -> int:
    """``size``. Raises ValueError where the norm's weight would be read beyond its end or wrongly."""
    if weight.dtype != torch.float32 or weight.shape != (size,) or not weight.is_contiguous():
        raise ValueError(f"the norm of [.., {size}] takes a float32 weight of [{size}], got {list(weight.shape)}")
    return size
