"""The int8 engine: 8-bit weights and activations from the configuration down to the tokens."""

from __future__ import annotations

import pytest
import torch

from minillm_kernels import resolve
from minillm_serve import LLM, SamplingParams
from minillm_serve.config import ConfigError
from minillm_serve.model.linear import Unquantized, weight_bytes
from minillm_serve.quant.int8 import Int8

PROMPTS = ["Once upon a time", "The scheduler gives every request its share", "What is the capital of France?"]
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)


def tokens(model, **settings) -> list[tuple[int, ...]]:
    with LLM(model, num_kv_blocks=64, **settings) as llm:
        return [tuple(output.outputs[0].token_ids) for output in llm.generate(PROMPTS, GREEDY)]


def test_a_layer_holds_one_byte_a_weight_and_stays_near_the_fp32_one():
    torch.manual_seed(0)
    ops = resolve()
    weight, bias, x = torch.randn(96, 64), torch.randn(96), torch.randn(10, 64)
    whole, short = (method(ops).make(weight, bias) for method in (Unquantized, Int8))
    assert (weight_bytes(whole), weight_bytes(short)) == (4 * weight.numel(), weight.numel() + 4 * len(weight))
    exact, rounded = whole(x), short(x)
    assert 0 < (rounded - exact).norm() / (exact - bias).norm() < 0.015


def test_the_int8_engine_gives_the_same_tokens_on_every_backend(tiny_model_dir):
    """The integers are the same, so only the fp32 rounding around them differs."""
    assert tokens(tiny_model_dir, quantization="int8") == tokens(tiny_model_dir, quantization="int8", kernels="ref")


def test_int8_tokens_do_not_depend_on_the_batch_or_on_chunks(tiny_model_dir):
    together = tokens(tiny_model_dir, quantization="int8")
    assert tokens(tiny_model_dir, quantization="int8", max_num_seqs=1) == together
    assert tokens(tiny_model_dir, quantization="int8", max_num_batched_tokens=5, max_num_seqs=5) == together


def test_the_embedding_and_the_norms_keep_the_model_dtype(tiny_model_dir):
    with LLM(tiny_model_dir, num_kv_blocks=8, quantization="int8") as llm:
        weights = llm.core.runner.model.weights
    assert weights.embedding.dtype == weights.final_norm.dtype == torch.float32


def test_an_unknown_quantization_is_refused_by_name(tiny_model_dir):
    with pytest.raises(ConfigError, match="quantization must be one of None, int8, fp8, int4, awq, gptq, got 'int3'"):
        LLM(tiny_model_dir, quantization="int3")
