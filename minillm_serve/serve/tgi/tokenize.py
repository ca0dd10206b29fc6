"""TGI's ``/tokenize`` and ``/chat_tokenize``: tokens with their text and where they stand."""

from __future__ import annotations

import asyncio
from itertools import accumulate
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from starlette.responses import Response

from minillm_serve.params import RequestError
from minillm_serve.serve.openai.pooling import check_chars
from minillm_serve.serve.openai.protocol import ChatCompletionRequest
from minillm_serve.serve.openai.protocol import parse as parse_openai
from minillm_serve.serve.openai.unsupported import warning_header
from minillm_serve.serve.tgi.generate import Tgi
from minillm_serve.serve.tgi.protocol import GenerateRequest, parse


async def tokenize(tgi: Tgi, http: HttpRequest) -> Response:
    """``[{"id", "text", "start", "stop"}, ...]`` of ``inputs``."""
    return await tokenize_content(tgi, await tgi.read(http))


async def tokenize_content(tgi: Tgi, content: dict[str, Any]) -> Response:
    """The same for a body that was read. Raises :class:`RequestError`."""
    body = parse(GenerateRequest, content)
    keep = None if body.parameters is None else body.parameters.truncate
    if keep == 0:
        raise RequestError("truncate must be at least 1, got 0", "truncate")
    check_chars(tgi.service, body.inputs, "inputs")
    tokens = await asyncio.to_thread(_located, tgi, body.inputs)
    kept = tokens if keep is None else tokens[-keep:]
    return JSONResponse(kept, headers=warning_header(tgi.unknown(body)))


async def chat_tokenize(tgi: Tgi, http: HttpRequest) -> Response:
    """The tokens of a conversation and the text that the chat template makes of it."""
    service = tgi.service
    body = parse_openai(ChatCompletionRequest, await tgi.read(http), service.settings.accept_legacy_guided)
    unknown = body.unknown_fields(service.settings.strict)
    ids, unread = await body.render(service, body.tool_use(service.settings).shown)
    tokens = await asyncio.to_thread(_following, tgi, ids)
    content = {"tokenize_response": tokens, "templated_text": service.text_of(ids)}
    return JSONResponse(content, headers=warning_header([*unknown, *unread]))


def _located(tgi: Tgi, text: str) -> list[dict[str, Any]]:
    """start, stop: bytes of the UTF-8 text, as TGI counts. A token inside a character has the whole character's."""
    [encoding] = tgi.service.engine.tokenizer.backend.encode_batch([text], add_special_tokens=True)  # without the GIL
    ends = [0, *accumulate(len(character.encode()) for character in text)]
    return [
        {"id": id, "text": text[start:stop], "start": ends[start], "stop": ends[stop]}
        for id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
    ]


def _following(tgi: Tgi, ids: list[int]) -> list[dict[str, Any]]:
    """The same for tokens that a template chose: their texts stand one after the other."""
    texts = [tgi.service.token_texts.at(id, ids, place) for place, id in enumerate(ids)]
    ends = [0, *accumulate(len(text.encode()) for text in texts)]
    return [
        {"id": id, "text": text, "start": ends[place], "stop": ends[place + 1]}
        for place, (id, text) in enumerate(zip(ids, texts, strict=True))
    ]
