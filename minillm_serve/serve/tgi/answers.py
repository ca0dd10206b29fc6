"""What TGI's paths answer, for /openapi.json."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, RootModel

from minillm_serve.serve.openai.openapi import errors
from minillm_serve.serve.tgi.errors import GENERATION_FAILED, INVALID


class TgiError(BaseModel):
    """Every refusal and failure on a path of TGI's."""

    error: str
    error_type: str


class Generated(BaseModel):
    """details, if asked for: finish_reason, generated_tokens, seed, prefill, tokens, top_tokens, best_of_sequences."""

    generated_text: str
    details: dict[str, Any] | None = None


class GeneratedList(RootModel[list[Generated]]):
    """What the root path answers."""


class PlacedToken(BaseModel):
    """start, stop: where it stands in the text."""

    id: int
    text: str
    start: int | None = None
    stop: int | None = None


class PlacedTokens(RootModel[list[PlacedToken]]):
    """What /tokenize answers."""


class TokenizedChat(BaseModel):
    tokenize_response: list[PlacedToken]
    templated_text: str


class Info(BaseModel):
    """The model and the bounds on requests, in tokens."""

    model_id: str
    max_input_tokens: int
    max_total_tokens: int
    version: str


# What TGI answers to a full queue is 429, and 424 to a generation that failed.
TGI_ERRORS = errors(TgiError, (400, 401, 404, 405, 408, 413, 415, INVALID, GENERATION_FAILED, 429, 431, 500, 503, 504))
