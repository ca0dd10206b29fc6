"""What differs between two answers to one case, each difference with its path."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minillm_serve.compare.conformance.case import Answer, Case
from minillm_serve.compare.conformance.reading import read

LOGPROB_TOLERANCE = 2e-3
VECTOR_TOLERANCE = 1e-4
ABSENT = "(absent)"
# Of these only the type must agree: they name one server's moment, or quote its words.
VOLATILE = re.compile(
    r"""(^|\.)(
        (id|created|system_fingerprint|owned_by|root|permission|version)
        | error\.message
        | metrics\.[a-z_]+
        | prompt_tokens_details\.created_cache_tokens
    )$""",
    re.VERBOSE,
)
MOMENTARY = re.compile(r"^stream\.chunks\.\w+\.(choice\.)?(prompt_token_ids|token_ids|logprobs|delta\.content)(\.|$)")
CHUNKS = re.compile(r"^stream\.chunks\.")
CACHED = re.compile(r"prompt_tokens_details\.cached_tokens$")
LOGPROB = re.compile(r"logprob")
PACKED_VECTOR = re.compile(r"\.embedding$")
VECTOR = re.compile(r"\.embedding\.\d+$|relevance_score$|\.score$")
COUNTS = re.compile(r"usage\.(completion|total)_tokens$")
SAMPLED = re.compile(r"(^|\.)(text|content|token_ids|arguments)(\.|$)|logprob|stop_reason$")


@dataclass(frozen=True)
class Difference:
    """One thing that differs. path: dotted, list items by number. kind: status, missing, extra, type, length, value."""

    path: str
    kind: str
    theirs: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.path} [{self.kind}] theirs {_short(self.theirs)}, ours {_short(self.ours)}"


def compare(case: Case, theirs: Answer, ours: Answer) -> list[Difference]:
    """Every difference that counts for this case, in the order of the answer."""
    a, b = read(theirs), read(ours)
    if a["status"] != b["status"]:
        # What stands in a refusal is not to be found in an answer: one difference says it all.
        return [Difference("status", "status", a["status"], _status_with_reason(b, ours))]
    return [
        *_request_ids(case, theirs, ours),
        *(found for found in _differences("", a, b) if not _excused(case, found)),
    ]


def _status_with_reason(read_answer: dict[str, Any], answer: Answer) -> Any:
    if answer.status < 400:
        return answer.status
    content = read_answer.get("body")
    error = content.get("error") if isinstance(content, dict) else None
    return f"{answer.status}: {error.get('message') if isinstance(error, dict) else answer.body[:200]}"


def _request_ids(case: Case, theirs: Answer, ours: Answer) -> Iterator[Difference]:
    """An id that the client chose comes back; one made by a server only has to be there."""
    a, b = theirs.request_id, ours.request_id
    if (a is not None and b is None) or (_chosen_id(case) and a is not None and a != b):
        yield Difference("headers.x-request-id", "value", a, b)


def _excused(case: Case, found: Difference) -> bool:
    """Whether the difference lies in what may differ: for every case, or as far as this one says."""
    if found.kind == "value" and CACHED.search(found.path):
        return "/cache/" not in case.name
    if found.kind == "value" and VOLATILE.search(found.path):
        return not found.path.endswith("id") or _same_kind_of_id(case, found)
    if CHUNKS.search(found.path):
        return _matter_of_the_moment(found)
    if found.path == "body.error.type":  # a status's phrase stands where vLLM names no type
        return found.kind == "value" and not found.theirs.endswith("Error")
    if found.path == "body.error.param":
        return _same_field(found.theirs, found.ours)
    if found.kind == "value" and found.path.endswith(".arguments") and _same_json(found):
        return True
    if case.alike == "as JSON":
        return found.kind == "value" and (COUNTS.search(found.path) is not None or _same_json(found))
    if case.alike == "in form" and found.kind in ("value", "length"):
        return SAMPLED.search(found.path) is not None
    if case.alike == "in form" and found.kind in ("missing", "extra"):  # a map by token has other tokens
        return re.search(r"(top_logprobs|prompt_logprobs)\.\d+\.", found.path) is not None
    return False


def _same_kind_of_id(case: Case, found: Difference) -> bool:
    """An id that a server makes up has a prefix that is part of the API; a model's, or one a client chose, is exact."""
    if found.path.startswith("body.data.") or _chosen_id(case):
        return False
    return found.theirs.rpartition("-")[0] == found.ours.rpartition("-")[0]


