"""The frame of a generation endpoint; chat and completions fill in what differs (:class:`Shape`)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from starlette.responses import Response

from minillm_serve.engine.async_engine import EngineDeadError
from minillm_serve.request import CompletionOutput, RequestOutput
from minillm_serve.serve.http.errors import describe, error_body
from minillm_serve.serve.http.streaming import DONE, EventStream, answer_or_disconnect, event, merged
from minillm_serve.serve.openai.protocol import GenerationRequest
from minillm_serve.serve.openai.unsupported import warning_header
from minillm_serve.serve.service import Outputs, Service, usage_of

logger = logging.getLogger("minillm.serve")


class Shape(Protocol):
    """How an API writes its answers."""

    object: str
    chunk_object: str

    def choice(self, index: int, output: RequestOutput, token_ids: bool) -> dict[str, Any]:
        """A finished choice of a whole answer."""

    def whole(self, outputs: Sequence[RequestOutput], token_ids: bool) -> dict[str, Any]:
        """Further fields of a whole answer."""

    def opening(self, index: int, output: RequestOutput, token_ids: bool) -> dict[str, Any] | None:
        """What goes before a choice's first text, in the same write; None for nothing."""

    def delta(self, index: int, output: RequestOutput, new: Delta, token_ids: bool) -> dict[str, Any]:
        """A choice of a chunk."""


@dataclass(frozen=True)
class Delta:
    """What an output adds to the previous one of its request."""

    text: str
    token_ids: list[int]
    first: bool


@dataclass
class _Sent:
    """How much of one choice the client has."""

    chars: int = 0
    tokens: int = 0
    begun: bool = False

    def advance(self, completion: CompletionOutput) -> Delta:
        delta = Delta(completion.text[self.chars :], list(completion.token_ids[self.tokens :]), not self.begun)
        self.chars, self.tokens, self.begun = len(completion.text), len(completion.token_ids), True
        return delta


@dataclass(frozen=True)
class Answer:
    """One admitted HTTP request on its way to its answer."""

    service: Service
    shape: Shape
    body: GenerationRequest
    id: str
    streams: list[Outputs]
    unknown: list[str]
    notes: Sequence[tuple[str, str, str]] = ()

    async def respond(self, http: HttpRequest) -> Response:
        """The HTTP response: whole, or a stream of events. Ends the work when the client goes away."""
        headers = warning_header(self.unknown, self.notes)
        if self.body.stream:
            return EventStream(self._events(), headers)
        return JSONResponse(await answer_or_disconnect(http, self._whole()), headers=headers)

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": int(time.time()), "model": self.service.model_name}

    async def _whole(self) -> dict[str, Any]:
        last: list[RequestOutput | None] = [None] * len(self.streams)
        async with aclosing(merged(self.streams)) as outputs:
            async for index, output in outputs:
                last[index] = output
        finals = [output for output in last if output is not None]
        token_ids = bool(self.body.return_token_ids)
        return {
            **self._frame(self.shape.object),
            "choices": [self.shape.choice(index, output, token_ids) for index, output in enumerate(finals)],
            "usage": usage_of(finals),
            "system_fingerprint": self.service.fingerprint,
            **self.shape.whole(finals, token_ids),
        }

    async def _events(self) -> AsyncGenerator[bytes]:
        """Chunks as tokens come, then usage if asked for, then [DONE]; a failure becomes an error event."""
        try:
            async with aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
        except Exception as error:
            if not isinstance(error, EngineDeadError):
                logger.exception("request %s failed while streaming", self.id)
            yield event(error_body(*describe(error)))
        yield DONE

    async def _chunks(self) -> AsyncGenerator[bytes]:
        shape, frame = self.shape, self._frame(self.shape.chunk_object)
        token_ids = bool(self.body.return_token_ids)
        sent = [_Sent() for _ in self.streams]
        last: dict[int, RequestOutput] = {}
        async with aclosing(merged(self.streams)) as outputs:
            async for index, output in outputs:
                delta = sent[index].advance(output.outputs[0])
                data = event({**frame, "choices": [shape.delta(index, output, delta, token_ids)]})
                if delta.first and (opening := shape.opening(index, output, token_ids)) is not None:
                    data = event({**frame, **opening}) + data
                last[index] = output
                yield data
        if self.body.include_usage:
            yield event({**frame, "choices": [], "usage": usage_of(list(last.values()))})
