"""What a chat template does not know, said in terms that it does: tools, earlier calls, newer roles, contents in parts.

A template without ``tools`` gets them described in the system message, earlier calls as the text that was generated for
them, and results of tools as a user's message, all in the Hermes convention (NousResearch, 2024): ``<tools>``,
``<tool_call>``, ``<tool_response>``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minillm_serve.model.chat_template import ChatTemplate, Conversation

Message = Mapping[str, Any]
OPEN, CLOSE = "<tool_call>", "</tool_call>"  # those of guided.tools, which is slow to import for a process of its own
INTRODUCTION = (
    "# Tools\n\nYou can call functions to help with the user's request. Their signatures, in JSON:\n<tools>\n{tools}\n"
    "</tools>\n\n"
)
HOW_TO_CALL = {
    "hermes": (
        "To call a function, write a JSON object with its name and arguments between these tags:\n"
        f'{OPEN}\n{{"name": <function name>, "arguments": <object with the arguments>}}\n{CLOSE}'
    ),
    "json": (
        "To call functions, write nothing but a JSON array of objects, each with the name of a function and its "
        'arguments:\n[{"name": <function name>, "arguments": <object with the arguments>}]'
    ),
}


def adapted(conversation: Conversation, template: ChatTemplate) -> Conversation:
    """The conversation as this template can show it."""
    messages = list(conversation.messages)
    if not template.knows_developers and any(message["role"] == "developer" for message in messages):
        messages = _one_system_message(messages)
    if not template.knows_calls:
        messages = _calls_as_text(messages, conversation.tool_format)
    tools = conversation.tools
    if tools and not template.knows_tools:
        messages, tools = _with_description(messages, tools, conversation.tool_format), None
    shape = _in_parts if template.walks_parts else _as_text
    return replace(conversation, messages=[shape(message) for message in messages], tools=tools)


def _one_system_message(messages: Sequence[Message]) -> list[Message]:
    """Developers speak as the system; as many templates take a system message only at the beginning, it goes there."""
    system = [message for message in messages if message["role"] in ("system", "developer")]
    texts = [text for message in system if (text := text_of(message))]
    rest = [message for message in messages if message["role"] not in ("system", "developer")]
    if len(system) == 1 and messages[0] is system[0]:
        return [{**system[0], "role": "system"}, *rest]
    return [{"role": "system", "content": "\n\n".join(texts)}, *rest]


def _with_description(messages: Sequence[Message], tools: Sequence[Message], tool_format: str) -> list[Message]:
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    description = INTRODUCTION.replace("{tools}", lines) + HOW_TO_CALL[tool_format]
    if messages and messages[0]["role"] == "system":
        said = text_of(messages[0])
        return [{**messages[0], "content": f"{said}\n\n{description}" if said else description}, *messages[1:]]
    return [{"role": "system", "content": description}, *messages]


def _calls_as_text(messages: Sequence[Message], tool_format: str) -> list[Message]:
    found: list[Message] = []
    answering = False  # the last message found holds results of tools
    for message in messages:
        if message["role"] == "tool":
            response = f"<tool_response>\n{text_of(message)}\n</tool_response>"
            if answering:
                response = f"{found.pop()['content']}\n{response}"
            found.append({"role": "user", "content": response})
        elif message.get("tool_calls"):
            said = text_of(message)
            text = "\n".join([*([said] if said else []), _written(message["tool_calls"], tool_format)])
            found.append({"role": "assistant", "content": text})
        else:
            found.append(message)
        answering = message["role"] == "tool"
    return found


def _written(calls: Sequence[Mapping[str, Any]], tool_format: str) -> str:
    objects = [
        json.dumps({"name": call["function"]["name"], "arguments": call["function"]["arguments"]}, ensure_ascii=False)
        for call in calls
    ]
    if tool_format == "json":
        return f"[{', '.join(objects)}]"
    return "\n".join(f"{OPEN}\n{text}\n{CLOSE}" for text in objects)


def text_of(message: Message) -> str:
    """A message's content as one text."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _as_text(message: Message) -> Message:
    return {**message, "content": text_of(message)}


def _in_parts(message: Message) -> Message:
    """vLLM's choice: parts everywhere, except in results of tools, which templates expect as text."""
    content = message.get("content") or []
    if message["role"] == "tool":
        return _as_text(message)
    return {**message, "content": [{"type": "text", "text": content}] if isinstance(content, str) else list(content)}
