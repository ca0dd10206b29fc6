"""Where there is a compiler, the compiled machine is what serves: a failed build must not pass unnoticed."""

from __future__ import annotations

import pytest
from guided_tools import byte_level

from minillm_kernels.compiler import find_compiler
from minillm_serve.guided import compile_json_schema
from minillm_serve.guided.automaton.native import NativeMachine, available


@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler here")
def test_the_compiled_machine_serves_where_it_can_be_built():
    assert available()
    assert isinstance(compile_json_schema({"type": "integer"}, byte_level()).machine, NativeMachine)
