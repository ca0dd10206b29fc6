"""The trusted side of J0, part by part: strict judge, language, documents, vocabularies and the guided_json trap."""

from __future__ import annotations

import json
from itertools import product
from random import Random
from typing import Any

import pytest

from minilab.pruebas.casos import play_case
from minilab.pruebas.hostil import COLOUR, NAMES, MaskTask, public_cases
from minilab.pruebas.json_estricto import fault
from minilab_grading.casos.esquemas import FAMILIES, document
from minilab_grading.casos.lenguaje_json import Language, TrustedMask, published
from minilab_grading.casos.mascara import CUTS, make_task, trap_case

PERSON = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "s": {"type": "string", "maxLength": 2}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "schema", "reason"),
    [
        ('{"n":1}', PERSON, None),
        ('\n {"s": "ñ🙂",\t"n": 99} ', PERSON, None),
        ('{"n":1e1}', PERSON, None),
        ('{"n":1.0}', PERSON, None),
        ('{"n":1.5}', PERSON, "otro tipo"),
        ('{"n":true}', PERSON, "otro tipo"),
        ('{"n":"1"}', PERSON, "otro tipo"),
        ('{"n":100}', PERSON, "demasiado grande"),
        ('{"n":-1}', PERSON, "demasiado pequeño"),
        ('{"n":1,"s":"abc"}', PERSON, "demasiado larga"),
        ('{"s":"a"}', PERSON, "falta una propiedad"),
        ('{"n":1,"x":1}', PERSON, "sobra una propiedad"),
        ('{"n":1,"n":1}', PERSON, "repetida"),
        ('{"n":NaN}', PERSON, "NaN no es JSON"),
        ('{"n":-Infinity}', PERSON, "-Infinity no es JSON"),
        ('{"n":1}}', PERSON, "sobra texto"),
        ('{"n":1} {"n":1}', PERSON, "sobra texto"),
        ('{"n":1,}', PERSON, "no es JSON"),
        ("{'n':1}", PERSON, "no es JSON"),
        ('{"n":01}', PERSON, "no es JSON"),
        ('{"n":1', PERSON, "no es JSON"),
        ("", PERSON, "no es JSON"),
        ('\ufeff{"n":1}', PERSON, "no es JSON"),
        ('```json\n{"n":1}\n```', PERSON, "no es JSON"),
        ('{"n":1,"s":"\n"}', PERSON, "no es JSON"),
        ('{"n":1,"s":"\\x"}', PERSON, "no es JSON"),
        ('{"n":' + "9" * 5000 + "}", PERSON, "demasiado grande"),
        ("[" * 100_000, PERSON, "anidamiento"),
        ("[" * 900 + "]" * 900, PERSON, ""),
        ("1", {"enum": [True, "a"]}, "enum"),
        ("true", {"enum": [1, "a"]}, "enum"),
        ("0", {"const": False}, "const"),
        ("null", {"enum": [None]}, None),
        ('"a\\"b"', {"enum": ['a"b']}, None),
        ('"\\u00f1"', {"const": "ñ"}, None),
        ('""', {"anyOf": [{"type": "null"}, {"type": "string", "minLength": 1}]}, ""),
        ("[]", {"type": "array", "minItems": 1}, "de menos"),
        ("[1,1]", {"type": "array", "maxItems": 1}, "de más"),
        ('{"a":2}', {"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"a": {"const": 1}}}}}, "const"),
    ],
)
def test_strict_judge(text, schema, reason):
    found = fault(text, schema)
    assert (found is None) == (reason is None)
    assert reason is None or reason in found


ALPHABET = 'a1,:{}[]"\\\n09truefalsn'
LETTERS = [c for c in dict.fromkeys(ALPHABET) if c >= " " and c not in '"\\']


def every_value(schema: dict[str, Any], definitions: dict[str, Any]) -> list[Any]:
    """All values of a small schema, by plain enumeration."""
    if "$ref" in schema:
        return every_value(definitions[schema["$ref"].split("/")[-1]], definitions)
    if "anyOf" in schema:
        return [v for s in schema["anyOf"] for v in every_value(s, definitions)]
    if "const" in schema or "enum" in schema:
        return schema.get("enum", [schema.get("const")])
    if schema["type"] == "string":
        sizes = range(schema.get("minLength", 0), schema["maxLength"] + 1)
        return ["".join(t) for n in sizes for t in product(LETTERS, repeat=n)]
    if schema["type"] == "array":
        items = every_value(schema["items"], definitions)
        sizes = range(schema.get("minItems", 0), schema["maxItems"] + 1)
        return [list(t) for n in sizes for t in product(items, repeat=n)]
    if schema["type"] == "object":
        absent = object()
        ways = [
            [*every_value(s, definitions), *([] if name in schema.get("required", []) else [absent])]
            for name, s in schema["properties"].items()
        ]
        names = list(schema["properties"])
        return [{n: v for n, v in zip(names, t, strict=True) if v is not absent} for t in product(*ways)]
    return {"boolean": [True, False], "null": [None], "integer": list(range(schema.get("maximum", 0) + 1))}[
        schema["type"]
    ]


BOOL, DIGIT = {"type": "boolean"}, {"type": "integer", "minimum": 0, "maximum": 9}
SMALL: dict[str, dict[str, Any]] = {
    "string": {"type": "string", "maxLength": 2},
    "string with minimum": {"type": "string", "minLength": 2, "maxLength": 2},
    "empty string": {"type": "string", "maxLength": 0},
    "integer": {"type": "integer", "minimum": 0, "maximum": 999},
    "enum with prefixes and escapes": {"enum": ["a", "al", 'a"', "a\\", "a\n", 1, 10, None, True, [1, "a"], {"a": 1}]},
    "const": {"const": "l,l"},
    "array": {"type": "array", "items": BOOL, "maxItems": 3},
    "array of one size": {"type": "array", "items": DIGIT, "minItems": 2, "maxItems": 2},
    "empty array": {"type": "array", "items": DIGIT, "maxItems": 0},
    "array of arrays": {"type": "array", "items": {"type": "array", "items": BOOL, "maxItems": 1}, "maxItems": 2},
    "all optional": {"type": "object", "properties": {"a": BOOL, "l": DIGIT, "s": {"type": "null"}}},
    "middle required": {"type": "object", "properties": {"a": BOOL, "l": BOOL, "s": BOOL}, "required": ["l"]},
    "ends required": {"type": "object", "properties": {"a": BOOL, "l": BOOL, "s": BOOL}, "required": ["a", "s"]},
    "no property": {"type": "object", "properties": {}},
    "overlap": {"anyOf": [{"type": "string", "maxLength": 1}, {"enum": ["at", "a"]}, DIGIT, {"const": 10}]},
    "references": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/x"}, "l": {"$ref": "#/$defs/x"}},
        "required": ["l"],
        "$defs": {"x": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/y"}]}, "y": {"const": "t"}},
    },
}


@pytest.mark.parametrize("name", SMALL)
def test_language_equals_enumeration(name):
    schema = SMALL[name]
    texts = {published(v) for v in every_value(schema, schema.get("$defs", {}))}
    prefixes = {t[:n] for t in texts for n in range(len(t) + 1)}
    language = Language(schema)
    for prefix in prefixes:
        state = language.advance(language.start, prefix)
        assert language.complete(state) == (prefix in texts)
        for character in ALPHABET:
            assert bool(language.advance(state, character)) == (prefix + character in prefixes)
    assert language.longest() == max(map(len, texts))


@pytest.mark.parametrize("seed", range(10))
def test_drawn_documents_are_right_and_can_be_written(seed):
    for family in FAMILIES:
        for shape, size in product(range(3), ("largo", "corto", "azar")):
            rng = Random(f"{seed} {family.name} {shape}")
            task, exact = make_task(family, shape, rng)
            text = document(task.schema, family, rng, size)
            assert fault(text, task.schema) is None
            assert len(text) <= task.longest
            assert task.end in exact(text)
            assert size != "largo" or "anyOf" in str(task.schema) or len(text) == task.longest
            for cut in CUTS.values():
                assert "".join(task.vocabulary[t] for t in cut(text, task.vocabulary, rng)) == text


@pytest.mark.parametrize("seed", range(10))
def test_vocabularies_have_one_end_and_no_repeats(seed):
    for family in FAMILIES:
        task, _ = make_task(family, seed, Random(seed))
        assert 150 <= len(task.vocabulary) <= 300
        assert len(set(task.vocabulary)) == len(task.vocabulary)
        assert [i for i, t in enumerate(task.vocabulary) if not t] == [task.end]


def test_trusted_mask_is_empty_where_no_document_goes_on():
    mask = TrustedMask(Language(COLOUR), ("{", "}", ""), 2)
    assert mask("") == {0}
    assert mask("}") == set()
    assert mask('{"color":"azul"}') == {2}


def test_public_bounds_are_those_of_the_language():
    tasks = [cell.cell_contents for c in public_cases() for f in [c.play] for cell in f.__closure__]
    bounds = {str(t.schema): t.longest for t in tasks if isinstance(t, MaskTask)}
    assert bounds == {str(s): Language(s).longest() for s in (COLOUR, NAMES)}


class Client:
    """A namespace with ``cuerpo_json`` alone."""

    def __init__(self, make: Any):
        self._make = make

    def function(self, name: str, *args: Any) -> Any:
        assert name == "cuerpo_json"
        return json.loads(json.dumps(self._make(*args)))


def body(prompt: str, limit: int = 512, **rest: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], "max_tokens": limit, **rest}


