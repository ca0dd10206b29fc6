"""The command of the differential run, against a server that answers one thing to everything."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minillm_serve import cli
from minillm_serve.compare.conformance.case import KEY
from minillm_serve.compare.conformance.cases import all_cases


class Stubborn(BaseHTTPRequestHandler):
    """200 and no body to whoever has the key, 401 to anybody else."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200 if self.headers.get("authorization") == f"Bearer {KEY}" else 401)
        self.send_header("content-length", "0")
        self.send_header("x-request-id", "1")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stubborn)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def conformance(*arguments: str) -> int:
    return cli.main(["compare", "conformance", *arguments])


def test_what_agrees_with_the_recording_passes(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sub" / "found.json"
    assert conformance("--replay", "--minillm-url", url, "--only", "operations/health", "--json", str(path)) == 0
    assert "1 agreed, 0 differ as listed, 0 unexplained, 1 compared" in capsys.readouterr().out
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["agreed"], found["compared"], found["unexplained"]) == (1, 1, {})
    assert found["vllm"]["version"] == "0.32.0" and "generate" in found["vllm"]["flags"]


def test_what_nobody_reviewed_fails_and_is_printed(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        conformance("--replay", "--minillm-url", url, "--only", "operations/models", "--only", "tokenize/prompt") == 1
    )
    said = capsys.readouterr().out
    assert "operations/models" in said and "tokenize/prompt" in said and "2 unexplained" in said
    assert "content_type [value]" in said


def test_a_case_is_asked_after_the_one_it_names(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance("--list", "--only", "completions/cache/longer") == 0
    assert capsys.readouterr().out.split() == [
        f"completions/cache/{name}" for name in ("first", "second", "other-salt", "longer")
    ]
    assert conformance("--list") == 0
    assert len(capsys.readouterr().out.split()) == len(all_cases())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "poetry/*"], "no case is called poetry/*"),
        (["--replay", "no-such-file.json"], "is not a recording that can be read"),
        (
            ["--replay", "--minillm-url", "http://127.0.0.1:1", "--only", "operations/health"],
            "gave no answer to the case",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert conformance(*arguments) == 2
    assert said in capsys.readouterr().err
