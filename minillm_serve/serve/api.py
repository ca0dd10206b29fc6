"""The HTTP application, assembled: each part of the API adds its own routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from minillm_serve import __version__
from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.serve import operations
from minillm_serve.serve.http.errors import install_handlers
from minillm_serve.serve.http.middleware import CallerMiddleware
from minillm_serve.serve.observe.metrics import Metrics
from minillm_serve.serve.openai import routes as openai
from minillm_serve.serve.service import Service
from minillm_serve.serve.settings import ServerSettings


def create_app(
    engine: AsyncEngine, served_model_names: Sequence[str] | str, settings: ServerSettings | None = None
) -> FastAPI:
    """The server of one engine. Starts the engine with the application and stops it with the application."""
    names = (served_model_names,) if isinstance(served_model_names, str) else tuple(served_model_names)
    settings = settings or ServerSettings()
    metrics = Metrics(names[0], engine.stats, settings.metrics_prefix)
    service = Service(engine, names, settings, [metrics])

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
    app.add_middleware(CallerMiddleware)
    install_handlers(app)
    openai.add_routes(app, service)
    operations.add_routes(app, service, metrics)
    return app
