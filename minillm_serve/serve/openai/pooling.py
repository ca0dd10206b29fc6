"""What embeddings, rerank and score have in common: requests that end with their prompt, and are read at their end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Request as HttpRequest
from pydantic import Field

from minillm_serve.params import PoolingParams, RequestError
from minillm_serve.request import FinishReason, RequestOutput
from minillm_serve.serve.http.errors import ApiError
from minillm_serve.serve.http.streaming import answer_or_disconnect
from minillm_serve.serve.openai.endpoint import caller_for, final_outputs, priority_of
from minillm_serve.serve.openai.fields import Body, CacheSalt, Int64, RequestId
from minillm_serve.serve.openai.unsupported import refuse_unsupported
from minillm_serve.serve.service import Service

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "padding": ("do_not_pad",),
    "mm_processor_kwargs": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "task": (),
}
TokenCount = Annotated[int, Field(ge=0, lt=2**63)] | None


class PoolingRequest(Body):
    """What the bodies have in common."""

    model: str | None = None
    user: str | None = None
    request_id: RequestId = None
    priority: Int64 | None = None
    cache_salt: CacheSalt = None

    def unknown_fields(self, neutral: dict[str, tuple[Any, ...]], strict: bool) -> list[str]:
        """Names that are ignored. Raises :class:`RequestError` on known ones that are not supported.

        strict: ignore none.
        """
        unknown = refuse_unsupported(self.model_extra or {}, NEUTRAL | neutral)
        if strict and unknown:
            raise RequestError(f"{unknown[0][:100]} is no parameter that this server knows", unknown[0])
        return unknown


async def pooled(
    service: Service, http: HttpRequest, body: PoolingRequest, prompts: Sequence[list[int]], params: PoolingParams
) -> list[RequestOutput]:
    """The final output of each prompt, in their order. Ends the work when the client goes away."""
    caller, priority = caller_for(http, body), priority_of(http, body)
    groups = await service.admit(prompts, params, caller, priority=priority, cache_salt=body.cache_salt)
    label = f"{params.task}-{caller.request_id}"
    streams = service.follow(groups, label, caller, final_only=True)
    outputs = await answer_or_disconnect(http, final_outputs(streams))
    if any(output.outputs[0].finish_reason != FinishReason.STOP for output in outputs):
        raise ApiError(503, "the request was ended before its prompt was computed; try again")
    return outputs


@contextmanager
def prompts_are_called(name: str) -> Iterator[None]:
    """Inside, the engine's ``prompt`` and ``prompt.3`` in a refusal become ``name`` and ``name.3``."""
    try:
        yield
    except RequestError as error:
        first, dot, index = (error.param or "").partition(".")
        if first == "prompt":
            error.param = f"{name}{dot}{index}"
        raise


def check_chars(service: Service, text: Any, name: str) -> None:
    """A text that cannot fit whatever its tokens are is not worth tokenising. Raises :class:`RequestError`."""
    if isinstance(text, str) and len(text) > service.max_prompt_chars:
        raise RequestError(
            f"the text has {len(text)} characters, which cannot fit in this server's maximum context length of "
            f"{service.engine.max_model_len} tokens",
            name,
        )


def usage(outputs: Sequence[RequestOutput]) -> dict[str, Any]:
    """OpenAI's ``usage`` where nothing is generated, with the fields that vLLM has there."""
    return read_tokens(outputs) | {
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


def read_tokens(outputs: Sequence[RequestOutput]) -> dict[str, int]:
    """The ``usage`` of rerank, which tells of what was read alone."""
    tokens = sum(len(output.prompt_token_ids) for output in outputs)
    return {"prompt_tokens": tokens, "total_tokens": tokens}
