"""What the people who run the server ask it: is it well, is it ready, which version is it, what has it done."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from minillm_serve import __version__
from minillm_serve.serve.http.errors import error_response
from minillm_serve.serve.lifecycle.state import Lifecycle
from minillm_serve.serve.observe.metrics import Metrics
from minillm_serve.serve.openai.openapi import NOTHING, answers, answers_text
from minillm_serve.serve.service import Service


class Readiness(BaseModel):
    """reason: why requests are not taken now."""

    status: str
    reason: str | None = None


def add_routes(app: FastAPI, service: Service, lifecycle: Lifecycle, metrics: Metrics) -> None:
    """GET /health, /ready, /version, /load and /metrics; with --dev POST /reset_prefix_cache."""

    @app.get("/health", responses=NOTHING)
    async def health() -> Response:
        """Alive: 200 and nothing else unless only a new process can help."""
        if lifecycle.failed:
            return error_response(503, lifecycle.reason or "the server has failed")
        return Response()

    @app.get("/ready", responses=answers(Readiness) | {503: {"model": Readiness, "description": "Not now"}})
    async def ready() -> JSONResponse:
        """Whether a request would be taken now. Anything but 200: send it somewhere else."""
        if (reason := lifecycle.reason) is None:
            return JSONResponse({"status": lifecycle.status})
        return JSONResponse({"status": lifecycle.status, "reason": reason}, 503)

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @app.get("/load")
    async def load() -> dict[str, int]:
        """Requests that were let in and are not answered to the end."""
        return {"server_load": lifecycle.under_way}

    @app.get("/metrics", responses=answers_text("text/plain"))
    async def exposition() -> Response:
        metrics.event_loop_tasks.set(len(asyncio.all_tasks()))
        return Response(await run_in_threadpool(metrics.exposition), media_type=metrics.content_type)

    if service.settings.dev:

        @app.post("/reset_prefix_cache")
        async def reset_prefix_cache() -> dict[str, bool]:
            """Forget all cached prefixes, as benchmarks need between runs. Running requests go on."""
            await service.engine.call(lambda core: core.scheduler.reset_prefix_cache())
            return {"success": True}
