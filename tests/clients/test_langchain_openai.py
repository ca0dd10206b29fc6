"""langchain-openai in an environment of its own: messages, streams, structured output, tools, usage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from live_server import LiveServer

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the capital of France?"},
]


@pytest.fixture(scope="module")
def said(live: LiveServer, run_client: Callable[..., Any]) -> dict[str, Any]:
    return run_client("clients", "langchain_calls.py", live.url)


def test_answers_streams_and_usage_are_the_servers(server: LiveServer, said: dict[str, Any]):
    body = {"messages": CHAT, "temperature": 0, "seed": 1, "max_tokens": 8}
    answer = server.post("/v1/chat/completions", body).json()
    text, usage = answer["choices"][0]["message"]["content"], answer["usage"]
    assert said["text"] == said["streamed"] == said["async_streamed"] == text
    assert said["batch"] == [text, text] and said["finish_reason"] == "length" and said["logprobs"] == 8
    for told in (said["usage"], said["stream_usage"]):
        assert (told["input_tokens"], told["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])


def test_structured_output_by_either_method(said: dict[str, Any]):
    for method in ("json_schema", "function_calling"):
        assert said["structured"][method].keys() == {"kind", "open"}, method
        assert said["structured"][method]["kind"] in ("city", "country"), method
    assert said["strict_error"] is None


def test_tools_are_called_and_their_results_heard(said: dict[str, Any]):
    agent = said["agent"]
    assert agent["name"] == "look_up" and agent["arguments"]["place"] in ("Lima", "Paris") and agent["invalid"] == 0
    assert agent["finish_reason"] == "tool_calls"
    assert agent["result"] == f"{agent['arguments']['place']} {agent['arguments']['detailed']}"
    [streamed] = said["tool_stream"]
    assert streamed["name"] == "look_up" and streamed["arguments"].keys() == {"place", "detailed"}


def test_embeddings(server: LiveServer, said: dict[str, Any]):
    width = len(server.post("/v1/embeddings", {"input": "one"}).json()["data"][0]["embedding"])
    assert said["embeddings"] == [width, 2]
