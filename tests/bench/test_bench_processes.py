"""Processes the demo starts: the server is awaited, ended and quoted when it dies; a child answers or explains."""

from __future__ import annotations

import http.client
import socket
import sys
from pathlib import Path

import pytest

from minillm_serve.bench.child import ChildError, run_child
from minillm_serve.bench.environment import available_cores, describe_environment
from minillm_serve.bench.server_process import ServerError, ServerProcess, free_port

SERVER = """
import http.server, signal, sys, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            print("fatal: out of blocks", flush=True)
            os._exit(3)
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
def stop(*_):
    print("stopped cleanly", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
CHILD = """
import sys
from minillm_serve.bench.child import child_main
def measure(job, progress):
    print("a library prints to stdout")
    progress("half way")
    if job.get("fail"):
        raise RuntimeError("the model folder is empty")
    return {"double": 2 * job["x"], "text": "ñ"}
child_main(measure)
"""


def serve(code: str, log: Path, **options: float) -> ServerProcess:
    return ServerProcess(["model"], log, command=(sys.executable, "-c", code), **options)


def test_the_server_answers_inside_and_is_stopped_cleanly_after(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serve(SERVER, log) as server:
        assert server.base_url == f"http://127.0.0.1:{server.port}/v1"
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
    assert log.read_text() == "stopped cleanly\n"
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", server.port)):
        pass


def test_a_server_that_ends_at_start_is_quoted(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"code 5(.|\n)*no such model"),
        serve("print('no such model'); raise SystemExit(5)", tmp_path / "log"),
    ):
        pytest.fail("a dead server must not be entered")


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="not healthy within 0 s"),
        serve("import time; time.sleep(60)", tmp_path / "log", startup_timeout_s=0.2),
    ):
        pytest.fail("a silent server must not be entered")


def test_a_server_that_dies_in_use_is_quoted_whatever_the_client_raised(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"died with code 3(.|\n)*out of blocks"),
        serve(SERVER, tmp_path / "log") as s,
    ):
        http.client.HTTPConnection("127.0.0.1", s.port).request("GET", "/die")
        assert s._process is not None
        s._process.wait(10)
        raise ConnectionError("the client saw only this")


def test_an_error_inside_stops_the_server_and_passes_through(tmp_path: Path) -> None:
    with pytest.raises(KeyError), serve(SERVER, tmp_path / "log") as server:
        raise KeyError("mine")
    assert server._process is not None and server._process.poll() is not None


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServerError, match=f"port {port} is already in use"),
            serve(SERVER, tmp_path / "l", port=port),
        ):
            pytest.fail("the port belongs to somebody else")


def test_free_ports_are_free() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listening:
        assert listening.getsockname()[1] > 0


@pytest.fixture
def child_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_child.py").write_text(CHILD, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "a_child"


def test_a_child_answers_and_reports_progress_whatever_it_prints(child_module: str) -> None:
    said: list[str] = []
    assert run_child(child_module, {"x": 21}, said.append) == {"double": 42, "text": "ñ"}
    assert said == ["half way"]


def test_a_child_that_fails_is_quoted(child_module: str) -> None:
    with pytest.raises(ChildError, match=r"a_child ended with code 1(.|\n)*the model folder is empty"):
        run_child(child_module, {"x": 1, "fail": True}, lambda _: None)


def test_the_environment_names_versions_and_neither_host_nor_paths() -> None:
    environment = describe_environment(threads=1, dtype="float32")
    assert environment["packages"]["torch"]
    assert environment["cores"] == available_cores() >= 1
    assert environment["cpu"]
    text = str(environment)
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
