"""What the tests of int8 and FP8 layers share: inputs, errors, outputs nobody has written yet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

SHAPES = [(1, 50, 72), (1, 33, 1100), (3, 50, 72), (20, 130, 300), (1, 1, 1), (130, 17, 129)]  # (T, out, in)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


def operands(tokens: int, outputs: int, depth: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """x, weight, bias; some channels of x are far larger than the rest, as in real models."""
    generator = torch.Generator().manual_seed(7 * tokens + depth)
    x, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in ((tokens, depth), (outputs, depth), (outputs,))
    )
    x[:, ::37] *= 50
    return tuple(t.to(device, dtype) for t in (x, weight, bias))


def bound(dtype: torch.dtype, device: torch.device) -> float:
    """Of :func:`error`. The interpreter cuts off what bf16 cannot hold, where a GPU rounds."""
    return {torch.float32: 1e-6, torch.bfloat16: 3e-3 if device.type == "cuda" else 6e-3}[dtype]


def error(got: Tensor, expected: Tensor) -> float:
    """Of the whole matrix: ||got - expected|| / ||expected||, NaN if any element is."""
    return float((got.double() - expected).norm() / expected.norm())


def poison_new_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel does not write is NaN (or an absurd code), not luck."""
    empty = torch.empty

    def poisoned(*args, **kwargs) -> Tensor:
        out = empty(*args, **kwargs)
        return out.fill_(float("nan")) if out.is_floating_point() else out.fill_(99)

    monkeypatch.setattr(torch, "empty", poisoned)


def replayed(layer, x: Tensor, other: Tensor) -> Tensor:
    """``layer(other)`` by way of a CUDA graph that was captured with x."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        layer(x)  # compiles
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = layer(x)
    x.copy_(other)
    graph.replay()
    return out
