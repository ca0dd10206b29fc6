"""The public checks of lab 4: what a student may see."""

from __future__ import annotations

import math
from random import Random

from minilab.pruebas import nucleos
from minilab.pruebas.casos import Case, Check
from minilab.pruebas.jueces import near, positive_numbers
from minilab.pruebas.tensores import Tensor

INF = math.inf
MERGE_HINT = "El máximo nuevo es el mayor de los dos; cada suma se multiplica por exp(su máximo − el nuevo)."
NOTHING_HINT = "Si el máximo es −inf no hay nada que exponenciar: exp(−inf − (−inf)) es nan."
LINE_HINT = "Resume cada trozo, únelo a lo anterior y, al final, exp(x − m) / s."
ROWS_HINT = "Fila: tl.program_id(0) · paso. Máscara columna < n al leer (other −inf) y al escribir."
EMPTY_ROW_HINT = "Con tl.where, resta 0 si el máximo es −inf y divide entre 1 si la suma es 0."
GATHER_HINT = "Bloque: tabla[token // TAM]; casilla: bloque · TAM + token % TAM. Máscara token < largo en las tres."
PAGED_HINT = "Junta los bloques, corta en la longitud, repite cabezas por grupos y tapa solo el futuro."
DECODE_HINT = "Una página por vuelta: puntos con −inf en lo muerto, valores muertos a 0, y encoge s y acc al crecer m."
ROOF_HINT = "Los pesos se leen una vez por paso; la caché KV, una vez por petición. techo en GFLOP/s."
FUSE_HINT = "No se lee lo que un kernel anterior ya escribió; solo se escribe lo que alguien necesita después."

SMALL = {"parametros": 1000, "capas": 2, "cabezas": 4, "cabezas_kv": 2, "dim": 8, "bytes_peso": 2, "bytes_kv": 2}
ADD, NORM = {"lee": ["x", "r"], "escribe": ["t"]}, {"lee": ["t", "w"], "escribe": ["y"]}
SIZES = {"x": 100, "r": 100, "t": 100, "y": 100, "w": 10}


def _paged(name: str, lengths: list[int], news: list[int], seed: int) -> Case:
    named, expected = nucleos.paged_case(Random(seed), lengths, news)
    return Case(name=name, args=tuple(named.values()), judge=near(expected), hint=PAGED_HINT)


