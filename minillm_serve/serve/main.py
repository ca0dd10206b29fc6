"""``minillm serve MODEL``: vLLM's flag names, one process, a clean end on SIGTERM and Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from collections.abc import Callable
from functools import partial

from uvicorn.server import HANDLED_SIGNALS

from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.model.store import DEFAULT_MODEL
from minillm_serve.serve.api import create_app
from minillm_serve.serve.flag_docs import PrintTable
from minillm_serve.serve.flags import ALL_FLAGS, GROUPS, add_flags, engine_config, place, server_settings
from minillm_serve.serve.foreign_flags import add_foreign_flags
from minillm_serve.serve.http.config import allow_open_files, http_config
from minillm_serve.serve.lifecycle.server import EXIT_S, Server, end_process_if_computing, end_process_within
from minillm_serve.serve.lifecycle.slot import EngineSlot
from minillm_serve.serve.listening import bind, url_of
from minillm_serve.serve.observe.logs import logging_to


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``minillm serve``."""
    parser.usage = "minillm serve [MODEL] [FLAG ...]"
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, metavar="MODEL",
                        help="known name, local model folder or .gguf file (default: %(default)s)")  # fmt: skip
    for title, owner, flags in GROUPS:
        add_flags(parser.add_argument_group(title), flags, owner)
    parser.add_argument("--flags-table", action=PrintTable, nargs=0, help="print FLAGS.md and end")
    add_foreign_flags(parser, ALL_FLAGS)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; returns 0, or 1 when the engine was lost. For a process of its own: it ends it.

    Raises ConfigError on what cannot work, before the model is loaded.
    """
    where = place(args)
    config, settings = engine_config(args.model, args), server_settings(args)
    with bind(where.host, where.port) as listening, logging_to(form=settings.log_format, level=settings.log_level):
        names, load = where.served_model_name, partial(AsyncEngine.from_config, config, where.trace_file)
        slot = EngineSlot.holding(load()) if settings.load == "eager" else EngineSlot(load)
        allow_open_files(settings.max_connections)
        app = create_app(slot, names, settings)
        app.state.limits.warn_if_open(where.host)
        uvicorn_config = http_config(app, settings, log_config=None)
        server = Server(uvicorn_config, app.state.lifecycle, settings, _announcer(names[0], url_of(listening)))
        for number in HANDLED_SIGNALS:
            signal.signal(number, server.handle_exit)  # also before and after uvicorn sets it
        asyncio.run(_serve(server, listening))
        end_process_if_computing(server.exit_code)
    return server.exit_code


async def _serve(server: Server, listening: socket.socket) -> None:
    await server.serve(sockets=[listening])
    end_process_within(EXIT_S, server.exit_code)


def _announcer(name: str, url: str) -> Callable[[str], None]:
    """What says on stdout how the start goes, one line for each state that a user waits for."""
    lines = {
        "loading": f"listening at {url}, loading {name}",
        "not loaded": f"listening at {url}/v1; the first request loads {name}",
        "ready": f"{name} ready at {url}/v1 (Ctrl-C ends it)",
    }

    def announce(status: str) -> None:
        if status in lines:
            print(f"minillm serve: {lines[status]}", flush=True)

    return announce
