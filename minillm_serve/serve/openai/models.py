"""GET /v1/models and /v1/models/{name}."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from fastapi import FastAPI

from minillm_serve.serve.openai.answers import ModelCard, ModelList
from minillm_serve.serve.openai.openapi import answers
from minillm_serve.serve.service import Service


def add_routes(app: FastAPI, service: Service) -> None:
    """Both of them, on ``app``."""

    @app.get("/v1/models", responses=answers(ModelList))
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model_card(service, name) for name in service.names]}

    @app.get("/v1/models/{name:path}", responses=answers(ModelCard))
    async def model(name: str) -> dict[str, Any]:
        service.check_model(name)
        return model_card(service, name)


def model_card(service: Service, name: str) -> dict[str, Any]:
    """A model as OpenAI and vLLM describe it."""
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
