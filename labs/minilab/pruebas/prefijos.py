"""What public and hidden checks of budgets, prefixes and limits share: oracles, and attacks on the key of a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from minilab.pruebas.casos import Outcome, Remote

Share = list[list[int]]  # [request, tokens]
KEY_BYTES = 32
LEAST_RANK = 200  # of 256 bits: an expanded 64-, 128- or 160-bit hash spans no more than it has
LEAST_FLIPPED = 0.25  # of the bits of a key when one token changes; a sound hash flips one half


# ---- The budget of a step


def split(active: Sequence[int], waiting: Sequence[Sequence[int]], budget: int) -> Share:
    """One token for each that decodes, in order; what is left goes to the prompts, in order."""
    share = [[i, 1] for i in active[:budget]]
    left = budget - len(share)
    for ident, missing in waiting:
        if left > 0:
            share.append([ident, min(missing, left)])
            left -= share[-1][1]
    return share


def broken_split(active: Sequence[int], waiting: Sequence[Sequence[int]], budget: int, share: Any) -> str | None:
    """The rule that a student's share breaks, in Spanish; None where it can be computed."""
    if not isinstance(share, list) or not all(isinstance(e, (list, tuple)) and len(e) == 2 for e in share):
        return "el reparto es una lista de parejas [petición, tokens]"
    if len({i for i, _ in share}) != len(share):
        return "una petición aparece dos veces en el reparto"
    missing = {i: 1 for i in active} | {i: m for i, m in waiting}
    for ident, tokens in share:
        if ident not in missing or not 1 <= tokens <= missing[ident]:
            return f"la petición {ident} no puede calcular {tokens} tokens ahora"
    total = sum(tokens for _, tokens in share)
    if total > budget:
        return f"el reparto lleva {total} tokens y el presupuesto es {budget}"
    return "hay trabajo y el reparto está vacío" if missing and not share else None


def longest_gap(moments: dict[str, list[float]]) -> float:
    return max((b - a for own in moments.values() for a, b in pairwise(own)), default=0.0)


# ---- The key of a block


Keys = list[str]


def keys_of(remote: Remote, tokens: Sequence[int], size: int, root: str = "") -> Keys:
    """The student's chain, in hex; "" for what is no key of 32 bytes."""
    got = remote.function("en_hex", list(tokens), size, root)
    keys = got if isinstance(got, list) else []
    return [k if isinstance(k, str) and len(k) == 2 * KEY_BYTES else "" for k in keys]


def shaped(texts: Sequence[tuple[list[int], int]]) -> Callable[[Remote], Outcome]:
    """A key of 32 bytes for each full block, none for what is left over."""

    def judge(remote: Remote) -> Outcome:
        for tokens, size in texts:
            keys = keys_of(remote, tokens, size)
            if len(keys) != len(tokens) // size:
                return Outcome(
                    f"{len(tokens) // size} claves para {len(tokens)} tokens en bloques de {size}; salieron {len(keys)}"
                )
            if "" in keys:
                return Outcome(f"claves de {KEY_BYTES} bytes")
        return Outcome()

    return judge


