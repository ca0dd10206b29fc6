"""Verdicts on a kernel: what is wrong, where first, and what it looks like."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minillm_kernels.puzzles.fence import Fenced


@dataclass(frozen=True)
class Verdict:
    """passed: whether all shapes were right. text: one to three lines for a reader.

    reason: "right", "raised", "stray store", "input changed", "never written", "NaN" or "wrong"; case: the shapes of
    the run that went wrong; index, expected, got: the first wrong element, where there is one; like: the well-known
    mistake that gives the same result.
    """

    passed: bool
    text: str
    reason: str
    case: str = ""
    index: tuple[int, ...] | None = None
    expected: float | None = None
    got: float | None = None
    like: str | None = None

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__  # what a notebook shows


def describe(case: dict[str, Any]) -> str:
    """Shapes of the tensors, and values of short lists of integers and of plain numbers."""

    def show(value: Any) -> str:
        if not isinstance(value, Tensor):
            return f"= {value}"
        return f"= {value.tolist()}" if value.dtype == torch.int32 and value.dim() == 1 else str(list(value.shape))

    return ", ".join(f"{name} {show(value)}" for name, value in case.items())


def right(shapes: int) -> Verdict:
    return Verdict(True, f"right: {shapes} shapes", "right")


def raised(case: str, error: Exception, kernels: Sequence[Any]) -> Verdict:
    """What the interpreter or the compiler stumbled over, and the kernel's line where it is known."""
    for kernel in kernels:
        if not hasattr(kernel, "run"):
            text = f"not a Triton kernel: {getattr(kernel, '__name__', kernel)!r} lacks @triton.jit"
            return Verdict(False, text, "raised", case)
    line = _compiled_line(error)
    while error.__cause__ is not None:
        error = error.__cause__
    line = line or _interpreted_line(error, {kernel.__name__ for kernel in kernels})
    message = " ".join((getattr(error, "error_message", None) or str(error)).split())
    text = f"{type(error).__name__} at {case}: {message[:300]}" + (f"\nin {line}" if line else "")
    return Verdict(False, text, "raised", case)


def _compiled_line(error: Exception) -> str:
    """The line that a CompilationError points to, counted from the kernel's ``def``."""
    number, source = getattr(getattr(error, "node", None), "lineno", None), getattr(error, "src", None)
    return f"line {number}: {source.splitlines()[number - 1].strip()}" if number and source else ""


def _interpreted_line(error: Exception, names: set[str]) -> str:
    """The last line of a kernel that the error passed through; the interpreter runs kernels as Python."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name in names]
    return f"{frames[-1].name}, line {frames[-1].lineno}: {frames[-1].line}" if frames else ""


def strayed(case: str, memories: Iterable[Fenced]) -> Verdict | None:
    for memory in memories:
        place = memory.strayed_store()
        if place is not None:
            side = "before the start" if place < 0 else "outside the elements"
            text = (
                f"stray store at {case}: wrote {side} of {memory.name} {list(memory.tensor.shape)}, "
                f"first at {memory.name}_ptr {'-' if place < 0 else '+'} {abs(place)}\n"
                "does every tl.store have a mask for what lies beyond the end?"
            )
            return Verdict(False, text, "stray store", case, (place,))
    return None


def spoilt(case: str, inputs: Iterable[Fenced]) -> Verdict | None:
    for memory in inputs:
        if not memory.unchanged().all():
            return Verdict(
                False, f"input changed at {case}: the kernel wrote into {memory.name}", "input changed", case
            )
    return None


def compare(
    case: str, out: Fenced, expected: Tensor, tolerance: float, mistakes: Iterable[tuple[str, Tensor]]
) -> Verdict | None:
    """The first element, row by row, that is not as expected; None: all are."""
    got = out.tensor.double()
    bad = _differ(got, expected, tolerance)
    if not bad.any():
        return None
    index = tuple(bad.nonzero()[0].tolist())
    unwritten = out.unchanged()
    if unwritten[index]:
        reason, same, value = "never written", unwritten, "still holds the NaN it began with"
    elif got[index].isnan():
        reason, same, value = "NaN", got.isnan() & ~unwritten, "was computed as NaN"
    else:
        reason, same, value = "wrong", bad & ~got.isnan(), f"is {got[index].item():.6g}"
    text = (
        f"{reason} at {case}: out{list(index)} {value}, expected {expected[index].item():.6g}\n"
        f"{int(same.sum())} of {got.numel()} elements are {reason}"
    )
    like = (
        next((name for name, answer in mistakes if _same(got, answer, tolerance)), None) if reason == "wrong" else None
    )
    if like is not None:
        text += f"\nthis is what comes out if {like}"
    if reason == "NaN":
        text += "\nNaN comes from a load beyond a tensor's end (there lies NaN: mask it), from inf / inf or inf - inf"
    return Verdict(False, text, reason, case, index, expected[index].item(), got[index].item(), like)


def _differ(got: Tensor, expected: Tensor, tolerance: float) -> Tensor:
    """Which elements are too far off; NaN is."""
    allowed = tolerance * (expected.abs() + expected.abs().mean())
    return ~((got - expected).abs() <= allowed)


def _same(got: Tensor, answer: Tensor, tolerance: float) -> bool:
    answer = answer.to(got.device)
    return got.shape == answer.shape and not _differ(got, answer, tolerance).any()
