"""What every test area shares: the tiny random model, and Triton's interpreter where there is no GPU."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

# Read once, when OpenMP is loaded, here and in every process that a test starts. The workers share the cores: threads
# that spin while they wait take them from those that work (two labs at once on 2 cores: 75 and 135 s, not 337 and 413).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read once, when triton is imported

sys.path.insert(0, str(Path(__file__).parent))

from tiny_model import build_tiny_model

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Twelve thousand tests are a million objects: a worker spends a twentieth of its time on walking over them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama model folder with 512 tokens, 2 layers, 4 heads and 2 KV heads; do not write into it."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
