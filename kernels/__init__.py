"""Every operation of the model as plain torch (the spec) and as faster versions for one kind of machine.

Usable alone, without the engine: ``from minillm_kernels import resolve; ops = resolve("auto")``.
"""

from __future__ import annotations

from typing import Any

__all__ = ["HeadNorms", "Ops", "resolve"]


def __getattr__(name: str) -> Any:
    """The table of operations, imported when asked for: ``compiler`` beside it does without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from minillm_kernels import ops

    return getattr(ops, name)
