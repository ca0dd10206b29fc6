"""No JSON body makes the server fail: every answer is 200 or an error in the one shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_server import LiveServer

from minillm_serve.serve.openai.protocol import ChatCompletionRequest, CompletionRequest
from minillm_serve.serve.openai.unsupported import LEGACY_GUIDED, NEUTRAL

NUMBERS = st.sampled_from([-1, 0, 1, 2, 0.5, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0, 5e-324])
SCALARS = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.text(max_size=6), st.sampled_from(["\x00", "text", "json_schema"])
)
KEYS = st.sampled_from(["type", "json", "schema", "json_schema", "name", "role", "content", "text", "properties", "x"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
OTHERS = (*NEUTRAL, *LEGACY_GUIDED, "temprature")


def bodies(kind: type, good: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A good body with up to three fields replaced by anything at all."""
    names = st.sampled_from(sorted({*kind.model_fields, *OTHERS}))
    return st.dictionaries(names, VALUES, max_size=3).map(lambda wrong: good | wrong)


FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


def check(server: LiveServer, path: str, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    response = server.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400, 404), (content, response.text)
    assert len(response.content) < 100_000
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"} and len(response.content) < 8000


@FUZZ
@given(body=bodies(ChatCompletionRequest, {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}))
def test_chat(live: LiveServer, body: dict[str, Any]):
    check(live, "/v1/chat/completions", body)


@FUZZ
@given(body=bodies(CompletionRequest, {"prompt": "hi", "max_tokens": 2}))
def test_completions(live: LiveServer, body: dict[str, Any]):
    check(live, "/v1/completions", body)


@FUZZ
@given(
    content=st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: ('{"prompt": ' + text).encode("utf-8", "ignore"))
)
def test_raw_bytes(live: LiveServer, content: bytes):
    response = live.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400, 404)


@pytest.fixture(autouse=True, scope="module")
def alive_afterwards(live: LiveServer):
    yield
    assert live.complete()["usage"]["completion_tokens"] == 4
