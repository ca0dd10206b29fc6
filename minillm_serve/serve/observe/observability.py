"""What watches a server: metrics always, logs and spans as its settings say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from fastapi import FastAPI

from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.engine.core import EngineStats
from minillm_serve.serve.observe.access_log import Accountant, RequestLog, log_access
from minillm_serve.serve.observe.http import HttpMetrics, HttpObserver, Told
from minillm_serve.serve.observe.metrics import Metrics
from minillm_serve.serve.observe.tracing import Tracing
from minillm_serve.serve.observer import Observer
from minillm_serve.serve.settings import ServerSettings


class Observability:
    """observers: what Service must tell of every request. rejections: reason -> count, kept by the limits.

    decode: token ids to text, for the log of requests.
    """

    def __init__(
        self,
        model_name: str,
        settings: ServerSettings,
        engine_stats: Callable[[], EngineStats],
        decode: Callable[[Sequence[int]], str],
        rejections: Mapping[str, int] | None = None,
    ):
        self.metrics = Metrics(model_name, engine_stats, settings.metrics_prefix, rejections)
        self.observers: list[Observer] = [self.metrics, Accountant()]
        self._told: list[Told] = [HttpMetrics(self.metrics.registry)]
        if not settings.disable_access_log:
            self._told.append(log_access)
        if settings.enable_log_requests:
            self.observers.append(RequestLog(decode, settings.max_log_len))
        self._tracing = Tracing(settings.otlp_traces_endpoint, model_name) if settings.otlp_traces_endpoint else None
        if self._tracing is not None:
            self.observers.append(self._tracing)

    def add_middleware(self, app: FastAPI) -> None:
        """Must be the last one added, which is the outermost: it sees what the others refuse."""
        app.add_middleware(HttpObserver, router=app.router, told=self._told)

    def on_loaded(self, engine: AsyncEngine) -> None:
        """The engine is there: watch its steps."""
        if engine.config.speculative_config is not None:
            self.metrics.count_drafts(engine.config.speculative_config.num_speculative_tokens)
        self.metrics.describe_cache(engine.config, engine.stats().kv_blocks_total)
        engine.on_step = self.metrics.on_step

    async def close(self) -> None:
        """Send the last spans."""
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
