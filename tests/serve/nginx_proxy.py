"""A real nginx with the repository's own configuration, in front of a server of the tests."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live_server import wait_until

from minillm_serve.compare.tools import tool_path

NGINX_CONF = Path(__file__).parents[2] / "minillm_serve" / "deploy" / "nginx" / "nginx.conf"


def need_nginx() -> Path:
    """The program. Skips the test where there is none."""
    if os.name != "posix" or (nginx := tool_path("nginx")) is None:
        pytest.skip("needs nginx: minillm compare setup tools")
    return nginx


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def configured(listen: int, upstreams: list[int], **changes: str) -> str:
    """The repository's configuration for these ports; ``changes``: further texts to replace, and by what."""
    servers = "\n        ".join(f"server 127.0.0.1:{port} max_fails=2 fail_timeout=5s;" for port in upstreams)
    text = NGINX_CONF.read_text(encoding="utf-8")
    adapted = {
        "listen 8080;": f"listen 127.0.0.1:{listen};",
        "server 127.0.0.1:8000 max_fails=2 fail_timeout=5s;": servers,
        "worker_processes auto;": "worker_processes 1;",
        **changes,
    }
    for old, new in adapted.items():
        assert text.count(old) == 1, f"{old!r} is not in the configuration"
        text = text.replace(old, new)
    return text


@contextmanager
def nginx(folder: Path, upstreams: list[int], changes: dict[str, str] | None = None) -> Iterator[int]:
    """Its port, while it runs. ``folder``: where it may write."""
    program, port = need_nginx(), free_port()
    (folder / "nginx.conf").write_text(configured(port, upstreams, **(changes or {})), encoding="utf-8")
    user = "user root; " if os.geteuid() == 0 else ""  # else its workers could not enter the test's folder
    command = [str(program), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr", "-g", f"{user}daemon off;"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or _answers(port))
        assert process.poll() is None, process.stderr.read()
        yield port
    finally:
        process.terminate()
        process.communicate()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
