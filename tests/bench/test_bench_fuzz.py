"""The fuzz command finds what it is there to find, and finds nothing in the real server."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from minillm_serve.bench.fuzz import exchange
from minillm_serve.bench.fuzz.bodies import BodyCase, places, raw, written
from minillm_serve.bench.fuzz.campaign import Campaign
from minillm_serve.bench.fuzz.judge import Answer, fault, fault_of_raw
from minillm_serve.bench.fuzz.seeds import GOOD, SEEDS
from minillm_serve.bench.fuzz.sockets import RESET, SOUND, RawCase
from minillm_serve.bench.main import COMMANDS
from minillm_serve.cli import main

OPENAI_ERROR = json.dumps({"error": {"message": "no", "type": "BadRequestError", "param": None, "code": 400}}).encode()
TGI_ERROR = json.dumps({"error": "no", "error_type": "validation"}).encode()
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}
DESCRIPTION = {
    "paths": {
        "/v1/completions": {
            "post": {
                "requestBody": {"content": {"application/json": {"schema": {"properties": {"prompt": {}, "seed": {}}}}}}
            }
        }
    }
}


class Fragile(http.server.BaseHTTPRequestHandler):
    """A server with one fault: ``broken(body)`` says what it does with a body, instead of refusing it politely."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fault = ""
    confused = False

    def do_GET(self) -> None:
        self._answer(200, json.dumps(DESCRIPTION).encode())

    def do_POST(self) -> None:
        try:
            body = self.rfile.read(max(0, int(self.headers.get("Content-Length", "0"))))
        except ValueError:
            body = b""
        if b"\\u0000" in body and self.fault == "500":
            self._answer(500, OPENAI_ERROR)
        elif b"\\u0000" in body and self.fault == "hang":
            self.server.over.wait()
        elif b"\\u0000" in body and self.fault == "leak":
            self._answer(400, OPENAI_ERROR.replace(b"no", b"at 0x7f00aa00bb00"))
        elif b"\\u0000" in body and self.fault == "confused":
            type(self).confused = True
            self._answer(400, OPENAI_ERROR)
        elif body == json.dumps(GOOD[1]).encode():
            self._answer(200, json.dumps({"choices": ["other" if self.confused else "text"]}).encode())
        else:
            self._answer(400, OPENAI_ERROR)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class QuietServer(http.server.ThreadingHTTPServer):
    """Connections that end early are what it is here for. over: no request need hang any longer."""

    daemon_threads = True

    def __init__(self, *args: object):
        super().__init__(*args)
        self.over = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def fragile(what: str) -> Iterator[int]:
    handler = type("Handler", (Fragile,), {"fault": what})
    with QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("what", "said"), [("500", "status 500"), ("leak", "0x7f00aa00bb00"), ("confused", "a sound request")]
)
def test_a_campaign_finds_a_servers_fault_and_a_small_case_of_it(what, said, monkeypatch):
    monkeypatch.setattr("minillm_serve.bench.fuzz.campaign.RAW_SHARE", 10**9)
    monkeypatch.setattr("minillm_serve.bench.fuzz.campaign.MAX_FAILURES", 1)
    with fragile(what) as port:
        findings = Campaign("127.0.0.1", port, seed=3).run(2000)
    [failure] = findings.failures
    assert said in failure["problem"]
    if what != "confused":
        assert "\\u0000" in failure["case"]["body"]
        assert failure["case"]["bytes"] < 300, "the case was not made small"


def test_silence_is_a_hang(monkeypatch):
    monkeypatch.setattr(exchange, "SILENCE_S", 0.3)
    monkeypatch.setattr(Campaign, "_sound_answer", lambda self: "text")
    with fragile("hang") as port:
        campaign = Campaign("127.0.0.1", port, seed=3)
        assert "a hang" in campaign._problem(BodyCase("/v1/completions", (), written({"prompt": "\x00"})))
        assert campaign.findings.hangs == 1
        with pytest.raises(exchange.HangError):
            exchange.send_raw("127.0.0.1", port, RawCase("silent", SOUND.replace(b"upon", b"\\u0000")[:-5]))


def test_the_same_seed_gives_the_same_cases():
    sent: list[list[object]] = []
    for _ in range(2):
        with fragile("") as port:
            campaign, cases = Campaign("127.0.0.1", port, seed=5), []
            judge = campaign._judge
            campaign._judge = lambda case, judge=judge, cases=cases: cases.append(case) or judge(case)
            findings = campaign.run(100)
            assert findings.failures == []
            assert findings.cases == len(cases) == 100
            sent.append(cases)
    assert sent[0] == sent[1]
    assert len(set(sent[0])) == 100, "a case was sent twice"


