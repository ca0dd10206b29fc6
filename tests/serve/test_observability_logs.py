"""The log says what happened, in one line for each request, and nobody can write into it or hold it up."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import Brake, LiveServer, wait_until
from serve_process import posix, serving
from test_disconnect import send

from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.serve.observe import logs
from minillm_serve.serve.observe.logs import FIELDS, JsonFormatter, TextFormatter, escape_controls, logging_to
from minillm_serve.serve.settings import ServerSettings

PROMPT = "a secret that stays between us"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Log(io.StringIO):
    """Where a server's log goes; ``records(logger)`` are the JSON objects that have come so far."""

    def records(self, logger: str = "minillm.access") -> list[dict[str, Any]]:
        whole = self.getvalue()
        lines = [json.loads(line) for line in whole[: whole.rfind("\n") + 1].splitlines()]
        return [line for line in lines if line["logger"] == logger]

    def wait_for(self, count: int, logger: str = "minillm.access") -> list[dict[str, Any]]:
        wait_until(lambda: len(self.records(logger)) >= count)
        return self.records(logger)


@pytest.fixture
def log() -> Iterator[Log]:
    stream = Log()
    with logging_to(stream, "json", "debug"):
        yield stream


@contextmanager
def logged_server(tiny_model_dir: Path, **settings: Any) -> Iterator[LiveServer]:
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=64, max_num_seqs=4, num_threads=1)
    with LiveServer(config, **settings) as server:
        yield server


def test_each_request_has_one_line_with_what_it_was_and_what_it_cost(log: Log, server: LiveServer):
    headers = {"x-request-id": "mine", "traceparent": TRACEPARENT, "authorization": "Bearer very-secret"}
    body = {"model": "tiny", "prompt": [PROMPT, PROMPT], "max_tokens": 3, "ignore_eos": True}
    usage = server.post("/v1/completions", body, headers=headers).json()["usage"]
    [record] = log.wait_for(1)
    assert record["request_id"] == "mine" and record["client"] == "anonymous"
    assert (record["method"], record["path"], record["status"]) == ("POST", "/v1/completions", 200)
    assert record["prompt_tokens"] == usage["prompt_tokens"] and record["completion_tokens"] == 6
    assert record["finish_reason"] == "length" and record["trace_id"] == TRACEPARENT.split("-")[1]
    assert record["duration_s"] > 0 and record["level"] == "info"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
    assert "secret" not in log.getvalue(), "neither prompts nor keys"


def test_refusals_and_unknown_paths_have_a_line_too_and_probes_have_none(log: Log, server: LiveServer):
    server.http.get("/health")
    server.post("/v1/completions", {"prompt": []})
    server.http.get("/nowhere")
    records = log.wait_for(2)
    assert [(record["path"], record["status"]) for record in records] == [("/v1/completions", 400), ("/nowhere", 404)]
    assert not any("prompt_tokens" in record for record in records)


def test_a_client_that_left_is_told_apart(log: Log, server: LiveServer):
    body = {"model": "tiny", "prompt": "Hello", "max_tokens": 500, "ignore_eos": True}
    before = server.metric("generation_tokens_total")
    with Brake(server, steps=2), send(server, body):
        wait_until(lambda: server.metric("generation_tokens_total") == before + 3)
    [record] = log.wait_for(1)
    assert record["status"] == 499 and record["finish_reason"] == "abort" and record["prompt_tokens"] == 5


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_path_can_forge_a_line_or_move_the_cursor(form: str, server: LiveServer):
    stream = io.StringIO()
    with logging_to(stream, form, "info"):
        server.http.get("/x%0A2026-01-01T00:00:00.000Z%20INFO%20minillm.access%20forged%1B[2J%C2%85%E2%80%A8end")
        wait_until(lambda: "end" in stream.getvalue())
    [line] = stream.getvalue().splitlines()
    assert line.isprintable() and "forged" in line


@pytest.mark.parametrize("flag", [False, True])
def test_the_line_can_be_left_out(log: Log, flag: bool, tiny_model_dir: Path):
    with logged_server(tiny_model_dir, disable_access_log=flag) as server:
        server.complete()
    assert len(log.records()) == (not flag)


def test_requests_are_logged_only_when_asked_for_and_prompts_only_at_debug(tiny_model_dir: Path):
    for level, shown in (("info", False), ("debug", True)):
        stream = Log()
        with logging_to(stream, "json", level), logged_server(
            tiny_model_dir, enable_log_requests=True, max_log_len=8
        ) as server:  # fmt: skip
            server.complete(prompt=PROMPT, max_tokens=3, top_k=7, ignore_eos=True)
        begun, ended = stream.records("minillm.requests")
        assert "top_k=7" in begun["params"] and "max_tokens=3" in begun["params"] and "top_p" not in begun["params"]
        assert begun["request_id"] == ended["request_id"] and ended["completion_tokens"] == [3]
        assert (begun.get("prompt") == PROMPT[:8]) == shown
        assert len(begun.get("prompt_token_ids", ())) == (8 if shown else 0)
        assert PROMPT not in stream.getvalue()


