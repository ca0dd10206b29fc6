"""POST /v1/chat/completions."""

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
from minillm_serve.serve.openai.protocol import ChatCompletionRequest, parse
from minillm_serve.serve.service import Service


async def create_chat_completion(service: Service, http: HttpRequest) -> Response:
    """Answer a conversation. Raises RequestError or ApiError before anything is queued."""
    caller, settings = caller_of(http), service.settings
    body = parse(ChatCompletionRequest, await read_json(http, settings.max_body_bytes), settings.accept_legacy_guided)
    unknown = body.unknown_fields()
    service.check_model(body.model)
    with named_for_client(body.client_names()):
        params = body.sampling_params(body.token_limit, lenient_header(http.headers.get("x-minillm")))
        prompt = await service.render_chat(body.messages)
        requests = await service.admit([prompt], params, caller)
    id = f"chatcmpl-{caller.request_id}"
    streams = service.follow(requests, id, caller)
    return await Answer(service, ChatShape(), body, id, streams, unknown, requests[0].notes).respond(http)


class ChatShape:
    """OpenAI's chat completion objects."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def choice(self, index: int, output: RequestOutput, token_ids: bool) -> dict[str, Any]:
        completion = output.outputs[0]
        return {
            "index": index,
            "message": {"role": "assistant", "content": completion.text, "refusal": None},
            "logprobs": None,
            "finish_reason": completion.finish_reason,
            "stop_reason": completion.stop_reason,
            **({"token_ids": list(completion.token_ids)} if token_ids else {}),
        }

    def whole(self, outputs: Sequence[RequestOutput], token_ids: bool) -> dict[str, Any]:
        return {"prompt_token_ids": list(outputs[0].prompt_token_ids)} if token_ids else {}

    def opening(self, index: int, output: RequestOutput, token_ids: bool) -> dict[str, Any]:
        """The role goes out with the first token: benchmark clients take the first choice for the first token."""
        role = {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return {"choices": [role], **self.whole([output], token_ids)}

    def delta(self, index: int, output: RequestOutput, new: Delta, token_ids: bool) -> dict[str, Any]:
        completion = output.outputs[0]
        choice = {
            "index": index,
            "delta": {"content": new.text},
            "logprobs": None,
            "finish_reason": completion.finish_reason,
        }
        if completion.finish_reason is not None:
            choice["stop_reason"] = completion.stop_reason
        if token_ids:
            choice["token_ids"] = new.token_ids
        return choice
