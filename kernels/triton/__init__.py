"""The Triton rows of the table of operations: one page per op, for NVIDIA GPUs, and for any CPU in the interpreter.

With ``TRITON_INTERPRET=1`` set before triton is imported, every kernel runs on the CPU, slowly and to the letter.
"""

from __future__ import annotations

from collections.abc import Callable


def rows() -> dict[str, Callable]:
    """The rows that have a Triton kernel; the others are the reference's."""
    return {}
