"""The backends that this machine has."""

from __future__ import annotations

import pytest

from minillm_kernels import resolve
from minillm_kernels.cpu.build import library

REF = resolve("ref")
FAST = [resolve("torch"), *([resolve("cpp")] if library() is not None else [])]
compiled_only = pytest.mark.skipif(library() is None, reason="no C++ compiler here")
