"""POST /v1/embeddings: the mean of a text's hidden states, in OpenAI's shape."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Request as HttpRequest
from pydantic import AfterValidator, Field, WithJsonSchema
from starlette.responses import Response

from minillm_serve.params import PoolingParams, RequestError
from minillm_serve.request import RequestOutput
from minillm_serve.serve.caller import caller_of
from minillm_serve.serve.http.body import read_json
from minillm_serve.serve.openai.fields import Prompt, TruncationSide
from minillm_serve.serve.openai.pooling import PoolingRequest, pooled, prompts_are_called, usage
from minillm_serve.serve.openai.protocol import parse
from minillm_serve.serve.openai.unsupported import warning_header
from minillm_serve.serve.service import Service
from minillm_serve.serve.truncation import AS_LONG_AS_POSSIBLE, Truncation

MAX_INPUTS = 2048  # OpenAI's bound
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "embed_dtype": ("float32",),
    "endianness": ("native", "little"),
    "messages": (),
    "add_generation_prompt": (False,),
    "continue_final_message": (False,),
}


def _parse_input(value: Any) -> list[Prompt]:
    if isinstance(value, str) or _is_ids(value):
        return [value]
    if not isinstance(value, list) or not value:
        raise RequestError("input must be a string, a list of token ids, or a non-empty list of either", "input")
    if len(value) > MAX_INPUTS:
        raise RequestError(f"at most {MAX_INPUTS} inputs fit in one request, got {len(value)}", "input")
    for index, item in enumerate(value):
        if not isinstance(item, str) and not _is_ids(item):
            raise RequestError("each input must be a string or a non-empty list of token ids", f"input.{index}")
    return value


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_INPUT_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": MAX_INPUTS},
        _IDS,
        {"type": "array", "items": _IDS, "minItems": 1, "maxItems": MAX_INPUTS},
    ]
}


class EmbeddingRequest(PoolingRequest):
    """use_activation: divide each vector by its length (vLLM's word; the default is true).

    truncate_prompt_tokens: keep so many tokens of each text at most, -1: as many as the context holds.
    """

    input: Annotated[Any, AfterValidator(_parse_input), WithJsonSchema(_INPUT_SCHEMA)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    use_activation: bool | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, lt=2**63)] | None = None
    truncation_side: TruncationSide = None
    add_special_tokens: bool | None = None

    def params(self) -> PoolingParams:
        """Raises :class:`RequestError`."""
        if "normalize" in (self.model_extra or {}):
            raise RequestError("normalize was removed from vLLM's API: use use_activation instead", "normalize")
        return PoolingParams(dimensions=self.dimensions, use_activation=self.use_activation)

    def truncation(self, max_model_len: int) -> Truncation | None:
        """How texts are cut. Unlike a prompt that is to be continued, they may fill the context, and lose their end."""
        if (tokens := self.truncate_prompt_tokens) is None:
            return None
        if tokens == 0:
            raise RequestError("truncate_prompt_tokens must be -1 or at least 1, got 0", "truncate_prompt_tokens")
        keep = max_model_len if tokens == AS_LONG_AS_POSSIBLE else tokens
        return Truncation(keep, self.truncation_side or "right")


async def create_embeddings(service: Service, http: HttpRequest) -> Response:
    """One vector for each input. Raises RequestError or ApiError before anything is queued."""
    body = parse(EmbeddingRequest, await read_json(http, service.settings.max_body_bytes))
    params, truncation = body.params(), body.truncation(service.engine.max_model_len)
    unknown = body.unknown_fields(NEUTRAL, service.settings.strict)
    service.check_model(body.model)
    with prompts_are_called("input"):
        special = body.add_special_tokens is not False
        prompts = await service.encode(body.input, truncation=truncation, add_special_tokens=special)
        outputs = await pooled(service, http, body, prompts, params)
    head = {
        "id": f"embd-{caller_of(http).request_id}",
        "object": "list",
        "created": int(time.time()),
        "model": service.model_name,
    }
    content = await asyncio.to_thread(_written, head, outputs, body.encoding_format == "base64")
    return Response(content, media_type="application/json", headers=warning_header(unknown))


def _written(head: dict[str, Any], outputs: list[RequestOutput], as_base64: bool) -> bytes:
    """The answer in JSON, vector by vector, so that other threads get their turns between two of them."""
    vector = _base64 if as_base64 else list
    data = [
        json.dumps({"index": index, "object": "embedding", "embedding": vector(output.embedding)})
        for index, output in enumerate(outputs)
    ]
    frame = json.dumps({**head, "data": [], "usage": usage(outputs)})
    before, after = frame.split('"data": []', 1)
    return f'{before}"data": [{", ".join(data)}]{after}'.encode()


def _base64(vector: tuple[float, ...]) -> str:
    """Little-endian float32 numbers, which is what openai-python asks for and decodes."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
