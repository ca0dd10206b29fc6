"""A conversation as clients send it, made into what a chat template takes: roles and plain text."""

from __future__ import annotations

from typing import Any

from minillm_serve.params import RequestError

# OpenAI's newer name for the system role; templates of open models know only the older one.
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# Clients send back what they were answered; these fields of an answer hold nothing a template renders.
ANSWER_FIELDS = frozenset({"name", "refusal", "annotations", "reasoning", "reasoning_content"})

_PART_SCHEMA = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
MESSAGES_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "role": {"enum": list(ROLES)},
            "content": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": _PART_SCHEMA}]},
            "name": {"type": "string"},
        },
        "required": ["role", "content"],
    },
}


def parse_messages(value: Any) -> list[dict[str, str]]:
    """``[{"role", "content"}, ...]`` with text contents. Raises :class:`RequestError` with the path of the fault."""
    if not isinstance(value, list) or not value:
        raise RequestError("messages must be a list with at least one message", "messages")
    return [_message(message, f"messages.{index}") for index, message in enumerate(value)]


def _message(message: Any, path: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise RequestError("each message must be an object with role and content", path)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise RequestError(f"role must be one of {', '.join(ROLES)}", f"{path}.role")
    for name, field in message.items():
        if field is not None and name not in ("role", "content") and name not in ANSWER_FIELDS:
            raise RequestError(f"{name[:40]} in a message is not supported by this server", f"{path}.{name[:40]}")
    return {"role": ROLES[role], "content": _text(message.get("content"), f"{path}.content")}


def _text(content: Any, path: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise RequestError("content must be a string or a non-empty list of text parts", path)
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RequestError('only text parts are supported: {"type": "text", "text": ...}', f"{path}.{index}")
    return "\n".join(part["text"] for part in content)
