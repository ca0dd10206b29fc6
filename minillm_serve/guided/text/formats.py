"""The formats of JSON Schema (draft 2020-12, section 7.3) as automata, from regular expressions that follow the RFCs.

Two languages for each: what is surely of the format (a part of it where the whole is no regular language or nobody
writes the rest; each pattern says what is left out), and what surely is not.
"""

from __future__ import annotations

import hashlib
import sys
from functools import lru_cache

import numpy as np

from minillm_serve.guided.automaton import stored
from minillm_serve.guided.budget import Budget, budget
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_algebra import complement
from minillm_serve.guided.text.chars_reduce import NOTHING, reduced
from minillm_serve.guided.text.format_patterns import ACCEPTED, MAX_LENGTHS, POSSIBLE
from minillm_serve.guided.text.regex import SIDES, compile_pattern

FORMATS = tuple(ACCEPTED)
STORED = frozenset(ACCEPTED) - {
    "time",
    "duration",
    "ipv4",
    "uuid",
    "uri-template",
    "json-pointer",
    "relative-json-pointer",
}
PARTS = ("bounds", "classes", "rows", "tags")
MINIMISE_WORK = 10_000_000  # cells looked at to merge states, once for all


@lru_cache(maxsize=64)
def format_dfa(name: str, side: str = "accept") -> CharDfa | None:
    """The strings that are of the format ``name`` (side ``reject``: that are not), None if the name is not known.

    An unknown format asserts nothing. Two formats also bound the length of a string, see :func:`format_max_length`.
    Sources: RFC 3339 (date, time, date-time without leap seconds, duration), RFC 5321 (email: dot-atoms and a domain
    name), RFC 1123 (hostname), RFC 5891 (idn-hostname: letters of a few scripts, short labels), RFC 2673 (ipv4),
    RFC 4291 (ipv6), RFC 3986 and 3987 (URIs and IRIs), RFC 6570 (uri-template), RFC 4122 (uuid), RFC 6901
    (json-pointer and its relative form), ECMA 262 (regex: a plain part of it, groups three deep).
    """
    if side not in SIDES:
        raise ValueError(f"side is one of {', '.join(SIDES)}, not {side!r}")
    if name not in ACCEPTED:
        return None
    if side == "accept":
        return _accepted(name)
    if name not in POSSIBLE:
        return NOTHING
    return complement(compile_pattern(POSSIBLE[name], keyword="format", anchored=True))


def _accepted(name: str) -> CharDfa:
    pattern = ACCEPTED[name]()
    if name not in STORED:
        return compile_pattern(pattern, keyword="format", anchored=True)
    key = f"{name}-{hashlib.sha256(pattern.encode()).hexdigest()[:16]}"
    arrays = stored.load("format", key)
    if arrays is None or not arrays.keys() >= set(PARTS):
        with budget(Budget(steps=sys.maxsize, seconds=60.0)):  # not the request's: this is done once for all of them
            built = compile_pattern(pattern, keyword="format", anchored=True)
        built = reduced(built.bounds, built.classes, built.rows, built.tags, work=MINIMISE_WORK)
        stored.save("format", key, {part: np.array(getattr(built, part), dtype=np.int32) for part in PARTS})
        return built
    rows = tuple(map(tuple, arrays["rows"].tolist()))
    return CharDfa(*(rows if part == "rows" else tuple(arrays[part].tolist()) for part in PARTS))


def format_max_length(name: str) -> int | None:
    """Code points that a string of this format has at most, where its automaton does not count them."""
    return MAX_LENGTHS.get(name)
