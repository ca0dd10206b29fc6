"""The virtual clock: rules that find every broken batch, a model nobody can guess, marks that do not straddle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from minilab.pruebas.casos import StudentError, play_case
from minilab.pruebas.remoto import LocalRemote
from minilab.reloj import cargas
from minilab.reloj.costes import LLAMA3_8B_ON_H100, VirtualClock, sequential_seconds
from minilab.reloj.mundo import Item, Limits, Request, World, drive
from minilab.reloj.oraculo import END, Oracle
from minilab.reloj.partidas import Workload, fast, play
from minilab_grading.casos.planificador import planificador_check

SMALL = Limits(max_requests=4, max_tokens=24, num_blocks=10, block_size=4)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SEEDS = range(50)

# Each a change to the reference solution: what stands there, what stands there instead.
STATIC = {
    "        while libre > 0 and self.espera and": """        entran = not self.activas or self.llenando
        while entran and libre > 0 and self.espera and""",
    "        return self.lote\n": "        self.llenando = entran and libre <= 0\n        return self.lote\n",
    "        self.lote = []\n\n": "        self.lote, self.llenando = [], False\n\n",
}
NO_SHARING = {"        hallados = []\n": "        return []\n"}
LEAKY = {
    """                if salida["fin"]:
                    self.activas.remove(p)
                    self.bloques.suelta(p["bloques"])""": """                if salida["fin"]:
                    self.activas.remove(p)
                    self.bloques.suelta(p["bloques"][:-1])"""
}
STARVING = {"self.espera.append(": "self.espera.insert(0, "}
CORRUPTING = {"self.libres[cuantos:]\n": "self.libres[cuantos:] + self.libres[: cuantos // 2]\n"}
LYING = {'"tokens": tokens, "bloques"': '"tokens": [1 + t % 63 for t in tokens], "bloques"'}
SEQUENTIAL = {'self.limites["max_peticiones"]:': "1:"}


class InProcess(LocalRemote):
    """The student's source without a sandbox; ``mutate`` may change what ``paso`` answered."""

    def __init__(self, source: str, mutate: Callable[[list], list] = lambda batch: batch):
        names: dict = {}
        exec(source, names)
        super().__init__(names)
        self._mutate = mutate

    def run(self, handle, calls):
        values = super().run(handle, calls)
        return [*values[:-1], self._mutate(values[-1])]


@pytest.fixture(scope="session")
def reference(solutions) -> str:
    return solutions["planificador"]


def changed(source: str, changes: dict[str, str]) -> str:
    for before, after in changes.items():
        assert source.count(before) == 1, before
        source = source.replace(before, after)
    return source


def world_of(requests, limits=SMALL, secret=7) -> World:
    return World(requests, limits, Oracle(secret, limits.block_size), VirtualClock(), END)


def started(*prompts: int) -> World:
    """Requests 1, 2… with prompts of these lengths, all arrived."""
    rng = Random(3)
    prompts_of = [tuple(rng.randrange(1, 64) for _ in range(length)) for length in prompts]
    world = world_of([Request(i, 0.0, prompt, 4) for i, prompt in enumerate(prompts_of, 1)])
    world.arrivals()
    return world


def entry(world: World, ident: int, start: int, end: int, blocks: list[int]) -> dict:
    return {"id": ident, "desde": start, "tokens": world.progress[ident].known[start:end], "bloques": blocks}


def test_costs_are_the_fit_of_the_measured_steps():
    report = json.loads((Path(__file__).parents[2] / "reports" / "gpu-h100.json").read_text(encoding="utf-8"))
    rows = [p for p in report["profiles"] if p["shape"] == "llama3-8b" and p["backend"] == "minillm"]
    read = 2 * 32 * 8 * 128 * 2 / (report["limits"]["copy_gb_s"] * 1e9)
    seconds = np.array([r["step_us"] for r in rows]) * 1e-6
    tokens, cached = (np.array([r[k] for r in rows], float) for k in ("tokens", "kv_tokens"))
    columns = np.stack([np.ones(len(rows)), tokens], 1) / seconds[:, None]
    step, token = np.linalg.lstsq(columns, (seconds - read * cached) / seconds, rcond=None)[0]
    costs = LLAMA3_8B_ON_H100
    assert [costs.step_s, costs.token_s, costs.read_s] == pytest.approx([step, token, read], rel=1e-3)


