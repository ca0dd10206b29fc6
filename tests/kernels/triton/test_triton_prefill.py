"""Ragged paged prefill against attention in float64 over the same cache, whose unused places are NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ragged_case import FP8, RaggedCase, relative_error

from minillm_kernels.triton.prefill import PrefillWork, prefill_attention, tile_for

MIXED = [(5, 5), (33, 7), (90, 41), (17, 16), (70, 2)]


def work_of(case: RaggedCase, chosen: list[int], extra_rows: int = 1) -> PrefillWork:
    """Some sequences of a case in a given order; each one's table lies behind ``extra_rows`` of garbage."""
    new = np.array([new for _, new in case.lens])
    tables = torch.nn.functional.pad(case.tables, (0, 3, extra_rows, 0), value=2**30)
    columns = (
        np.array(chosen) + extra_rows,
        (new.cumsum() - new)[chosen],
        new[chosen],
        np.array([total for total, _ in case.lens])[chosen],
        new[chosen].cumsum() - new[chosen],
    )
    on_device = (torch.tensor(column, dtype=torch.int32, device=case.device) for column in columns)
    tables = tables.to(case.device, torch.int32)
    return PrefillWork(tables, *on_device, int(new[chosen].sum()), int(new[chosen].max()))


def check(case: RaggedCase, window: int = 0, chosen: list[int] | None = None) -> None:
    """Queries are a slice of qkv, the output is strided and full of NaN; rows of the others must stay so."""
    case.store_new()
    chosen, scale = sorted(range(len(case.lens)), key=lambda b: case.lens[b]) if chosen is None else chosen, 0.3
    tokens = len(case.qkv)
    wide = torch.full((tokens, case.heads + 1, case.dim), float("nan"), dtype=case.dtype, device=case.device)
    out = wide[:, : case.heads]
    assert prefill_attention(case.split()[0], case.cache, work_of(case, chosen), scale, window, out) is out
    rows = out.split([new for _, new in case.lens])
    for b, expected in enumerate(case.expected(scale, window)):
        if b in chosen:
            assert relative_error(rows[b], expected) < case.bound, f"sequence {b} of {case}"
        else:
            assert rows[b].isnan().all(), f"sequence {b} is not in the work list"
    assert wide[:, case.heads :].isnan().all()


@pytest.mark.parametrize("window", [0, 1, 20, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_ragged_chunks_equal_the_reference(device, dtype, window):
    check(RaggedCase(device, MIXED, dtype=dtype), window)


@pytest.mark.parametrize("block_size", [1, 7, 16, 64, 128])
def test_any_block_size(device, block_size):
    """Blocks that a tile of keys holds whole, that hold whole tiles, and that are cut by them."""
    check(RaggedCase(device, [(200, 60), (66, 66)], block_size=block_size, dtype=torch.bfloat16), window=90)


@pytest.mark.parametrize("heads,groups", [(2, 2), (2, 1), (6, 2), (4, 1), (8, 1)], ids=str)
def test_query_heads_of_a_group_share_a_tile(device, heads, groups):
    """Groups that do not divide the tile's rows leave some of them idle."""
    check(RaggedCase(device, [(45, 40), (9, 3)], heads=heads, groups=groups), window=30)


@pytest.mark.parametrize("dim", [16, 24, 80, 128, 256])
def test_head_sizes(device, dim):
    check(RaggedCase(device, [(40, 33)], heads=2, groups=1, dim=dim, dtype=torch.bfloat16))


@pytest.mark.parametrize("kv_dtype", [torch.int8, FP8], ids=["int8", "fp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def test_narrow_caches(device, dtype, kv_dtype):
    check(RaggedCase(device, [(100, 50), (7, 7)], dtype=dtype, kv_dtype=kv_dtype), window=70)


def test_only_the_sequences_of_the_list_are_computed(device):
    check(RaggedCase(device, MIXED), chosen=[3, 0, 2])


def test_more_sequences_than_a_program_looks_up_at_once(device):
    check(RaggedCase(device, [(1, 1)] * 130 + [(40, 35), (2, 1)], heads=1, groups=1))


@pytest.mark.parametrize("rows", [1, 64, 65, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dim", [64, 128, 256])
def test_tiles_are_powers_of_two_that_tensor_cores_take(rows, dtype, dim):
    for size in tile_for(rows, dim, dtype)[:3]:
        assert size & (size - 1) == 0
    assert min(tile_for(rows, dim, dtype)[:2]) >= 16


def test_what_does_not_fit_together_is_refused(device):
    case = RaggedCase(device, [(6, 6)])
    work, q, out = work_of(case, [0]), case.split()[0], torch.empty(6, 4, 16, device=device)
    for bad_q, bad_out in ((q[:, :3], out[:, :3]), (q[..., :8], out[..., :8]), (q, out[:5])):
        with pytest.raises(ValueError, match="do not fit"):
            prefill_attention(bad_q, case.cache, work, 1.0, 0, bad_out)
    with pytest.raises(ValueError, match="dense"):
        prefill_attention(q.mT.contiguous().mT, case.cache, work, 1.0, 0, out)
    many = torch.empty(6, 256, 16, device=device)
    with pytest.raises(ValueError, match="share a KV head"):
        prefill_attention(many, case.cache, work, 1.0, 0, many)
