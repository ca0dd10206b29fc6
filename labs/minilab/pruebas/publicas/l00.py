"""The public checks of lab 0: what a student may see. ``percentil`` is project P's own check."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from minilab.pruebas.casos import Case, Check, Outcome, Remote, Reply
from minilab.pruebas.jueces import positive_numbers
from minilab.pruebas.jugadas import refuses
from minilab.pruebas.planos import equal
from minilab.pruebas.publicas.p import CHECKS as PROJECT

BASE: dict[str, Any] = {
    "sistema": "transformers",
    "modo": "una a una",
    "modelo": "smollm2-135m",
    "dtype": "float32",
    "equipo": "portátil",
    "prompts": 12,
    "nuevos": 32,
    "tok_s": 10.0,
}
OURS = {**BASE, "sistema": "minillm", "modo": "todas a la vez", "tok_s": 75.0}
SPEEDS = {"una a una": 10.0, "en lote": 60.0, "motor": 90.0}


def bench_play(
    bench: str, durations: Sequence[float], runs: int, warm_up: int, method: str = "mide"
) -> Callable[[Remote], Outcome]:
    """Measure on a simulated computer of class ``bench`` (see the cell of ``mide_funcion``) and judge each reading.

    method ``mide`` waits for the device; ``mide_sin_esperar`` gives no ``sincroniza``: a reading is the launch alone.
    """
    real = list(durations[warm_up : warm_up + runs]) if method == "mide" else [0.0] * runs
    readings = [0.001 + d for d in real]

    def play(remote: Remote) -> Outcome:
        [got] = remote.run(remote.new(bench, list(durations)), [(method, (runs, warm_up))])
        if not isinstance(got, dict) or not {"mediana", "minimo", "maximo", "lecturas", "llamadas"} <= got.keys():
            return Outcome("un diccionario con mediana, minimo, maximo y lecturas")
        if got["llamadas"] != runs + warm_up:
            return Outcome(
                f"{runs + warm_up} llamadas a la función ({warm_up} de calentamiento); hubo {got['llamadas']}"
            )
        if not equal(readings, got["lecturas"], 1e-6):
            return Outcome(f"se esperaban las lecturas {_seconds(readings)} y salieron {_seconds(got['lecturas'])}")
        middle = sorted(readings)
        median = (middle[(runs - 1) // 2] + middle[runs // 2]) / 2
        for name, value in (("mediana", median), ("minimo", middle[0]), ("maximo", middle[-1])):
            if not equal(value, got[name], 1e-6):
                return Outcome(f"se esperaba {name} = {value:.3f} y salió {got[name]}")
        return Outcome()

    return play


def _seconds(readings: Any) -> str:
    if not isinstance(readings, list) or not all(type(r) in (int, float) for r in readings):
        return str(readings)[:60]
    return "[" + ", ".join(f"{r:.3f}" for r in readings) + "]"


def ratio_judge(base: dict[str, Any], ours: dict[str, Any]) -> Callable[[Reply], str | None]:
    """The ratio of the speeds, and a sentence in which it stands beside the baseline's system and mode."""
    ratio = ours["tok_s"] / base["tok_s"]

    def judge(reply: Reply) -> str | None:
        value = reply.value
        if not isinstance(value, dict) or sorted(value) != ["frase", "razon"] or not isinstance(value["frase"], str):
            return "un diccionario con razon (número) y frase (texto)"
        if type(value["razon"]) not in (int, float) or not math.isclose(value["razon"], ratio, rel_tol=1e-9):
            return f"razon = {ratio:.4g}"
        for part in (f"{ratio:.1f}×", base["sistema"], base["modo"]):
            if part not in value["frase"]:
                return f"una frase que diga «{part}»"
        return None

    return judge


def refusal_play(base: dict[str, Any], ours: dict[str, Any], field: str) -> Callable[[Remote], Outcome]:
    """``razon_honesta`` must raise ValueError and name ``field``, and still compare two measurements that allow it."""
    expected = ratio_judge(BASE, OURS)

    def play(remote: Remote) -> Outcome:
        if complaint := expected(Reply(remote.function("razon_honesta", BASE, OURS))):
            return Outcome(f"para dos medidas comparables se esperaba {complaint}")
        return refuses(remote, "razon_honesta", (base, ours), f"estas dos medidas no coinciden en {field}", field)

    return play


def _measures(name: str, start: float, times: list[float], expected: Any, hint: str) -> Case:
    error = {"error": "ValueError"} if expected is None else {"expected": expected}
    return Case(name=name, args=(start, times), hint=hint, **error)


