"""The public checks of lab 5: what a student may see."""

from __future__ import annotations

from minilab.pruebas.casos import Case, Check
from minilab.pruebas.jueces import positive_numbers
from minilab.pruebas.jugadas import gives
from minilab.pruebas.prefijos import best_budget, bucket_answers, repeatable, shaped, told_apart

PREDICTED = ("hueco", "aciertos_pct")


PREDICTION = (
    Case(name="dos números", args=(), judge=positive_numbers(PREDICTED), hint="Escribe los dos números que esperas."),
)
SHARE = (
    Case(
        name="el ejemplo",
        args=([4, 7], [[9, 6], [2, 20]], 10),
        expected=[[4, 1], [7, 1], [9, 6], [2, 2]],
        hint="Primero las activas; después, cada prompt todo lo que quepa en lo que queda.",
    ),
    Case(
        name="sobra presupuesto",
        args=([1], [[2, 3]], 100),
        expected=[[1, 1], [2, 3]],
        hint="Nadie calcula más tokens de los que le faltan.",
    ),
    Case(
        name="el que llegó antes va antes",
        args=([3], [[8, 20], [5, 2]], 10),
        expected=[[3, 1], [8, 9]],
        hint="Los prompts van en el orden en que los recibes, aunque detrás haya uno más corto.",
    ),
    Case(
        name="no llega ni para las activas",
        args=([5, 6, 7], [[8, 4]], 2),
        expected=[[5, 1], [6, 1]],
        hint="Avanzan las primeras, y quien no avanza no aparece: nada de [petición, 0].",
    ),
)
GAP = (
    Case(
        name="el ejemplo",
        args=({"A": [1.0, 1.5, 4.0], "B": [2.0]},),
        expected=2.5,
        hint="Entre tokens de la misma petición; lo que pasa entre A y B no cuenta.",
    ),
    Case(
        name="el hueco está en el medio",
        args=({"A": [10.0, 10.5, 11.0], "B": [3.0, 7.0, 7.5]},),
        expected=4.0,
        hint="Mira todas las parejas seguidas de todas las peticiones.",
    ),
    Case(name="nadie tiene dos tokens", args=({"A": [5.0], "B": []},), expected=0, hint="Sin dos tokens no hay ITL."),
)
TEXT = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
KEY = (
    Case(
        name="una clave de 32 bytes por bloque lleno",
        args=(),
        play=shaped([(TEXT, 4), (TEXT, 5), (TEXT[:3], 4), ([], 4)]),
        hint="Diez tokens en bloques de 4 son dos claves; los dos que sobran no tienen. sha256 da 32 bytes; blake2b, "
        "con digest_size=32.",
    ),
    Case(
        name="lo de detrás no cambia lo de delante",
        args=(),
        play=repeatable(TEXT, 2),
        hint="La clave de un bloque depende de él y de lo anterior, de nada más: ni de llamadas anteriores.",
    ),
    Case(
        name="cambia un token y cambia todo lo que sigue",
        args=(),
        play=told_apart([(TEXT, [*TEXT[:3], 99, *TEXT[4:]])], 2, "el token 3 cambió"),
        hint="Pasa a cada clave la del bloque anterior.",
    ),
    Case(
        name="los mismos tokens en otro orden",
        args=(),
        play=told_apart([([7, 3, 9, 1], [3, 7, 9, 1]), ([1, 23], [12, 3])], 2, "son otros tokens o en otro orden"),
        hint="Escribe cada token con un número fijo de bytes, en su sitio.",
    ),
)
EXAMPLE = [[1, 2, 3, 4, 5], [1, 2, 3, 9], [1, 2]]
HITS = (
    Case(
        name="el ejemplo",
        args=(EXAMPLE, 2),
        expected=2 / 11,
        hint="El último token de un prompt siempre se calcula: [1, 2] no encuentra nada.",
    ),
    Case(
        name="el mismo prompt tres veces",
        args=([[5, 6, 7, 8, 9]] * 3, 2),
        expected=8 / 15,
        hint="La primera vez no encuentra nada; las otras, dos bloques cada una.",
    ),
    Case(
        name="el último bloque, si está lleno",
        args=([[1, 2, 3, 4], [1, 2, 3, 4, 5]], 2),
        expected=4 / 9,
        hint="El tope es para buscar; guardar, se guardan todos los bloques llenos.",
    ),
    Case(
        name="solo el segundo bloque es igual",
        args=([[1, 2, 3, 4, 5], [8, 8, 3, 4, 5]], 2),
        expected=0,
        hint="Se busca desde el primer bloque y se para en el primero que no está.",
    ),
    Case(
        name="los bloques, cambiados de sitio",
        args=([[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]], 2),
        expected=0,
        hint="Un bloque se llama como todo su prefijo: usa claves, no los tokens sueltos de cada bloque.",
    ),
    Case(
        name="vuelve el primero",
        args=([[1, 2, 3], [7, 8, 9], [1, 2, 4]], 2),
        expected=2 / 9,
        hint="La caché guarda lo de todos los prompts de antes, no solo lo del último.",
    ),
)
SCRIPT = [
    [0.0, "toma", 3],
    [0.25, "toma", 1],
    [0.25, "espera", 1],
    [0.5, "toma", 1],
    [60.0, "toma", 3],
    [60.0, "toma", 1],
]
BACK = [[10.0, "toma", 4], [4.0, "toma", 1], [10.0, "toma", 1], [11.0, "toma", 1]]
BUCKET = (
    Case(
        name="el ejemplo",
        args=(),
        play=gives("ensaya", ((2.0, 3, SCRIPT), bucket_answers(2.0, 3, SCRIPT))),
        hint="Empieza lleno; entran ritmo · segundos fichas, y nunca hay más de las que caben.",
    ),
    Case(
        name="espera, nada más llegar",
        args=(),
        play=gives("ensaya", ((2.0, 3, [[0.0, "toma", 3], [0.25, "espera", 1]]), [True, 0.25])),
        hint="Antes de mirar cuántas hay, rellena: en toma y también en espera.",
    ),
    Case(
        name="quien no puede no gasta",
        args=(),
        play=gives(
            "ensaya",
            ((1.0, 2, [[0.0, "toma", 2], [1.0, "toma", 2], [1.0, "toma", 1]]), [True, False, True]),
        ),
        hint="Si no hay fichas de sobra para la petición entera, no toques nada.",
    ),
    Case(
        name="el reloj va hacia atrás",
        args=(),
        play=gives("ensaya", ((1.0, 4, BACK), bucket_answers(1.0, 4, BACK))),
        hint="Recuerda el instante más alto que hayas visto: al volver a él no ha pasado ningún tiempo nuevo.",
    ),
)
MEASURED = [
    {"presupuesto": 64, "tok_s": 500.0, "itl_p95": 0.02, "ttft_p95": 2.0},
    {"presupuesto": 256, "tok_s": 900.0, "itl_p95": 0.04, "ttft_p95": 1.0},
    {"presupuesto": 1024, "tok_s": 950.0, "itl_p95": 0.2, "ttft_p95": 0.5},
]
TIED = [{**MEASURED[i], "tok_s": 700.0} for i in (1, 0, 2)]
CHOICE = (
    Case(
        name="la mejor de las que cumplen",
        args=(MEASURED, {"itl_p95": 0.05}),
        expected=best_budget(MEASURED, {"itl_p95": 0.05}),
        hint="Primero quita las que no cumplen; después, la de más tok_s.",
    ),
    Case(
        name="dos límites, y justo en uno de ellos",
        args=(MEASURED, {"itl_p95": 0.04, "ttft_p95": 1.5}),
        expected=256,
        hint="Hay que cumplir todos, y el límite mismo cumple.",
    ),
    Case(
        name="una cumple un límite, otra el otro",
        args=(MEASURED, {"itl_p95": 0.05, "ttft_p95": 0.7}),
        expected=None,
        hint="Mira todos los límites del slo, se llamen como se llamen; si ninguna los cumple todos, None.",
    ),
    Case(name="ninguna cumple", args=(MEASURED, {"itl_p95": 0.01}), expected=None, hint="Devuelve None."),
    Case(name="empate", args=(TIED, {}), expected=64, hint="A igual tok_s, el presupuesto menor."),
)

CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check("prediccion_l05", "mi_prediccion", ("prediccion",), PREDICTION),
        Check("reparte_presupuesto", "reparte_presupuesto", ("reparte_presupuesto",), SHARE),
        Check("mayor_hueco", "mayor_hueco", ("mayor_hueco",), GAP),
        Check("clave_de_bloque", "clave_de_bloque", ("clave_de_bloque",), KEY),
        Check("aciertos", "aciertos", ("clave_de_bloque", "aciertos"), HITS),
        Check("cubo_de_fichas", "CuboDeFichas", ("cubo_de_fichas",), BUCKET),
        Check("elige_presupuesto", "elige_presupuesto", ("elige_presupuesto",), CHOICE),
    )
}
