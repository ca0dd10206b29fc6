"""What --speculative-config says is honoured or refused by name: no key, no method of vLLM's is passed over."""

from __future__ import annotations

import ast
import json
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from minillm_serve.cli import build_parser, main
from minillm_serve.compare.environments import installed_version, python_of
from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.serve.flags import engine_config
from minillm_serve.speculative import (
    METHODS,
    REFUSED_KEYS,
    REFUSED_METHODS,
    REJECTION_SAMPLE_METHODS,
    SpeculativeConfig,
    speculative_config,
)

NGRAM = {"method": "ngram", "num_speculative_tokens": 4}
OURS_DIFFER = {"num_speculative_tokens_per_batch_size", "rejection_sample_method", "method", "num_speculative_tokens"}
"""Keys whose default, or the way it is written, is not vLLM's."""


@pytest.fixture(scope="module")
def vllm() -> ast.Module:
    """The source of vLLM's own configuration."""
    if installed_version("vllm") is None:
        pytest.skip("needs vLLM: minillm compare setup vllm")
    environment = Path(python_of("vllm")).parents[1]
    (source,) = environment.glob("lib/python3*/site-packages/vllm/config/speculative.py")
    return ast.parse(source.read_text(encoding="utf-8"))


def vllm_keys(module: ast.Module) -> dict[str, object]:
    """Key -> its default; None also where it is a call."""
    (body,) = (n.body for n in module.body if isinstance(n, ast.ClassDef) and n.name == "SpeculativeConfig")
    return {
        node.target.id: node.value.value if isinstance(node.value, ast.Constant) else None
        for node in body
        if isinstance(node, ast.AnnAssign)
    }


