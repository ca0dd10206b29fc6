"""Hidden cases of lab 4. Names and hints are shown to students; arguments are not.

A student's kernel is launched by our own launcher, which the prelude holds: what the cell's launcher was made into does
not count. Kernels run in Triton's interpreter, on the worker's CPU.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import minilab.bancos.con_triton
from minilab.pruebas import nucleos
from minilab.pruebas.casos import Case, Check
from minilab.pruebas.jueces import near
from minilab.pruebas.publicas import l04
from minilab.pruebas.tensores import Tensor

LAUNCHERS = """
import torch


def _es_kernel(kernel):
    if HAY_TRITON and not hasattr(kernel, "run"):
        raise TypeError("no es un kernel de Triton: le falta @triton.jit")
    return kernel


def lanza_softmax(x, n):
    salida = torch.full_like(x, -7.0)
    _es_kernel(kernel_softmax)[(x.shape[0],)](x, salida, n, x.stride(0), BLOQUE=triton.next_power_of_2(n))
    return salida


def lanza_recoge(memoria, tabla, largo):
    programas = triton.cdiv(largo, 8)
    salida = torch.full((programas * 8, memoria.shape[2]), -7.0)
    _es_kernel(kernel_recoge)[(programas,)](
        memoria, tabla, salida, largo, TAM=memoria.shape[1], DIM=memoria.shape[2], TOKENS=8
    )
    return salida


def lanza_decode(consultas, claves, valores, tablas, largos, escala):
    secuencias, cabezas, dim = consultas.shape
    salida = torch.full((secuencias, cabezas, dim), -7.0)
    _es_kernel(kernel_decode)[(cabezas, secuencias)](
        consultas, claves, valores, tablas, largos, salida, escala, tablas.stride(0),
        GRUPO=cabezas // claves.shape[2], TAM=claves.shape[1], DIM=dim,
    )
    return salida
