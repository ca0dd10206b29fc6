"""Kernel puzzles, from vector add to paged attention: a task, a spec in torch, a judge and a solution each.

    from minillm_kernels.puzzles import p01_vector_add as p
    p.check(my_kernel)

``python -m minillm_kernels.puzzles`` lists them and judges all solutions. Where there is no GPU, importing this package
sets TRITON_INTERPRET=1: kernels then run on the CPU, in Triton's interpreter. See kernels/README.md.
"""

from __future__ import annotations

import os

import torch

ORDER = (
    "p01_vector_add",
    "p02_row_sum",
    "p03_softmax",
    "p04_rms_norm",
    "p05_matmul",
    "p06_online_softmax",
    "p07_gather",
    "p08_one_query",
    "p09_split_k",
    "p10_paged_decode",
)

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read while triton is imported

try:
    import triton
except ImportError as error:
    raise ImportError(f"the puzzles need triton, which runs on Linux: pip install triton ({error})") from error

if not torch.cuda.is_available() and isinstance(triton.language.sum, triton.JITFunction):
    raise ImportError(
        "there is no GPU, and triton was imported before its interpreter was asked for: start Python anew (in a "
        "notebook: restart the kernel) and import minillm_kernels.puzzles before triton, or set TRITON_INTERPRET=1"
    )
