"""The paths of the OpenAI API and of vLLM's additions to it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from minillm_serve.serve.openai import models
from minillm_serve.serve.openai.chat import create_chat_completion
from minillm_serve.serve.openai.completions import create_completion
from minillm_serve.serve.openai.openapi import document_body
from minillm_serve.serve.openai.protocol import ChatCompletionRequest, CompletionRequest
from minillm_serve.serve.service import Service


def add_routes(app: FastAPI, service: Service) -> None:
    """All of them, on ``app``."""

    @app.post("/v1/chat/completions", openapi_extra=document_body(ChatCompletionRequest))
    async def chat_completions(request: Request) -> Response:
        return await create_chat_completion(service, request)

    @app.post("/v1/completions", openapi_extra=document_body(CompletionRequest))
    async def completions(request: Request) -> Response:
        return await create_completion(service, request)

    models.add_routes(app, service)
