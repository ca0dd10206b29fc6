"""Hidden cases of lab 0. Names and hints are shown to students; arguments are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from minilab.pruebas.casos import Case, Check, Outcome, Remote
from minilab.pruebas.jugadas import refuses, tells_apart
from minilab.pruebas.publicas.l00 import BASE, PREDICTION, bench_play, ratio_judge, refusal_play
from minilab_grading.casos.p_sirve_y_demuestralo import percentile

# The student's cell holds a simulated computer too; this one is not theirs to change.
PRELUDE = """import time

class BancoDeQuienCorrige:
    def __init__(self, duraciones):
        self.duraciones, self.llamadas = duraciones, 0
        self.ahora = self.libre = 7000.0

    def funcion(self):
        self.ahora += 0.001
        self.libre = max(self.libre, self.ahora) + self.duraciones[self.llamadas]
        self.llamadas += 1

    def reloj(self):
        return self.ahora

    def sincroniza(self):
        self.ahora = max(self.ahora, self.libre)

    def mide(self, veces, calienta):
        medida = mide_funcion(self.funcion, veces, calienta, self.reloj, self.sincroniza)
        return {**medida, "llamadas": self.llamadas}

    def mide_sin_esperar(self, veces, calienta):
        return {**mide_funcion(self.funcion, veces, calienta, self.reloj, None), "llamadas": self.llamadas}
