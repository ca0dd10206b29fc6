"""A config.json is honoured whole or refused by the name of what we do not compute."""

from __future__ import annotations

import contextlib

import pytest
import torch
from tiny_model import CONFIG, FAMILIES

from minillm_serve.config import ConfigError
from minillm_serve.model.architectures import NEUTRAL
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.rope import Rope

SMALLEST = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 10, "hidden_size": 8, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip


def config(family: str = "llama", **changes) -> ModelConfig:
    return ModelConfig.from_hf(CONFIG | FAMILIES[family] | changes)


def test_the_smallest_config_gets_llamas_defaults():
    model = ModelConfig.from_hf(SMALLEST)
    assert (model.head_dim, model.num_kv_heads, model.attention_scale) == (4, 2, 0.5)
    assert (model.tie_word_embeddings, model.activation, model.sliding_windows) == (False, "silu", (0,))
    assert model.ropes == (Rope(4, 10000.0),)


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"])
@pytest.mark.parametrize("value", [None, 0, -1, 2.5, "8", True, [8]])
def test_a_size_that_is_no_positive_integer_is_named(name, value):
    with pytest.raises(ConfigError, match=name):
        ModelConfig.from_hf(SMALLEST | {name: value})


@pytest.mark.parametrize(
    ("family", "changes", "word"),
    [
        ("llama", {"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ("llama", {"architectures": ["Gemma2ForCausalLM"]}, "Gemma2ForCausalLM"),
        ("llama", {"architectures": []}, "architecture"),
        ("llama", {"architectures": "LlamaForCausalLM"}, "architecture"),
        ("llama", {"num_key_value_heads": 3}, "divide evenly"),
        ("llama", {"head_dim": 7}, "divide evenly"),
        ("llama", {"num_hidden_layers": 1 << 31}, "layers"),
        ("llama", {"max_position_embeddings": 1 << 40}, "positions"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("mistral", {"mlp_bias": True}, "mlp_bias"),
        ("llama", {"sliding_window": 8}, "no sliding window"),
        ("llama", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("mistral", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("mistral", {"sliding_window": 0}, "sliding_window"),
        ("qwen2", {"layer_types": ["full_attention", "chunked_attention"]}, "layer_types"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types"),
        ("qwen2", {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 3}, "no sliding_window"),
        ("qwen3", {"head_dim": None}, "head_dim"),
        ("qwen2", {"num_key_value_heads": None}, "num_key_value_heads"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval"),
        ("gemma", {"hidden_act": "relu"}, "relu"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ("gemma3", {"query_pre_attn_scalar": None}, "query_pre_attn_scalar"),
        ("llama", {"quantization_config": "awq"}, "quantization_config"),
        ("llama", {"clip_qkv": 8.0}, "clip_qkv"),
        ("llama", {"attention_multiplier": 0.5}, "attention_multiplier"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"num_local_experts": 8}, "num_local_experts"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("llama", {"rope_scaling": {"type": "longrope"}}, "'longrope'"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "original_max_position_embeddings"),
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, "needs factor"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": "4"}}, "factor must be a positive number"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0, "mrope_section": [1]}}, "mrope_section"),
        ("llama", {"rope_scaling": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("llama", {"rope_parameters": ["default"]}, "rope_parameters"),
        ("llama", {"rope_theta": -1.0}, "rope_theta"),
        ("llama", {"eos_token_id": "two"}, "eos_token_id"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused_by_name(family, changes, word):
    assert config(family).num_layers >= 1
    with pytest.raises(ConfigError, match=word):
        config(family, **changes)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_value_of_any_setting_gets_past_as_another_error(family):
    good = CONFIG | FAMILIES[family]
    settings = {
        *good,
        *NEUTRAL,
        "rope_parameters",
        "rope_scaling",
        "layer_types",
        "no_rope_layers",
        "max_window_layers",
    }
    for name in sorted(settings):
        for value in (None, True, -1, 0, 3, 1.5, "x", [], ["x"], [1], {}, {"rope_type": []}, {"full_attention": 3}):
            with contextlib.suppress(ConfigError):
                assert isinstance(ModelConfig.from_hf(good | {name: value}), ModelConfig)


def test_settings_that_do_nothing_are_let_through():
    harmless = {"partial_rotary_factor": 1.0, "num_experts": 0, "clip_qkv": None, "residual_multiplier": 1.0}
    assert config(**harmless) == config()


def test_windows_fall_where_each_family_has_them():
    assert config("mistral").sliding_windows == (7, 7)
    assert config("mistral", sliding_window=None).sliding_windows == (0, 0)
    assert config("qwen2").sliding_windows == (0, 5, 5)
    types = ["sliding_attention", "full_attention", "full_attention"]
    assert config("qwen2", layer_types=types).sliding_windows == (5, 0, 0)
    assert config("qwen2", use_sliding_window=False).sliding_windows == (0, 0, 0)
    assert config("gemma3", layer_types=None, num_hidden_layers=7).sliding_windows == (6, 6, 6, 6, 6, 0, 6)


def test_layers_without_positions_and_with_two_rotations():
    assert [rope is None for rope in config("smollm3").ropes] == [False, True, False]
    assert [rope.theta for rope in config("gemma3").ropes] == [1e4, 1e6, 1e4]


def test_scaled_rotations_keep_the_fast_pairs_and_slow_the_slow_ones():
    plain = Rope(64, 10000.0).frequencies()
    for numbers in (
        {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
         "original_max_position_embeddings": 512},
        {"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 512},
    ):  # fmt: skip
        scaled = Rope.from_hf(numbers, 64, 10000.0).frequencies()
        torch.testing.assert_close(scaled[:2], plain[:2])
        torch.testing.assert_close(scaled[-2:], plain[-2:] / 8)
        assert (scaled <= plain * 1.000001).all() and (scaled >= plain / 8.000001).all()
