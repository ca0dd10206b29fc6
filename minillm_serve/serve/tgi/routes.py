"""TGI's paths: always under ``/tgi``, and at the root as well where the server was told so (``--tgi``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from minillm_serve import __version__
from minillm_serve.params import MAX_STOP_STRINGS, RequestError
from minillm_serve.serve.openai.answers import ChatCompletion, TextCompletion
from minillm_serve.serve.openai.chat import create_chat_completion
from minillm_serve.serve.openai.completions import create_completion
from minillm_serve.serve.openai.openapi import NOTHING, answers, answers_events, document_body
from minillm_serve.serve.openai.protocol import ChatCompletionRequest, CompletionRequest
from minillm_serve.serve.service import Service
from minillm_serve.serve.tgi.answers import TGI_ERRORS, Generated, GeneratedList, Info, PlacedTokens, TokenizedChat
from minillm_serve.serve.tgi.errors import TgiErrors, write_error
from minillm_serve.serve.tgi.generate import NotJson, Tgi, not_json
from minillm_serve.serve.tgi.protocol import MAX_BEST_OF, CompatGenerateRequest, GenerateRequest
from minillm_serve.serve.tgi.tokenize import chat_tokenize, tokenize, tokenize_content

PREFIX = "/tgi"
ROOT_PATHS = frozenset({"/", "/generate", "/generate_stream", "/info", "/chat_tokenize"})


def add_routes(app: FastAPI, service: Service) -> None:
    """All of them, on ``app``, and TGI's error shape on them. To be called last: its middleware comes first."""
    tgi, at_root = Tgi(service), service.settings.tgi

    def owns(path: str) -> bool:
        return path == PREFIX or path.startswith(PREFIX + "/") or (at_root and path in ROOT_PATHS)

    app.add_exception_handler(NotJson, lambda request, error: not_json(error))
    app.add_middleware(TgiErrors, owns=owns)
    app.include_router(_native(tgi), prefix=PREFIX, responses=TGI_ERRORS)
    app.include_router(_beside(tgi), prefix=PREFIX, responses=TGI_ERRORS)
    if at_root:
        app.include_router(_native(tgi), responses=TGI_ERRORS)


def tokenize_notation(service: Service) -> Callable[[dict[str, Any]], Awaitable[Response | None]]:
    """Answers those bodies of the root's /tokenize that are TGI's: they say ``inputs``. None for others."""
    tgi = Tgi(service)

    async def answer(content: dict[str, Any]) -> Response | None:
        if "inputs" not in content or "prompt" in content:
            return None
        try:
            return await tokenize_content(tgi, content)
        except RequestError as error:
            return write_error(error)

    return answer


def _native(tgi: Tgi) -> APIRouter:
    """What is at the root of a TGI server and not of ours."""
    router = APIRouter()

    @router.post(
        "/", openapi_extra=document_body(CompatGenerateRequest), responses=answers(GeneratedList, streams=True)
    )
    async def compat_generate(request: Request) -> Response:
        return await tgi.compat_generate(request)

    @router.post("/generate", openapi_extra=document_body(GenerateRequest), responses=answers(Generated))
    async def generate(request: Request) -> Response:
        return await tgi.generate(request)

    @router.post("/generate_stream", openapi_extra=document_body(GenerateRequest), responses=answers_events())
    async def generate_stream(request: Request) -> Response:
        return await tgi.generate_stream(request)

    @router.post("/chat_tokenize", openapi_extra=document_body(ChatCompletionRequest), responses=answers(TokenizedChat))
    async def chat_tokens(request: Request) -> Response:
        return await chat_tokenize(tgi, request)

    @router.get("/info", responses=answers(Info))
    async def info() -> dict[str, Any]:
        return describe_server(tgi)

    @router.get("/", responses=NOTHING)
    async def health() -> Response:
        return check_health(tgi)

    return router


def _beside(tgi: Tgi) -> APIRouter:
    """What TGI has and our root has too, in shapes of its own; and the prefix alone, which clients post to as it is."""
    router = APIRouter()
    service = AnyModelName.of(tgi.service)

    @router.post("", openapi_extra=document_body(CompatGenerateRequest), responses=answers(GeneratedList, streams=True))
    async def compat_generate(request: Request) -> Response:
        return await tgi.compat_generate(request)

    @router.post("/tokenize", openapi_extra=document_body(GenerateRequest), responses=answers(PlacedTokens))
    async def tokens(request: Request) -> Response:
        return await tokenize(tgi, request)

    @router.post(
        "/v1/chat/completions",
        openapi_extra=document_body(ChatCompletionRequest),
        responses=answers(ChatCompletion, streams=True),
    )
    async def chat_completions(request: Request) -> Response:
        return await create_chat_completion(service, request)

    @router.post(
        "/v1/completions",
        openapi_extra=document_body(CompletionRequest),
        responses=answers(TextCompletion, streams=True),
    )
    async def completions(request: Request) -> Response:
        return await create_completion(service, request)

    @router.get("", responses=NOTHING)
    @router.get("/health", responses=NOTHING)
    async def health() -> Response:
        return check_health(tgi)

    return router


@dataclass(frozen=True)
class AnyModelName(Service):
    """The same service under whatever name a client has for the model: TGI's clients say ``tgi`` or ``dummy``."""

    @classmethod
    def of(cls, service: Service) -> AnyModelName:
        return cls(**{field.name: getattr(service, field.name) for field in fields(service)})

    def check_model(self, name: str | None) -> None:
        """Every name will do, as in TGI."""


def check_health(tgi: Tgi) -> Response:
    """200 and nothing else while the step loop lives."""
    slot = tgi.service.slot
    if slot.error is not None or (slot.loaded and slot.engine.errored):
        return JSONResponse({"error": "unhealthy", "error_type": "healthcheck"}, 503)
    return Response()


def describe_server(tgi: Tgi) -> dict[str, Any]:
    """``GET /info``."""
    service = tgi.service
    return {
        "model_id": service.model_name,
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": service.engine.config.max_num_seqs,
        "max_best_of": MAX_BEST_OF,
        "max_stop_sequences": MAX_STOP_STRINGS,
        "max_input_tokens": tgi.max_input_tokens,
        "max_total_tokens": service.engine.max_model_len,
        "validation_workers": 1,
        "max_client_batch_size": 1,
        "router": "minillm",
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
