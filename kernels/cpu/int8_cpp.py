"""8-bit linear layers in C++ (``linear_int8.cpp``): the reference's integers, one call that also rounds x."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minillm_kernels.cpu.build import bind
from minillm_kernels.cpu.linear_cpp import check_bias, check_input, panel_width
from minillm_kernels.cpu.memory import weight_memory
from minillm_kernels.ref import INT8_GROUP

QUAD = 4  # bytes of one lane's product


@dataclass(frozen=True)
class Int8Panels:
    """codes: [ceil(out / width), ceil(in / 4), width, 4] uint8, code + 128; scales: [out] fp32, of the columns."""

    codes: Tensor
    scales: Tensor
    in_features: int


def pack_linear_int8(weight: Tensor) -> Int8Panels:
    """weight: [out, in] -> 1 byte a weight and one scale per output."""
    weight = weight.float().contiguous()
    rows, depth = weight.shape
    width = panel_width()
    codes = weight_memory(-(-rows // width), -(-depth // QUAD), width, QUAD, dtype=torch.uint8)
    scales = torch.empty(rows)
    _packer()(weight.data_ptr(), codes.data_ptr(), scales.data_ptr(), rows, depth, torch.get_num_threads())
    return Int8Panels(codes, scales, depth)


def linear_int8(x: Tensor, weight: Int8Panels, bias: Tensor | None) -> Tensor:
    """x: [T, in] -> [T, out] in x's dtype. Raises ValueError on another depth than the weight's."""
    dtype = x.dtype
    x = check_input(x if dtype == torch.float32 else x.float(), weight.in_features)
    bias = bias if bias is None or bias.dtype == torch.float32 else bias.float()
    out_features = weight.scales.shape[0]
    out = torch.empty(x.shape[0], out_features)
    _kernel()(
        x.data_ptr(),
        weight.codes.data_ptr(),
        weight.scales.data_ptr(),
        check_bias(bias, out_features),
        out.data_ptr(),
        *x.shape,
        out_features,
        INT8_GROUP,
        torch.get_num_threads(),
    )
    return out if dtype == torch.float32 else out.to(dtype)


@functools.cache
def _kernel() -> Callable[..., None]:
    return bind("linear_int8", [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 4 + [ctypes.c_int])


@functools.cache
def _packer() -> Callable[..., None]:
    return bind("pack_int8", [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 2 + [ctypes.c_int])
