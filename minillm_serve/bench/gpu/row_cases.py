"""Ops that go over rows as they are measured: norms, activations, and what turns logits into tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from minillm_serve.bench.gpu.op_case import Call, Model, OpCase

EPS = 1e-5
TEMPERATURE, TOP_K, TOP_P = 0.6, 50, 0.9


def norms(model: Model) -> Iterator[OpCase]:
    size = model.hidden
    for tokens in model.sizes.rows:

        def rms(tokens: int = tokens) -> Call:
            from minillm_kernels.triton.norms import rms_norm

            x, weight = model.random(tokens, size), model.random(size)
            return lambda copy: rms_norm(x, weight, EPS)

        def rms_baseline(tokens: int = tokens) -> Call:
            x, weight = model.random(tokens, size), model.random(size)
            return lambda copy: functional.rms_norm(x, (size,), weight, EPS)

        def add(tokens: int = tokens) -> Call:
            from minillm_kernels.triton.norms import add_rms_norm

            x, residual, weight = model.random(tokens, size), model.random(tokens, size), model.random(size)
            return lambda copy: add_rms_norm(x, residual, weight, EPS)

        def add_baseline(tokens: int = tokens) -> Call:
            x, residual, weight = model.random(tokens, size), model.random(tokens, size), model.random(size)
            return lambda copy: functional.rms_norm(residual.add_(x), (size,), weight, EPS)

        shape, one = f"{model.name} T={tokens}", model.nbytes(tokens, size)
        yield OpCase("rms_norm", shape, 2 * one, 0, rms, rms_baseline, "torch's rms_norm")
        yield OpCase("add_rms_norm", shape, 4 * one, 0, add, add_baseline, "torch, 2 calls")


def activations(model: Model) -> Iterator[OpCase]:
    for tokens in model.sizes.rows:

        def ours(tokens: int = tokens) -> Call:
            from minillm_kernels.triton.activation import silu_mul

            gate_up = model.random(tokens, 2 * model.inner)
            return lambda copy: silu_mul(gate_up)

        def baseline(tokens: int = tokens) -> Call:
            gate, up = model.random(tokens, 2 * model.inner).chunk(2, -1)
            return lambda copy: functional.silu(gate) * up

        moved = 3 * model.nbytes(tokens, model.inner)
        yield OpCase("silu_mul", f"{model.name} T={tokens}", moved, 0, ours, baseline, "torch, 2 calls")


def draws(model: Model) -> Iterator[OpCase]:
    """A token for each row, at a temperature."""
    vocab = model.vocab
    for rows in model.sizes.draws:
        shape, moved = f"{model.name} {rows} x {vocab}", model.nbytes(rows, vocab)
        copies = model.copies(moved)

        def operands(rows: int = rows, copies: int = copies) -> tuple[list[Tensor], Tensor]:
            temperature = torch.full((rows,), TEMPERATURE, device=model.device)
            return [2 * model.random(rows, vocab) for _ in range(copies)], temperature

        def ours(operands: Callable = operands, rows: int = rows) -> Call:
            from minillm_kernels.triton.sample import draw

            logits, temperature = operands()
            seeds, places, out = (torch.arange(rows, device=model.device) for _ in range(3))
            last = torch.zeros(rows + 1, dtype=torch.int64, device=model.device)
            return lambda copy: draw(logits[copy], temperature, seeds, places, None, out, last, places)

        def baseline(operands: Callable = operands) -> Call:
            logits, temperature = operands()

            def call(copy: int) -> Tensor:
                shares = (logits[copy].float() / temperature.unsqueeze(1)).softmax(-1)
                return (shares / torch.empty_like(shares).exponential_(1)).argmax(-1)

            return call

        yield OpCase("draw", shape, moved, 0, ours, baseline, "softmax and race in torch", copies)


def cutoffs(model: Model) -> Iterator[OpCase]:
    """The least logit that may be drawn, by top-k and top-p, over normally distributed logits."""
    vocab = model.vocab
    for rows in model.sizes.draws:
        copies = model.copies(model.nbytes(rows, vocab))

        def ours(rows: int = rows, copies: int = copies) -> Call:
            from minillm_kernels.triton import truncate

            logits = [2 * model.random(rows, vocab) for _ in range(copies)]
            temperature, min_p, top_p = (
                torch.full((rows,), value, device=model.device) for value in (TEMPERATURE, 0.0, TOP_P)
            )
            top_k = torch.full((rows,), TOP_K, device=model.device)
            return lambda copy: truncate.cutoffs(logits[copy], temperature, min_p, top_k, top_p)

        def baseline(rows: int = rows, copies: int = copies) -> Call:
            logits = [2 * model.random(rows, vocab) for _ in range(copies)]

            def call(copy: int) -> Tensor:
                largest = logits[copy].float().topk(TOP_K, -1).values
                before = (largest / TEMPERATURE).softmax(-1).cumsum(-1).roll(1, -1)
                before[:, 0] = 0
                return largest.masked_fill(before >= TOP_P, float("inf")).amin(-1)

            return call

        shape = f"{model.name} {rows} x {vocab} k={TOP_K} p={TOP_P}"
        yield OpCase("cutoffs", shape, model.nbytes(rows, vocab), 0, ours, baseline, "topk in torch", copies)
