"""Tensors on their way to a student's function: written as plain values, made into torch tensors on arrival.

The worker of the grader runs a copy of this file beside its own: it imports nothing of ours, and torch only where an
argument asks for it.
"""

from __future__ import annotations

from typing import Any

MARK = "$tensor"


def Tensor(values: Any, dtype: str = "float32") -> dict[str, Any]:
    """A case's argument that reaches the student as ``torch.tensor(values, dtype=torch.<dtype>)``.

    values: nested lists of numbers; the strings "inf", "-inf" and "nan" stand for what JSON cannot write. An empty
    tensor needs its shape: ``{"forma": [0, 3]}``.
    """
    return {MARK: dtype, "valores": values}


def with_tensors(value: Any) -> Any:
    """A copy of plain values with each marked dict made into a torch tensor."""
    if isinstance(value, dict):
        if MARK in value:
            return _tensor(value[MARK], value["valores"])
        return {key: with_tensors(inner) for key, inner in value.items()}
    return [with_tensors(inner) for inner in value] if isinstance(value, list) else value


def _tensor(dtype: str, values: Any) -> Any:
    import torch

    if isinstance(values, dict):
        return torch.empty(values["forma"], dtype=getattr(torch, dtype))
    return torch.tensor(_numbers(values), dtype=getattr(torch, dtype))


def _numbers(values: Any) -> Any:
    if isinstance(values, list):
        return [_numbers(inner) for inner in values]
    return float(values) if isinstance(values, str) else values
