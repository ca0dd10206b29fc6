"""Tool calls read from what a model writes, while it writes: each piece of text is looked at once.

What a call's beginning is not yet known to be is held back. A call is told once its name and the ``{`` of its
arguments are there; its arguments are then told as they come. A text that breaks off or goes wrong after that has told
a call which :func:`parse_tool_calls` does not find in the whole text; on all other texts the two agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from dataclasses import dataclass

from minillm_serve.guided.tools import CLOSE, FORMATS, OPEN

_NOT_SPACE = re.compile(r"[^ \t\r\n]")
_IN_VALUE = re.compile(r"[^ \t\r\n,:0-9+\-.eEtrufalsn]")  # not what JSON may have between strings and brackets
_IN_STRING = re.compile(r'["\\]')
_AFTER_SCALAR = re.compile(r"[,}\] \t\r\n]")


ARGUMENTS = ("arguments", "parameters")  # what models call them


@dataclass(frozen=True)
class ToolCall:
    """A call that was generated; ``arguments`` is JSON text, as it was written."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class FreeText:
    """Text that is no call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegins:
    """The call with this number, from 0, of the function ``name``."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class MoreArguments:
    """The next characters of a call's arguments, as they were written."""

    index: int
    text: str


Event = FreeText | CallBegins | MoreArguments
Steps = Generator[None, None, bool]  # waits for text at each yield


