"""Programmatic dependent launch: a kernel is set up, and reads what nobody changes, while the one before it ends.

A graph of 300 small kernels pays about a microsecond between any two of them: the last programs of one drain, then the
next is launched and fills the machine. On Hopper and later a kernel may say at its beginning that the next can be
brought up (``start_next``), and the next waits where it first needs an earlier result (``wait_for_inputs``).

Three rules keep it right: every program of a kernel waits, before it returns and before it writes; what it reads
earlier are weights, or numbers that were there before the step's first kernel; and a kernel that is launched with
``LAUNCH`` contains the wait. Then the end of a kernel means that all those before it have ended.

Elsewhere (older GPUs, the interpreter) both are nothing and ``LAUNCH`` is empty.
Source: CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization".
Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

HOPPER = (9, 0)


def _possible() -> bool:
    interpreted = triton.knobs.runtime.interpret
    return not interpreted and torch.cuda.is_available() and torch.cuda.get_device_capability() >= HOPPER


OVERLAP = tl.constexpr(_possible())
LAUNCH = {"launch_pdl": True} if OVERLAP.value else {}


@triton.jit
def start_next():
    """Let the next kernel be brought up as soon as all programs of this one have come here."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait_for_inputs():
    """Wait for the end of every kernel before this one."""
    if OVERLAP:
        tl.extra.cuda.gdc_wait()
