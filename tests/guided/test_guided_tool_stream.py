"""However a text is cut into pieces, its calls are those of the whole text, and each character is told once."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_serve.guided.tool_stream import CallBegins, Event, FreeText, MoreArguments, ToolStream, parse_tool_calls
from minillm_serve.guided.tools import CLOSE, FORMATS, OPEN

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=6),
              st.sampled_from([CLOSE, OPEN, '"}', "\\", '{"name": "f"', "[{"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)  # fmt: skip
arguments = st.dictionaries(st.text(max_size=5), values, max_size=3)
call = st.builds(
    lambda name, arguments, key, first, ascii_only, indent: json.dumps(
        {"name": name, key: arguments} if first else {key: arguments, "id": 1, "name": name},
        ensure_ascii=ascii_only,
        indent=indent,
    ),
    st.sampled_from(["f", "get_weather", 'a"b']),
    arguments,
    st.sampled_from(["arguments", "parameters"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 1]),
)
free = st.sampled_from(["", " \n", "Let me see. ", " a <tool_", "\t<", "é {}"])
hermes = st.builds(
    lambda parts, end: "".join(f"{text}{OPEN}\n{call}\n{CLOSE}" for text, call in parts) + end,
    st.lists(st.tuples(free, call), max_size=3),
    free,
)
array = st.builds(
    lambda calls, one: calls[0] if one else f"[{', '.join(calls)}]",
    st.lists(call, min_size=1, max_size=3),
    st.booleans(),
)
noise = st.text(alphabet='<>tool_ca/{}[]":,name argumets\n\\1', max_size=60)


def told(text: str, format: str, cuts: list[int]) -> tuple[str | None, list[tuple[str, str]], list[list[Event]]]:
    """What a stream cut at these places has told in the end: free text, calls, and the events of each push."""
    stream = ToolStream(format)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pushes = [stream.push(text[a:b], last=False) for a, b in pairwise(places)]
    pushes.append(stream.push("", last=True))
    events = [event for push in pushes for event in push]
    content = "".join(event.text for event in events if isinstance(event, FreeText))
    calls = [[event.name, ""] for event in events if isinstance(event, CallBegins)]
    for event in events:
        if isinstance(event, MoreArguments):
            calls[event.index][1] += event.text
    return content or (None if calls else ""), [(name, arguments) for name, arguments in calls], pushes


@settings(max_examples=200, deadline=None)
@given(hermes, st.lists(st.integers(0, 300), max_size=12))
def test_pieces_of_hermes_make_the_whole(text, cuts):
    content, calls, _ = told(text, "hermes", cuts)
    whole, found = parse_tool_calls(text)
    assert (content, calls) == (whole, [(call.name, call.arguments) for call in found])
    assert len(found) == text.count(f"\n{CLOSE}")


@settings(max_examples=100, deadline=None)
@given(array, st.lists(st.integers(0, 300), max_size=12))
def test_pieces_of_json_make_the_whole(text, cuts):
    content, calls, _ = told(text, "json", cuts)
    whole, found = parse_tool_calls(text, "json")
    assert (content, calls) == (whole, [(call.name, call.arguments) for call in found])
    assert found


@settings(max_examples=300, deadline=None)
@given(noise, st.lists(st.integers(0, 60), max_size=8), st.sampled_from(FORMATS))
def test_where_to_cut_decides_nothing(text, cuts, format):
    assert told(text, format, cuts)[:2] == told(text, format, [])[:2]
    content, calls, _ = told(text, format, cuts)
    assert calls or content == text


def test_arguments_are_told_as_they_come():
    text = f'{OPEN}\n{{"name": "f", "arguments": {{"city": "Lima"}}}}\n{CLOSE}'
    _, _, pushes = told(text, "hermes", list(range(len(text))))
    begins = next(number for number, push in enumerate(pushes) if push)
    assert pushes[begins] == [CallBegins(0, "f"), MoreArguments(0, "{")]
    more = [event.text for push in pushes[begins + 1 :] for event in push]
    assert more == list('"city": "Lima"}')


def test_what_may_become_a_call_is_held_back_and_told_when_it_does_not():
    stream = ToolStream()
    assert stream.push("a <tool") == [FreeText("a ")]
    assert stream.push("_call>") == []
    assert stream.push('{"name') == []
    assert stream.push('": 5, no') == [FreeText(OPEN), FreeText('{"name": 5, no')]
    assert stream.push("<tool_call>{", last=True) == [FreeText(OPEN), FreeText("{")]


def test_a_call_that_breaks_off_is_told_as_far_as_it_went():
    text = f'{OPEN}{{"name": "f", "arguments": {{"a": "b'
    assert told(text, "hermes", [12, 20, 40])[:2] == (None, [("f", '{"a": "b')])
    assert parse_tool_calls(text) == (text, [])


UNITS = [
    "<tool_call>[f(a=[f(", '<tool_call>{"a":[', '<tool_call>{"a":"', '<tool_call>{"name":"f","arguments":{', OPEN,
    '<tool_call>{"arguments":{"a":"', '{"name":', "[[[[", "<tool_call>{", '<tool_call>\\"{', "\\", '<tool_call>{"e":["',
    '<tool_call>{"arguments":{},"name":"f"}', "<tool_",
]  # fmt: skip


def cost(function, *arguments) -> float:
    """The quicker of two runs, in seconds of this thread."""
    times = []
    for _ in range(2):
        start = time.thread_time()
        function(*arguments)
        times.append(time.thread_time() - start)
    return min(times)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("format", FORMATS)
def test_garbage_costs_in_proportion_to_its_length(unit, format):
    """CVE-2025-48887: nothing that a model writes may stop the server. Ten times the text, not a hundred the work."""

    def work(length: int) -> None:
        text = (unit * (length // len(unit) + 1))[:length]
        parse_tool_calls(text, format)
        told(text, format, list(range(0, length, 4)))

    assert cost(work, 50_000) < 30 * cost(work, 5_000) + 0.05
