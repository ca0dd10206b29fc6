"""A prompt's vector is the mean of the model's own hidden states, however the engine came by them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from transformers import AutoModel

from minillm_serve import LLM, PoolingParams, RequestError, SamplingParams
from minillm_serve.config import EngineConfig
from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.engine.replay import verify

TEXTS = [
    "The quick brown fox jumps over the lazy dog",
    "En un lugar de la Mancha, de cuyo nombre no quiero acordarme",
    "a",
    "one two three four five six seven eight nine ten",
]
RAW = PoolingParams(use_activation=False)
CONFIGURATIONS = {
    "roomy": {"num_kv_blocks": 300},
    "one by one": {"num_kv_blocks": 300, "max_num_seqs": 1},
    "chunked": {"num_kv_blocks": 300, "max_num_batched_tokens": 5},
    "no prefix caching": {"num_kv_blocks": 300, "enable_prefix_caching": False},
    "no cache at all": {"attention_backend": "none", "enable_prefix_caching": False},
}


@pytest.fixture(scope="module")
def means(tiny_model_dir):
    """ids -> the mean of transformers' ``last_hidden_state``."""
    model = AutoModel.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()

    @torch.inference_mode()
    def mean(ids):
        return model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0).numpy()

    return mean


def vectors(outputs):
    return np.array([output.outputs.embedding for output in outputs])


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_embeddings_equal_the_mean_of_transformers_hidden_states(tiny_model_dir, means, name):
    with LLM(tiny_model_dir, block_size=4, **CONFIGURATIONS[name]) as llm:
        for _ in range(2):  # the second time the prefix cache knows the prompts, and must not be believed
            outputs = llm.embed(TEXTS, RAW)
            for output in outputs:
                assert output.finished
                np.testing.assert_allclose(output.outputs.embedding, means(output.prompt_token_ids), atol=1e-4)


def test_embeddings_are_the_same_among_decodes_and_after_preemptions(tiny_model_dir, means):
    """Prompts that are pooled and texts that are generated compete for too few blocks."""
    with LLM(tiny_model_dir, block_size=4, num_kv_blocks=24, max_num_batched_tokens=7) as llm:
        generate = SamplingParams(max_tokens=30, temperature=0.0, ignore_eos=True)
        alone = llm.generate(TEXTS, generate)
        prompts = [text for text in TEXTS for _ in range(2)]
        outputs = llm.generate(prompts, [generate, RAW] * len(TEXTS))
        assert llm.stats().num_preemptions > 0, "nothing was preempted: this shows nothing"
        for index, (text, vector) in enumerate(zip(outputs[::2], outputs[1::2], strict=True)):
            assert text.outputs[0].token_ids == alone[index].outputs[0].token_ids
            assert text.embedding is None
            np.testing.assert_allclose(vector.embedding, means(list(vector.prompt_token_ids)), atol=1e-4)
        assert llm.stats().kv_blocks_used == 0


def test_a_pooled_prompt_preempted_in_the_middle_starts_its_sum_over(tiny_model_dir, means):
    """The youngest request is the victim: here a long prompt whose first chunks are summed already."""
    with LLM(tiny_model_dir, block_size=4, num_kv_blocks=20, max_num_batched_tokens=4) as llm:
        core = llm.core
        elder = llm.tokenizer.encode_prompt(TEXTS[0])
        groups = [
            core.prepare(elder, SamplingParams(max_tokens=60 - len(elder), temperature=0.0, ignore_eos=True)),
            core.prepare(llm.tokenizer.encode_prompt(TEXTS[1] * 2)[:60], RAW),
        ]
        for group in groups:
            core.add(str(group.rid), group)
        done = {}
        while core.has_work():
            done.update((output.rid, output) for output in core.step() if output.finished)
            core.scheduler.check()
        pooled = done[groups[1].rid]
        assert pooled.metrics.num_preemptions > 0, "it was not preempted: this shows nothing"
        np.testing.assert_allclose(pooled.embedding, means(list(pooled.prompt_token_ids)), atol=1e-4)


def test_vectors_have_length_one_unless_asked_otherwise(tiny_model_dir):
    with LLM(tiny_model_dir, num_kv_blocks=64) as llm:
        unit, raw = vectors(llm.embed(TEXTS)), vectors(llm.embed(TEXTS, RAW))
        assert np.linalg.norm(unit, axis=1) == pytest.approx(np.ones(len(TEXTS)))
        np.testing.assert_allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)


