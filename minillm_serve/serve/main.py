"""``minillm serve MODEL``: vLLM's flag names, one process, a clean end on SIGTERM and Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
from pathlib import Path

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.model.store import DEFAULT_MODEL
from minillm_serve.serve.api import create_app
from minillm_serve.serve.flags import ENGINE_FLAGS, SERVER_FLAGS, add_flags, engine_config, server_settings
from minillm_serve.serve.settings import ServerSettings

# Idle connections close within this time; only what still runs afterwards is cancelled.
MIN_SHUTDOWN_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``minillm serve``."""
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, metavar="MODEL",
                        help="known name, local model folder or .gguf file (default: %(default)s)")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="TCP port, 0 for a free one (default: %(default)s)")
    parser.add_argument("--served-model-name", nargs="+", metavar="NAME",
                        help="what clients call the model; further names are aliases (default: MODEL)")  # fmt: skip
    add_flags(parser, ENGINE_FLAGS, EngineConfig)
    add_flags(parser, SERVER_FLAGS, ServerSettings)
    parser.add_argument("--trace-file", type=Path, help="write every engine step to this JSON file at the end")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; returns 0. Raises ConfigError on what cannot work, before the model is loaded."""
    _check(args)
    listening = bind(args.host, args.port)
    with listening:
        config, settings = engine_config(args.model, args), server_settings(args)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        engine = AsyncEngine.from_config(config, trace_file=args.trace_file)
        names = tuple(dict.fromkeys(args.served_model_name or (args.model,)))
        app = create_app(engine, names, settings)
        grace = max(settings.shutdown_timeout, MIN_SHUTDOWN_S)
        uvicorn_config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=grace
        )
        server = _Server(uvicorn_config, f"{names[0]} ready at {_url(listening)}/v1")
        for number in HANDLED_SIGNALS:
            signal.signal(number, server.handle_exit)  # uvicorn raises the signal again when done: that ends here
        asyncio.run(server.serve(sockets=[listening]))
    return 0


class _Server(uvicorn.Server):
    """Says one line when requests will be answered."""

    def __init__(self, config: uvicorn.Config, ready: str):
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"minillm serve: {self._ready} (Ctrl-C ends it)", flush=True)


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.port <= 65535:
        raise ConfigError(f"--port must be between 0 and 65535, got {args.port}")
    if args.trace_file is not None and not args.trace_file.absolute().parent.is_dir():
        raise ConfigError(f"--trace-file: the folder {args.trace_file.parent} does not exist")


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


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
