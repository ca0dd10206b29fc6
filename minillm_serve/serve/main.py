"""``minillm serve MODEL``: vLLM's flag names, one process, a clean end on SIGTERM and Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
from dataclasses import fields
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from minillm_serve.config import CHOICES, ConfigError, EngineConfig
from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.model.store import DEFAULT_MODEL
from minillm_serve.serve.api import create_app
from minillm_serve.serve.body import DEFAULT_MAX_BODY_BYTES

# Flags that are fields of EngineConfig: vLLM's flag name, our field, type, what it sets.
ENGINE_FLAGS = (
    ("--dtype", "dtype", str, "weights and arithmetic"),
    ("--quantization", "quantization", str, "arithmetic of the linear layers: int8 weights and activations"),
    ("--max-model-len", "max_model_len", int, "longest prompt plus output, in tokens (default: what the model allows)"),
    ("--max-num-seqs", "max_num_seqs", int, "requests computed in one step"),
    (
        "--max-num-batched-tokens",
        "max_num_batched_tokens",
        int,
        "tokens computed in one step, prefill and decode",
    ),
    ("--enable-chunked-prefill", "enable_chunked_prefill", bool, "read a long prompt over several steps"),
    (
        "--scheduling-policy",
        "scheduling_policy",
        str,
        "who goes first: who came first, or the lowest priority",
    ),
    ("--enable-prefix-caching", "enable_prefix_caching", bool, "keep KV blocks for prompts that begin alike"),
    ("--kv-cache-dtype", "kv_cache_dtype", str, "numbers in the KV cache; auto: those of --dtype"),
    ("--block-size", "block_size", int, "tokens per KV cache block"),
    ("--num-gpu-blocks-override", "num_kv_blocks", int, "KV cache blocks (default: as many as the KV memory holds)"),
    (
        "--kv-cache-memory-bytes",
        "kv_cache_memory_bytes",
        int,
        "memory of the KV cache, in bytes (default: a share)",
    ),
    ("--json-always-closes", "json_always_closes", bool, "constrained answers are complete within max_tokens"),
    ("--guided-jump-ahead", "guided_jump_ahead", bool, "append text that a constraint leaves no choice about"),
    ("--guided-cache-mib", "guided_cache_mib", int, "memory for compiled constraints, in MiB"),
    ("--num-threads", "num_threads", int, "CPU threads of the model (default: torch's choice)"),
)
# Idle connections close within this time; only what still runs afterwards is cancelled.
MIN_SHUTDOWN_S = 0.2
_DEFAULTS = {field.name: field.default for field in fields(EngineConfig)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``minillm serve``."""
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, metavar="MODEL",
                        help="known name, local model folder or .gguf file (default: %(default)s)")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="TCP port, 0 for a free one (default: %(default)s)")
    parser.add_argument("--served-model-name", nargs="+", metavar="NAME",
                        help="what clients call the model; further names are aliases (default: MODEL)")  # fmt: skip
    for flag, field, kind, what in ENGINE_FLAGS:
        default = _DEFAULTS[field]
        shown = "" if default is None else f" (default: {default})"
        how: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        if field in CHOICES:
            how["metavar"] = "|".join(choice for choice in CHOICES[field] if choice is not None)
        parser.add_argument(flag, dest=field, default=default, help=what + shown, **how)
    parser.add_argument("--trace-file", type=Path, help="write every engine step to this JSON file at the end")
    parser.add_argument("--max-request-body-bytes", type=int, default=DEFAULT_MAX_BODY_BYTES,
                        help="larger request bodies get 413 (default: %(default)s)")  # fmt: skip
    parser.add_argument("--accept-legacy-guided", action="store_true",
                        help="take guided_json, guided_regex ... for structured_outputs, not refuse them")  # fmt: skip
    parser.add_argument("--metrics-prefix", default="minillm:", help="before each metric's name (default: %(default)s)")
    parser.add_argument("--shutdown-timeout", type=int, default=0,
                        help="seconds that running requests get at the end; 0 aborts them (default: 0)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; returns 0. Raises ConfigError on what cannot work, before the model is loaded."""
    _check(args)
    listening = bind(args.host, args.port)
    with listening:
        config = EngineConfig(model=args.model, **{field: getattr(args, field) for _, field, _, _ in ENGINE_FLAGS})
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        engine = AsyncEngine.from_config(config, trace_file=args.trace_file)
        names = tuple(dict.fromkeys(args.served_model_name or (args.model,)))
        app = create_app(
            engine,
            names,
            max_body_bytes=args.max_request_body_bytes,
            metrics_prefix=args.metrics_prefix,
            accept_legacy_guided=args.accept_legacy_guided,
        )
        grace = max(args.shutdown_timeout, MIN_SHUTDOWN_S)
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=grace
        )
        server = _Server(settings, f"{names[0]} ready at {_url(listening)}/v1")
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
    if args.max_request_body_bytes < 1:
        raise ConfigError(f"--max-request-body-bytes must be at least 1, got {args.max_request_body_bytes}")
    if args.shutdown_timeout < 0:
        raise ConfigError(f"--shutdown-timeout must be 0 or more seconds, got {args.shutdown_timeout}")
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
