"""Perplexity: the definition, and that int8 stays within its bound on the real model."""

from __future__ import annotations

import math

import pytest
import torch

from minillm_serve import LLM
from minillm_serve.bench import perplexity as bench

TEXT = "Once upon a time there was a small engine that answered many questions at once. " * 12


def test_it_is_exp_of_the_mean_loss_of_a_whole_forward_pass(tiny_model_dir, monkeypatch):
    """In chunks of 7 through the cache, and in one piece: the same number."""
    with LLM(tiny_model_dir, num_kv_blocks=64) as llm:
        runner, ids = llm.core.runner, llm.tokenizer.encode(TEXT)
        whole = bench.perplexity(runner.model, runner.kv_cache, ids)
        monkeypatch.setattr(bench, "CHUNK", 7)
        chunked = bench.perplexity(runner.model, runner.kv_cache, ids)
    assert len(ids) > 100 and whole == pytest.approx(chunked, rel=1e-5)


def test_a_model_that_knows_nothing_hesitates_between_all_tokens(tiny_model_dir, monkeypatch):
    with LLM(tiny_model_dir, num_kv_blocks=64) as llm:
        runner, ids = llm.core.runner, llm.tokenizer.encode(TEXT)
        monkeypatch.setattr(runner.model, "forward", lambda ids, *_: torch.zeros(len(ids), 512))
        assert bench.perplexity(runner.model, runner.kv_cache, ids) == pytest.approx(512)


def test_one_token_has_no_perplexity(tiny_model_dir):
    with LLM(tiny_model_dir, num_kv_blocks=8) as llm, pytest.raises(ValueError, match="at least two tokens, got 1"):
        bench.perplexity(llm.core.runner.model, llm.core.runner.kv_cache, [5])


@pytest.mark.model
def test_int8_costs_at_most_two_percent_of_perplexity_on_the_real_model():
    """On the first quarter of the fixed text, to be quick; the command reads all of it."""
    text = bench.fixed_text()
    text = text[: len(text) // 4]
    fp32, tokens = bench.measure("smollm2-135m", {}, text)
    int8, _ = bench.measure("smollm2-135m", {"quantization": "int8"}, text)
    assert tokens > 400 and 5 < fp32 < 60
    assert math.log(int8 / fp32) < math.log(1.02)
