"""A paged attention, a block key and a schema compiler of somebody else's, in the engine."""

from __future__ import annotations

import pytest
import torch

from minillm_kernels import ref
from minillm_kernels.kv_cache import PagedLayer
from minillm_serve import LLM, SamplingParams
from minillm_serve.config import ConfigError
from minillm_serve.kv.prefix_cache import block_key
from minillm_serve.params import RequestError, StructuredOutputsParams
from minillm_serve.seams import ATTENTION_PAGED, GUIDED_COMPILE, KV_BLOCK_KEY, Seams

PROMPTS = ["one", "two two", "three three three three three three three three three three three three", "four"]
GREEDY = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)
LETTERS = {"type": "string"}


def ids(llm: LLM, prompts=PROMPTS, params=GREEDY) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in llm.generate(prompts, params)]


def plain_attention(queries, keys, values, tables, seq_lens, query_lens, scale):
    """The specification, over the seam's plain lists."""
    width = max(map(len, tables))
    padded = torch.tensor([table + [0] * (width - len(table)) for table in tables])
    return ref.attention(queries, PagedLayer(keys, values), ref.AttentionPlan(padded, seq_lens, query_lens), scale)


def test_another_attention_sees_plain_lists_and_gives_the_same_tokens(tiny_model_dir):
    seen = []

    def mine(queries, keys, values, tables, seq_lens, query_lens, scale):
        seen.append((tables, seq_lens, query_lens))
        assert sum(query_lens) == len(queries) and keys.shape == values.shape
        assert all(len(t) == -(-n // keys.shape[1]) for t, n in zip(tables, seq_lens, strict=True))
        return plain_attention(queries, keys, values, tables, seq_lens, query_lens, scale)

    llm = LLM(tiny_model_dir, num_kv_blocks=64, seams=Seams({ATTENTION_PAGED: mine}))
    assert ids(llm) == ids(LLM(tiny_model_dir, num_kv_blocks=64))
    assert all(type(block) is int for tables, _, _ in seen for table in tables for block in table)


def test_a_wrong_attention_changes_the_text_and_a_misshapen_one_is_refused(tiny_model_dir):
    def blind(queries, *_):
        return torch.zeros_like(queries)

    assert ids(LLM(tiny_model_dir, num_kv_blocks=64, seams=Seams({ATTENTION_PAGED: blind}))) != ids(
        LLM(tiny_model_dir, num_kv_blocks=64)
    )
    llm = LLM(tiny_model_dir, num_kv_blocks=64, seams=Seams({ATTENTION_PAGED: lambda queries, *_: queries[:, :1]}))
    with pytest.raises(ValueError, match="must return a tensor of shape"):
        ids(llm)


@pytest.mark.parametrize("setting", [{"kernels": "ref"}, {"attention_backend": "none"}, {"kv_cache_dtype": "int8"}])
def test_another_attention_is_refused_where_it_could_not_be_used(tiny_model_dir, setting):
    with pytest.raises(ConfigError, match=r"attention\.paged needs"):
        LLM(tiny_model_dir, seams=Seams({ATTENTION_PAGED: plain_attention}), **setting)


def test_another_block_key_finds_prefixes_and_a_weak_one_serves_the_wrong_memory(tiny_model_dir):
    prompt = [5, 6, 7, 8] * 10
    other = [8, 7, 6, 5] * 10
    found = []

    def same(parent, tokens):
        found.append(len(tokens))
        return block_key(parent, tokens)

    def of_the_sum(parent, tokens):
        return bytes(parent) + sum(tokens).to_bytes(4, "little")

    sound, honest, weak = (
        LLM(tiny_model_dir, num_kv_blocks=64, block_size=8, seams=seams)
        for seams in (None, Seams({KV_BLOCK_KEY: same}), Seams({KV_BLOCK_KEY: of_the_sum}))
    )
    for llm in (sound, honest, weak):
        ids(llm, [prompt])
    assert set(found) == {8}
    truth = ids(sound, [other])
    assert ids(honest, [other]) == truth
    assert ids(weak, [other]) != truth
    assert weak.core.scheduler.kv.stats.hits == 32 and honest.core.scheduler.kv.stats.hits == 0


class ThreeWords:
    """Three tokens of letters, then the end."""

    def __init__(self, schema, texts, end):
        assert schema == LETTERS and isinstance(end, int)
        self.words = [i for i, text in enumerate(texts) if text and text.isalpha()]
        self.end, self.taken = end, 0

    def allowed(self):
        return [self.end] if self.taken == 3 else self.words

    def accept(self, token):
        assert token in self.words
        self.taken += 1


def guided(**kind) -> SamplingParams:
    return SamplingParams(max_tokens=12, temperature=1.0, seed=3, structured_outputs=StructuredOutputsParams(**kind))


def test_another_compiler_decides_what_may_come(tiny_model_dir):
    llm = LLM(tiny_model_dir, num_kv_blocks=64, seams=Seams({GUIDED_COMPILE: ThreeWords}))
    for output in llm.generate(PROMPTS, guided(json=LETTERS)):
        assert output.outputs[0].text.isalpha() and output.outputs[0].finish_reason == "stop"
        assert len(output.outputs[0].token_ids) == 4
    drafted = LLM(
        tiny_model_dir,
        num_kv_blocks=64,
        seams=Seams({GUIDED_COMPILE: ThreeWords}),
        speculative_config={"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1},
    )
    same = drafted.generate(PROMPTS, guided(json=LETTERS))
    assert all(output.outputs[0].text.isalpha() and len(output.outputs[0].token_ids) == 4 for output in same)


def test_what_another_compiler_does_not_know_is_refused(tiny_model_dir):
    def broken(schema, texts, end):
        raise KeyError("oneOf")

    class Mute(ThreeWords):
        def allowed(self):
            return []

    llm = LLM(tiny_model_dir, num_kv_blocks=64, seams=Seams({GUIDED_COMPILE: ThreeWords}))
    with pytest.raises(RequestError, match="JSON schemas alone"):
        llm.generate(PROMPTS, guided(regex="a+"))
    for compiler, words in ((broken, "oneOf"), (Mute, "no token at all")):
        refusing = LLM(tiny_model_dir, num_kv_blocks=64, seams=Seams({GUIDED_COMPILE: compiler}))
        with pytest.raises(RequestError, match=words):
            refusing.generate(PROMPTS, guided(json=LETTERS))