CHECKS = {
    "prediccion_l04": Check(
        "prediccion_l04",
        "mi_prediccion",
        ("prediccion",),
        (
            Case(
                name="predicción escrita",
                args=(),
                judge=positive_numbers(("lote", "torch")),
                hint="Devuelve tus dos números, mayores que 0.",
            ),
        ),
    ),
    "softmax_en_linea": Check(
        "softmax_en_linea",
        "softmax_en_linea",
        ("softmax_en_linea",),
        (
            Case(
                name="unir los del enunciado", args=(), play=nucleos.merge_play([1.0, 3.0], [2.0, 5.0]), hint=MERGE_HINT
            ),
            Case(name="unir con nada", args=(), play=nucleos.merge_play([1.0, 3.0], [-INF]), hint=NOTHING_HINT),
            Case(name="unir nada con nada", args=(), play=nucleos.merge_play([-INF], [-INF]), hint=NOTHING_HINT),
            Case(
                name="cuatro números, de dos en dos",
                args=(Tensor([1.0, 3.0, 2.0, 5.0]), 2),
                judge=near(nucleos.softmax([1.0, 3.0, 2.0, 5.0])),
                hint=LINE_HINT,
            ),
            Case(
                name="números grandes y un trozo vacío",
                args=(Tensor([499.0, 500.0, "-inf", "-inf", 498.0]), 2),
                judge=near(nucleos.softmax([499.0, 500.0, -INF, -INF, 498.0])),
                hint=LINE_HINT,
            ),
            Case(
                name="nadie a quien mirar",
                args=(Tensor(["-inf", "-inf", "-inf"]), 2),
                judge=near([0.0, 0.0, 0.0]),
                hint=NOTHING_HINT,
            ),
        ),
    ),
    "softmax_triton": Check(
        "softmax_triton",
        "kernel_softmax",
        ("softmax_triton",),
        (
            Case(
                name="dos filas de cuatro, sin relleno",
                args=(),
                play=nucleos.rows_play([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 9.0]], 0),
                hint=ROWS_HINT,
            ),
            Case(
                name="tres filas de cinco, con relleno",
                args=(),
                play=nucleos.rows_play(nucleos.numbers(Random(1), 3, 5), 3),
                hint=ROWS_HINT,
            ),
            Case(
                name="números grandes",
                args=(),
                play=nucleos.rows_play([[900.0, 901.0, 899.0], [-900.0, -901.0, -INF]], 1),
                hint="Resta el máximo antes de tl.exp.",
            ),
            Case(
                name="una fila sin nada",
                args=(),
                play=nucleos.rows_play([[-INF, -INF, -INF], [1.0, 2.0, -INF]], 1),
                hint=EMPTY_ROW_HINT,
            ),
        ),
    ),
    "recoge": Check(
        "recoge",
        "kernel_recoge",
        ("recoge",),
        (
            Case(name="dos bloques justos", args=(), play=nucleos.gather_play(Random(1), 4, 2, 8), hint=GATHER_HINT),
            Case(name="el último, a medias", args=(), play=nucleos.gather_play(Random(2), 4, 4, 10), hint=GATHER_HINT),
            Case(name="bloques de tres", args=(), play=nucleos.gather_play(Random(3), 3, 2, 19), hint=GATHER_HINT),
        ),
    ),
    "atencion_paginada": Check(
        "atencion_paginada",
        "atencion_paginada",
        ("atencion_paginada",),
        (
            _paged("decode: un token nuevo", [6], [1], 1),
            _paged("prefill: todo nuevo", [5], [5], 2),
            _paged("dos secuencias y un trozo de prompt", [7, 4], [3, 1], 3),
        ),
    ),
    "decode_triton": Check(
        "decode_triton",
        "kernel_decode",
        ("decode_triton",),
        (
            Case(name="una página justa", args=(), play=nucleos.decode_play(Random(1), [4]), hint=DECODE_HINT),
            Case(name="dos páginas y media", args=(), play=nucleos.decode_play(Random(2), [10]), hint=DECODE_HINT),
            Case(name="tres secuencias", args=(), play=nucleos.decode_play(Random(3), [1, 9, 0]), hint=DECODE_HINT),
        ),
    ),
    "roofline": Check(
        "roofline",
        "intensidad",
        ("roofline",),
        (
            Case(name="sin contexto", args=(3, 0, SMALL), expected=nucleos.intensity(3, 0, SMALL), hint=ROOF_HINT),
            Case(name="con contexto", args=(2, 10, SMALL), expected=nucleos.intensity(2, 10, SMALL), hint=ROOF_HINT),
            Case(
                name="manda la memoria",
                args=(),
                play=nucleos.function_play("techo", (2.0, 1.0, 100.0), 200.0),
                hint=ROOF_HINT,
            ),
            Case(
                name="manda el cálculo",
                args=(),
                play=nucleos.function_play("techo", (50.0, 1.0, 100.0), 1000.0),
                hint=ROOF_HINT,
            ),
        ),
    ),
    "fusion": Check(
        "fusion",
        "fusiona",
        ("fusion",),
        (
            Case(
                name="sumar y normalizar",
                args=([ADD, NORM], ["t", "y"]),
                expected={"lee": ["x", "r", "w"], "escribe": ["t", "y"]},
                hint=FUSE_HINT,
            ),
            Case(
                name="si t ya no hace falta",
                args=([ADD, NORM], ["y"]),
                expected={"lee": ["x", "r", "w"], "escribe": ["y"]},
                hint=FUSE_HINT,
            ),
            Case(
                name="leer antes de escribir",
                args=([{"lee": ["a"], "escribe": ["b"]}, {"lee": ["b", "a"], "escribe": ["a"]}], ["a"]),
                expected={"lee": ["a"], "escribe": ["a"]},
                hint=FUSE_HINT,
            ),
            Case(
                name="bytes por separado",
                args=(),
                play=nucleos.function_play("bytes_movidos", ([ADD, NORM], SIZES), 510),
                hint="Suma el tamaño de cada nombre que se lee y de cada nombre que se escribe.",
            ),
        ),
    ),
}
