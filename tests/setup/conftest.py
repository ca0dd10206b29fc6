"""A cache of its own for every test, and a tiny model in the catalogue."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import numpy as np
import pytest
from tiny_gguf import MEMBER, FakePip, random_weights, write_tiny_gguf

from minillm_serve.model.store import KNOWN_MODELS, KnownModel


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder that every lookup of this test uses."""
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tiny_weights() -> dict[str, np.ndarray]:
    return random_weights()


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory, tiny_weights: dict[str, np.ndarray]) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_tiny_gguf(path, tiny_weights)
    return path.read_bytes()


@pytest.fixture
def fake_pip(tiny_gguf: bytes) -> FakePip:
    return FakePip(tiny_gguf)


@pytest.fixture
def tiny_model(cache: Path, tiny_gguf: bytes, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """The tiny model in the catalogue under the name ``tiny``."""
    model = KnownModel(
        name="tiny",
        weights="a tiny random model",
        license="CC0-1.0",
        package="tiny-weights==1.0",
        member=MEMBER,
        size=len(tiny_gguf),
        sha256=hashlib.sha256(tiny_gguf).hexdigest(),
    )
    monkeypatch.setitem(KNOWN_MODELS, model.name, model)
    return model


@pytest.fixture(scope="session")
def pyproject() -> dict:
    return tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
