"""What makes distilling faster changes nothing of it: engines side by side, and compiled training steps."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from minillm_serve.config import ConfigError
from minillm_serve.distill import asks
from minillm_serve.distill.command import main
from minillm_serve.distill.data import DataSettings, read, write
from minillm_serve.distill.parallel import merge
from minillm_serve.distill.templates import TEMPLATES
from minillm_serve.distill.train import TrainSettings, train
from minillm_serve.engine.llm import LLM
from minillm_serve.model.store import resolve_model, weights_name

DATA = DataSettings(num_tokens=3000, max_new=24, max_prompt=12, round_size=48, held_out=0.2, max_num_seqs=32)


def prompts_of(texts) -> list[tuple[int, ...]]:
    starts = np.cumsum(texts.lengths) - texts.lengths
    pairs = zip(starts.tolist(), texts.prompts.tolist(), strict=True)
    return [tuple(texts.tokens[start : start + size].tolist()) for start, size in pairs]


# -- engines side by side --------------------------------------------------------------------------------------------


def test_two_processes_make_one_folder_of_distinct_prompts(tiny_model_dir, tmp_path, capsys):
    flags = ["--processes", "2", "--num-tokens", "3000", "--max-new", "24", "--max-prompt", "12", "--round-size", "48"]
    assert main(["data", "--toy", "--model", str(tiny_model_dir), "--out", str(tmp_path), *flags]) == 0
    said = capsys.readouterr().out.splitlines()
    assert {line[:3] for line in said if line.startswith("[")} == {"[0]", "[1]"}
    texts, made = read(tmp_path)
    assert len(texts.lengths) == made["texts"] == len(set(prompts_of(texts)))
    assert len(texts.tokens) == made["tokens"] == texts.lengths.sum() >= 3000
    assert made["answer_tokens"] == (texts.lengths - texts.prompts).sum()
    assert made["held_out_texts"] == texts.held_out.sum()
    assert made["settings"]["processes"] == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == []


def test_a_prompt_that_two_processes_answered_is_kept_once(tiny_model_dir, tmp_path):
    with LLM(tiny_model_dir, max_num_seqs=32) as llm:
        write(llm, tmp_path / "a", DATA, say=lambda text: None)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    whole, _ = read(tmp_path / "a")
    (tmp_path / "merged").mkdir()
    counts = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    (tmp_path / "merged" / "data.json").write_text(json.dumps(counts))
    merged, _ = read(tmp_path / "merged")
    assert counts["dropped_prompts"] == {"seen by another process": len(whole.lengths)}
    assert counts["texts"] == len(whole.lengths)
    for name in ("tokens", "lengths", "prompts", "greedy", "held_out"):
        assert np.array_equal(getattr(merged, name), getattr(whole, name))


def test_a_process_that_fails_fails_the_command_and_nothing_is_merged(tmp_path, capsys):
    flags = ["--processes", "2", "--model", str(tmp_path / "no-model")]
    assert main(["data", "--toy", "--out", str(tmp_path / "texts"), *flags]) == 2
    error = capsys.readouterr().err
    assert "process 0 of 2 failed" in error
    assert "no-model" in error
    assert not list(tmp_path.rglob("part-*.npz"))
    with pytest.raises(ConfigError, match="processes must be at least 1"):
        replace(DATA, processes=0)


# -- what is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_template_can_be_filled(seed):
    rng = random.Random(seed)
    for template in TEMPLATES:
        text = asks.fill(template, rng)
        assert not set("{}") & set(text), template
        assert text == text.strip() and "  " not in text, template


def test_asks_are_varied():
    """Of many asks, most are asked once, none of the beginnings prevails, and none is one that the engine is measured
    with."""
    rng = random.Random(0)
    asked = [asks.ask(rng) for _ in range(20_000)]
    assert len(set(map(asks.key, asked))) > 16_000
    beginnings = Counter(" ".join(text.split()[:3]) for text in asked)
    assert beginnings.most_common(1)[0][1] < 0.06 * len(asked)
    assert sum(map(asks.is_reserved, asked)) < 0.02 * len(asked)  # `write` drops them


# -- compiled training -----------------------------------------------------------------------------------------------


def made_up_texts(model, folder) -> None:
    """Random tokens in the place of answers, long enough that no batch is nearly empty."""
    rng, count = np.random.default_rng(0), 160
    lengths = rng.integers(24, 60, count)
    np.savez(
        folder / "part-000.npz",
        tokens=rng.integers(3, 512, lengths.sum()).astype(np.uint16),
        lengths=lengths,
        prompts=rng.integers(2, 16, count),
        greedy=np.ones(count, bool),
        held_out=np.arange(count) < 20,
    )
    (folder / "data.json").write_text(json.dumps({"target": weights_name(resolve_model(str(model)))}))


def test_compiled_training_is_plain_training(tiny_model_dir, tmp_path, monkeypatch):
    """Equal losses step by step; one graph each of a layer, the head and the loss, though each batch has another N.

    The graphs are traced and differentiated as for any backend, and run by PyTorch itself: no C++ compiler is needed.
    """
    made_up_texts(tiny_model_dir, tmp_path)
    given = TrainSettings(
        model=str(tiny_model_dir), epochs=1, batch_tokens=256, width=64, draft_vocab_size=100, steps=3, lr=1e-3
    )
    plain = train(tmp_path, tmp_path / "plain", given, say=lambda text: None)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = train(tmp_path, tmp_path / "compiled", replace(given, compile=True), say=lambda text: None)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3
    assert not torch._dynamo.utils.counters["graph_break"]
    assert plain["steps"] == compiled["steps"] > 20
    for one, other in zip(plain["curve"], compiled["curve"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-3)
