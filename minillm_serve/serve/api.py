"""The HTTP application: which path is answered by what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from minillm_serve import __version__
from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.serve.body import DEFAULT_MAX_BODY_BYTES
from minillm_serve.serve.chat import create_chat_completion
from minillm_serve.serve.completions import create_completion
from minillm_serve.serve.errors import error_response, install_handlers
from minillm_serve.serve.metrics import Metrics
from minillm_serve.serve.middleware import RequestIdMiddleware
from minillm_serve.serve.openapi import document_body
from minillm_serve.serve.protocol import ChatCompletionRequest, CompletionRequest
from minillm_serve.serve.service import Service


def create_app(
    engine: AsyncEngine,
    served_model_names: Sequence[str] | str,
    *,
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    metrics_prefix: str = "minillm:",
    accept_legacy_guided: bool = False,
) -> FastAPI:
    """The server of one engine. Starts the engine with the application and stops it with the application."""
    names = (served_model_names,) if isinstance(served_model_names, str) else tuple(served_model_names)
    metrics = Metrics(names[0], engine.stats, metrics_prefix)
    service = Service(engine, names, metrics, max_body_bytes, accept_legacy_guided)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.on_step = metrics.on_step
        _ = service.max_prompt_chars  # reads the whole vocabulary: now, rather than in the first request
        await engine.start()
        try:
            yield
        finally:
            await engine.stop()

    app = FastAPI(
        title="minillm", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.add_middleware(RequestIdMiddleware)
    install_handlers(app)
    _add_generation(app, service)
    _add_models(app, service)
    _add_operations(app, service)
    return app


def _add_generation(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", openapi_extra=document_body(ChatCompletionRequest))
    async def chat_completions(request: Request) -> Response:
        return await create_chat_completion(service, request)

    @app.post("/v1/completions", openapi_extra=document_body(CompletionRequest))
    async def completions(request: Request) -> Response:
        return await create_completion(service, request)


def _add_models(app: FastAPI, service: Service) -> None:
    def card(name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": service.created,
            "owned_by": "minillm",
            "root": PurePath(service.engine.config.model).name,
            "parent": None,
            "max_model_len": service.engine.max_model_len,
            "permission": [],
        }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card(name) for name in service.names]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        service.check_model(name)
        return card(name)


def _add_operations(app: FastAPI, service: Service) -> None:
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
    def metrics() -> Response:
        return Response(service.metrics.exposition(), media_type=service.metrics.content_type)
