"""Inputs of a decode step made on the GPU: beside a loop over the sequences."""

from __future__ import annotations

import pytest
import torch

from minillm_kernels.triton.decode_inputs import prepare_decode, scatter_tables

POISON = -777


def int32(values, device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)


@pytest.mark.parametrize("batch", [1, 3, 130])
@pytest.mark.parametrize("block_size", [1, 16, 7])
def test_ids_positions_and_slots_equal_a_loop(batch, block_size, device):
    torch.manual_seed(batch * 100 + block_size)
    sequences, width = 140, 5
    tables = torch.randint(10_000, (sequences, width)).int()
    recent = torch.randint(50_000, (4, sequences))
    rows = torch.randperm(sequences)[:batch].int()
    seq_lens = torch.randint(1, width * block_size + 1, (batch,)).int()
    seq_lens[:1], seq_lens[1:2] = width * block_size, 1  # a full table, a first token
    seq_lens[2::4] = 0
    ids_in = torch.where(torch.rand(batch) < 0.5, torch.randint(-4, 0, (batch,)), torch.randint(50_000, (batch,))).int()
    ids_in[:1] = 0  # the smallest id that is given
    rows[seq_lens == 0] = 2**30  # padding's rows are not looked up
    expected = []
    for row, length, given in zip(rows.tolist(), seq_lens.tolist(), ids_in.tolist(), strict=True):
        if length == 0:
            expected.append((0, 0, -1))
            continue
        block, offset = divmod(length - 1, block_size)
        token = int(recent[-1 - given, row]) if given < 0 else given
        expected.append((token, length - 1, int(tables[row, block]) * block_size + offset))
    out = [torch.full((batch + 2,), POISON, device=device) for _ in range(3)]  # two more, that stay as they are
    prepare_decode(
        *(x.to(device) for x in (rows, seq_lens, ids_in, recent, tables)), block_size, *(x[:batch] for x in out)
    )
    assert list(zip(*(x[:batch].tolist() for x in out), strict=True)) == expected
    assert all((x[batch:] == POISON).all() for x in out)


def test_a_slot_may_pass_31_bits(device):
    ids, positions, slots = (torch.full((1,), POISON, device=device) for _ in range(3))
    tables = int32([[0, 2**31 - 1]], device)
    prepare_decode(
        int32([0], device), int32([32], device), int32([5], device),
        torch.zeros(1, 1, dtype=torch.int64, device=device), tables, 16, ids, positions, slots,
    )  # fmt: skip
    assert (ids.item(), positions.item(), slots.item()) == (5, 31, (2**31 - 1) * 16 + 15)


@pytest.mark.parametrize("count", [0, 1, 127, 200, 300, 999])
def test_the_first_entries_are_scattered_and_no_other(count, device):
    """count beyond the buffer is the whole buffer."""
    torch.manual_seed(count)
    tables = torch.randint(1000, (20, 30)).int()
    where, values = torch.randperm(600)[:300].int(), torch.randint(1000, 2000, (300,)).int()
    expected = tables.clone()
    expected.view(-1)[where[:count].long()] = values[:count]
    got = tables.to(device)
    scatter_tables(got, where.to(device), values.to(device), int32([count], device))
    assert torch.equal(got.cpu(), expected)


def test_buffers_of_unlike_lengths_are_refused(device):
    x, ids = int32([0, 0], device), torch.zeros(2, dtype=torch.int64, device=device)
    tables = int32([[0, 1], [2, 3]], device)
    with pytest.raises(ValueError, match="slots"):
        prepare_decode(x, x, x, ids, tables, 16, ids, ids, ids[:1])
    with pytest.raises(ValueError, match="length"):
        scatter_tables(tables, x, x[:1], x[:1])
    with pytest.raises(ValueError, match="contiguous"):
        scatter_tables(tables.T, x, x, x[:1])
