"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Request as HttpRequest
from starlette.responses import Response

from minillm_serve.request import RequestOutput
from minillm_serve.serve.caller import caller_of
from minillm_serve.serve.http.body import read_json
from minillm_serve.serve.http.errors import named_for_client
from minillm_serve.serve.openai.constraints import lenient_header
from minillm_serve.serve.openai.endpoint import Answer, Delta
from minillm_serve.serve.openai.protocol import COMPLETION_MAX_TOKENS, CompletionRequest, parse
from minillm_serve.serve.service import Service


async def create_completion(service: Service, http: HttpRequest) -> Response:
    """Complete one prompt or several. Raises RequestError or ApiError before anything is queued."""
    caller, settings = caller_of(http), service.settings
    body = parse(CompletionRequest, await read_json(http, settings.max_body_bytes), settings.accept_legacy_guided)
    unknown = body.unknown_fields()
    service.check_model(body.model)
    with named_for_client(body.client_names()):
        params = body.sampling_params(body.max_tokens, lenient_header(http.headers.get("x-minillm")))
        prompts = await service.encode(body.prompt)
        requests = await service.admit(prompts, params, caller, default_max_tokens=COMPLETION_MAX_TOKENS)
    id = f"cmpl-{caller.request_id}"
    streams = service.follow(requests, id, caller)
    return await Answer(service, CompletionShape(), body, id, streams, unknown, requests[0].notes).respond(http)


class CompletionShape:
    """OpenAI's text completion objects."""

    object = "text_completion"
    chunk_object = "text_completion"

    def choice(self, index: int, output: RequestOutput, token_ids: bool) -> dict[str, Any]:
        completion = output.outputs[0]
        return self._choice(index, output, Delta(completion.text, list(completion.token_ids), True), token_ids)

    def whole(self, outputs: Sequence[RequestOutput], token_ids: bool) -> dict[str, Any]:
        return {}

    def opening(self, index: int, output: RequestOutput, token_ids: bool) -> None:
        return None

    def delta(self, index: int, output: RequestOutput, new: Delta, token_ids: bool) -> dict[str, Any]:
        return self._choice(index, output, new, token_ids)

    def _choice(self, index: int, output: RequestOutput, new: Delta, token_ids: bool) -> dict[str, Any]:
        completion = output.outputs[0]
        choice = {
            "index": index,
            "text": new.text,
            "logprobs": None,
            "finish_reason": completion.finish_reason,
            "stop_reason": completion.stop_reason,
        }
        if token_ids:
            choice["token_ids"] = new.token_ids
            if new.first:
                choice["prompt_token_ids"] = list(output.prompt_token_ids)
        return choice
