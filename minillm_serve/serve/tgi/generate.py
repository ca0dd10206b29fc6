"""TGI's generation endpoints: ``POST /``, ``/generate`` and ``/generate_stream``."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from starlette.responses import Response

from minillm_serve.engine.async_engine import EngineDeadError
from minillm_serve.engine.group import RequestGroup
from minillm_serve.params import RequestError
from minillm_serve.request import CompletionOutput, FinishReason, RequestOutput
from minillm_serve.serve.caller import Caller, caller_of
from minillm_serve.serve.following import Outputs
from minillm_serve.serve.http.body import read_json
from minillm_serve.serve.http.errors import ApiError, named_for_client
from minillm_serve.serve.http.streaming import EventStream, answer_or_disconnect, encode_json
from minillm_serve.serve.openai.unsupported import warning_header
from minillm_serve.serve.service import Service
from minillm_serve.serve.tgi.errors import body_of, generation_errors, tgi_error
from minillm_serve.serve.tgi.protocol import (
    CLIENT_NAMES,
    Asked,
    CompatGenerateRequest,
    GenerateRequest,
    parse,
    understood,
)
from minillm_serve.serve.tgi.tokens import TokenSequence, TokenWriter, finish_reason, mean_logprob
from minillm_serve.serve.truncation import Truncation

logger = logging.getLogger("minillm.serve")


class NotJson(Exception):
    """The body is no JSON object at all, which TGI tells apart (400) from one that asks for the wrong thing (422)."""


def event(content: dict[str, Any]) -> bytes:
    """One server-sent event, spaced as TGI's are."""
    return f"data:{encode_json(content)}\n\n".encode()


@dataclass(frozen=True)
class Tgi:
    """One server's TGI side."""

    service: Service

    @cached_property
    def tokens(self) -> TokenWriter:
        return TokenWriter(self.service.engine.tokenizer, self.service.token_texts)

    @property
    def max_input_tokens(self) -> int:
        """Longest prompt: one token of the context is the answer's."""
        return self.service.engine.max_model_len - 1

    async def generate(self, http: HttpRequest) -> Response:
        """A whole answer: one object. Raises RequestError or ApiError before anything is queued."""
        return await self._respond(http, parse(GenerateRequest, await self.read(http)), stream=False)

    async def generate_stream(self, http: HttpRequest) -> Response:
        """Events, one for each token; what is wrong with the parameters is an event as well."""
        return await self._respond(http, parse(GenerateRequest, await self.read(http)), stream=True)

    async def compat_generate(self, http: HttpRequest) -> Response:
        """Either, as the body says; a whole answer is a list with one object."""
        body = parse(CompatGenerateRequest, await self.read(http))
        return await self._respond(http, body, stream=bool(body.stream), in_list=True)

    async def read(self, http: HttpRequest) -> dict[str, Any]:
        """The body. Raises NotJson, or ApiError for one that is too long or of another type."""
        try:
            return await read_json(http, self.service.settings.max_body_bytes)
        except RequestError as error:
            raise NotJson(str(error)) from error

    def unknown(self, body: GenerateRequest) -> list[str]:
        """Names in a body that are ignored. Raises :class:`RequestError` where the server is strict."""
        unknown = body.unknown_fields()
        if unknown and self.service.settings.strict:
            raise RequestError(f"{unknown[0]} is unknown, and this server is strict: leave it out", unknown[0])
        return unknown

    async def _respond(
        self, http: HttpRequest, body: GenerateRequest, *, stream: bool, in_list: bool = False
    ) -> Response:
        caller = caller_of(http)
        head = {"x-compute-type": self.compute_type, "x-compute-characters": str(len(body.inputs))}
        try:
            unknown = self.unknown(body)
            asked = understood(body, stream, self.max_input_tokens)
            request = await self._admit(asked, caller)
        except RequestError as error:
            if not stream:
                raise
            return EventStream(_one_event(tgi_error(error)[1]), head)
        head |= warning_header(unknown, request.notes)
        label = f"tgi-{caller.request_id}"
        [outputs] = self.service.follow([request], label, caller, final_only=not stream)
        if stream:
            return EventStream(self._events(asked, outputs, label), head)
        last = await answer_or_disconnect(http, _last(outputs))
        best, others = _ranked(last)
        content = self._answer(asked, last, best, others)
        return JSONResponse([content] if in_list else content, headers=head | _timings(caller, last, best))

    @property
    def compute_type(self) -> str:
        """What the model runs on."""
        return f"{self.service.engine.config.device}+minillm"

    async def _admit(self, asked: Asked, caller: Caller) -> RequestGroup:
        keep = asked.parameters.truncate
        with named_for_client(CLIENT_NAMES):
            prompts = await self.service.encode([asked.inputs], truncation=None if keep is None else Truncation(keep))
            [request] = await self.service.admit(prompts, asked.sampling, caller)
        return request

    def _answer(
        self, asked: Asked, last: RequestOutput, best: CompletionOutput, others: list[CompletionOutput]
    ) -> dict[str, Any]:
        content: dict[str, Any] = {"generated_text": _text(asked, best)}
        if asked.with_details:
            prefill = self.tokens.prefill(last) if asked.parameters.decoder_input_details else []
            content["details"] = self._details(asked, best, prefill)
            if others:
                content["details"]["best_of_sequences"] = [
                    {"generated_text": _text(asked, other), **self._details(asked, other, prefill)} for other in others
                ]
        return content

    def _details(self, asked: Asked, completion: CompletionOutput, prefill: list[dict[str, Any]]) -> dict[str, Any]:
        places, tokens = range(len(completion.token_ids)), self.tokens.sequence()
        details = {
            **_ending(asked, completion),
            "prefill": prefill,
            "tokens": [tokens.next(completion) for _ in places],
        }
        if asked.parameters.top_n_tokens:
            details["top_tokens"] = [self.tokens.top(completion, place) for place in places]
        return details

    async def _events(self, asked: Asked, outputs: Outputs, label: str) -> AsyncGenerator[bytes]:
        """Tokens as they come; the last one has the whole text, and there is no [DONE]. A failure is an event."""
        try:
            async with aclosing(self._token_events(asked, outputs)) as events:
                async for data in events:
                    yield data
        except Exception as error:
            if not isinstance(error, (ApiError, EngineDeadError)):
                logger.exception("request %s failed while streaming", label)
            yield event(tgi_error(error)[1])

    async def _token_events(self, asked: Asked, outputs: Outputs) -> AsyncGenerator[bytes]:
        tokens, ended = self.tokens.sequence(), False
        with generation_errors():
            async with aclosing(outputs):
                async for output in outputs:
                    completion = output.outputs[0]
                    new = range(tokens.written, len(_checked(completion).token_ids))
                    if new:
                        ended = completion.finish_reason is not None
                        yield b"".join(event(self._token_event(asked, output, tokens)) for _ in new)
        if not ended:
            raise _incomplete()

    def _token_event(self, asked: Asked, output: RequestOutput, tokens: TokenSequence) -> dict[str, Any]:
        completion, place = output.outputs[0], tokens.written
        content: dict[str, Any] = {"index": place + 1, "token": tokens.next(completion)}
        if asked.parameters.top_n_tokens:
            content["top_tokens"] = self.tokens.top(completion, place)
        content |= {"generated_text": None, "details": None}
        if completion.finish_reason is not None and tokens.written == len(completion.token_ids):
            content["generated_text"] = _text(asked, completion)
            if asked.parameters.details:
                prompt_tokens = len(output.prompt_token_ids)
                content["details"] = {**_ending(asked, completion), "input_length": prompt_tokens}
        return content