def test_a_pooled_request_generates_nothing_and_meets_no_lm_head(tiny_model_dir, monkeypatch):
    with LLM(tiny_model_dir, num_kv_blocks=64) as llm:
        monkeypatch.setattr(llm.core.runner.model, "logits", None)
        [output] = llm.generate(TEXTS[:1], PoolingParams())
        assert (output.outputs[0].text, output.outputs[0].token_ids) == ("", ())
        assert output.outputs[0].finish_reason == "stop"
        assert output.num_cached_tokens == 0


def test_likelihoods_are_the_prompt_logprobs_of_a_generation(tiny_model_dir):
    with LLM(tiny_model_dir, num_kv_blocks=64) as llm:
        described = llm.generate(TEXTS, PoolingParams(task="likelihood"))
        generated = llm.generate(TEXTS, SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0))
        for one, other in zip(described, generated, strict=True):
            assert one.embedding is None
            assert one.outputs[0].token_ids == ()
            assert [e and e.token for e in one.prompt_logprobs] == [e and e.token for e in other.prompt_logprobs]
            ours, theirs = ([e.logprob for e in o.prompt_logprobs[1:]] for o in (one, other))
            assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_prompt_may_fill_the_whole_context_and_not_more(tiny_model_dir):
    with LLM(tiny_model_dir, num_kv_blocks=64, max_model_len=40) as llm:
        [output] = llm.embed([[5] * 40])
        assert len(output.prompt_token_ids) == 40
        with pytest.raises(RequestError, match="41 tokens") as refused:
            llm.embed([[5] * 41])
        assert refused.value.param == "prompt"


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"task": "classify"}, "task"), ({"dimensions": 8}, "dimensions"), ({"use_activation": 1}, "use_activation")],
)
def test_pooling_params_refuse_what_they_cannot_do(fields, param):
    with pytest.raises(RequestError) as refused:
        PoolingParams(**fields)
    assert refused.value.param == param


def test_embed_takes_no_other_task(tiny_model_dir):
    with LLM(tiny_model_dir, num_kv_blocks=64) as llm, pytest.raises(RequestError):
        llm.embed("a", PoolingParams(task="likelihood"))


def test_a_trace_of_pooled_and_generated_requests_replays(tiny_model_dir, tmp_path):
    file = tmp_path / "trace.json"
    with LLM(tiny_model_dir, block_size=4, num_kv_blocks=24, max_num_batched_tokens=7, trace_file=file) as llm:
        generate = SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True)
        llm.generate(TEXTS, [generate, RAW, generate, PoolingParams(task="likelihood")])
    assert verify(file) > 0


def test_the_async_engine_embeds_and_forgets_an_abandoned_prompt(tiny_model_dir, means):
    async def scenario():
        config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=64, max_num_batched_tokens=4)
        engine = AsyncEngine.from_config(config)
        await engine.start()
        try:
            abandoned = engine.generate(TEXTS[1] * 3, RAW, "abandoned")
            reader = asyncio.ensure_future(anext(abandoned))
            outputs = [output async for output in engine.generate(TEXTS[0], RAW, "read")]
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await abandoned.aclose()
            again = [output async for output in engine.generate(TEXTS[0], RAW, "again")]
            return outputs, again
        finally:
            await engine.stop()
            assert not engine.core.has_work()

    outputs, again = asyncio.run(scenario())
    assert len(outputs) == len(again) == 1
    expected = means(list(outputs[0].prompt_token_ids))
    np.testing.assert_allclose(outputs[0].embedding, expected, atol=1e-4)
    np.testing.assert_allclose(again[0].embedding, expected, atol=1e-4)


def test_scores_are_probabilities_and_do_not_depend_on_the_batch(tiny_model_dir):
    with LLM(tiny_model_dir, num_kv_blocks=300) as llm:
        together = [output.outputs.score for output in llm.score("What is it?", TEXTS)]
        alone = [llm.score("What is it?", text)[0].outputs.score for text in TEXTS]
        assert together == pytest.approx(alone, abs=1e-6)
        assert all(0 < score <= 1 for score in together)
        assert len(llm.score(["a", "b"], TEXTS[:2])) == 2
        for queries, documents in ((["a", "b"], TEXTS), ([], TEXTS), ("a", []), (" ", TEXTS)):
            with pytest.raises(RequestError):
                llm.score(queries, documents)
