"""The machine in C++, bound with ctypes: ``available()`` says whether it can be had here."""

from __future__ import annotations

from minillm_serve.guided.automaton.native.binding import available
from minillm_serve.guided.automaton.native.machine import NativeMachine, prepare

__all__ = ["NativeMachine", "available", "prepare"]
