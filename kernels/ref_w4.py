"""W4A16, the specification: weights of 4 bits with a scale and a zero point for each group of inputs; x as it is.

weight[n, k] = (code[n, k] - zero[k // group, n]) * scale[k // group, n]. AWQ (Lin et al. 2023, arXiv:2306.00978) and
GPTQ (Frantar et al. 2022, arXiv:2210.17323) choose such codes with care and come in checkpoints (see
:mod:`minillm_kernels.w4_layouts`); :func:`pack_linear_w4` rounds to nearest.

The layout, made for kernels that read a tile of words and work on the eight codes of each, one after the other: the
inputs lie in blocks of 128, a block's codes in 16 int32 words, and nibble i (from the low end) of word j is input
16 * i + j of its block. So the i-th codes of a block's words belong to 16 neighbouring inputs of one group, and meet 16
neighbouring elements of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 128  # inputs
WORDS = BLOCK // 8  # int32 words that hold a block's codes
GROUPS = (128, 64, 32)  # inputs that may share a scale: whole groups make a block


@dataclass(frozen=True)
class W4Weight:
    """A [out, in] weight in 4 bits. P: ``in``, filled up to whole blocks with groups of scale 0.

    codes: [out, P / 8] int32; scales: [P / group, out] floating-point; zeros: [P / group, out] uint8, 0 to 15.
    order: [in] int64, the input that each column stands for; None: its own (GPTQ sorts inputs by group, "act-order").
    arrivals: [ceil(out / 16)] int32 zeros, where programs of a kernel that share a tile of outputs count themselves in;
    the last one clears it again.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    group: int
    num_inputs: int
    order: Tensor | None
    arrivals: Tensor


def group_for(num_inputs: int) -> int:
    """The largest group that divides the inputs, the smallest if none does. SmolLM2-135M's 576 inputs: 64."""
    return next((group for group in GROUPS if num_inputs % group == 0), GROUPS[-1])


def pack_linear_w4(weight: Tensor) -> W4Weight:
    """Round a [out, in] weight to 4 bits, each group between its smallest and largest weight (and 0)."""
    group = group_for(weight.shape[1])
    groups = functional.pad(weight.float(), (0, -weight.shape[1] % group)).unflatten(1, (-1, group))
    low, high = groups.amin(-1).clamp_max(0), groups.amax(-1).clamp_min(0)
    fifteen = low.new_tensor(15.0)  # by a plain number CUDA multiplies with the reciprocal: other codes at ties
    scales = ((high - low) / fifteen).clamp_min(torch.finfo(weight.dtype).tiny).to(weight.dtype)
    zeros = (-low / scales.float()).round().clamp(0, 15)
    codes = ((groups / scales.float().unsqueeze(-1)).round() + zeros.unsqueeze(-1)).clamp(0, 15)
    return pack_w4(codes.flatten(1)[:, : weight.shape[1]].to(torch.uint8), scales.T, zeros.T.to(torch.uint8), group)


def pack_w4(codes: Tensor, scales: Tensor, zeros: Tensor, group: int, order: Tensor | None = None) -> W4Weight:
    """codes: [out, in] uint8, 0 to 15; scales, zeros: [ceil(in / group), out]. Raises ValueError.

    A group of more than 128 inputs becomes several, equal ones.
    """
    num_outputs, num_inputs = codes.shape
    own = next((size for size in GROUPS if group % size == 0), None)
    if own is None or scales.shape != zeros.shape or scales.shape != (-(-num_inputs // group), num_outputs):
        raise ValueError(
            f"codes {list(codes.shape)} in groups of {group} with scales {list(scales.shape)} and zeros "
            f"{list(zeros.shape)}: groups must be of a multiple of {GROUPS[-1]} inputs, with a scale and a zero each"
        )
    num_groups = -(-num_inputs // BLOCK) * BLOCK // own
    scales, zeros = (x.repeat_interleave(group // own, 0)[:num_groups] for x in (scales, zeros))
    scales, zeros = (functional.pad(x, (0, 0, 0, num_groups - len(x))).contiguous() for x in (scales, zeros))
    blocks = functional.pad(codes, (0, -num_inputs % BLOCK)).unflatten(1, (-1, 8, WORDS))
    return _w4(pack_words(blocks.transpose(2, 3).flatten(1)), scales, zeros, own, num_inputs, order)


def join_w4(parts: Sequence[W4Weight]) -> W4Weight:
    """Layers that read the same inputs, one below the other. Raises ValueError if they group inputs differently."""
    first = parts[0]
    for part in parts[1:]:
        same = (part.group, part.num_inputs) == (first.group, first.num_inputs)
        if first.order is None or part.order is None:
            same &= first.order is part.order
        else:
            same &= torch.equal(first.order, part.order)
        if not same:
            raise ValueError("layers that read the same inputs must group them alike to be one layer")
    columns = (torch.cat([getattr(part, name) for part in parts], 1) for name in ("scales", "zeros"))
    return _w4(torch.cat([part.codes for part in parts]), *columns, first.group, first.num_inputs, first.order)


def _w4(codes: Tensor, scales: Tensor, zeros: Tensor, group: int, num_inputs: int, order: Tensor | None) -> W4Weight:
    arrivals = torch.zeros(-(-len(codes) // 16), dtype=torch.int32, device=codes.device)
    return W4Weight(codes, scales, zeros, group, num_inputs, order, arrivals)


def pack_words(nibbles: Tensor) -> Tensor:
    """[..., 8 * W] uint8, 0 to 15 -> [..., W] int32, the first of each eight in the lowest bits."""
    low, high = nibbles.unflatten(-1, (-1, 2)).unbind(-1)
    return (low | high << 4).view(torch.int32)


def unpack_words(words: Tensor) -> Tensor:
    """[..., W] int32 -> [..., 8 * W] uint8: the reverse of :func:`pack_words`."""
    pairs = words.contiguous().view(torch.uint8)
    return torch.stack((pairs & 15, pairs >> 4), -1).flatten(-2)


def dequantize_w4(weight: W4Weight) -> Tensor:
    """The [out, in] fp32 weight that the codes stand for, columns in ``order``."""
    codes = unpack_words(weight.codes).unflatten(1, (-1, WORDS, 8)).transpose(2, 3).flatten(1)
    scales, zeros = (x.float().T.repeat_interleave(weight.group, 1) for x in (weight.scales, weight.zeros))
    return ((codes - zeros) * scales)[:, : weight.num_inputs]


def linear_w4(x: Tensor, weight: W4Weight, bias: Tensor | None) -> Tensor:
    """x: [T, in] -> x @ weight.T (+ bias), [T, out] in x's dtype; sums in fp32."""
    if weight.order is not None:
        x = x.index_select(1, weight.order)
    out = functional.linear(x.float(), dequantize_w4(weight), None if bias is None else bias.float())
    return out.to(x.dtype)
