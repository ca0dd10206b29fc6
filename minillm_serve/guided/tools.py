"""OpenAI tool calls as a constraint; for reading them back see :mod:`minillm_serve.guided.tool_stream`.

Two formats of the generated text: ``hermes``, each call as ``<tool_call>\\n{"name": ..., "arguments": {...}}\\n
</tool_call>`` (NousResearch's and Qwen's chat templates), and ``json``, an array of such objects, or one object where
there can be only one call. With ``tool_choice`` "auto" the model may also write free text, which only ``hermes`` can
tell from a call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minillm_serve.guided.errors import SchemaError
from minillm_serve.params import RequestError, StructuredOutputsParams

FORMATS = ("hermes", "json")
OPEN, CLOSE = "<tool_call>", "</tool_call>"
MAX_TOOLS = 128
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL_NAME = "[a-zA-Z0-9_-]{1,64}"
_NAME = re.compile(TOOL_NAME)
_PLACE = re.compile(r"/tags/([0-9]+)/content/json_schema(.*)", re.DOTALL)


@dataclass(frozen=True)
class Tool:
    """A function that may be called. parameters: the JSON Schema of its arguments."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class ToolConstraint:
    """What to generate under, and the tools in the order of their schemas there."""

    params: StructuredOutputsParams
    tools: tuple[Tool, ...]

    def blame(self, error: SchemaError) -> RequestError:
        """The refusal of a schema in the constraint as one of the tool whose parameters it is."""
        found = _PLACE.search(error.path)
        if found is None:
            return RequestError(f"the tools cannot be enforced: {error.problem}", "tools")
        number = int(found[1])
        place = f"{error.keyword!r} at {found[2] or '(root)'!r}"
        problem = f"the parameters of the tool {self.tools[number].name!r} cannot be enforced: {place}: {error.problem}"
        return RequestError(problem, f"tools.{number}.function.parameters")


def tool_constraint(
    tools: Sequence[Mapping[str, Any]],
    tool_choice: str | Mapping[str, Any] | None = "auto",
    *,
    parallel_tool_calls: bool = True,
    format: str = "hermes",
) -> ToolConstraint | None:
    """The constraint under which the text is free or calls tools; None where nothing is to be enforced.

    tools, tool_choice (``auto``, ``required``, ``none`` or one function), parallel_tool_calls: as in OpenAI's Chat
    Completions API. A tool whose ``strict`` is false takes any object for its arguments. Raises :class:`RequestError`
    that names the field, such as ``tools.1.function.name``.
    """
    if format not in FORMATS:
        raise RequestError(f"the format of tool calls is one of {', '.join(FORMATS)}, got {format!r}", "tools")
    found = read_tools(tools)
    needed, chosen = _choice(tool_choice, found)
    if not chosen:
        return None
    if not needed and format == "json":
        raise RequestError("tool_choice 'auto' needs a format that marks calls, such as hermes", "tool_choice")
    one = not parallel_tool_calls or isinstance(tool_choice, Mapping)
    make = _hermes if format == "hermes" else _json
    tag = {"type": "structural_tag", "format": make(chosen, needed, one)}
    return ToolConstraint(StructuredOutputsParams(structural_tag=tag), tuple(chosen))


def read_tools(tools: Sequence[Mapping[str, Any]]) -> list[Tool]:
    """The checked tools of a request. Raises :class:`RequestError` naming the field."""
    if isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence):
        raise RequestError(f"tools must be a list, got {type(tools).__name__}", "tools")
    if len(tools) > MAX_TOOLS:
        raise RequestError(f"{len(tools)} tools are more than {MAX_TOOLS}", "tools")
    found: dict[str, Tool] = {}
    for number, raw in enumerate(tools):
        tool = _read_tool(raw, f"tools.{number}")
        if tool.name in found:
            raise RequestError(f"two tools have the name {tool.name!r}", f"tools.{number}.function.name")
        found[tool.name] = tool
    return list(found.values())


def _read_tool(raw: Any, field: str) -> Tool:
    if not isinstance(raw, Mapping) or raw.get("type") != "function" or not isinstance(raw.get("function"), Mapping):
        raise RequestError('a tool must be an object {"type": "function", "function": {...}}', field)
    function, field = raw["function"], f"{field}.function"
    name, strict = function.get("name"), function.get("strict")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError(f"a tool's name must match ^{_NAME.pattern}$, got {str(name)[:80]!r}", f"{field}.name")
    if strict is not None and not isinstance(strict, bool):
        raise RequestError(f"strict must be true or false, got {type(strict).__name__} ({name!r})", f"{field}.strict")
    schema = function.get("parameters")
    if schema is None:
        return Tool(name, NO_ARGUMENTS)
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        problem = f'the parameters of {name!r} must be a JSON Schema with "type": "object"'
        raise RequestError(problem, f"{field}.parameters")
    return Tool(name, {"type": "object"} if strict is False else {"type": "object", **schema})


def _choice(tool_choice: Any, tools: list[Tool]) -> tuple[bool, list[Tool]]:
    """(must there be a call, the tools that may be called)."""
    if tool_choice is None or tool_choice in ("auto", "none"):
        return False, [] if tool_choice == "none" else tools
    if tool_choice == "required":
        if not tools:
            raise RequestError("tool_choice 'required' needs at least one tool", "tools")
        return True, tools
    function = tool_choice.get("function") if isinstance(tool_choice, Mapping) else None
    if not isinstance(function, Mapping) or tool_choice.get("type", "function") != "function":
        expected = '\'auto\', \'required\', \'none\' or {"type": "function", "function": {"name": ...}}'
        raise RequestError(f"tool_choice must be {expected}, got {str(tool_choice)[:80]!r}", "tool_choice")
    named = [tool for tool in tools if tool.name == function.get("name")]
    if not named:
        known = ", ".join(tool.name for tool in tools) or "none"
        problem = f"there is no tool {str(function.get('name'))[:80]!r}; there are: {known}"
        raise RequestError(problem, "tool_choice.function.name")
    return True, named


def _tag(tool: Tool, before: str, after: str) -> dict[str, Any]:
    """One call, with the fixed text around its arguments."""
    content = {"type": "json_schema", "json_schema": dict(tool.parameters)}
    return {"begin": f'{before}{{"name": "{tool.name}", "arguments": ', "content": content, "end": f"}}{after}"}


def _hermes(tools: list[Tool], needed: bool, one: bool) -> dict[str, Any]:
    tags = [_tag(tool, f"{OPEN}\n", f"\n{CLOSE}") for tool in tools]
    if needed:
        # Nothing between calls (vLLM's choice): a model to which a newline comes naturally would owe another call.
        several = {"tags": tags, "separator": "", "at_least_one": True, "stop_after_first": one}
        return {"type": "tags_with_separator", **several}
    return {"type": "triggered_tags", "triggers": [OPEN], "tags": tags, "stop_after_first": one}


def _json(tools: list[Tool], needed: bool, one: bool) -> dict[str, Any]:
    tags = [_tag(tool, "", "") for tool in tools]
    several = {"tags": tags, "separator": ", ", "at_least_one": needed, "stop_after_first": one}
    calls = {"type": "tags_with_separator", **several}
    if one:
        return calls
    return {"type": "sequence", "elements": [_constant("["), calls, _constant("]")]}


def _constant(text: str) -> dict[str, str]:
    return {"type": "const_string", "value": text}
