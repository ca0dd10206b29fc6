"""How TGI's answers are read from the wire."""

from __future__ import annotations

import json
from typing import Any

import httpx

PROMPT = "Kq7Zx9Wv"  # a token for each character of the tiny model's


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
    *events, end = response.text.split("\n\n")
    assert end == "" and all(event.startswith("data:{") for event in events), "TGI puts no space, and sends no [DONE]"
    return [json.loads(event.removeprefix("data:")) for event in events]


def refused(response: httpx.Response, status: int, error_type: str) -> str:
    body = response.json()
    assert (response.status_code, body["error_type"], set(body)) == (status, error_type, {"error", "error_type"}), body
    return body["error"]
