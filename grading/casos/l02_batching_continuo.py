"""Hidden cases of lab 2. Names and hints are shown to students; arguments are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from minilab.pruebas.casos import Case, Check, Outcome, Remote
from minilab.pruebas.especulacion import MANY_SOURCE, exactly
from minilab.pruebas.jueces import positive_numbers
from minilab.pruebas.lotes import (
    LONGEST_PROMPT,
    PATIENCE,
    Pair,
    asked,
    both,
    continuous,
    continuous_rows,
    few,
    full_steps,
    goes_first,
    idle_places,
    in_fewest_steps,
    ratios,
    same_rank_in_any_order,
    seconds,
    static_rows,
    tight_memory,
    unequal_queue,
)
from minilab.pruebas.publicas.l02 import PREDICTED
from minilab.reloj import cargas
from minilab.reloj.partidas import fast, in_order, nobody_starves, served

PRELUDE = MANY_SOURCE
IMPORTS: tuple[str, ...] = ()

THROUGHPUT_WEIGHT = 3.0


def checks(seed: int) -> dict[str, Check]:
    """All checks of the notebook, with cases that depend on ``seed`` alone."""
    rng = Random(seed)
    rows = ("estatico", "continuo", "razones")
    return {
        "prueba_prediccion": Check("prediccion_l02", "mi_prediccion", ("prediccion",), _prediction()),
        "prueba_lugares_vacios": Check("lugares_vacios", "lugares_vacios", ("lugares_vacios",), _idle(rng)),
        "prueba_estatico": Check("estatico", "estatico", ("estatico",), _static(rng)),
        "prueba_continuo": Check("continuo", "continuo", ("continuo",), _continuous(rng)),
        "prueba_razones": Check("razones", "razones", rows, _ratios(rng)),
        "prueba_planificador_continuo": Check(
            "planificador_continuo", "PlanificadorContinuo", ("planificador_continuo",), _scheduler(rng)
        ),
        "prueba_politica": Check("politica", "Politica", ("politica",), _policy(rng)),
    }


def _prediction() -> tuple[Case, ...]:
    hint = "Devuelve tus dos números, mayores que 0."
    return (Case(name="predicción escrita", args=(), judge=positive_numbers(PREDICTED), hint=hint),)


def _many(name: str, function: str, arguments: Sequence[Any], oracle: Callable[..., Any], hint: str) -> Case:
    return Case(name=name, args=(), play=exactly(function, arguments, [oracle(*a) for a in arguments]), hint=hint)


def _lengths(rng: Random, count: int) -> list[int]:
    return [rng.choice((rng.randint(1, 9), rng.randint(20, 60))) for _ in range(count)]


# ---- Schedules on paper


def _batches(rng: Random) -> dict[str, list[tuple[list[int], int]]]:
    return {
        "lotes llenos": [(_lengths(rng, 3 * n), n) for n in range(2, 8)],
        "último lote a medias": [(_lengths(rng, 3 * n + rng.randrange(1, n)), n) for n in range(2, 8)],
        "más lugares que peticiones": [(_lengths(rng, n), n + rng.randrange(1, 9)) for n in range(1, 7)],
        "un solo lugar": [(_lengths(rng, n), 1) for n in (1, 2, 9)],
        "sin peticiones": [([], n) for n in (1, 4)],
    }


def _idle(rng: Random) -> tuple[Case, ...]:
    hint = "Cada lote ocupa todos sus lugares lo que dura su respuesta más larga."
    return tuple(_many(name, "lugares_vacios", asked_, idle_places, hint) for name, asked_ in _batches(rng).items())


def _static(rng: Random) -> tuple[Case, ...]:
    hint = "Un lote empieza cuando acaba el anterior entero; cada petición dura lo suyo."
    return tuple(_many(name, "estatico", asked_, static_rows, hint) for name, asked_ in _batches(rng).items())


def _continuous(rng: Random) -> tuple[Case, ...]:
    def queue(count: int, places: int, apart: int) -> tuple[list[int], int, list[int]]:
        arrivals = [0] * count
        for i in range(1, count):
            arrivals[i] = arrivals[i - 1] + rng.randrange(apart + 1)
        return _lengths(rng, count), places, arrivals

    groups = {
        "todas desde el principio": (
            [queue(20, n, 0) for n in range(1, 9)],
            "Entra en el lugar que antes queda libre.",
        ),
        "llegadas poco a poco": (
            [queue(20, n, 6) for n in range(1, 9)],
            "Se entra en el mayor de dos pasos: el de llegada y el del primer lugar libre.",
        ),
        "llegadas muy espaciadas": ([queue(12, n, 90) for n in (1, 2, 5)], "Con sitio de sobra se entra al llegar."),
        "más lugares que peticiones": ([queue(4, 9, 3) for _ in range(4)], "Nadie espera a nadie."),
        "sin peticiones": ([([], 3, [])], "Una lista vacía no tiene filas."),
    }
    return tuple(_many(name, "continuo", asked_, continuous_rows, hint) for name, (asked_, hint) in groups.items())


def _ratios(rng: Random) -> tuple[Case, ...]:
    def costs() -> tuple[float, float]:
        return rng.uniform(0.5, 9), rng.choice((0.0, rng.uniform(0.001, 3)))

    plans = [
        (continuous_rows(_lengths(rng, 12), places, sorted(rng.randrange(300) for _ in range(12))), *costs())
        for places in (1, 2, 3, 8)
    ]
    return (
        _many("segundos, con pasos vacíos", "segundos", plans, seconds, "Un paso sin nadie no cuesta nada."),
        _many(
            "longitudes mezcladas",
            "razones",
            [(_lengths(rng, 24), places, *costs()) for places in (2, 3, 5, 8)],
            ratios,
            "Cada razón divide el tiempo de su base entre el del otro plan.",
        ),
        _many(
            "sin cola",
            "razones",
            [(_lengths(rng, 6), 9, *costs()) for _ in range(3)],
            ratios,
            "Con lugares para todas, el estático y el continuo tardan lo mismo.",
        ),
        _many(
            "un solo lugar",
            "razones",
            [(_lengths(rng, 6), 1, *costs()) for _ in range(3)],
            ratios,
            "Con un lugar, los tres planes son el mismo.",
        ),
    )


# ---- The scheduler


def _scheduler(rng: Random) -> tuple[Case, ...]:
    def case(name: str, judge: Callable[[Remote], Outcome], hint: str, weight: float = 1.0) -> Case:
        return Case(name=name, args=(), play=continuous(judge), hint=hint, weight=weight)

    speed = tuple(
        case(f"throughput: {make(Random(0)).name}", fast(make(rng)), hint, THROUGHPUT_WEIGHT)
        for make, hint in (
            (cargas.short, "En cada paso deben avanzar juntas tantas peticiones como permita max_peticiones."),
            (cargas.mixed, "Cuando una petición acaba, otra ocupa su lugar en el paso siguiente."),
            (cargas.bursts, "Quien llega entra en el paso siguiente si cabe, aunque haya un lote en marcha."),
        )
    )
    return (
        *speed,
        case(
            "ni un paso de más",
            in_fewest_steps(few(rng, 24, 5)),
            "Cada lugar libre se ocupa en el paso siguiente; nadie avanza después de su fin.",
        ),
        case(
            "sin fugas",
            served(cargas.wave_and_giant(rng)),
            "Quien acaba devuelve todos sus bloques. La última petición los necesita todos: reserva justo "
            "len(prompt) + max_nuevos - 1 tokens.",
        ),
        case(
            "nadie espera sin fin",
            nobody_starves(cargas.steady_stream(rng)),
            "Atiende la cola por el principio, aunque no dejen de llegar peticiones.",
        ),
        case(
            "orden de llegada",
            in_order(unequal_queue(rng)),
            "Si la primera de la cola no puede entrar, las demás esperan detrás de ella.",
        ),
        case(
            "poca memoria",
            served(tight_memory(rng)),
            "Sin bloques para todo lo que puede llegar a ocupar, una petición espera.",
        ),
        case(
            "paso lleno",
            served(full_steps(rng)),
            "El paso entero lleva como mucho max_tokens: un token por cada activa y los prompts que entran.",
        ),
    )


# ---- The policy


def _policy(rng: Random) -> tuple[Case, ...]:
    def case(name: str, play: Callable[[Remote], Outcome], hint: str) -> Case:
        return Case(name=name, args=(), play=play, hint=hint)

    same_step: list[Pair] = []
    for _ in range(60):
        short, long = sorted(rng.sample(range(1, LONGEST_PROMPT + 1), 2))
        arrival = rng.randrange(5000)
        same_step.append((asked(arrival, short), asked(arrival, long)))
    same_step += [(asked(9, n), asked(9, n + 1)) for n in (1, 2, 31, 255, 1023, LONGEST_PROMPT - 1)]
    shortest_first = goes_first(same_step, "la más corta va delante")
    late: list[Pair] = []
    for _ in range(60):
        old = rng.randrange(5000)
        young = old + PATIENCE + rng.choice((0, 0, 1, rng.randrange(900)))
        late.append((asked(old, rng.randint(1, LONGEST_PROMPT)), asked(young, rng.randint(1, LONGEST_PROMPT))))
    late += [(asked(s, LONGEST_PROMPT), asked(s + PATIENCE, 1)) for s in (0, 1, 255, 256, 257, 4000)]
    ahead = []
    for _ in range(60):
        old = rng.randrange(5000)
        young = old + rng.choice((100, rng.randrange(101)))
        ahead.append((asked(young, rng.randint(1, 16)), asked(old, rng.randint(1024, LONGEST_PROMPT))))
    some = [asked(rng.randrange(5000), rng.randint(1, LONGEST_PROMPT)) for _ in range(40)]
    return (
        case(
            "llegan a la vez",
            shortest_first,
            "El rango debe crecer siempre con num_prompt_tokens, también entre prompts largos.",
        ),
        case(
            "nadie espera sin fin",
            both(goes_first(late, "la que llegó mucho antes va delante", ties=True), shortest_first),
            "Ni el prompt más largo puede costar ESPERA pasos más que el más corto.",
        ),
        case(
            "las cortas adelantan",
            goes_first(ahead, "la corta adelanta"),
            "Prueba pasos de llegada a los dos lados de un múltiplo de ESPERA.",
        ),
        case(
            "un rango no depende de los demás",
            both(same_rank_in_any_order(some), shortest_first),
            "Usa solo la petición: ni contadores ni la última que pasó.",
        ),
    )