class ToolStream:
    """Push the pieces of one text, the last one with ``last``; each push returns what has become clear.

    eager: calls are told while they are written. Otherwise when they are complete, and all else is free text.
    """

    def __init__(self, format: str = "hermes", eager: bool = True):
        if format not in FORMATS:
            raise ValueError(f"the format of tool calls is one of {', '.join(FORMATS)}, got {format!r}")
        self._text = ""  # from the first character that may still be needed
        self._at = 0
        self._ended = False
        self._eager = eager
        self._held = False  # from the beginning of _text: it may turn out to be no call
        self._space = ""  # blank text that is dropped if calls follow or went before it and nothing else does
        self._said = False  # something in the present stretch of free text
        self._calls = 0
        self._events: list[Event] = []
        self._steps = self._hermes() if format == "hermes" else self._json()
        next(self._steps)

    def push(self, text: str, last: bool = False) -> list[Event]:
        """What this text makes clear, in its order."""
        if not self._held:
            self._text, self._at = self._text[self._at :], 0
        self._text += text
        self._ended = last
        next(self._steps, None)
        if last and self._space and not self._calls:
            self._events.append(FreeText(self._space))
        events, self._events = self._events, []
        return events

    # -- the two formats -----------------------------------------------------------------------------------------------

    def _hermes(self) -> Generator[None]:
        while (yield from self._until_open()):
            start, self._held = self._at, True
            called = yield from self._call()
            if called and self._eager:
                yield from self._pass_over(CLOSE)
            self._held = False
            if not called:
                self._say(OPEN)
                self._at = start

    def _json(self) -> Generator[None]:
        self._held = True
        character = yield from self._next_visible()
        if character == "[":
            self._at += 1
            more = True
            while more and (yield from self._call()):
                more = (yield from self._next_visible()) == ","
                self._at += 1
        elif character == "{":
            yield from self._call()
        if not self._calls:
            self._at = 0
        self._held = False
        while True:
            self._say(self._text[self._at :])
            self._at = len(self._text)
            if self._ended:
                return
            yield

    # -- text ----------------------------------------------------------------------------------------------------------

    def _until_open(self) -> Steps:
        """Tells text up to the next OPEN and passes it; False where there is none any more."""
        while True:
            found = self._text.find(OPEN, self._at)
            if found >= 0:
                self._say(self._text[self._at : found])
                self._at = found + len(OPEN)
                return True
            keep = 0 if self._ended else _overlap(self._text, self._at, OPEN)
            self._say(self._text[self._at : len(self._text) - keep])
            self._at = len(self._text) - keep
            if self._ended:
                return False
            yield

    def _pass_over(self, wanted: str) -> Steps:
        """Passes ``wanted`` and the blanks before it, if that is what comes."""
        yield from self._next_visible()
        while not self._ended and len(self._text) - self._at < len(wanted):
            if not wanted.startswith(self._text[self._at :]):
                return False
            yield
        found = self._text.startswith(wanted, self._at)
        self._at += len(wanted) * found
        return found

    def _say(self, text: str) -> None:
        if not text:
            return
        if not self._said and not _NOT_SPACE.search(text):
            self._space += text
            return
        self._events.append(FreeText(self._space + text))
        self._space, self._said = "", True

    def _next_visible(self) -> Generator[None, None, str]:
        """Passes blanks; the next character, "" at the end."""
        while True:
            found = _NOT_SPACE.search(self._text, self._at)
            self._at = found.start() if found else len(self._text)
            if found or self._ended:
                return found[0] if found else ""
            yield

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _call(self) -> Steps:
        """Reads {"name": ..., "arguments": {...}}; whether a call was told."""
        if (yield from self._next_visible()) != "{":
            return False
        start, told = self._at, False
        name = arguments = None
        character = ","
        while character == ",":
            self._at += 1
            key = yield from self._string()
            if key is None or (yield from self._next_visible()) != ":":
                return told
            self._at += 1
            character = yield from self._next_visible()
            if key == "name":
                name = yield from self._string()
                sound = name is not None
            elif key not in ARGUMENTS or character != "{" or arguments is not None:
                sound = yield from self._value(None)
            elif name is None or not self._eager:
                begun = self._at
                sound = yield from self._value(None)
                arguments = self._text[begun : self._at]
            else:
                arguments, told = "", self._tell(name)
                sound = yield from self._value(self._calls - 1)
            if not sound:
                return told
            if self._eager and not told and name is not None and arguments is not None:
                told = self._tell(name, arguments)
            character = yield from self._next_visible()
        if character != "}":
            return told
        self._at += 1
        if not self._eager and name is not None and arguments is not None and _is_json(self._text[start : self._at]):
            told = (yield from self._pass_over(CLOSE)) and self._tell(name, arguments)
        return told

    def _tell(self, name: str, arguments: str = "") -> bool:
        self._events.append(CallBegins(self._calls, name))
        if arguments:
            self._events.append(MoreArguments(self._calls, arguments))
        self._calls += 1
        self._space, self._said = "", False
        return True

    def _string(self) -> Generator[None, None, str | None]:
        """Passes a JSON string; its value, None where there is none."""
        if (yield from self._next_visible()) != '"':
            return None
        start = self._at
        self._at += 1
        yield from self._rest_of_string(None)
        try:
            value = json.loads(self._text[start : self._at])
        except ValueError:
            return None
        return value if isinstance(value, str) else None

    def _value(self, index: int | None) -> Steps:
        """Passes a JSON value, or what looks like one; False where it cannot be one.

        As arguments of the call ``index`` it is told as it comes, and then not needed any more.
        """
        self._held, held = self._held and index is None, self._held
        sound = yield from self._rest_of_value(index)
        self._held = held
        return sound

    def _rest_of_value(self, index: int | None) -> Steps:
        depth = 0
        while True:
            start = self._at
            found = (_IN_VALUE if depth else _NOT_SPACE).search(self._text, self._at)
            self._at = found.start() if found else len(self._text)
            if found is None:
                self._tell_arguments(index, start)
                if self._ended:
                    return False
                yield
                continue
            character = found[0]
            if character == '"':
                self._at += 1
                self._tell_arguments(index, start)
                yield from self._rest_of_string(index)
            elif character in "{}[]":
                self._at += 1
                self._tell_arguments(index, start)
                depth += 1 if character in "{[" else -1
            elif depth:
                self._tell_arguments(index, start)
                return False
            else:
                yield from self._rest_of_scalar()
            if depth <= 0:
                return depth == 0

    def _rest_of_string(self, index: int | None) -> Generator[None]:
        while True:
            start = self._at
            found = _IN_STRING.search(self._text, self._at)
            escape = found is not None and found[0] == "\\"
            if found is None or (escape and found.end() == len(self._text)):
                self._at = found.start() if found else len(self._text)
                self._tell_arguments(index, start)
                if self._ended:
                    return
                yield
                continue
            self._at = found.end() + escape
            self._tell_arguments(index, start)
            if not escape:
                return

    def _rest_of_scalar(self) -> Generator[None]:
        while True:
            found = _AFTER_SCALAR.search(self._text, self._at)
            self._at = found.start() if found else len(self._text)
            if found or self._ended:
                return
            yield

    def _tell_arguments(self, index: int | None, start: int) -> None:
        if index is not None and self._at > start:
            self._events.append(MoreArguments(index, self._text[start : self._at]))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _overlap(text: str, start: int, wanted: str) -> int:
    """Characters at the end of ``text`` that ``wanted`` may begin with."""
    longest = min(len(wanted) - 1, len(text) - start)
    return next((length for length in range(longest, 0, -1) if text.endswith(wanted[:length])), 0)


# -- whole texts -------------------------------------------------------------------------------------------------------


def parse_tool_calls(text: str, format: str = "hermes") -> tuple[str | None, list[ToolCall]]:
    """What a model wrote -> (free text, calls in order). What is no complete call stays in the free text.

    Between and beside calls, blanks are no text; None where nothing else is left.
    """
    events = ToolStream(format, eager=format == "json").push(text, last=True)
    if format == "json" and not _is_calls(text):
        return text, []
    calls: list[ToolCall] = []
    pieces = [event.text for event in events if isinstance(event, FreeText)]
    for event in events:
        if isinstance(event, CallBegins):
            calls.append(ToolCall(event.name, ""))
        elif isinstance(event, MoreArguments):
            calls[-1] = ToolCall(calls[-1].name, calls[-1].arguments + event.text)
    return ("".join(pieces) or None, calls) if calls else (text, [])


def _is_calls(text: str) -> bool:
    """Is the whole text JSON, and each object in it a call?"""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return all(
        isinstance(call, dict)
        and isinstance(call.get("name"), str)
        and isinstance(next((call[key] for key in ARGUMENTS if key in call), None), dict)
        for call in (found if isinstance(found, list) else [found])
    )
