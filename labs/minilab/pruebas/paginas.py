"""Lab 3's judges: a student's block pool and copy-on-write memory driven beside a model of what they must do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from minilab.pruebas.casos import Outcome, Remote, StudentError

Play = Callable[[Remote], Outcome]


class Wrong(Exception):
    """The student's object and the model disagree; the message is one Spanish sentence."""


class PoolDriver:
    """A student's ``Bloques`` and a model of it: every operation is done on both, then the whole state is compared."""

    def __init__(self, remote: Remote, num_blocks: int):
        self.remote, self.counts = remote, [0] * num_blocks
        self.pool = remote.new("Bloques", num_blocks)
        self._compare(f"recién creado con {num_blocks} bloques")

    @property
    def num_free(self) -> int:
        return self.counts.count(0)

    def held(self) -> list[int]:
        return [block for block, count in enumerate(self.counts) if count]

    def allocate(self, count: int) -> list[int]:
        """The blocks that the student gave; [] where there are too few, and None was the answer."""
        done = f"allocate({count})"
        value = self.remote.call(self.pool, "allocate", count)
        if count > self.num_free:
            if value is not None:
                raise Wrong(f"{done} con {self.num_free} libres debía devolver None y devolvió {value}")
            self._compare(f"{done} con pocos libres")
            return []
        if not isinstance(value, list) or len(value) != count or not all(type(b) is int for b in value):
            raise Wrong(f"{done} debía devolver {count} bloques y devolvió {value}")
        for block in value:
            if not 0 <= block < len(self.counts):
                raise Wrong(f"{done} dio el bloque {block}, que no existe")
            if self.counts[block]:
                raise Wrong(f"{done} dio el bloque {block}, que ya tiene dueño")
            self.counts[block] = 1
        self._compare(done)
        return value

    def change(self, method: str, blocks: Sequence[int], by: int) -> None:
        """``share`` (by 1) or ``free`` (by -1) of blocks that are held."""
        self.remote.call(self.pool, method, list(blocks))
        for block in blocks:
            self.counts[block] += by
        self._compare(f"{method}({list(blocks)})")

    def refuse(self, method: str, blocks: Sequence[int]) -> None:
        """The call must raise ValueError and change nothing."""
        done = f"{method}({list(blocks)})"
        try:
            self.remote.call(self.pool, method, list(blocks))
        except StudentError as error:
            if error.error != "ValueError":
                raise Wrong(f"{done} debía lanzar ValueError y lanzó {error.error}") from error
        else:
            raise Wrong(f"{done} debía lanzar ValueError: nombra un bloque sin dueño, que no existe o repetido")
        self._compare(f"{done}, rechazado con ValueError")

    def _compare(self, done: str) -> None:
        """``num_free`` is a property: it is read as one, whatever else the student made of it."""
        calls = [("__getattribute__", ["num_free"]), *(("refs", [b]) for b in range(len(self.counts)))]
        free, *refs = self.remote.run(self.pool, calls)
        for block, (mine, theirs) in enumerate(zip(self.counts, refs, strict=True)):
            if type(theirs) is not int or theirs != mine:
                raise Wrong(f"tras {done}, refs({block}) debía ser {mine} y es {theirs}")
        if type(free) is not int or free != self.num_free:
            raise Wrong(f"tras {done}, num_free debía ser {self.num_free} y es {free}")


def drives(num_blocks: int, script: Callable[[PoolDriver], None]) -> Play:
    """A play that runs ``script`` on a fresh pool."""

    def play(remote: Remote) -> Outcome:
        try:
            script(PoolDriver(remote, num_blocks))
        except Wrong as wrong:
            return Outcome(str(wrong))
        return Outcome()

    return play


def gives_and_takes(driver: PoolDriver) -> None:
    first, second = driver.allocate(2), driver.allocate(1)
    driver.change("free", first, -1)
    driver.change("free", second, -1)
    driver.change("free", driver.allocate(len(driver.counts)), -1)


def too_few(driver: PoolDriver) -> None:
    taken = driver.allocate(driver.num_free - 1)
    driver.allocate(2)
    driver.allocate(0)
    driver.allocate(1)
    driver.allocate(1)
    driver.change("free", taken, -1)


def shares(driver: PoolDriver) -> None:
    table = driver.allocate(2)
    driver.change("share", table[:1], 1)
    driver.change("free", table, -1)
    driver.change("free", table[:1], -1)


