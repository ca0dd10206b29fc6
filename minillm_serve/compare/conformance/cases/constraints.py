"""Constrained answers: response_format, structured_outputs, and what is refused."""

from __future__ import annotations

from typing import Any

from minillm_serve.compare.conformance.case import Case
from minillm_serve.compare.conformance.cases.making import chat, completion, streamed

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "London"]}, "capital": {"type": "boolean"}},
    "required": ["city", "capital"],
    "additionalProperties": False,
}
COUNT = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["n"],
         "additionalProperties": False}  # fmt: skip
# Then both allow the same texts, so that tokens can be compared.
COMPACT = {"disable_any_whitespace": True}
ASK = "Name the capital of France as JSON."
GRAMMAR = 'root ::= "yes" | "no" | "perhaps"'

KINDS: dict[str, dict[str, Any]] = {
    "format-text": {"response_format": {"type": "text"}},
    "format-json-object": {"response_format": {"type": "json_object"}},
    "format-json-schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}},
    "format-json-schema-strict": {"response_format": {"type": "json_schema", "json_schema": {
        "name": "city", "schema": CITY, "strict": True, "description": "a city"}}},
    "json": {"structured_outputs": {"json": CITY, **COMPACT}},
    "json-count": {"structured_outputs": {"json": COUNT, **COMPACT}},
    "json-usual-whitespace": {"structured_outputs": {"json": CITY}},
    "json-text": {"structured_outputs": {"json": '{"type": "integer", "minimum": 1, "maximum": 9}'}},
    "json-object": {"structured_outputs": {"json_object": True, **COMPACT}},
    "json-array": {"structured_outputs": {"json": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2,
                                                   "maxItems": 2}, **COMPACT}},
    "regex": {"structured_outputs": {"regex": r"(Paris|London), [0-9]{2}"}},
    "regex-one-way": {"structured_outputs": {"regex": "Paris"}},
    "regex-classes": {"structured_outputs": {"regex": r"\d{3}-[a-c]+\."}},
    "choice": {"structured_outputs": {"choice": ["London", "Paris", "Rome"]}},
    "choice-prefix": {"structured_outputs": {"choice": ["a", "ab", "abc"]}},
    "choice-unicode": {"structured_outputs": {"choice": ["sí", "no", "quizás"]}},
    "grammar": {"structured_outputs": {"grammar": GRAMMAR}},
    "grammar-recursive": {"structured_outputs": {
        "grammar": 'root ::= expr\nexpr ::= term | term " + " expr\nterm ::= [0-9]'}},
}  # fmt: skip
REFUSED: dict[str, dict[str, Any]] = {
    "format-without-type": {"response_format": {}},
    "format-of-an-unknown-type": {"response_format": {"type": "yaml"}},
    "format-is-a-string": {"response_format": "json"},
    "format-json-schema-without-schema": {"response_format": {"type": "json_schema"}},
    "format-json-schema-null": {"response_format": {"type": "json_schema", "json_schema": None}},
    "format-json-schema-without-name": {"response_format": {"type": "json_schema", "json_schema": {"schema": CITY}}},
    "format-json-schema-empty": {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
    "two-kinds": {"structured_outputs": {"json": CITY, "regex": "a"}},
    "no-kind": {"structured_outputs": {}},
    "is-a-string": {"structured_outputs": "json"},
    "regex-broken": {"structured_outputs": {"regex": "(a"}},
    "regex-is-a-number": {"structured_outputs": {"regex": 3}},
    "choice-empty": {"structured_outputs": {"choice": []}},
    "choice-is-a-string": {"structured_outputs": {"choice": "a"}},
    "choice-of-numbers": {"structured_outputs": {"choice": [1, 2]}},
    "json-broken": {"structured_outputs": {"json": "{"}},
    "json-is-a-number": {"structured_outputs": {"json": 5}},
    "json-unknown-type": {"structured_outputs": {"json": {"type": "colour"}}},
    "grammar-broken": {"structured_outputs": {"grammar": "root ::= ("}},
    "grammar-without-root": {"structured_outputs": {"grammar": "a ::= b"}},
    "json-object-false": {"structured_outputs": {"json_object": False}},
    "unknown-key": {"structured_outputs": {"regexp": "a"}},
    "structural-tag-broken": {"structured_outputs": {"structural_tag": "{}"}},
}
LEGACY: dict[str, dict[str, Any]] = {
    "guided-json": {"guided_json": CITY},
    "guided-regex": {"guided_regex": "[0-9]+"},
    "guided-choice": {"guided_choice": ["a", "b"]},
}


def cases() -> list[Case]:
    """Both endpoints; the sound ones as streams too."""
    sound = []
    for name, fields in KINDS.items():
        free = name.startswith("format-json") or name.endswith("whitespace")
        alike = "as JSON" if free else "exactly"
        sound += [chat(f"constraint-{name}", ASK, max_tokens=32, alike=alike, **fields)]
        sound += [completion(f"constraint-{name}", f"{ASK}\n", max_tokens=32, alike=alike, **fields)]
    sound += [
        chat("constraint-cut-short", ASK, max_tokens=4, **KINDS["json"]),
        completion("constraint-with-stop", ASK, max_tokens=32, stop=["Paris"], **KINDS["json"]),
        completion("constraint-ignoring-eos", ASK, max_tokens=6, ignore_eos=True, **KINDS["regex-one-way"]),
        completion("constraint-token-ids", ASK, max_tokens=32, return_token_ids=True, **KINDS["choice"]),
        completion("constraint-several-prompts", [ASK, "A city:"], max_tokens=16, **KINDS["choice"]),
    ]
    refused = []
    for name, fields in (REFUSED | LEGACY).items():
        refused += [chat(f"constraint-refused-{name}", **fields), completion(f"constraint-refused-{name}", **fields)]
    return [*sound, *streamed(sound), *refused]
