"""Tools in a chat completion: what the request may ask, what the model is told, and how its calls are answered."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.tool_stream import CallBegins, FreeText, ToolStream, parse_tool_calls
from minillm_serve.guided.tools import CLOSE, OPEN, ToolConstraint, read_tools, tool_constraint
from minillm_serve.params import RequestError, SamplingParams
from minillm_serve.request import FinishReason
from minillm_serve.serve.settings import ServerSettings

TOOL_CALLS = "tool_calls"  # the reason to end that the engine does not know


@dataclass(frozen=True)
class ToolUse:
    """What one request makes of tools. choice: ``none``, ``auto``, ``required`` or ``named``.

    shown: the tools as chat templates get them, None for none. format: how calls are written. single: the first call
    alone counts.
    """

    choice: str = "none"
    shown: list[dict[str, Any]] | None = None
    constraint: ToolConstraint | None = None
    format: str = "hermes"
    single: bool = False

    @property
    def answers(self) -> bool:
        """Whether answers may hold calls."""
        return self.choice != "none"

    def applied(self, params: SamplingParams, control_tokens: Collection[str]) -> SamplingParams:
        """The same parameters, under which only valid calls can be written, where that is wanted.

        control_tokens: of the model; where the marks of calls are among them, they must not be left out of the text.
        """
        if self.constraint is not None:
            params = replace(params, structured_outputs=self.constraint.params)
        if self.answers and self.format == "hermes" and (OPEN in control_tokens or CLOSE in control_tokens):
            params = replace(params, skip_special_tokens=False)
        return params

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Inside, a schema that cannot be honoured is the fault of the tool that has it."""
        try:
            yield
        except SchemaError as error:
            if self.constraint is None:
                raise
            raise self.constraint.blame(error) from error

    def message(self, text: str, finish_reason: str | None) -> tuple[dict[str, Any], str | None]:
        """``content`` and ``tool_calls`` of a whole answer, and the reason why it ended (vLLM's).

        After a named choice that is the engine's own; a required call counts as the reason, unless the answer was cut
        off before or after it.
        """
        content, calls = parse_tool_calls(text, self.format)
        calls = calls[:1] if self.single else calls
        stopped = self.choice == "required" and finish_reason == FinishReason.STOP
        if calls and (self.choice == "auto" or stopped):
            finish_reason = TOOL_CALLS
        fields: dict[str, Any] = {"content": content if self.choice == "auto" else content or ""}
        if calls:
            fields["tool_calls"] = [
                {"id": _new_id(), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in calls
            ]
        return fields, finish_reason


class CallWriter:
    """The calls of one streamed choice."""

    def __init__(self, use: ToolUse):
        self._use = use
        self._stream = ToolStream(use.format)
        self._called = False

    def delta(self, text: str, finish_reason: str | None) -> tuple[dict[str, Any] | None, str | None]:
        """The ``delta`` of the next chunk, None where nothing is clear yet; and the reason why the choice ended."""
        content: str = ""
        calls: list[dict[str, Any]] = []
        for event in self._stream.push(text, last=finish_reason is not None):
            if isinstance(event, FreeText):
                content += event.text
            elif event.index and self._use.single:
                continue
            elif isinstance(event, CallBegins):
                begins = {"id": _new_id(), "type": "function", "function": {"name": event.name}}
                calls.append({"index": event.index, **begins})
            elif calls and "arguments" in calls[-1]["function"]:
                calls[-1]["function"]["arguments"] += event.text
            else:
                calls.append({"index": event.index, "function": {"arguments": event.text}})
        self._called = self._called or bool(calls)
        if self._called and self._use.choice != "named" and finish_reason == FinishReason.STOP:
            finish_reason = TOOL_CALLS
        if calls:
            return {"content": content or None, "tool_calls": calls}, finish_reason
        return ({"content": content} if content else None), finish_reason


def read_tool_use(
    tools: Sequence[Mapping[str, Any]] | None,
    tool_choice: Any,
    parallel_tool_calls: bool | None,
    settings: ServerSettings,
    constrained_by: str | None = None,
) -> ToolUse:
    """Raises :class:`RequestError`. constrained_by: the field of the request that already constrains its answer."""
    if tools == []:
        raise RequestError("tools must not be an empty list: name at least one, or leave the field out", "tools")
    if tools is None:
        if tool_choice not in (None, "none"):
            raise RequestError("tool_choice needs tools", "tool_choice")
        return ToolUse()
    read_tools(tools)
    shown, form = shown_tools(tools), settings.tool_call_parser
    if tool_choice == "none":
        return ToolUse(shown=None if settings.exclude_tools_when_tool_choice_none else shown, format=form)
    if constrained_by is not None:
        raise RequestError(
            f"{constrained_by} and tools cannot both decide what the answer looks like: leave one out, or send "
            'tool_choice="none"',
            constrained_by,
        )
    auto = tool_choice in (None, "auto")
    if auto and not settings.enable_auto_tool_choice:
        raise RequestError(
            "tool_choice auto is switched off on this server (--no-enable-auto-tool-choice): choose required, none or "
            "one function",
            "tool_choice",
        )
    parallel = parallel_tool_calls is not False
    strict = any(tool["function"].get("strict") is True for tool in tools)
    # As in vLLM: a model that may also write text is left alone, unless a tool or the request asks for more.
    constraint = None
    if not auto or strict or not parallel:
        constraint = tool_constraint(tools, tool_choice, parallel_tool_calls=parallel, format=form)
    choice = "auto" if auto else "named" if isinstance(tool_choice, Mapping) else "required"
    return ToolUse(choice, shown, constraint, form, single=not parallel)


def shown_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tools as templates know them from vLLM. Raises :class:`RequestError`."""
    return [_shown(tool["function"], f"tools.{number}.function") for number, tool in enumerate(tools)]


def _shown(function: Mapping[str, Any], path: str) -> dict[str, Any]:
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        raise RequestError("the description of a tool must be a string", f"{path}.description")
    shown = {"name": function["name"], "description": description, "parameters": function.get("parameters")}
    if function.get("strict") is not None:
        shown["strict"] = function["strict"]
    return {"type": "function", "function": shown}


def _new_id() -> str:
    return f"chatcmpl-tool-{uuid.uuid4().hex[:16]}"
