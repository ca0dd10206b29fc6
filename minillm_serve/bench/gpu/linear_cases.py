"""Linear layers as they are measured: every matrix of a model in 16, 8 and 4 bits, and adapters on one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from minillm_serve.bench.gpu.op_case import Call, Model, OpCase

ADAPTERS, RANK = 8, 16


def linears(model: Model) -> Iterator[OpCase]:
    """Every matrix, the LM head over no more rows than draw."""
    for name in model.sizes.matrices:
        for tokens in model.sizes.linear:
            if name != "head" or tokens <= 256:
                yield _linear(model, name, tokens)


def _linear(model: Model, name: str, tokens: int) -> OpCase:
    rows, columns = model.matrices[name]
    copies = model.copies(model.nbytes(rows, columns))

    def ours() -> Call:
        from minillm_kernels.triton.linear import linear, pack_linear

        x = model.random(tokens, columns)
        weights = [pack_linear(model.random(rows, columns)) for _ in range(copies)]
        return lambda copy: linear(x, weights[copy], None)

    return _linear_case(model, "linear", name, tokens, ours, model.nbytes(rows, columns), copies)


def _linear_case(
    model: Model,
    op: str,
    name: str,
    tokens: int,
    ours: Callable[[], Call],
    weight_bytes: int,
    copies: int,
    cost: float = 1.0,
) -> OpCase:
    """cost: of a product, in bf16 products."""
    rows, columns = model.matrices[name]
    moved = weight_bytes + model.nbytes(tokens, rows + columns)

    def torch_linear() -> Call:
        x, weights = model.random(tokens, columns), [model.random(rows, columns) for _ in range(copies)]
        return lambda copy: functional.linear(x, weights[copy])

    flops = round(2 * tokens * rows * columns * cost)
    return OpCase(op, f"{model.name} {name} T={tokens}", moved, flops, ours, torch_linear, "linear, bf16", copies)


def quantized_linears(model: Model) -> Iterator[OpCase]:
    """The matrices of a layer in 8 and 4 bits, beside bf16 in torch. A product of 8-bit numbers counts half."""
    for op, cost in (("linear int8", 0.5), ("linear fp8", 0.5), ("linear w4", 1.0)):
        for name in model.sizes.matrices:
            for tokens in model.sizes.quantized:
                if name != "head":
                    yield _quantized(model, op, name, tokens, cost)


def _quantized(model: Model, op: str, name: str, tokens: int, cost: float) -> OpCase:
    rows, columns = model.matrices[name]
    bits = {"linear int8": 8, "linear fp8": 8, "linear w4": 4.1875}[op]  # w4: 16 + 8 bits for each 128 weights
    weight_bytes = round(rows * columns * bits / 8)
    copies = model.copies(weight_bytes)

    def ours() -> Call:
        pack, linear = _ways(op)
        x, first = model.random(tokens, columns), pack(model.random(rows, columns))
        weights = [first, *(_clone(first) for _ in range(copies - 1))]
        return lambda copy: linear(x, weights[copy], None)

    return _linear_case(model, op, name, tokens, ours, weight_bytes, copies, cost)


def _ways(op: str) -> tuple[Callable[[Tensor], Any], Callable[..., Tensor]]:
    """How a weight is packed and multiplied."""
    if op == "linear int8":
        from minillm_kernels.ref import pack_linear_int8
        from minillm_kernels.triton.linear_int8 import linear_int8

        return pack_linear_int8, linear_int8
    if op == "linear fp8":
        from minillm_kernels.ref_fp8 import pack_linear_fp8
        from minillm_kernels.triton.linear_fp8 import linear_fp8

        return pack_linear_fp8, linear_fp8
    from minillm_kernels.ref_w4 import pack_linear_w4
    from minillm_kernels.triton.linear_w4 import linear_w4

    return pack_linear_w4, linear_w4


def _clone(weight: Any) -> Any:
    return replace(weight, **{name: part.clone() for name, part in vars(weight).items() if isinstance(part, Tensor)})


def loras(model: Model) -> Iterator[OpCase]:
    """Eight adapters on the attention's output layer, their tokens side by side."""
    rows, columns = model.matrices["o"]

    def operands(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        index = torch.arange(tokens, device=model.device) * min(ADAPTERS, tokens) // tokens
        return model.random(tokens, rows), model.random(tokens, columns), index.int()

    def adapters() -> list[tuple[Tensor, Tensor]]:
        return [(model.random(RANK, columns) / columns, model.random(rows, RANK)) for _ in range(ADAPTERS)]

    for tokens in model.sizes.lora:
        used = min(ADAPTERS, tokens)

        def ours(tokens: int = tokens) -> Call:
            from minillm_kernels.ref_lora import stack_lora
            from minillm_kernels.triton.lora import add_lora

            y, x, index = operands(tokens)
            weights = stack_lora([[pair] for pair in adapters()], [1.0] * ADAPTERS, (rows,))
            return lambda copy: add_lora(y, x, weights, index)

        def baseline(tokens: int = tokens, used: int = used) -> Call:
            y, x, _ = operands(tokens)
            parts = list(zip(y.tensor_split(used), x.tensor_split(used), adapters(), strict=False))

            def call(copy: int) -> None:
                for own_y, own_x, (a, b) in parts:
                    own_y.addmm_(own_x @ a.T, b.T)

            return call

        moved = model.nbytes(used * RANK, rows + columns) + model.nbytes(tokens, 2 * rows + columns)
        flops = 2 * tokens * RANK * (rows + columns)
        shape = f"{model.name} o T={tokens} {used} adapters r={RANK}"
        yield OpCase("lora", shape, moved, flops, ours, baseline, "torch, 2 calls an adapter")
