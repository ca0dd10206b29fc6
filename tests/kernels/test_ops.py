"""Every fast op equals its reference, on shapes that are not powers of two."""

from __future__ import annotations

import pytest
import torch

from minillm_kernels import bench, resolve

REF, CPU = resolve("ref"), resolve("cpu")


def paged_case(seed: int, heads: int, groups: int, dim: int, block_size: int, lens: list[tuple[int, int]]):
    """Random cache, disjoint shuffled block tables and queries; lens: (tokens in cache, new tokens) per sequence."""
    generator = torch.Generator().manual_seed(seed)
    per_seq = max(-(-total // block_size) for total, _ in lens)
    tables = torch.randperm(per_seq * len(lens) + 3, generator=generator)[: per_seq * len(lens)].view(len(lens), -1)
    cache = torch.randn(per_seq * len(lens) + 3, block_size, 2, groups, dim, generator=generator)
    queries = torch.randn(sum(new for _, new in lens), heads, dim, generator=generator)
    return queries, cache, tables, [total for total, _ in lens], [new for _, new in lens]


@pytest.mark.parametrize("lens", [[(5, 1), (33, 7), (17, 1), (30, 30)], [(1, 1)], [(9, 1), (16, 1)], [(7, 7), (12, 5)]])
@pytest.mark.parametrize(("heads", "groups", "dim", "block_size"), [(9, 3, 64, 16), (4, 4, 10, 3), (6, 1, 8, 64)])
def test_cpu_attention_equals_the_reference(lens, heads, groups, dim, block_size):
    q, cache, tables, seq_lens, query_lens = paged_case(0, heads, groups, dim, block_size, lens)
    expected = REF.attention(q, cache, REF.plan_attention(tables, seq_lens, query_lens, block_size))
    got = CPU.attention(q, cache, CPU.plan_attention(tables, seq_lens, query_lens, block_size))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_reference_attention_equals_torch_on_one_contiguous_sequence():
    torch.manual_seed(1)
    q, k, v = torch.randn(11, 6, 16), torch.randn(11, 2, 16), torch.randn(11, 2, 16)
    cache = torch.zeros(4, 4, 2, 2, 16)
    REF.write_kv(k, v, cache, torch.arange(11))
    got = REF.attention(q, cache, REF.plan_attention(torch.arange(4).unsqueeze(0), [11], [11], 4))
    heads_first = (t.transpose(0, 1) for t in (q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1)))
    expected = torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=True)
    torch.testing.assert_close(got, expected.transpose(0, 1), rtol=1e-5, atol=1e-5)


def test_a_future_or_foreign_token_never_reaches_the_output():
    q, cache, tables, seq_lens, query_lens = paged_case(2, 4, 2, 8, 4, [(6, 1), (9, 3)])
    plan = CPU.plan_attention(tables, seq_lens, query_lens, 4)
    before = CPU.attention(q, cache, plan)
    used = torch.zeros(cache.shape[0] * 4, dtype=torch.bool)
    for table, length in zip(tables, seq_lens, strict=True):
        for position in range(length):
            used[table[position // 4] * 4 + position % 4] = True
    cache.flatten(0, 1)[~used] = 1e6
    torch.testing.assert_close(CPU.attention(q, cache, plan), before)


def test_write_kv_touches_its_slots_and_nothing_else():
    cache = torch.full((3, 4, 2, 2, 8), 7.0)
    k, v = torch.randn(2, 2, 8), torch.randn(2, 2, 8)
    REF.write_kv(k, v, cache, torch.tensor([9, 2]))
    flat = cache.flatten(0, 1)
    assert torch.equal(flat[9], torch.stack((k[0], v[0]))) and torch.equal(flat[2], torch.stack((k[1], v[1])))
    assert int((flat == 7.0).all(-1).all(-1).all(-1).sum()) == 10


@pytest.mark.parametrize("rows", [1, 2, 50, 129])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_linear_equals_the_reference(rows, dtype):
    torch.manual_seed(rows)
    x, weight, bias = torch.randn(rows, 72).to(dtype), torch.randn(50, 72).to(dtype), torch.randn(50).to(dtype)
    packed = CPU.pack_linear(weight)
    for b in (None, bias):
        torch.testing.assert_close(CPU.linear(x, packed, b), REF.linear(x, weight, b), rtol=1e-4, atol=1e-4)


def test_unknown_backend_is_refused_by_name():
    with pytest.raises(ValueError, match="cuda-magic"):
        resolve("cuda-magic")


def test_the_benchmark_times_both_backends_in_turn():
    def cell(ops):
        return lambda: order.append(ops.name)

    order: list[str] = []
    times = bench.measure(cell, repeats=3)
    assert order == ["ref", "cpu"] * 4, "they alternate, and one more turn is thrown away"
    assert [len(t) for t in times.values()] == [3, 3]


@pytest.mark.parametrize("title", bench.CELLS)
def test_a_cell_of_the_benchmark_gives_both_backends_the_same_work(title):
    """Same seed, same inputs: what is timed is also equal."""
    results = []
    for ops in (REF, CPU):
        torch.manual_seed(0)
        results.append(bench.CELLS[title](ops)())
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-3)
