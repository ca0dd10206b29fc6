"""The two servers, each started with the flags that make them comparable, and ended."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from minillm_serve.compare.conformance.case import ALIAS, KEY, MODEL
from minillm_serve.compare.environments import how_to_install, installed_version, python_of
from minillm_serve.config import ConfigError

STARTUP_TIMEOUT_S = 300.0
SHUTDOWN_TIMEOUT_S = 30.0
HOST = "127.0.0.1"
# vLLM's CPU attention takes blocks of 32 tokens and multiples: with blocks of one size prefix hits are of one size too.
COMMON = ("--dtype", "float32", "--max-model-len", "2048", "--block-size", "32", "--served-model-name", MODEL, ALIAS,
          "--api-key", KEY)  # fmt: skip
TEMPLATE = Path(__file__).parent / "hermes.jinja"
ANSWERS = (
    "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-prompt-tokens-details",
    "--enable-per-request-metrics", "--generation-config", "vllm", "--scheduling-policy", "priority",
    "--chat-template", TEMPLATE.name,
)  # fmt: skip
# By the name that cases give: what each server is started with beside COMMON. Ours pools without being told.
# JSON: vLLM allows any whitespace unless told otherwise, ours what json.dumps writes.
COMPACT = ("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}')
SERVERS: Mapping[str, tuple[str, ...]] = {
    "generate": (*ANSWERS, *COMPACT, "--enable-request-id-headers"),
    "pooling": ("--runner", "pooling", "--pooler-config", '{"pooling_type": "MEAN"}', "--enable-request-id-headers"),
}
VLLM_ONLY = ("--enforce-eager",)
# Text that a constraint leaves no choice about is cut into tokens at once by ours, token by token by vLLM.
MINILLM_ONLY = ("--no-guided-jump-ahead",)
VLLM_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}


def vllm_flags(server: str) -> list[str]:
    """What vLLM is started with, beside the model, in the folder of the template."""
    return [*COMMON, *SERVERS[server], *VLLM_ONLY]


def vllm_version() -> str | None:
    """The version in vLLM's environment, None where there is none."""
    return installed_version("vllm")


@contextmanager
def vllm_server(model: Path, server: str, log: Path) -> Iterator[str]:
    """A vLLM of its own; yields its URL. Raises ConfigError where it is not installed or does not start."""
    if vllm_version() is None:
        raise ConfigError(f"vLLM is not installed; install it once with: {how_to_install('vllm')}")
    command = [str(python_of("vllm").with_name("vllm")), "serve", str(model), *vllm_flags(server)]
    with _running(command, os.environ | VLLM_ENVIRONMENT, log) as url:
        yield url


@contextmanager
def minillm_server(model: Path, log: Path) -> Iterator[str]:
    """Ours; yields its URL. Raises ConfigError where it does not start."""
    command = [sys.executable, "-m", "minillm_serve.cli", "serve", str(model), *COMMON, *ANSWERS, *MINILLM_ONLY]
    with _running(command, dict(os.environ), log) as url:
        yield url


@contextmanager
def _running(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[str]:
    port = _free_port()
    # A session of its own: vLLM's engine is a child process, and the whole group is ended together.
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--host", HOST, "--port", str(port)],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=dict(environment), start_new_session=True,
            cwd=TEMPLATE.parent,
        )  # fmt: skip
    url = f"http://{HOST}:{port}"
    try:
        _await_health(process, url, command, log)
        yield url
        if process.poll() is not None:
            raise ConfigError(f"{Path(command[0]).name} died with code {process.returncode}; {_end_of(log)}")
    finally:
        _end(process)


def _await_health(process: subprocess.Popen[bytes], url: str, command: list[str], log: Path) -> None:
    deadline = time.monotonic() + STARTUP_TIMEOUT_S
    while not _ready(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ConfigError(f"{' '.join(command[:4])} did not become ready; {_end_of(log)}")
        time.sleep(0.2)


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
    return "its log ends with:\n" + "\n".join(lines)


def _ready(url: str) -> bool:
    """Whether the server can answer. vLLM has no ``/ready``: it listens once it is."""
    status = _status(url, "/ready")
    return (_status(url, "/health") if status == 404 else status) == 200


def _status(url: str, path: str) -> int | None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(SHUTDOWN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):  # nobody of the group is left
            os.killpg(process.pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
