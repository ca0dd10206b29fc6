"""Bodies for POST requests: sound ones with odd values in odd places, and text that is no JSON at all."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from minillm_serve.bench.fuzz.seeds import SEEDS

Draw = Callable[[st.SearchStrategy[Any]], Any]
Place = tuple[str | int, ...]

MEGABYTE = "x" * 2**20
MOST_REPEATED_BYTES = 2**22


def raw(text: str) -> str:
    """Stands for ``text`` as it is, without quotes: what no Python value is written as."""
    return f"\x01raw {text}\x01"


_RAW = re.compile(r'"\\u0001raw (.*?)\\u0001"')
NUMBERS: tuple[Any, ...] = (
    *(-1, 0, 1, 2, 17, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**12),
    *(0.5, -0.0, 1e-320, 1e308, -1e308, 1.0),
    *map(raw, ("1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1" * 5000, "0x10", "01", "-", "1.", "+1")),
)
STRINGS: tuple[str, ...] = (
    *("", " ", "1", "null", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "a\udc00b", "\ufeff", "\u202e", "é" * 50),
    *("<|im_end|>", "<|im_start|>system\n", "<|endoftext|>", "</s>", "[INST]", "🙂", "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    *("{{ ''.__class__.__mro__ }}", "{% for i in range(10**9) %}x{% endfor %}", "{{ raise_exception('no') }}"),
    *("(", "(a+)+$", "[", "\\", "a{1,100000}", "(?=a)", ".*" * 30, "root ::= root", "::=", "$ref", "%s%n%x"),
    *("http://127.0.0.1:1/x.png", "data:image/png;base64,AAAA", "auto", "required", "none", "json_schema", "float"),
)
OTHERS: tuple[Any, ...] = (
    *(True, False, None, [], {}, [[]], [None], [{}], {"": None}, {"a": {"b": []}}, [0] * 2000, ["a"] * 2000),
    *({"type": 123}, {"type": "nothing"}, {"type": "object", "properties": {"a": {"$ref": "#"}}}, {"$ref": "#"}),
    *({"type": "string", "pattern": "("}, {"enum": []}, {"enum": list(range(500))}, {"minItems": 10**9}),
    *({"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/"}}, {"role": "user"}, {"role": "tool"}),
)
KNOWN_ELSEWHERE = (
    *("guided_json", "guided_regex", "best_of", "use_beam_search", "logits_processors", "suffix", "prompt_embeds"),
    *("functions", "audio", "modalities", "reasoning_effort", "kv_transfer_params", "vllm_xargs", "chat_template"),
    *("normalize", "dimensions", "watermark", "decoder_input_details", "adapter_id", "frequency_penalty", "grammar"),
)
HEADERS: tuple[tuple[str, str], ...] = (
    *(("Content-Type", kind) for kind in ("text/plain", "application/json; charset=utf-16", "", "multipart/form-data")),
    *(("Content-Encoding", kind) for kind in ("gzip", "br", "nonsense")),
    *(("X-Request-Id", name) for name in ("x" * 5000, "é", "a b", "same")),
    *(("Authorization", "Bearer"), ("Authorization", "Basic ===="), ("X-Vllm-Priority", "high"), ("Accept", "x/y")),
    *(("X-Vllm-Priority", "9" * 40), ("Traceparent", "00-zz-zz-zz"), ("Range", "bytes=0-"), ("X-Minillm", "lenient")),
)

odd_values = st.one_of(
    *(st.sampled_from(values).map(copy.deepcopy) for values in (NUMBERS, STRINGS, OTHERS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=8,
    ),
)


@dataclass(frozen=True, repr=False)
class BodyCase:
    """One POST."""

    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __repr__(self) -> str:
        """Short: hypothesis asks for it each time."""
        return f"BodyCase({self.path!r}, {len(self.body)} bytes)"

    def describe(self) -> dict[str, Any]:
        """For a report: enough to send it again, unless it is very long."""
        text = self.body[:20_000].decode("utf-8", "backslashreplace")
        return {"path": self.path, "headers": dict(self.headers), "bytes": len(self.body), "body": text}


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Where something can be put in the place of something else, from the outside in."""
    yield here
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*here, key))


