"""``python -m minillm_kernels.puzzles``: the puzzles in order with their specs, each solution judged."""

from __future__ import annotations

import importlib
import sys

from minillm_kernels.puzzles import ORDER
from minillm_kernels.puzzles.fence import device


def main() -> int:
    """Returns 1 if a solution is not right."""
    where = "on the GPU" if device().type == "cuda" else "in the interpreter, on the CPU"
    print(f"{len(ORDER)} puzzles, solutions judged {where}\n")
    wrong = 0
    for name in ORDER:
        puzzle = importlib.import_module(f"minillm_kernels.puzzles.{name}").puzzle
        verdict = puzzle.check(*puzzle.solution)
        wrong += not verdict
        print(f"{puzzle.title}\n    {name}\n    {puzzle.spec_line}\n    solution: {verdict}\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