def test_the_baseline_is_one_request_after_another():
    requests = [Request(1, 0.0, (5, 6, 7), 9), Request(2, 10.0, (8,), 9)]
    a, b, c = (getattr(LLAMA3_8B_ON_H100, name) for name in ("step_s", "token_s", "read_s"))
    assert sequential_seconds(requests, {1: 2, 2: 1}) == pytest.approx(10.0 + a + b)
    assert sequential_seconds(requests[:1], {1: 2}) == pytest.approx((a + 3 * b) + (a + b + 3 * c))


def test_the_oracle_reads_its_context_through_the_block_table():
    prompt, size = tuple(range(1, 11)), 4
    oracle = Oracle(5, size)
    expected = oracle.text(prompt, 1)
    oracle.step([Item(1, 0, prompt[:6], (8, 2), False)])
    assert oracle.step([Item(1, 6, prompt[6:], (8, 2, 5), True)]) == {1: expected[0]}
    wrong = {oracle.step([Item(1, 8, prompt[8:], (8, block, 5), True)])[1] for block in range(8) if block != 2}
    assert wrong != {expected[0]}
    assert Oracle(6, size).text(prompt, 8) != Oracle(5, size).text(prompt, 8)


@pytest.mark.parametrize("first", SEEDS[::10])
def test_for_every_seed_the_reference_is_far_above_the_target_on_all_five(reference, first):
    for seed in SEEDS[first : first + 10]:
        ratios = {w.name: play(InProcess(reference), w).ratio for w in cargas.workloads(Random(seed))}
        assert len(ratios) == 5 and min(ratios.values()) >= 6.5, (seed, ratios)


@pytest.mark.parametrize("seed", SEEDS[::5])
def test_for_every_seed_static_batches_and_unshared_prefixes_are_below_it(reference, seed):
    static, no_sharing = changed(reference, STATIC), changed(reference, NO_SHARING)
    _, _, mixed, bursts, shared = cargas.workloads(Random(seed))
    slow = [play(InProcess(static), w).ratio for w in (mixed, bursts, shared)]
    assert min(slow) > 2 and max(slow) < 4.6, slow
    assert 2 < play(InProcess(no_sharing), shared).ratio < 4.5


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({}, set()),
        (SEQUENTIAL, {"cortas", "largas", "mezcladas", "a ráfagas", "prefijo común"}),
        (STATIC, {"mezcladas", "a ráfagas", "prefijo común"}),
        (NO_SHARING, {"prefijo común"}),
        (LEAKY, {"prefijo común", "sin fugas", "nadie espera sin fin", "orden de llegada", "poca memoria"}),
        (STARVING, {"nadie espera sin fin", "orden de llegada"}),
        (CORRUPTING, "all"),
        (LYING, "all"),
    ],
    ids=["reference", "sequential", "static", "no_sharing", "leaky", "starving", "corrupting", "lying"],
)
def test_each_scheduler_fails_exactly_the_cases_that_it_deserves(reference, changes, failing):
    for seed in (1, 2**70):
        check = planificador_check(seed)
        results = [play_case(case, InProcess(changed(reference, changes))) for case in check.cases]
        names = {r.name.removeprefix("throughput: ") for r in results}
        assert {r.name.removeprefix("throughput: ") for r in results if not r.passed} == (
            names if failing == "all" else failing
        )
        for r in results:
            assert r.passed or (r.expected and r.hint)
            assert r.passed or r.credit < (0.8 if r.note.endswith("×") else 1e-9)


def test_one_at_a_time_earns_nothing_for_throughput_and_the_ramp_is_even(reference):
    workload = cargas.mixed(Random(4))
    alone = fast(workload)(InProcess(changed(reference, SEQUENTIAL)))
    assert alone.note == "1,0×" and alone.credit == pytest.approx(0, abs=1e-6)
    static = InProcess(changed(reference, STATIC))
    ratio = play(static, workload).ratio
    outcome = fast(workload)(static)
    assert outcome.credit == pytest.approx((ratio - 1) / 4 * 0.8) and outcome.complaint


def test_the_same_seed_gives_the_same_figures_to_the_last_digit(reference):
    def figures():
        runs = [play(InProcess(reference), w) for w in cargas.workloads(Random(11))]
        times = [(p.first_token_at, p.finished_at) for run in runs for p in run.world.progress.values()]
        return [run.ratio for run in runs], times

    assert figures() == figures()


def test_the_public_cases_pass_on_the_reference_and_tell_what_to_do(reference):
    assert all(play_case(case, InProcess(reference)).passed for case in cargas.public_cases())
    slow = [play_case(case, InProcess(changed(reference, STATIC))) for case in cargas.public_cases()]
    assert [r.passed for r in slow] == [True, False, True] and slow[1].hint


