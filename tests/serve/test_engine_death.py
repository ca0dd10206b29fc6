"""When the step loop dies every client is told, and /health says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dead_end import DeadEnd
from live_server import LiveServer, wait_until

from minillm_serve.config import EngineConfig
from minillm_serve.params import StructuredOutputsParams

BODY = {"prompt": "Hello", "max_tokens": 500, "ignore_eos": True, "temperature": 0}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("prompt", ["Hello", ["Hello", "you", "there"]], ids=["one prompt", "three prompts"])
def test_death_in_the_middle_of_a_stream_is_an_error_event(tiny_model_dir: Path, prompt: str | list[str]):
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1)
    with LiveServer(config) as server:
        step, steps = server.engine.core.step, []

        def failing_step():
            steps.append(1)
            if len(steps) == 5:
                raise RuntimeError("secret /path/of/this/machine")
            return step()

        server.engine.core.step = failing_step
        text = server.post("/v1/completions", BODY | {"prompt": prompt, "stream": True}).text
        *chunks, error, done = [event.removeprefix("data: ") for event in text[:-2].split("\n\n")]
        most = 4 * (1 if isinstance(prompt, str) else len(prompt))  # less where a prompt came in after the first step
        assert 4 <= len(chunks) <= most and done == "[DONE]"
        assert json.loads(error)["error"]["code"] == 503 and "secret" not in text
        wait_until(lambda: server.http.get("/health").status_code == 503)
        for path in ("/v1/completions", "/v1/completions"):
            response = server.post(path, BODY)
            assert response.status_code == 503 and "secret" not in response.text
        assert server.metric("request_success_total", finished_reason="error") >= 1


def test_a_fault_of_the_server_is_a_500_without_its_reason(tiny_model_dir: Path, caplog: pytest.LogCaptureFixture):
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1)
    with LiveServer(config) as server:

        async def broken(*_: object, **__: object):
            raise RuntimeError("secret /path/of/this/machine")

        server.engine.prepare = broken
        response = server.post("/v1/completions", BODY)
        assert response.status_code == 500 and response.headers["x-request-id"]
        assert response.json()["error"]["type"] == "InternalServerError" and "secret" not in response.text
        assert "secret" in caplog.text, "the log must say why"
        assert server.http.get("/health").status_code == 200


def test_a_constraint_without_a_way_on_fails_its_own_request_alone(tiny_model_dir: Path):
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1)
    with LiveServer(config) as server:
        constraint = StructuredOutputsParams(json={"type": "string"})
        server.engine.core.admission.grammars.put(constraint, DeadEnd())
        body = {"prompt": "Hello", "max_tokens": 20, "structured_outputs": {"json": {"type": "string"}}}
        response = server.post("/v1/completions", body)
        assert response.status_code == 500 and "constraint" in response.json()["error"]["message"]
        *_, error, done = server.post("/v1/completions", body | {"stream": True}).text.strip().split("\n\n")
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == 500 and done == "data: [DONE]"
        assert server.complete()["choices"][0]["finish_reason"] == "length"
        assert server.http.get("/health").status_code == 200
