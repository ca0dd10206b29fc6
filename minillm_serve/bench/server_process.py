"""A ``minillm serve`` of its own: started on a free port, awaited by ``/health``, ended with SIGTERM."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

STARTUP_TIMEOUT_S = 180.0
SHUTDOWN_TIMEOUT_S = 30.0
_HOST = "127.0.0.1"


class ServerError(RuntimeError):
    """The server did not start, died or did not end; the message carries the end of its log."""


def free_port() -> int:
    """A TCP port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return probe.getsockname()[1]


class ServerProcess:
    """Context manager: inside it the server answers at ``base_url`` (which ends in ``/v1``).

    ``arguments`` follow ``minillm serve``; ``port`` 0 picks a free one; everything the server prints goes to ``log``.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        port: int = 0,
        command: Sequence[str] = (sys.executable, "-m", "minillm_serve.cli", "serve"),
        startup_timeout_s: float = STARTUP_TIMEOUT_S,
    ):
        self.port = port or free_port()
        self.log = log
        self.base_url = f"http://{_HOST}:{self.port}/v1"
        self._command = [*command, *arguments, "--host", _HOST, "--port", str(self.port)]
        self._startup_timeout_s = startup_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._told_to_end = False

    def __enter__(self) -> ServerProcess:
        self._refuse_busy_port()
        # Windows has no SIGTERM to handle: only a process in a group of its own can be sent CTRL_BREAK.
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, creationflags=flags)
        try:
            self._wait_until_healthy()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        died = None if self._told_to_end else self._process.poll()
        if died is None:
            self.tell_to_end()
        try:
            self._process.wait(SHUTDOWN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            if kind is None:
                raise ServerError(f"the server did not end within {SHUTDOWN_TIMEOUT_S:.0f} s of SIGTERM") from None
        if died is not None:
            raise ServerError(self._with_log(f"the server died with code {died} while it was in use")) from error

    def tell_to_end(self) -> None:
        """What SIGTERM does; returns at once."""
        assert self._process is not None
        self._told_to_end = True
        # Windows has no SIGTERM to handle.
        self._process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))

    def exit_code(self, timeout_s: float) -> int | None:
        """Wait for the end; None when it has not come within ``timeout_s`` seconds."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    @property
    def pid(self) -> int:
        """Process id, while inside the context."""
        assert self._process is not None
        return self._process.pid

    def _refuse_busy_port(self) -> None:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex((_HOST, self.port)) == 0:
                raise ServerError(f"port {self.port} is already in use; choose another with --port")

    def _wait_until_healthy(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._startup_timeout_s
        while not self._healthy():
            if self._process.poll() is not None:
                raise ServerError(self._with_log(f"the server ended at start with code {self._process.returncode}"))
            if time.monotonic() > deadline:
                raise ServerError(self._with_log(f"the server was not healthy within {self._startup_timeout_s:.0f} s"))
            time.sleep(0.05)

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _with_log(self, message: str) -> str:
        tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        return f"{message}; its log ends with:\n{tail}" if tail else f"{message} (its log is empty)"
