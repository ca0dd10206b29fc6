"""All limits of one server, put together."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from minillm_serve.serve.limits.isolation import CacheIsolation
from minillm_serve.serve.limits.middleware import OPEN_PATHS, DeadlineMiddleware, DoorMiddleware, KeyMiddleware
from minillm_serve.serve.limits.queue import QueueBound, QueuePatience
from minillm_serve.serve.limits.quotas import Quotas
from minillm_serve.serve.limits.rejections import Rejections
from minillm_serve.serve.limits.settings import LimitSettings
from minillm_serve.serve.observer import Gate, Observer

logger = logging.getLogger("minillm.serve")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
TOLD_TO_BROWSERS = (
    "Retry-After", "X-Request-Id", *(f"X-RateLimit-{what}-{unit}" for what in ("Limit", "Remaining", "Reset")
                                     for unit in ("Requests", "Tokens")),
)  # fmt: skip


class Limits:
    """What ``settings`` allow, and what has been refused so far (``rejections``)."""

    def __init__(self, settings: LimitSettings):
        self._settings = settings
        self.rejections = Rejections()
        keys, requests, tokens = settings.keys.keys, settings.requests_per_minute, settings.tokens_per_minute
        self.quotas = Quotas(keys, requests, tokens, self.rejections)
        self.queue = QueueBound(settings.max_num_queued_reqs, settings.max_num_queued_tokens, self.rejections)
        self.patience = QueuePatience(settings.queue_timeout, self.rejections) if settings.queue_timeout else None
        self.isolation = CacheIsolation() if settings.isolate_cache == "key" else None

    @property
    def gates(self) -> Sequence[Gate]:
        """The queue first: a request that the server has no room for costs its client nothing."""
        return self.queue, self.quotas

    @property
    def observers(self) -> Sequence[Observer]:
        return self.queue, self.quotas

    def warn_if_open(self, host: str) -> None:
        """Say so where strangers can reach a server that asks nobody for a key; vLLM would not."""
        if not self._settings.keys and host not in LOOPBACK:
            logger.warning("anybody who reaches %s may use this server: --api-key or --api-key-file would ask", host)

    def install(self, app: FastAPI) -> None:
        """Add the middleware; what is added later lies outside it."""
        settings = self._settings
        app.state.limits = self
        app.add_middleware(DoorMiddleware, quotas=self.quotas, queue=self.queue)
        app.add_middleware(DeadlineMiddleware, seconds=settings.request_timeout, rejections=self.rejections)
        open_paths = OPEN_PATHS | ({"/metrics"} if settings.open_metrics else frozenset())
        app.add_middleware(KeyMiddleware, keys=settings.keys, rejections=self.rejections, open_paths=open_paths)
        if settings.origins:
            # Outside the keys: a browser asks before it sends any (and the request itself still needs one).
            app.add_middleware(
                CORSMiddleware,
                allow_origins=settings.origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=TOLD_TO_BROWSERS,
            )
