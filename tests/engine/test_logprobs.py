"""Log-probabilities are the model's own: those of a transformers forward, however the engine came by them."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from minillm_serve import LLM, SamplingParams

PROMPTS = [
    "The quick brown fox jumps over the lazy dog",
    "En un lugar de la Mancha",
    "one two three four five six seven",
]
TOP = 4
ASKED = {"max_tokens": 14, "ignore_eos": True, "logprobs": TOP, "prompt_logprobs": TOP}
# A draw that the raw log-probabilities know nothing of.
WARM = SamplingParams(temperature=1.4, top_k=50, repetition_penalty=1.3, seed=3, **ASKED)
GREEDY = SamplingParams(temperature=0.0, **ASKED)
CONFIGURATIONS = {
    "roomy": {"num_kv_blocks": 300},
    "chunked": {"num_kv_blocks": 300, "max_num_batched_tokens": 5},
    "preempted": {"num_kv_blocks": 24},
    "preempted and chunked": {"num_kv_blocks": 24, "max_num_batched_tokens": 5},
    "no prefix caching": {"num_kv_blocks": 300, "enable_prefix_caching": False},
}


@pytest.fixture(scope="module")
def reference(tiny_model_dir):
    """token ids -> log-probabilities of the next token after each of them, [tokens, vocab]."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()

    @torch.inference_mode()
    def logprobs(ids):
        return model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)

    return logprobs


def check(entries, tokens, rows):
    """entries: TokenLogprobs of tokens; rows: the reference's log-probabilities where each of them was chosen."""
    assert len(entries) == len(tokens)
    for entry, token, row in zip(entries, tokens, rows, strict=True):
        assert entry.token == token
        assert entry.logprob == pytest.approx(row[token].item(), abs=2e-3)
        assert abs(entry.rank - (1 + int((row > row[token]).sum()))) <= 1, "ranks may swap within the tolerance"
        assert len(entry.top) == TOP
        values = [value for _, value in entry.top]
        assert values == sorted(values, reverse=True)
        assert values == pytest.approx(row.topk(TOP).values.tolist(), abs=2e-3)
        assert all(value == pytest.approx(row[id].item(), abs=2e-3) for id, value in entry.top)


@pytest.mark.parametrize("params", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logprobs_equal_transformers_in_every_configuration(tiny_model_dir, reference, name, params):
    llm = LLM(tiny_model_dir, block_size=4, **CONFIGURATIONS[name])
    first = llm.generate(PROMPTS, params)
    for output in (*first, *llm.generate(PROMPTS, params)):  # the second time with a warm cache
        [sample] = output.outputs
        prompt = output.prompt_token_ids
        rows = reference([*prompt, *sample.token_ids])
        assert output.prompt_logprobs[0] is None, "nothing predicts the first token"
        check(output.prompt_logprobs[1:], prompt[1:], rows[: len(prompt) - 1])
        check(sample.logprobs, sample.token_ids, rows[len(prompt) - 1 : -1])
        assert sample.cumulative_logprob == pytest.approx(sum(entry.logprob for entry in sample.logprobs))
    if "preempted" in name:
        assert llm.stats().num_preemptions > 0


def test_who_does_not_ask_gets_none_beside_one_who_does(tiny_model_dir):
    llm = LLM(tiny_model_dir, num_kv_blocks=64)
    plain = SamplingParams(temperature=0.0, max_tokens=14, ignore_eos=True)
    asked, other = llm.generate([PROMPTS[0]] * 2, [GREEDY, plain])
    assert asked.outputs[0].token_ids == other.outputs[0].token_ids
    assert other.prompt_logprobs is None
    assert other.outputs[0].logprobs is None and other.outputs[0].cumulative_logprob is None


def test_zero_asks_for_the_chosen_token_alone(tiny_model_dir):
    llm = LLM(tiny_model_dir, num_kv_blocks=64)
    [output] = llm.generate(PROMPTS[0], SamplingParams(max_tokens=5, logprobs=0, seed=1))
    assert [entry.token for entry in output.outputs[0].logprobs] == list(output.outputs[0].token_ids)
    assert all(entry.top == () for entry in output.outputs[0].logprobs)


def test_samples_have_their_own_logprobs_and_one_prompt(tiny_model_dir, reference):
    llm = LLM(tiny_model_dir, block_size=4, num_kv_blocks=300)
    [output] = llm.generate(PROMPTS[0], SamplingParams(n=3, seed=8, temperature=1.0, **ASKED))
    prompt = output.prompt_token_ids
    for sample in output.outputs:
        rows = reference([*prompt, *sample.token_ids])
        check(sample.logprobs, sample.token_ids, rows[len(prompt) - 1 : -1])
        check(output.prompt_logprobs[1:], prompt[1:], rows[: len(prompt) - 1])


def test_snapshots_have_as_many_logprobs_as_tokens(tiny_model_dir):
    core = LLM(tiny_model_dir, num_kv_blocks=64, max_num_batched_tokens=4).core
    core.add("stream", core.prepare(PROMPTS[0], WARM))
    snapshots = [output for _ in range(60) if core.has_work() for output in core.step()]
    for count, output in enumerate(snapshots, start=1):
        [sample] = output.outputs
        assert [entry.token for entry in sample.logprobs] == list(sample.token_ids) and len(sample.token_ids) == count
        assert None not in output.prompt_logprobs[1:]
    assert snapshots[-1].finished
