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
from minillm_serve.serve.lifecycle.middleware import LifecycleMiddleware
from minillm_serve.serve.lifecycle.slot import EngineSlot
from minillm_serve.serve.lifecycle.state import Lifecycle
from minillm_serve.serve.limits.limits import Limits
from minillm_serve.serve.observe.observability import Observability
from minillm_serve.serve.openai import routes as openai
from minillm_serve.serve.openai.openapi import describe_truthfully, errors
from minillm_serve.serve.service import Service
from minillm_serve.serve.settings import ServerSettings
from minillm_serve.serve.tgi import routes as tgi


def create_app(
    engine: AsyncEngine | EngineSlot, served_model_names: Sequence[str] | str, settings: ServerSettings | None = None
) -> FastAPI:
    """The server of one engine. Starts the engine with the application and stops it with the application.

    engine: loaded, or a slot that is filled as ``settings.load`` says. ``app.state.lifecycle`` tells how it goes.
    """
    names = (served_model_names,) if isinstance(served_model_names, str) else tuple(served_model_names)
    settings = settings or ServerSettings()
    slot = engine if isinstance(engine, EngineSlot) else EngineSlot.holding(engine)
    lifecycle = Lifecycle(slot, lazy=settings.load == "lazy")
    limits = Limits(settings)
    observability = Observability(
        names[0], settings, slot.stats, lambda ids: slot.engine.tokenizer.decode(ids), limits.rejections
    )
    service = Service(
        slot,
        names,
        settings,
        [*observability.observers, *limits.observers],
        limits.gates,
        patience=limits.patience,
        isolation=limits.isolation,
    )

    def on_loaded(loaded: AsyncEngine) -> None:
        observability.on_loaded(loaded)
        _ = service.max_prompt_chars  # reads the whole vocabulary: now, rather than in the first request
        _ = service.sampling_defaults

    slot.on_loaded = on_loaded

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if slot.loaded:
            await slot.begin()
        elif not lifecycle.lazy:
            slot.begin()
        try:
            yield
        finally:
            await slot.close()
            await observability.close()

    app = FastAPI(
        title="minillm",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=errors(),
    )
    describe_truthfully(app)
    app.state.lifecycle = lifecycle
    app.add_middleware(LifecycleMiddleware, lifecycle=lifecycle)
    limits.install(app)
    app.add_middleware(CallerMiddleware)
    observability.add_middleware(app)
    install_handlers(app)
    openai.add_routes(app, service, tgi.tokenize_notation(service) if settings.tgi else None)
    operations.add_routes(app, service, lifecycle, observability.metrics)
    tgi.add_routes(app, service)
    return app
