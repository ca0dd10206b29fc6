"""The real model says on the GPU what it says on the CPU, as far as the arithmetic of the two can tell tokens apart.

The judge is the CPU engine in float32. It reads prompt and answer of the other engine, and says at every position how
many nats the token that stands there is less likely than the likeliest one: its *gap*. A gap of 0 is the judge's own
choice, so texts are the same up to the first gap above 0; there, and behind it, a gap must be as small as rounding
makes it. With `MINILLM_TEST_MODEL` another model (a folder, or a .gguf file) takes the place of the one in the cache.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from minillm_serve import LLM, PoolingParams, RequestOutput, SamplingParams, StructuredOutputsParams
from minillm_serve.bench.perplexity import fixed_text
from minillm_serve.model.store import DEFAULT_MODEL

MODEL = os.environ.get("MINILLM_TEST_MODEL", DEFAULT_MODEL)
GPU = {"device": "cuda"}
NEW_TOKENS, LONG = 48, 640
GREEDY = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "The three laws of thermodynamics say that",
    "To bake a loaf of bread you need",
    "Había una vez un niño que",
    "La capital de España es",
    "Para hacer una tortilla de patatas se necesitan",
    "def fibonacci(n):\n",
    "import numpy as np\n\ndef softmax(x):\n",
    "SELECT name, age FROM users WHERE",
    "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n",
)  # and the long one


@dataclass(frozen=True)
class Tolerance:
    """Nats. largest: of any one gap; mean: over many positions, where a fault that is small everywhere shows."""

    largest: float
    mean: float


# Measured on a CPU: the engine in that arithmetic judged by its own float32, with these prompts, 48 tokens each. The
# bounds leave twice that or more, for a GPU rounds at other places and so meets other near ties.
#
# float32: sums in another order move a logit by some 1e-5.
# bfloat16: logits of this model lie between 8 and 45, where bfloat16's steps are 1/16 to 1/4; rounding two of them
# moves their difference by up to one step, here 1/4. With what the layers add, the difference of the two likeliest was
# off by 0.09 nats rms. A wrong token needs an error above its gap: largest gap 0.145, mean 0.0008.
# int8 KV: 0.118 and 0.0005, no worse than bfloat16 by itself. fp8 KV, with three bits of mantissa: 0.86 and 0.011.
# 8-bit activations turn any difference upstream into whole steps of 1/127 or 1/16 of a value: against a judge of the
# same quantization, int8 1.1 and 0.011, fp8 1.5 and 0.029. int4 rounds weights alone: bfloat16 1.0 and 0.014; in
# float32 like float32.
FLOAT32 = Tolerance(1e-3, 1e-5)
BFLOAT16 = Tolerance(0.3, 0.004)
FP8_KV = Tolerance(1.8, 0.03)
QUANTIZED = {"int8": Tolerance(2.2, 0.03), "fp8": Tolerance(3.0, 0.06), "int4": Tolerance(2.0, 0.04)}


def engine(model: Any = MODEL, **settings: Any) -> LLM:
    return LLM(model, **({"num_kv_blocks": 320, "max_num_seqs": 16} | settings))


def prompts_of(llm: LLM) -> list[list[int]]:
    encode = llm.tokenizer.encode
    return [*map(encode, PROMPTS), encode(fixed_text())[:LONG]]


def answers(llm: LLM, prompts: Sequence[Sequence[int]], params: SamplingParams = GREEDY) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in llm.generate(prompts, params)]


def gaps(judge: LLM, prompts: Sequence[list[int]], texts: Sequence[list[int]]) -> list[list[float]]:
    """For every token of every text how much less likely than the likeliest token the judge finds it, in nats."""
    asked = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1)
    read = judge.generate([prompt + text for prompt, text in zip(prompts, texts, strict=True)], asked)
    return [
        [max(entry.top[0][1] - entry.logprob, 0.0) for entry in output.prompt_logprobs[len(prompt) :]]
        for output, prompt in zip(read, prompts, strict=True)
    ]


def check(judge: LLM, prompts: Sequence[list[int]], texts: Sequence[list[int]], tolerance: Tolerance) -> None:
    """Every gap is within the tolerance. Prints how far the texts were the judge's own."""
    found = gaps(judge, prompts, texts)
    assert [len(row) for row in found] == [len(text) for text in texts]
    flat = [gap for row in found for gap in row]
    assert all(map(math.isfinite, flat))
    same = sum(not any(row) for row in found)
    largest, mean = max(flat), sum(flat) / len(flat)
    print(f"{same} of {len(texts)} texts the same, largest gap {largest:.4f}, mean {mean:.6f}")
    wrong = [
        f"prompt {number}, token {at}: {text[at]} {judge.tokenizer.decode([text[at]])!r} after "
        f"{judge.tokenizer.decode(text[:at])!r} is {row[at]:.4f} nats behind"
        for number, (text, row) in enumerate(zip(texts, found, strict=True))
        for at in range(len(text))
        if row[at] > tolerance.largest
    ]
    assert not wrong, "\n".join(wrong[:10])
    assert sum(flat) <= tolerance.mean * len(flat) + tolerance.largest  # one near tie says nothing of a short text


