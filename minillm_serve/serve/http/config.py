"""uvicorn as this server runs it, in production and in tests alike."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

from minillm_serve.serve.http.connection import Connection
from minillm_serve.serve.limits.settings import LimitSettings

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None
OTHER_FILES = 128  # what the process needs beside its connections


def http_config(app: FastAPI, settings: LimitSettings, **options: Any) -> uvicorn.Config:
    """For ``create_app``'s application; options: further ones of ``uvicorn.Config``."""
    connection = partial(
        Connection,
        settings=settings,
        rejections=app.state.limits.rejections,
        most=most_connections(settings.max_connections),
    )
    ours = {"lifespan": "on", "log_level": "warning", "access_log": False, "server_header": False, "ws": "none"}
    return uvicorn.Config(app, http=connection, **(ours | options))


def most_connections(wanted: int) -> int:
    """``wanted`` (0: any number), or what the limit on open files leaves, if that is less."""
    if resource is None:
        return wanted or 2**31
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = 2**31 if soft == resource.RLIM_INFINITY else max(16, soft - OTHER_FILES)
    return min(wanted or room, room)


def allow_open_files(connections: int) -> None:
    """Raise this process's own limit on open files, as far as it may, to hold so many connections."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
