"""The meters of the clock: what a ratio earns, that the real model cannot be fooled, that old measures judge alike."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from meter_jobs import job

from minilab.modelo import make_tiny_model
from minilab.pruebas.remoto import LocalRemote
from minilab.reloj.motor_real import RunnerBackend, load_model
from minilab.reloj.mundo import World, drive
from minilab.reloj.reglas import Limits, Request
from minilab_grading import medidores
from minilab_grading.arnes.calificar import all_missed
from minilab_grading.casos.reloj_real import real_clock_check
from minilab_grading.curso.ordenes import _meters
from minilab_grading.medidores import planificador_referencia
from minilab_grading.medidores.banco import Bank, MeterError
from minilab_grading.medidores.cargas import Chats, chats
from minilab_grading.medidores.estadistica import enough, interval, ramp, target_for
from minilab_grading.medidores.juicio import judge_ratio
from minilab_grading.medidores.reloj_contado import CountedClock
from minilab_grading.medidores.reloj_real import CEILING_FILE, RealClock
from minillm_serve import LLM, SamplingParams

REFERENCE = inspect.getsource(planificador_referencia)
SEQUENTIAL = (
    REFERENCE
    + """
Base = Planificador
class Planificador(Base):
    def __init__(self, limits):
        super().__init__({**limits, "max_peticiones": 1})
"""
)
STATIC = (
    REFERENCE
    + """
Base = Planificador
class Planificador(Base):
    def __init__(self, limits):
        super().__init__(limits)
        self.queue, self.places = [], limits["max_peticiones"]

    def llega(self, *request):
        self.queue.append(request)

    def paso(self):
        while self.queue and not self._known:
            for request in self.queue[: self.places]:
                super().llega(*request)
            self.queue = self.queue[self.places :]
        return super().paso()