"""
IMPORTS = ()
BENCH = "BancoDeQuienCorrige"


def checks(seed: int) -> dict[str, Check]:
    """All checks of the notebook, with cases that depend on ``seed`` alone."""
    rng = Random(seed)
    return {
        "prueba_prediccion": Check("prediccion_l00", "mi_prediccion", ("prediccion",), (PREDICTION,)),
        "prueba_percentil": Check("percentil", "percentil", ("percentil",), _percentile(rng)),
        "prueba_medidas_de": Check("medidas_de", "medidas_de", ("medidas_de",), _measures(rng)),
        "prueba_throughput": Check("throughput", "throughput", ("throughput",), _throughput(rng)),
        "prueba_mide_funcion": Check("mide_funcion", "mide_funcion", ("percentil", "mide_funcion"), _timing(rng)),
        "prueba_razon_honesta": Check("razon_honesta", "razon_honesta", ("razon_honesta",), _ratio(rng)),
        "prueba_bases": Check("bases_que_cumplen", "bases_que_cumplen", ("bases_que_cumplen",), _claim(rng)),
    }


def _percentile(rng: Random) -> tuple[Case, ...]:
    lists = {
        "un solo valor": ([rng.uniform(1, 9)], rng.choice([1, 50, 99])),
        "todos iguales": ([rng.uniform(1, 9)] * 6, 95),
        "el menor": ([rng.uniform(-9, 9) for _ in range(7)], 0),
        "el mayor": ([rng.uniform(-9, 9) for _ in range(8)], 100),
        "ordenada al revés": (sorted((rng.expovariate(1) for _ in range(20)), reverse=True), 95),
        "la cola de cien": ([rng.expovariate(1) for _ in range(100)], 99),
        "percentil no entero": ([rng.gauss(0, 5) for _ in range(40)], rng.uniform(1, 99)),
        "dos grupos lejanos": ([1.0] * 10 + [rng.uniform(90, 99)] * 10, 50),
    }
    hint = "Repasa la posición (n − 1)·p/100 y la interpolación; no supongas que la lista llega ordenada."
    cases = [Case(name=n, args=a, expected=percentile(*a), hint=hint) for n, a in lists.items()]
    good = lists["percentil no entero"]
    return (
        *cases,
        _refused("percentil", "lista vacía", good, percentile(*good), ([], 95), "Sin datos no hay percentil."),
    )


def _refused(function: str, name: str, good: Sequence[Any], expected: Any, bad: Sequence[Any], hint: str) -> Case:
    """A call that must be refused beside one that must not: refusing everything earns nothing."""
    return Case(name=name, args=(), play=tells_apart(function, good, expected, bad), hint=hint)


def measures(start: float, times: list[float]) -> dict[str, Any]:
    """The oracle: latencies of one request in seconds."""
    ordered = sorted(times)
    gaps = [b - a for a, b in pairwise(ordered)]
    mean = (ordered[-1] - ordered[0]) / len(gaps) if gaps else None
    return {"ttft": ordered[0] - start, "itl": gaps, "tpot": mean, "total": ordered[-1] - start}


def _measures(rng: Random) -> tuple[Case, ...]:
    def times(start: float, count: int) -> list[float]:
        found = [start + rng.uniform(0.2, 3)]
        for _ in range(count - 1):
            found.append(found[-1] + rng.choice([0.0, rng.uniform(0.01, 0.2)]))
        return found

    far = rng.uniform(1e3, 1e4)
    shuffled = times(far, 12)
    rng.shuffle(shuffled)
    good = {
        "reloj que no empieza en cero": (far, times(far, 30)),
        "anotados en desorden": (far, shuffled),
        "un solo token": (far, times(far, 1)),
        "dos tokens a la vez": (0.0, [0.5, 0.5]),
        "token en el mismo instante del inicio": (2.0, [2.0, 2.5]),
        "respuesta larga": (0.0, times(0.0, 200)),
    }
    hint = "Ordena los instantes; el TTFT es el primero menos el inicio, y los huecos son uno menos que los tokens."
    cases = [Case(name=n, args=a, expected=measures(*a), hint=hint) for n, a in good.items()]
    refuse = "Sin tokens, o con un token anterior al inicio, lanza ValueError."
    bad = {
        "sin tokens": (far, []),
        "un token antes del inicio": (far, [*times(far, 3), far - 0.01]),
        "todos antes del inicio": (far, [far - 2, far - 1]),
    }
    right = good["reloj que no empieza en cero"]
    return (*cases, *(_refused("medidas_de", n, right, measures(*right), a, refuse) for n, a in bad.items()))


def _throughput(rng: Random) -> tuple[Case, ...]:
    def requests(count: int, apart: float, start: float = 0.0) -> list[dict[str, Any]]:
        made = []
        for i in range(count):
            begin = start + i * apart
            made.append({"inicio": begin, "fin": begin + rng.uniform(0.5, 4), "tokens": rng.randrange(1, 90)})
        rng.shuffle(made)
        return made

    lists = {
        "cincuenta a la vez": requests(50, 0.0),
        "llegadas escalonadas": requests(9, 0.7, 300.0),
        "una sola": requests(1, 0.0, 12.0),
        "un rato sin nadie": [*requests(2, 0.1), {"inicio": 60.0, "fin": 61.5, "tokens": rng.randrange(5, 50)}],
        "una sin tokens": [*requests(3, 0.2), {"inicio": 0.0, "fin": 9.0, "tokens": 0}],
        "la última en empezar acaba antes": [
            {"inicio": 0.0, "fin": 9.0, "tokens": 40},
            {"inicio": 1.0, "fin": 2.0, "tokens": rng.randrange(5, 50)},
        ],
    }
    hint = "Todos los tokens entre (último fin − primer inicio), venga la lista como venga."
    cases = [Case(name=n, args=(made,), expected=system_speed(made), hint=hint) for n, made in lists.items()]
    refuse = "Sin peticiones, o si el tiempo no pasa, lanza ValueError."
    good = lists["llegadas escalonadas"]
    bad = {"ninguna petición": [], "el tiempo no pasa": [{"inicio": 3.0, "fin": 3.0, "tokens": 5}]}
    refused = (_refused("throughput", n, (good,), system_speed(good), (b,), refuse) for n, b in bad.items())
    return (*cases, *refused)


def system_speed(requests: list[dict[str, Any]]) -> float:
    """The oracle: tokens per second of the whole system."""
    elapsed = max(p["fin"] for p in requests) - min(p["inicio"] for p in requests)
    return sum(p["tokens"] for p in requests) / elapsed


def _timing(rng: Random) -> tuple[Case, ...]:
    def durations(count: int) -> list[float]:
        return [round(rng.uniform(0.05, 0.9), 3) for _ in range(count)]

    shapes = {
        "calentamiento lento": ([5.0, *durations(5)], 5, 1, "mide"),
        "dos de calentamiento": (durations(6), 4, 2, "mide"),
        "sin calentamiento": (durations(3), 3, 0, "mide"),
        "una sola lectura": ([rng.uniform(2, 3), rng.uniform(0.1, 0.5)], 1, 1, "mide"),
        "número par de lecturas": (durations(7), 6, 1, "mide"),
        "sin nada que esperar": (durations(4), 3, 1, "mide_sin_esperar"),
    }
    hint = "Calienta, espera, lee el reloj, llama, espera y vuelve a leerlo; y así cada lectura."
    cases = [Case(name=name, args=(), play=bench_play(BENCH, *shape), hint=hint) for name, shape in shapes.items()]
    refuse = "Con veces menor que 1 o calienta negativo, lanza ValueError."
    for name, runs, warm_up in (("cero lecturas", 0, 1), ("calentamiento negativo", 2, -1)):
        cases.append(Case(name=name, args=(), play=_measures_then_refuses(durations(3), runs, warm_up), hint=refuse))
    return tuple(cases)


def _measures_then_refuses(durations: list[float], runs: int, warm_up: int) -> Callable[[Remote], Outcome]:
    measured = bench_play(BENCH, durations, 2, 1)

    def play(remote: Remote) -> Outcome:
        if (outcome := measured(remote)).complaint is not None:
            return outcome
        return refuses(remote, "mide_funcion", (None, runs, warm_up), "ese número de lecturas no vale", "")

    return play


def _ratio(rng: Random) -> tuple[Case, ...]:
    def card(**changes: Any) -> dict[str, Any]:
        return {**BASE, "prompts": count, "nuevos": new, "tok_s": rng.uniform(5, 40), **changes}

    count, new = rng.randrange(2, 60), rng.randrange(8, 128)
    hint = "Compara todos los campos de IGUALES; solo si están y coinciden en las dos hay razón, y nombra su base."
    cases = []
    for name, factor in (("más rápido", rng.uniform(2, 30)), ("más lento", rng.uniform(0.2, 0.9))):
        base = card(sistema=f"motor-{rng.randrange(10**6)}", modo=f"lote de {rng.randrange(2, 99)}")
        ours = card(sistema="minillm", modo="todas a la vez", tok_s=base["tok_s"] * factor)
        cases.append(Case(name=name, args=(base, ours), judge=ratio_judge(base, ours), hint=hint))
    for field, other in (("modelo", "otro"), ("dtype", "int8"), ("equipo", "H100"), ("prompts", 1), ("nuevos", 7)):
        play = refusal_play(card(), card(sistema="minillm", **{field: other}), field)
        cases.append(Case(name=f"difiere {field}", args=(), play=play, hint=hint))
    whole = card()
    for field in ("dtype", "prompts"):
        less = {k: v for k, v in whole.items() if k != field}
        cases.append(
            Case(name=f"falta {field} en la medida", args=(), play=refusal_play(whole, less, field), hint=hint)
        )
        cases.append(Case(name=f"falta {field} en las dos", args=(), play=refusal_play(less, less, field), hint=hint))
    return tuple(cases)


def _claim(rng: Random) -> tuple[Case, ...]:
    def case(name: str, speeds: dict[str, float], low: float, high: float, hint: str) -> Case:
        mine = speeds["motor"]
        true = sorted(b for b, v in speeds.items() if b != "motor" and low <= mine / v <= high)
        return Case(name=name, args=(speeds, "motor", low, high), expected=true, hint=hint)

    def speeds(*ratios: float) -> dict[str, float]:
        mine = rng.uniform(50, 500)
        names = [f"{rng.choice('zyxwv')}{rng.randrange(10**6)}" for _ in ratios]
        return {"motor": mine} | {n: mine / r for n, r in zip(names, ratios, strict=True)}

    exact = {"motor": 100.0, "b": 20.0, "a": 5.0, "c": 4.0}
    order = "Ordena los nombres alfabéticamente."
    return (
        case("los dos extremos cuentan", exact, 5, 20, "Mínimo y máximo están incluidos."),
        case("varias bases", speeds(6, 9, 1.5, 30, 12, 7), 5, 20, order),
        case("ninguna base", speeds(1.1, 40), 5, 20, "Si no hay ninguna, la lista queda vacía."),
        case("el motor pierde", speeds(0.3, 0.5, 3), 0.1, 1, "La razón puede ser menor que 1."),
        case("está el propio sistema", speeds(1.2, 0.9), 0.5, 2, "El sistema no es su propia base."),
    )
