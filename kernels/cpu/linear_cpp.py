"""Linear layers in C++: fp32 weights in panels, and a row's result that never depends on the other rows.

Where torch's matrix product picks another algorithm, hence another rounding, for each number of rows, here every output
is the same chain of multiply-adds whatever the batch (see ``linear.cpp``).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from minillm_kernels.cpu.build import bind
from minillm_kernels.cpu.memory import weight_memory


@dataclass(frozen=True)
class PanelWeight:
    """A fp32 weight in panels (layout in ``linear.cpp``), filled up with zeros; halves: kept in 16 bits a value."""

    data: Tensor
    out_features: int
    in_features: int
    halves: bool


def pack_linear(weight: Tensor) -> PanelWeight | Tensor:
    """weight: [out, in]. fp32 weights are copied into panels; other dtypes stay as they are, for torch.

    Values whose last 16 bits are all zero, as those of a bf16 checkpoint, are kept in half the memory without loss.
    """
    if weight.dtype != torch.float32:
        return weight
    weight = weight.contiguous()
    rows, depth = weight.shape
    halves = not (weight.view(torch.int32) & 0xFFFF).any().item()
    shape = (-(-rows // panel_width()), -(-depth // 2), 1 if halves else 2, panel_width())
    panels = weight_memory(*shape, dtype=torch.float32)
    _packer()(weight.data_ptr(), panels.data_ptr(), rows, depth, halves, torch.get_num_threads())
    return PanelWeight(panels, rows, depth, halves)


def linear(x: Tensor, weight: PanelWeight | Tensor, bias: Tensor | None) -> Tensor:
    """x: [T, in] fp32 -> [T, out]. Raises ValueError on another shape or dtype than the weight's."""
    if isinstance(weight, Tensor):
        return functional.linear(x, weight, bias)
    x = check_input(x, weight.in_features)
    out = torch.empty(x.shape[0], weight.out_features)
    _kernel()(
        x.data_ptr(),
        weight.data.data_ptr(),
        check_bias(bias, weight.out_features),
        out.data_ptr(),
        *x.shape,
        weight.out_features,
        weight.halves,
        torch.get_num_threads(),
    )
    return out


def check_input(x: Tensor, depth: int) -> Tensor:
    """x as the kernels read it, contiguous; what they cannot read is refused (a C++ loop would read other memory)."""
    if x.dtype != torch.float32 or x.dim() != 2 or x.shape[1] != depth:
        raise ValueError(f"this layer takes float32 [tokens, {depth}], got {x.dtype} {list(x.shape)}")
    return x.contiguous()


def check_bias(bias: Tensor | None, out_features: int) -> int | None:
    """Address of a bias, or None. Raises ValueError on what the kernels cannot read."""
    if bias is None:
        return None
    if bias.dtype != torch.float32 or bias.shape != (out_features,) or not bias.is_contiguous():
        raise ValueError(f"the bias must be contiguous float32 [{out_features}], got {bias.dtype} {list(bias.shape)}")
    return bias.data_ptr()


@functools.cache
def panel_width() -> int:
    """Output columns of a panel: a few vector registers of this machine."""
    return bind("panel_width", [])()


@functools.cache
def _kernel() -> Callable[..., None]:
    return bind("linear_f32", [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 3 + [ctypes.c_int] * 2)


@functools.cache
def _packer() -> Callable[..., None]:
    return bind("pack_f32", [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 2 + [ctypes.c_int] * 2)
