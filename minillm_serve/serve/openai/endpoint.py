"""The frame of a generation endpoint; chat and completions fill in what differs (:class:`Shape`)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request as HttpRequest
from starlette.responses import Response

from minillm_serve.engine.async_engine import EngineDeadError
from minillm_serve.engine.group import RequestGroup
from minillm_serve.request import RequestOutput
from minillm_serve.serve.caller import Caller, caller_of
from minillm_serve.serve.http.errors import describe, error_body
from minillm_serve.serve.http.streaming import DONE, EventStream, answer_or_disconnect, encode_json, event, merged
from minillm_serve.serve.openai.chunks import ChunkWriter
from minillm_serve.serve.openai.logprobs import LogprobsWriter
from minillm_serve.serve.openai.protocol import GenerationRequest
from minillm_serve.serve.openai.shape import Delta, Shape
from minillm_serve.serve.openai.unsupported import warning_header
from minillm_serve.serve.openai.usage import timings, usage, without_none
from minillm_serve.serve.service import Outputs, Service

logger = logging.getLogger("minillm.serve")
# vLLM's answers have these fields, which mean something only where it runs on several machines or on OpenAI's.
NOT_HERE = ("service_tier", "kv_transfer_params", "ec_transfer_params")
NOT_IN_CHOICES = ("routed_experts",)
PRIORITY_HEADER = "x-vllm-priority"


def caller_for(http: HttpRequest, body: GenerationRequest) -> Caller:
    """Who sent the request, under the id that its body gives it if no header did."""
    caller = caller_of(http)
    if body.request_id is not None and "x-request-id" not in http.headers:
        caller = http.state.caller = replace(caller, request_id=body.request_id)
    return caller


def priority_of(http: HttpRequest, body: GenerationRequest) -> int:
    """The header's if it is a number, else the body's (vLLM)."""
    try:
        return int(http.headers[PRIORITY_HEADER])
    except (KeyError, ValueError):
        return body.priority or 0


def logprobs_writer(service: Service, body: GenerationRequest) -> LogprobsWriter:
    as_ids = body.return_tokens_as_token_ids
    if as_ids is None:
        as_ids = service.settings.return_tokens_as_token_ids
    return LogprobsWriter(service.token_texts, as_ids, bool(body.logprob_token_ids))


async def final_outputs(streams: Sequence[Outputs]) -> list[RequestOutput]:
    """The last output of each stream, in their order."""
    finals: dict[int, RequestOutput] = {}
    async with aclosing(merged(streams)) as outputs:
        async for index, output in outputs:
            finals[index] = output
    return [finals[index] for index in range(len(streams))]


@dataclass(frozen=True)
class Answer:
    """One admitted HTTP request on its way to its answer. requests: one for each prompt."""

    service: Service
    shape: Shape
    body: GenerationRequest
    id: str
    requests: Sequence[RequestGroup]
    unknown: Sequence[str] = ()

    async def respond(self, http: HttpRequest) -> Response:
        """The HTTP response: whole, or a stream of events. Ends the work when the client goes away."""
        headers = warning_header(self.unknown, self.requests[0].notes)
        streams = self.service.follow(self.requests, self.id, caller_of(http), final_only=not self.body.stream)
        if self.body.stream:
            return EventStream(self._events(streams), headers)
        finals = await answer_or_disconnect(http, final_outputs(streams))
        if self._is_long:
            return _json(await asyncio.to_thread(self._whole, finals), headers)
        return _json(self._whole(finals), headers)

    @property
    def _is_long(self) -> bool:
        """Twenty alternatives to each token of sixteen prompts make many megabytes: seconds of the event loop's."""
        return self.body.asked_logprobs is not None or self.body.asked_prompt_logprobs is not None

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": int(time.time()), "model": self.service.model_name}

    def _whole(self, finals: Sequence[RequestOutput]) -> bytes:
        """The answer in JSON, choice by choice, so that other threads get their turns between two of them."""
        choices: list[str] = []
        for output in finals:
            for completion in output.outputs:
                choice = self.shape.choice(Delta(len(choices), completion.text, 0, True, output, completion))
                choices.append(encode_json(choice | dict.fromkeys(NOT_IN_CHOICES)))
        rest = {
            **dict.fromkeys(NOT_HERE),
            "system_fingerprint": self.service.fingerprint,
            "usage": self._usage(finals),
            "metrics": timings(finals) if self.service.settings.enable_per_request_metrics else None,
            **self.shape.whole(finals),
        }
        head, tail = encode_json(self._frame(self.shape.object))[:-1], encode_json(rest)[1:]
        return f'{head},"choices":[{",".join(choices)}],{tail}'.encode()

    def _usage(self, outputs: Sequence[RequestOutput]) -> dict[str, Any]:
        service = self.service
        block_size = service.engine.config.block_size if self.shape.detailed_usage else None
        return usage(outputs, service.settings.enable_prompt_tokens_details, block_size)

    async def _events(self, streams: list[Outputs]) -> AsyncGenerator[bytes]:
        """Chunks as tokens come, then usage if asked for, then [DONE]; a later failure becomes an error event."""
        begun = False
        try:
            async with aclosing(self._chunks(streams)) as chunks:
                async for chunk in chunks:
                    begun = True
                    yield chunk
        except Exception as error:
            if not begun:
                raise
            if not isinstance(error, EngineDeadError):
                logger.exception("request %s failed while streaming", self.id)
            yield event(error_body(*describe(error)))
        yield DONE

    async def _chunks(self, streams: list[Outputs]) -> AsyncGenerator[bytes]:
        settings = self.service.settings
        always = settings.enable_force_include_usage
        include_usage = always or self.body.include_usage
        frame = self._frame(self.shape.chunk_object)
        fingerprint = {"system_fingerprint": self.service.fingerprint}
        writer = ChunkWriter(
            self.shape,
            frame,
            self.body.n or 1,
            interval=max(self.body.stream_interval or 1, settings.stream_interval),
            usage=always or self.body.continuous_usage,
            last=None if include_usage else fingerprint,
        )
        last: dict[int, RequestOutput] = {}
        async with aclosing(merged(streams)) as outputs:
            async for prompt, output in outputs:
                last[prompt] = output
                if data := writer.write(prompt, output):
                    yield data
        if include_usage:
            yield event(frame | {"choices": []} | without_none(self._last_words(list(last.values()))))

    def _last_words(self, outputs: list[RequestOutput]) -> dict[str, Any]:
        settings = self.service.settings
        return {
            "usage": self._usage(outputs),
            "system_fingerprint": self.service.fingerprint,
            "metrics": timings(outputs) if settings.enable_per_request_metrics else None,
        }


def _json(content: bytes, headers: dict[str, str]) -> Response:
    return Response(content, media_type="application/json", headers=headers)