@st.composite
def loads(draw) -> Workload:
    size, blocks = draw(st.integers(1, 6)), draw(st.integers(4, 14))
    limits = Limits(draw(st.integers(1, 5)), draw(st.integers(1, 20)), blocks, size)
    rng, requests, now = Random(draw(st.integers(0, 10**6))), [], 0.0
    common = tuple(rng.randrange(1, 64) for _ in range(blocks * size))
    for ident in range(draw(st.integers(1, 8))):
        length = draw(st.integers(1, blocks * size))
        shared = draw(st.integers(0, length))
        prompt = common[:shared] + tuple(rng.randrange(1, 64) for _ in range(length - shared))
        now += draw(st.sampled_from((0.0, 0.004, 0.05)))
        requests.append(Request(ident, now, prompt, draw(st.integers(1, min(12, blocks * size - length + 1)))))
    return Workload("al azar", tuple(requests), limits, rng.getrandbits(64))


@QUICK
@given(workload=loads())
def test_the_reference_drains_any_workload_and_leaks_nothing(reference, workload):
    remote = InProcess(reference)
    run = play(remote, workload)
    assert run.complaint is None and run.world.done
    assert sorted(remote._objects[0].bloques.libres) == list(range(workload.limits.num_blocks))


@QUICK
@given(data=st.data(), workload=loads(), turn=st.integers(0, 30))
def test_one_wrong_field_of_a_right_batch_is_found_at_once(reference, data, workload, turn):
    world = world_of(workload.requests, workload.limits, workload.secret)
    size, seen = workload.limits.block_size, []

    def mutate(batch):
        seen.append(batch)
        if len(seen) != turn + 1 or not batch:
            return batch
        item = data.draw(st.sampled_from(batch))
        field = data.draw(st.sampled_from(("id", "desde", "tokens", "bloques", "presente")))
        if field == "tokens":
            place = data.draw(st.integers(0, len(item["tokens"]) - 1))
            item["tokens"][place] += data.draw(st.sampled_from((-1, 1)))
        elif field == "desde":
            item["desde"] += data.draw(st.sampled_from((-1, 1)))
            known = world.progress[item["id"]].known
            assume(known[item["desde"] :][: len(item["tokens"])] != item["tokens"] or item["desde"] < 0)
        elif field == "bloques":
            place = data.draw(st.integers(0, len(item["bloques"]) - 1))
            other = data.draw(st.sampled_from((-1, workload.limits.num_blocks, "propio")))
            assume(other != "propio" or len(item["bloques"]) > 1)
            item["bloques"][place] = item["bloques"][place - 1] if other == "propio" else other
        elif field == "id":
            item["id"] = 99
        else:
            batch.append(dict(item))
        seen.append(f"paso {world.steps + 1}")
        return batch

    complaint = drive(InProcess(reference, mutate), world)
    assume(len(seen) > turn + 1 and isinstance(seen[turn + 1], str))
    assert complaint and complaint.startswith(f"{seen[turn + 1]}:") and size


def test_a_block_lost_to_another_request_is_found_by_its_content():
    world = started(6, 8)
    world.step([entry(world, 1, 0, 6, [0, 1])])
    world.step([entry(world, 2, 0, 8, [2, 0])])
    assert world.complaint is None
    world.step([entry(world, 1, 6, 7, [0, 1])])
    assert "el bloque 0 no guarda las posiciones 0 a 3 de la petición 1" in world.complaint
    assert "la petición 2, en el paso 2" in world.complaint


def test_a_restart_from_an_earlier_position_is_no_violation():
    world = started(6)
    for blocks in ([0, 1], [5, 3]):
        world.step([entry(world, 1, 0, len(world.progress[1].known), blocks)])
    oracle = Oracle(7, SMALL.block_size)
    assert world.complaint is None
    assert world.progress[1].text == oracle.text(world.progress[1].request.prompt, 2)


def test_a_full_block_of_the_same_prefix_is_shared_and_one_half_full_is_not():
    prompt = tuple(range(1, 7))
    requests = [Request(1, 0.0, prompt, 4), Request(2, 0.0, prompt, 4)]
    world = world_of(requests)
    world.arrivals()
    world.step([entry(world, 1, 0, 6, [0, 1])])
    world.step([entry(world, 1, 6, 7, [0, 1]), entry(world, 2, 4, 6, [0, 2])])
    assert world.complaint is None
    assert world.progress[1].text[0] == world.progress[2].text[0]
    world.step([entry(world, 1, 7, 8, [0, 1]), entry(world, 2, 6, 7, [0, 1])])
    assert "el bloque 1 lo usan a la vez" in world.complaint


