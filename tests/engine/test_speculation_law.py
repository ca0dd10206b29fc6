"""The whole engine draws from the target's distribution, by every rule and whoever drafts.

The law of whole texts is computed from the model itself; sampled texts are held to it by a χ² test. Rules that are
wrong fail it: so the test can see.
"""

from __future__ import annotations

import functools
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from chi_squared import chi_squared
from test_speculation import drafting

from minillm_serve import LLM, SamplingParams
from minillm_serve.attention.backends import KVCache
from minillm_serve.sample.rejection import probabilities, verify
from minillm_serve.sample.sampler import SampleSettings
from minillm_serve.seams import SPEC_VERIFY, Seams

PROMPT = [60, 61, 62, 60, 61]
TOKENS = 4  # the first one is drawn with the prompt: drafts decide the others
TOP_K, TEMPERATURE = 3, 1.5
TEXTS = 25_000  # of four tokens: 100,000 draws


@functools.cache
def law(folder: Path) -> dict[tuple[int, ...], float]:
    """The probability of every text."""
    model = LLM(folder, num_kv_blocks=8).core.runner.model
    texts = {(): 1.0}
    for _ in range(TOKENS):
        longer = {}
        for text, before in texts.items():
            for token, share in _next(model, [*PROMPT, *text]).items():
                longer[*text, token] = before * share
        texts = longer
    return texts


@torch.inference_mode()
def _next(model, ids: list[int]) -> dict[int, float]:
    count = len(ids)
    cache = KVCache(model.config, model.ops, 4, 16, torch.float32)
    attention = cache.plan(torch.arange(count), torch.arange(4)[None], [count], [count])
    logits = model.forward(torch.tensor(ids), torch.arange(count), attention, torch.tensor([count - 1]))
    one = [torch.tensor([value]) for value in (TEMPERATURE, TOP_K, 1.0, 0.0, 1.0, 0, 0)]
    shares = probabilities(logits, SampleSettings(*one))[0]
    return {int(token): float(shares[token]) for token in shares.nonzero().flatten()}


def sampled(folder: Path, rule: dict, seams: Seams | None = None, texts: int = TEXTS) -> tuple[np.ndarray, np.ndarray]:
    """How often each text came, and its probability; in the last place, those that the model cannot say."""
    llm = LLM(folder, speculative_config=rule, max_num_seqs=128, num_kv_blocks=512, seams=seams)
    params = [
        SamplingParams(temperature=TEMPERATURE, top_k=TOP_K, seed=seed, max_tokens=TOKENS, ignore_eos=True)
        for seed in range(texts)
    ]
    expected = law(folder)
    place = {text: index for index, text in enumerate(expected)}
    counts = np.zeros(len(expected) + 1)
    for output in llm.generate([PROMPT] * texts, params):
        counts[place.get(tuple(output.outputs[0].token_ids), -1)] += 1
    return counts, np.array([*expected.values(), 0.0])


RULES = {
    "match": {},
    "match, drafts drawn with the same noise": {"draft_sample_method": "probabilistic"},
    "standard, likeliest drafts": {"rejection_sample_method": "standard"},
    "standard, drafts drawn": {"rejection_sample_method": "standard", "draft_sample_method": "probabilistic"},
}


@pytest.mark.parametrize("rule", RULES)
def test_texts_follow_the_law_of_the_model(tiny_model_dir, rule):
    counts, shares = sampled(tiny_model_dir, drafting(tiny_model_dir, "draft_model") | RULES[rule])
    assert chi_squared(counts, shares).p > 0.01


def always_accept(drafts, draft_probs, target_probs, uniforms):
    return [*drafts, int(target_probs[-1].argmax())]


def draw_from_the_target_when_a_draft_falls(drafts, draft_probs, target_probs, uniforms):
    """The right acceptance, and then a draw that forgets what acceptance has favoured already."""
    tokens = []
    for place, draft in enumerate(drafts):
        target = target_probs[place]
        if uniforms[place, 0] * draft_probs[place, draft] >= target[draft]:
            return [*tokens, int(np.searchsorted(target.cumsum(), uniforms[place, 1] * target.sum(), side="right"))]
        tokens.append(draft)
    return [*tokens, *verify([], None, target_probs[-1:], uniforms[-1:])]


@pytest.mark.parametrize("wrong", [always_accept, draw_from_the_target_when_a_draft_falls])
def test_a_wrong_rule_is_found_out(tiny_model_dir, wrong):
    rule = drafting(tiny_model_dir, "draft_model") | RULES["standard, drafts drawn"]
    counts, shares = sampled(tiny_model_dir, rule, Seams({SPEC_VERIFY: wrong}), TEXTS // 6)
    assert chi_squared(counts, shares).p < 1e-4


def test_the_law_has_many_texts_and_none_that_is_certain(tiny_model_dir):
    shares = list(law(tiny_model_dir).values())
    assert len(shares) == len(set(product(range(TOP_K), repeat=TOKENS)))
    assert max(shares) < 0.5 and abs(sum(shares) - 1) < 1e-9
