"""Lab 4's judges: what each kernel must give, in plain Python, and tensors with ``nan`` wherever it must not look."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from minilab.pruebas.casos import Outcome, Remote
from minilab.pruebas.jueces import far_from, shape_of
from minilab.pruebas.tensores import Tensor

Play = Callable[[Remote], Outcome]
Matrix = list[list[float]]
SENTINEL = -7.0  # what a launcher leaves where no program writes


def softmax(x: Sequence[float]) -> list[float]:
    """All -inf gives zeros: there is nobody to look at."""
    largest = max(x)
    if largest == -math.inf:
        return [0.0] * len(x)
    weights = [math.exp(v - largest) for v in x]
    return [w / sum(weights) for w in weights]


def plain(value: Any) -> Any:
    """Nested lists with inf and nan as the strings that stand for them on the way to a student."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def numbers(rng: Random, *shape: int) -> Any:
    """Normal numbers with four decimals, as nested lists."""
    if not shape:
        return round(rng.gauss(0, 1), 4)
    return [numbers(rng, *shape[1:]) for _ in range(shape[0])]


def summary(x: Sequence[float]) -> list[float]:
    """[m, s] of some scores; [-inf, 0] of none."""
    largest = max(x, default=-math.inf)
    return [largest, sum(math.exp(v - largest) for v in x if v > -math.inf)]


def merge_play(one: Sequence[float], other: Sequence[float]) -> Play:
    """``une`` on the summaries of two lists of scores, in both orders."""
    expected = plain(summary([*one, *other]))

    def play(remote: Remote) -> Outcome:
        for first, second in ((one, other), (other, one)):
            a, b = summary(first), summary(second)
            value = remote.function("une", Tensor(plain(a)), Tensor(plain(b)))
            if complaint := far_from(expected, value):
                return Outcome(f"une({plain(a)}, {plain(b)}) debía dar {expected}; se esperaba {complaint}")
        return Outcome()

    return play


def rows_play(rows: Matrix, padding: int, launcher: str = "softmax_filas") -> Play:
    """A softmax kernel on rows that stand ``padding`` columns apart, with nan between them."""
    size, width = len(rows[0]), len(rows[0]) + padding
    given = [[*row, *[math.nan] * padding] for row in rows]
    expected = [[*softmax(row), *[SENTINEL] * padding] for row in rows]

    def play(remote: Remote) -> Outcome:
        value = remote.function(launcher, Tensor(plain(given)), size)
        return _told(value, expected, size, "las columnas de relleno") if width > size else _told(value, expected, size)

    return play


