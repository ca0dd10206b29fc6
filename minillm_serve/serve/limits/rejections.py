"""How many requests and connections the server has turned away or cut off, by reason."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum


class Reason(StrEnum):
    """Why; the first two are vLLM's names."""

    QUEUED_REQUESTS = "max_num_queued_reqs"
    QUEUED_TOKENS = "max_num_queued_tokens"
    QUEUE_TIMEOUT = "queue_timeout"
    REQUEST_TIMEOUT = "request_timeout"
    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    API_KEY = "api_key"
    CONNECTIONS = "max_connections"
    HEADER_TIMEOUT = "header_timeout"
    BODY_TIMEOUT = "body_timeout"
    WRITE_TIMEOUT = "write_timeout"


class Rejections(Counter[str]):
    """Reason -> how often, from zero for each. Changed on the event loop alone; reading is safe from any thread."""

    def __init__(self) -> None:
        super().__init__({reason.value: 0 for reason in Reason})

    def count(self, reason: Reason) -> None:
        self[reason.value] += 1
