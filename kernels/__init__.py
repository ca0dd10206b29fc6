"""Every operation of the model as plain torch (the spec) and as faster versions for one kind of machine.

Usable alone, without the engine: ``from minillm_kernels import resolve; ops = resolve("auto")``.
"""

from minillm_kernels.ops import Ops, resolve

__all__ = ["Ops", "resolve"]