def gather_play(rng: Random, size: int, dim: int, length: int, launcher: str = "recoge") -> Play:
    """Pages of one sequence among pages of nan; the table goes on after its end with block 0, which is all nan.

    It is as long as the tokens are many: whatever a kernel takes for the size of a block, it reads from this table.
    """
    programs = -(-length // 8)
    entries = -(-length // size)
    table = [*rng.sample(range(1, entries + 3), entries), *[0] * (programs * 8 - entries)]
    tokens = numbers(rng, length, dim)
    memory = [[[math.nan] * dim for _ in range(size)] for _ in range(entries + 3)]
    for t, row in enumerate(tokens):
        memory[table[t // size]][t % size] = row
    expected = [*tokens, *([SENTINEL] * dim for _ in range(programs * 8 - length))]

    def play(remote: Remote) -> Outcome:
        value = remote.function(launcher, Tensor(plain(memory)), Tensor(table, "int32"), length)
        return _told(value, expected, None, f"las filas a partir de la {length}", length)

    return play


def attend(query: Matrix, keys: list[Matrix], values: list[Matrix], scale: float) -> Matrix:
    """One token's heads [H][D] over the tokens it may see, each [G][D]; heads share keys in consecutive groups."""
    group, out = len(query) // len(keys[0]) if keys else 1, []
    for head, q in enumerate(query):
        g = head // group
        weights = softmax([scale * sum(a * b for a, b in zip(q, k[g], strict=True)) for k in keys]) if keys else []
        out.append([sum(w * v[g][d] for w, v in zip(weights, values, strict=True)) for d in range(len(q))])
    return out


def paged_case(
    rng: Random,
    lengths: Sequence[int],
    news: Sequence[int],
    heads: int = 4,
    groups: int = 2,
    dim: int = 8,
    size: int = 4,
    loud: float = 1.0,
) -> tuple[dict[str, Any], Any]:
    """Arguments of paged attention by name, all plain, and the right answer [T, H, D].

    Block 0 and all slots beyond a sequence's end hold nan. loud: factor on the queries; far above 1, scores overflow
    where the maximum is not taken off.
    """
    counts = [-(-n // size) for n in lengths]
    order = rng.sample(range(1, sum(counts) + 2), sum(counts))
    memory = [
        [[[[math.nan] * dim for _ in range(groups)] for _ in range(size)] for _ in range(sum(counts) + 2)] for _ in "kv"
    ]
    queries, tables, expected, scale = [], [], [], round(dim**-0.5, 4)
    for length, new, count in zip(lengths, news, counts, strict=True):
        table, order = order[:count], order[count:]
        tables.append(table)
        mine = [numbers(rng, length, groups, dim) for _ in "kv"]
        for store, tokens in zip(memory, mine, strict=True):
            for t, token in enumerate(tokens):
                store[table[t // size]][t % size] = token
        for t in range(length - new, length):
            query = [[loud * x for x in row] for row in numbers(rng, heads, dim)]
            queries.append(query)
            expected.append(attend(query, mine[0][: t + 1], mine[1][: t + 1], scale))
    named = {
        "consultas": Tensor(queries),
        "claves": Tensor(plain(memory[0])),
        "valores": Tensor(plain(memory[1])),
        "tablas": tables,
        "longitudes": list(lengths),
        "nuevas": list(news),
        "escala": scale,
    }
    return named, expected


def decode_play(rng: Random, lengths: Sequence[int], launcher: str = "decode_paginado", **shape: Any) -> Play:
    """One query for each sequence, by a kernel. A sequence of length 0 has a query, too, and gives zeros."""
    named, expected = paged_case(rng, [max(n, 1) for n in lengths], [1] * len(lengths), **shape)
    widest = max(map(len, named["tablas"])) + 1
    tables = [[*table, *[0] * (widest - len(table))] for table in named["tablas"]]
    for b, length in enumerate(lengths):
        if length == 0:
            tables[b] = [0] * widest
            expected[b] = [[0.0] * len(row) for row in expected[b]]
    args = (
        named["consultas"],
        named["claves"],
        named["valores"],
        Tensor(tables, "int32"),
        Tensor(list(lengths), "int32"),
        named["escala"],
    )

    def play(remote: Remote) -> Outcome:
        return _told(remote.function(launcher, *args), expected)

    return play


def function_play(name: str, args: Sequence[Any], expected: float) -> Play:
    """A number, of a function that shares its cell with the one that the check is named after."""

    def play(remote: Remote) -> Outcome:
        value = remote.function(name, *args)
        if type(value) not in (int, float) or not math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9):
            return Outcome(f"{name}{tuple(args)} debía dar {expected:.6g} y dio {value}"[:300])
        return Outcome()

    return play


def intensity(batch: int, context: int, shape: dict[str, float]) -> float:
    """The oracle of ``intensidad``."""
    per_token = shape["capas"] * shape["dim"]
    flop = 2 * shape["parametros"] * batch + 4 * batch * context * per_token * shape["cabezas"]
    kv = 2 * batch * context * per_token * shape["cabezas_kv"] * shape["bytes_kv"]
    return flop / (shape["parametros"] * shape["bytes_peso"] + kv)


def moved(kernels: Sequence[dict[str, list[str]]], sizes: dict[str, int]) -> int:
    """The oracle of ``bytes_movidos``."""
    return sum(sizes[name] for kernel in kernels for part in ("lee", "escribe") for name in kernel[part])


def fused(kernels: Sequence[dict[str, list[str]]], useful: Sequence[str]) -> dict[str, list[str]]:
    """The oracle of ``fusiona``."""
    read: dict[str, None] = {}
    made: dict[str, None] = {}
    for kernel in kernels:
        read |= dict.fromkeys(n for n in kernel["lee"] if n not in made)
        made |= dict.fromkeys(kernel["escribe"])
    return {"lee": list(read), "escribe": [n for n in made if n in useful]}


def _told(value: Any, expected: Any, columns: int | None = None, border: str = "", rows: int | None = None) -> Outcome:
    """The verdict, with what a result betrays: a store outside, or nan that was read."""
    complaint = far_from(plain(expected), value, rtol=1e-4, atol=2e-5)
    if complaint is None:
        return Outcome()
    if shape_of(value) == shape_of(expected):
        outside = [v for row in value[rows or 0 :] for v in (row[columns:] if columns else row)] if border else []
        if any(v != SENTINEL for v in outside):
            return Outcome(f"escribiste en {border}: falta una máscara en tl.store")
        if any(v == SENTINEL for v in _flat(value) if v not in outside):
            return Outcome(f"hay elementos que nadie escribió; se esperaba {complaint}")
        if "nan" in _flat(value):
            return Outcome(
                f"salió nan donde se esperaba {complaint}: leíste memoria que no es tuya, o restaste −inf − (−inf)"
            )
    return Outcome(f"se esperaba {complaint}")


def _flat(value: Any) -> list[Any]:
    return [inner for v in value for inner in _flat(v)] if isinstance(value, list) else [value]
