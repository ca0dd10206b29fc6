"""Published attacks through constraints: bad schemas, patterns and tools are 400 before anything is scheduled.

Deep, wide and cyclic ones are refused or compiled away from everybody else, in bounded memory, without a file written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer, wait_until
from survival import survives

from minillm_serve.config import EngineConfig
from minillm_serve.guided.tool_stream import ToolStream, parse_tool_calls

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": 0}
CACHE_MIB = 4


@pytest.fixture(scope="module")
def target(tiny_model_dir: Path) -> Iterator[LiveServer]:
    config = EngineConfig(
        model=str(tiny_model_dir), num_kv_blocks=256, max_num_seqs=16, num_threads=1, guided_cache_mib=CACHE_MIB
    )
    with LiveServer(config) as server:
        yield server


def ask(server: LiveServer, body: dict[str, Any]) -> Any:
    content = json.dumps(CHAT | body).encode()
    return server.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"})


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


def own(**constraint: Any) -> dict[str, Any]:
    return {"structured_outputs": constraint}


def tool(parameters: Any, **other: Any) -> dict[str, Any]:
    function = {"name": "f", "parameters": parameters} | other
    return {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}


def inside(value: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": value}, "required": ["a"]}


BAD_SCHEMAS: list[Any] = [
    {"type": 123}, {"type": "any"}, {"type": []}, {"type": ["string", 5]}, {"type": None}, {"type": "String"},
    {"type": "string", "pattern": "("}, {"type": "string", "pattern": "[z-a]"}, {"type": "string", "pattern": "a{2,1}"},
    {"type": "string", "pattern": "*"}, {"type": "string", "pattern": "\\"}, {"type": "string", "pattern": 5},
    {"type": "string", "pattern": "(a)\\1"}, {"type": "string", "pattern": "(?R)"},
    {"type": "string", "minLength": -1}, {"type": "string", "minLength": "1"}, {"type": "string", "maxLength": 1.5},
    {"type": "string", "minLength": 5, "maxLength": 2}, {"type": "string", "minLength": 10**30},
    {"type": "integer", "minimum": 5, "maximum": 4}, {"type": "integer", "minimum": "5"},
    {"type": "number", "multipleOf": 0}, {"type": "number", "multipleOf": -1}, {"type": "integer", "multipleOf": "x"},
    {"type": "array", "minItems": -1}, {"type": "array", "minItems": 3, "maxItems": 2}, {"type": "array", "items": 5},
    {"type": "array", "maxItems": True}, {"type": "array", "minItems": 10**12},
    {"type": "object", "properties": []}, {"type": "object", "properties": {"a": 5}},
    {"type": "object", "required": "a"}, {"type": "object", "required": [5]},
    {"type": "object", "minProperties": 5, "maxProperties": 1},
    {"type": "object", "patternProperties": {"(": {}}},
    {"enum": []}, {"enum": "a"}, {"enum": {}}, {"anyOf": []}, {"anyOf": {}}, {"oneOf": 5}, {"allOf": "x"}, {"not": 5},
    {"$ref": "#/definitions/none"}, {"$ref": "http://127.0.0.1:9/x"}, {"$ref": "file:///etc/passwd"}, {"$ref": 5},
    {"$ref": "#"}, {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"not": {}}, {"allOf": [{"type": "string"}, {"type": "integer"}]}, {"type": "string", "enum": [1]},
]  # fmt: skip
BAD_REGEXES = [
    "(", ")", "[", "[z-a]", "a{2,1}", "*a", "a**", "\\", "(?P<x>a", "(?R)", "(a)\\1", "(?(1)a)",
    "\\p{Nonsense}", "\\x{110000}", "a{99999999999}", "(a{1000}){1000}", "\\u12",
]  # fmt: skip
BAD_TOOLS: list[dict[str, Any]] = [
    {"tools": []}, {"tools": {}}, {"tools": "f"}, {"tools": [5]}, {"tools": [{}]}, {"tools": [{"type": "function"}]},
    {"tools": [{"type": "browser", "function": {"name": "f"}}]}, {"tools": [{"type": "function", "function": {}}]},
    tool({}, name=""), tool({}, name="a b"), tool({}, name="x" * 65), tool({}, name=5), tool({}, name="\x00"),
    tool("x"), tool(5), tool([]), tool({"type": 123}), tool(inside({"pattern": "("})),
    tool(inside({"type": "nonsense"})),
    tool(inside({"$ref": "#/no"})), tool({}) | {"tool_choice": "sometimes"}, tool({}) | {"tool_choice": 5},
    tool({}) | {"tool_choice": {"type": "function", "function": {"name": "g"}}}, {"tool_choice": "required"},
    tool({}) | {"tool_choice": {}}, tool({}) | {"parallel_tool_calls": "yes"},
]  # fmt: skip
BAD_OTHERS: list[dict[str, Any]] = [
    {"response_format": {"type": "json_schema"}}, {"response_format": {"type": "nonsense"}}, {"response_format": 5},
    {"response_format": {}}, {"response_format": {"type": "json_schema", "json_schema": {}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
    own(choice=[]), own(choice="a"), own(choice=[5]), own(choice=[None]), own(json="{"), own(json=5),
    own(json="\ud800"), own(grammar=""), own(grammar="x"), own(grammar='root ::= "a'),
    own(grammar="root ::= root"), own(grammar="root ::= missing"), own(regex="a", choice=["a"]), own(nothing=1),
    own(structural_tag="{"), own(structural_tag={}), own(structural_tag={"type": "x"}), {"structured_outputs": 5},
    {"guided_json": {"type": "object"}}, {"guided_regex": "a"}, {"guided_choice": ["a"]}, {"guided_grammar": "x"},
]  # fmt: skip
BAD = [
    *map(schema, BAD_SCHEMAS),
    *(schema(inside(value)) for value in BAD_SCHEMAS),
    *(own(regex=pattern) for pattern in BAD_REGEXES),
    *BAD_TOOLS,
    *BAD_OTHERS,
]


def test_bad_constraints_are_refused_before_anything_is_scheduled(target: LiveServer):
    """CVE-2025-48942, 48943, 48944: each of these, or one like it, has ended somebody's engine."""
    assert len(BAD) >= 150
    with survives(target):
        steps = target.metric("iteration_tokens_total_count")
        accepted = []
        for body in BAD:
            response = ask(target, body)
            if response.status_code == 200:
                accepted.append(body)
                continue
            assert response.status_code == 400, (body, response.text)
            assert len(response.content) <= 8000 and response.json()["error"]["message"], body
        assert not accepted, accepted
        assert target.metric("iteration_tokens_total_count") == steps, "a refused request has reached the engine"