def watch(llm: LLM) -> Counter[str]:
    """From here on: steps, those of them planned ahead of the one before, decode steps, CUDA graphs replayed."""
    counts: Counter[str] = Counter()
    scheduler, graphs = llm.core.scheduler, llm.core.runner.graphs
    schedule, run = scheduler.schedule, graphs.run

    def scheduled(ahead: bool = False) -> Any:
        counts.update(steps=1, ahead=int(ahead))
        return schedule(ahead)

    def ran(size: int) -> Any:
        counts.update(decodes=1, graphs=int(not graphs.eager))
        return run(size)

    scheduler.schedule, graphs.run = scheduled, ran
    return counts


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(max((os.cpu_count() or 1) // 2, 1), 8))  # threads that share a core wait for each other
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def judge() -> LLM:
    return engine()


@pytest.fixture(scope="module")
def gpu() -> LLM:
    return engine(**GPU)


@pytest.fixture(scope="module")
def gpu32() -> LLM:
    return engine(**GPU, dtype="float32")


def on_gpu(test: Any) -> Any:
    for mark in (
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
        pytest.mark.gpu,
        pytest.mark.model,
    ):
        test = mark(test)
    return test


VARIANTS: dict[str, tuple[dict[str, Any], Tolerance]] = {
    "bfloat16": ({}, BFLOAT16),
    "bfloat16, eager": ({"enforce_eager": True}, BFLOAT16),
    "bfloat16, chunks": ({"max_num_batched_tokens": 64, "max_num_seqs": 5}, BFLOAT16),
    "bfloat16, preempted": ({"num_kv_blocks": 60}, BFLOAT16),
    "bfloat16, int8 KV": ({"kv_cache_dtype": "int8"}, BFLOAT16),
    "bfloat16, fp8 KV": ({"kv_cache_dtype": "fp8"}, FP8_KV),
    "float32": ({"dtype": "float32"}, FLOAT32),
    "float32, chunks": ({"dtype": "float32", "max_num_batched_tokens": 64, "max_num_seqs": 5}, FLOAT32),
}


@on_gpu
@pytest.mark.parametrize("name", VARIANTS)
def test_greedy_text_is_the_cpu_engines(judge: LLM, name: str) -> None:
    settings, tolerance = VARIANTS[name]
    llm, prompts = engine(**GPU, **settings), prompts_of(judge)
    counts = watch(llm)
    texts = answers(llm, prompts)
    assert [len(text) for text in texts] == [NEW_TOKENS] * len(prompts)
    check(judge, prompts, texts, tolerance)
    assert "Paris" in judge.tokenizer.decode(texts[0])
    assert counts["decodes"] >= NEW_TOKENS // 2, "hardly a step was a decode step: this shows nothing of the graphs"
    assert counts["graphs"] == (0 if settings.get("enforce_eager") else counts["decodes"])
    assert counts["ahead"] > 0.8 * counts["steps"]
    if "preempted" in name:
        assert llm.stats().num_preemptions > 0
    if "chunks" in name:
        assert counts["steps"] > LONG // 64 + NEW_TOKENS


@on_gpu
def test_after_a_prefix_hit_the_text_is_the_cpu_engines(judge: LLM, gpu: LLM) -> None:
    long = prompts_of(judge)[-1]
    prompts = [long + judge.tokenizer.encode(more) for more in ("", " In short,", "\n\nEn resumen,")]
    answers(gpu, [long])
    outputs = gpu.generate(prompts, GREEDY)
    assert all(output.num_cached_tokens >= LONG - 16 for output in outputs)
    check(judge, prompts, [list(output.outputs[0].token_ids) for output in outputs], BFLOAT16)


@on_gpu
@pytest.mark.parametrize("quantization", QUANTIZED)
def test_quantised_text_is_that_of_the_cpu_engine_quantised_alike(quantization: str) -> None:
    """Judged by the same rounded weights, and by whether Paris is still the capital of France."""
    cpu, llm = engine(quantization=quantization), engine(**GPU, quantization=quantization)
    prompts = prompts_of(cpu)[:-1]
    texts = answers(llm, prompts)
    check(cpu, prompts, texts, QUANTIZED[quantization])
    assert "Paris" in cpu.tokenizer.decode(texts[0])


@on_gpu
def test_int4_in_float32_rounds_nothing_but_its_weights() -> None:
    cpu, llm = engine(quantization="int4"), engine(**GPU, quantization="int4", dtype="float32")
    prompts = prompts_of(cpu)[:-1]
    check(cpu, prompts, answers(llm, prompts), FLOAT32)


FEATURES: dict[str, dict[str, Any]] = {
    "temperature": {},
    "hot": {"temperature": 1.5},
    "top_k": {"top_k": 20},
    "top_p": {"top_p": 0.9},
    "top_k and top_p": {"top_k": 50, "top_p": 0.8},
    "min_p": {"min_p": 0.05},
    "typical_p": {"typical_p": 0.8},
    "repetition_penalty": {"temperature": 0, "repetition_penalty": 1.3},
    "presence_penalty": {"temperature": 0, "presence_penalty": 1.5},
    "frequency_penalty": {"temperature": 0.7, "frequency_penalty": 0.8},
    "logit_bias": {"temperature": 0, "logit_bias": {28: -100.0, 30: 3.0}},
    "bad_words": {"temperature": 0, "bad_words": ("the", "Paris", "de")},
    "stop": {"temperature": 0, "stop": (".", "\n")},
    "n": {"n": 3, "top_p": 0.95},
    "all": {"top_k": 40, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.1, "presence_penalty": 0.3},
}


def featured(number: int, name: str) -> SamplingParams:
    return SamplingParams(**({"temperature": 0.9, "seed": 100 + number, "max_tokens": 32} | FEATURES[name]))


def told(output: RequestOutput) -> list[tuple[Any, ...]]:
    return [(tuple(o.token_ids), o.text, o.finish_reason, o.stop_reason) for o in output.outputs]


@on_gpu
def test_draws_penalties_and_stops_are_the_cpu_engines_in_float32(judge: LLM, gpu32: LLM) -> None:
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(len(FEATURES))]
    params = [featured(number, name) for number, name in enumerate(FEATURES)]
    expected, got = (llm.generate(prompts, params) for llm in (judge, gpu32))
    for name, theirs, ours in zip(FEATURES, expected, got, strict=True):
        assert told(ours) == told(theirs), name


@on_gpu
def test_log_probabilities_are_the_cpu_engines(judge: LLM, gpu: LLM, gpu32: LLM) -> None:
    prompts = prompts_of(judge)
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logprobs=5, prompt_logprobs=2)
    asked = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    for llm, largest, mean in ((gpu, 0.6, 0.06), (gpu32, 1e-3, 1e-4)):
        outputs = llm.generate(prompts, params)
        read = judge.generate([[*o.prompt_token_ids, *o.outputs[0].token_ids] for o in outputs], asked)
        off = []
        for ours, theirs in zip(outputs, read, strict=True):
            mine = [*ours.prompt_logprobs, *ours.outputs[0].logprobs]
            assert [len(entry.top) for entry in mine[1:]] == [2] * (len(ours.prompt_logprobs) - 1) + [5] * 12
            for a, b in zip(mine[1:], theirs.prompt_logprobs[1:], strict=True):
                assert a.token == b.token
                if b.logprob > -5:  # what is hardly thought of is a difference of large numbers
                    off.append(abs(a.logprob - b.logprob))
        print(f"log-probabilities differ by up to {max(off):.5f}, {sum(off) / len(off):.6f} in the mean")
        assert max(off) < largest
        assert sum(off) / len(off) < mean


SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1, "maxLength": 40},
        "year": {"type": "integer", "minimum": 1450, "maximum": 2030},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
        "read": {"type": "boolean"},
    },
    "required": ["title", "year", "tags"],
    "additionalProperties": False,
}
BOOKS = ("A famous novel as JSON: ", "Una novela famosa en JSON: ", "The book I like most, in JSON: ")


def guided(**more: Any) -> SamplingParams:
    constraint = StructuredOutputsParams(json=SCHEMA, always_closes=True)
    return SamplingParams(structured_outputs=constraint, **({"max_tokens": 140, "temperature": 0} | more))


@on_gpu
def test_guided_texts_keep_to_their_schema_beside_free_ones(judge: LLM, gpu: LLM) -> None:
    params = [guided(), guided(temperature=0.8, seed=1), guided(temperature=1.2, seed=2, top_p=0.95)]
    choice = SamplingParams(temperature=0, structured_outputs=StructuredOutputsParams(choice=("yes", "no")))
    outputs = gpu.generate([*BOOKS, "Is water wet? ", PROMPTS[0]], [*params, choice, GREEDY])
    for output in outputs[:3]:
        assert output.outputs[0].finish_reason == "stop"
        book = json.loads(output.outputs[0].text)
        assert {"title", "year", "tags"} <= book.keys() <= SCHEMA["properties"].keys()
        assert isinstance(book["title"], str) and 1450 <= book["year"] <= 2030 and isinstance(book["tags"], list)
    assert outputs[3].outputs[0].text in ("yes", "no")
    free = judge.tokenizer.encode(PROMPTS[0])
    check(judge, [free], [list(outputs[4].outputs[0].token_ids)], BFLOAT16)


