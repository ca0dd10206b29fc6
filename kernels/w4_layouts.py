"""How AWQ and GPTQ checkpoints lay out a layer of 4 bits, the way from there to ``ref_w4.W4Weight``, and back.

Both keep the weight as [in, out], eight codes in an int32; scales [in / group, out]; qzeros [in / group, out / 8]:

    AWQ    qweight [in, out / 8]    eight outputs in a word, in the order 0 2 4 6 1 3 5 7, and so in qzeros
    GPTQ   qweight [in / 8, out]    eight inputs in a word, in their order; in qzeros eight outputs in theirs

GPTQ's first format (``gptq``) stores zero points less 1, in 4 bits; ``gptq_v2`` stores them as they are. With act-order
(``desc_act``) a GPTQ layer rounds its most active inputs first, so an input's group is not its place: ``g_idx`` [in]
names it. We sort the inputs by group once, at load time, and x's columns likewise at each call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minillm_kernels.ref_w4 import W4Weight, pack_w4, pack_words, unpack_words

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # nibble i of a word is output AWQ_ORDER[i] of its eight
AWQ_PLACE = tuple(AWQ_ORDER.index(output) for output in range(8))


def from_awq(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> W4Weight:
    """An AWQ layer ("gemm" layout). Raises ValueError."""
    codes, zeros = (_shuffled(unpack_words(x), AWQ_PLACE) for x in (qweight, qzeros))
    return pack_w4(codes.T, scales, zeros, len(codes) // len(scales))


def from_gptq(
    qweight: Tensor, qzeros: Tensor, scales: Tensor, g_idx: Tensor | None = None, zeros_less_one: bool = True
) -> W4Weight:
    """A GPTQ layer; zeros_less_one: the format is ``gptq``, not ``gptq_v2``. Raises ValueError.

    g_idx: [in], the group of each input; None: as they lie.
    """
    codes, zeros = unpack_words(qweight.T), unpack_words(qzeros)
    if zeros_less_one:
        zeros = (zeros + 1) & 15
    num_inputs, order = codes.shape[1], None
    group = num_inputs // len(scales)
    if g_idx is not None:
        in_place = torch.arange(num_inputs, device=g_idx.device) // group
        order = g_idx.argsort(stable=True)
        if not torch.equal(g_idx[order].long(), in_place):
            raise ValueError(f"g_idx does not put {group} inputs into each of {len(scales)} groups")
        order = None if torch.equal(g_idx.long(), in_place) else order
    return pack_w4(codes if order is None else codes[:, order], scales, zeros, group, order)


def to_awq(codes: Tensor, zeros: Tensor) -> tuple[Tensor, Tensor]:
    """qweight and qzeros of an AWQ layer. codes: [out, in], zeros: [in / group, out], uint8 of 0 to 15."""
    return tuple(pack_words(_shuffled(x, AWQ_ORDER)) for x in (codes.T, zeros))


def to_gptq(codes: Tensor, zeros: Tensor, zeros_less_one: bool = True) -> tuple[Tensor, Tensor]:
    """qweight and qzeros of a GPTQ layer. codes: [out, in], zeros: [in / group, out], uint8 of 0 to 15."""
    stored = (zeros + 15) & 15 if zeros_less_one else zeros
    return pack_words(codes).T.contiguous(), pack_words(stored)


def _shuffled(x: Tensor, places: tuple[int, ...]) -> Tensor:
    """The columns of x, each eight of them reordered."""
    return x.unflatten(-1, (-1, 8))[..., list(places)].flatten(-2)