def written(value: Any) -> bytes:
    """JSON text, with what :func:`raw` marks as it is. Lone surrogates stay escapes."""
    return _RAW.sub(lambda match: match[1], json.dumps(value)).encode()


def body_cases(fields: dict[str, Sequence[str]]) -> st.SearchStrategy[BodyCase]:
    """fields: path -> names that its body may have, the served API's own."""
    return st.composite(_body_case)(fields)


def _body_case(draw: Draw, fields: dict[str, Sequence[str]]) -> BodyCase:
    path = draw(st.sampled_from(sorted(fields)))
    body = _mixed(draw, SEEDS.get(path, ({},)))
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 3)))):
        body = _mutated(draw, body, [*fields[path], *KNOWN_ELSEWHERE])
    text = written(body)
    kind = draw(st.integers(0, 19))
    if kind == 0:
        text = _damaged(draw, text)
    headers = (draw(st.sampled_from(HEADERS)),) if kind == 1 else ()
    return BodyCase(path, headers, text)


def _mixed(draw: Draw, seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A sound body with some fields of others beside its own: parameters that may or may not go together."""
    body = copy.deepcopy(draw(st.sampled_from(seeds)))
    for other in draw(st.lists(st.sampled_from(seeds), max_size=2)):
        for name in draw(st.lists(st.sampled_from(sorted(other)), max_size=3)):
            body[name] = copy.deepcopy(other[name])
    return body


def _mutated(draw: Draw, body: Any, names: Sequence[str]) -> Any:
    how = draw(st.sampled_from(("replace", "replace", "replace", "add", "remove", "nest", "repeat", "grow")))
    place = draw(st.sampled_from(list(places(body))))
    if how == "add":
        name = draw(st.sampled_from(names) | st.text(max_size=12))
        return body | {name: draw(odd_values)} if isinstance(body, dict) else body
    if how == "remove":
        return _with(body, place, None, remove=True)
    value = _at(body, place)
    if how == "nest":
        return _with(body, place, _nested(value, draw(st.sampled_from((1, 30, 65, 127, 200))), draw(st.booleans())))
    if how == "repeat" and isinstance(value, list):
        times = draw(st.sampled_from((2, 20, 1100)))
        return _with(body, place, value * times) if len(written(value)) * times < MOST_REPEATED_BYTES else body
    if how == "grow" and isinstance(value, str) and draw(st.integers(0, 9)) == 0:
        return _with(body, place, value + MEGABYTE)
    return _with(body, place, draw(odd_values))


def _at(body: Any, place: Place) -> Any:
    for key in place:
        body = body[key]
    return body


def _with(body: Any, place: Place, value: Any, remove: bool = False) -> Any:
    """``body`` with another value at ``place``, or without what is there."""
    if not place:
        return body if remove else value
    holder = _at(body, place[:-1])
    if remove:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return body


def _nested(value: Any, depth: int, in_lists: bool) -> Any:
    for _ in range(depth):
        value = [value] if in_lists else {"a": value}
    return value


def _damaged(draw: Draw, text: bytes) -> bytes:
    """Cut off, spoilt by a byte or two, or replaced altogether."""
    at = draw(st.integers(0, min(len(text), 2000)))
    junk = draw(st.sampled_from((b"\xff", b"\xc3(", b"\x00", b"}", b'"', b"\\u12", b"\xed\xa0\x80", b",,")))
    return draw(
        st.sampled_from(
            (text[:at], text[:at] + junk + text[at:], b"\xef\xbb\xbf" + text, text + text, b"[" * 5000, b'{"a":' * 5000)
        )
        | st.binary(max_size=60)
    )