MEASURES = (
    _measures(
        "cuatro tokens",
        10.0,
        [10.5, 10.6, 10.7, 11.2],
        {"ttft": 0.5, "itl": [0.1, 0.1, 0.5], "tpot": 0.7 / 3, "total": 1.2},
        "TTFT: primer token − inicio. ITL: cada hueco entre dos tokens seguidos. TPOT: su media, sin contar el TTFT.",
    ),
    _measures(
        "un solo token",
        0.0,
        [0.25],
        {"ttft": 0.25, "itl": [], "tpot": None, "total": 0.25},
        "Con un token no hay huecos: itl es [] y tpot es None.",
    ),
    _measures(
        "anotados en desorden",
        5.0,
        [5.6, 5.4, 5.5],
        {"ttft": 0.4, "itl": [0.1, 0.1], "tpot": 0.1, "total": 0.6},
        "Ordena los instantes antes de restar: los hilos anotan cuando pueden.",
    ),
    _measures("sin tokens", 1.0, [], None, "Sin tokens no hay nada que medir: lanza ValueError."),
    _measures("relojes que no coinciden", 7.0, [6.9, 7.2], None, "Un token anterior al inicio: lanza ValueError."),
)

THROUGHPUT = (
    Case(
        name="dos a la vez",
        args=([{"inicio": 0.0, "fin": 2.0, "tokens": 30}, {"inicio": 0.0, "fin": 4.0, "tokens": 50}],),
        expected=20.0,
        hint="Tokens de todas entre el tiempo de reloj: del primer inicio al último fin. No sumes velocidades.",
    ),
    Case(
        name="una detrás de otra",
        args=([{"inicio": 102.0, "fin": 104.0, "tokens": 10}, {"inicio": 100.0, "fin": 102.0, "tokens": 30}],),
        expected=10.0,
        hint="La lista puede llegar en cualquier orden y el reloj no empieza en 0: usa min y max.",
    ),
    Case(name="ninguna petición", args=([],), error="ValueError", hint="Sin peticiones, lanza ValueError."),
)

TIMING = (
    Case(
        name="la primera vez es lenta",
        args=(),
        play=bench_play("Banco", [0.9, 0.2, 0.1, 0.3], 3, 1),
        hint="Calienta antes de leer el reloj; antes y después de cada lectura, espera con sincroniza().",
    ),
    Case(
        name="sin nada que esperar",
        args=(),
        play=bench_play("Banco", [0.5, 0.5], 2, 0, "mide_sin_esperar"),
        hint="Si sincroniza es None, no hay nada que esperar.",
    ),
)

RATIO = (
    Case(
        name="dos medidas comparables",
        args=(BASE, OURS),
        judge=ratio_judge(BASE, OURS),
        hint="razon = tok/s de la medida entre tok/s de la base; la frase nombra sistema y modo de la base.",
    ),
    Case(
        name="otra precisión",
        args=(),
        play=refusal_play(BASE, {**OURS, "dtype": "int8"}, "dtype"),
        hint="Recorre IGUALES; si un campo difiere, lanza ValueError con su nombre en el mensaje.",
    ),
    Case(
        name="ninguna dice sus tokens",
        args=(),
        play=refusal_play(*({k: v for k, v in m.items() if k != "nuevos"} for m in (BASE, OURS)), "nuevos"),
        hint="Que falte en las dos no es que coincida: comprueba también que el campo está.",
    ),
)

CLAIM = (
    Case(
        name="solo una base la hace cierta",
        args=(SPEEDS, "motor", 5, 20),
        expected=["una a una"],
        hint="Divide la velocidad del sistema entre la de cada base; quédate con las que caen entre mínimo y máximo.",
    ),
    Case(
        name="un sistema no es su propia base",
        args=(SPEEDS, "motor", 1, 2),
        expected=["en lote"],
        hint="Comparar el sistema consigo mismo siempre da 1: sáltatelo.",
    ),
)

PREDICTION = Case(
    name="dos números",
    args=(),
    judge=positive_numbers(("lote", "frio")),
    hint="Escribe los dos números que esperas medir.",
)

CHECKS: dict[str, Check] = {
    "percentil": PROJECT["percentil"],
    **{
        check.name: check
        for check in (
            Check("prediccion_l00", "mi_prediccion", ("prediccion",), (PREDICTION,)),
            Check("medidas_de", "medidas_de", ("medidas_de",), MEASURES),
            Check("throughput", "throughput", ("throughput",), THROUGHPUT),
            Check("mide_funcion", "mide_funcion", ("percentil", "mide_funcion"), TIMING),
            Check("razon_honesta", "razon_honesta", ("razon_honesta",), RATIO),
            Check("bases_que_cumplen", "bases_que_cumplen", ("bases_que_cumplen",), CLAIM),
        )
    },
}
