"""Paged attention: every backend computes the reference, and the compiled one the same bits whatever the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kernel_backends import FAST, REF, compiled_only
from paged_case import PagedCase

from minillm_kernels import resolve

SHAPES = [(9, 3, 64, 16), (4, 4, 10, 3), (6, 1, 8, 64), (8, 2, 24, 1), (7, 7, 33, 7), (9, 3, 64, 1024), (40, 1, 16, 16)]


@pytest.fixture
def cpp():
    return resolve("cpp")


BATCHES = [
    [(5, 1), (33, 7), (17, 1), (30, 30)],
    [(1, 1)],
    [(9, 1), (16, 1)],
    [(7, 7), (12, 5)],
    [(700, 1), (300, 60)],
]


@pytest.mark.parametrize("quantized", [False, True], ids=["fp32", "int8"])
@pytest.mark.parametrize("window", [0, 5, 40, 256])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ops", FAST, ids=lambda ops: ops.name)
def test_attention_equals_the_reference(ops, shape, window, quantized):
    for lens in BATCHES:
        case = PagedCase(lens, *shape)
        got, expected = (case.run(o, quantized, window) for o in (ops, REF))
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)


def test_reference_attention_equals_torch_on_one_contiguous_sequence():
    case = PagedCase([(11, 11)], heads=6, groups=2, dim=16, block_size=4)
    heads_first = (t.transpose(0, 1) for t in (case.q[0], *(x[0].repeat_interleave(3, 1) for x in (case.k, case.v))))
    expected = torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=True)
    torch.testing.assert_close(case.run(REF), expected.transpose(0, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [1, 4, 100])
def test_a_token_sees_itself_and_the_ones_before_it_in_its_window(window):
    """Values are one-hot in the position: the output says who was seen."""
    case = PagedCase([(20, 20)], heads=1, groups=1, dim=20, block_size=4)
    case.v[0] = torch.eye(20).unsqueeze(1)
    seen = case.run(REF, window=window).squeeze(1) > 0
    place = torch.arange(20)
    ahead = place.unsqueeze(1) - place
    assert torch.equal(seen, (ahead >= 0) & (ahead < window))


@pytest.mark.parametrize("quantized", [False, True], ids=["fp32", "int8"])
@pytest.mark.parametrize("ops", FAST, ids=lambda ops: ops.name)
def test_a_future_or_foreign_token_never_reaches_the_output(ops, quantized):
    """Blocks of no sequence, and the unused end of a sequence's last block, hold anything (for C++ even NaN)."""
    case = PagedCase([(6, 1), (9, 3)], heads=4, groups=2, dim=8, block_size=4)
    cache = case.make_cache(ops, quantized)
    before = case.step(ops, cache, [(0, 0, 6), (1, 0, 9)])
    used = torch.cat([case.slots(0, 0, 6), case.slots(1, 0, 9)])
    others = torch.tensor(sorted({*range(case.num_blocks * 4)} - {*used.tolist()}))
    noise = torch.full((len(others), 2, 8), float("nan") if ops.name == "cpp" else 1e6)
    ops.write_kv(noise, noise, cache, others)
    after = case.step(ops, cache, [(0, 0, 6), (1, 0, 9)])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("ops", FAST, ids=lambda ops: ops.name)
def test_a_sequence_may_read_blocks_that_another_fills_in_the_same_step(ops):
    case = PagedCase([(12, 12), (12, 4)], heads=4, groups=2, dim=8, block_size=4)
    case.tables[1, :2] = case.tables[0, :2]
    case.k[1][:8], case.v[1][:8] = case.k[0][:8], case.v[0][:8]
    alone = case.step(REF, case.make_cache(REF), [(1, 0, 12)])[0][8:]
    _, shared = case.step(ops, case.make_cache(ops), [(0, 0, 12), (1, 8, 12)])
    torch.testing.assert_close(shared, alone, rtol=1e-5, atol=1e-5)


@compiled_only
@pytest.mark.parametrize("quantized", [False, True], ids=["fp32", "int8"])
@pytest.mark.parametrize("window", [0, 37, 300])
@pytest.mark.parametrize("shape", [(9, 3, 64, 16), (4, 4, 10, 7), (6, 1, 24, 1024)], ids=str)
def test_chunks_and_neighbours_change_no_bit(cpp, shape, window, quantized):
    """A prompt of 600 tokens at once, in ragged chunks beside other sequences, and token by token: the same bits."""
    case = PagedCase([(600, 600), (45, 45), (300, 300)], *shape)
    whole = case.step(cpp, case.make_cache(cpp, quantized), [(0, 0, 600)], window)[0]

    cache, parts = case.make_cache(cpp, quantized), []
    for start, stop in [(0, 1), (1, 30), (30, 257), (257, 258), (258, 599), (599, 600)]:
        others = [(1, start % 40, start % 40 + 5), (2, start // 3, start // 3 + 9)]
        parts.append(case.step(cpp, cache, [others[0], (0, start, stop), others[1]], window)[1])
    assert torch.equal(torch.cat(parts), whole)

    cache = case.make_cache(cpp, quantized)
    case.step(cpp, cache, [(0, 0, 600)], window)
    for place in (0, 1, 15, 16, 63, 64, 255, 256, 257, 511, 598):
        assert torch.equal(case.step(cpp, cache, [(0, place, place + 1)], window)[0], whole[place : place + 1])


@compiled_only
def test_the_number_of_threads_and_the_block_size_change_no_bit(cpp):
    """Long sequences are cut into segments where threads would be idle, or not: nobody can tell from the result."""
    case = PagedCase([(1500, 1), (40, 40)], heads=9, groups=3, dim=64, block_size=16)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = case.run(cpp)
        torch.set_num_threads(max(2, threads))
        assert torch.equal(case.run(cpp), alone)
    finally:
        torch.set_num_threads(threads)
    for block_size in (1, 7, 48, 1500):
        other = replace(case, block_size=block_size)
        other.q, other.k, other.v = case.q, case.k, case.v
        assert torch.equal(other.run(cpp), alone), f"block_size {block_size}"


@compiled_only
def test_queries_keys_and_values_may_be_slices_of_one_projection(cpp):
    case = PagedCase([(20, 20)], heads=4, groups=2, dim=16, block_size=16)
    together = torch.cat((case.q[0], case.k[0], case.v[0]), dim=1)
    expected = case.run(cpp)
    case.q[0], case.k[0], case.v[0] = together.split((4, 2, 2), dim=1)
    assert not case.k[0].is_contiguous()
    cache, slots = case.make_cache(cpp), case.slots(0, 0, 20)
    plan = cpp.plan_attention(case.tables, [20], [20], 16)
    apart = torch.stack((slots, slots + 1), dim=1)[:, 0]
    got = cpp.attend(case.q[0], case.k[0], case.v[0], cache, apart, plan, 0.25, 0)
    assert torch.equal(got, expected)


@compiled_only
def test_what_the_compiled_attention_cannot_read_is_refused(cpp):
    case = PagedCase([(4, 4)], heads=4, groups=2, dim=16, block_size=16)
    cache, slots, plan = case.make_cache(cpp), case.slots(0, 0, 4), cpp.plan_attention(case.tables, [4], [4], 16)
    q, k, v = case.q[0], case.k[0], case.v[0]
    for bad in ((q.double(), k, v), (q, k[:, :1], v), (q[:3], k, v), (q, k, v[..., :8]), (q[:, :3], k, v)):
        with pytest.raises((TypeError, ValueError), match="float32"):
            cpp.attend(*bad, cache, slots, plan, 0.25, 0)
