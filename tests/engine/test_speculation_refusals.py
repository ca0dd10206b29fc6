"""A draft network that does not fit is refused when the engine is built, with what would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_drafts import noisy_copy, tiny_head
from tiny_model import build_tiny_model

from minillm_serve import LLM, SamplingParams
from minillm_serve.config import ConfigError

SPOKEN = list(range(3, 200, 5))


def build(target: Path, **spec):
    return LLM(target, num_kv_blocks=32, speculative_config={"num_speculative_tokens": 2, **spec})


def test_a_model_of_another_vocabulary(tiny_model_dir, tmp_path):
    other = build_tiny_model(tmp_path / "other", vocab_size=500)
    with pytest.raises(ConfigError, match="vocabulary of 500 tokens and the target one of 512"):
        build(tiny_model_dir, method="draft_model", model=str(other))


def test_a_model_whose_tokens_mean_other_things(tiny_model_dir, tmp_path):
    other = noisy_copy(tiny_model_dir, tmp_path / "other")
    path = other / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    vocab["e"], vocab["f"] = vocab["f"], vocab["e"]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ConfigError, match="another tokenizer than the target"):
        build(tiny_model_dir, method="draft_model", model=str(other))


def test_a_model_that_was_trained_for_fewer_positions(tiny_model_dir, tmp_path):
    other = noisy_copy(tiny_model_dir, tmp_path / "other")
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"trained for 64 positions, the engine serves 1024: give a max_model_len"):
        build(tiny_model_dir, method="draft_model", model=str(other))


def test_a_head_under_the_name_of_a_model_and_a_model_under_that_of_a_head(tiny_model_dir, tmp_path):
    head = tiny_head(tiny_model_dir, tmp_path / "head", SPOKEN)
    with pytest.raises(ConfigError, match="is a draft head: say method eagle"):
        build(tiny_model_dir, method="draft_model", model=str(head))
    with pytest.raises(ConfigError, match="is a whole model: say method draft_model"):
        build(tiny_model_dir, method="eagle", model=str(noisy_copy(tiny_model_dir, tmp_path / "model")))


def test_a_head_of_another_target(tiny_model_dir, tmp_path):
    other = build_tiny_model(tmp_path / "other", hidden_size=72, num_attention_heads=9, num_key_value_heads=3)
    head = tiny_head(other, tmp_path / "head", SPOKEN)
    with pytest.raises(ConfigError, match=r"made for a target of hidden size 72 and 512 tokens.*this one has 64"):
        build(tiny_model_dir, method="eagle", model=str(head))


def test_a_head_with_features_of_a_layer_that_is_not_there(tiny_model_dir, tmp_path):
    head = tiny_head(tiny_model_dir, tmp_path / "head", SPOKEN, aux_layers=(7,))
    with pytest.raises(ConfigError, match=r"features of layers \[7\].*and 2 layers"):
        build(tiny_model_dir, method="eagle", model=str(head))


def test_a_head_whose_token_map_names_a_token_twice(tiny_model_dir, tmp_path):
    head = tiny_head(tiny_model_dir, tmp_path / "head", [*SPOKEN, SPOKEN[0]])
    with pytest.raises(ConfigError, match="must name 41 different tokens below 512"):
        build(tiny_model_dir, method="eagle", model=str(head))


def test_a_head_without_an_lm_head_where_the_targets_is_not_its_embedding(tiny_model_dir, tmp_path):
    head = tiny_head(tiny_model_dir, tmp_path / "head", SPOKEN)
    tensors = load_file(str(head / "model.safetensors"))
    del tensors["lm_head.weight"]
    save_file(tensors, str(head / "model.safetensors"))
    with pytest.raises(ConfigError, match=r"no lm_head\.weight, and the target's is not its embedding"):
        build(tiny_model_dir, method="eagle", model=str(head))


def test_an_incomplete_config_and_a_folder_that_is_not_there(tiny_model_dir, tmp_path):
    head = tiny_head(tiny_model_dir, tmp_path / "head", SPOKEN)
    config = json.loads((head / "config.json").read_text(encoding="utf-8"))
    del config["aux_layers"]
    (head / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json is incomplete: KeyError\('aux_layers'\)"):
        build(tiny_model_dir, method="eagle", model=str(head))
    with pytest.raises(ConfigError):
        build(tiny_model_dir, method="eagle", model=str(tmp_path / "nothing"))


def test_a_draft_network_needs_a_kv_cache_and_a_lookup_does_not(tiny_model_dir, tmp_path):
    model = noisy_copy(tiny_model_dir, tmp_path / "model")
    spec = {"method": "draft_model", "model": str(model), "num_speculative_tokens": 2}
    with pytest.raises(ConfigError, match="attention_backend must be paged, got none"):
        LLM(tiny_model_dir, attention_backend="none", speculative_config=spec)
    lookup = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1, "prompt_lookup_max": 2}
    prompt, texts = [60, 61, 62, 63] * 4, []
    for speculative_config in (None, lookup):
        llm = LLM(tiny_model_dir, attention_backend="none", max_num_seqs=4, speculative_config=speculative_config)
        texts.append(
            llm.generate([prompt], SamplingParams(temperature=0, max_tokens=40, allowed_token_ids=(60, 61, 62)))[0]
            .outputs[0]
            .token_ids
        )
    assert texts[0] == texts[1]
