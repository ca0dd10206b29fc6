"""An answer as something to compare: JSON as it is, a stream as its grammar, its chunks and its texts."""

from __future__ import annotations

import json
from typing import Any

from minillm_serve.compare.conformance.case import Answer

EVENTS = "text/event-stream"
DONE = "[DONE]"


def read(answer: Answer) -> dict[str, Any]:
    """Status, media type and body: the JSON value, a stream (:func:`read_stream`), or the text as it is."""
    result: dict[str, Any] = {"status": answer.status, "content_type": answer.content_type}
    if answer.content_type == EVENTS:
        return result | {"stream": read_stream(answer.body)}
    try:
        return result | {"body": json.loads(answer.body)}
    except ValueError:
        return result | {"body": answer.body}


def read_stream(body: str) -> dict[str, Any]:
    """What a stream amounts to, whatever its text was cut into.

    order: the kinds of events of each choice in their order; ``all`` has the finishes and what is of no choice.
    Repetitions are dropped, chunks without text too, and text before the finish: whether it comes with the finish is a
    matter of the moment.
    chunks: for each kind the fields its events have, merged. choices: each choice put together again. closing: the
    events without choices (usage, errors).
    """
    order: dict[str, list[str]] = {"all": []}
    chunks: dict[str, Any] = {}
    choices: dict[str, dict[str, Any]] = {}
    closing = []
    for data in _events(body):
        if data == DONE or not isinstance(data, dict):
            _append(order["all"], "done" if data == DONE else "unreadable")
            continue
        parts = data.get("choices") or []
        if not parts:
            kind = "error" if "error" in data else "usage"
            _append(order["all"], kind)
            closing.append(data)
            continue
        frame = {key: value for key, value in data.items() if key != "choices"}
        for part in parts:
            kind = _kind(part)
            index = str(part.get("index"))
            _append(order.setdefault(index, []), kind)
            if kind == "finish":
                _append(order["all"], kind)
            kind = "text" if kind == "silent" else kind
            _merge(chunks.setdefault(kind, {}), frame | {"choice": part})
            _collect(choices.setdefault(index, {}), part)
        _merge(choices[str(parts[0].get("index"))], {k: frame[k] for k in ("prompt_token_ids",) if k in frame})
    return {"order": order, "chunks": chunks, "choices": choices, "closing": closing}


def _events(body: str) -> list[Any]:
    """Each event's data, parsed; a text that is not JSON stays a text."""
    found: list[Any] = []
    for block in body.replace("\r\n", "\n").split("\n\n"):
        lines = [line.removeprefix("data:").strip() for line in block.split("\n") if line.startswith("data:")]
        if not lines:
            continue
        text = "\n".join(lines)
        try:
            found.append(text if text == DONE else json.loads(text))
        except ValueError:
            found.append(text)
    return found


def _kind(choice: dict[str, Any]) -> str:
    """finish, role, tool-begin, tool-more, text, or silent: no text came with these tokens."""
    if choice.get("finish_reason") is not None:
        return "finish"
    delta = choice.get("delta", {"content": choice.get("text")})
    if "role" in delta:
        return "role"
    if delta.get("tool_calls"):
        return "tool-begin" if any("id" in call for call in delta["tool_calls"]) else "tool-more"
    return "text" if delta.get("content") else "silent"


def _append(kinds: list[str], kind: str) -> None:
    if kind == "finish" and kinds and kinds[-1] == "text":
        kinds.pop()
    if kind != "silent" and (not kinds or kinds[-1] != kind):
        kinds.append(kind)


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Add the fields that ``into`` has not seen with a value yet."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif into.get(key) in (None, "", []):
            into[key] = value


def _collect(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a chunk's choice to the choice it is a piece of."""
    delta = part.get("delta", {})
    whole["text"] = whole.get("text", "") + (part.get("text") or delta.get("content") or "")
    if "role" in delta:
        whole["role"] = delta["role"]
    for call in delta.get("tool_calls") or []:
        calls = whole.setdefault("tool_calls", {})
        known = calls.setdefault(str(call.get("index")), {"arguments": ""})
        function = call.get("function") or {}
        known["arguments"] += function.get("arguments") or ""
        known |= {key: call[key] for key in ("id", "type") if call.get(key)}
        known |= {key: function[key] for key in ("name",) if function.get(key)}
    for key in ("token_ids", "prompt_token_ids"):
        if part.get(key):
            whole[key] = whole.get(key, []) + part[key]
    if part.get("logprobs"):
        _extend(whole.setdefault("logprobs", {}), part["logprobs"])
    if part.get("finish_reason") is not None:
        whole["finish_reason"] = part["finish_reason"]
        whole["finishes"] = whole.get("finishes", 0) + 1
        whole["stop_reason"] = part.get("stop_reason")


def _extend(whole: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, list):
            whole[key] = (whole.get(key) or []) + value
        else:
            whole.setdefault(key, value)
