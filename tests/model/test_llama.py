"""Our model code computes what transformers computes, on shapes that are not powers of two."""

from __future__ import annotations

import pytest
import torch
from tiny_model import build_tiny_model
from transformers import AutoModelForCausalLM

from minillm_kernels import resolve
from minillm_serve.attention.backends import KVCache
from minillm_serve.config import ConfigError
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.linear import Unquantized
from minillm_serve.model.llama import LlamaModel
from minillm_serve.model.loader import Checkpoint
from minillm_serve.model.weights import load_weights

SHAPES = {
    "smollm-like": {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 100},
    "mha-untied": {"num_key_value_heads": 4, "tie_word_embeddings": False, "num_hidden_layers": 3},
    "mqa-bias-theta": {"num_key_value_heads": 1, "attention_bias": True, "rope_theta": 100000.0},
    "wide-heads": {"head_dim": 24, "rms_norm_eps": 1e-3},
}


@pytest.fixture(scope="module", params=SHAPES)
def folder(request, tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("llama") / request.param, seed=3, **SHAPES[request.param])


@pytest.mark.parametrize("backend", ["ref", "cpu"])
def test_logits_equal_transformers(folder, backend):
    """A whole prompt at once, then the same prompt in three ragged chunks beside a second sequence."""
    config = ModelConfig.from_folder(folder)
    ops = resolve(backend)
    model = LlamaModel(config, load_weights(Checkpoint(folder), config, Unquantized(ops), torch.float32), ops)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(0)
    first, second = torch.randint(3, config.vocab_size, (23,)), torch.randint(3, config.vocab_size, (6,))
    with torch.inference_mode():
        expected = [reference(ids.unsqueeze(0)).logits[0] for ids in (first, second)]
        cache = KVCache(config, ops, num_blocks=12, block_size=4, dtype=torch.float32)
        tables = torch.tensor([[5, 2, 9, 0, 7, 3], [1, 8, 0, 0, 0, 0]])

        def slots(row: int, start: int, stop: int) -> list[int]:
            return [int(tables[row, p // 4]) * 4 + p % 4 for p in range(start, stop)]

        def step(parts: list[tuple[int, int, int]]) -> torch.Tensor:
            """parts: (sequence, start, stop) -> logits of every token of the step."""
            source = (first, second)
            ids = torch.cat([source[row][start:stop] for row, start, stop in parts])
            positions = torch.cat([torch.arange(start, stop) for _, start, stop in parts])
            where = torch.tensor([slot for part in parts for slot in slots(*part)])
            attention = cache.plan(
                where,
                tables[[row for row, _, _ in parts]],
                [stop for *_, stop in parts],
                [stop - start for _, start, stop in parts],
            )
            return model.forward(ids, positions, attention, torch.arange(len(ids)))

        torch.testing.assert_close(step([(0, 0, 23)]), expected[0], rtol=1e-4, atol=1e-4)
        got = step([(0, 0, 9), (1, 0, 5)])
        torch.testing.assert_close(got, torch.cat((expected[0][:9], expected[1][:5])), rtol=1e-4, atol=1e-4)
        got = step([(1, 5, 6), (0, 9, 22)])
        torch.testing.assert_close(got, torch.cat((expected[1][5:], expected[0][9:22])), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(step([(0, 22, 23)]), expected[0][22:], rtol=1e-4, atol=1e-4)


def test_bfloat16_stays_near_fp32(folder):
    config, ops = ModelConfig.from_folder(folder), resolve("cpu")
    ids, positions = torch.arange(3, 20), torch.arange(17)
    logits = []
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            model = LlamaModel(config, load_weights(Checkpoint(folder), config, Unquantized(ops), dtype), ops)
            cache = KVCache(config, ops, 2, 16, dtype)
            attention = cache.plan(torch.arange(17), torch.tensor([[0, 1]]), [17], [17])
            logits.append(model.forward(ids, positions, attention, torch.arange(17)))
    similarity = torch.nn.functional.cosine_similarity(*logits, dim=-1)
    assert similarity.min() > 0.98


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"hidden_act": "gelu"}, "SwiGLU"),
        ({"mlp_bias": True}, "SwiGLU"),
    ],
)
def test_what_the_model_code_would_get_wrong_is_refused(change, word):
    raw = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 10,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    assert ModelConfig.from_hf(raw).head_dim == 4
    with pytest.raises(ConfigError, match=word):
        ModelConfig.from_hf(raw | change)


def test_a_config_without_a_needed_field_names_it():
    with pytest.raises(ConfigError, match="hidden_size"):
        ModelConfig.from_hf({"architectures": ["LlamaForCausalLM"], "vocab_size": 10})
