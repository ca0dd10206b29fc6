"""What few rows need as it is measured: masks, biases, penalties on the logits; and a decode step's own bookkeeping."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from minillm_serve.bench.gpu.op_case import Call, Model, OpCase

FEW = 16  # tokens that a mask allows, as between the values of a JSON object
BIASES = 16  # of each row
SEEN = 1024  # tokens of each row that a penalty touches
BLOCK_SIZE, BLOCKS = 16, 256  # of the block tables


def edits(model: Model) -> Iterator[OpCase]:
    """On fp32 logits, in place, for every row: most or half of the tokens masked, some biased, those seen penalised."""
    for rows in model.sizes.draws:
        for allowed in (FEW, model.vocab // 2):
            yield _bitmask(model, rows, allowed)
        yield _bias(model, rows)
        yield _penalties(model, rows)
        yield _count(model, rows)


def _logits(model: Model, rows: int) -> Tensor:
    return torch.randn(rows, model.vocab, device=model.device)


def _every(model: Model, rows: int) -> Tensor:
    return torch.arange(rows, device=model.device)


def _shape(model: Model, rows: int) -> str:
    return f"{model.name} {rows} x {model.vocab}"


def _bitmask(model: Model, rows: int, allowed: int) -> OpCase:
    masks = rows * model.vocab // 8
    copies = model.copies(masks + 4 * rows * model.vocab)

    def tokens() -> Tensor:
        """[rows, vocab] bools: which are allowed."""
        return torch.rand(rows, model.vocab, device=model.device).argsort(-1) < allowed

    def packed() -> Tensor:
        bits = functional.pad(tokens(), (0, -model.vocab % 32)).view(rows, -1, 32).long()
        return (bits << torch.arange(32, device=model.device)).sum(-1).int()

    def ours() -> Call:
        from minillm_kernels.triton.logits import apply_bitmask

        logits = [_logits(model, rows) for _ in range(copies)]
        words, every = packed(), _every(model, rows)
        return lambda copy: apply_bitmask(logits[copy], every, words)

    def baseline() -> Call:
        logits = [_logits(model, rows) for _ in range(copies)]
        forbidden = ~tokens()
        return lambda copy: logits[copy].masked_fill_(forbidden, float("-inf"))

    moved = masks + 4 * rows * model.vocab  # nearly every line of memory holds a token that is forbidden
    shape = f"{_shape(model, rows)} allowed={allowed}"
    return OpCase("bitmask", shape, moved, 0, ours, baseline, "masked_fill_ by bytes", copies)


def _bias(model: Model, rows: int) -> OpCase:
    def operands() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tokens = torch.rand(rows, model.vocab, device=model.device).topk(BIASES, -1).indices.flatten()
        values = torch.randn(len(tokens), device=model.device)
        return _logits(model, rows), _every(model, rows).repeat_interleave(BIASES), tokens, values

    def ours() -> Call:
        from minillm_kernels.triton.logits import add_bias

        given = operands()
        return lambda copy: add_bias(*given)

    def baseline() -> Call:
        logits, at, tokens, values = operands()

        def call(copy: int) -> None:
            logits[at, tokens] += values

        return call

    moved = rows * BIASES * (8 + 8 + 4 + 2 * 4)
    return OpCase("logit_bias", _shape(model, rows), moved, 0, ours, baseline, "indexed += in torch")


def _seen(model: Model, rows: int) -> tuple[Tensor, list[Tensor]]:
    """Counts, and the three penalties of each row."""
    counts = torch.zeros(rows, model.vocab, dtype=torch.int32, device=model.device)
    tokens = torch.randint(0, model.vocab, (rows, SEEN), device=model.device)
    counts.scatter_add_(1, tokens, torch.ones_like(tokens, dtype=torch.int32))
    return counts, [torch.full((rows,), value, device=model.device) for value in (1.1, 0.2, 0.1)]


def _penalties(model: Model, rows: int) -> OpCase:
    copies = model.copies(4 * rows * model.vocab)

    def ours() -> Call:
        from minillm_kernels.triton.logits import penalize

        made = [_seen(model, rows) for _ in range(copies)]
        logits, every = _logits(model, rows), _every(model, rows)
        return lambda copy: penalize(logits, every, made[copy][0], *made[copy][1])

    def baseline() -> Call:
        made, logits = [_seen(model, rows) for _ in range(copies)], _logits(model, rows)

        def call(copy: int) -> None:
            counts, penalties = made[copy]
            repetition, frequency, presence = (value.unsqueeze(1) for value in penalties)
            repeated = torch.where(logits > 0, logits / repetition, logits * repetition)
            penalised = repeated - frequency * counts - presence * (counts > 0)
            logits.copy_(torch.where(counts > 0, penalised, logits))

        return call

    moved = 4 * rows * (model.vocab + 2 * min(SEEN, model.vocab))
    return OpCase("penalties", _shape(model, rows), moved, 0, ours, baseline, "torch, dense", copies)


def _count(model: Model, rows: int) -> OpCase:
    def ours() -> Call:
        from minillm_kernels.triton.logits import count_tokens

        counts, ids = _seen(model, rows)[0], _every(model, rows)
        return lambda copy: count_tokens(counts, ids, ids)

    def baseline() -> Call:
        counts, ids = _seen(model, rows)[0], _every(model, rows)
        one = counts.new_ones(rows)
        return lambda copy: counts.index_put_((ids, ids), one, accumulate=True)

    moved = rows * (8 + 8 + 2 * 4)
    return OpCase("count_tokens", _shape(model, rows), moved, 0, ours, baseline, "index_put_ in torch")


def bookkeeping(model: Model) -> Iterator[OpCase]:
    """Ids, positions and slots of a decode step; a new block for each sequence."""
    for rows in model.sizes.draws:
        yield _decode_inputs(model, rows)
        yield _tables(model, rows)


def _decode_inputs(model: Model, rows: int) -> OpCase:
    def operands() -> tuple[Tensor, ...]:
        every = _every(model, rows).int()
        lengths = every % (BLOCK_SIZE * BLOCKS - 1) + 1
        tables = torch.arange(rows * BLOCKS, dtype=torch.int32, device=model.device).view(rows, BLOCKS)
        return every, lengths, every % 2 - 1, torch.zeros(1, rows, dtype=torch.int64, device=model.device), tables

    def ours() -> Call:
        from minillm_kernels.triton.decode_inputs import prepare_decode

        given = operands()
        out = [_every(model, rows) for _ in range(3)]
        return lambda copy: prepare_decode(*given, BLOCK_SIZE, *out)

    def baseline() -> Call:
        every, lengths, known, drawn, tables = operands()

        def call(copy: int) -> tuple[Tensor, ...]:
            positions = lengths.long() - 1
            blocks = tables[every, positions // BLOCK_SIZE]
            return (
                torch.where(known < 0, drawn[0, every], known),
                positions,
                blocks * BLOCK_SIZE + positions % BLOCK_SIZE,
            )

        return call

    moved = rows * (4 * 4 + 8 + 3 * 8)
    return OpCase("prepare_decode", f"{model.name} {rows}", moved, 0, ours, baseline, "torch, 9 calls")


def _tables(model: Model, rows: int) -> OpCase:
    def operands() -> tuple[Tensor, Tensor, Tensor]:
        tables = torch.zeros(rows, BLOCKS, dtype=torch.int32, device=model.device)
        at = _every(model, rows).int() * BLOCKS + 3
        return tables, at, at

    def ours() -> Call:
        from minillm_kernels.triton.decode_inputs import scatter_tables

        given, count = operands(), torch.full((1,), rows, dtype=torch.int32, device=model.device)
        return lambda copy: scatter_tables(*given, count)

    def baseline() -> Call:
        tables, at, blocks = operands()
        places = at.long()
        return lambda copy: tables.view(-1).index_copy_(0, places, blocks)

    return OpCase("scatter_tables", f"{model.name} {rows}", rows * 3 * 4, 0, ours, baseline, "index_copy_ in torch")