def frees_twice(driver: PoolDriver) -> None:
    table = driver.allocate(2)
    driver.change("free", table[:1], -1)
    driver.refuse("free", table[:1])
    driver.refuse("share", table[:1])
    driver.refuse("free", table[::-1])


def bad_names(driver: PoolDriver) -> None:
    table = driver.allocate(len(driver.counts))
    for method in ("free", "share"):
        driver.refuse(method, [table[0], -1])
        driver.refuse(method, [table[0], len(table)])
        driver.refuse(method, [table[1], table[0], table[1]])


def at_random(seed: float, steps: int) -> Callable[[PoolDriver], None]:
    """Operations drawn as they go, a third of them ones that must be refused; at the end all comes back."""

    def script(driver: PoolDriver) -> None:
        rng = Random(seed)
        for _ in range(steps):
            _random_step(driver, rng)
        while held := driver.held():
            driver.change("free", rng.sample(held, len(held)), -1)
        everything = driver.allocate(len(driver.counts))
        driver.change("free", everything, -1)

    return script


def _random_step(driver: PoolDriver, rng: Random) -> None:
    held = driver.held()
    kind = rng.choice(("allocate", "allocate", "share", "free", "free", "wrong", "wrong"))
    if kind == "allocate":
        driver.allocate(rng.randrange(driver.num_free + 3))
    elif kind != "wrong":
        driver.change(kind, rng.sample(held, rng.randrange(len(held) + 1)), 1 if kind == "share" else -1)
    else:
        nobody = [block for block, count in enumerate(driver.counts) if not count]
        strangers = [-1, -len(driver.counts), len(driver.counts), *nobody, *held[:1] * 2]
        blocks = [*rng.sample(held, min(len(held), 3)), rng.choice(strangers)]
        if len(set(blocks)) == len(blocks) and blocks[-1] in held:
            blocks.append(blocks[-1])
        rng.shuffle(blocks)
        driver.refuse(rng.choice(("share", "free")), blocks)


def returns_a_tuple(remote: Remote) -> Outcome:
    """The engine adds tables: ``tuple + list`` would stop it."""
    kind = remote.function("tipo_del_reparto")
    return Outcome() if kind == "tuple" else Outcome(f"allocate debía devolver una tupla y devolvió un {kind}")


class ToyModel:
    """What ``Juguete`` must hold: each branch's words, and which of its blocks are shared, under names of our own."""

    def __init__(self, num_blocks: int, size: int):
        self.num_blocks, self.size = num_blocks, size
        self.words: dict[str, list[str]] = {}
        self.tables: dict[str, list[int]] = {}
        self._names = 0

    def counts(self) -> Counter[int]:
        return Counter(block for table in self.tables.values() for block in table)

    def fork(self, name: str, child: str) -> None:
        self.words[child], self.tables[child] = list(self.words[name]), list(self.tables[name])

    def put(self, name: str, place: int, word: str) -> bool:
        table, counts, index = self.tables[name], self.counts(), place // self.size
        fresh = index == len(table) or counts[table[index]] > 1
        if fresh and len(counts) == self.num_blocks:
            return False
        if fresh:
            self._names += 1
            table[index : index + 1] = [self._names]
        words = self.words[name]
        words[place : place + 1] = [word]
        return True


def toy_play(num_blocks: int, size: int, operations: Iterable[tuple[Any, ...]]) -> Play:
    """Run operations on the student's ``Juguete`` and on the model, comparing words, counts and free blocks after each.

    They are ``("nueva", "A")``, ``("pon", "A", place, word)``, ``("bifurca", "A", "B")`` and ``("termina", "A")``.
    """
    script = list(operations)

    def play(remote: Remote) -> Outcome:
        toy, model = remote.new("Juguete", num_blocks, size), ToyModel(num_blocks, size)
        for operation in script:
            if complaint := _toy_step(remote, toy, model, operation):
                return Outcome(complaint)
        return Outcome()

    return play


def _toy_step(remote: Remote, toy: int, model: ToyModel, operation: tuple[Any, ...]) -> str | None:
    kind, name, *rest = operation
    done = f"{kind}({', '.join(map(repr, operation[1:]))})"
    value = remote.call(toy, kind, name, *rest)
    if kind == "nueva":
        model.words[name], model.tables[name] = [], []
    elif kind == "bifurca":
        model.fork(name, rest[0])
    elif kind == "termina":
        del model.words[name], model.tables[name]
    else:
        expected = model.put(name, *rest)
        if value is not expected:
            why = "queda memoria" if expected else "hacía falta un bloque y no queda ninguno"
            return f"{done} debía devolver {expected} ({why}) y devolvió {value}"
    return _toy_difference(remote, toy, model, done)


