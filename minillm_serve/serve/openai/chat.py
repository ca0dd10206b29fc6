"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Request as HttpRequest
from starlette.responses import Response

from minillm_serve.model.chat_adapt import text_of
from minillm_serve.request import RequestOutput
from minillm_serve.serve.http.body import read_json
from minillm_serve.serve.http.errors import named_for_client
from minillm_serve.serve.openai.constraints import lenient_header
from minillm_serve.serve.openai.endpoint import Answer, caller_for, logprobs_writer, priority_of
from minillm_serve.serve.openai.logprobs import LogprobsWriter
from minillm_serve.serve.openai.protocol import ChatCompletionRequest, parse
from minillm_serve.serve.openai.shape import Delta
from minillm_serve.serve.openai.tools import CallWriter, ToolUse
from minillm_serve.serve.service import Service

ROLE = "assistant"


async def create_chat_completion(service: Service, http: HttpRequest) -> Response:
    """Answer a conversation. Raises RequestError or ApiError before anything is queued."""
    settings = service.settings
    body = parse(ChatCompletionRequest, await read_json(http, settings.max_body_bytes), settings.accept_legacy_guided)
    unknown = body.unknown_fields(settings.strict)
    service.check_model(body.model)
    caller = caller_for(http, body)
    lenient = lenient_header(http.headers.get("x-minillm"))
    tools = body.tool_use(settings)
    with named_for_client(body.client_names()), tools.blaming():
        params = body.sampling_params(settings, service.sampling_defaults, lenient)
        params = tools.applied(params, service.engine.tokenizer.control_tokens)
        prompt, unread = await body.render(service, tools.shown, any_length=body.truncation is not None)
        unknown += unread
        if body.truncation is not None:
            prompt = service.truncated(prompt, body.truncation)
        requests = await service.admit(
            [prompt], params, caller, shorten=True, priority=priority_of(http, body), cache_salt=body.cache_salt
        )
    shape = ChatShape(body, service, logprobs_writer(service, body), tools)
    return await Answer(service, shape, body, f"chatcmpl-{caller.request_id}", requests, unknown).respond(http)


class ChatShape:
    """OpenAI's chat completion objects. With ``echo``, each choice begins with the last message if it was ours."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    detailed_usage = True

    def __init__(self, body: ChatCompletionRequest, service: Service, logprobs: LogprobsWriter, tools: ToolUse):
        self._body = body
        self._service = service
        self._logprobs = logprobs
        self._tools = tools
        self._calls: dict[int, CallWriter] = {}  # of each choice
        # Without a prompt for an answer, the last message goes on (vLLM).
        self._role = ROLE if body.add_generation_prompt is not False else body.messages[-1]["role"]

    def choice(self, new: Delta) -> dict[str, Any]:
        said, reason = {"content": new.text}, new.finish_reason
        if self._tools.answers:
            said, reason = self._tools.message(new.text, reason)
        return {
            "index": new.index,
            "message": self._message(said),
            "logprobs": self._described(new),
            "finish_reason": reason,
            "stop_reason": new.stop_reason,
            "token_ids": new.token_ids if self._body.return_token_ids else None,
        }

    def _message(self, said: dict[str, Any]) -> dict[str, Any]:
        nothing = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
        if echoed := self._echoed():
            said = said | {"content": echoed + (said["content"] or "")}
        return {"role": self._role, **said, **nothing}

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, Any]:
        ids, entries = outputs[0].prompt_token_ids, outputs[0].prompt_logprobs
        return {"prompt_logprobs": None if entries is None else self._logprobs.prompt(ids, entries)} | self._prompt(ids)

    def _prompt(self, ids: Sequence[int]) -> dict[str, Any]:
        return {
            "prompt_token_ids": list(ids) if self._body.return_token_ids else None,
            "prompt_text": self._service.text_of(ids) if self._body.return_prompt_text else None,
        }

    def opening(self, new: Delta) -> list[dict[str, Any]]:
        """The role goes out with the first token: benchmark clients take the first choice for the first token."""
        chunks = [{"choices": [self._said(new.index, {"role": self._role, "content": ""})]}]
        chunks[0] |= self._prompt(new.output.prompt_token_ids)
        if echoed := self._echoed():
            chunks.append({"choices": [self._said(new.index, {"content": echoed})]})
        return chunks

    @staticmethod
    def _said(index: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, new: Delta) -> dict[str, Any] | None:
        reason = new.finish_reason
        said = {"content": new.text} if new.text or reason is None else None
        if self._tools.answers:
            said, reason = self._calls.setdefault(new.index, CallWriter(self._tools)).delta(new.text, reason)
            if said is None and reason is None and not (self._body.logprobs or self._body.return_token_ids):
                return None
        choice = {
            "index": new.index,
            "delta": said or {},  # a last chunk without text is as empty as OpenAI's
            "logprobs": self._described(new),
            "finish_reason": reason,
            "token_ids": new.token_ids if self._body.return_token_ids else None,
        }
        if new.finish_reason is not None:
            choice["stop_reason"] = new.stop_reason
        return choice

    def _echoed(self) -> str:
        last = self._body.messages[-1]
        return text_of(last) if self._body.echo and last["role"] == self._role else ""

    def _described(self, new: Delta) -> dict[str, Any] | None:
        if not self._body.logprobs:
            return None
        return self._logprobs.chat(new.completion.token_ids, new.start, new.logprobs)
