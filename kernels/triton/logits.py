"""What a request does to its logits before one is drawn: allowed tokens, biases and bans, penalties; and the counts
of seen tokens that penalties read, kept on the device.

Computes, in place: -inf where a packed mask's bit is 0; a value added to single logits (-inf bans); repetition,
frequency and presence penalties. All in fp32, rounded to the logits' type once per edit. -inf stays -inf.

Spec: ``minillm_serve/sample/edits.py`` (``LogitEdits`` and ``Penalties``); the order of the edits is the caller's.
Counts [R, V] int32 have a row per running sequence: how often each token was generated, and ``IN_PROMPT`` if it stands
in the prompt.
Roofline: all bound by memory. The mask reads V / 8 bytes a row, writes tiles where it allows nothing, reads and writes
those where it allows some; penalties read 4 * V bytes of counts and touch only the logits of seen tokens; a row
without penalties is not read.
Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

IN_PROMPT = 1 << 30
TILE = 2048


@triton.jit
def _bitmask_kernel(logits, rows, words, vocab, num_words, stride, TILE: tl.constexpr):
    entry = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + entry).to(tl.int64)
    token = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = token < tl.where(row >= 0, vocab, 0)
    word = tl.load(words + entry * num_words + token // 32, mask=inside, other=0)
    allowed = (word >> (token % 32)) & 1
    # Whole tiles are read and written: where each token has its own say, stores are 4 bytes each.
    if tl.max(allowed, 0) == 0:
        tl.store(logits + row * stride + token, float("-inf"), mask=inside)
    elif tl.min(tl.where(inside, allowed, 1), 0) == 0:
        x = tl.load(logits + row * stride + token, mask=inside)
        tl.store(logits + row * stride + token, tl.where(allowed == 1, x, float("-inf")), mask=inside)


@triton.jit(do_not_specialize=["num_edits"])
def _bias_kernel(logits, rows, tokens, values, num_edits, stride, TILE: tl.constexpr):
    entry = tl.program_id(0) * TILE + tl.arange(0, TILE)
    row = tl.load(rows + entry, mask=entry < num_edits, other=-1).to(tl.int64)
    place = logits + row * stride + tl.load(tokens + entry, mask=row >= 0, other=0)
    value = tl.load(place, mask=row >= 0, other=0.0).to(tl.float32) + tl.load(values + entry, mask=row >= 0, other=0.0)
    tl.store(place, value.to(logits.dtype.element_ty), mask=row >= 0)


@triton.jit
def _penalties_kernel(
    logits, rows, counts, repetition, frequency, presence, vocab, stride, IN_PROMPT: tl.constexpr, TILE: tl.constexpr
):
    entry = tl.program_id(0).to(tl.int64)
    repeated = tl.load(repetition + entry)
    often = tl.load(frequency + entry)
    ever = tl.load(presence + entry)
    if (repeated != 1) | (often != 0) | (ever != 0):
        row = tl.load(rows + entry).to(tl.int64)
        token = tl.program_id(1) * TILE + tl.arange(0, TILE)
        count = tl.load(counts + row * vocab + token, mask=token < vocab, other=0)
        generated = (count & (IN_PROMPT - 1)).to(tl.float32)
        x = tl.load(logits + entry * stride + token, mask=count != 0, other=0.0).to(tl.float32)
        # Products and quotients are rounded by themselves, as the specification does: see enable_fp_fusion below.
        x = tl.where(x > 0, tl.div_rn(x, repeated), x * repeated)
        x -= often * generated
        x -= tl.where(generated > 0, ever, 0.0)
        tl.store(logits + entry * stride + token, x.to(logits.dtype.element_ty), mask=count != 0)


@triton.jit(do_not_specialize=["num_drawn"])
def _count_kernel(counts, rows, ids, num_drawn, vocab, TILE: tl.constexpr):
    entry = tl.program_id(0) * TILE + tl.arange(0, TILE)
    row = tl.load(rows + entry, mask=entry < num_drawn, other=-1).to(tl.int64)
    token = tl.load(ids + entry, mask=row >= 0, other=0)
    tl.atomic_add(counts + row * vocab + token, 1, mask=row >= 0)


def apply_bitmask(logits: Tensor, rows: Tensor, words: Tensor) -> None:
    """Forbid what each of some rows may not draw.

    logits: [S, V]; rows: [N] integers, those of the logits, a negative one is padding; words: [N, ceil(V / 32)] int32,
    bit t % 32 of word t // 32 says whether token t may be drawn.
    """
    vocab = logits.shape[1]
    num_words = triton.cdiv(vocab, 32)
    if words.shape != (len(rows), num_words) or not words.is_contiguous():
        raise ValueError(f"words: expected [{len(rows)}, {num_words}], a mask per row, got {[*words.shape]}")
    if len(rows):
        grid = len(rows), triton.cdiv(vocab, TILE)
        _bitmask_kernel[grid](logits, rows, words, vocab, num_words, _stride(logits), TILE=TILE)


def add_bias(logits: Tensor, rows: Tensor, tokens: Tensor, values: Tensor) -> None:
    """``logits[rows, tokens] += values``: rows, tokens [N] integers, values [N] fp32. No pair may stand twice.
    A negative row is padding."""
    if not rows.shape == tokens.shape == values.shape:
        raise ValueError(f"expected a row, a token and a value each, got {len(rows)}, {len(tokens)}, {len(values)}")
    if len(rows):
        grid = (triton.cdiv(len(rows), 128),)
        _bias_kernel[grid](logits, rows, tokens, values, len(rows), _stride(logits), TILE=128)


def penalize(
    logits: Tensor, rows: Tensor, counts: Tensor, repetition: Tensor, frequency: Tensor, presence: Tensor
) -> None:
    """Penalise seen tokens.

    logits: [S, V]; rows: [S] integers, those of ``counts`` [R, V]; repetition (1: off), frequency, presence (0: off):
    [S] fp32.
    """
    num_rows, vocab = logits.shape
    _check_counts(counts, vocab)
    if any(x.shape != (num_rows,) for x in (rows, repetition, frequency, presence)):
        raise ValueError(f"rows and penalties: expected one entry for each of {num_rows} rows of logits")
    if num_rows:
        _penalties_kernel[num_rows, triton.cdiv(vocab, TILE)](
            logits,
            rows,
            counts,
            repetition,
            frequency,
            presence,
            vocab,
            _stride(logits),
            IN_PROMPT=IN_PROMPT,
            TILE=TILE,
            enable_fp_fusion=False,
        )


def count_tokens(counts: Tensor, rows: Tensor, ids: Tensor) -> None:
    """``counts[rows, ids] += 1`` after a draw: rows, ids [S] integers; pairs may repeat, negative rows are padding."""
    _check_counts(counts, counts.shape[1])
    if rows.shape != ids.shape:
        raise ValueError(f"expected an id per row, got {len(ids)} for {len(rows)}")
    if len(rows):
        _count_kernel[(triton.cdiv(len(rows), 128),)](counts, rows, ids, len(rows), counts.shape[1], TILE=128)


def reset_counts(counts: Tensor, row: int, prompt: Tensor, generated: Tensor) -> None:
    """A sequence moves into ``row``: prompt, generated: its token ids so far, int64."""
    own = counts[row].zero_()
    own.index_fill_(0, prompt, IN_PROMPT)
    own.index_add_(0, generated, counts.new_ones(len(generated)))


def _stride(logits: Tensor) -> int:
    if logits.stride(1) != 1:
        raise ValueError("logits: the tokens of a row must be contiguous")
    return logits.stride(0)


def _check_counts(counts: Tensor, vocab: int) -> None:
    if counts.shape[1] != vocab or not counts.is_contiguous():
        raise ValueError(f"counts: expected [rows, {vocab}], contiguous, got {[*counts.shape]}")
