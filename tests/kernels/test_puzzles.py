"""The puzzles: solutions are right, what they prepare for exists, the command runs, and README.md indexes the pages."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

import minillm_kernels
from minillm_kernels.puzzles import ORDER

KERNELS = Path(minillm_kernels.__file__).parent
PUZZLES = {name: importlib.import_module(f"minillm_kernels.puzzles.{name}").puzzle for name in ORDER}


def pages(puzzle) -> list[str]:
    """The pages of kernels/ that a puzzle prepares for."""
    return [page.strip() for page in puzzle.doc.split("Prepares for:")[1].split(",")]


@pytest.fixture(params=ORDER)
def puzzle(request):
    return PUZZLES[request.param]


@pytest.mark.parametrize("seed", [0, 1])
def test_solutions_are_right(puzzle, seed):
    verdict = puzzle.check(*puzzle.solution, seed=seed)
    assert verdict, f"seed {seed}: {verdict}"
    assert verdict.text == f"right: {len(list(puzzle.cases(torch.randn)))} shapes"


def test_a_well_known_mistake_is_wrong_on_some_shape(puzzle):
    """Else the judge would let it pass."""
    for text, mistake in puzzle.mistakes.items():
        cases = list(puzzle.cases(torch.randn))
        pairs = [(puzzle.spec(**case), mistake(**case)) for case in cases]
        assert any(a.shape == b.shape and not torch.allclose(a, b, rtol=0.02) for a, b in pairs), text


def test_every_puzzle_says_what_it_asks_and_what_for(puzzle):
    assert puzzle.title.startswith("Puzzle ")
    assert puzzle.spec_line.startswith("Spec: out")
    assert all((KERNELS / page).exists() for page in pages(puzzle))


def test_the_readme_indexes_every_page_and_the_puzzles_that_prepare_for_it():
    prepared_by: dict[str, list[str]] = {f"triton/{page.name}": [] for page in KERNELS.glob("triton/[a-z]*.py")}
    for number, puzzle in enumerate(PUZZLES.values(), 1):
        for page in pages(puzzle):
            prepared_by[page].append(str(number))
    rows = re.findall(r"\((triton/\w+\.py)\) \|.*\| ([0-9, ]*)\|$", (KERNELS / "README.md").read_text("utf-8"), re.M)
    assert {page: numbers.strip() for page, numbers in rows} == {
        page: ", ".join(numbers) for page, numbers in prepared_by.items()
    }


def fresh_python(*arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120)


def test_the_command_lists_all_puzzles_and_finds_the_interpreter_by_itself():
    done = fresh_python("-m", "minillm_kernels.puzzles")
    assert done.returncode == 0, done.stderr
    assert torch.cuda.is_available() or done.stderr == "", "the compiler may warn, the interpreter must not"
    assert done.stdout.count("solution: right:") == len(ORDER)
    places = [
        done.stdout.index(part) for name, puzzle in PUZZLES.items() for part in (puzzle.title, name, puzzle.spec_line)
    ]
    assert len(set(places)) == len(places) - 2, "two specs are told twice"


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU, triton may be imported whenever one likes")
def test_triton_imported_too_early_is_said():
    done = fresh_python("-c", "import triton.language; import minillm_kernels.puzzles")
    assert "restart the kernel" in done.stderr.splitlines()[-1]
