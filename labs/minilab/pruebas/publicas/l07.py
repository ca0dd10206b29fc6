"""The public checks of lab 7: what a student may see."""

from __future__ import annotations

from typing import Any

from minilab.pruebas.casos import Case, Check
from minilab.pruebas.especulacion import hunt, same_law
from minilab.pruebas.jueces import positive_numbers
from minilab.pruebas.jugadas import gives

PREDICTED = ("copia", "charla", "lote_lleno")
ALMOST_ONE = 1 - 2.0**-53
CPU = (3.5, 0.12)  # free tokens of a step, and what each further one costs

P = [[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]]
Q = [[0.2, 0.7, 0.1]]
SURE = [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
LAW_Q = [[0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.1, 0.4]]
LAW_P = [[0.4, 0.3, 0.2, 0.1], [0.25, 0.5, 0.25, 0.0], [0.7, 0.1, 0.1, 0.1]]


def _greedy(name: str, drafts: list[int], chosen: list[int], expected: list[int], hint: str) -> Case:
    return Case(name=name, args=(drafts, chosen), expected=expected, hint=hint)


GREEDY = (
    _greedy(
        "falla el del medio",
        [7, 8, 9],
        [7, 8, 5, 6],
        [7, 8, 5],
        "Quedan los borradores hasta el primero que no es el elegido; en su lugar va el elegido, y nada más.",
    ),
    _greedy("aciertan todos", [7, 8, 9], [7, 8, 9, 4], [7, 8, 9, 4], "El último elegido es un token de regalo."),
    _greedy(
        "falla el primero",
        [7, 8, 9],
        [1, 8, 9, 4],
        [1],
        "Lo que se eligió después de un borrador que cae no vale, aunque coincida: su prefijo no existe.",
    ),
    _greedy("sin borradores", [], [3], [3], "Sin borradores es un paso normal: un token."),
)


def _lookup(name: str, tokens: list[int], n: int, k: int, expected: list[int], hint: str) -> Case:
    return Case(name=name, args=(tokens, n, k), expected=expected, hint=hint)


LOOKUP = (
    _lookup(
        "dos tokens ya vistos",
        [1, 2, 3, 4, 5, 1, 2],
        2,
        3,
        [3, 4, 5],
        "Los dos últimos tokens, 1 y 2, ya estaban al principio: copia lo que venía detrás.",
    ),
    _lookup(
        "gana la coincidencia más larga",
        [1, 2, 3, 9, 2, 4, 1, 2],
        2,
        1,
        [3],
        "Empieza por los n últimos tokens; solo si no aparecen, prueba con uno menos.",
    ),
    _lookup(
        "de dos iguales, la más reciente",
        [1, 2, 5, 1, 2, 6, 1, 2],
        2,
        1,
        [6],
        "Recorre el texto de derecha a izquierda.",
    ),
    _lookup("nada se repite", [1, 2, 3], 3, 4, [], "El final del texto no cuenta como aparición de sí mismo."),
)


def _verify(name: str, drafts: list[int], q: Any, p: Any, uniforms: Any, expected: list[int], hint: str) -> Case:
    return Case(name=name, args=(drafts, q, p, uniforms), expected=expected, hint=hint)


VERIFY = (
    Case(
        name="sortea: un peso 0 no sale nunca",
        args=(),
        play=gives(
            "sortea",
            (([0.0, 0.5, 0.5], 0.0), 1),
            (([0.5, 0.5, 0.0], ALMOST_ONE), 1),
            (([2.0, 1.0, 1.0], 0.6), 1),
        ),
        hint="El primer índice cuya suma acumulada es MAYOR que u por el total; los pesos pueden no sumar 1.",
    ),
    _verify(
        "se acepta",
        [1],
        Q,
        P,
        [[0.4, 0.9], [0.9, 0.3]],
        [1, 1],
        "0,4 · q(1) es menor que p(1): queda. Después, un token de regalo de la última fila de p con su propio u.",
    ),
    _verify(
        "se rechaza",
        [1],
        Q,
        P,
        [[0.5, 0.9], [0.9, 0.3]],
        [0],
        "0,5 · q(1) no es menor que p(1). El sustituto sale de max(p − q, 0), que aquí solo deja el token 0.",
    ),
    _verify(
        "q es None",
        [2],
        None,
        SURE,
        [[0.0, 0.75], [0.0, 0.0]],
        [1],
        "Sin q, toda la probabilidad del borrador es suya: q(d) = 1, y el residuo es p con un 0 en d.",
    ),
    _verify("sin borradores", [], [], P[:1], [[0.0, 0.95]], [2], "Sin borradores: un sorteo de la única fila de p."),
    Case(
        name="χ²: dos mil verificaciones",
        args=(),
        play=same_law(LAW_Q, LAW_P, 2000, 7),
        hint="La distribución de cada token debe ser p, venga de un borrador o del residuo.",
    ),
)

LAW = (
    Case(
        name="se acepta siempre: manda q",
        args=([0.25, 0.75], [1.0, 1.0], [0.5, 0.5]),
        expected=[0.25, 0.75],
        hint="Si nada se rechaza, lo que sale es lo que se propone.",
    ),
    Case(
        name="la regla exacta, a mano",
        args=([0.2, 0.8], [1.0, 0.5], [1.0, 0.0]),
        expected=[0.6, 0.4],
        hint="x sale por dos caminos: lo proponen y se acepta, o se rechaza cualquier otro y lo da el sustituto.",
    ),
)


def _rewind(name: str, args: tuple[Any, ...], expected: dict[str, Any], hint: str) -> Case:
    return Case(name=name, args=args, expected=expected, hint=hint)


REWIND = (
    _rewind(
        "quedan dos de cuatro",
        (10, 4, [5, 6, 7], 2, 4),
        {"nuevos": [5, 6, 7], "kv": 12, "sobran": 2, "bloques": 3, "llenos": 3},
        "Se escribieron 10 + 4 posiciones. Valen las de todos los tokens conocidos menos el último.",
    ),
    _rewind(
        "el fin, entre los aceptados",
        (10, 4, [5, 2, 7, 8], 2, 4),
        {"nuevos": [5, 2], "kv": 11, "sobran": 3, "bloques": 3, "llenos": 2},
        "El texto termina en el primer fin: lo que viene detrás no existe, aunque se haya aceptado.",
    ),
)
GAIN = (
    Case(
        name="tokens por paso",
        args=(),
        play=gives("tokens_por_paso", ((0.0, 4), 1.0), ((0.5, 2), 1.75), ((1.0, 4), 5.0)),
        hint="Es 1 + α + α² + … + α^k: con α = 1 la fracción no vale, pero la suma sí.",
    ),
    Case(
        name="una petición, verificar es gratis",
        args=(0.8, 2, 0.1, 1, *CPU),
        expected=2.44 / 1.2,
        hint="Tokens por paso entre lo que cuesta el paso: 1 por el modelo y c por cada borrador.",
    ),
    Case(
        name="dieciséis peticiones",
        args=(0.8, 2, 0.1, 16, *CPU),
        expected=2.44 * 2.5 / 6.54,
        hint="El paso sin borradores calcula n tokens; con ellos, n·(k + 1), y además k borradores.",
    ),
    Case(
        name="mejor_k",
        args=(),
        play=gives("mejor_k", ((0.8, 0.1, 1, *CPU, 6), 3), ((0.5, 0.1, 16, *CPU, 6), 0)),
        hint="Prueba todos los k de 0 a maximo; con k = 0 la ganancia es 1. De dos iguales, el menor.",
    ),
)


def _hunt(name: str, fault: str | None, hint: str) -> Case:
    return Case(name=name, args=(), play=hunt(fault), hint=hint)


HUNT = (
    _hunt("tus pruebas esperan lo correcto", None, "elegidos tiene siempre un token más que borrador."),
    _hunt(
        "cazan el seudocódigo",
        "el seudocódigo de los apuntes",
        "Haz que falle el primer borrador: el seudocódigo sigue escribiendo detrás.",
    ),
    _hunt("cazan al que no da regalo", "no da el token de regalo", "¿Qué ocurre cuando aciertan todos?"),
)

CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            "prediccion_l07",
            "mi_prediccion",
            ("prediccion",),
            (
                Case(
                    name="tres números",
                    args=(),
                    judge=positive_numbers(PREDICTED),
                    hint="Escribe los tres números que esperas medir.",
                ),
            ),
        ),
        Check("voraz", "verifica_voraz", ("voraz",), GREEDY),
        Check("busca_ngram", "busca_ngram", ("busca_ngram",), LOOKUP),
        Check("rebobina", "rebobina", ("rebobina",), REWIND),
        Check("verifica", "verifica", ("verifica",), VERIFY),
        Check("ley", "ley", ("ley",), LAW),
        Check("ganancia", "ganancia", ("ganancia",), GAIN),
        Check("caza_errores", "mis_pruebas", ("caza_errores",), HUNT),
    )
}