def not_json(error: NotJson) -> Response:
    """The answer to a body that is no JSON object."""
    return JSONResponse(body_of(400, str(error)), 400)


async def _one_event(content: dict[str, Any]) -> AsyncGenerator[bytes]:
    yield event(content)


async def _last(outputs: Outputs) -> RequestOutput:
    last: RequestOutput | None = None
    with generation_errors():
        async with aclosing(outputs):
            async for output in outputs:
                last = output
    if last is None:
        raise _incomplete()
    for completion in last.outputs:
        _checked(completion)
    return last


def _checked(completion: CompletionOutput) -> CompletionOutput:
    """Raises ApiError for one that the engine gave up: it has no reason to end that TGI knows."""
    if completion.finish_reason == FinishReason.ABORT:
        raise _incomplete()
    return completion


def _incomplete() -> ApiError:
    return ApiError(500, "Incomplete generation")


def _ranked(last: RequestOutput) -> tuple[CompletionOutput, list[CompletionOutput]]:
    """The best sequence and the others, in the order of their making."""
    best = max(last.outputs, key=mean_logprob)  # the first of equals
    return best, [completion for completion in last.outputs if completion is not best]


def _text(asked: Asked, completion: CompletionOutput) -> str:
    return asked.inputs + completion.text if asked.parameters.return_full_text else completion.text


def _ending(asked: Asked, completion: CompletionOutput) -> dict[str, Any]:
    return {
        "finish_reason": finish_reason(completion),
        "generated_tokens": len(completion.token_ids),
        "seed": asked.seed_of(completion.index),
    }


def _timings(caller: Caller, last: RequestOutput, best: CompletionOutput) -> dict[str, str]:
    """TGI's headers: x-compute-time is in seconds, the other times in whole milliseconds."""
    metrics, now = last.metrics, time.monotonic()
    started = metrics.first_scheduled if metrics.first_scheduled is not None else now
    generated = len(best.token_ids)
    inference = now - started
    times = {
        "x-total-time": now - caller.received,
        "x-validation-time": metrics.arrival - caller.received,
        "x-queue-time": started - metrics.arrival,
        "x-inference-time": inference,
        "x-time-per-token": inference / max(1, generated),
    }
    return {
        "x-compute-time": f"{now - caller.received:.6f}",
        **dict(_milliseconds(times)),
        "x-prompt-tokens": str(len(last.prompt_token_ids)),
        "x-generated-tokens": str(generated),
    }


def _milliseconds(times: dict[str, float]) -> Iterator[tuple[str, str]]:
    for name, seconds in times.items():
        yield name, str(max(0, int(seconds * 1000)))