def told_apart(
    pairs: Sequence[tuple[list[int], list[int]]], size: int, why: str, roots: tuple[str, str] = ("", "")
) -> Callable[[Remote], Outcome]:
    """From the first block that differs on, no key is the same; before it all are."""

    def judge(remote: Remote) -> Outcome:
        for one, other in pairs:
            same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
            full = min(len(one), len(other)) // size
            common = 0 if roots[0] != roots[1] else full if same is None else min(same // size, full)
            keys, others = keys_of(remote, one, size, roots[0]), keys_of(remote, other, size, roots[1])
            if "" in keys + others or len(keys) != len(one) // size or len(others) != len(other) // size:
                return Outcome("una clave de 32 bytes por bloque lleno")
            if keys[:common] != others[:common]:
                return Outcome("las mismas claves para los bloques de un comienzo igual")
            if any(a == b for a, b in zip(keys[common:], others[common:], strict=False)):
                return Outcome(f"claves distintas: {why}")
        return Outcome()

    return judge


def repeatable(tokens: list[int], size: int) -> Callable[[Remote], Outcome]:
    """The same text has the same keys whatever was asked in between, and longer texts begin with them."""

    def judge(remote: Remote) -> Outcome:
        first = keys_of(remote, tokens, size)
        keys_of(remote, tokens[::-1], size)
        longer = keys_of(remote, [*tokens, *tokens], size)
        if not first or "" in first or first != keys_of(remote, tokens, size):
            return Outcome("las mismas claves cada vez para los mismos tokens")
        return Outcome() if longer[: len(first)] == first else Outcome("las claves de un prefijo, al principio")

    return judge


def strong(seed: int, tokens_of: int = 4) -> Callable[[Remote], Outcome]:
    """Keys that span 256 bits and in which one changed token flips many of them."""

    def judge(remote: Remote) -> Outcome:
        rng = Random(seed)
        text = [rng.randrange(50_000) for _ in range(400 * tokens_of)]
        keys = keys_of(remote, text, tokens_of, f"{seed}")
        if len(keys) != 400 or "" in keys:
            return Outcome("una clave de 32 bytes por bloque lleno")
        if (rank := _rank([int(k, 16) for k in keys])) < LEAST_RANK:
            return Outcome(f"claves de 256 bits útiles; estas solo tienen {rank}, aunque midan 32 bytes")
        if (flipped := _flipped(remote, rng, tokens_of)) < LEAST_FLIPPED:
            return Outcome(
                f"que cambiar un token cambie la clave entera; aquí cambia el {100 * flipped:.0f} % de sus bits"
            )
        return Outcome()

    return judge


def _rank(numbers: Sequence[int]) -> int:
    """Over GF(2), of the differences from the first."""
    basis: dict[int, int] = {}
    for number in numbers[1:]:
        rest = number ^ numbers[0]
        while rest and rest.bit_length() in basis:
            rest ^= basis[rest.bit_length()]
        if rest:
            basis[rest.bit_length()] = rest
    return len(basis)


def _flipped(remote: Remote, rng: Random, size: int) -> float:
    bits = tries = 0
    for _ in range(24):
        block = [rng.randrange(50_000) for _ in range(size)]
        near = list(block)
        near[rng.randrange(size)] += 1
        one, other = keys_of(remote, block, size), keys_of(remote, near, size)
        if not one or not other or "" in one + other:
            return 0.0
        bits += (int(one[0], 16) ^ int(other[0], 16)).bit_count()
        tries += 8 * KEY_BYTES
    return bits / tries


def no_birthday(seed: int, calls: int = 16, each: int = 12_000) -> Callable[[Remote], Outcome]:
    """So many keys that two of 32 bits would be alike."""

    def judge(remote: Remote) -> Outcome:
        seen: set[str] = set()
        for call in range(calls):
            keys = keys_of(remote, list(range(each)), 1, f"{seed}-{call}")
            if len(keys) != each or "" in keys:
                return Outcome("una clave de 32 bytes por bloque lleno")
            seen.update(keys)
        if len(seen) < calls * each:
            return Outcome(
                f"{calls * each} claves distintas; hay {calls * each - len(seen)} repetidas de textos distintos"
            )
        return Outcome(note=f"{len(seen)} claves distintas")

    return judge


# ---- The prefix cache


def hit_share(prompts: Sequence[Sequence[int]], size: int) -> float:
    """Share of the prompts' tokens that a large, empty cache finds, one prompt after another."""
    known: set[tuple[int, ...]] = set()
    found = total = 0
    for tokens in prompts:
        total += len(tokens)
        for end in range(size, len(tokens), size):
            if tuple(tokens[:end]) not in known:
                break
            found += size
        known.update(tuple(tokens[:end]) for end in range(size, len(tokens) + 1, size))
    return found / total if total else 0.0


# ---- The token bucket


Call = tuple[float, str, int]  # moment, method, units


def bucket_answers(rate: float, burst: int, script: Sequence[Call]) -> list[Any]:
    """Full at first; a clock that goes back adds nothing, neither then nor on its way forth again."""
    level, latest, answers = float(burst), script[0][0], []
    for moment, method, units in script:
        level = min(burst, level + rate * max(0.0, moment - latest))
        latest = max(latest, moment)
        if method == "toma":
            answers.append(level >= units)
            level -= units if level >= units else 0
        else:
            answers.append(max(0.0, (units - level) / rate))
    return answers


# ---- The choice


def best_budget(measured: Sequence[dict[str, float]], slo: dict[str, float]) -> int | None:
    good = [m for m in measured if all(m[name] <= limit for name, limit in slo.items())]
    return min(good, key=lambda m: (-m["tok_s"], m["presupuesto"]))["presupuesto"] if good else None
