"""A request body becomes a JSON object, or a clear refusal, before anything else looks at it."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from fastapi import Request

from minillm_serve.params import RequestError
from minillm_serve.serve.http.errors import ApiError

MAX_DEPTH = 128
MAX_FIELDS = 1024
# Each array or object costs as much as a hundred characters of text, and json holds the GIL until it has them all.
MAX_BRACKETS = 2**18
SMALL_BODY_BYTES = 64 * 2**10


async def read_json(request: Request, max_bytes: int) -> dict[str, Any]:
    """The JSON object in the body. Raises ApiError 415, 413 (as soon as ``max_bytes`` is passed) or RequestError."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, f"the body must be sent as application/json, got content type {media_type or 'none'!r}")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ApiError(415, f"compressed bodies are not accepted, got content encoding {encoding!r}")
    body = await _read(request, max_bytes)
    if len(body) <= SMALL_BODY_BYTES:
        return parse_object(body)
    return await asyncio.to_thread(parse_object, body)


def parse_object(body: bytes) -> dict[str, Any]:
    """Strict JSON: UTF-8, no NaN or Infinity, no lone surrogates, bounded structure. Raises :class:`RequestError`."""
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise RequestError(f"the body opens more than {MAX_BRACKETS} brackets, those in strings included")
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: byte {error.start} does not fit") from error
    except RecursionError as error:
        raise _too_deep() from error
    except RequestError:
        raise
    except ValueError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise RequestError(f"the body must be a JSON object, got {type(value).__name__}")
    if len(value) > MAX_FIELDS:
        raise RequestError(f"the body has {len(value)} fields: at most {MAX_FIELDS} are accepted")
    if _depth_exceeds(value, MAX_DEPTH):
        raise _too_deep()
    if b"\\ud" in body or b"\\uD" in body:
        _refuse_lone_surrogates(value)
    return value


async def _read(request: Request, max_bytes: int) -> bytes:
    # A refused body's rest is dropped by uvicorn as it comes; closing here would reset the connection under the answer.
    refusal = ApiError(413, f"the body is larger than this server's limit of {max_bytes} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise refusal
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise refusal
    return bytes(body)


def _refuse_constant(name: str) -> NoReturn:
    raise RequestError(f"the body is not valid JSON: {name} is not a JSON number")


def _too_deep() -> RequestError:
    return RequestError(f"the body is nested too deeply: at most {MAX_DEPTH} levels are accepted")


def _depth_exceeds(value: Any, limit: int) -> bool:
    """Walks level by level, so that depth costs no stack."""
    level = [value]
    for _ in range(limit):
        children = [list(item.values()) if isinstance(item, dict) else item for item in level]
        level = [child for group in children for child in group if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _refuse_lone_surrogates(value: Any) -> None:
    """An escape such as \\ud800 alone is a string that no UTF-8 text can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError("the body holds a lone surrogate (\\ud800 to \\udfff), which is not text") from error
