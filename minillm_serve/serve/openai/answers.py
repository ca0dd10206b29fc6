"""What the OpenAI endpoints answer, for /openapi.json: the fields that are always there and those that may be.

The answers themselves are written as plain dicts; tests hold them against these.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Usage(BaseModel):
    """Tokens that were read and written. Nothing is written by embeddings and scores."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = None
    prompt_tokens_details: dict[str, int | None] | None = None
    completion_tokens_details: dict[str, int | None] | None = None


class FunctionCall(BaseModel):
    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: Literal["function"]
    function: FunctionCall


class ChatMessage(BaseModel):
    role: str
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(BaseModel):
    """finish_reason: stop, length, tool_calls, abort or error."""

    index: int
    finish_reason: str | None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    logprobs: dict[str, Any] | None = None


class ChatChoice(Choice):
    message: ChatMessage


class TextChoice(Choice):
    text: str


class Completion(BaseModel):
    """``metrics``: milliseconds, where the server tells them."""

    id: str
    created: int
    model: str
    usage: Usage
    system_fingerprint: str | None = None
    metrics: dict[str, Any] | None = None


class ChatCompletion(Completion):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextCompletion(Completion):
    object: Literal["text_completion"]
    choices: list[TextChoice]


class Embedding(BaseModel):
    """embedding: numbers, or little-endian float32 in base64."""

    index: int
    object: Literal["embedding"]
    embedding: list[float] | str


class EmbeddingList(BaseModel):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Embedding]
    usage: Usage


class RerankedDocument(BaseModel):
    """multi_modal: vLLM's field for documents that are not text; there are none here."""

    text: str
    multi_modal: None = None


class RerankResult(BaseModel):
    """relevance_score: in (0, 1], the geometric mean of the probabilities of the query's tokens after the document."""

    index: int
    relevance_score: float
    document: RerankedDocument | None = None


class Ranking(BaseModel):
    """results: best first."""

    id: str
    model: str
    usage: Usage
    results: list[RerankResult]


class Score(BaseModel):
    index: int
    object: Literal["score"]
    score: float


class ScoreList(BaseModel):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: Usage


class ModelCard(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None = None
    max_model_len: int


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelCard]
