"""A conversation as clients send it, checked and made into what chat templates take."""

from __future__ import annotations

import json
from typing import Any

from minillm_serve.params import RequestError

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_MESSAGES = 2048
# vLLM's kinds of text parts and where each has its text.
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal", "thinking": "thinking"}
# Clients send back what they were answered; these fields of an answer hold nothing a template renders.
ANSWER_FIELDS = frozenset({"refusal", "annotations"})
REASONING = ("reasoning", "reasoning_content")
# Which further fields a role may have, besides those that any may have empty.
OWN_FIELDS = {"assistant": frozenset({"tool_calls", *REASONING, *ANSWER_FIELDS}), "tool": frozenset({"tool_call_id"})}

_PART_SCHEMA = {
    "type": "object",
    "properties": {"type": {"enum": list(TEXT_PARTS)}, "text": {"type": "string"}},
    "required": ["type"],
}
_CALL_SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "arguments": {"type": "string"}},
            "required": ["name"],
        },
    },
    "required": ["function"],
}
MESSAGES_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_MESSAGES,
    "items": {
        "type": "object",
        "properties": {
            "role": {"enum": list(ROLES)},
            "content": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": _PART_SCHEMA},
                    {"type": "null"},
                ]
            },
            "name": {"type": "string"},
            "tool_calls": {"type": "array", "items": _CALL_SCHEMA},
            "tool_call_id": {"type": "string"},
        },
        "required": ["role"],
    },
}


def parse_messages(value: Any) -> list[dict[str, Any]]:
    """Messages as :class:`~minillm_serve.model.chat_template.Conversation` has them.

    Raises :class:`RequestError` with the path of the fault.
    """
    if not isinstance(value, list) or not value:
        raise RequestError("messages must be a list with at least one message", "messages")
    if len(value) > MAX_MESSAGES:
        raise RequestError(f"at most {MAX_MESSAGES} messages fit in one request, got {len(value)}", "messages")
    return [_message(message, f"messages.{index}") for index, message in enumerate(value)]


def _message(message: Any, path: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise RequestError("each message must be an object with role and content", path)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        hint = ": results of functions have the role tool" if role == "function" else ""
        raise RequestError(f"role must be one of {', '.join(ROLES)}{hint}", f"{path}.role")
    known = {"role", "content", "name"} | OWN_FIELDS.get(role, frozenset())
    for name, value in message.items():
        if value is not None and name not in known:
            hint = ": use tool_calls" if name == "function_call" else ""
            raise RequestError(
                f"{name[:40]} in a message of the role {role} is not supported by this server{hint}",
                f"{path}.{name[:40]}",
            )
    calls = _tool_calls(message.get("tool_calls"), f"{path}.tool_calls")
    content = message.get("content")
    if content is None and role == "assistant":
        content = ""
    parsed = {"role": role, "content": _content(content, f"{path}.content")}
    if calls:
        parsed["tool_calls"] = calls
    for name in ("name", "tool_call_id"):
        if message.get(name) is not None:
            parsed[name] = _string(message[name], f"{path}.{name}")
    if reasoning := next((message[name] for name in REASONING if message.get(name) is not None), None):
        parsed |= dict.fromkeys(REASONING, _string(reasoning, f"{path}.reasoning"))
    return parsed


def _content(content: Any, path: str) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError("content must be a string or a list of text parts", path)
    return [{"type": "text", "text": _part(part, f"{path}.{index}")} for index, part in enumerate(content)]


def _part(part: Any, path: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in TEXT_PARTS:
        got = f", got {kind[:40]!r}" if isinstance(kind, str) else ""
        raise RequestError(f'only text parts are supported: {{"type": "text", "text": ...}}{got}', path)
    text = part.get(TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise RequestError(f"a part of the type {kind} needs a text: {TEXT_PARTS[kind]}", f"{path}.{TEXT_PARTS[kind]}")
    return text


def _tool_calls(value: Any, path: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestError("tool_calls must be a list", path)
    return [_tool_call(call, f"{path}.{index}") for index, call in enumerate(value)]


def _tool_call(call: Any, path: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise RequestError('a tool call must be {"id": ..., "type": "function", "function": {...}}', path)
    parsed = {
        "type": "function",
        "function": {
            "name": _string(function.get("name"), f"{path}.function.name"),
            "arguments": _arguments(function.get("arguments"), f"{path}.function.arguments"),
        },
    }
    return parsed if call.get("id") is None else {"id": _string(call["id"], f"{path}.id"), **parsed}


def _arguments(value: Any, path: str) -> dict[str, Any]:
    """Templates take an object. What a model once wrote and is no object counts as an empty one, as in vLLM.

    An error would block its conversation for ever.
    """
    if value is None or isinstance(value, dict):
        return value or {}
    text = _string(value, path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{path.rpartition('.')[2]} must be a string", path)
    return value
