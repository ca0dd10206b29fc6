"""The paths of the OpenAI API and of vLLM's additions to it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from minillm_serve.serve.openai import models, tokenize
from minillm_serve.serve.openai.answers import ChatCompletion, EmbeddingList, Ranking, ScoreList, TextCompletion
from minillm_serve.serve.openai.chat import create_chat_completion
from minillm_serve.serve.openai.completions import create_completion
from minillm_serve.serve.openai.embeddings import EmbeddingRequest, create_embeddings
from minillm_serve.serve.openai.openapi import answers, document_body
from minillm_serve.serve.openai.protocol import ChatCompletionRequest, CompletionRequest
from minillm_serve.serve.openai.rerank import RerankRequest, ScoreRequest, create_rerank, create_score
from minillm_serve.serve.service import Service


def add_routes(app: FastAPI, service: Service, other_tokenize: tokenize.OtherNotation | None = None) -> None:
    """All of them, on ``app``. other_tokenize: is asked first about each body of /tokenize."""

    @app.post(
        "/v1/chat/completions",
        openapi_extra=document_body(ChatCompletionRequest, service.names),
        responses=answers(ChatCompletion, streams=True),
    )
    async def chat_completions(request: Request) -> Response:
        return await create_chat_completion(service, request)

    @app.post(
        "/v1/completions",
        openapi_extra=document_body(CompletionRequest, service.names),
        responses=answers(TextCompletion, streams=True),
    )
    async def completions(request: Request) -> Response:
        return await create_completion(service, request)

    @app.post(
        "/v1/embeddings", openapi_extra=document_body(EmbeddingRequest, service.names), responses=answers(EmbeddingList)
    )
    async def embeddings(request: Request) -> Response:
        """A vector for each text: the mean of the model's hidden states after its last norm, of length 1."""
        return await create_embeddings(service, request)

    async def rerank(request: Request) -> Response:
        """Documents, best first, by query likelihood."""
        return await create_rerank(service, request)

    async def score(request: Request) -> Response:
        """How well documents answer queries, by query likelihood."""
        return await create_score(service, request)

    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        app.post(path, openapi_extra=document_body(RerankRequest, service.names), responses=answers(Ranking))(rerank)
    for path in ("/v1/score", "/score"):
        app.post(path, openapi_extra=document_body(ScoreRequest, service.names), responses=answers(ScoreList))(score)
    tokenize.add_routes(app, service, other_tokenize)
    models.add_routes(app, service)
