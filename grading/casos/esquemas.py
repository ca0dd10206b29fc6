"""Hidden schemas of the published dialect, in seven families, and documents drawn from them.

A kind of value occurs in a family always or never, so that a given mistake fails the same families for every seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from minilab_grading.casos.lenguaje_json import published

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPANISH = "ñáéíóú¿🙂🚀"
Size = Literal["largo", "corto", "azar"]
Schema = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """shapes: each makes a schema from a generator. letters: what its documents put in strings."""

    name: str
    hint: str
    shapes: tuple[Callable[[Random], Schema], ...]
    letters: str = LETTERS + " '/"


def words(rng: Random, count: int, lengths: Sequence[int] = (3, 4)) -> list[str]:
    """Different random words of these lengths; none begins another."""
    found: list[str] = []
    while len(found) < count:
        word = "".join(rng.choice(LETTERS) for _ in range(rng.choice(lengths)))
        if not any(w.startswith(word) or word.startswith(w) for w in found):
            found.append(word)
    return found


def record(properties: dict[str, Schema], required: Sequence[str]) -> Schema:
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, **needed, "additionalProperties": False}


def text(least: int, most: int) -> Schema:
    return {"type": "string", **({"minLength": least} if least else {}), "maxLength": most}


def number(rng: Random, limits: Sequence[int] = (9, 99, 999)) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": rng.choice(limits)}


def _escaped(rng: Random) -> str:
    first, last = words(rng, 2)
    return first + rng.choice(['"', "\\", "\n"]) + last


def _choice(rng: Random) -> Schema:
    (word,) = words(rng, 1)
    values = [word, word + rng.choice(LETTERS), _escaped(rng), rng.randrange(10, 100), None]
    rng.shuffle(values)
    return {"enum": values}


def _choices(rng: Random) -> Schema:
    name, fixed = words(rng, 2)
    constant = rng.choice([rng.randrange(10), True, None, words(rng, 1)[0]])
    return record({name: _choice(rng), fixed: {"const": constant}}, [name, fixed])


def _some_optional(rng: Random) -> Schema:
    names = words(rng, 4)
    kinds = [text(0, 3), number(rng), {"type": "boolean"}, text(1, 3)]
    rng.shuffle(kinds)
    required = set(rng.sample(names, rng.randrange(1, 4)))
    return record(dict(zip(names, kinds, strict=True)), [n for n in names if n in required])


def _all_optional(rng: Random) -> Schema:
    names = words(rng, 3)
    kinds = [text(0, 4), number(rng), {"type": "null"}]
    rng.shuffle(kinds)
    return record(dict(zip(names, kinds, strict=True)), [])


def _three_levels(rng: Random) -> Schema:
    outer, middle, inner, extra = words(rng, 4)
    deepest = record({inner: text(0, 3), extra: number(rng)}, [inner])
    return record({outer: record({middle: deepest}, [middle])}, [outer])


def _two_sides(rng: Random) -> Schema:
    left, right, leaf, other = words(rng, 4)
    side = record({leaf: text(1, 3), other: {"type": "boolean"}}, [leaf])
    return record({left: side, right: record({other: number(rng)}, [])}, [left, right])


def _array(item: Schema, least: int, most: int) -> Schema:
    return {"type": "array", "items": item, **({"minItems": least} if least else {}), "maxItems": most}


def _strings(rng: Random) -> Schema:
    least = rng.randrange(2)
    return _array(text(0, rng.randrange(2, 4)), least, least + rng.randrange(1, 3))


def _rows(rng: Random) -> Schema:
    (name,) = words(rng, 1)
    row = _array(number(rng, (9, 99)), 1, rng.randrange(2, 4))
    return record({name: _array(row, rng.randrange(2), 2)}, [name])


def _fixed_count(rng: Random) -> Schema:
    return _array({"type": "boolean"}, count := rng.randrange(2, 5), count)


def _accented(rng: Random) -> str:
    return rng.choice("ñáéíóú") + words(rng, 1)[0]


def _free_spanish(rng: Random) -> Schema:
    least = rng.randrange(1, 3)
    name = _accented(rng)
    return record({name: text(least, least + rng.randrange(3))}, [name])


def _spanish_choice(rng: Random) -> Schema:
    name, other = _accented(rng), _accented(rng) + "2"
    values = [_accented(rng), _accented(rng) + "🙂", "🚀"]
    return record({name: {"enum": values}, other: text(1, 3)}, [name, other])


def _scalars(rng: Random) -> Schema:
    names = words(rng, 4)
    kinds = [number(rng, (9,)), number(rng, (99, 999)), {"type": "boolean"}, {"type": "null"}]
    rng.shuffle(kinds)
    return record(dict(zip(names, kinds, strict=True)), names)


def _bare_number(rng: Random) -> Schema:
    return number(rng, (99, 999))


def _overlapping(rng: Random) -> Schema:
    name, start = words(rng, 2)
    values = [start[:2], start, start + rng.choice(LETTERS)]
    return {"anyOf": [text(1, 3), number(rng), {"enum": values}, record({name: text(0, 2)}, [name])]}


def _references(rng: Random) -> Schema:
    first, second, leaf, name, inner = words(rng, 5)
    definitions = {name: record({leaf: {"$ref": f"#/$defs/{inner}"}}, [leaf])}
    definitions[inner] = {"anyOf": [{"type": "null"}, text(1, 3)]}
    whole = {"$ref": f"#/$defs/{name}"}
    return record({first: whole, second: whole}, [first]) | {"$defs": definitions}


FAMILIES = (
    Family(
        "valores fijos (enum y const)",
        "Escribe cada valor con json.dumps: una comilla o una barra dentro de una cadena lleva escape.",
        (_choice, _choices),
    ),
    Family(
        "propiedades optativas",
        "La coma va delante de cada propiedad menos la primera que se escribe, sea cual sea.",
        (_some_optional, _all_optional),
    ),
    Family(
        "objetos dentro de objetos",
        "Al cerrar un objeto se vuelve a lo que quedaba pendiente en el de fuera.",
        (_three_levels, _two_sides),
    ),
    Family(
        "listas con mínimo y máximo",
        "Cuenta los elementos: con maxItems ya no cabe otra coma; con menos de minItems no cabe el corchete.",
        (_strings, _rows, _fixed_count),
    ),
    Family(
        "español y emoji",
        "maxLength cuenta caracteres, no bytes; ñ, tildes y emoji se escriben tal cual.",
        (_free_spanish, _spanish_choice),
        "abc" + SPANISH,
    ),
    Family(
        "enteros, booleanos y null",
        "Un entero no empieza por 0 salvo el propio 0, y no puede pasar de maximum.",
        (_scalars, _bare_number),
    ),
    Family(
        "anyOf y $ref",
        "Hasta que el texto decide, varias formas siguen vivas a la vez: guárdalas todas.",
        (_overlapping, _references),
    ),
)


@dataclass(frozen=True)
class Draw:
    """Draws documents of a schema. size: the longest, the shortest or any; strings take their ``letters``."""

    rng: Random
    size: Size
    letters: str
    definitions: dict[str, Schema]

    def value(self, schema: Schema) -> Any:
        if "$ref" in schema:
            return self.value(self.definitions[schema["$ref"].removeprefix("#/$defs/")])
        if "anyOf" in schema:
            return self._pick([self.value(s) for s in schema["anyOf"]])
        if "const" in schema:
            return schema["const"]
        values = schema.get("enum") or {"boolean": [True, False], "null": [None]}.get(schema["type"])
        return self._pick(values) if values else getattr(self, "_" + schema["type"])(schema)

    def _pick(self, values: Sequence[Any]) -> Any:
        if self.size == "azar":
            return self.rng.choice(values)
        return (max if self.size == "largo" else min)(values, key=lambda v: len(published(v)))

    def _count(self, least: int, most: int) -> int:
        return {"largo": most, "corto": least}.get(self.size, self.rng.randint(least, most))

    def _string(self, schema: Schema) -> str:
        count = self._count(schema.get("minLength", 0), schema["maxLength"])
        return "".join(self.rng.choice(self.letters) for _ in range(count))

    def _integer(self, schema: Schema) -> int:
        return self._count(0, schema["maximum"])

    def _array(self, schema: Schema) -> list[Any]:
        return [self.value(schema["items"]) for _ in range(self._count(schema.get("minItems", 0), schema["maxItems"]))]

    def _object(self, schema: Schema) -> dict[str, Any]:
        required = schema.get("required", ())
        names = [n for n in schema["properties"] if n in required or self._count(0, 1)]
        return {n: self.value(schema["properties"][n]) for n in names}


def document(schema: Schema, family: Family, rng: Random, size: Size) -> str:
    """A document of ``schema`` in the published format."""
    return published(Draw(rng, size, family.letters, schema.get("$defs", {})).value(schema))