def nested(depth: int) -> str:
    """As text: json.dumps has a depth of its own."""
    return '{"type":"array","items":' * depth + "{}" + "}" * depth


def deep_and_wide() -> Iterator[tuple[str, bytes]]:
    """Names and bodies."""
    start = b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":2,"structured_outputs":{"json":'
    for depth in (65, 1000, 100_000):
        yield f"nesting {depth}", start + nested(depth).encode() + b"}}"

    def body(constraint: dict[str, Any]) -> bytes:
        return json.dumps(CHAT | constraint).encode()

    yield "wide enum", body(own(json={"enum": [f"value {number}" for number in range(10_000)]}))
    yield "wide choice", body(own(choice=[f"value {number}" for number in range(10_000)]))
    yield "long array", body(own(json={"type": "array", "items": {"type": "integer"}, "maxItems": 10**6}))
    yield (
        "long array of long arrays",
        body(own(json={"type": "array", "maxItems": 10**4, "items": {"type": "array", "maxItems": 10**4}})),
    )
    yield "long string", body(own(json={"type": "string", "minLength": 10**6, "maxLength": 10**6}))
    yield "many properties", body(own(json=inside({"properties": {f"p{n}": {"type": "string"} for n in range(2000)}})))
    definitions = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    doubling = {"$defs": definitions | {"d30": {"type": "string"}}, "$ref": "#/$defs/d0"}
    yield "a tree of two to the thirtieth", body(own(json=doubling))
    product = {"allOf": [{"anyOf": [{"minLength": a}, {"pattern": f"{a}"}]} for a in range(24)], "type": "string"}
    yield "a product of alternatives", body(own(json=product))
    for pattern in ("a{1,100000}", "(a+)+$", "(a|a)*b", "(.*){1,1000}", "((a{1,50}){1,50}){1,50}", "(a?){5000}a{5000}",
                    "a" * 50_000, "(" * 5000 + "a" + ")" * 5000, "|".join("ab" for _ in range(20_000)),
                    "[ab]*a[ab]{25}"):  # fmt: skip
        yield f"pattern {pattern[:20]}", body(own(regex=pattern))
        yield f"schema pattern {pattern[:20]}", body(own(json={"type": "string", "pattern": pattern}))
    yield "left recursion", body(own(grammar='root ::= root "a" | "a"'))
    yield "deep groups", body(own(grammar="root ::= " + "(" * 5000 + '"a"' + ")" * 5000))
    yield "many rules", body(own(grammar='root ::= r0\n' + "\n".join(f'r{n} ::= "a" | r{n + 1}' for n in range(3000)) +
                                 '\nr3000 ::= "b"'))  # fmt: skip
    yield "ambiguity", body(own(grammar='root ::= root root | "a"'))


