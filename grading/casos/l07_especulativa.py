"""Hidden cases of lab 7. Names and hints are shown to students; arguments are not.

Probabilities are multiples of 1/64 and uniforms odd multiples of 1/4096: no sum is rounded, and no draw falls on an
edge where ``u < p / q`` and ``u * q < p`` might part.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from minilab.pruebas.casos import Case, Check, Outcome, Remote
from minilab.pruebas.especulacion import FAULTY, MANY_SOURCE, calls, exactly, greedy, hunt, same_law
from minilab.pruebas.jueces import positive_numbers
from minilab.pruebas.publicas.l07 import PREDICTED

PRELUDE = MANY_SOURCE
IMPORTS: tuple[str, ...] = ()

Row = list[float]
SIXTY_FOURTHS, ODD = 64, 4096
ALMOST_ONE = 1 - 2.0**-53
CALLS, DRAWS = 300, 4000


def checks(seed: int) -> dict[str, Check]:
    """All checks of the notebook, with cases that depend on ``seed`` alone."""
    rng = Random(seed)
    return {
        "prueba_prediccion": Check("prediccion_l07", "mi_prediccion", ("prediccion",), _prediction()),
        "prueba_voraz": Check("voraz", "verifica_voraz", ("voraz",), _greedy(rng)),
        "prueba_busca_ngram": Check("busca_ngram", "busca_ngram", ("busca_ngram",), _lookup(rng)),
        "prueba_rebobina": Check("rebobina", "rebobina", ("rebobina",), _rewind(rng)),
        "prueba_verifica": Check("verifica", "verifica", ("verifica",), _verify(rng)),
        "prueba_ley": Check("ley", "ley", ("ley",), _law(rng)),
        "prueba_ganancia": Check("ganancia", "ganancia", ("ganancia",), _gain(rng)),
        "prueba_caza_errores": Check("caza_errores", "mis_pruebas", ("caza_errores",), _hunt()),
    }


def _prediction() -> tuple[Case, ...]:
    hint = "Devuelve tus tres números, mayores que 0."
    return (Case(name="predicción escrita", args=(), judge=positive_numbers(PREDICTED), hint=hint),)


def _many(name: str, function: str, arguments: list[Any], expected: list[Any], hint: str, weight: float = 1.0) -> Case:
    return Case(name=name, args=(), play=exactly(function, arguments, expected), hint=hint, weight=weight)


# ---- Greedy


def _greedy(rng: Random) -> tuple[Case, ...]:
    """Where the first mismatch stands, each with the rest of the drafts right: they must not come back."""

    def asked(length: int, miss: int | None) -> tuple[list[int], list[int]]:
        drafts = [rng.randrange(50) for _ in range(length)]
        chosen = [*drafts, rng.randrange(50)]
        if miss is not None:
            chosen[miss] = (drafts[miss] + rng.randrange(1, 50)) % 50
        return drafts, chosen

    lengths = range(3, 9)
    places: dict[str, list[tuple[list[int], list[int]]]] = {
        "falla el primero": [asked(n, 0) for n in lengths],
        "falla uno de en medio": [asked(n, rng.randrange(1, n - 1)) for n in lengths],
        "falla el último": [asked(n, n - 1) for n in lengths],
        "aciertan todos": [asked(n, None) for n in lengths],
        "de cero a ocho borradores, dos tokens posibles": [
            ([rng.randrange(2) for _ in range(n)], [rng.randrange(2) for _ in range(n + 1)])
            for n in (rng.randrange(9) for _ in range(CALLS))
        ],
    }
    hint = "Los borradores hasta el primero que no coincide, y después exactamente un elegido: el de ese lugar."
    return tuple(
        _many(name, "verifica_voraz", pairs, [greedy(*pair) for pair in pairs], hint) for name, pairs in places.items()
    )


# ---- Prompt lookup


def lookup(tokens: list[int], n: int, k: int) -> list[int]:
    for length in range(min(n, len(tokens) - 1), 0, -1):
        for start in range(len(tokens) - length - 1, -1, -1):
            if tokens[start : start + length] == tokens[-length:]:
                return tokens[start + length : start + length + k]
    return []


def _lookup(rng: Random) -> tuple[Case, ...]:
    def text(length: int, kinds: int) -> list[int]:
        return [rng.randrange(kinds) for _ in range(length)]

    phrase = [rng.randrange(100, 200) for _ in range(6)]
    groups: dict[str, tuple[list[tuple[list[int], int, int]], str]] = {
        "frase larga repetida": (
            [([*phrase, *text(9, 50), *phrase[:3]], 3, k) for k in range(1, 6)],
            "Devuelve hasta k tokens de lo que venía detrás de la aparición.",
        ),
        "más larga antes que más reciente": (
            [([1, 2, 3, a, 9, 3, b, 8, 1, 2, 3], 3, 2) for a, b in ((20, 30), (31, 21))],
            "Solo si los n últimos no aparecen se prueba con n − 1.",
        ),
        "apariciones que se solapan": (
            [([5] * m, 3, 4) for m in range(2, 9)],
            "La aparición puede pisar el final, pero no ser el final: detrás debe haber al menos un token.",
        ),
        "la copia llega al final del texto": (
            [([1, 2, 9, 1, 2], 2, 5), ([4, 4], 1, 3)],
            "Si detrás quedan menos de k tokens, se devuelven los que haya.",
        ),
        "textos muy cortos": (
            [([], 2, 3), ([1], 2, 3), ([1, 1], 4, 1)],
            "n puede ser mayor que el texto: empieza por lo que quepa.",
        ),
        "al azar": (
            [
                (text(rng.randrange(1, 30), rng.randrange(1, 5)), rng.randrange(1, 5), rng.randrange(1, 6))
                for _ in range(CALLS)
            ],
            "Prueba a mano textos de dos o tres tokens distintos.",
        ),
    }
    return tuple(
        _many(name, "busca_ngram", asked, [lookup(*a) for a in asked], hint, 2.0 if name == "al azar" else 1.0)
        for name, (asked, hint) in groups.items()
    )


# ---- Rewinding


def rewound(length: int, k: int, verified: list[int], end: int, block: int) -> dict[str, Any]:
    new = verified[: verified.index(end) + 1] if end in verified else verified
    kv = length + len(new) - 1
    return {"nuevos": new, "kv": kv, "sobran": length + k - kv, "bloques": -(-kv // block), "llenos": kv // block}


def _rewind(rng: Random) -> tuple[Case, ...]:
    end = rng.randrange(500, 600)

    def asked(k: int, came: int, end_at: int | None = None) -> tuple[int, int, list[int], int, int]:
        verified = [rng.randrange(500) for _ in range(came)]
        if end_at is not None:
            verified[end_at] = end
        return rng.randrange(1, 70), k, verified, end, rng.choice([1, 4, 16])

    groups = {
        "nada se acepta": (
            [asked(k, 1) for k in range(1, 7)],
            "El token de corrección es conocido y no está calculado.",
        ),
        "todo se acepta": ([asked(k, k + 1) for k in range(1, 7)], "El token de regalo tampoco está calculado."),
        "sin borradores": ([asked(0, 1) for _ in range(6)], "Un paso normal no deja nada que sobre."),
        "el fin, entre los aceptados": (
            [asked(6, rng.randrange(3, 8), rng.randrange(0, 2)) for _ in range(8)],
            "Corta en el primer fin; lo de detrás sobra aunque se aceptara.",
        ),
        "el fin, de último": ([asked(5, 4, 3) for _ in range(4)], "Cortar en el fin lo incluye a él."),
        "dos veces el fin": (
            [(n, k, [*v[:1], end, *v[1:], end], end, b) for n, k, v, _, b in (asked(6, 3) for _ in range(4))],
            "Manda el primero.",
        ),
        "al borde de un bloque": (
            [(n, 4, [1, 2, 3], end, 8) for n in range(4, 16)],
            "bloques redondea hacia arriba; llenos, hacia abajo.",
        ),
    }
    return tuple(
        _many(name, "rebobina", asked_, [rewound(*a) for a in asked_], hint) for name, (asked_, hint) in groups.items()
    )


# ---- Rejection sampling


def draw(weights: Row, u: float) -> int:
    """The first token whose running sum is above ``u`` times the total."""
    goal, reached = u * sum(weights), 0.0
    likely = [token for token, weight in enumerate(weights) if weight > 0]
    for token in likely:
        reached += weights[token]
        if reached > goal:
            return token
    return likely[-1]


def verified(drafts: list[int], q: list[Row] | None, p: list[Row], uniforms: list[Row]) -> list[int]:
    for place, (draft, row, (accepts, draws)) in enumerate(zip(drafts, p, uniforms, strict=False)):
        share = [float(token == draft) for token in range(len(row))] if q is None else q[place]
        if accepts * share[draft] < row[draft]:
            continue
        residual = [max(a - b, 0.0) for a, b in zip(row, share, strict=True)]
        if q is None:
            residual = [0.0 if token == draft else weight for token, weight in enumerate(row)]
        return [*drafts[:place], draw(residual if any(residual) else row, draws)]
    return [*drafts, draw(p[len(drafts)], uniforms[len(drafts)][1])]


def law(rng: Random, vocab: int, zeros: float = 0.3) -> Row:
    """Multiples of 1/64 that sum to 1, some of them 0."""
    possible = [token for token in range(vocab) if rng.random() >= zeros] or [rng.randrange(vocab)]
    counts = [0] * vocab
    for token in possible:
        counts[token] = 1
    for _ in range(SIXTY_FOURTHS - len(possible)):
        counts[rng.choice(possible)] += 1
    return [count / SIXTY_FOURTHS for count in counts]


def _uniforms(rng: Random, rows: int) -> list[Row]:
    return [[(2 * rng.randrange(ODD // 2) + 1) / ODD for _ in range(2)] for _ in range(rows)]


def _asked(rng: Random, count: int, drawn: str) -> list[tuple[list[int], list[Row] | None, list[Row], list[Row]]]:
    """drawn: ``q`` drafts from q; ``None`` any draft, without q; ``any`` any draft, also one that q never proposes."""
    found = []
    for _ in range(count):
        k, vocab = rng.randrange(6), rng.randrange(2, 7)
        p, q = [law(rng, vocab) for _ in range(k + 1)], [law(rng, vocab) for _ in range(k)]
        drafts = [rng.choices(range(vocab), row)[0] if drawn == "q" else rng.randrange(vocab) for row in q]
        found.append((drafts, None if drawn == "None" else q, p, _uniforms(rng, k + 1)))
    return found


def _verify(rng: Random) -> tuple[Case, ...]:
    def case(name: str, asked: list[Any], hint: str, weight: float = 1.0) -> Case:
        return _many(name, "verifica", asked, [verified(*a) for a in asked], hint, weight)

    halves, thin = [0.5, 0.5], [0.5 - 1e-9, 0.5 - 1e-9]
    middle = [0.0, 0.25, 0.5, 0.25, 0.0]
    high, low = [[0.0, ALMOST_ONE]], [[0.0, 0.0]]
    return (
        case("borradores sorteados de q", _asked(rng, CALLS, "q"), "Repasa la regla y el residuo, fila a fila.", 2.0),
        case("sin q", _asked(rng, CALLS, "None"), "Con q = None, q(d) = 1 y el residuo es p sin el borrador.", 2.0),
        case(
            "borradores que p o q no darían",
            _asked(rng, CALLS, "any"),
            "No dividas por q(d): puede ser 0. Con p(d) = 0 no se acepta nunca, ni con u = 0.",
        ),
        case(
            "u = 0 y p(d) = 0",
            [
                ([0], q, [[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]], [[0.0, u], [0.0, 0.0]])
                for q in (None, [[0.5, 0.5, 0.0]])
                for u in (0.0, 0.5, ALMOST_ONE)
            ],
            "La comparación es estricta: u · q(d) < p(d).",
        ),
        case("las dos puntas del sorteo", [([], [], [middle], u) for u in (high, low)], "Un peso 0 no sale nunca."),
        case(
            "residuo todo ceros",
            [([d], [halves], [thin, halves], [[ALMOST_ONE, u], [0.0, 0.0]]) for d in (0, 1) for u in (0.25, 0.75)],
            "Si max(p − q, 0) es todo ceros (solo por redondeo), sortea con p.",
        ),
        Case(
            name="nunca un token con p = 0",
            args=(),
            play=_possible(_asked(rng, CALLS, "any") + _asked(rng, CALLS, "None")),
            hint="Ningún camino debe dar un token que el modelo no puede dar.",
        ),
        *_same_laws(rng),
    )


def _possible(asked: list[Any]) -> Callable[[Remote], Outcome]:
    def play(remote: Remote) -> Outcome:
        for (_, _, p, _), answer in zip(asked, calls(remote, "verifica", asked), strict=True):
            shaped = isinstance(answer, list) and 1 <= len(answer) <= len(p)
            if not shaped or not all(type(t) is int and 0 <= t < len(p[0]) for t in answer):
                return Outcome("de 1 a k + 1 tokens del vocabulario")
            if not all(row[token] > 0 for token, row in zip(answer, p, strict=False)):
                return Outcome("solo tokens que p permite")
        return Outcome(note=f"{len(asked)} llamadas")

    return play


def _same_laws(rng: Random) -> tuple[Case, ...]:
    """Honest work is refuted once in a thousand million; a wrong rule, by thousands of draws, always."""
    hint = "Cuenta tú miles de tiradas con ji_cuadrado: la distribución debe ser p, venga de donde venga el token."

    def case(name: str, q: list[Row] | None, p: list[Row], certain: tuple[int, ...] = ()) -> Case:
        return Case(
            name=name, args=(), play=same_law(q, p, DRAWS, rng.randrange(10**9), certain), hint=hint, weight=1.5
        )

    laws = [[law(rng, 6, 0.0) for _ in range(5)] for _ in range(2)]
    flat, spread = [9 / 64, 9 / 64, 10 / 64, 36 / 64], [34 / 64, 10 / 64, 10 / 64, 10 / 64]
    gaps = [[0.0, 0.5, 0.25, 0.25], [0.25, 0.25, 0.0, 0.5], [0.25, 0.25, 0.25, 0.25]]
    return (
        case("χ²: dos leyes cualesquiera", laws[0][:2], laws[1][:3]),
        case("χ²: quien propone se equivoca mucho", [flat, flat], [spread, spread, flat]),
        case("χ²: p con ceros", [[0.25] * 4, [0.25] * 4], gaps),
        case("χ²: borradores sin q", None, [spread, flat, spread], (rng.randrange(4), rng.randrange(4))),
    )


# ---- The law of what comes out


def _law(rng: Random) -> tuple[Case, ...]:
    def out(q: Row, accept: Row, rest: Row) -> Row:
        refused = sum(share * (1 - a) for share, a in zip(q, accept, strict=True))
        return [share * a + refused * r for share, a, r in zip(q, accept, rest, strict=True)]

    def rule(vocab: int) -> tuple[Row, Row, Row]:
        return law(rng, vocab), [rng.random() for _ in range(vocab)], law(rng, vocab)

    any_rule = [rule(rng.randrange(2, 9)) for _ in range(40)]
    exact, hasty = [], []
    for _ in range(40):
        q, p = law(rng, 5, 0.0), law(rng, 5)
        left = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]
        if any(left):
            exact.append((q, [min(1.0, a / b) for a, b in zip(p, q, strict=True)], [x / sum(left) for x in left]))
        hasty.append((q, [float(a >= b) for a, b in zip(p, q, strict=True)], p))
    groups = {
        "reglas cualesquiera": (any_rule, "Suma los dos caminos por los que sale cada token."),
        "la regla exacta": (exact, "Con la regla exacta debe salir p."),
        "la regla apresurada": (
            hasty,
            "El sustituto sale con la probabilidad total de rechazo, no con una parte.",
        ),
        "nunca se acepta": ([(law(rng, 4), [0.0] * 4, law(rng, 4))], "Si nada se acepta, manda el sustituto."),
    }
    return tuple(
        _many(name, "ley", asked, [out(*a) for a in asked], hint, 2.0 if name == "reglas cualesquiera" else 1.0)
        for name, (asked, hint) in groups.items()
    )


# ---- What it gains


def expected_tokens(alpha: float, k: int) -> float:
    return sum(alpha**i for i in range(k + 1))


def gain(alpha: float, k: int, c: float, n: int, free: float, slope: float) -> float:
    def time(tokens: int) -> float:
        return 1 + slope * max(0.0, tokens - free)

    return expected_tokens(alpha, k) * time(n) / (time(n * (k + 1)) + k * c)


def best_length(alpha: float, c: float, n: int, free: float, slope: float, most: int) -> int | None:
    """The number of drafts that gains most; None where the second best is so near that rounding may decide."""
    ranked = sorted(((gain(alpha, k, c, n, free, slope), k) for k in range(most + 1)), reverse=True)
    (best, k), (second, _) = ranked[:2]
    return k if second < best * (1 - 1e-6) else None


def _gain(rng: Random) -> tuple[Case, ...]:
    def machine() -> tuple[float, float]:
        return rng.uniform(1, 100), rng.uniform(0.001, 0.3)

    rates = [*(rng.random() for _ in range(20)), 0.0, 1.0]
    tokens = [(alpha, k) for alpha in rates for k in (0, 1, 5, 12)]
    some = [(rng.random(), rng.randrange(9), rng.random(), rng.randrange(1, 65), *machine()) for _ in range(CALLS)]
    ends = [(alpha, k, 0.0, n, *machine()) for alpha in (0.0, 1.0) for k in (0, 4) for n in (1, 50)]
    drawn = [(rng.random(), rng.choice([0.0, 0.05, 0.3]), rng.randrange(1, 65), *machine(), 8) for _ in range(100)]
    lengths = [args for args in drawn if best_length(*args) is not None]
    useless = [(0.0, 0.0, 1, 20.0, 0.1, 6), (0.4, 0.9, 1, 20.0, 0.1, 6), (0.7, 0.0, 64, 3.5, 0.12, 6)]
    best = "Calcula la ganancia de cada k y quédate con la mayor; si ninguna pasa de 1, es 0."
    return (
        _many(
            "tokens por paso", "tokens_por_paso", tokens, [expected_tokens(*a) for a in tokens], "Suma las potencias."
        ),
        _many("ganancia", "ganancia", some, [gain(*a) for a in some], "Tokens por paso, tiempo con y tiempo sin.", 2.0),
        _many("α de 0 y de 1", "ganancia", ends, [gain(*a) for a in ends], "Con α = 1 la fracción divide por 0."),
        _many("mejor_k", "mejor_k", lengths, [best_length(*a) for a in lengths], best),
        _many("cuando no compensa", "mejor_k", useless, [0, 0, 0], best),
    )


# ---- Tests that tell verifiers apart


def _hunt() -> tuple[Case, ...]:
    hint = "Busca un ejemplo corto en el que este verificador y uno correcto den cosas distintas."
    right = Case(
        name="tus pruebas esperan lo correcto",
        args=(),
        play=hunt(None),
        hint="Calcula a mano lo que debe salir; elegidos tiene un token más que borrador.",
    )
    return (right, *(Case(name=f"caza: {fault}", args=(), play=hunt(fault), hint=hint) for fault in FAULTY))
