"""The runner around the model: prompts described in pieces, and requests that leave no token to draw."""

from __future__ import annotations

import pytest
import torch

from minillm_serve import LLM, SamplingParams
from minillm_serve.runner import runner
from minillm_serve.sample.sampler import sample
from minillm_serve.seams import SAMPLE, Seams

PROMPT = "Once upon a time there was a small engine that answered many questions at once. " * 8


@pytest.mark.parametrize("rows_at_once", [1, 7, 10_000])
def test_prompt_logprobs_do_not_hang_on_how_many_rows_exist_at_once(tiny_model_dir, monkeypatch, rows_at_once):
    params = SamplingParams(max_tokens=2, temperature=0, prompt_logprobs=3)
    llm = LLM(tiny_model_dir, num_kv_blocks=64)
    [expected] = llm.generate(PROMPT, params)
    monkeypatch.setattr(runner, "DESCRIBED_ROWS", rows_at_once)
    [got] = llm.generate(PROMPT, params)
    assert len(expected.prompt_token_ids) > 100
    for mine, theirs in zip(got.prompt_logprobs[1:], expected.prompt_logprobs[1:], strict=True):
        assert (mine.token, mine.rank) == (theirs.token, theirs.rank)
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)
    assert [entry.token for entry in got.prompt_logprobs[1:]] == list(got.prompt_token_ids[1:])


def test_a_request_that_forbids_every_token_ends_alone_with_an_error(tiny_model_dir):
    llm = LLM(tiny_model_dir, num_kv_blocks=64)
    nothing = SamplingParams(max_tokens=8, allowed_token_ids=[40], bad_words_ids=[[40]], seed=1, logprobs=1)
    later = SamplingParams(max_tokens=8, allowed_token_ids=[40, 41], bad_words_ids=[[40, 40], [40, 41], [41]], seed=1)
    fine = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
    first, second, third = (output.outputs[0] for output in llm.generate(["a", "b", "c"], [nothing, later, fine]))
    assert (first.finish_reason, tuple(first.token_ids)) == ("error", ())
    assert (second.finish_reason, tuple(second.token_ids)) == ("error", (40,))
    assert (third.finish_reason, len(third.token_ids)) == ("length", 8)
    assert llm.stats().kv_blocks_used == 0


def test_a_sampler_of_ones_own_sees_what_the_request_forbids(tiny_model_dir):
    seen = []

    def mine(logits, settings):
        seen.append(torch.isneginf(logits).sum(-1).tolist())
        return sample(logits, settings)

    llm = LLM(tiny_model_dir, num_kv_blocks=64, seams=Seams({SAMPLE: mine}))
    llm.generate(["a", "b"], [SamplingParams(max_tokens=1), SamplingParams(max_tokens=1, allowed_token_ids=[7, 8, 9])])
    assert seen == [[0, 509]]
