"""The states that replay something: block tables, timelines, QKᵀ, masks, drafts say what their source says."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from svg_rules import boxes, check_rules
from vista_samples import ANSWER, DRAFTS, FRAMES, TEXTS, ToyMask, chances, record_trace

from minilab import vistas
from minilab.pruebas.publicas.l01 import work
from minilab.vistas.bloques import _recorded
from minillm_serve.bench.draft_strip import draft_strip
from minillm_serve.bench.gantt import bars
from minillm_serve.engine.replay import ReplayError, replay
from minillm_serve.engine.trace import TraceError

few = settings(max_examples=15, deadline=None)


@pytest.fixture(scope="module")
def trace(tiny_model_dir):
    return record_trace(tiny_model_dir)


# Block tables


def test_every_step_of_a_trace_is_the_replayed_one(trace):
    states = vistas.bloques_de_traza(trace)
    steps = list(replay(trace))
    assert [state.paso for state in states] == [step.plan.step for step in steps]
    for state, step in zip(states, steps, strict=True):
        assert {name: table for name, table in state.tablas} == {f"p{r}": tuple(t) for r, t in step.tables.items()}
        held, filled = step.usage(state.tam_bloque)
        assert (state.ocupados * state.tam_bloque, state.huecos_internos) == (held, held - filled)
        assert state.guardados == step.idle


def test_without_a_replay_the_record_gives_the_same_tables(trace):
    """Another block pool hands out other blocks; its record is then all there is."""
    recorded = {step: tables for step, tables, _, _ in _recorded(trace)}
    for step in replay(trace):
        assert {rid: tuple(table) for rid, table in step.tables.items()} == recorded[step.plan.step]
    other = copy.deepcopy(trace)
    turned = {block: trace["num_blocks"] - 1 - block for block in range(trace["num_blocks"])}
    for step in other["steps"]:
        step["new_blocks"] = {r: [turned[b] for b in blocks] for r, blocks in step.get("new_blocks", {}).items()}
    with pytest.raises(ReplayError):
        list(replay(other))
    for one, two in zip(vistas.bloques_de_traza(trace), vistas.bloques_de_traza(other), strict=True):
        assert {name: tuple(turned[b] for b in table) for name, table in one.tablas} == dict(two.tablas)
        assert (one.huecos_internos, one.compartidos) == (two.huecos_internos, two.compartidos)


def test_all_figures_of_a_trace_keep_the_rules(trace):
    states = vistas.bloques_de_traza(trace)
    for state in (states[0], max(states, key=lambda s: s.ocupados), states[-1]):
        check_rules(vistas.dibuja_bloques(state))
    check_rules(vistas.dibuja_gantt([vistas.linea_de_traza(trace)]))
    check_rules(vistas.dibuja_gantt([vistas.linea_de_traza(trace)], "lugar"))


@st.composite
def frames(draw):
    """Tables over 24 blocks of 4: some blocks shared, some kept by the cache."""
    tables, tokens = {}, {}
    for name in draw(st.lists(st.sampled_from("ABCDE"), unique=True, max_size=5)):
        tables[name] = draw(st.lists(st.integers(0, 23), unique=True, min_size=1, max_size=9))
        tokens[name] = draw(st.integers(4 * len(tables[name]) - 3, 4 * len(tables[name])))
    used = {block for table in tables.values() for block in table}
    kept = draw(st.sets(st.integers(0, 23), max_size=6)) - used
    return {
        "tablas": tables,
        "tokens": tokens,
        "guardados": sorted(kept),
        "nota": draw(st.sampled_from(["", "Una nota"])),
    }


@few
@given(frames())
def test_every_block_is_counted_once_and_drawn_once(frame):
    (state,) = vistas.bloques_a_mano([frame], 24, 4)
    assert state.ocupados + state.libres + len(state.guardados) == 24
    assert sum(state.referencias.values()) == sum(map(len, frame["tablas"].values()))
    assert sum(state.llenos.values()) + state.huecos_internos == 4 * state.ocupados
    assert 0 <= state.fragmentacion <= 1
    vista = vistas.dibuja_bloques(state)
    check_rules(vista)
    drawn = {title.split(":")[0] for title, _ in boxes(vista, "bloque ")}
    assert drawn == {f"bloque {block}" for block in range(24)}
    rows = {row[0]: row for row in vista.tabla.filas}
    assert set(rows) == {"los demás", "toda la memoria"} | {f"petición {name}" for name in frame["tablas"]} | {
        str(block) for block in {*state.referencias, *state.guardados}
    }
    for block, count in state.referencias.items():
        assert rows[str(block)][3] == str(count)


def test_hand_made_frames_are_checked():
    with pytest.raises(ValueError, match="bloque 9 no existe"):
        vistas.bloques_a_mano([{"tablas": {"A": [9]}}], 8, 4)
    with pytest.raises(ValueError, match="fotogramas"):
        vistas.bloques_a_mano([], 8, 4)
    states = vistas.bloques_a_mano(FRAMES, 8, 4)
    assert [state.orden for state in states] == [("A", "B")] * 3  # a request keeps its colour


# Timelines


def test_a_timeline_has_the_bars_of_the_trace_one_after_the_other(trace):
    line = vistas.linea_de_traza(trace)
    source = bars(trace)
    told = {(b.peticion, b.paso, b.clase == "decode", b.tokens, b.guardados) for b in line.barras}
    assert told == {(f"p{b.request}", b.step, b.kind == "decode", b.tokens, b.cached) for b in source}
    assert len(line.barras) == len(source)
    assert all(one.fin <= other.inicio or one.paso == other.paso for one, other in pairwise(line.barras))
    for rid, request in trace["requests"].items():
        assert line.ttft(f"p{rid}") == pytest.approx(request["first_token"] - request["arrival"], abs=0.05)
        given = sum(bool(step["tokens"].get(rid)) for step in trace["steps"])
        assert len(line.tokens_de(f"p{rid}")) == given


@st.composite
def rows(draw):
    """Stretches of up to six requests, none of which runs twice at once."""
    found = []
    for name in draw(st.lists(st.sampled_from("ABCDEF"), unique=True, min_size=1, max_size=6)):
        cuts = draw(st.lists(st.integers(0, 30), unique=True, min_size=2, max_size=6).map(sorted))
        kinds = draw(st.lists(st.sampled_from(["prefill", "decode", "recalculo", "ocupa"]), min_size=5, max_size=5))
        spans = list(pairwise(cuts))[:: draw(st.sampled_from([1, 2]))]
        found += [(name, start, end, kind) for (start, end), kind in zip(spans, kinds, strict=False)]
    return found


@few
@given(rows(), st.integers(0, 2), st.floats(0, 1))
def test_places_are_never_shared_and_never_more_than_needed(filas, spare, part):
    need = max(sum(start <= step < end for _, start, end, _ in filas) for step in range(31))
    line = vistas.linea_de_filas(filas, lugares=need + spare)
    assert vistas.linea_de_filas(filas).lugares == need
    for place in range(need):
        own = sorted((bar.inicio, bar.fin) for bar in line.barras if bar.lugar == place)
        assert all(a[1] <= b[0] for a, b in pairwise(own))
    busy = sum(end - start for _, start, end, _ in filas)
    assert line.lugares_vacios == pytest.approx(line.lugares * line.duracion - busy)
    assert 0 <= line.ocupacion <= 1
    for por in ("peticion", "lugar"):
        check_rules(vistas.dibuja_gantt([line], por))
        cut = replace(line, hasta=max(1.0, part * line.final))
        check_rules(vistas.dibuja_gantt([cut, line], por))


def test_bars_are_as_long_as_their_time():
    line = vistas.linea_de_filas([("A", 0, 2, "prefill"), ("A", 2, 12, "decode"), ("B", 3, 8, "prefill")])
    drawn = dict(boxes(vistas.dibuja_gantt([line])))
    per_step = {words: (box.right - box.x) for words, box in drawn.items() if words[:2] in ("A:", "B:")}
    lengths = [per_step[key] for key in sorted(per_step)]
    assert [length / lengths[1] for length in lengths] == pytest.approx([5, 1, 2.5], rel=1e-3)


def test_waits_gaps_and_first_tokens_are_counted_from_the_rows():
    filas = [("A", 0, 2, "prefill"), ("A", 2, 4, "decode"), ("B", 4, 8, "prefill"), ("A", 8, 12, "decode")]
    line = vistas.linea_de_filas(filas, llegadas={"B": 3})
    assert (line.ttft("A"), line.ttft("B")) == (2, 5)
    assert line.itl("A") == [1, 1, 5, 1, 1, 1]
    assert line.huecos == [("A", 4, 9)]
    assert vistas.linea_de_filas(filas, hueco=5).huecos == []
    chunks = vistas.linea_de_filas([("A", 0, 2, "prefill"), ("A", 5, 7, "prefill"), ("A", 7, 8, "decode")])
    assert chunks.ttft("A") == 7  # only the last chunk of a prompt gives a token
    static = vistas.linea_de_filas([("A", 0, 3), ("B", 0, 9)], lugares=2)
    assert static.lugares_vacios == 6 and static.ocupacion == pytest.approx(12 / 18)


@pytest.mark.parametrize(
    "filas, options, words",
    [
        ([], {}, "no hay filas"),
        ([("A", 3, 3)], {}, "vacío"),
        ([("A", 0, 2, "dormir")], {}, "clase"),
        ([("A", 0, 5), ("A", 3, 6)], {}, "dos veces"),
        ([("A", 0, 5), ("B", 3, 6)], {"lugares": 1}, "2 peticiones a la vez y solo 1 lugar"),
    ],
)
def test_rows_that_cannot_be_are_refused_in_spanish(filas, options, words):
    with pytest.raises(ValueError, match=words):
        vistas.linea_de_filas(filas, **options)


def test_timelines_of_different_units_are_not_compared(trace):
    lines = [vistas.linea_de_filas([("A", 0, 3)]), vistas.linea_de_traza(trace)]
    with pytest.raises(ValueError, match="segundos con pasos"):
        vistas.dibuja_gantt(lines)
    with pytest.raises(ValueError, match="'columna'"):
        vistas.dibuja_gantt(lines[:1], "columna")


# QKᵀ


@few
@given(st.integers(1, 8), st.integers(1, 6))
def test_the_drawn_cells_are_the_products_that_are_counted(prompt, new):
    total = [0, 0]
    for step in range(1, new + 1):
        state = vistas.EstadoQKT(("x",) * prompt, ("y",) * new, step)
        n = state.posiciones
        for cache in (False, True):
            kinds = [state.celda(i, j, cache) for i in range(n) for j in range(n)]
            computed = sum(kind in ("nueva", "repetida") for kind in kinds)
            assert computed == state.productos[cache]
            total[cache] += computed
            assert kinds.count("futura") == n * (n - 1) // 2
        assert state.acumulado == tuple(total)
    assert total == [work(prompt, new, cache)["productos"] for cache in (False, True)]  # what lab 1's exercise counts
    last = prompt + new - 1  # the last token given never enters
    assert total[1] == last * (last + 1) // 2  # with a cache each product is computed once
    vista = vistas.dibuja_qkt(state)
    check_rules(vista)
    assert len(boxes(vista, "q")) == 2 * n * n


def test_a_step_of_qkt_names_what_enters_and_what_it_gives():
    steps = [vistas.dibuja_qkt(vistas.EstadoQKT(("The", "sky", "is"), ("blue", "."), k)) for k in (1, 2)]
    assert "paso 1 (prefill; sale «blue»)" in steps[0].svg
    assert "paso 2 (decode: entra «blue»; sale «.»)" in steps[1].svg
    assert [row[0] for row in steps[1].tabla.filas] == ["1 (prefill)", "2 (blue)"]
    assert steps[1].tabla.filas[-1][-2:] == ("16", "10")  # the totals of the notebook's table
    for wrong in (0, 3):
        with pytest.raises(ValueError, match="de 1 a 2"):
            vistas.EstadoQKT(("a",), ("b", "c"), wrong)


# Masks


def test_the_mask_is_run_through_the_answer_and_its_probabilities_add_up():
    states = vistas.recorre_mascara(ToyMask(), ANSWER, TEXTS, chances(), lambda mask: f"lugar {mask.place}")
    assert [state.permitidos for state in states] == [2, 1, 3, 1]
    assert [state.texto for state in states] == ["", "{", "{name", "{nameAnn"]
    assert [state.elegido for state in states] == ["{", "name", "Ann", None]
    assert [state.estado for state in states] == [f"lugar {i}" for i in range(4)]
    for state, row, allowed in zip(states, chances(), ([1, 2], [3], [4, 5, 6]), strict=False):
        assert state.quitada == pytest.approx(1 - sum(row[token] for token in allowed))
        after = [state.despues(c) for c in state.candidatos if c.permitido]
        assert sum(after) == pytest.approx(1)
        assert {c.token for c in state.candidatos if c.permitido} == set(allowed)
        assert all(state.despues(c) == 0 for c in state.candidatos if not c.permitido)
    assert states[3].quitada is None


def test_of_two_tokens_that_look_alike_only_the_one_that_came_is_marked():
    states = vistas.recorre_mascara(ToyMask(), [1], [None, "{", "{", *TEXTS[3:]])
    marks = [(c.token, states[0].es_elegido(c)) for c in states[0].candidatos]
    assert marks == [(1, True), (2, False)]


def test_a_mask_that_does_not_fit_is_told_in_spanish():
    with pytest.raises(ValueError, match="no permite el token 9"):
        vistas.recorre_mascara(ToyMask(), [9], TEXTS)
    with pytest.raises(ValueError, match="suma"):
        vistas.recorre_mascara(ToyMask(), [1], TEXTS, [[0.5] * len(TEXTS)])
    with pytest.raises(ValueError, match="3 valores"):
        vistas.recorre_mascara(ToyMask(), [1], TEXTS, [[1.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="solo 1 filas"):
        vistas.recorre_mascara(ToyMask(), ANSWER, TEXTS, chances()[:1])


@few
@given(st.lists(st.floats(0.01, 1), min_size=11, max_size=11), st.integers(3, 16))
def test_any_probabilities_can_be_drawn(weights, count):
    row = [weight / sum(weights) for weight in weights]
    for state in vistas.recorre_mascara(ToyMask(), [1], TEXTS, [row], candidatos=count):
        check_rules(vistas.dibuja_mascara(state))
        assert len(state.candidatos) <= count


def test_the_rows_of_our_own_grammar_can_be_drawn():
    class Row:
        offset, token, accepted, shortest, expected = 0, None, True, 1, ""

        def __init__(self, piece, allowed, complete):
            self.piece, self.allowed, self.complete = piece, allowed, complete
            self.forced, self.readings = "", ("objeto › clave",)

    states = vistas.mascara_de_gramatica([Row('{"', 3, False), Row(None, 1, True)], 100)
    assert [state.texto for state in states] == ["", '{"']
    assert "puede terminar" in states[1].estado
    for state in states:
        check_rules(vistas.dibuja_mascara(state))


# Drafts


@few
@given(st.lists(st.integers(0, 6).flatmap(lambda k: st.tuples(st.just(k), st.integers(0, k))), min_size=1, max_size=60))
def test_acceptance_counts_only_drafts_that_were_judged(steps):
    if not any(drafts for drafts, _ in steps):
        with pytest.raises(ValueError, match="ningún paso"):
            vistas.borradores_de(steps)
        return
    state = vistas.borradores_de(steps)
    accepted = sum(stood for _, stood in steps)
    stopped = sum(stood < drafts for drafts, stood in steps)
    assert state.aceptacion == pytest.approx(accepted / (accepted + stopped))
    with_drafts = [stood + 1 for drafts, stood in steps if drafts]
    assert state.tokens_por_paso == pytest.approx(sum(with_drafts) / len(with_drafts))
    check_rules(vistas.dibuja_borradores(state))


@given(st.floats(0, 1), st.integers(1, 8), st.floats(0, 1))
def test_the_promise_is_leviathans(alpha, k, cost):
    state = vistas.EstadoBorradores((("A", (vistas.PasoBorrador(k, 0),)),), 1, k, cost)
    stands = [alpha**i * (1 - alpha) for i in range(k)] + [alpha**k]  # i drafts stand, then one token of the target
    assert state.esperados(alpha) == pytest.approx(sum((i + 1) * chance for i, chance in enumerate(stands)))
    assert state.ganancia(alpha) == pytest.approx(state.esperados(alpha) / (k * cost + 1))


def test_drafts_of_a_trace_are_those_of_the_strip(tiny_model_dir):
    config = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1, "dynamic": False}
    trace = record_trace(tiny_model_dir, num_kv_blocks=60, speculative_config=config)
    strip = draft_strip(trace)
    assert strip, "the sample has no drafts"
    state = vistas.borradores_de(trace)
    entries = [entry for row in strip.values() for entry in row]
    assert state.propuestos == sum(len(entry.drafts) for entry in entries)
    assert state.aceptados == sum(entry.accepted for entry in entries)
    check_rules(vistas.dibuja_borradores(state))


def test_impossible_drafts_are_refused():
    with pytest.raises(ValueError, match="5 aceptados de 4"):
        vistas.borradores_de([(4, 5)])
    with pytest.raises(TraceError):
        vistas.borradores_de({"schema": "otro"})
    assert vistas.borradores_de(DRAFTS).k == 4
