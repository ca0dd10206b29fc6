"""One HTTP request that two servers must answer alike, as data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

MODEL = "smollm2"
ALIAS = "smollm2-alias"
KEY = "conformance"


@dataclass(frozen=True)
class Case:
    """A request and how far its two answers must agree. ``name`` is ``area/what``, unique.

    body: sent as JSON. raw: sent as it is, in place of a body. headers: beside or in place of Content-Type.
    server: which of the recorded servers is asked (a key of :data:`.servers.SERVERS`).
    alike: ``exactly``; ``in form`` for answers drawn at random, whose texts, token ids and logprobs may differ; ``as
    JSON`` where the two engines lay out JSON differently, so that the number of tokens may differ too.
    after: the case that must have been answered before, on the same server (prefix cache). alone: no other request may
    be under way (vLLM's batches mix up who asked for which logprobs).
    """

    name: str
    path: str
    body: Any = None
    method: str = "POST"
    raw: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    server: str = "generate"
    alike: str = "exactly"
    after: str | None = None
    alone: bool = False

    @property
    def digest(self) -> str:
        """Changes when the request does: a recorded answer is to one request."""
        asked = {key: value for key, value in asdict(self).items() if key not in ("name", "alike", "alone")}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    def payload(self) -> tuple[bytes | None, dict[str, str]]:
        """The bytes of the request's body and its headers."""
        headers = {"authorization": f"Bearer {KEY}"}
        if self.method == "POST":
            headers["content-type"] = "application/json"
        headers |= {name.lower(): value for name, value in self.headers}
        headers = {name: value for name, value in headers.items() if value}
        if self.raw is not None:
            return self.raw.encode("latin-1"), headers
        return (None if self.body is None else json.dumps(self.body).encode()), headers


@dataclass(frozen=True)
class Answer:
    """What a server said. body: its text, decoded as UTF-8."""

    status: int
    content_type: str
    request_id: str | None
    body: str