@on_gpu
def test_guided_texts_are_the_cpu_engines_in_float32(judge: LLM, gpu32: LLM) -> None:
    params = [guided(), guided(temperature=0.8, seed=1), guided(temperature=1.2, seed=2, top_p=0.95)]
    expected, got = (llm.generate(BOOKS, params) for llm in (judge, gpu32))
    assert [told(output) for output in got] == [told(output) for output in expected]


@on_gpu
def test_embeddings_and_scores_are_the_cpu_engines(judge: LLM, gpu: LLM, gpu32: LLM) -> None:
    prompts, documents = prompts_of(judge), ["Paris is in France.", "Water boils at 100 degrees.", "El perro ladra."]
    expected, scored = (embedded(judge, prompts), scores(judge, documents))
    torch.testing.assert_close(embedded(gpu32, prompts), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(scores(gpu32, documents), scored, atol=1e-4, rtol=1e-3)
    cosines = (embedded(gpu, prompts) * expected).sum(1)
    print(f"embeddings: smallest cosine {cosines.min():.6f}; scores {scores(gpu, documents).tolist()}")
    assert cosines.min() > 0.999
    assert scores(gpu, documents).argmax() == scored.argmax()


def embedded(llm: LLM, prompts: Sequence[list[int]]) -> torch.Tensor:
    return torch.tensor([output.outputs.embedding for output in llm.embed(prompts, PoolingParams())])


def scores(llm: LLM, documents: list[str]) -> torch.Tensor:
    return torch.tensor([output.outputs.score for output in llm.score("Where is the Eiffel tower?", documents)])


@pytest.mark.model
def test_bfloat16_on_the_cpu_keeps_to_the_tolerance(judge: LLM) -> None:
    """What the bounds rest on; without a GPU, the same judgement of the same prompts."""
    prompts = prompts_of(judge)
    mine = answers(judge, prompts)
    check(judge, prompts, mine, FLOAT32)
    theirs = answers(engine(dtype="bfloat16"), prompts)
    assert theirs != mine, "bfloat16 changed nothing: this shows nothing"
    check(judge, prompts, theirs, BFLOAT16)


TINY = {"num_kv_blocks": 60, "max_num_seqs": 4, "max_model_len": 96, "kernels": "triton", "async_scheduling": True}
TINY |= GPU if torch.cuda.is_available() else {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_judgement_on_a_tiny_model(tiny_model_dir: Any, dtype: str) -> None:
    """The same, on Triton's kernels wherever they run here; and a text with one wrong token does not pass."""
    pytest.importorskip("triton", reason="triton is not installed")
    cpu, llm = engine(tiny_model_dir), engine(tiny_model_dir, dtype=dtype, **TINY)
    prompts, params = (
        [[5, 6, 7], [9], list(range(20, 45))],
        SamplingParams(temperature=0, max_tokens=8, ignore_eos=True),
    )
    tolerance = FLOAT32 if dtype == "float32" else BFLOAT16
    counts = watch(llm)
    texts = answers(llm, prompts, params)
    check(cpu, prompts, texts, tolerance)
    assert counts["ahead"] == counts["steps"] - 1
    assert counts["decodes"] == 7
    texts[1][4] = (texts[1][4] + 1) % 512
    with pytest.raises(AssertionError, match="prompt 1, token 4"):
        check(cpu, prompts, texts, tolerance)
