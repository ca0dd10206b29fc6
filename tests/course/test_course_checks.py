"""Public checks: they pass on the reference, fail on each classic mistake, and speak Spanish."""

from __future__ import annotations

import asyncio
import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilab.comprobar import CheckFailed, comprobar
from minilab.pruebas.casos import Reply
from minilab.pruebas.jueces import body_judge, client_judge, positive_numbers
from minilab.pruebas.planos import NotPlainValue, equal, to_plain
from minilab.pruebas.publicas import checks_of
from minilab.pruebas.servidor_simulado import SimulatedServer, StuckClient, script_of

CHECKS = checks_of("p")
PRELUDE = {"asyncio": asyncio, "json": json, "jsonschema": jsonschema}


def namespace(*sources: str) -> dict:
    names = dict(PRELUDE)
    for source in sources:
        exec(source, names)
    return names


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solution_passes_its_public_check(name, solutions):
    check = CHECKS[name]
    function = namespace(*(solutions[c] for c in check.cells))[check.function]
    assert "públicas superadas" in repr(comprobar(name, function))


@pytest.mark.parametrize("name", CHECKS)
def test_released_stub_fails_with_one_spanish_sentence(name, released):
    check = CHECKS[name]
    cell = next(c for c in released.cells if c.id == check.cells[-1])
    with pytest.raises(CheckFailed, match="falta implementar") as failure:
        comprobar(name, namespace(cell.source)[check.function])
    assert failure.value._render_traceback_() == [str(failure.value)]


MISTAKES = {
    "percentil": "def percentil(v, p):\n    return sorted(v)[len(v) * p // 100]",
    "resume": (
        "def resume(ps):\n    return {'tok_s': sum(p['tokens'] / (p['fin'] - p['inicio']) for p in ps),"
        " 'ttft_p50': 1.0, 'ttft_p95': 1.45}"
    ),
    "cuerpo_json": (
        "def cuerpo_json(p, e):\n    return {'messages': [{'role': 'user', 'content': p}], 'max_tokens': 9,"
        " 'extra_body': {'guided_json': e}}"
    ),
    "es_valida": (
        "def es_valida(t, e, fin):\n    import re\n    m = re.search(r'{.*}', t)\n"
        "    try:\n        jsonschema.validate(json.loads(m[0]), e)\n    except Exception:\n        return False\n"
        "    return True"
    ),
    "veredicto": (
        "def veredicto(i):\n    return {'ratio': i['ratio'], 'ratio_lote': 1.5, 'json_pct': 100.0, 'cumple': True}"
    ),
    "prediccion": "def mi_prediccion():\n    return {'contra_una_a_una': None, 'contra_lote': 2}",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_classic_mistake_is_diagnosed(name):
    with pytest.raises(CheckFailed) as failure:
        comprobar(name, namespace(MISTAKES[name])[CHECKS[name].function])
    assert all(word in str(failure.value) for word in ("esperaba:", "obtuve:", "pista:"))


def test_a_forgotten_return_is_named():
    with pytest.raises(CheckFailed, match=r"obtuve:   None \(¿falta un return\?\)") as failure:
        comprobar("percentil", namespace("def percentil(v, p):\n    if v:\n        sorted(v)")["percentil"])
    assert "una excepción ValueError\n      obtuve:   None\n" in str(failure.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("asyncio.gather(*(", "_en_serie(*("), "en vuelo a la vez"),
        (("trozo.choices[0].delta.content:", "trozo.choices:"), "la medida"),
        (('"ignore_eos": True', '"x": True'), "ignore_eos"),
    ],
)
def test_client_check_tells_what_is_wrong(solutions, change, complaint):
    serial = "async def _en_serie(*cs):\n    return [await c for c in cs]\n"
    source = solutions["cliente"].replace(*change).replace(".delta.content\n", ".delta.content or ''\n")
    if "trozo.choices:" in change[1]:
        source = source.replace("if trozo.choices and trozo.choices:", "if trozo.choices:")
    with pytest.raises(CheckFailed, match=complaint):
        comprobar("cliente", namespace(serial + source)["lanza_todas"])


def test_plain_values_decide_not_the_methods_of_a_students_class():
    class Always(float):
        def __eq__(self, other):
            return True

    with pytest.raises(NotPlainValue):
        to_plain(Always(3.0))
    assert equal(1, 1.0) and not equal(True, 1) and not equal(None, 0) and not equal([1], [1, 2])
    assert not equal({"a": 1}, {"a": 1, "b": 2}) and not equal(float("nan"), float("nan"))


def test_simulated_time_never_goes_back_and_streams_interleave():
    times: list[float] = []

    async def one(server, prompt):
        stream = await server.client.chat.completions.create(
            stream=True, messages=[{"role": "user", "content": prompt}]
        )
        async for chunk in stream:
            times.append(server.clock())
            del chunk

    async def both(server):
        await asyncio.gather(one(server, "a"), one(server, "b"))

    server = SimulatedServer(lambda bodies: [script_of("xyz", 1.0 + i, 0.3) for i, _ in enumerate(bodies)])
    asyncio.run(server.drive(both(server)))
    assert times == sorted(times) and len(times) == 10


def test_client_that_waits_for_nothing_is_told_so():
    async def forever():
        await asyncio.Event().wait()

    server = SimulatedServer(lambda bodies: [])
    with pytest.raises(StuckClient):
        asyncio.run(server.drive(forever()))


RIGHT = {
    "model": "m",
    "messages": [{"role": "user", "content": "What?"}],
    "max_tokens": 4,
    "stream_options": {"include_usage": True},
    "extra_body": {"ignore_eos": True, "structured_outputs": {"json": {"type": "array"}}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
}
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
PLACES = [(k,) for k in RIGHT] + [("extra_body", "structured_outputs"), ("response_format", "json_schema")]


@given(st.sampled_from(PLACES), JUNK)
def test_no_judge_raises_whatever_a_student_puts_into_a_request(place, junk):
    """A judge runs in the grader's process: junk is a complaint, never an error."""
    body = json.loads(json.dumps(RIGHT))
    inner = body
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = junk
    script = {"What?": script_of(["a"], 0.1, 0.1)}
    judges = (positive_numbers(["a"]), body_judge("What?", {"type": "object"}), client_judge("m", ["What?"], 4, script))
    for judge in judges:
        for value in (body, junk):
            complaint = judge(Reply(value=value, groups=((body,),)))
            assert isinstance(complaint, str) and complaint