@pytest.mark.parametrize(
    ("answer", "path", "said"),
    [
        (Answer(200, JSON, b"{}"), "/v1/completions", None),
        (Answer(400, JSON, OPENAI_ERROR), "/v1/completions", None),
        (Answer(422, JSON, TGI_ERROR), "/tgi/generate", None),
        (Answer(200, EVENTS, b"data: {}\n\ndata: [DONE]\n\n"), "/v1/completions", None),
        (Answer(200, EVENTS, b"data:{}\n\n"), "/tgi/generate_stream", None),
        (Answer(500, JSON, OPENAI_ERROR), "/v1/completions", "status 500"),
        (Answer(400, JSON, TGI_ERROR), "/v1/completions", "shape"),
        (Answer(400, JSON, OPENAI_ERROR), "/tgi", "shape"),
        (Answer(400, JSON, b"no"), "/v1/completions", "shape"),
        (Answer(400, JSON, OPENAI_ERROR.replace(b"no", b"n" * 9000)), "/v1/completions", "bytes"),
        (Answer(400, JSON, OPENAI_ERROR.replace(b"no", b"in /home/x/y.py")), "/v1/completions", "/home/x"),
        (Answer(200, JSON, b"{"), "/v1/completions", "not JSON"),
        (Answer(200, EVENTS, b"data: {}\n\n"), "/v1/completions", "ends with"),
        (Answer(200, EVENTS, b""), "/v1/completions", "without events"),
        (Answer(200, EVENTS, b'data: {"error":{"code":500}}\n\ndata: [DONE]\n\n'), "/v1/completions", "failed"),
    ],
)
def test_the_judge_knows_a_fault_when_it_sees_one(answer, path, said):
    found = fault(answer, path)
    assert (found is None) == (said is None)
    assert said is None or said in found


def test_raw_answers_are_told_apart_and_judged():
    both = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}HTTP/1.1 400 Bad Request\r\n\r\nno"
    assert exchange.split_answers(both) == [(200, b"{}"), (400, b"no")]
    assert exchange.split_answers(b"") == []
    assert fault_of_raw(500, b"") is not None
    assert fault_of_raw(505, b"") is None, "a version of HTTP that is not spoken is no failure"


def test_bodies_hold_what_json_cannot_say():
    assert written({"a": [raw("1e400"), "\ud800"]}) == b'{"a": [1e400, "\\ud800"]}'
    assert list(places({"a": [1]})) == [(), ("a",), ("a", 0)]


def test_a_connection_that_is_reset_is_not_waited_for():
    with fragile("") as port:
        assert exchange.send_raw("127.0.0.1", port, RawCase("cut", SOUND[:50], RESET)) == []
        assert [status for status, _ in exchange.send_raw("127.0.0.1", port, RawCase("sound", SOUND))] == [200]


def test_the_command_is_listed():
    assert "fuzz" in COMMANDS


def test_two_thousand_cases_do_not_harm_the_server(tiny_model_dir, tmp_path, capsys):
    """50,000 of them are a nightly command: ``minillm bench fuzz``."""
    file = tmp_path / "fuzz.json"
    code = main(
        ["bench", "fuzz", "--cases", "2000", "--seed", "11", "--model", str(tiny_model_dir), "--json", str(file)]
    )
    report = json.loads(file.read_text())
    assert code == 0, capsys.readouterr().out + json.dumps(report["failures"], indent=1)[:6000]
    assert report["failures"] == []
    assert report["hangs"] == 0
    assert report["cases"] == 2000
    assert report["answers"]["200"] > 100, "too few cases were sound enough to reach the engine"
    assert report["answers"]["400"] > 100


def test_every_post_route_has_sound_bodies_to_begin_with(tiny_model_dir):
    from minillm_serve.config import EngineConfig
    from minillm_serve.engine.async_engine import AsyncEngine
    from minillm_serve.serve.api import create_app

    engine = AsyncEngine.from_config(EngineConfig(model=str(tiny_model_dir), num_kv_blocks=8))
    paths = create_app(engine, "tiny").openapi()["paths"]
    assert {path for path, operations in paths.items() if "post" in operations} == SEEDS.keys()
