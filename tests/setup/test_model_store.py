"""Finding models: names, folders, the user's cache, and refusals that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from minillm_serve.config import ConfigError
from minillm_serve.model import store
from minillm_serve.model.fetch import get_model
from minillm_serve.model.store import ModelStoreError, cache_root, resolve_model, weights_name


def test_a_known_name_that_is_not_cached_says_how_to_get_it(cache):
    with pytest.raises(ModelStoreError, match="minillm model get smollm2-135m"):
        resolve_model("smollm2-135m")
    assert not cache.exists()


def test_a_known_name_wins_over_a_folder_of_that_name(tiny_model, fake_pip, tmp_path, monkeypatch):
    local = tmp_path / "tiny"
    local.mkdir()
    (local / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    fetched = get_model("tiny", lambda _: None, fake_pip)
    assert resolve_model("tiny") == fetched
    assert resolve_model("./tiny").resolve() == local


def test_an_incomplete_cached_model_is_not_used(tiny_model, fake_pip):
    folder = get_model("tiny", lambda _: None, fake_pip)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelStoreError, match="minillm model get tiny"):
        resolve_model("tiny")


def test_what_is_no_model_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file.bin").write_text("x")
    (tmp_path / "empty").mkdir()
    for wrong, reason in (
        (tmp_path / "empty", "it has no config.json"),
        (tmp_path / "file.bin", "is a file"),
        (tmp_path / "absent.gguf", "no model"),
        (tmp_path / "absent", "no model"),
    ):
        with pytest.raises(ConfigError, match=reason):
            resolve_model(wrong)


def test_weights_of_a_folder_without_record_are_named_after_it(tmp_path):
    folder = tmp_path / "my-llama"
    folder.mkdir()
    assert weights_name(folder) == "my-llama"
    (folder / "minillm_source.json").write_text("not json")
    assert weights_name(folder) == "my-llama"


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"MINILLM_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ("linux", {"XDG_CACHE_HOME": "/b"}, "/b/minillm"),
        ("linux", {"HOME": "/h"}, "/h/.cache/minillm"),
        ("darwin", {"HOME": "/h"}, "/h/.cache/minillm"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/minillm"),
        ("win32", {"LOCALAPPDATA": "/local", "MINILLM_CACHE": "/a"}, "/a"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(monkeypatch, platform, environment, expected):
    for name in ("MINILLM_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(store.sys, "platform", platform)
    assert cache_root() == Path(expected)


@pytest.mark.model
def test_the_real_model_is_complete_and_named_honestly():
    folder = resolve_model("smollm2-135m")
    assert weights_name(folder) == "SmolLM2-135M-Instruct, dequantised from Q4_1 GGUF"
    assert (folder / "model.safetensors").stat().st_size > 134_515_008 * 2
