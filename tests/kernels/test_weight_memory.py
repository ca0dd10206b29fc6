"""Memory of packed weights: pieces that do not overlap, on cache lines, in chunks that live as long as a piece does."""

from __future__ import annotations

import pytest
import torch

from minillm_kernels.cpu import memory


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(memory, "CHUNK", 1 << 16)
    monkeypatch.setattr(memory, "_chunk", torch.empty(0, dtype=torch.uint8))
    monkeypatch.setattr(memory, "_used", 0)


def test_pieces_keep_what_is_written_to_them_within_and_across_chunks():
    sizes = [1, 63, 64, 65, 5000, 1 << 16, 3, (1 << 16) + 1, 40_000, 40_000]
    pieces = [memory.weight_memory(size, dtype=torch.uint8).fill_(i) for i, size in enumerate(sizes)]
    for i, (piece, size) in enumerate(zip(pieces, sizes, strict=True)):
        assert piece.shape == (size,) and bool((piece == i).all()), f"piece {i} was overwritten"
        assert piece.data_ptr() % memory.CACHE_LINE == 0
    assert len({piece.untyped_storage().data_ptr() for piece in pieces}) > 1, "more than one chunk was needed"


def test_a_piece_has_the_shape_and_type_asked_for():
    piece = memory.weight_memory(3, 5, dtype=torch.float32)
    assert (piece.shape, piece.dtype, piece.is_contiguous()) == ((3, 5), torch.float32, True)
