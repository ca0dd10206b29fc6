"""A wrong kernel is told what is wrong, on which shape, where first, and what it looks like."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

import wrong_puzzle_kernels as wrong
from triton.compiler.errors import CompilationError

from minillm_kernels.puzzles import diagnosis
from minillm_kernels.puzzles import p01_vector_add as p01
from minillm_kernels.puzzles import p02_row_sum as p02
from minillm_kernels.puzzles import p03_softmax as p03
from minillm_kernels.puzzles import p08_one_query as p08
from minillm_kernels.puzzles import p09_split_k as p09
from minillm_kernels.puzzles.fence import Fenced


@pytest.mark.parametrize(
    ("kernel", "reason", "index", "text"),
    [
        (wrong.add_unmasked, "stray store", (1,), "outside the elements of out [1], first at out_ptr + 1"),
        (wrong.add_one_too_many, "stray store", (1,), "at x [1], y [1]: wrote outside the elements of out"),
        (wrong.add_one_too_few, "never written", (31,), "at x [32], y [32]: out[31] still holds the NaN it began with"),
        (wrong.add_full_tiles_only, "never written", (0,), "1 of 1 elements are never written"),
        (wrong.add_shifted, "wrong", (0,), "32 of 32 elements are wrong"),
        (wrong.add_in_place, "input changed", None, "wrote into x"),
        (wrong.add_before_the_start, "stray store", (-2,), "before the start of out [32], first at out_ptr - 2"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_sums_are_told_apart(kernel, reason, index, text):
    verdict = p01.check(kernel)
    assert not verdict.passed
    assert (verdict.reason, verdict.index) == (reason, index)
    assert text in verdict.text
    assert len(verdict.text.splitlines()) <= 3


def test_the_readme_shows_a_verdict_as_it_is():
    assert f"```\n{p01.check(wrong.add_unmasked)}\n```" in (
        Path(diagnosis.__file__).parents[1] / "README.md"
    ).read_text("utf-8")


def test_a_wrong_element_comes_with_what_was_expected_and_what_was_got():
    verdict = p01.check(wrong.add_shifted)
    generator = torch.Generator().manual_seed(0)
    x, y = next(p01.cases(lambda *shape: torch.randn(shape, generator=generator))).values()
    assert verdict.expected == pytest.approx(float(x[0] + y[0]))
    assert verdict.got == pytest.approx(float(x[1] + y[0]))
    assert f"is {verdict.got:.6g}, expected {verdict.expected:.6g}" in str(verdict) == repr(verdict)


def test_the_wrong_axis_is_recognised_and_a_missing_column_mask_gives_nan():
    verdict = p02.check(wrong.sum_of_columns)
    assert (verdict.reason, verdict.case) == ("wrong", "x [16, 16]")
    assert verdict.like == "the columns are summed (the other axis of the tile)"
    assert verdict.text.endswith("this is what comes out if the columns are summed (the other axis of the tile)")
    verdict = p02.check(wrong.sum_past_the_row)
    assert (verdict.reason, verdict.case, verdict.index) == ("NaN", "x [1, 1]", (0,))
    assert "out[0] was computed as NaN, expected" in verdict.text
    assert "NaN comes from a load beyond a tensor's end" in verdict.text


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_softmax_with_the_wrong_padding_or_no_maximum():
    verdict = p03.check(wrong.softmax_of_zeros)
    assert (verdict.reason, verdict.case, verdict.index) == ("wrong", "x [5, 20]", (0, 0))
    assert verdict.like == "the lanes beyond the end count as x = 0"
    verdict = p03.check(wrong.softmax_that_overflows)
    assert (verdict.reason, verdict.case) == ("NaN", "x [3, 33]"), "and no warning of numpy's"
    assert "inf / inf" in verdict.text


def test_two_kernels_and_the_buffers_between_them_are_judged():
    split, merge = p09.puzzle.solution
    verdict = p09.check(split, wrong.merge_by_mean)
    assert (verdict.reason, verdict.like) == ("wrong", "all parts weigh the same")
    assert p09.check(wrong.split_nothing, merge).text.splitlines()[0].endswith("[2, 4, 16], first at partial_ptr - 1")
    with pytest.raises(TypeError, match=r"2 kernel\(s\) \(split, merge\), got 1"):
        p09.check(split)


def test_a_kernel_that_does_not_run_gets_a_verdict_too():
    verdict = p01.check(wrong.add_tiles_of_two_sizes)
    assert (verdict.reason, verdict.case) == ("raised", "x [32], y [32]")
    assert "line " in verdict.text.splitlines()[1]
    assert verdict.text.endswith("tl.load(y_ptr + tl.arange(0, 2 * BLOCK)))")
    assert len(verdict.text.splitlines()) <= 3
    assert p01.check(wrong.add_without_size).reason == "raised"
    assert p01.check(lambda: None).text == "not a Triton kernel: '<lambda>' lacks @triton.jit"


def test_an_error_of_the_compiler_is_told_with_its_line():
    source = "def add(x_ptr):\n    tl.store(x_ptr, nix)\n"
    error = CompilationError(source, ast.parse(source).body[0].body[0], "NameError('nix is not defined')")
    text = diagnosis.raised("x [32]", error, p01.puzzle.solution).text
    assert text == "CompilationError at x [32]: NameError('nix is not defined')\nin line 2: tl.store(x_ptr, nix)"


def test_attention_that_is_off_by_one_is_recognised():
    verdict = p08.check(wrong.query_without_the_last_key)
    assert (verdict.reason, verdict.like) == ("wrong", "the last key is left out")


def test_a_fence_keeps_strides_and_sees_stores_into_gaps():
    memory = Fenced("x", torch.randn(3, 8)[:, :5])
    assert memory.tensor.stride() == (8, 1)
    assert memory.strayed_store() is None
    memory.tensor.as_strided((1,), (1,), memory.tensor.storage_offset() + 5).fill_(0)
    assert memory.strayed_store() == 5
    assert memory.unchanged().all()
    memory.tensor[2, 4] = 0
    assert memory.unchanged().sum() == 14