def vllm_names(module: ast.Module, ends: tuple[str, ...]) -> set[str]:
    """The strings of the literals that are called like this."""
    named = [n for n in module.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]).endswith(ends)]
    inside = (part for node in named for part in ast.walk(node))
    return {part.value for part in inside if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def test_every_key_of_vllm_is_honoured_or_refused_by_name(vllm: ast.Module):
    honoured = {field.name: field.default for field in fields(SpeculativeConfig)}
    keys = vllm_keys(vllm)
    assert len(keys) > 30, "the class was not read"
    assert not keys.keys() - honoured.keys() - REFUSED_KEYS.keys()
    assert not honoured.keys() & REFUSED_KEYS.keys()
    for key, default in keys.items():
        if key in REFUSED_KEYS:
            assert speculative_config(NGRAM | {key: default}) == speculative_config(NGRAM), key
        elif key not in OURS_DIFFER:
            assert honoured[key] == default, key


def test_every_method_of_vllm_is_honoured_or_refused_by_name(vllm: ast.Module):
    names = vllm_names(vllm, ("ModelTypes", "NgramGPUTypes", "SpeculativeMethod"))
    assert {"ngram", "eagle3", "mtp"} <= names
    for name in names - set(METHODS):
        with pytest.raises(ConfigError, match=f"speculation with {name} is not supported: .{{20}}"):
            speculative_config({"method": name, "model": "m", "num_speculative_tokens": 4})
    assert REFUSED_METHODS.keys() <= names, "vLLM does not know these"
    known = vllm_names(vllm, ("RejectionSampleMethod",))
    assert known - {"block"} == set(REJECTION_SAMPLE_METHODS) - {"match"}


@pytest.mark.parametrize("key", sorted(REFUSED_KEYS))
def test_a_refused_key_gives_its_reason_and_its_neutral_values_pass(key: str):
    reason, neutral = REFUSED_KEYS[key]
    with pytest.raises(ConfigError, match=f"^{key} is not supported") as refusal:
        speculative_config(NGRAM | {key: "something"})
    assert reason in str(refusal.value)
    for value in neutral:
        assert speculative_config(NGRAM | {key: value}) == speculative_config(NGRAM)


@pytest.mark.parametrize(
    ("said", "method"),
    [
        ({"model": "ngram", "num_speculative_tokens": 2}, "ngram"),
        ({"model": "[ngram]", "num-speculative-tokens": 2}, "ngram"),
        ({"method": "[ngram]", "num_speculative_tokens": 2}, "ngram"),
        ({"method": "suffix"}, "suffix"),
        ({"model": "suffix"}, "suffix"),
        ({"model": "a/folder", "num_speculative_tokens": 2}, "draft_model"),
        ({"model": "draft.gguf", "num_speculative_tokens": 2}, "draft_model"),
        ({"method": "eagle", "model": "a/folder", "num_speculative_tokens": 2}, "eagle"),
    ],
)
def test_the_method_follows_from_the_model(said: dict, method: str):
    config = speculative_config(said)
    assert config.method == method
    assert config.model == (said["model"] if method in ("draft_model", "eagle") else None)


@pytest.mark.parametrize(
    "said",
    [
        NGRAM,
        NGRAM | {"prompt_lookup_max": 7, "dynamic": False},
        {"method": "suffix", "suffix_decoding_max_spec_factor": 0.1, "suffix_decoding_max_cached_requests": 0},
        {"model": "d", "num_speculative_tokens": 3, "draft_sample_method": "probabilistic"},
        NGRAM | {"num_speculative_tokens_per_batch_size": [[8, 16, 1], [1, 4, 4], [17, 32, 0]]},
        NGRAM | {"rejection_sample_method": "synthetic", "synthetic_acceptance_length": 2.7},
    ],
)
def test_a_configuration_survives_its_own_fields_json_and_the_engines(said: dict):
    engine = EngineConfig(model="m", speculative_config=said)
    assert isinstance(engine.speculative_config, SpeculativeConfig)
    assert EngineConfig(model="m", speculative_config=json.dumps(said)) == engine
    assert EngineConfig(**asdict(engine)) == engine
    assert EngineConfig(**json.loads(json.dumps(asdict(engine)))) == engine
    assert hash(engine.speculative_config) == hash(speculative_config(said))


def test_without_it_there_is_none():
    assert EngineConfig(model="m").speculative_config is None


def test_what_was_left_out_is_what_vllm_takes():
    def lookup(**given: int) -> tuple[int | None, int | None]:
        config = speculative_config(NGRAM | given)
        return config.prompt_lookup_min, config.prompt_lookup_max

    assert lookup() == (5, 5)
    assert lookup(prompt_lookup_max=3) == (3, 3)
    assert lookup(prompt_lookup_min=2) == (2, 2)
    assert lookup(prompt_lookup_min=2, prompt_lookup_max=6) == (2, 6)
    assert speculative_config({"method": "suffix", "suffix_decoding_max_tree_depth": 9}).num_speculative_tokens == 9
    assert speculative_config(NGRAM).dynamic is True


def test_the_draft_length_follows_the_batch_size_as_in_vllm():
    """A gap between two ranges and all sizes above the last take the tokens of the range before."""
    table = [[32, 64, 1], [1, 4, 9], [5, 16, 3], [65, 80, 0]]
    config = speculative_config(NGRAM | {"num_speculative_tokens_per_batch_size": table})
    expected = {1: 4, 4: 4, 5: 3, 16: 3, 17: 3, 31: 3, 32: 1, 64: 1, 65: 0, 80: 0, 1000: 0}
    assert {size: config.draft_tokens(size) for size in expected} == expected
    assert config.dynamic is False, "the table decides, unless one asks for both"
    assert speculative_config(NGRAM).draft_tokens(1000) == 4


def test_synthetic_rates_are_of_whole_drafts_and_become_conditional():
    def rates(**given: object) -> SpeculativeConfig:
        return speculative_config(NGRAM | {"rejection_sample_method": "synthetic"} | given)

    assert rates(synthetic_acceptance_rates=[0.8, 0.4, 0.4, 0]).conditional_rates == (0.8, 0.5, 1.0, 0.0)
    assert rates(synthetic_acceptance_rates=[0, 0, 0, 0]).conditional_rates == (0.0,) * 4
    config = rates(synthetic_acceptance_length=3.25)
    assert config.synthetic_acceptance_rates == (1.0, 1.0, 0.25, 0.0)
    assert 1 + sum(config.synthetic_acceptance_rates) == 3.25
    assert rates(synthetic_acceptance_length=5).conditional_rates == (1.0,) * 4
    assert rates(synthetic_acceptance_length=1).conditional_rates == (0.0,) * 4


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("ngram", "not JSON"),
        ("[1]", "must be a JSON object"),
        ({}, "needs a method"),
        ({"method": "ngram"}, "needs num_speculative_tokens"),
        ({"method": "eagle", "num_speculative_tokens": 2}, "needs model"),
        ({"method": "draft_model", "num_speculative_tokens": 2}, "needs model"),
        ({"method": "magic", "num_speculative_tokens": 2}, "method must be one of"),
        ({"method": ["ngram"], "num_speculative_tokens": 2}, "method must be one of"),
        ({"model": 3, "num_speculative_tokens": 2}, "model must be the folder"),
        (NGRAM | {"num_speculative_token": 4}, "has no key 'num_speculative_token'"),
        (NGRAM | {"num_speculative_tokens": 0}, "whole number of at least 1"),
        (NGRAM | {"num_speculative_tokens": True}, "whole number"),
        (NGRAM | {"num_speculative_tokens": "4"}, "whole number"),
        (NGRAM | {"model": "a/folder"}, "model says nothing to method ngram"),
        (NGRAM | {"prompt_lookup_min": 4, "prompt_lookup_max": 3}, "must not be above"),
        (NGRAM | {"prompt_lookup_min": 0}, "at least 1"),
        (NGRAM | {"suffix_decoding_max_tree_depth": 5}, "says nothing to method ngram"),
        (NGRAM | {"draft_sample_method": "probabilistic"}, "says nothing to method ngram"),
        ({"method": "suffix", "prompt_lookup_max": 5}, "says nothing to method suffix"),
        ({"method": "suffix", "suffix_decoding_max_cached_requests": -1}, "at least 0"),
        ({"method": "suffix", "suffix_decoding_max_spec_factor": float("inf")}, "must be a number"),
        ({"method": "suffix", "suffix_decoding_min_token_prob": 1.5}, "between 0 and 1"),
        ({"model": "d", "num_speculative_tokens": 2, "draft_sample_method": "x"}, "greedy, probabilistic"),
        (NGRAM | {"rejection_sample_method": "block"}, '"block" is not supported'),
        (NGRAM | {"rejection_sample_method": "strict"}, "one of match, standard, synthetic"),
        (NGRAM | {"rejection_sample_method": "synthetic"}, "one of the two"),
        (NGRAM | {"synthetic_acceptance_length": 2}, 'need rejection_sample_method "synthetic"'),
        (NGRAM | {"rejection_sample_method": "synthetic", "synthetic_acceptance_length": 5.5}, "between 1 and 5"),
        (NGRAM | {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [1, 1]}, "list of num"),
        (NGRAM | {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [0.5, 0.6, 0, 0]}, "not rise"),
        (NGRAM | {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [1.5, 1, 1, 1]}, "between"),
        (NGRAM | {"dynamic": "yes"}, "true or false"),
        (NGRAM | {"num_speculative_tokens_per_batch_size": {"1": 4}}, "must be a list"),
        (NGRAM | {"num_speculative_tokens_per_batch_size": [[1, 4]]}, "must be a list"),
        (NGRAM | {"num_speculative_tokens_per_batch_size": [[2, 4, 1]]}, "begins with 1"),
        (NGRAM | {"num_speculative_tokens_per_batch_size": [[1, 4, -1]]}, "tokens >= 0"),
        (NGRAM | {"num_speculative_tokens_per_batch_size": [[1, 4, 1], [4, 8, 1]]}, "do not overlap"),
    ],
)
def test_what_cannot_be_meant_says_what_was_expected(said: object, reason: str):
    with pytest.raises(ConfigError, match=reason):
        EngineConfig(model="m", speculative_config=said)


def typed(*flags: str) -> SpeculativeConfig | None:
    args = build_parser(["serve"]).parse_args(["serve", "m", *flags])
    return engine_config("m", args).speculative_config


def test_the_flags_make_one_configuration():
    assert typed() is None
    assert typed("--speculative-config", json.dumps(NGRAM)) == typed("-sc", json.dumps(NGRAM))
    assert typed("--spec-method", "ngram", "--spec-tokens", "4") == speculative_config(NGRAM)
    assert typed("--spec-model", "d", "-sc", '{"num-speculative-tokens": 3}').model == "d"


def test_a_flag_and_its_key_together_are_refused():
    with pytest.raises(ConfigError, match="--spec-tokens and the key num_speculative_tokens"):
        typed("-sc", '{"method": "ngram", "num-speculative-tokens": 3}', "--spec-tokens", "3")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--speculate", "3"], '"num_speculative_tokens": N}'),
        (["--speculative-model", "d"], '"method": "draft_model"'),
        (["-sc", '{"method": "medusa", "num_speculative_tokens": 3}'], 'use "eagle"'),
    ],
)
def test_other_ways_to_say_it_name_this_one(flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]):
    try:
        code = main(["serve", "m", *flags])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert reason in capsys.readouterr().err
