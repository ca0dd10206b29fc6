"""The public checks of lab 2: what a student may see."""

from __future__ import annotations

from random import Random

from minilab.pruebas.casos import Case, Check
from minilab.pruebas.jueces import positive_numbers
from minilab.pruebas.jugadas import gives
from minilab.pruebas.lotes import (
    LONGEST_PROMPT,
    PATIENCE,
    asked,
    continuous,
    few,
    goes_first,
    in_fewest_steps,
    ratios,
    tight_memory,
)
from minilab.reloj import cargas
from minilab.reloj.partidas import fast, served

PREDICTED = ("vacios_pct", "a_la_vez")
SEED = 2026


PREDICTION = (
    Case(name="dos números", args=(), judge=positive_numbers(PREDICTED), hint="Escribe los dos números que esperas."),
)
IDLE = (
    Case(
        name="el dibujo de la idea",
        args=([3, 9, 3], 2),
        expected=9,
        hint="Cada lote dura lo que su respuesta más larga, y ocupa todos sus lugares ese tiempo.",
    ),
    Case(
        name="todas iguales",
        args=([5, 5, 5, 5], 2),
        expected=0,
        hint="Si todas acaban a la vez, no sobra nada.",
    ),
    Case(
        name="un lote a medias",
        args=([4, 4, 4, 7], 3),
        expected=14,
        hint="En el último lote hay una sola petición: los otros dos lugares están vacíos los 7 pasos.",
    ),
)
STATIC = (
    Case(
        name="el dibujo de la idea",
        args=([3, 9, 3], 2),
        expected=[[0, 0, 3], [1, 0, 9], [2, 9, 12]],
        hint="El segundo lote empieza cuando acaba la más larga del primero.",
    ),
    Case(
        name="tres lotes",
        args=([2, 1, 1, 5, 3], 2),
        expected=[[0, 0, 2], [1, 0, 1], [2, 2, 3], [3, 2, 7], [4, 7, 10]],
        hint="La petición i lleva su número, no su sitio en el lote; los inicios se suman.",
    ),
)
CONTINUOUS = (
    Case(
        name="el ejemplo",
        args=([3, 9, 3, 2], 2, [0, 0, 0, 8]),
        expected=[[0, 0, 3], [1, 0, 9], [2, 3, 6], [3, 8, 10]],
        hint="La siguiente entra en el primer paso en que ya llegó y hay un lugar libre.",
    ),
    Case(
        name="llega cuando hay sitio de sobra",
        args=([4, 2, 2], 3, [0, 1, 6]),
        expected=[[0, 0, 4], [1, 1, 3], [2, 6, 8]],
        hint="Nadie empieza antes de llegar.",
    ),
    Case(
        name="el lugar que antes queda libre",
        args=([5, 2, 4, 1], 2, [0, 0, 0, 0]),
        expected=[[0, 0, 5], [1, 0, 2], [2, 2, 6], [3, 5, 6]],
        hint="No es el lugar 0, luego el 1, luego el 0…: es el que antes se vacíe.",
    ),
)
FOUR_EQUAL, UNEQUAL = ([2, 2, 2, 2], 4, 1.0, 0.5), ([3, 9, 3], 2, 2.0, 0.25)
RATIOS = (
    Case(
        name="los segundos de dos planes",
        args=(),
        play=gives(
            "segundos",
            (([[0, 0, 2], [1, 0, 2]], 1.0, 0.5), 4.0),
            (([[0, 0, 3], [1, 5, 6]], 1.0, 0.5), 6.0),
        ),
        hint="a por cada paso en el que hay alguien; b por cada petición en cada paso. En los pasos 3 y 4 del segundo "
        "plan no hay nadie.",
    ),
    Case(
        name="cuatro iguales en cuatro lugares",
        args=FOUR_EQUAL,
        expected=ratios(*FOUR_EQUAL),
        hint="De una en una son 8 pasos de 1,5 s; juntas, 2 pasos de 3 s.",
    ),
    Case(
        name="largos distintos",
        args=UNEQUAL,
        expected=ratios(*UNEQUAL),
        hint="Divide siempre el tiempo de la base entre el del otro: mayor que 1 es más rápido.",
    ),
)
SCHEDULER = (
    Case(
        name="cinco peticiones, dos lugares",
        args=(),
        play=continuous(in_fewest_steps(few(Random(SEED), 5, 2))),
        hint="En cada paso avanzan todas las activas; en cuanto una acaba, entra la siguiente en el paso que viene.",
    ),
    Case(
        name="memoria para dos o tres",
        args=(),
        play=continuous(served(tight_memory(Random(SEED)))),
        hint="Antes de entrar pregunta si caben len(prompt) + max_nuevos - 1 tokens; al acabar, devuelve los bloques.",
    ),
    Case(
        name="longitudes mezcladas a 5×",
        args=(),
        play=continuous(fast(cargas.mixed(Random(SEED), 80))),
        hint="No esperes a que el lote se vacíe para dejar entrar a alguien.",
    ),
)
POLICY = (
    Case(
        name="llegan en el mismo paso",
        args=(),
        play=goes_first([(asked(7, 12), asked(7, 90)), (asked(7, 1), asked(7, 2))], "la más corta va delante"),
        hint="El rango crece con num_prompt_tokens.",
    ),
    Case(
        name=f"{PATIENCE} pasos después ya no se adelanta",
        args=(),
        play=goes_first(
            [(asked(0, LONGEST_PROMPT), asked(PATIENCE, 1))], "la que llegó mucho antes va delante", ties=True
        ),
        hint="El castigo por prompt largo nunca puede valer más de ESPERA pasos.",
    ),
    Case(
        name="la corta adelanta",
        args=(),
        play=goes_first([(asked(100, 16), asked(0, 1024))], "la corta adelanta"),
        hint="Con 1024 tokens el castigo debe valer más de 100 pasos de lo que vale con 16.",
    ),
)

CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check("prediccion_l02", "mi_prediccion", ("prediccion",), PREDICTION),
        Check("lugares_vacios", "lugares_vacios", ("lugares_vacios",), IDLE),
        Check("estatico", "estatico", ("estatico",), STATIC),
        Check("continuo", "continuo", ("continuo",), CONTINUOUS),
        Check("razones", "razones", ("estatico", "continuo", "razones"), RATIOS),
        Check("planificador_continuo", "PlanificadorContinuo", ("planificador_continuo",), SCHEDULER),
        Check("politica", "Politica", ("politica",), POLICY),
    )
}