def test_a_block_given_twice_in_one_step_is_found():
    world = started(6, 6)
    world.step([entry(world, 1, 0, 6, [0, 1]), entry(world, 2, 0, 6, [2, 1])])
    assert "el bloque 1 lo usan a la vez las peticiones" in world.complaint


def test_blocks_never_written_and_requests_unknown_or_over_are_found():
    world = started(6)
    world.step([entry(world, 1, 4, 6, [0, 1])])
    assert "nadie ha escrito en él" in world.complaint
    world = world_of([Request(1, 0.0, (5,), 1), Request(2, 9.0, (5,), 1)])
    world.arrivals()
    world.step([entry(world, 1, 0, 1, [0])])
    for ident, words in ((1, "ya terminó"), (2, "no ha llegado")):
        world.complaint = None
        world.step([entry(world, ident, 0, 1, [0])])
        assert words in world.complaint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
FIELD = JSON | st.integers(-1, 3) | st.lists(st.integers(-1, 12) | JSON, max_size=4)
NEARLY = st.fixed_dictionaries({"id": FIELD, "desde": FIELD, "tokens": FIELD, "bloques": FIELD})


@settings(max_examples=300, deadline=None)
@given(batch=JSON | st.lists(NEARLY, min_size=1, max_size=3))
def test_junk_of_any_shape_is_a_sentence_and_never_an_exception(batch):
    world = started(1, 2)
    outputs = world.step(batch)
    assert outputs if world.complaint is None and batch != [] else outputs == []
    assert world.complaint is None or 10 < len(world.complaint) < 400


def test_true_is_no_integer_and_the_limits_of_a_step_hold():
    world = started(20, 20)
    for batch, words in (
        ([{**entry(world, 1, 0, 1, [0]), "id": True}], "id True"),
        ([{**entry(world, 1, 0, 1, [0]), "desde": False}], "desde debe ser un entero"),
        ([{**entry(world, 1, 0, 1, [0]), "bloques": [False]}], "no es un entero"),
        ([{**entry(world, 1, 0, 1, [0]), "extra": 1}], "las claves"),
        ([entry(world, 1, 0, 20, [0, 1, 2, 3])], "ocupan 5 bloques"),
        ([entry(world, 1, 0, 20, [0, 1, 2, 3, 4]), entry(world, 2, 0, 5, [5, 6])], "max_tokens es 24"),
        ([{**entry(world, 1, 0, 1, [0]), "desde": 10**5000}], "un valor desmedido de tipo int"),
        ([{**entry(world, 1, 0, 1, [0]), "tokens": [-(10**5000)]}], "un valor desmedido de tipo int"),
        ([entry(world, 1, 0, 1, [0])] * 5, "max_peticiones es 4"),
        ([entry(world, 1, 0, 1, [0])] * 2, "dos veces"),
    ):
        world.complaint = None
        world.step(batch)
        assert words in (world.complaint or ""), batch


@pytest.mark.parametrize(
    ("answer", "words"),
    [("[]", "el sistema se queda parado"), ("self.primero()", "aún quedan peticiones sin terminar")],
)
def test_a_scheduler_that_gets_nowhere_is_stopped(answer, words):
    source = f"""
class Planificador:
    def __init__(self, limites): pass
    def llega(self, id, prompt, max_nuevos): self.p = (id, prompt)
    def primero(self): return [{{"id": self.p[0], "desde": 0, "tokens": self.p[1][:1], "bloques": [0]}}]
    def paso(self): return {answer}
    def recibe(self, salidas): assert salidas == []
"""
    world = world_of([Request(1, 0.0, (1, 2, 3), 2)])
    assert words in drive(InProcess(source), world)
    assert world.steps in (0, 10)


def test_an_exception_of_the_student_fails_the_case_and_the_play_does_not_catch_it():
    class Raising(InProcess):
        def run(self, handle, calls):
            raise StudentError("KeyError", "7")

    case = planificador_check(1).cases[0]
    result = play_case(case, Raising("class Planificador:\n    def __init__(self, limites): pass"))
    assert not result.passed and result.got == "KeyError: 7"


def test_a_workload_that_nobody_could_serve_is_its_authors_error():
    for requests in ([Request(1, 0.0, (1,) * 40, 2)], [Request(1, 0.0, (), 2)], [Request(1, 1.0, (1,), 1)] * 2):
        with pytest.raises(ValueError):
            world_of(requests)