def _toy_difference(remote: Remote, toy: int, model: ToyModel, done: str) -> str | None:
    state, *texts = remote.run(toy, [("estado", []), *(("lee", [name]) for name in model.words)])
    for (name, words), text in zip(model.words.items(), texts, strict=True):
        if text != words:
            return f"tras {done}, {name} debía leer {words} y lee {text}"
    counts = model.counts()
    if state["libres"] != model.num_blocks - len(counts):
        return f"tras {done} debían quedar {model.num_blocks - len(counts)} bloques libres y quedan {state['libres']}"
    right, got = sorted(counts.values()), sorted(filter(None, state["cuentas"]))
    if got != right:
        return f"tras {done} las cuentas debían ser {right} y son {got}"
    return None


def random_toy(rng: Random, num_blocks: int, size: int, steps: int) -> list[tuple[Any, ...]]:
    """Operations for :func:`toy_play`: branches that grow, fork, are rewritten in the middle, and end."""
    model = ToyModel(num_blocks, size)
    script: list[tuple[Any, ...]] = []
    for step in range(steps):
        names = list(model.words)
        kind = rng.choice(("nueva", "bifurca", "termina", *("pon",) * 6)) if names else "nueva"
        name = rng.choice(names) if names else ""
        if kind == "nueva":
            operation = ("nueva", f"N{step}")
            model.words[f"N{step}"], model.tables[f"N{step}"] = [], []
        elif kind == "bifurca":
            operation = ("bifurca", name, f"R{step}")
            model.fork(name, f"R{step}")
        elif kind == "termina" and len(names) > 2:
            operation = ("termina", name)
            del model.words[name], model.tables[name]
        else:
            length = len(model.words[name])
            place = rng.randrange(length) if length and rng.random() < 0.25 else length
            operation = ("pon", name, place, f"w{step}")
            model.put(name, place, f"w{step}")
        script.append(operation)
    return script


def victims(requests: Sequence[dict[str, Any]], missing: int) -> list[Any] | None:
    """The oracle of ``victimas``: latest arrival first, never the oldest; a shared block stays until its last user."""
    oldest = min((r["llegada"] for r in requests), default=0)
    staying = sorted(requests, key=lambda r: r["llegada"])
    before = len({b for r in staying for b in r["bloques"]})
    out: list[Any] = []
    while before - len({b for r in staying for b in r["bloques"]}) < missing:
        if not staying or staying[-1]["llegada"] == oldest:
            return None
        out.append(staying.pop()["id"])
    return out


def audit(counts: Sequence[int], free: int, tables: Sequence[Sequence[int]], kept: Sequence[int]) -> dict[str, Any]:
    """The oracle of ``audita``."""
    expected = [sum(b in table for table in tables) + (b in kept) for b in range(len(counts))]
    wrong = [b for b, (count, right) in enumerate(zip(counts, expected, strict=True)) if count != right]
    return {"mal_contados": wrong, "perdidos": len(counts) - free - sum(e > 0 for e in expected)}


def fragmentation(lengths: Sequence[int], size: int, max_len: int) -> dict[str, float]:
    """The oracle of ``fragmentacion``."""
    blocks = sum((n + size - 1) // size for n in lengths)
    contiguous, paged = max_len * len(lengths), blocks * size
    return {
        "contigua": (contiguous - sum(lengths)) / contiguous if contiguous else 0.0,
        "paginada": (paged - sum(lengths)) / paged if paged else 0.0,
    }


def external(memory: str) -> float:
    """The oracle of ``externa``."""
    holes = [len(hole) for hole in "".join(c if c == "." else " " for c in memory).split()]
    return 1 - max(holes) / sum(holes) if holes else 0.0


def external_play(memory: str) -> Play:
    """``externa`` stands in the cell of ``fragmentacion``."""

    def play(remote: Remote) -> Outcome:
        value, expected = remote.function("externa", memory), external(memory)
        if type(value) not in (int, float) or abs(value - expected) > 1e-9:
            return Outcome(f"externa({memory!r}) = {expected:.4g} y devolvió {value}")
        return Outcome()

    return play
