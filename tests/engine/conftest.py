"""What makes the Triton engine small enough for the interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import build_tiny_model


@pytest.fixture(scope="module")
def one_layer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer and one KV head: the interpreter takes a second for what a GPU does in a millisecond."""
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return build_tiny_model(tmp_path_factory.mktemp("one_layer") / "model", num_hidden_layers=1, **heads)


@pytest.fixture
def small_work_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter walks through every program of a grid, also those that have nothing to do."""
    from minillm_kernels.triton import tiles

    if not torch.cuda.is_available():
        monkeypatch.setattr(tiles, "FEW_TILES", 2)
