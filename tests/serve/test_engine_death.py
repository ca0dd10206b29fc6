"""When the step loop dies every client is told, and /health says so."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from dead_end import DeadEnd
from live_server import LiveServer, metric_in, wait_until
from serve_process import posix, serving

from minillm_serve.config import EngineConfig
from minillm_serve.params import StructuredOutputsParams

BODY = {"prompt": "Hello", "max_tokens": 500, "ignore_eos": True, "temperature": 0}


# The command with an engine that goes wrong at its fourth step: argv[1] says how, the rest is the command's.
FAULTY = """
import sys, time
from minillm_serve.cli import main
from minillm_serve.engine.core import EngineCore

step, steps = EngineCore.step, []

def faulty(core):
    steps.append(1)
    if len(steps) > 3:
        if fault == "dies":
            raise RuntimeError("secret reason")
        time.sleep(3600)
    return step(core)

fault = sys.argv.pop(1)
EngineCore.step = faulty
sys.exit(main(sys.argv[1:]))
"""


def read_stream(url: str) -> list[str]:
    with httpx.stream("POST", f"{url}/v1/completions", json=BODY | {"stream": True}, timeout=30) as stream:
        return [event.removeprefix("data: ") for event in stream.read().decode().strip().split("\n\n")]


@pytest.mark.parametrize(
    ("fault", "flags"), [("dies", ()), ("hangs", ("--step-timeout", "0.5"))], ids=["dies", "hangs"]
)
def test_a_lost_engine_ends_the_process_after_telling_its_clients(
    tiny_model_dir: Path, fault: str, flags: tuple[str, ...]
):
    command = (sys.executable, "-c", FAULTY, fault, "serve")
    with serving(str(tiny_model_dir), *flags, command=command) as (process, url):
        *chunks, error, done = read_stream(url)
        assert len(chunks) == 3 and json.loads(error)["error"]["code"] == 503 and done == "[DONE]"
        assert process.wait(30) == 1, "a supervisor must see that it failed"
        assert ("secret reason" if fault == "dies" else "--step-timeout") in process.stderr.read()


def test_it_can_stay_to_say_so(tiny_model_dir: Path):
    command = (sys.executable, "-c", FAULTY, "dies", "serve")
    with serving(str(tiny_model_dir), "--keep-alive-on-engine-death", command=command) as (process, url):
        assert read_stream(url)[-1] == "[DONE]"
        for path in ("/health", "/ready", "/v1/models"):
            response = httpx.get(f"{url}{path}", timeout=30)
            assert response.status_code == 503 and "secret" not in response.text
        assert process.poll() is None
        process.terminate()
        assert process.wait(30) == 0


@posix
def test_a_step_that_never_ends_does_not_keep_a_process_that_was_told_to_end(tiny_model_dir: Path):
    command = (sys.executable, "-c", FAULTY, "hangs", "serve")
    with serving(str(tiny_model_dir), command=command) as (process, url), ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read_stream, url)
        wait_until(lambda: "generation_tokens_total" in httpx.get(f"{url}/metrics", timeout=30).text)
        wait_until(lambda: metric_in(httpx.get(f"{url}/metrics", timeout=30).text, "generation_tokens_total") == 3)
        process.terminate()
        assert json.loads(reading.result()[-2])["error"]["code"] == 503
        assert process.wait(30) == 0


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
