"""J0: the reference mask gets everything for every seed, each classic mistake gets the mark written here."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilab.pruebas.casos import Case, play_case
from minilab.pruebas.hostil import ADVERSARIES, public_cases
from minilab.pruebas.remoto import LocalRemote
from minilab_grading.casos.mascara import mask_check

EVERYTHING = """
class Mascara:
    def __init__(self, esquema, vocabulario, fin):
        self.esquema, self.vocabulario, self.fin, self.texto = esquema, vocabulario, fin, ""

    def permitidos(self):
        return list(range(len(self.vocabulario)))

    def acepta(self, id):
        self.texto += self.vocabulario[id]
"""
NO_PROSE = """
class Mascara(Mascara):
    def permitidos(self):
        prosa = ("Claro", "`", "NaN", "Infinity", "guided", "  ")
        return [i for i, t in enumerate(self.vocabulario) if not any(p in t for p in prosa)]
"""
REPAIRED = r"""
import re

class Mascara(Mascara):
    def permitidos(self):
        try:
            json.loads(re.search(r'[{\["].*', self.texto, re.S).group().rstrip("`, \n"))
            return [self.fin]
        except (AttributeError, ValueError):
            return [i for i in range(len(self.vocabulario)) if i != self.fin]
"""
ONE_DOCUMENT = """
class Mascara(Mascara):
    def documento(self):
        return '{"ok":true}'

    def permitidos(self):
        resto = self.documento()[len(self.texto):]
        return [self.vocabulario.index(resto[0]) if resto else self.fin]
"""
FIRST_DOCUMENT = """
def primero(e, defs):
    if "$ref" in e:
        return primero(defs[e["$ref"].split("/")[-1]], defs)
    if "anyOf" in e:
        return primero(e["anyOf"][0], defs)
    if "const" in e or "enum" in e:
        return e["const"] if "const" in e else e["enum"][0]
    if e["type"] == "object":
        return {n: primero(p, defs) for n, p in e["properties"].items() if n in e.get("required", [])}
    if e["type"] == "array":
        return [primero(e["items"], defs)] * e.get("minItems", 0)
    return {"string": "a" * e.get("minLength", 0), "integer": 0, "boolean": True, "null": None}[e["type"]]

class Mascara(Mascara):
    def documento(self):
        return json.dumps(primero(self.esquema, self.esquema.get("$defs", {})), ensure_ascii=False,
                          separators=(",", ":"))
"""
NEVER_ENDS = """
class Mascara(Mascara):
    def permitidos(self):
        return [i for i in super().permitidos() if i != self.fin]
"""
ENDS_EARLY = """
class Mascara(Mascara):
    def permitidos(self):
        return sorted({*super().permitidos(), self.fin})
"""
ASCII_ONLY = """
class Mascara(Mascara):
    def permitidos(self):
        return [i for i in super().permitidos() if self.vocabulario[i].isascii()]
"""
CHARACTERS_ONLY = """
class Mascara(Mascara):
    def permitidos(self):
        return [i for i in super().permitidos() if len(self.vocabulario[i]) < 2]
"""
NO_CACHE = """
class Mascara(Mascara):
    def permitidos(self):
        ids = [i for i, t in enumerate(self.vocabulario) if t and avanza(self.estado, t)]
        return sorted([*ids, self.fin]) if FINAL in self.estado else ids
