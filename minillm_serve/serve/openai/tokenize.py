"""POST /tokenize and /detokenize, as in vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, RootModel
from starlette.responses import Response

from minillm_serve.guided.tools import read_tools
from minillm_serve.params import RequestError
from minillm_serve.serve.http.body import read_json
from minillm_serve.serve.openai import fields
from minillm_serve.serve.openai.conversation import ConversationBody
from minillm_serve.serve.openai.openapi import answers, document_body
from minillm_serve.serve.openai.protocol import parse
from minillm_serve.serve.openai.tools import shown_tools
from minillm_serve.serve.openai.unsupported import refuse_unsupported, warning_header
from minillm_serve.serve.service import Service

NEUTRAL: dict[str, tuple[Any, ...]] = {"media_io_kwargs": ({},), "mm_processor_kwargs": ({},)}
# Another notation of the body of /tokenize: answers it, or returns None where it is vLLM's.
OtherNotation = Callable[[dict[str, Any]], Awaitable[Response | None]]


class TokenizeText(fields.Body):
    """A plain prompt, as /v1/completions would read it."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class TokenizeChat(ConversationBody):
    """A conversation, as /v1/chat/completions would."""

    model: str | None = None
    return_token_strs: bool | None = None


class TokenizeRequest(RootModel[TokenizeText | TokenizeChat]):
    """For the API's description."""


class DetokenizeRequest(fields.Body):
    """Token ids of a text."""

    tokens: list[int]
    model: str | None = None


class Tokens(BaseModel):
    """Answer of /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class Text(BaseModel):
    """Answer of /detokenize."""

    prompt: str


def add_routes(app: FastAPI, service: Service, other: OtherNotation | None = None) -> None:
    """Both of them, on ``app``. other: is asked first about each body of /tokenize."""

    @app.post("/tokenize", openapi_extra=document_body(TokenizeRequest), responses=answers(Tokens))
    async def tokenize(request: Request) -> Response:
        content = await read_json(request, service.settings.max_body_bytes)
        if other is not None and (answer := await other(content)) is not None:
            return answer
        body, ids, unread = await _tokenized(service, content)
        headers = warning_header([*_unknown(service, body), *unread])
        name = service.engine.tokenizer.backend.id_to_token
        return JSONResponse(
            {
                "count": len(ids),
                "max_model_len": service.engine.max_model_len,
                "tokens": ids,
                "token_strs": [name(id) for id in ids] if body.return_token_strs else None,
            },
            headers=headers,
        )

    @app.post("/detokenize", openapi_extra=document_body(DetokenizeRequest), responses=answers(Text))
    async def detokenize(request: Request) -> Response:
        body = parse(DetokenizeRequest, await read_json(request, service.settings.max_body_bytes))
        service.check_model(body.model)
        unknown = _unknown(service, body)
        size = service.engine.tokenizer.vocab_size
        for index, token in enumerate(body.tokens):
            if not 0 <= token < size:
                raise RequestError(f"{token} is no token id: this model has the ids 0 to {size - 1}", f"tokens.{index}")
        text = await asyncio.to_thread(service.text_of, body.tokens)
        return JSONResponse({"prompt": text}, headers=warning_header(unknown))


async def _tokenized(
    service: Service, content: dict[str, Any]
) -> tuple[TokenizeText | TokenizeChat, list[int], list[str]]:
    """The body, the token ids of what it says, and its fields that mean nothing to the chat template."""
    if content.get("messages") is not None:
        chat = parse(TokenizeChat, content)
        service.check_model(chat.model)
        ids, unread = await chat.render(service, _shown(chat.tools), any_length=True)
        return chat, ids, unread
    text = parse(TokenizeText, content)
    service.check_model(text.model)
    tokenizer = service.engine.tokenizer
    encode = tokenizer.encode if text.add_special_tokens is False else tokenizer.encode_prompt
    return text, await asyncio.to_thread(encode, text.prompt), []


def _shown(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    if tools is None:
        return None
    read_tools(tools)
    return shown_tools(tools)


def _unknown(service: Service, body: fields.Body) -> list[str]:
    """Names that are ignored. Raises :class:`RequestError` where none may be."""
    unknown = refuse_unsupported(body.model_extra or {}, NEUTRAL)
    if unknown and service.settings.strict:
        raise RequestError(f"{unknown[0][:100]} is no parameter that this server knows", unknown[0])
    return unknown
