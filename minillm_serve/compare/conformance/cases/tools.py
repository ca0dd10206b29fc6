"""Tools: the four choices, parallel calls, histories with calls in them, and what is refused."""

from __future__ import annotations

from typing import Any

from minillm_serve.compare.conformance.case import Case
from minillm_serve.compare.conformance.cases.making import chat, streamed, user

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {
    "name": "get_time", "description": "The time", "strict": True,
    "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}}  # fmt: skip
LOOSE = {"type": "function", "function": WEATHER["function"] | {"strict": False}}
BARE = {"type": "function", "function": {"name": "get_time"}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
ASK = "What is the weather in Paris?"
CALL = {"id": "call-1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
HISTORY = [
    user(ASK),
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call-1", "content": "Sunny, 20 degrees"},
]
WITH_TEXT = [user(ASK), {"role": "assistant", "content": "Looking.", "tool_calls": [CALL]}, HISTORY[2]]


def cases() -> list[Case]:
    """Whole answers, streams, refusals."""
    sound = [
        chat("tools-none", ASK, tools=[WEATHER], tool_choice="none", return_token_ids=True),
        chat("tools-auto-plain-answer", "Say hello.", tools=[WEATHER], tool_choice="auto", max_tokens=8),
        chat("tools-default-choice", "Say hello.", tools=[WEATHER], max_tokens=8),
        chat("tools-null-choice", "Say hello.", tools=[WEATHER], tool_choice=None, max_tokens=8),
        chat("tools-required", ASK, tools=[WEATHER], tool_choice="required", max_tokens=64, alike="as JSON"),
        chat("tools-required-two", ASK, tools=[WEATHER, CLOCK], tool_choice="required", max_tokens=64, alike="as JSON"),
        chat("tools-required-not-parallel", ASK, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False,
             max_tokens=64, alike="as JSON"),
        chat("tools-required-cut-short", ASK, tools=[WEATHER], tool_choice="required", max_tokens=6),
        chat("tools-named", ASK, tools=[WEATHER], tool_choice=NAMED, max_tokens=64, alike="as JSON"),
        chat("tools-named-of-two", ASK, tools=[CLOCK, WEATHER], tool_choice=NAMED, max_tokens=64, alike="as JSON"),
        chat("tools-named-cut-short", ASK, tools=[WEATHER], tool_choice=NAMED, max_tokens=3),
        chat("tools-named-logprobs", ASK, tools=[WEATHER], tool_choice=NAMED, max_tokens=64, logprobs=True),
        chat("tools-named-token-ids", ASK, tools=[WEATHER], tool_choice=NAMED, max_tokens=64, return_token_ids=True),
        chat("tools-not-strict", ASK, tools=[LOOSE], tool_choice="required", max_tokens=64, alike="as JSON"),
        chat("tools-without-description", "Hi", tools=[BARE], tool_choice="none", return_token_ids=True),
        chat("tools-history", messages=HISTORY, tools=[WEATHER]),
        chat("tools-history-without-tools", messages=HISTORY, return_token_ids=True),
        chat("tools-history-with-text", messages=WITH_TEXT, return_token_ids=True),
        chat("tools-none-with-format", ASK, tools=[WEATHER], tool_choice="none", response_format={"type": "text"}),
    ]  # fmt: skip
    refused: dict[str, dict[str, Any]] = {
        "empty": {"tools": []},
        "not-a-list": {"tools": "weather"},
        "an-object": {"tools": WEATHER},
        "without-function": {"tools": [{"type": "function"}]},
        "without-name": {"tools": [{"type": "function", "function": {}}]},
        "of-another-type": {"tools": [WEATHER | {"type": "retrieval"}]},
        "name-is-a-number": {"tools": [{"type": "function", "function": {"name": 3}}]},
        "parameters-are-a-list": {"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]},
        "choice-without-tools": {"tool_choice": "auto"},
        "choice-required-without-tools": {"tool_choice": "required"},
        "choice-named-without-tools": {"tool_choice": NAMED},
        "choice-unknown-word": {"tools": [WEATHER], "tool_choice": "always"},
        "choice-of-another-name": {"tools": [WEATHER],
                                   "tool_choice": {"type": "function", "function": {"name": "get_wether"}}},
        "choice-without-name": {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {}}},
        "choice-without-function": {"tools": [WEATHER], "tool_choice": {"type": "function"}},
        "choice-is-a-number": {"tools": [WEATHER], "tool_choice": 3},
        "bad-schema": {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "colour"}}}],
                       "tool_choice": "required"},
        "named-with-regex": {"tools": [WEATHER], "tool_choice": NAMED, "structured_outputs": {"regex": "a"}},
        "required-with-choice": {"tools": [WEATHER], "tool_choice": "required",
                                 "structured_outputs": {"choice": ["a", "b"]}},
        "functions": {"functions": [WEATHER["function"]]},
    }  # fmt: skip
    return [*sound, *streamed(sound), *(chat(f"tools-refused-{name}", ASK, **f) for name, f in refused.items())]
