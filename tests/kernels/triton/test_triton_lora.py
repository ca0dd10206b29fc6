"""Batched LoRA in Triton: against float64, token by token, with adapters in any order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from minillm_kernels import ref_lora
from minillm_kernels.ref_lora import LoraWeights, stack_lora
from minillm_kernels.triton import lora as triton_lora

# hidden and y are rounded to bf16: by 2**-9 at most where hardware rounds; the interpreter cuts off.
BOUND = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3 if torch.cuda.is_available() else 1e-2}


class Case:
    """Random adapters of one layer, some slices without one, and tokens that mix them."""

    def __init__(self, device, *, inputs=96, outputs=(40,), ranks=(8, 3, 8), index=(0,), dtype=torch.float32, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(device, dtype)

        self.pairs = [
            [(random(rank, inputs), random(size, rank)) if number != 1 or part % 2 == 0 else None
             for part, size in enumerate(outputs)]
            for number, rank in enumerate(ranks)
        ]  # fmt: skip
        self.scales = [0.5 + number for number in range(len(ranks))]
        self.weights: LoraWeights = stack_lora(self.pairs, self.scales, outputs)
        self.outputs = outputs
        self.index = torch.tensor(index, dtype=torch.int32, device=device)
        self.x, self.y = random(len(index), inputs), random(len(index), sum(outputs))

    def exact(self) -> Tensor:
        out = self.y.cpu().double()
        for token, adapter in enumerate(self.index.tolist()):
            start = 0
            for pair, size in zip(self.pairs[adapter] if adapter >= 0 else (), self.outputs, strict=False):
                if pair is not None:
                    a, b = (x.cpu().double() for x in pair)
                    out[token, start : start + size] += self.scales[adapter] * (b @ (a @ self.x[token].cpu().double()))
                start += size
        return out

    def check(self, add_lora=triton_lora.add_lora) -> None:
        expected, before = self.exact(), self.y.clone()
        add_lora(self.y, self.x, self.weights, self.index)
        error = (self.y.cpu().double() - expected).norm() / expected.norm()
        assert error < BOUND[self.y.dtype], f"error {error:.2e} with adapters {self.index.tolist()}"
        untouched = self.index < 0
        assert torch.equal(self.y[untouched], before[untouched]), "tokens without an adapter keep their bits"


def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty
    monkeypatch.setattr(
        triton_lora.torch, "empty", lambda *shape, **options: empty(*shape, **options).fill_(float("nan"))
    )


def mixed(tokens: int, adapters: int, seed: int = 0) -> list[int]:
    return (torch.randint(0, adapters + 1, (tokens,), generator=torch.Generator().manual_seed(seed)) - 1).tolist()


@pytest.mark.parametrize("dtype", list(BOUND), ids=str)
@pytest.mark.parametrize("index", [(2,), (-1,), (0, 0, 0), (1, -1, 0, 2, 1), mixed(40, 3)], ids=len)
@pytest.mark.parametrize("outputs", [(40,), (24, 130, 8)], ids=str)
def test_each_token_gets_its_adapter(outputs, index, dtype, device, monkeypatch):
    poison(monkeypatch)
    Case(device, index=index, outputs=outputs, dtype=dtype).check()


@pytest.mark.parametrize("index", [(0, 0, 2), mixed(20, 3)], ids=len)
def test_the_reference_gives_each_token_its_adapter(index, device):
    Case(device, index=index, outputs=(24, 40)).check(ref_lora.add_lora)


@pytest.mark.parametrize("ranks", [(64, 16), (33, 8), (1, 1)], ids=str)
def test_any_rank(ranks, device):
    Case(device, ranks=ranks, index=mixed(9, 2), seed=1).check()


@pytest.mark.parametrize("inputs", [8, 127, 700])
def test_any_number_of_inputs_split_over_programs(inputs, device):
    Case(device, inputs=inputs, index=mixed(7, 3), seed=2).check()


def test_more_adapters_than_a_tile_has_tokens(device):
    """Each token of a tile may have another adapter."""
    Case(device, inputs=32, ranks=(8,) * 20, index=[(7 * token) % 20 for token in range(20)], seed=3).check()


@pytest.mark.parametrize("index", [[0] * 70, [2] * 30 + [-1] * 20 + [0] * 30, mixed(70, 3)], ids=["one", "runs", "mix"])
def test_a_prompts_tiles_go_through_their_adapters_one_by_one(index, device, monkeypatch):
    poison(monkeypatch)
    monkeypatch.setattr(triton_lora, "PROMPT", 64)
    Case(device, inputs=64, index=index, seed=4).check()


def test_the_order_of_tokens_changes_no_bit(device):
    case = Case(device, index=mixed(40, 3), seed=5)
    turn = torch.randperm(40, generator=torch.Generator().manual_seed(6)).to(device)
    turned = case.y[turn].clone()
    triton_lora.add_lora(case.y, case.x, case.weights, case.index)
    triton_lora.add_lora(turned, case.x[turn], case.weights, case.index[turn])
    if torch.device(device).type == "cpu":  # the interpreter's BLAS looks at a row's place on some processors
        torch.testing.assert_close(turned, case.y[turn], rtol=1e-4, atol=1e-4)
    else:
        assert torch.equal(turned, case.y[turn])


def test_rows_at_any_stride_and_nothing_beside_them(device):
    case = Case(device, index=mixed(9, 3), seed=7)
    wide_x = torch.full((9, 200), float("nan"), device=device)
    wide_y = torch.full((9, 100), 7.0, device=device)
    wide_x[:, 50:146], wide_y[:, 30:70] = case.x, case.y
    case.x, case.y = wide_x[:, 50:146], wide_y[:, 30:70]
    case.check()
    assert (wide_y[:, :30] == 7).all() and (wide_y[:, 70:] == 7).all()


def test_no_tokens(device):
    case = Case(device)
    triton_lora.add_lora(case.y[:0], case.x[:0], case.weights, case.index[:0])


def test_shapes_that_do_not_fit_are_refused(device):
    case = Case(device, index=(0, 1))
    for y, x, index in (
        (case.y[:, 1:], case.x, case.index),
        (case.y, case.x[:, 1:], case.index),
        (case.y, case.x, case.index[:1]),
    ):
        with pytest.raises(ValueError, match="do not fit adapters"):
            triton_lora.add_lora(y, x, case.weights, index)
    with pytest.raises(ValueError, match="must be dense"):
        triton_lora.add_lora(case.y, case.x.repeat(1, 2)[:, ::2], case.weights, case.index)
    with pytest.raises(ValueError, match="adapter 1, slice 0"):
        stack_lora([case.pairs[0], [(case.pairs[1][0][0], case.pairs[0][0][1])]], [1.0, 1.0], case.outputs)
    with pytest.raises(ValueError, match="each needs 2 slices"):
        stack_lora(case.pairs, case.scales, (20, 20))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("tokens", [1, 50, 700])
def test_a_graph_replays_with_other_adapters(tokens, device):
    """Who has which adapter is read from device memory."""
    case = Case(device, inputs=512, outputs=(512, 128), ranks=(16, 64, 8), index=[0] * tokens, dtype=torch.bfloat16)
    y = case.y.clone()
    triton_lora.add_lora(y, case.x, case.weights, case.index)  # compiled before the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        triton_lora.add_lora(y, case.x, case.weights, case.index)
    for seed in (8, 9):
        case.index.copy_(torch.tensor(mixed(tokens, 3, seed), dtype=torch.int32))
        y.copy_(case.y)
        graph.replay()
        expected = case.exact()
        assert (y.cpu().double() - expected).norm() / expected.norm() < BOUND[torch.bfloat16]
