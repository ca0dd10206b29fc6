"""What the process itself gives away: descriptors, sockets, code that it would run, and versions with known holes."""

from __future__ import annotations

import ast
import socket
from importlib.metadata import version
from pathlib import Path

import pytest
from live_server import Brake, LiveServer, wait_until
from survival import survives
from test_disconnect import send

import minillm_serve
from minillm_serve.config import EngineConfig

PACKAGE = Path(minillm_serve.__file__).parent
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle", "joblib"}
BODY = {"prompt": "Hello", "max_tokens": 900, "ignore_eos": True, "temperature": 0}


def test_nothing_that_runs_what_it_reads_is_imported():
    """CVE-2025-32434, 32444, 62164: pickles from a file or a socket are programs."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                names = ["pickle"]
            else:
                continue
            found += [f"{path.name}: {name}" for name in names if name.partition(".")[0] in FORBIDDEN_IMPORTS]
    assert not found, found


def release(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:3] if part.isdigit())


@pytest.mark.parametrize(
    ("package", "least"),
    [("starlette", (1, 0, 1)), ("h11", (0, 16, 0)), ("fastapi", (0, 115, 0)), ("uvicorn", (0, 30, 0))],
)
def test_versions_with_known_holes_are_not_used(package: str, least: tuple[int, ...]):
    """CVE-2026-48710 (Starlette, Host header), CVE-2025-43859 (h11, chunked bodies)."""
    assert release(package) >= least


def test_a_server_listens_where_it_was_told_and_nowhere_else(tiny_model_dir: Path):
    """CVE-2023-48022 was a second port that nobody had asked for."""
    tables = [Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6")]
    if not tables[0].exists():
        pytest.skip("this system does not tell which sockets listen")

    def listening() -> set[str]:
        inodes = set()
        for link in Path("/proc/self/fd").iterdir():
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
        return {row[1] for row in rows if row[3] == "0A" and row[9] in inodes}

    before = listening()
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1)
    with LiveServer(config) as server:
        assert server.complete()["usage"]["completion_tokens"] == 4
        assert listening() - before == {f"0100007F:{server.port:04X}"}


def test_five_hundred_that_leave_at_every_phase_leave_nothing(tiny_model_dir: Path):
    """CVE-2026-9540 (CWE-404): what a request holds is given back wherever it was when its client went."""
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=256, max_num_seqs=8, num_threads=1)
    content = b'{"prompt": "Hello", "max_tokens": 20, "stream": true, "ignore_eos": true}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(content) + content

    def leave(server: LiveServer, phase: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            if phase == 0:
                connection.sendall(head[:40])
            elif phase == 1:
                connection.sendall(request[: -len(content) // 2])
            elif phase == 2:
                connection.sendall(request)
            else:  # having read so much of the answer: its head, a token or some, all but [DONE], all
                connection.sendall(request)
                wanted, got = (b"HTTP", b"data:", b'"length"', b"[DONE]")[phase - 3], b""
                while wanted not in got:
                    got += connection.recv(1 if phase == 3 else 512)

    with LiveServer(config) as server, survives(server):
        for number in range(500):
            leave(server, number % 7)
        wait_until(server.idle)
        with Brake(server, steps=0) as brake:  # eight run, the others wait
            connections = [send(server, BODY | {"stream": number % 2 == 0}) for number in range(20)]
            brake.allow_when_told(things=20, steps=2)
            for connection in connections:
                connection.close()
        wait_until(server.idle)
        assert len(server.engine.core._active) == 0