"""


def variants(reference: str) -> dict[str, str]:
    """Name -> source of the cell. A mistake in the reference is one changed line of it."""

    def changed(old: str, new: str) -> str:
        assert reference.count(old) == 1, old
        return reference.replace(old, new)

    enough = 'if escritos >= esquema.get("minItems", 0):'
    return {
        "the reference": reference,
        "slow but right": reference + NO_CACHE,
        "allows everything": EVERYTHING,
        "a prompt and hope": EVERYTHING + NO_PROSE,
        "repairs by regular expression": EVERYTHING + REPAIRED,
        "one fixed document": EVERYTHING + ONE_DOCUMENT,
        "the first document of each schema": EVERYTHING + ONE_DOCUMENT + FIRST_DOCUMENT,
        "never ends": reference + NEVER_ENDS,
        "ends at any time": reference + ENDS_EARLY,
        "forgets escapes": changed(
            'json.dumps(dato, ensure_ascii=False, separators=(",", ":"))',
            "'\"' + dato + '\"' if isinstance(dato, str) else json.dumps(dato)",
        ),
        "forgets maxLength": changed(
            "resto = frozenset([Paso(TextoLibre(), resto)])",
            "resto = frozenset([sin_fin := Paso(TextoLibre(), resto)]); sin_fin.despues = cierra | {sin_fin}",
        ),
        "only ASCII": reference + ASCII_ONLY,
        "only tokens of one character": reference + CHARACTERS_ONLY,
        "one item too many": changed('range(esquema["maxItems"])', 'range(esquema["maxItems"] + 1)'),
        "one item too few": changed(enough, enough.replace("0)", "0) - 1")),
        "only the first form of anyOf": changed('in esquema["anyOf"])', 'in esquema["anyOf"][:1])'),
    }


# Points of 18: seven families of 1.25; 1.75 for each of three cuts; 2 for the exact set; 1 obeys; 1 ends.
MARKS = {
    "the reference": 18.0,
    "slow but right": 18.0,
    "allows everything": 0.0,
    "a prompt and hope": 0.0,
    "repairs by regular expression": 0.0,
    "one fixed document": 0.0,
    "the first document of each schema": 0.0,
    "never ends": 0.0,
    "ends at any time": 1.0,  # it does end
    "forgets escapes": 6 * 1.25 + 1,  # no enum; obeys
    "forgets maxLength": 2 * 1.25,  # enum and numbers have no free string
    "only ASCII": 6 * 1.25 + 1,  # no Spanish; obeys
    "only tokens of one character": 7 * 1.25 + 1.75 + 2,  # cut by character, obeys, ends
    "one item too many": 6 * 1.25 + 1,
    "one item too few": 6 * 1.25 + 1 + 1,  # no list, no exact set; the longest are still right
    "only the first form of anyOf": 6 * 1.25 + 1,
}


def remote_of(source: str) -> LocalRemote:
    names: dict[str, Any] = {"json": json}
    exec(source, names)
    return LocalRemote(names)


@pytest.fixture(scope="module")
def reference(solutions) -> str:
    return solutions["mascara"]


def points(source: str, seed: int, runs: int) -> float:
    """Of 18. No complaint may quote a hidden text or token."""
    remote = remote_of(source)
    results = [play_case(c, remote) for c in mask_check(seed, runs).cases]
    assert not any("«" in r.expected + r.note for r in results)
    return sum(r.weight * r.credit for r in results)


def test_the_weights_are_the_points_of_the_check():
    assert sum(c.weight for c in mask_check(0).cases) == 18


@pytest.mark.parametrize("seed", range(30))
def test_reference_gets_everything(reference, seed):
    assert points(reference, seed, runs=3) == 18


def test_at_least_300_hostile_runs(reference):
    notes = [play_case(c, remote_of(reference)).note for c in mask_check(1).cases[:7]]
    assert notes == ["44 tiradas válidas de 44"] * 7


@pytest.mark.parametrize("seed", [3, 17])
@pytest.mark.parametrize("name", MARKS)
def test_each_mistake_gets_its_mark(reference, name, seed):
    every_pair = len(ADVERSARIES) * 3  # of an adversary and a shape
    assert points(variants(reference)[name], seed, runs=every_pair) == pytest.approx(MARKS[name])


def test_same_seed_same_exchange(reference):
    class Recorder(LocalRemote):
        def run(self, handle: int, calls: Any) -> list[Any]:
            exchange.append((handle, list(calls), super().run(handle, calls)))
            return exchange[-1][-1]

    def exchange_of(seed: int) -> list[Any]:
        exchange.clear()
        names: dict[str, Any] = {"json": json}
        exec(reference, names)
        for case in mask_check(seed, runs=3).cases[::3]:
            assert play_case(case, Recorder(names)).passed
        return list(exchange)

    exchange: list[Any] = []
    first = exchange_of(8)
    assert len(first) > 500
    assert first == exchange_of(8)
    assert first != exchange_of(9)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 400) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
)


class JunkRemote:
    """Answers anything: a worker may forge the reply to its own call."""

    def __init__(self, draw: Callable[[], Any]):
        self._draw = draw

    def new(self, cls: str, *args: Any) -> int:
        return 0

    def call(self, handle: int, method: str, *args: Any) -> Any:
        return self._draw()

    def run(self, handle: int, calls: Any) -> Any:
        return self._draw()

    def function(self, name: str, *args: Any) -> Any:
        return self._draw()


@settings(max_examples=60, deadline=None)
@given(replies=st.lists(JUNK, min_size=1, max_size=6), case=st.sampled_from(mask_check(2, runs=7).cases))
def test_junk_is_a_complaint_and_never_an_error(replies, case: Case):
    rng = Random(0)
    result = play_case(case, JunkRemote(lambda: rng.choice(replies)))
    assert not result.passed
    assert result.expected


def test_an_exception_of_the_student_fails_the_case():
    source = "class Mascara:\n    def __init__(self, *_):\n        raise KeyError('anyOf')"
    result = play_case(mask_check(0).cases[0], remote_of(source))
    assert (result.passed, result.got) == (False, "KeyError: 'anyOf'")


def test_public_cases_pass_on_the_reference_and_name_what_is_wrong(reference):
    made = variants(reference)
    assert all(play_case(c, remote_of(made["the reference"])).passed for c in public_cases())
    for name in set(MARKS) - {"the reference", "slow but right", "forgets escapes", "only the first form of anyOf"}:
        results = [play_case(c, remote_of(made[name])) for c in public_cases()]
        assert not all(r.passed for r in results), name
        assert all(r.hint and r.expected for r in results if not r.passed)
