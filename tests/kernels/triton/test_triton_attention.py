"""The attention rows of the Triton table, through the table: ragged mixes of decodes and chunks, against float64."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from ragged_case import FP8, RaggedCase, relative_error

from minillm_kernels import HeadNorms, Ops, resolve
from minillm_kernels.triton import rows
from minillm_kernels.triton.attention import TritonPlan

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
MIXES = {
    "decodes": [(9, 1), (130, 1), (1, 1)],
    "prompts": [(36, 36), (33, 7), (2, 2)],
    "decodes first": [(9, 1), (1, 1), (33, 7), (17, 16)],
    "unsorted": [(33, 7), (9, 1), (12, 12), (1, 1), (80, 1)],
}
SCALE = 0.3


@pytest.fixture(scope="module")
def ops() -> Ops:
    return resolve("triton")


def plan_of(ops: Ops, case: RaggedCase) -> TritonPlan:
    return ops.plan_attention(case.tables, *zip(*case.lens, strict=True), case.block_size)


def attend(ops: Ops, case: RaggedCase, window: int = 0) -> torch.Tensor:
    return ops.attend(*case.split(), case.cache, case.slots, plan_of(ops, case), SCALE, window)


def check(ops: Ops, case: RaggedCase, window: int = 0) -> None:
    got = attend(ops, case, window)
    for b, expected in enumerate(case.expected(SCALE, window)):
        own = got.split([new for _, new in case.lens])[b]
        assert relative_error(own, expected) < case.bound, f"sequence {b} of {case}"


def test_every_row_is_an_operation():
    assert rows().keys() <= {field.name for field in fields(Ops)}
    assert all(callable(row) for row in rows().values())


@pytest.mark.parametrize("dtype,window", [(torch.float32, 0), (torch.bfloat16, 20)], ids=["fp32", "bf16, window"])
@pytest.mark.parametrize("mix", MIXES)
def test_ragged_mixes_equal_the_reference(ops, device, dtype, mix, window):
    check(ops, RaggedCase(device, MIXES[mix], dtype=dtype), window)


@pytest.mark.parametrize("heads,groups", [(2, 2), (2, 1), (6, 2), (4, 1), (8, 1)], ids=str)
def test_groups(ops, device, heads, groups):
    check(ops, RaggedCase(device, MIXES["unsorted"], heads=heads, groups=groups, block_size=16))


@pytest.mark.parametrize("kv_dtype", [torch.int8, FP8], ids=["int8", "fp8"])
def test_narrow_caches(ops, device, kv_dtype):
    check(ops, RaggedCase(device, MIXES["unsorted"], kv_dtype=kv_dtype), window=25)


@pytest.mark.parametrize("dtype,window", [(torch.float32, 9), (torch.bfloat16, 0)], ids=["fp32, window", "bf16"])
def test_a_prompt_in_chunks_equals_the_prompt_at_once(ops, device, dtype, window):
    """Chunks end inside blocks and beside other sequences; the last one is a decode."""
    whole = RaggedCase(device, [(42, 42)], heads=2, groups=1, dtype=dtype)
    at_once = attend(ops, whole, window)
    parts = RaggedCase(device, [(42, 42), (12, 3)], heads=2, groups=1, dtype=dtype)
    neighbours, got = [x[42:] for x in parts.split()], []
    for start, stop in [(0, 1), (1, 18), (18, 41), (41, 42)]:
        q, k, v = (torch.cat((x, own[start:stop])) for x, own in zip(neighbours, whole.split(), strict=True))
        slots = torch.cat((parts.places(1, 9, 12), parts.places(0, start, stop)))
        plan = ops.plan_attention(parts.tables[[1, 0]], [12, stop], [3, stop - start], parts.block_size)
        got.append(ops.attend(q, k, v, parts.cache, slots, plan, SCALE, window)[3:])
    assert relative_error(torch.cat(got), at_once.double().cpu()) < whole.bound


def test_a_sequence_may_read_blocks_that_another_fills_in_the_same_step(ops, device):
    case = RaggedCase(device, [(12, 12), (13, 1)], heads=2, groups=1)
    case.tables[1, :3] = case.tables[0, :3]
    case.slots[-1] = case.places(1, 12, 13)[0]
    check(ops, case)


@DTYPES
@pytest.mark.parametrize("normed,turned", [(False, False), (True, True)], ids=["plain", "norms and angles"])
def test_the_fused_row_equals_the_reference_rows(ops, device, dtype, normed, turned):
    """Norms, rotation, KV write and attention from one qkv, beside the reference's own in float64."""
    case = RaggedCase(device, MIXES["unsorted"], dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.rand(case.dim, generator=generator).to(device, dtype) + 0.5 for _ in range(2)]
    norms = HeadNorms(*weights, 1e-6) if normed else None
    turns = torch.randn(200, case.dim // 2, generator=generator)
    tables = (turns.cos().to(device, dtype), turns.sin().to(device, dtype))
    positions = torch.cat([torch.arange(total - new, total) for total, new in case.lens]).to(device)
    exact = Ops("ref")
    q, k, v = (x.double() for x in case.split())
    if norms is not None:
        q, k = exact.rms_norm(q, norms.q.double(), norms.eps), exact.rms_norm(k, norms.k.double(), norms.eps)
    if turned:
        cos_sin = exact.angles(tuple(x.double() for x in tables), positions)
        q, k = exact.rope(q, *cos_sin), exact.rope(k, *cos_sin)
    angles = ops.angles(tables, positions) if turned else None
    arguments = (case.cache, case.slots, plan_of(ops, case), case.groups, SCALE, 0)
    got = ops.attend_qkv(case.qkv.clone(), norms, angles, *arguments)
    case.store(k.to(dtype), v.to(dtype), case.slots)
    assert relative_error(got, torch.cat(case.expected(SCALE, q=q))) < 2 * case.bound


def test_a_plan_of_decodes_alone_takes_all_of_q(ops, device):
    """As the GPU runner makes it out of its own buffers: no rows, scratch at hand."""
    case = RaggedCase(device, MIXES["decodes"])
    eager = plan_of(ops, case)
    expected = ops.attend(*case.split(), case.cache, case.slots, eager, SCALE, 0)
    scratch = eager.decode.partials
    got = ops.attention(case.split()[0], case.cache, TritonPlan(eager.decode), SCALE, 0)
    assert torch.equal(got, expected)
    assert eager.decode.partials is scratch, "scratch is made once for all layers"


def test_tables_that_are_on_the_device_stay_there(ops, device):
    case = RaggedCase(device, MIXES["unsorted"])
    tables = case.tables.to(device, torch.int32)
    plan = ops.plan_attention(tables, *zip(*case.lens, strict=True), case.block_size)
    got = ops.attend(*case.split(), case.cache, case.slots, plan, SCALE, 0)
    assert torch.equal(got, attend(ops, case))
    if device.type == "cuda":
        assert plan.prefill.tables.data_ptr() == plan.decode.tables.data_ptr() == tables.data_ptr()


def test_a_plan_says_who_attends_to_what(ops, device):
    """Decodes keep their order, chunks go by length; rows without a query have no part; lists or arrays."""
    tables = torch.arange(12).view(6, 2)
    plan = ops.plan_attention(tables, np.array([8, 3, 5, 7, 6, 1]), np.array([4, 1, 0, 2, 1, 1]), 4)
    assert plan.decode.rows.tolist() == [1, 4, 5]
    assert plan.decode.seq_lens.tolist() == [3, 6, 1]
    assert plan.decode_rows.tolist() == [4, 7, 8]
    chunks = plan.prefill
    assert [x.tolist() for x in (chunks.rows, chunks.starts, chunks.query_lens)] == [[3, 0], [5, 0], [2, 4]]
    assert [x.tolist() for x in (chunks.seq_lens, chunks.before)] == [[7, 8], [0, 2]]
    assert (chunks.num_tokens, chunks.longest) == (6, 4)
    assert torch.equal(chunks.tables.cpu(), tables)
    side_by_side = ops.plan_attention(tables, [3, 6, 8], [1, 1, 8], 4)
    assert side_by_side.decode_rows == slice(0, 2)
    assert ops.plan_attention(tables, [8], [8], 4).decode is None
    assert ops.plan_attention(tables, [8], [1], 4).prefill is None


@pytest.mark.parametrize("kv_dtype", [None, torch.int8], ids=["fp32", "int8"])
def test_write_kv_puts_each_token_at_its_slot_and_padding_nowhere(ops, device, kv_dtype):
    case, expected = (RaggedCase(device, [(9, 9)], kv_dtype=kv_dtype) for _ in range(2))
    _, k, v = case.split()
    expected.store(k[:-2], v[:-2], case.slots[:-2])
    slots = case.slots.clone()
    slots[-2:] = -1
    ops.write_kv(k, v, case.cache, slots)
    for name in ("keys", "values", "key_scales", "value_scales"):
        got, wanted = getattr(case.cache, name), getattr(expected.cache, name)
        assert got is wanted or torch.allclose(got.double(), wanted.double(), rtol=1e-6, equal_nan=True), name


@pytest.mark.parametrize("dtype,quantized", [(torch.float32, False), (torch.float32, True), (FP8, False)], ids=str)
def test_kv_bytes_per_token_is_what_the_cache_takes(ops, device, dtype, quantized):
    [cache] = ops.make_kv_cache(1, 5, 16, 3, 64, dtype, quantized, device)
    parts = (cache.keys, cache.values, cache.key_scales, cache.value_scales)
    held = sum(x.numel() * x.element_size() for x in parts if x is not None)
    assert held == 5 * 16 * ops.kv_bytes_per_token(3, 64, dtype, quantized)
    assert cache.block_size == 16
    assert not any(x.view(torch.uint8).any() for x in parts if x is not None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_call_of_a_step_waits_for_the_gpu(ops, device):
    case = RaggedCase(device, MIXES["unsorted"])
    attend(ops, case)  # compiled now
    arguments = (*case.split(), case.cache, case.slots)
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = ops.attend(*arguments, plan_of(ops, case), SCALE, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert relative_error(got, torch.cat(case.expected(SCALE))) < case.bound
