"""Where the server listens, under which names, and the socket it does so with."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from minillm_serve.config import ConfigError


@dataclass(frozen=True)
class Place:
    """What belongs to one run of ``minillm serve`` rather than to its engine or its manners. Raises ConfigError.

    served_model_name: what clients call the model, the first one is its own (default: as it was named on the command
    line). trace_file: gets every engine step, when the server ends.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    served_model_name: tuple[str, ...] = ()
    trace_file: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be between 0 and 65535, got {self.port}")
        if self.trace_file is not None and not (folder := Path(self.trace_file).absolute().parent).is_dir():
            raise ConfigError(f"--trace-file: the folder {folder} does not exist")


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: a busy port is found out before the model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: asyncio sets TCP_NODELAY only on sockets that say they are TCP, and without it
    # each small write of a stream can wait 40 ms for an acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":  # elsewhere the option would let two servers share the port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        reason = error.strerror or error
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}; choose another --host or --port") from error
    return bound


def url_of(bound: socket.socket) -> str:
    """The URL that reaches it, without a path."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
