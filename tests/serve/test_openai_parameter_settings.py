"""The server's flags about parameters: what they refuse, what they give to requests that do not say, what they tell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer

from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.serve.openai.defaults import SamplingDefaults
from minillm_serve.serve.settings import ServerSettings

BODY = {"prompt": [17, 42, 99, 7], "max_tokens": 6, "ignore_eos": True, "return_token_ids": True}
CHAT = {"messages": [{"role": "user", "content": "Name a river."}]}


@pytest.fixture(scope="module")
def recommending(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose makers recommend greedy sampling and answers of 5 tokens."""
    folder = shutil.copytree(tiny_model_dir, tmp_path_factory.mktemp("models") / "recommending")
    path = folder / "generation_config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(config | {"temperature": 0.0, "repetition_penalty": 1.5, "max_new_tokens": 5}))
    return folder


@pytest.fixture(scope="module")
def telling(recommending: Path) -> Iterator[LiveServer]:
    """A server with most of these flags turned from their defaults."""
    config = EngineConfig(model=str(recommending), num_kv_blocks=64, num_threads=1, scheduling_policy="priority")
    with LiveServer(
        config,
        max_n=3,
        max_logprobs=-1,
        strict=True,
        stream_interval=4,
        return_tokens_as_token_ids=True,
        enable_prompt_tokens_details=True,
        enable_per_request_metrics=True,
        enable_force_include_usage=True,
    ) as server:
        yield server


def answered(server: LiveServer, path: str = "completions", **fields: Any) -> dict[str, Any]:
    response = server.post(f"/v1/{path}", (BODY if path == "completions" else CHAT) | fields)
    assert response.status_code == 200, response.text
    return response.json()


def refused(server: LiveServer, **fields: Any) -> str:
    response = server.post("/v1/completions", BODY | fields)
    assert response.status_code == 400, response.text
    return response.json()["error"]["param"]


def test_the_models_recommendation_holds_where_the_client_says_nothing(telling: LiveServer):
    first, second = (answered(telling)["choices"][0]["token_ids"] for _ in range(2))
    assert first == second == answered(telling, temperature=0, repetition_penalty=1.5)["choices"][0]["token_ids"]
    assert first != answered(telling, repetition_penalty=1.0)["choices"][0]["token_ids"], "the client's word wins"
    chat = answered(telling, "chat/completions", ignore_eos=True)
    assert chat["usage"]["completion_tokens"] == 5
    assert answered(telling, "chat/completions", ignore_eos=True, max_tokens=9)["usage"]["completion_tokens"] == 9


def test_defaults_come_from_the_folder_and_from_the_flag(recommending: Path):
    folder = str(recommending)
    recommended = SamplingDefaults.of(folder, ServerSettings())
    assert (recommended.fields, recommended.max_tokens) == ({"temperature": 0.0, "repetition_penalty": 1.5}, 5)
    assert (recommended.token_limit(None), recommended.token_limit(9)) == (5, 9)
    neutral = SamplingDefaults.of(folder, ServerSettings(generation_config="vllm"))
    assert (neutral.fields, neutral.max_tokens) == ({}, None)
    override = json.dumps({"temperature": 0.5, "top_k": 3, "max_new_tokens": 4})
    mixed = SamplingDefaults.of(folder, ServerSettings(override_generation_config=override))
    assert mixed.fields == {"temperature": 0.5, "repetition_penalty": 1.5, "top_k": 3}
    assert (mixed.token_limit(None), mixed.token_limit(9), mixed.token_limit(2)) == (4, 4, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"override_generation_config": "{"},
        {"override_generation_config": "[]"},
        {"override_generation_config": '{"temperature": 9}'},
        {"override_generation_config": '{"beams": 4}'},
        {"generation_config": "none"},
        {"max_n": 0},
        {"max_logprobs": -2},
        {"stream_interval": 0},
    ],
    ids=str,
)
def test_flags_that_cannot_be_are_named(wrong: dict[str, Any]):
    [field] = wrong
    with pytest.raises(ConfigError, match=f"--{field.replace('_', '-')}"):
        ServerSettings(**wrong)


def test_strict_refuses_what_nobody_knows(telling: LiveServer):
    assert refused(telling, temprature=0.5) == "temprature"
    assert refused(telling, stream=True, stream_options={"include_all": True}) == "stream_options.include_all"
    assert answered(telling, user="someone")["object"] == "text_completion"


def test_n_is_bounded_by_its_flag(telling: LiveServer):
    assert len(answered(telling, n=3, temperature=1)["choices"]) == 3
    assert refused(telling, n=4, temperature=1) == "n"
    assert refused(telling, best_of=4, temperature=1) == "best_of"
    assert refused(telling, best_of=3, temperature=1, stream=True) == "best_of"
    assert refused(telling, best_of=1, n=2, temperature=1) == "best_of"


def test_the_whole_vocabulary_can_be_allowed(telling: LiveServer):
    tops = answered(telling, max_tokens=1, logprobs=-1)["choices"][0]["logprobs"]["top_logprobs"]
    assert len(tops[0]) == 512 and all(name.startswith("token_id:") for name in tops[0])


def test_usage_tells_what_the_cache_spared(telling: LiveServer):
    prompt = list(range(100, 148))
    assert answered(telling, prompt=prompt)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert answered(telling, prompt=prompt)["usage"]["prompt_tokens_details"]["cached_tokens"] == 32


def test_an_answer_tells_its_times(telling: LiveServer):
    times = answered(telling)["metrics"]
    assert times["queue_time_ms"] >= 0 and times["time_to_first_token_ms"] > 0
    assert times["mean_itl_ms"] == pytest.approx(times["generation_time_ms"] / 5)
    whole = times["time_to_first_token_ms"] + times["generation_time_ms"]
    assert times["tokens_per_second"] == pytest.approx(6 / whole * 1000)
    assert answered(telling, n=2, temperature=1)["metrics"] is None, "two samples have no one time"


def test_forced_usage_and_interval_show_in_streams(telling: LiveServer):
    response = telling.post("/v1/completions", BODY | {"max_tokens": 10, "stream": True, "stream_interval": 2})
    *chunks, last = [json.loads(event[6:]) for event in response.text.split("\n\n")[:-2]]
    assert [len(chunk["choices"][0]["token_ids"]) for chunk in chunks] == [1, 4, 4, 1], "the flag's, which is longer"
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 5, 9, 10]
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 10 and last["metrics"]["mean_itl_ms"] > 0


def test_priority_comes_from_the_header_or_the_body(telling: LiveServer):
    seen: list[int] = []
    add = telling.engine.core.add

    def watched(label: str, group: Any, *args: Any, **options: Any) -> None:
        seen.append(group.samples[0].request.priority)
        add(label, group, *args, **options)

    telling.engine.core.add = watched
    try:
        answered(telling, priority=7)
        telling.post("/v1/completions", BODY | {"priority": 7}, headers={"X-Vllm-Priority": "-3"})
        telling.post("/v1/completions", BODY | {"priority": 7}, headers={"X-Vllm-Priority": "soon"})
    finally:
        telling.engine.core.add = add
    assert seen == [7, -3, 7]
