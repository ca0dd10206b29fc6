"""Hidden cases of lab 5. Names and hints are shown to students; arguments are not.

Moments, rates and units of the token bucket are multiples of 1/8 and powers of two: no sum is rounded, so that "just
enough" is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from minilab.pruebas.casos import Case, Check, Outcome, Remote, StudentError
from minilab.pruebas.especulacion import MANY_SOURCE, exactly
from minilab.pruebas.jueces import positive_numbers
from minilab.pruebas.prefijos import (
    Call,
    best_budget,
    bucket_answers,
    hit_share,
    longest_gap,
    no_birthday,
    repeatable,
    shaped,
    split,
    strong,
    told_apart,
)
from minilab.pruebas.publicas.l05 import PREDICTED

PRELUDE = f"import hashlib\n{MANY_SOURCE}"
IMPORTS: tuple[str, ...] = ()

HIGHEST = 2**32 - 1


def checks(seed: int) -> dict[str, Check]:
    """All checks of the notebook, with cases that depend on ``seed`` alone."""
    rng = Random(seed)
    return {
        "prueba_prediccion": Check("prediccion_l05", "mi_prediccion", ("prediccion",), _prediction()),
        "prueba_reparte_presupuesto": Check(
            "reparte_presupuesto", "reparte_presupuesto", ("reparte_presupuesto",), _share(rng)
        ),
        "prueba_mayor_hueco": Check("mayor_hueco", "mayor_hueco", ("mayor_hueco",), _gap(rng)),
        "prueba_clave_de_bloque": Check("clave_de_bloque", "clave_de_bloque", ("clave_de_bloque",), _key(rng)),
        "prueba_aciertos": Check("aciertos", "aciertos", ("clave_de_bloque", "aciertos"), _hits(rng)),
        "prueba_cubo_de_fichas": Check("cubo_de_fichas", "CuboDeFichas", ("cubo_de_fichas",), _bucket(rng)),
        "prueba_elige_presupuesto": Check(
            "elige_presupuesto", "elige_presupuesto", ("elige_presupuesto",), _choice(rng)
        ),
    }


def _prediction() -> tuple[Case, ...]:
    hint = "Devuelve tus dos números, mayores que 0."
    return (Case(name="predicción escrita", args=(), judge=positive_numbers(PREDICTED), hint=hint),)


def _many(
    name: str, function: str, arguments: Sequence[Any], oracle: Callable[..., Any], hint: str, weight: float = 1.0
) -> Case:
    play = exactly(function, arguments, [oracle(*a) for a in arguments])
    return Case(name=name, args=(), play=play, hint=hint, weight=weight)


# ---- The budget of a step


def _share(rng: Random) -> tuple[Case, ...]:
    def queue(active: int, waiting: int, longest: int) -> tuple[list[int], list[list[int]]]:
        ids = rng.sample(range(1000), active + waiting)
        return ids[:active], [[i, rng.randint(1, longest)] for i in ids[active:]]

    tight = [(*queue(rng.randrange(6), rng.randrange(1, 6), 40), rng.randint(1, 60)) for _ in range(40)]
    exact = [(active, waiting, len(active) + sum(m for _, m in waiting)) for active, waiting, _ in tight]
    edge = [(active, waiting, len(active) + waiting[0][1]) for active, waiting, _ in tight]
    starved = [(*queue(8, 3, 40), rng.randint(1, 8)) for _ in range(20)]
    return (
        _many("presupuestos cualesquiera", "reparte_presupuesto", tight, split, "Suma lo repartido: nunca pasa.", 2.0),
        _many("cabe todo, justo", "reparte_presupuesto", exact, split, "Nadie calcula más de lo que le falta."),
        _many("se agota con el primer prompt", "reparte_presupuesto", edge, split, "Quien no avanza no aparece."),
        _many("no llega para las activas", "reparte_presupuesto", starved, split, "Avanzan las primeras, con 1 token."),
        _many(
            "nadie activa, o nadie espera",
            "reparte_presupuesto",
            [(*queue(n, m, 30), 16) for n, m in ((0, 4), (5, 0), (0, 1), (0, 0))],
            split,
            "Las dos listas pueden estar vacías.",
        ),
    )


# ---- The longest gap


def _gap(rng: Random) -> tuple[Case, ...]:
    def run(requests: int, tokens: int) -> dict[str, list[float]]:
        moments = {}
        for i in range(requests):
            now, own = rng.uniform(0, 50), []
            for _ in range(rng.randrange(tokens + 1)):
                now += rng.expovariate(2.0)
                own.append(now)
            moments[f"p{i}"] = own
        return moments

    late = {"A": [90.0, 90.5, 91.0], "B": [1.0, 1.25, 1.5]}  # a long TTFT, and far from each other
    return (
        _many("muchas peticiones", "mayor_hueco", [(run(12, 20),) for _ in range(8)], longest_gap, "Mira todas.", 2.0),
        _many("el primer token no cuenta", "mayor_hueco", [(late,)], longest_gap, "Entre peticiones no hay ITL."),
        _many("con uno o ningún token", "mayor_hueco", [(run(6, 1),), ({},)], longest_gap, "Sin dos tokens, 0."),
    )


# ---- The key of a block


def _key(rng: Random) -> tuple[Case, ...]:
    def text(length: int, most: int = 49_152) -> list[int]:
        return [rng.randrange(most) for _ in range(length)]

    def case(name: str, play: Callable[[Remote], Outcome], hint: str, weight: float = 1.0) -> Case:
        return Case(name=name, args=(), play=play, hint=hint, weight=weight)

    def altered(tokens: list[int], place: int, by: int = 1) -> list[int]:
        return [*tokens[:place], tokens[place] + by, *tokens[place + 1 :]]

    base = text(48)
    anywhere = [(base, altered(base, place)) for place in (0, 15, 16, 17, 31, 32, 47)]
    shuffled = []
    for _ in range(6):
        block = text(16)
        shuffled += [(block, sorted(block)), (block, block[::-1])]
        one, other = rng.sample(range(16), 2)
        moved = altered(altered(block, one, 5), other, -5 if block[other] >= 5 else 0)
        shuffled.append((block, moved))
    wide = [
        ([a, b], [c, d])
        for a, b, c, d in (
            (1, 23, 12, 3),
            (11, 1, 1, 11),
            (0, 256, 256, 0),
            (0, 0, 0, 256),
            (1, 0, 65537, 0),
            (0, 1, 0, 65537),
            (0, HIGHEST, 1, HIGHEST),
            (0, 0, 0, 2**31),
            (HIGHEST, 0, HIGHEST - 1, 0),
        )
    ]
    tail = text(16)
    parents = [(text(16) + tail, text(16) + tail) for _ in range(4)]
    parents.append((base[:16] + base[16:32] + tail, base[16:32] + base[:16] + tail))
    return (
        case(
            "bloques llenos y nada más",
            shaped([(text(n), size) for n, size in ((0, 4), (3, 4), (4, 4), (31, 8), (33, 16), (7, 1))]),
            "len(tokens) // tam_bloque claves, de 32 bytes cada una.",
        ),
        case("repetible", repeatable(text(64), 16), "La clave depende solo de padre y tokens."),
        case("un token cualquiera", told_apart(anywhere, 16, "un token cambió"), "También el primero y el último."),
        case(
            "los mismos tokens, o la misma suma",
            told_apart(shuffled, 16, "tienen otros tokens o en otro orden"),
            "Ni sumas ni conjuntos: el orden y cada valor cuentan.",
            2.0,
        ),
        case(
            "tokens que se confunden",
            told_apart(wide, 2, "los tokens son otros"),
            "Cuatro bytes por token, siempre: ni cifras juntas ni restos de 256.",
        ),
        case(
            "el mismo bloque tras otro comienzo",
            told_apart(parents, 16, "los bloques de delante son otros"),
            "La clave del padre entra en la del hijo.",
            2.0,
        ),
        case(
            "otra raíz, otras claves",
            told_apart([(base, base)], 16, "la raíz es otra", (f"{seed_of(rng)}a", f"{seed_of(rng)}b")),
            "La raíz es el padre del primer bloque: úsala.",
        ),
        case(
            "256 bits de verdad",
            strong(rng.randrange(10**9)),
            "Un hash criptográfico de 256 bits de hashlib, entero: ni hash(), ni crc32, ni rellenar con ceros.",
            2.0,
        ),
        case(
            "ni una repetida entre muchas",
            no_birthday(rng.randrange(10**9)),
            "Con 32 bits, entre cientos de miles de claves hay repetidas.",
            2.0,
        ),
    )


def seed_of(rng: Random) -> int:
    return rng.randrange(10**6)


# ---- The prefix cache


def _hits(rng: Random) -> tuple[Case, ...]:
    def text(length: int) -> list[int]:
        return [rng.randrange(50_000) for _ in range(length)]

    def service(size: int) -> list[list[int]]:
        """Two openings, questions of any length behind them, some cut short on the edge of a block."""
        openings = [text(rng.randrange(2 * size, 6 * size)) for _ in range(2)]
        prompts = [rng.choice(openings) + text(rng.randrange(2 * size)) for _ in range(12)]
        return prompts + [p[: size * rng.randrange(1, 4)] for p in rng.sample(prompts, 4)]

    def talk(size: int) -> list[list[int]]:
        """Each turn repeats all before it."""
        whole = text(16 * size)
        return [whole[:end] for end in sorted(rng.sample(range(1, 16 * size), 6))]

    edges = [([text(size * blocks)] * 2, size) for size in (4, 16) for blocks in (1, 2, 3)]
    edges += [([whole, whole + text(1)], size) for size in (4, 16) for whole in (text(size), text(3 * size))]
    middle = text(32)
    moved = [([text(16) + middle, text(16) + middle, text(7) + middle], 16)]
    moved.append(([middle + text(1), middle[16:] + middle[:16] + text(1)], 16))
    return (
        _many(
            "un servicio", "aciertos", [(service(s), s) for s in (4, 8, 16)], hit_share, "Paso a paso, con papel.", 2.0
        ),
        _many("una conversación", "aciertos", [(talk(s), s) for s in (4, 16)], hit_share, "Cada turno guarda lo suyo."),
        _many(
            "largo múltiplo del bloque",
            "aciertos",
            edges,
            hit_share,
            "Como mucho (tokens − 1) // tam_bloque bloques: el último token se calcula.",
            2.0,
        ),
        _many("lo igual está en el medio", "aciertos", moved, hit_share, "Un comienzo distinto lo cambia todo."),
        _many(
            "sin nada que buscar",
            "aciertos",
            [([], 4), ([[]], 4), ([text(3), text(3)], 4)],
            hit_share,
            "Sin tokens, 0.",
        ),
    )


# ---- The token bucket


def _bucket(rng: Random) -> tuple[Case, ...]:
    def script(count: int, step: int, most: int, back: bool = False) -> list[Call]:
        now, calls = rng.randrange(100) + 0.5, []
        for _ in range(count):
            calls.append((now, rng.choice(("toma", "toma", "espera")), rng.randint(1, most)))
            now += rng.randrange(step + 1) / 8 * (rng.choice((1, 1, -1)) if back else 1)
        return calls

    def burst(rate: float, size: int) -> tuple[float, int, list[Call]]:
        start, calls = float(rng.randrange(1000)), []
        for moment in (start, start + 1, start + 3600):
            calls += [(moment, "toma", 1)] * (size + 2)
        return rate, size, calls

    def rehearse(groups: Sequence[tuple[float, int, list[Call]]], name: str, hint: str, weight: float = 1.0) -> Case:
        return _many(name, "ensaya", [(r, b, [list(c) for c in s]) for r, b, s in groups], bucket_answers, hint, weight)

    return (
        rehearse(
            [(rate, 8, script(60, 6, 8)) for rate in (0.5, 1.0, 2.0, 4.0)],
            "un rato cualquiera",
            "Rellena antes de mirar, y no pases de lo que cabe.",
            2.0,
        ),
        rehearse([burst(1.0, 5), burst(4.0, 16), burst(0.125, 3)], "ráfagas", "Tras una hora caben las de siempre."),
        rehearse(
            [(0.125, 2, [(i * 1.0, "toma", 1) for i in range(40)])],
            "fracciones de ficha",
            "No redondees: ocho octavos son una ficha.",
        ),
        rehearse(
            [(1.0, 2, [(i / 8, "toma", 1) for i in range(80)])],
            "preguntar mucho no borra lo que entra",
            "Guarda las fracciones que entran entre dos preguntas.",
        ),
        rehearse(
            [(rate, 6, script(60, 16, 6, back=True)) for rate in (0.5, 2.0)],
            "un reloj que retrocede",
            "No quites fichas al retroceder, ni las cuentes dos veces al volver.",
            2.0,
        ),
        Case(
            name="más de las que caben",
            args=(),
            play=_never(rng.randint(2, 9)),
            hint="toma devuelve False; espera lanza ValueError, porque nunca las habrá.",
        ),
    )


def _never(size: int) -> Callable[[Remote], Outcome]:
    def play(remote: Remote) -> Outcome:
        if remote.function("ensaya", 1.0, size, [[0.0, "toma", size + 1], [0.0, "toma", size]]) != [False, True]:
            return Outcome("False al pedir más fichas de las que caben, sin gastar ninguna")
        try:
            remote.function("ensaya", 1.0, size, [[0.0, "espera", size + 1]])
        except StudentError as error:
            return Outcome() if error.error == "ValueError" else Outcome(f"ValueError; llegó {error.error}")
        return Outcome("ValueError al esperar más fichas de las que caben")

    return play


# ---- The choice


def _choice(rng: Random) -> tuple[Case, ...]:
    def table() -> list[dict[str, float]]:
        budgets = rng.sample([16, 32, 64, 128, 256, 512, 1024, 2048], 6)
        return [
            {
                "presupuesto": budget,
                "tok_s": float(rng.choice((300, 400, 500))),
                "itl_p95": rng.randint(1, 20) / 64,
                "ttft_p95": rng.randint(1, 20) / 8,
            }
            for budget in budgets
        ]

    def slo(measured: list[dict[str, float]], *names: str) -> dict[str, float]:
        """Limits that lie exactly on somebody's figure."""
        return {name: rng.choice(measured)[name] for name in names}

    def asked(count: int, *names: str) -> list[tuple[list[dict[str, float]], dict[str, float]]]:
        tables = [table() for _ in range(count)]
        return [(t, slo(t, *names)) for t in tables]

    def one(name: str, arguments: Sequence[Any], hint: str) -> Case:
        return _many(name, "elige_presupuesto", arguments, best_budget, hint)

    return (
        one("un límite", asked(20, "itl_p95"), "Quien está justo en el límite cumple."),
        one("dos límites", asked(20, "itl_p95", "ttft_p95"), "Hay que cumplir los dos."),
        one("otras medidas", asked(10, "ttft_p95"), "El SLO dice qué medida mirar: no la supongas."),
        one("sin SLO", [(table(), {}) for _ in range(5)], "Sin límites, solo cuenta el throughput; y el empate."),
        one("imposible", [(table(), {"itl_p95": 0.0}) for _ in range(3)] + [([], {})], "None, no el menos malo."),
    )
