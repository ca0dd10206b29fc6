"""Hidden cases of lab 3. Names and hints are shown to students; arguments are not."""

from __future__ import annotations

from random import Random
from typing import Any

from minilab.pruebas import paginas
from minilab.pruebas.casos import Case, Check
from minilab.pruebas.publicas import l03

PRELUDE = "from collections import Counter\n"
IMPORTS = ()


def checks(seed: int) -> dict[str, Check]:
    """All checks of the notebook, with cases that depend on ``seed`` alone."""
    rng = Random(f"l03 {seed}")
    return {
        "prueba_prediccion": l03.CHECKS["prediccion_l03"],
        "prueba_direccion": Check("direccion", "direccion", ("direccion",), _direction(rng)),
        "prueba_fragmentacion": Check("fragmentacion", "fragmentacion", ("fragmentacion",), _waste(rng)),
        "prueba_reparto": Check("reparto", "Bloques", ("reparto",), _pool(rng)),
        "prueba_copia": Check("copia", "escribe", ("reparto", "copia"), _toy(rng)),
        "prueba_desalojo": Check("desalojo", "victimas", ("desalojo",), _victims(rng)),
        "prueba_auditoria": Check("auditoria", "audita", ("auditoria",), _audit(rng)),
    }


def _direction(rng: Random) -> tuple[Case, ...]:
    cases = []
    for name in ("bloques desordenados", "bloque a medias", "otro tamaño de bloque"):
        size = rng.choice((3, 5, 8, 16))
        table = rng.sample(range(100), rng.randrange(2, 9))
        pos = rng.randrange(size, len(table) * size)
        right = table[pos // size] * size + pos % size
        cases.append(Case(name=name, args=(pos, table, size), expected=right, hint=l03.DIRECTION_HINT))
    size, table = rng.choice((4, 7)), rng.sample(range(50), 3)
    outside = {
        "última posición más una": 3 * size,
        "muy lejos": 3 * size + rng.randrange(1, 99),
        "negativa": -rng.randrange(1, size),
    }
    last = Case(
        name="última posición",
        args=(3 * size - 1, table, size),
        expected=(table[-1] + 1) * size - 1,
        hint=l03.DIRECTION_HINT,
    )
    refused = [
        Case(name=name, args=(pos, table, size), error="ValueError", hint=l03.NO_BLOCK_HINT)
        for name, pos in outside.items()
    ]
    empty = Case(name="tabla vacía", args=(0, [], size), error="ValueError", hint=l03.NO_BLOCK_HINT)
    return (*cases, last, *refused, empty)


def _waste(rng: Random) -> tuple[Case, ...]:
    size = rng.choice((3, 7, 16))
    lists: dict[str, list[int]] = {
        "longitudes al azar": [rng.randrange(1, 200) for _ in range(20)],
        "todas justas": [size * rng.randrange(1, 9) for _ in range(6)],
        "una más que el bloque": [size * rng.randrange(1, 9) + 1 for _ in range(6)],
        "alguna vacía": [0, rng.randrange(1, 99), 0],
        "solo vacías": [0, 0],
    }
    cases = [
        Case(name=n, args=(v, size, 200), expected=paginas.fragmentation(v, size, 200), hint=l03.WASTE_HINT)
        for n, v in lists.items()
    ]
    maps = {
        "mapa al azar": "".join(rng.choice("AB..") for _ in range(60)),
        "llena": "ABBA",
        "toda libre": "." * rng.randrange(3, 9),
        "hueco mayor al principio": "...A." + "B." * rng.randrange(2, 6),
    }
    return (
        *cases,
        *(Case(name=n, args=(), play=paginas.external_play(m), hint=l03.EXTERNAL_HINT) for n, m in maps.items()),
    )


def _pool(rng: Random) -> tuple[Case, ...]:
    scripts: dict[str, tuple[int, Any, str, float]] = {
        "dar y soltar": (rng.randrange(5, 9), paginas.gives_and_takes, l03.POOL_HINT, 1.0),
        "no hay bastantes": (rng.randrange(4, 9), paginas.too_few, l03.POOL_HINT, 1.0),
        "compartir": (rng.randrange(4, 9), paginas.shares, l03.POOL_HINT, 1.0),
        "soltar dos veces": (rng.randrange(4, 9), paginas.frees_twice, l03.ATOMIC_HINT, 1.0),
        "bloques que no existen o repetidos": (rng.randrange(4, 9), paginas.bad_names, l03.ATOMIC_HINT, 1.0),
        "un solo bloque": (1, paginas.at_random(rng.random(), 40), l03.POOL_HINT, 1.0),
        "cien operaciones al azar": (6, paginas.at_random(rng.random(), 100), l03.POOL_HINT, 2.0),
        "otras cien, con más bloques": (17, paginas.at_random(rng.random(), 100), l03.POOL_HINT, 2.0),
    }
    cases = [
        Case(name=name, args=(), play=paginas.drives(blocks, script), hint=hint, weight=weight)
        for name, (blocks, script, hint, weight) in scripts.items()
    ]
    kind = Case(name="una tupla", args=(), play=paginas.returns_a_tuple, hint="El motor une tablas con +.")
    return (*cases, kind)


def _toy(rng: Random) -> tuple[Case, ...]:
    sizes = {
        "bloques de uno": (9, 1),
        "mucha memoria": (40, 4),
        "poca memoria": (7, 3),
        "memoria muy justa": (4, 2),
    }
    cases = []
    for name, (blocks, size) in sizes.items():
        for turn in ("", ", otra vez"):
            play = paginas.toy_play(blocks, size, paginas.random_toy(rng, blocks, size, 60))
            cases.append(Case(name=name + turn, args=(), play=play, hint=l03.TOY_HINT))
    return tuple(cases)


def _victims(rng: Random) -> tuple[Case, ...]:
    cases = []
    for name in ("bloques propios", "prefijo común", "muchas peticiones", "falta demasiado", "una sola petición"):
        count = {"muchas peticiones": 15, "una sola petición": 1}.get(name, rng.randrange(3, 7))
        common = [] if name == "bloques propios" else [900, 901]
        requests = [
            {
                "id": 100 + i,
                "llegada": when,
                "bloques": [*common[: rng.randrange(3)], *range(10 * i, 10 * i + rng.randrange(4))],
            }
            for i, when in enumerate(rng.sample(range(1000), count))
        ]
        everything = len({b for r in requests for b in r["bloques"]})
        missing = everything if name == "falta demasiado" else rng.randrange(1, 5)
        right = paginas.victims(requests, missing)
        cases.append(Case(name=name, args=(requests, missing), expected=right, hint=l03.VICTIM_HINT))
    shared = [{"id": i, "llegada": i, "bloques": [1, 2]} for i in range(3)]
    for name, missing in (("solo bloques compartidos", 1), ("no falta nada", 0)):
        right = paginas.victims(shared, missing)
        cases.append(Case(name=name, args=(shared, missing), expected=right, hint=l03.VICTIM_HINT))
    first, *others = rng.sample(range(1000), 4)
    mixed = [
        {"id": 1, "llegada": 1, "bloques": [first, others[0]]},
        {"id": 3, "llegada": 3, "bloques": [first]},
        {"id": 2, "llegada": 2, "bloques": [first, *others[1:]]},
    ]
    cases.append(Case(name="la última no libera nada", args=(mixed, 1), expected=[3, 2], hint=l03.VICTIM_HINT))
    between = [{"id": i + 1, "llegada": i, "bloques": b} for i, b in enumerate(([first], others[:2], others[:1]))]
    cases.append(Case(name="compartido entre desalojadas", args=(between, 2), expected=[3, 2], hint=l03.VICTIM_HINT))
    return tuple(cases)


def _audit(rng: Random) -> tuple[Case, ...]:
    cases = []
    for name in ("sana", "una fuga", "libre y con dueño", "cuentas de más y de menos", "sin caché", "sin peticiones"):
        blocks = rng.randrange(8, 15)
        tables = [rng.sample(range(blocks - 2), rng.randrange(1, 5)) for _ in range(rng.randrange(2, 5))]
        kept = rng.sample(range(blocks - 2), 3)
        if name == "sin caché":
            kept = []
        if name == "sin peticiones":
            tables = []
        counts = [sum(b in t for t in tables) + (b in kept) for b in range(blocks)]
        free = counts.count(0)
        if name == "una fuga":
            free -= rng.randrange(1, 3)
        if name == "libre y con dueño":
            free += rng.randrange(1, 3)
        if name == "cuentas de más y de menos":
            for nobody_has in (blocks - 2, blocks - 1):
                counts[nobody_has] += rng.choice((1, 2))
            more, less = rng.sample(kept, 2)
            counts[more] += 1
            counts[less] -= 1
        args = (counts, free, tables, kept)
        cases.append(Case(name=name, args=args, expected=paginas.audit(*args), hint=l03.AUDIT_HINT))
    return tuple(cases)
