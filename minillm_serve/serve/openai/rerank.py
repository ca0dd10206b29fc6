"""POST /rerank (Jina's and Cohere's shape) and POST /score (vLLM's): how well documents answer a query.

A score is the geometric mean of the probabilities that the model gives the query's tokens after the document: query
likelihood, see engine/scoring.py. It lies in (0, 1] and compares documents for one query, not queries with each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema
from starlette.responses import Response

from minillm_serve.engine.scoring import ScoredPair, pair, paired
from minillm_serve.params import PoolingParams, RequestError
from minillm_serve.request import RequestOutput
from minillm_serve.serve.caller import caller_of
from minillm_serve.serve.http.body import read_json
from minillm_serve.serve.openai.pooling import (
    PoolingRequest,
    TokenCount,
    check_chars,
    pooled,
    prompts_are_called,
    read_tokens,
    usage,
)
from minillm_serve.serve.openai.protocol import parse
from minillm_serve.serve.openai.unsupported import warning_header
from minillm_serve.serve.service import Service

MAX_DOCUMENTS = 1024
NAMES = (("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2"))
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "use_activation": (True,),
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    "instruction": (),
    "max_chunks_per_doc": (),
}


def _parse_texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("must be a string or a list of strings")
    if not 1 <= len(texts) <= MAX_DOCUMENTS:
        raise ValueError(f"must hold between 1 and {MAX_DOCUMENTS} texts, got {len(texts)}")
    return texts


_TEXTS_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_DOCUMENTS},
    ]
}
Texts = Annotated[Any, AfterValidator(_parse_texts), WithJsonSchema(_TEXTS_SCHEMA)]


class ScoringRequest(PoolingRequest):
    """max_tokens_per_query, max_tokens_per_doc: longer texts are cut to so many tokens; 0 cuts nothing."""

    max_tokens_per_query: TokenCount = None
    max_tokens_per_doc: TokenCount = None


class RerankRequest(ScoringRequest):
    """top_n: how many results, best first; 0 for all. return_documents: repeat each document in its result."""

    query: Annotated[str, Field(min_length=1)]
    documents: Texts
    top_n: TokenCount = None
    return_documents: bool | None = None


class ScoreRequest(ScoringRequest):
    """Two texts or lists of texts, under one of four pairs of names: the first is asked, the second answers."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": list(names)} for names in NAMES]})

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None

    def sides(self) -> tuple[str, str]:
        """The names that this body uses. Raises :class:`RequestError`."""
        given = {name for names in NAMES for name in names if getattr(self, name) is not None}
        for names in NAMES:
            if given == set(names):
                return names
        wanted = ", ".join(" with ".join(names) for names in NAMES)
        raise RequestError(f"one pair of texts must be given ({wanted}), got {', '.join(sorted(given)) or 'none'}")


async def create_rerank(service: Service, http: HttpRequest) -> Response:
    """The documents, best first. Raises RequestError or ApiError before anything is queued."""
    body = parse(RerankRequest, await read_json(http, service.settings.max_body_bytes))
    unknown = body.unknown_fields(NEUTRAL, service.settings.strict)
    service.check_model(body.model)
    scores, outputs = await _scores(service, http, body, ("query", [body.query]), ("documents", body.documents))
    ranked = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n or None]
    results: list[dict[str, Any]] = [{"index": index, "relevance_score": scores[index]} for index in ranked]
    if body.return_documents is not False:
        for result in results:
            result["document"] = {"text": body.documents[result["index"]], "multi_modal": None}
    content = {
        "id": _id("rerank", http),
        "model": service.model_name,
        "usage": read_tokens(outputs),
        "results": results,
    }
    return JSONResponse(content, headers=warning_header(unknown))


async def create_score(service: Service, http: HttpRequest) -> Response:
    """A score for each pair. Raises RequestError or ApiError before anything is queued."""
    body = parse(ScoreRequest, await read_json(http, service.settings.max_body_bytes))
    unknown = body.unknown_fields(NEUTRAL, service.settings.strict)
    service.check_model(body.model)
    first, second = body.sides()
    sides = (first, getattr(body, first)), (second, getattr(body, second))
    scores, outputs = await _scores(service, http, body, *sides)
    content = {
        "id": _id("score", http),
        "object": "list",
        "created": int(time.time()),
        "model": service.model_name,
        "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
        "usage": usage(outputs),
    }
    return JSONResponse(content, headers=warning_header(unknown))


async def _scores(
    service: Service,
    http: HttpRequest,
    body: ScoringRequest,
    asked: tuple[str, Sequence[str]],
    read: tuple[str, Sequence[str]],
) -> tuple[list[float], list[RequestOutput]]:
    """asked, read: the client's name of each side, and its texts."""
    tokenizer = service.engine.tokenizer
    limits = body.max_tokens_per_query or 0, body.max_tokens_per_doc or 0
    queries, documents = (_bounded(service, *side, limit) for side, limit in zip((asked, read), limits, strict=True))

    def made() -> list[ScoredPair]:
        return [pair(tokenizer, query, document, *limits) for query, document in paired(queries, documents)]

    try:
        pairs = await asyncio.to_thread(made)
    except RequestError as error:
        error.param = {"query": asked[0], "queries": asked[0], "documents": read[0]}.get(error.param, error.param)
        raise
    params = PoolingParams(task="likelihood")
    with prompts_are_called(read[0]):
        outputs = await pooled(service, http, body, [one.token_ids for one in pairs], params)
    return [one.score(output) for one, output in zip(pairs, outputs, strict=True)], outputs


def _bounded(service: Service, name: str, texts: Sequence[str], limit: int) -> list[str]:
    """What is worth tokenising: of a text that will be cut, no more than could be kept; else all, or a refusal."""
    if limit:
        return [text[: service.max_prompt_chars] for text in texts]
    for index, text in enumerate(texts):
        check_chars(service, text, f"{name}.{index}" if len(texts) > 1 else name)
    return list(texts)


def _id(kind: str, http: HttpRequest) -> str:
    return f"{kind}-{caller_of(http).request_id}"