def by_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


BODIES = {
    "response_format": (lambda q, s: body(q, response_format=by_format(s)), None),
    "structured_outputs": (lambda q, s: body(q, extra_body={"structured_outputs": {"json": s}}), None),
    "guided_json": (lambda q, s: body(q, extra_body={"guided_json": s}), "HTTP 200"),
    "guided_json at the top": (lambda q, s: body(q, guided_json=s), "HTTP 200"),
    "json_object": (lambda q, s: body(q, response_format={"type": "json_object"}), "HTTP 200"),
    "format without a name": (lambda q, s: body(q, response_format={"type": "json_schema", "json_schema": {}}), "200"),
    "one fixed schema": (lambda q, s: body(q, response_format=by_format(PERSON)), "HTTP 200"),
    "only words": (lambda q, s: body(q), "HTTP 200"),
    "another question": (lambda q, s: body("hola", response_format=by_format(s)), "pregunta"),
    "too short": (lambda q, s: body(q, 8, response_format=by_format(s)), "max_tokens"),
    "no dictionary": (lambda q, s: [q], "diccionario"),
    "junk inside": (lambda q, s: body(q, response_format=3, extra_body=[1]), "HTTP 200"),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("seed", range(3))
def test_trap(name, seed):
    make, complaint = BODIES[name]
    result = play_case(trap_case(seed), Client(make))
    assert result.passed == (complaint is None)
    assert complaint is None or complaint in result.expected