def test_deep_and_wide_constraints_are_refused_or_compiled_while_others_are_served(target: LiveServer):
    """Recursion (CVE-2025-57809), explosion, catastrophic patterns: all at once, and nobody else is kept waiting."""
    headers = {"Content-Type": "application/json"}
    cases = list(deep_and_wide())
    for _, body in cases:  # what is learnt once and kept is no leak
        target.post("/v1/chat/completions", content=body, headers=headers)
    with survives(target), ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(target.post, "/v1/chat/completions", content=body, headers=headers) for _, body in cases]
        served = 0
        while not all(answer.done() for answer in answers):
            assert target.complete()["usage"]["completion_tokens"] == 4
            assert target.http.get("/health").status_code == 200
            served += 1
        assert served > 1
        for (name, _), answer in zip(cases, answers, strict=True):
            response = answer.result()
            assert response.status_code in (200, 400), (name, response.text[:300])
            assert len(response.content) <= 8000, name
            if name in ("nesting 1000", "nesting 100000", "a product of alternatives"):
                assert response.status_code == 400, name


def test_many_different_schemas_stay_within_the_cache(target: LiveServer):
    """xgrammar's CVE-2025-32381: one schema after another filled the memory of a server that kept them all."""
    grammars = target.engine.core.admission.grammars

    def kept() -> int:
        return sum(grammar.nbytes() for grammar in grammars._recent.values())

    def schemas(first: int, last: int) -> None:
        for number in range(first, last):
            names = {f"property_{number}_{index}": {"type": "string"} for index in range(12)}
            assert ask(target, schema({"type": "object", "properties": names})).status_code == 200

    schemas(0, 60)
    with survives(target):
        schemas(60, 160)
        wait_until(target.idle)
        assert ask(target, own(choice=["a", "b"])).status_code == 200  # the bound is kept when one more comes
        assert kept() <= CACHE_MIB * 2**20 and len(grammars._recent) < 160


@contextmanager
def files_written() -> Iterator[list[str]]:
    """Paths that this process opens for writing inside the block."""
    written: list[str] = []
    active = [True]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, (str, bytes, os.PathLike)):
                written.append(f"{os.fsdecode(path)} {mode}")

    sys.addaudithook(watch)  # it cannot be taken away, only told to look no more
    try:
        yield written
    finally:
        active.clear()


def test_clients_leave_no_file_behind(target: LiveServer):
    """CVE-2025-29770: a cache on disk, filled by whoever sends schemas."""
    with survives(target), files_written() as written:
        for body in BAD[:40]:
            ask(target, body)
        for number in range(20):
            assert ask(target, own(regex=f"[a-z]{{{number + 1}}}x{number}")).status_code == 200
        for _, body in list(deep_and_wide())[:6]:
            target.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert not written, written


OUTPUTS = [
    "[f(a=[" * 10_000,
    "[f(a=" * 10_000 + ")]" * 10_000,
    '<tool_call>{"name": "f", "arguments": {"a": [' * 2000,
    '<tool_call>{"name": "f", "arguments": ' + "[" * 50_000,
    '<tool_call>{"name": "' + "\\" * 50_000,
    "<tool_call>" * 5000,
    "<tool_call" * 5000,
    "<" * 50_000,
    '{"name": "f", "parameters": ' * 2000,
    "[{" * 25_000,
    '[{"name": "f", "parameters": {"a": "' + "\\u00" * 12_000,
    '"' * 50_000,
    " " * 50_000,
]  # fmt: skip


@pytest.mark.parametrize("form", ["hermes", "json"])
@pytest.mark.parametrize("number", range(len(OUTPUTS)))
def test_parsers_of_tool_calls_take_time_in_proportion(form: str, number: int):
    """CVE-2025-48887 (ReDoS): what a model writes is read in one go. Counted in calls of functions, not in seconds."""
    text = OUTPUTS[number]

    def calls(length: int, step: int) -> int:
        count = [0]

        def profile(frame: Any, event: str, argument: Any) -> None:
            count[0] += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            stream = ToolStream(form)
            for start in range(0, length, step):
                stream.push(text[start : min(start + step, length)], last=start + step >= length)
        finally:
            sys.setprofile(None)
        return count[0]

    assert calls(len(text), 200) <= 25 * max(1000, calls(len(text) // 10, 200))
    parse_tool_calls(text, form)
