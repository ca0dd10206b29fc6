"""Sending what should not be sent, and waiting for an answer no longer than a patient client would."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import struct
from collections.abc import Mapping
from typing import Any

from minillm_serve.bench.fuzz.bodies import BodyCase
from minillm_serve.bench.fuzz.judge import Answer
from minillm_serve.bench.fuzz.sockets import HALF_CLOSE, RESET, RawCase

SILENCE_S = 10.0
_JSON = {"Content-Type": "application/json"}
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r?\n")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class HangError(Exception):
    """Not a byte came for SILENCE_S seconds."""


class Poster:
    """Requests one after another over a connection that is kept as long as the server keeps it."""

    def __init__(self, host: str, port: int):
        self._host, self._port = host, port
        self._connection: http.client.HTTPConnection | None = None

    def send(self, case: BodyCase) -> Answer:
        """Raises HangError; OSError or HTTPException when the server closes before it has answered."""
        headers = _JSON | {name: value for name, value in case.headers}
        return self.ask("POST", case.path, case.body, headers)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = _JSON) -> Answer:
        """One request; over a new connection if the old one was closed behind the last answer."""
        fresh = self._connection is None
        try:
            return self._ask(method, path, body, headers)
        except TimeoutError as error:
            self.close()
            raise HangError(f"no byte within {SILENCE_S:g} s") from error
        except (OSError, http.client.HTTPException):
            self.close()
            if fresh:
                raise
            return self.ask(method, path, body, headers)

    def json(self, path: str, content: Any = None) -> Any:
        """The content of a 200; None for every other answer."""
        body = None if content is None else json.dumps(content).encode()
        answer = self.ask("GET" if body is None else "POST", path, body)
        return json.loads(answer.body) if answer.status == 200 else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=SILENCE_S)
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        self._connection.request(method, path, body, encoded)
        response = self._connection.getresponse()
        content = response.read()
        answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
        if response.will_close:
            self.close()
        return answer


def send_raw(host: str, port: int, case: RawCase) -> list[tuple[int, bytes]]:
    """Status and what follows it of each answer that came. Raises HangError; a closed connection is an answer too."""
    with socket.create_connection((host, port), timeout=SILENCE_S) as connection:
        with contextlib.suppress(OSError):  # the server may close as soon as it has seen enough
            connection.sendall(case.data)
        if case.ending == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        if case.ending != HALF_CLOSE:
            return []
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        return split_answers(_read_all(connection))


def split_answers(data: bytes) -> list[tuple[int, bytes]]:
    """Pipelined answers, each with its status; a body counts as far as the next status line."""
    found = list(_STATUS.finditer(data))
    ends = [*(match.start() for match in found), len(data)][1:]
    return [
        (int(match[1]), data[match.end() - 2 : end].partition(b"\r\n\r\n")[2])
        for match, end in zip(found, ends, strict=True)
    ]


def _read_all(connection: socket.socket) -> bytes:
    data = bytearray()
    try:
        while chunk := connection.recv(2**16):
            data += chunk
    except TimeoutError as error:
        raise HangError(f"the connection stayed open and silent for {SILENCE_S:g} s") from error
    except OSError:  # reset: what was sent beyond the answer was not read
        pass
    return bytes(data)
