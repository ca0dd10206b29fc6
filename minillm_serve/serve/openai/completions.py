"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Request as HttpRequest
from starlette.responses import Response

from minillm_serve.request import RequestOutput
from minillm_serve.serve.http.body import read_json
from minillm_serve.serve.http.errors import named_for_client
from minillm_serve.serve.openai.constraints import lenient_header
from minillm_serve.serve.openai.endpoint import Answer, caller_for, logprobs_writer, priority_of
from minillm_serve.serve.openai.logprobs import LogprobsWriter, end_of, joined
from minillm_serve.serve.openai.protocol import CompletionRequest, parse
from minillm_serve.serve.openai.shape import Delta
from minillm_serve.serve.service import Service


async def create_completion(service: Service, http: HttpRequest) -> Response:
    """Complete one prompt or several. Raises RequestError or ApiError before anything is queued."""
    settings = service.settings
    body = parse(CompletionRequest, await read_json(http, settings.max_body_bytes), settings.accept_legacy_guided)
    unknown = body.unknown_fields(settings.strict)
    service.check_model(body.model)
    caller = caller_for(http, body)
    lenient = lenient_header(http.headers.get("x-minillm"))
    with named_for_client(body.client_names()):
        params = body.sampling_params(settings, service.sampling_defaults, lenient)
        prompts = await service.encode(
            body.prompt, truncation=body.truncation, add_special_tokens=body.add_special_tokens is not False
        )
        requests = await service.admit(
            prompts, params, caller, shorten=True, priority=priority_of(http, body), cache_salt=body.cache_salt
        )
    shape = CompletionShape(body, service, logprobs_writer(service, body))
    return await Answer(service, shape, body, f"cmpl-{caller.request_id}", requests, unknown).respond(http)


class CompletionShape:
    """OpenAI's text completion objects. With ``echo``, each choice begins with the prompt."""

    object = "text_completion"
    chunk_object = "text_completion"
    detailed_usage = False

    def __init__(self, body: CompletionRequest, service: Service, logprobs: LogprobsWriter):
        self._body = body
        self._service = service
        self._logprobs = logprobs
        self._offsets: dict[int, int] = {}  # choice -> where in its text the next described token begins

    def choice(self, new: Delta) -> dict[str, Any]:
        entries, ids = new.output.prompt_logprobs, self._body.return_token_ids
        prompt_logprobs = None if entries is None else self._logprobs.prompt(new.output.prompt_token_ids, entries)
        return {
            **self.delta(new),
            "prompt_logprobs": prompt_logprobs,
            "prompt_token_ids": list(new.output.prompt_token_ids) if ids else None,
        }

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, Any]:
        return {}

    def opening(self, new: Delta) -> list[dict[str, Any]]:
        return []

    def delta(self, new: Delta) -> dict[str, Any]:
        body = self._body
        with_prompt_ids = new.first and (body.return_token_ids or body.echo)
        return {
            "index": new.index,
            "text": self._text(new),
            "logprobs": None if body.logprobs is None else self._described(new),
            "finish_reason": new.finish_reason,
            "stop_reason": new.stop_reason,
            "prompt_token_ids": list(new.output.prompt_token_ids) if with_prompt_ids else None,
            "token_ids": new.token_ids if body.return_token_ids else None,
        }

    def _text(self, new: Delta) -> str:
        if not (self._body.echo and new.first):
            return "" if self._body.only_echo else new.text
        # Who asks for token ids has the prompt in them (vLLM).
        prompt = "" if self._body.return_token_ids else self._prompt_text(new)
        return prompt if self._body.only_echo else prompt + new.text

    def _prompt_text(self, new: Delta) -> str:
        asked = self._body.prompt[new.index // (self._body.n or 1)]
        if isinstance(asked, str) and self._body.truncate_prompt_tokens is None:
            return asked
        return self._service.text_of(new.output.prompt_token_ids)

    def _described(self, new: Delta) -> dict[str, Any]:
        """Log-probabilities of the new tokens, and before the first of them those of an echoed prompt."""
        offset = self._offsets.get(new.index, 0)
        pieces = []
        if new.first and self._body.echo:
            prompt = new.output.prompt_token_ids
            pieces.append(self._logprobs.completion(prompt, 0, new.output.prompt_logprobs or (None,) * len(prompt)))
            offset = end_of(pieces[0], offset)
        if not self._body.only_echo:
            tokens = new.completion.token_ids
            pieces.append(self._logprobs.completion(tokens, new.start, new.logprobs, offset))
            offset = end_of(pieces[-1], offset)
        self._offsets[new.index] = offset
        return joined(pieces)