"""

PRELUDE = Path(minilab.bancos.con_triton.__file__).read_text(encoding="utf-8") + LAUNCHERS
IMPORTS = ()


def checks(seed: int) -> dict[str, Check]:
    """All checks of the notebook, with cases that depend on ``seed`` alone."""
    rng = Random(f"l04 {seed}")
    line = ("softmax_en_linea",)
    return {
        "prueba_prediccion": l04.CHECKS["prediccion_l04"],
        "prueba_softmax_en_linea": Check("softmax_en_linea", "softmax_en_linea", line, _line(rng)),
        "prueba_softmax_triton": Check("softmax_triton", "kernel_softmax", ("softmax_triton",), _rows(rng)),
        "prueba_recoge": Check("recoge", "kernel_recoge", ("recoge",), _gather(rng)),
        "prueba_atencion_paginada": Check(
            "atencion_paginada", "atencion_paginada", ("atencion_paginada",), _paged(rng)
        ),
        "prueba_decode_triton": Check("decode_triton", "kernel_decode", ("decode_triton",), _decode(rng)),
        "prueba_roofline": Check("roofline", "intensidad", ("roofline",), _roofline(rng)),
        "prueba_fusion": Check("fusion", "fusiona", ("fusion",), _fusion(rng)),
    }


def _line(rng: Random) -> tuple[Case, ...]:
    inf = l04.INF
    merges = {
        "unir al azar": (nucleos.numbers(rng, 4), nucleos.numbers(rng, 7)),
        "unir con máximos muy distintos": ([300.0, 299.0], [-300.0, 2.0]),
        "unir con nada": ([-inf, -inf], nucleos.numbers(rng, 3)),
        "unir nada con nada": ([-inf], [-inf]),
    }
    cases = [
        Case(name=name, args=(), play=nucleos.merge_play(*pair), hint=l04.MERGE_HINT) for name, pair in merges.items()
    ]
    lists = {
        "trozos desiguales": (nucleos.numbers(rng, 11), 4),
        "de uno en uno": (nucleos.numbers(rng, 6), 1),
        "un trozo mayor que la fila": (nucleos.numbers(rng, 5), 9),
        "crece de trozo en trozo": (sorted(90 * x for x in nucleos.numbers(rng, 9)), 2),
        "muy negativos": ([x - 800 for x in nucleos.numbers(rng, 7)], 3),
        "trozos vacíos en medio": ([*nucleos.numbers(rng, 2), -inf, -inf, *nucleos.numbers(rng, 2)], 2),
        "todo vacío": ([-inf] * rng.randrange(2, 6), 2),
    }
    for name, (x, size) in lists.items():
        judge = near(nucleos.softmax(x))
        cases.append(Case(name=name, args=(Tensor(nucleos.plain(x)), size), judge=judge, hint=l04.LINE_HINT))
    return tuple(cases)


def _rows(rng: Random) -> tuple[Case, ...]:
    inf = l04.INF

    def padded(size: int) -> int:
        """Room in each row for a store without a mask: it is seen, and does no harm."""
        return (1 << (size - 1).bit_length()) - size + rng.randrange(3)

    odd = [rng.choice((3, 5, 7)), rng.choice((13, 17, 33, 50))]
    rows = {
        "tamaño impar": nucleos.numbers(rng, 4, odd[0]),
        "otro tamaño impar": nucleos.numbers(rng, 3, odd[1]),
        "una sola columna": nucleos.numbers(rng, 3, 1),
        "una sola fila": nucleos.numbers(rng, 1, 6),
        "potencia de dos con relleno": nucleos.numbers(rng, 5, 8),
        "números grandes": [[500 * x for x in row] for row in nucleos.numbers(rng, 3, 9)],
        "una fila sin nada": [[-inf] * 6, [*nucleos.numbers(rng, 4), -inf, -inf], [-inf] * 6],
    }
    return tuple(
        Case(
            name=name,
            args=(),
            play=nucleos.rows_play(matrix, padded(len(matrix[0])), "lanza_softmax"),
            hint=l04.EMPTY_ROW_HINT if "nada" in name else l04.ROWS_HINT,
        )
        for name, matrix in rows.items()
    )


def _gather(rng: Random) -> tuple[Case, ...]:
    shapes = {
        "un token": (4, 4, 1),
        "bloques de cinco": (5, 2, rng.randrange(11, 30)),
        "el último, a medias": (8, 8, 8 * rng.randrange(2, 4) - rng.randrange(1, 7)),
        "bloques justos": (4, 16, 16),
        "bloques de uno": (1, 4, rng.randrange(9, 14)),
    }
    return tuple(
        Case(name=name, args=(), play=nucleos.gather_play(rng, *shape, "lanza_recoge"), hint=l04.GATHER_HINT)
        for name, shape in shapes.items()
    )


def _paged(rng: Random) -> tuple[Case, ...]:
    shapes: dict[str, tuple[list[int], list[int], dict[str, Any]]] = {
        "decode de varias": ([rng.randrange(1, 15) for _ in range(4)], [1] * 4, {}),
        "prefill de dos": ([6, 9], [6, 9], {}),
        "un trozo de prompt": ([11], [rng.randrange(2, 6)], {}),
        "todo mezclado": ([9, 4, 13, 1], [1, 4, 5, 1], {"size": 3}),
        "cada cabeza con sus claves": ([7, 5], [2, 1], {"heads": 3, "groups": 3}),
        "una sola cabeza de claves": ([8], [8], {"heads": 4, "groups": 1}),
        "tres cabezas por grupo": ([10, 3], [1, 3], {"heads": 6, "groups": 2, "size": 5}),
        "puntuaciones enormes": ([9, 6], [2, 1], {"loud": 400.0}),
    }
    cases = []
    for name, (lengths, news, more) in shapes.items():
        named, expected = nucleos.paged_case(rng, lengths, news, **more)
        cases.append(Case(name=name, args=tuple(named.values()), judge=near(expected), hint=l04.PAGED_HINT))
    return tuple(cases)


def _decode(rng: Random) -> tuple[Case, ...]:
    shapes: dict[str, tuple[list[int], dict[str, Any]]] = {
        "varias longitudes": ([rng.randrange(1, 20) for _ in range(3)], {}),
        "justo en el borde": ([4, 8, 5], {}),
        "alguna vacía": ([0, rng.randrange(2, 9), 0], {}),
        "cada cabeza con sus claves": ([7, 5], {"heads": 2, "groups": 2, "size": 8}),
        "tres cabezas por grupo": ([11], {"heads": 6, "groups": 2, "dim": 16}),
        "una sola cabeza de claves": ([9, 2], {"heads": 4, "groups": 1, "size": 2}),
        "puntuaciones enormes": ([13], {"loud": 400.0}),
    }
    return tuple(
        Case(name=name, args=(), play=nucleos.decode_play(rng, lengths, "lanza_decode", **more), hint=l04.DECODE_HINT)
        for name, (lengths, more) in shapes.items()
    )


def _roofline(rng: Random) -> tuple[Case, ...]:
    cases = []
    for name in ("un modelo al azar", "otro modelo", "pesos y caché de distinto tamaño", "lote uno"):
        shape = {
            "parametros": rng.randrange(10**6, 10**9),
            "capas": rng.randrange(2, 80),
            "cabezas": 8 * rng.randrange(1, 9),
            "cabezas_kv": rng.choice((1, 2, 4, 8)),
            "dim": rng.choice((64, 96, 128)),
            "bytes_peso": rng.choice((0.5, 1, 2)) if "distinto" in name else 2,
            "bytes_kv": 4 if "distinto" in name else 2,
        }
        batch, context = 1 if name == "lote uno" else rng.randrange(2, 300), rng.randrange(1, 9000)
        expected = nucleos.intensity(batch, context, shape)
        cases.append(Case(name=name, args=(batch, context, shape), expected=expected, hint=l04.ROOF_HINT))
    for name, factor in (("bajo la cuesta", 0.3), ("en la esquina", 1.0), ("bajo el techo llano", 7.0)):
        tflops, gb_s = rng.uniform(0.1, 900), rng.uniform(10, 4000)
        at = factor * tflops * 1000 / gb_s
        play = nucleos.function_play("techo", (at, tflops, gb_s), min(tflops * 1000, at * gb_s))
        cases.append(Case(name=name, args=(), play=play, hint=l04.ROOF_HINT))
    return tuple(cases)


def _fusion(rng: Random) -> tuple[Case, ...]:
    cases = []
    for name in ("tres kernels", "cuatro kernels", "con nombres repetidos", "nada sale", "uno solo"):
        names = rng.sample("abcdefghijkmn", 9)
        kernels = [
            {"lee": rng.sample(names, rng.randrange(1, 4)), "escribe": rng.sample(names, rng.randrange(1, 3))}
            for _ in range({"tres kernels": 3, "uno solo": 1}.get(name, 4))
        ]
        if name == "con nombres repetidos":
            kernels += kernels[:2]
        useful = [] if name == "nada sale" else rng.sample(names, 4) + kernels[-1]["escribe"][:1]
        sizes = {n: rng.randrange(1, 10**6) for n in names}
        args = (kernels, useful)
        cases.append(Case(name=name, args=args, expected=nucleos.fused(*args), hint=l04.FUSE_HINT))
        play = nucleos.function_play("bytes_movidos", (kernels, sizes), nucleos.moved(kernels, sizes))
        cases.append(
            Case(name=f"bytes: {name}", args=(), play=play, hint="Todo lo que se lee y todo lo que se escribe.")
        )
    return tuple(cases)
