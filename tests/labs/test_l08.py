"""Lab 8: its solution holds in every hidden case, wrong answers are caught, and a student's mask drives the engine."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from mutants import (
    assert_caught,
    assert_page_names_each,
    assert_solution_passes,
    names_of,
    solution_cells,
)
from mutants_l08 import MUTANTS

from minilab.bancos import guiado
from minilab.bancos.guiado import MotorAbierto, mascaras_grabadas
from minilab.modelo import LabModel
from minilab.motor import con, lado_a_lado
from minilab.pruebas.automatas import ANY, Words, advance, allowed, complaint, difference
from minilab.pruebas.json_estricto import fault
from minilab.pruebas.publicas import checks_of
from minilab_grading.casos.lenguaje_json import Language
from minilab_grading.casos.mascara_l08 import FAMILIES, document, spelled
from minillm_serve import LLM, SamplingParams
from minillm_serve.params import StructuredOutputsParams

LAB = "L08_json_garantizado"
PUBLIC = checks_of("l08")


def test_the_solution_passes_every_hidden_case(solved):
    assert_solution_passes(LAB, solution_cells(solved(LAB)), range(4))


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_common_wrong_answer_is_caught(solved, mutant):
    assert_caught(LAB, solution_cells(solved(LAB)), mutant)


def test_the_page_names_each_wrong_answer_and_what_catches_it():
    assert_page_names_each(LAB, MUTANTS)


# --- the oracles ---


@pytest.fixture(scope="module")
def solution() -> dict:
    from minilab import construir

    cells = solution_cells(construir.instructor(construir.SOURCE_FOLDER / f"{LAB}.py"))
    return names_of(LAB, *cells.values())


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({}, None, ""),
        ({"finales": ["a"]}, "sigue", "ab"),
        ({"finales": ["", "a", "ab"]}, "termina", ""),
        ({"pasos": {"": {"a": "a"}}}, "falta", "ab"),
        ({"pasos": {"": {"a": "a", "b": "a"}, "a": {"b": "ab"}}}, "sobra", "b"),
        ({"pasos": {"": {"a": "a"}, "a": {ANY: "ab"}}}, "sobra", "aa"),
    ],
)
def test_a_table_is_compared_with_a_language_exactly(change, kind, text):
    table = {"inicio": "", "finales": ["a", "ab"], "pasos": {"": {"a": "a"}, "a": {"b": "ab"}}} | change
    assert difference(table, Words(["a", "ab"]), "abc") == (kind and (kind, text))


@pytest.mark.parametrize(
    "value",
    [None, [], {"inicio": "a"}, {"inicio": 1, "finales": [], "pasos": {}}, {"inicio": "a", "finales": "a", "pasos": {}},
     {"inicio": "a", "finales": [], "pasos": {"a": {"bc": "a"}}}, {"inicio": "a", "finales": [], "pasos": {"a": "b"}}],
)  # fmt: skip
def test_what_is_no_table_is_told_in_spanish(value):
    assert "se esperaba" in complaint(value, Words(["a"]), "a")


@pytest.mark.parametrize("seed", range(3))
def test_the_solutions_automaton_is_the_language_of_the_schema(solution, seed):
    """By every short text over a few letters, not by the comparison that the checks use."""
    from random import Random

    for name, make in FAMILIES.items():
        rng = Random(f"{seed} {name}")
        schema = make(rng)
        table, language = solution["de_esquema_a_automata"](schema), Language(spelled(schema))
        written = document(schema, rng)
        assert advance(table, table["inicio"], written) in table["finales"]
        for end in range(len(written)):
            for letters in itertools.product('a"}0,', repeat=2):
                text = written[:end] + "".join(letters)
                state = advance(table, table["inicio"], text)
                right = language.advance(language.start, text)
                assert (state is not None) == bool(right), text
                assert (state in table["finales"]) == language.complete(right), text


def test_the_students_mask_gives_the_ids_of_the_table(solution):
    table = solution["automata_mes"]()
    vocabulary = ["1", "12", "13", "2", None, "", "120"]
    for state in ("inicio", "uno", "hecho"):
        assert solution["permitidos"](table, state, vocabulary, 4) == allowed(table, state, vocabulary, 4)


# --- the engine ---

FIXED = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Osaka", "Paris"]},
        "ok": {"type": "boolean"},
        "n": {"enum": ["1", "12", "2"]},
    },
    "required": ["city", "ok", "n"],
    "additionalProperties": False,
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 6},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def constrained(schema: dict, temperature: float = 0.0, **more) -> SamplingParams:
    outputs = StructuredOutputsParams(json=schema, whitespace="compact")
    return SamplingParams(max_tokens=80, temperature=temperature, structured_outputs=outputs, **more)


def test_a_students_mask_drives_the_engine_to_the_same_tokens(tiny, solution):
    found = lado_a_lado(
        tiny, ["A place?", "Another?", "One more."], {"guided.compile": solution["Mascara"]},
        params=constrained(FIXED), veces=1, guided_jump_ahead=False,
    )  # fmt: skip
    assert found.iguales
    assert [fault(text, FIXED) for text in found.tuya.textos] == [None] * 3
    assert len(set(found.tuya.textos)) > 1, "the model decides among what is permitted"


@pytest.mark.model
def test_a_students_mask_drives_the_real_model_to_the_same_tokens(solution):
    from minillm_serve.config import ConfigError
    from minillm_serve.model.store import DEFAULT_MODEL, resolve_model

    try:
        model = LabModel(str(resolve_model(DEFAULT_MODEL)), DEFAULT_MODEL, real=True, rapido=True)
    except ConfigError as error:
        pytest.skip(str(error))
    ask = [[{"role": "user", "content": "Invent a person. Answer with JSON: name and age."}]]
    written = []
    for seams in (con({"guided.compile": solution["Mascara"]}), None):
        with LLM(model.carpeta, seams=seams, guided_jump_ahead=False) as llm:
            written.append(llm.chat(ask, constrained(PERSON))[0].outputs[0])
    assert written[0].token_ids == written[1].token_ids
    assert fault(written[0].text, PERSON) is None


def test_every_sampled_answer_under_the_students_mask_is_valid(tiny, solution):
    with LLM(tiny.carpeta, seams=con({"guided.compile": solution["Mascara"]})) as llm:
        asked = [constrained(PERSON, temperature=1.0, seed=seed) for seed in range(12)]
        outputs = [o.outputs[0] for o in llm.generate(["x"] * len(asked), asked)]
    assert {o.finish_reason for o in outputs} == {"stop"}
    assert [fault(o.text, PERSON) for o in outputs] == [None] * len(outputs)
    assert len({o.text for o in outputs}) == len(outputs)


def test_the_open_engine_hands_over_the_real_logits(tiny):
    engine = MotorAbierto(tiny)
    seen = []

    def greedy(logits):
        seen.append(logits)
        return int(logits.argmax())

    mine = engine.escribe("Hello", greedy, max_tokens=6)
    with LLM(tiny.carpeta) as llm:
        ask = [{"role": "user", "content": "Hello"}]
        right = llm.chat(ask, SamplingParams(max_tokens=6, temperature=0.0))[0].outputs[0]
    assert list(mine.ids) == list(right.token_ids) and mine.fin == right.finish_reason
    assert all(row.shape == (len(engine.textos),) and torch.isfinite(row).all() for row in seen)
    assert engine.textos[engine.fin] is None and engine.trocea("ñ") and len(engine.bytes) == len(engine.textos)


def test_half_characters_leave_the_students_mask_without_a_token(tiny, solution):
    """Section 6.4: every byte is a token of its own in the tiny model, so an ñ is never whole."""
    engine = MotorAbierto(tiny)
    mask = solution["Mascara"]({"enum": ["ñ"]}, engine.textos, engine.fin)
    mask.acepta(engine.textos.index('"'))
    assert mask.permitidos() == []
    with pytest.raises(ValueError):
        solution["aplica_mascara"](torch.zeros(len(engine.textos)), mask.permitidos())


# --- what was recorded ---


def test_the_recorded_masks_are_a_table_with_their_origin(tmp_path, monkeypatch):
    engine = {
        "right": 3,
        "with_tests": 4,
        "right_share": 0.75,
        "valid_refused": 1,
        "valid": 9,
        "invalid_accepted": 0,
        "invalid": 8,
        "outcomes": {"compiled": 4, "refused": 2},
        "failures": [],
        "times": {"mask_p50": 1.5, "mask_p99": 30.0, "compile_p50": 2500.0},
    }
    document = {
        "engines": {"xgrammar": engine, "outlines": {**engine, "times": {}}},
        "info": {"xgrammar": {"version": "0.2.8"}, "outlines": {"version": "0.2.14"}},
        "date": "2026-11-23T10:00:00+00:00",
        "command": "minillm bench guided --engine xgrammar --data dev.jsonl.gz --repeats 3",
        "environment": {"cpu": "AMD EPYC"},
        "limits": {"seconds": 20.0, "memory_gib": 2.0},
        "data": {"file": "dev.jsonl.gz", "schemas": 4},
    }
    monkeypatch.setattr(guiado, "read", lambda path: json.loads(json.dumps(document)))
    shown = mascaras_grabadas()
    assert "xgrammar 0.2.8" in repr(shown) and "3 de 4 (75,0\u00a0%)" in repr(shown) and "2,5" in repr(shown)
    assert "2026-11-23, AMD EPYC" in shown.origen and document["command"] in shown.origen
    assert "<table" in shown._repr_html_() and "–" in repr(shown)


def test_a_missing_recording_is_a_sentence(monkeypatch):
    monkeypatch.setattr(guiado, "RECORDED", guiado.MEASURED / "no-existe.json")
    shown = mascaras_grabadas()
    assert shown.tabla is None and "No medido" in repr(shown) and "<p>" in shown._repr_html_()