def _chosen_id(case: Case) -> bool:
    return "x-request-id" in {name.lower() for name, _ in case.headers}


def _matter_of_the_moment(found: Difference) -> bool:
    """Which tokens a chunk happens to carry: what they are is compared where the choice is put together again."""
    if MOMENTARY.search(found.path):
        return found.kind == "type" or found.path.count(".") > 4 or bool(_text_of(found))
    return found.path == "stream.chunks.text" and found.kind in ("missing", "extra")


def _text_of(found: Difference) -> str:
    """The text that one of the two has in a field that the other lacks."""
    values = [value for value in (found.theirs, found.ours) if value != ABSENT]
    return values[0] if found.kind in ("missing", "extra") and isinstance(values[0], str) else ""


def _same_json(found: Difference) -> bool:
    try:
        return json.loads(found.theirs) == json.loads(found.ours)
    except (TypeError, ValueError):
        return False


def _same_field(theirs: str | None, ours: str | None) -> bool:
    """Whether one path leads to the other or past it. vLLM's begin with ``body`` and name the branch of a union too."""
    parts = [part for part in (theirs or "").split(".") if part not in ("", "body") and not part.endswith("Param")]
    if not parts or (len(parts) == 1 and parts[0].isdigit()):  # no field: the body as such, or a place in broken JSON
        return True
    ours_parts = (ours or "").split(".")
    shared = min(len(parts), len(ours_parts))
    return parts[:shared] == ours_parts[:shared]


def _differences(path: str, theirs: Any, ours: Any) -> Iterator[Difference]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            below = f"{path}.{key}" if path else key
            if key not in ours:
                yield Difference(below, "missing", theirs[key], ABSENT)
            elif key not in theirs:
                yield Difference(below, "extra", ABSENT, ours[key])
            else:
                yield from _differences(below, theirs[key], ours[key])
    elif isinstance(theirs, list) and isinstance(ours, list):
        yield from _list_differences(path, theirs, ours)
    else:
        yield from _value_difference(path, theirs, ours)


def _list_differences(path: str, theirs: list[Any], ours: list[Any]) -> Iterator[Difference]:
    if CHUNKS.search(path + "."):
        theirs, ours = theirs[:1], ours[:1]
    if len(theirs) != len(ours):
        yield Difference(path, "length", theirs, ours)
    for index, (a, b) in enumerate(zip(theirs, ours, strict=False)):
        found = list(_differences(f"{path}.{index}", a, b))
        yield from found
        if found and isinstance(a, int | float | str):
            return  # a list of tokens that has parted once says nothing more


def _value_difference(path: str, theirs: Any, ours: Any) -> Iterator[Difference]:
    if _type(theirs) != _type(ours):
        yield Difference(path, "type", theirs, ours)
        return
    if theirs == ours or CHUNKS.search(path):
        return
    if PACKED_VECTOR.search(path) and isinstance(theirs, str):
        yield from _differences(path, _unpacked(theirs), _unpacked(ours))
        return
    tolerance = LOGPROB_TOLERANCE if LOGPROB.search(path) else VECTOR_TOLERANCE if VECTOR.search(path) else None
    if tolerance is None or not isinstance(theirs, int | float) or abs(theirs - ours) > tolerance:
        yield Difference(path, "value", theirs, ours)


def _unpacked(text: str) -> list[float]:
    """A vector that was sent as base64 of little-endian float32."""
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {dict: "object", list: "array", str: "string", type(None): "null"}[type(value)]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."