def test_endless_parameters_are_cut_short(tiny_model_dir: Path, log: Log):
    with logged_server(tiny_model_dir, enable_log_requests=True) as server:
        server.complete(structured_outputs={"choice": ["x" * 5000]}, max_tokens=5)
    assert len(log.records("minillm.requests")[0]["params"]) < 3000


def record(
    message: str, *args: object, fields: dict[str, Any] | None = None, failed: bool = False
) -> logging.LogRecord:
    made = logging.LogRecord("minillm.serve", logging.ERROR, "file.py", 1, message, args, None)
    if fields is not None:
        setattr(made, FIELDS, fields)
    if failed:
        try:
            raise ValueError("what a client\nwrote")
        except ValueError as error:
            made.exc_info = (ValueError, error, error.__traceback__)
    return made


def test_a_traceback_cannot_be_taken_for_records():
    text = TextFormatter().format(record("it %s", "failed", failed=True))
    first, *rest = text.splitlines()
    assert first.endswith("ERROR minillm.serve it failed")
    assert rest and all(line.startswith("    ") for line in rest) and "wrote" in rest[-1]
    content = json.loads(JsonFormatter().format(record("it failed", failed=True)))
    assert content["message"] == "it failed" and content["exception"].endswith("ValueError: what a client\nwrote")


def test_fields_of_a_text_line_can_be_told_apart():
    line = TextFormatter().format(record("m", fields={"a": "x y=1", "b": 0.5, "c": "", "d": 'q"', "e": "plain"}))
    assert line.endswith('m a="x y=1" b=0.5 c="" d="q\\"" e=plain')


def test_what_can_be_printed_stays_as_it_is():
    assert escape_controls("año 東京 a\tb\x7f\u202e\ud800") == r"año 東京 a\tb\x7f\u202e\ud800"


class Stuck(io.StringIO):
    """A pipe that nobody empties until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.entered = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.released.wait()
        return super().write(text)


def test_a_log_that_nobody_reads_holds_nobody_up(monkeypatch: pytest.MonkeyPatch):
    """Records beyond the queue are dropped, and it is said how many."""
    monkeypatch.setattr(logs, "QUEUE_RECORDS", 10)
    stream, logger = Stuck(), logging.getLogger("minillm.test")
    with logging_to(stream, "text", "info"):
        logger.info("first")
        stream.entered.wait()
        for number in range(100):
            logger.info("number %d", number)
        stream.released.set()
        wait_until(lambda: "number 9" in stream.getvalue())
        logger.info("last")
    lines = stream.getvalue().splitlines()
    assert sum("number" in line for line in lines) == 10
    assert any("90 log records were dropped" in line for line in lines) and any("last" in line for line in lines)


def test_a_log_that_nobody_ever_reads_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "QUEUE_RECORDS", 10)
    stream, logger = Stuck(), logging.getLogger("minillm.test")
    with logging_to(stream, "text", "info"):
        for number in range(100):
            logger.info("number %d", number)
    assert stream.getvalue() == "", "the block has ended and the writer is still stuck"
    stream.released.set()


@posix
def test_the_command_writes_json_lines_and_vllms_metrics(tiny_model_dir: Path):
    flags = ("--log-format", "json", "--metrics-prefix", "vllm", "--served-model-name", "tiny")
    with serving(str(tiny_model_dir), *flags) as (process, url):
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": PROMPT, "max_tokens": 2}, timeout=30)
        page = httpx.get(f"{url}/metrics").text
        process.terminate()
        _, err = process.communicate(timeout=30)
    records = [json.loads(line) for line in err.splitlines()]
    [access] = [record for record in records if record["logger"] == "minillm.access"]
    assert access["request_id"] == answer.headers["x-request-id"] and access["completion_tokens"] == 2
    assert 'vllm:generation_tokens_total{engine="0",model_name="tiny"} 2.0' in page and "minillm:" not in page
    assert 'vllm:engine_sleep_state{engine="0",model_name="tiny",sleep_state="awake"} 1.0' in page


def test_after_the_block_logging_is_as_before():
    logger, root = logging.getLogger("minillm"), logging.getLogger()
    before = logger.level, list(root.handlers)
    with logging_to(io.StringIO(), "json", "debug"):
        assert logger.level == logging.DEBUG
    assert (logger.level, list(root.handlers)) == before


@pytest.mark.parametrize("wrong", [{"log_format": "xml"}, {"log_level": "loud"}, {"max_log_len": -1}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigError, match="--" + next(iter(wrong)).replace("_", "-")):
        ServerSettings(**wrong)
