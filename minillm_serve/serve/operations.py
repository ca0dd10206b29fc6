"""What the people who run the server ask it: is it well, which version is it, what has it done."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from minillm_serve import __version__
from minillm_serve.serve.http.errors import error_response
from minillm_serve.serve.observe.metrics import Metrics
from minillm_serve.serve.service import Service


def add_routes(app: FastAPI, service: Service, metrics: Metrics) -> None:
    """GET /health, /version and /metrics."""

    @app.get("/health")
    async def health() -> Response:
        """200 and nothing else while the step loop lives."""
        if service.engine.errored:
            return error_response(503, "the engine has failed; restart the server")
        return Response()

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @app.get("/metrics")
    def exposition() -> Response:
        return Response(metrics.exposition(), media_type=metrics.content_type)