"""
)
LYING = REFERENCE.replace('"tokens": tokens,', '"tokens": [1] * len(tokens),')


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("modelo") / "mini")


@pytest.fixture(scope="module")
def counted() -> Iterator[CountedClock]:
    meter = CountedClock()
    yield meter
    meter.close()


def test_the_ramp_is_published_point_by_point() -> None:
    points = {0.4: 0, 1.0: 0, 2.0: 0.3, 3.0: 0.6, 4.0: 0.8, 5.0: 1, 60.0: 1}
    assert {ratio: pytest.approx(ramp(ratio)) for ratio in points} == points
    assert ramp(2.4, target=4) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="cannot tell"):
        ramp(2, target=1.5)


def test_a_slow_host_is_scored_against_its_own_ceiling() -> None:
    assert [target_for(c) for c in (None, 9.0, 6.25, 5.0)] == [5, 5, 5, 4]


def test_the_interval_is_the_order_statistics_of_the_median() -> None:
    assert interval(list(range(1, 10))) == (2, 8)
    assert interval(list(range(15, 0, -1))) == (4, 12)
    assert interval([3.0, 1.0]) == (1.0, 3.0)
    with pytest.raises(ValueError, match="no values"):
        interval([])


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    rng, covered = Random(1), 0
    for _ in range(2000):
        low, high = interval([rng.lognormvariate(0, 0.5) for _ in range(9)])
        covered += low <= 1 <= high
    assert 0.94 < covered / 2000 < 0.98  # 1 - 2 (1 + 9) / 2^9 = 0.961


def test_pairs_go_on_only_while_the_target_is_in_doubt() -> None:
    assert not enough([9.0] * 8, 5)
    assert enough([9.0] * 9, 5) and enough([2.0] * 9, 5)
    assert not enough([4.0, 6.0] * 5, 5)
    assert enough([4.0, 6.0] * 7 + [5.0], 5)


def test_recorded_pairs_are_judged_by_their_median() -> None:
    case = real_clock_check(1).cases[0]
    measures = {"pares": [[6.0, 2.0]] * 5 + [[60.0, 2.0]] * 4, "tokens": [10, 10], "techo": 9.0}
    result = judge_ratio(case, measures)
    assert (result.passed, result.credit, result.note) == (
        False,
        pytest.approx(0.6),
        "3,0× (intervalo del 90 %: 3,0–30,0)",
    )
    full = judge_ratio(case, {**measures, "techo": 3.2})
    assert full.passed and "en este equipo la nota completa pide 2,6×" in full.note


@pytest.mark.parametrize(("source", "credit"), [(REFERENCE, 1.0), (SEQUENTIAL, 0.0)])
def test_the_counted_clock_knows_the_best_and_the_worst(counted, source: str, credit: float) -> None:
    mark = counted.measure(job(real_clock_check(7), {"planificador": source}))
    assert mark.fraction == credit and mark.measures["modo"] == "reloj contado"
    if source is SEQUENTIAL:
        base, own = mark.measures["pares"][0]
        assert base == own  # the same steps in the same order: not one bit apart


def test_the_counted_clock_tells_static_batches_from_continuous_ones(counted) -> None:
    static = counted.measure(job(real_clock_check(7), {"planificador": STATIC}))
    continuous = counted.measure(job(real_clock_check(7), {"planificador": REFERENCE}))
    assert 0.3 < static.fraction < 0.9 < continuous.fraction
    assert static.measures["mediana"] < 0.75 * continuous.measures["mediana"]


def test_counted_measures_repeat_to_the_last_digit_and_are_judged_again_unmeasured(counted) -> None:
    first = counted.measure(job(real_clock_check(7), {"planificador": STATIC}))
    other = CountedClock()
    second = other.measure(job(real_clock_check(7), {"planificador": STATIC}))
    other.close()
    assert first == second
    recorded = json.loads(json.dumps(first.measures))
    again = CountedClock().measure(job(real_clock_check(7), {"planificador": "raise SystemExit"}, measures=recorded))
    assert json.dumps(again.measures) == json.dumps(first.measures) and again.results == first.results


def test_forged_tokens_and_broken_schedulers_earn_nothing_and_say_why(counted) -> None:
    lying = counted.measure(job(real_clock_check(7), {"planificador": LYING}))
    assert lying.fraction == 0 and "paso 1" in lying.notice
    raising = counted.measure(
        job(real_clock_check(7), {"planificador": REFERENCE.replace("batch, room", "1 / 0; batch, room")})
    )
    assert raising.fraction == 0 and "ZeroDivisionError" in raising.results[0].expected
    dead = counted.measure(
        job(
            real_clock_check(7),
            {"planificador": REFERENCE + "\nimport os\nPlanificador.paso = lambda s: os._exit(3)\n"},
        )
    )
    assert dead.fraction == 0 and "terminó" in dead.notice
    assert counted.measure(job(real_clock_check(7), {"planificador": REFERENCE})).fraction == 1


def test_a_scheduler_that_was_never_right_is_not_measured() -> None:
    check = real_clock_check(7)
    untimed = {"prueba_planificador": all_missed(check, "")}
    mark = CountedClock().measure(job(check, {"planificador": REFERENCE}, untimed=untimed))
    assert mark.fraction == 0 and "no se midió" in mark.notice and mark.measures is None


class Still:
    """A clock for runs whose time is of no interest."""

    def now(self) -> float:
        return 0.0

    def charge(self, items) -> None:
        """Nothing costs anything."""

    def wait_until(self, moment: float) -> None:
        """Nothing is late."""


def test_the_real_model_draws_what_the_engine_draws(tiny: Path) -> None:
    """Chunked prefill (64 tokens a step), a preemption into other blocks, and a prefix that another request filled."""
    rng = Random(3)
    common = [rng.randrange(40, 130) for _ in range(32)]
    prompts = {i: common + [rng.randrange(40, 130) for _ in range(extra)] for i, extra in enumerate((5, 21, 40))}
    with LLM(model=str(tiny), kernels="torch") as llm:
        params = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True)
        outputs = llm.generate(list(prompts.values()), params)
    expected = [list(o.outputs[0].token_ids) for o in outputs]
    backend = RunnerBackend(load_model(tiny), prompts, 6, num_blocks=32, block_size=16)
    world = World([Request(i, 0.0, tuple(p), 6) for i, p in prompts.items()], Limits(4, 64, 32, 16), backend, Still())

    class Erratic:
        """Its batches are written down beforehand, for each step: (id, from, how many, first block)."""

        def __init__(self, limits):
            self.known = {}
            self.steps = iter([
                [(0, 0, 32, 0)], [(0, 32, 5, 0)],
                [(0, 37, 1, 0), (1, 32, 21, 0)],  # request 1 begins in the blocks that request 0 filled
                [(0, 38, 1, 0), (1, 53, 1, 0)],
                [(1, 0, 40, 20)], [(1, 40, 15, 20), (0, 39, 1, 0)],  # request 1 again from the start, elsewhere
                [(2, 0, 30, 10), (0, 40, 1, 0), (1, 55, 1, 20)], [(2, 30, 30, 10)], [(2, 60, 12, 10)],
            ])  # fmt: skip

        def llega(self, ident, prompt, most):
            self.known[ident] = (list(prompt), len(prompt) + most)

        def paso(self):
            planned = next(self.steps, None)
            if planned is None:
                planned = [
                    (i, len(k) - 1, 1, {0: 0, 1: 20, 2: 10}[i]) for i, (k, end) in self.known.items() if len(k) < end
                ]
            return [
                {
                    "id": i,
                    "desde": start,
                    "tokens": self.known[i][0][start : start + n],
                    "bloques": self.table(i, first, start + n),
                }
                for i, start, n, first in planned
            ]

        def table(self, ident, first, end):
            shared = [0, 1] if ident == 1 and first == 0 else []
            count = -(-end // 16)
            return (shared + list(range(6 if shared else first, 32)))[:count]

        def recibe(self, outputs):
            for output in outputs:
                self.known[output["id"]][0].append(output["token"])

    assert drive(LocalRemote({"Planificador": Erratic}), world) is None
    assert [world.progress[i].text for i in prompts] == expected


def test_a_bank_forks_fresh_runs_and_survives_one_that_fails(tiny: Path) -> None:
    bank = Bank("motor", tiny)
    setup = {"prompts": {0: [50, 51, 52]}, "max_new": 4, "bloques": 4, "tam_bloque": 16}
    tokens = []
    for _ in range(2):
        with bank.run(1, **setup) as run:
            tokens.append(run.ask("paso", lote=[[0, 0, [50, 51, 52], [2], True]]))
    assert tokens[0] == tokens[1]
    with pytest.raises(MeterError, match="KeyError"), bank.run(1, **setup) as run:
        run.ask("paso", lote=[[9, 0, [50], [2], True]])
    with bank.run(1, **setup) as run:
        assert run.ask("paso", lote=[[0, 0, [50, 51, 52], [2], True]]) == tokens[0]
    bank.close()


def test_the_real_clock_measures_pairs_on_a_real_model(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")

    def few(rng: Random) -> Chats:
        return chats(rng, count=4, max_new=4)

    meter = RealClock(tiny, threads=1, course=tmp_path, least=2, most=2, make_chats=few)
    meter._ceiling, meter._ceiling_known = 30.0, True  # the tiny model's own depends on this machine's noise
    check = real_clock_check(7)
    mark = meter.measure(job(check, {"planificador": REFERENCE}))
    measures = mark.measures
    assert measures["modo"] == "reloj real" and measures["tokens"] == [4, 16] and len(measures["pares"]) == 2
    assert all(seconds > 0 for pair in measures["pares"] for seconds in pair)
    assert measures["lote_con_relleno"]["tokens"] == 16 and len(measures["entorno"]["modelo_sha256"]) == 64
    again = RealClock(tiny).measure(job(check, {}, measures=json.loads(json.dumps(measures))))
    assert again.results == mark.results and json.dumps(again.measures) == json.dumps(measures)
    meter.close()


def test_the_ceiling_is_kept_for_one_machine_and_is_nothing_where_the_machine_was_busy(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = iter([[10.0, 1.0]] * 5 + [[10.0, 1.0], [10.0, 2.0]] * 8)
    monkeypatch.setattr(RealClock, "_baseline", lambda self, asked: (next(runs)[0], []))
    seconds = iter([1.0] * 5 + [1.0, 2.0] * 8)
    monkeypatch.setattr(RealClock, "_scheduler", lambda self, *a: next(seconds))
    calm = RealClock(tiny, threads=1, course=tmp_path)
    assert calm.ceiling() == pytest.approx(120)  # 10 s for 8 tokens against 1 s for 96
    assert json.loads((tmp_path / CEILING_FILE).read_text())["techo"] == calm.ceiling()
    assert RealClock(tiny, threads=1, course=tmp_path).ceiling() == calm.ceiling()
    assert RealClock(tiny, threads=2, course=tmp_path).ceiling() is None and target_for(None) == 5
    monkeypatch.setattr(RealClock, "_measure_ceiling", lambda *a: 3.5)
    with pytest.raises(MeterError, match="no sirve para medir"):
        RealClock(tiny, threads=3, course=tmp_path).ceiling()


def test_prompts_of_a_run_are_all_different_from_their_first_token_on() -> None:
    asked = chats(Random(5))
    assert len(asked.texts) == 12 and len({t.partition(".")[0] for t in asked.texts}) == 12
    assert set(asked.texts).isdisjoint(chats(Random(6)).texts)


def test_meters_are_chosen_by_mode(tmp_path: Path) -> None:
    assert set(medidores.meters("contado", "no")) == {"reloj_real"}
    assert medidores.meters("no", "no") == {}
    with _meters(tmp_path, "no", "traza") as chosen:  # one without the other, from the command line too
        assert set(chosen) == {"vllm"}
    with pytest.raises(ValueError, match="modes are"):
        medidores.meters("virtual")
    with pytest.raises(MeterError, match="minillm model get"):
        medidores.meters("real", "no", model="no-existe")
