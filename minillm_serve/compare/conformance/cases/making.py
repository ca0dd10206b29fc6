"""Short ways to write cases down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from minillm_serve.compare.conformance.case import MODEL, Case

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
STORY = "The capital of France is"
QUESTION = "What is the capital of France?"
LEAVE_OUT: Any = object()


def chat(name: str, content: Any = QUESTION, **fields: Any) -> Case:
    """A greedy chat of one user message; a field set to LEAVE_OUT is not sent."""
    return _generation(f"chat/{name}", CHAT, {"messages": [user(content)]}, fields)


def completion(name: str, prompt: Any = STORY, **fields: Any) -> Case:
    """A greedy completion."""
    return _generation(f"completions/{name}", COMPLETIONS, {"prompt": prompt}, fields)


def _generation(name: str, path: str, asked: dict[str, Any], fields: dict[str, Any]) -> Case:
    options = {key: fields.pop(key) for key in ("alike", "after", "headers", "alone") if key in fields}
    body = {"model": MODEL, **asked, "max_tokens": 8, "temperature": 0} | fields
    body = {key: value for key, value in body.items() if value is not LEAVE_OUT}
    return Case(name, path, body, **options)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def streamed(cases: Iterable[Case], **stream_options: Any) -> list[Case]:
    """The same requests as streams, with the usage at their end unless ``stream_options`` says otherwise."""
    options = {"stream": True, "stream_options": stream_options or {"include_usage": True}}
    return [replace(case, name=f"{case.name}+stream", body=case.body | options) for case in cases]


def get(name: str, path: str, **options: Any) -> Case:
    """A GET request."""
    return Case(name, path, method="GET", **options)
