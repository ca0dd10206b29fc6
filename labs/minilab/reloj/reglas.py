"""What a batch must respect, judged on plain values of any shape: the rules of the world and the memory behind them.

Every broken rule is a :class:`Violation` with one Spanish sentence; no junk raises anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

FIELDS = ("id", "desde", "tokens", "bloques")
Mark = bytes


class Violation(Exception):
    """A rule that the batch breaks; the message is for the student."""


@dataclass(frozen=True)
class Limits:
    """max_requests: items a step; max_tokens: tokens a step; num_blocks blocks of block_size slots each."""

    max_requests: int
    max_tokens: int
    num_blocks: int
    block_size: int

    def to_plain(self) -> dict[str, int]:
        """What the student's constructor receives."""
        return {
            "max_peticiones": self.max_requests,
            "max_tokens": self.max_tokens,
            "num_bloques": self.num_blocks,
            "tam_bloque": self.block_size,
        }


@dataclass(frozen=True)
class Request:
    """One request of a workload. arrival: seconds; max_new: tokens to draw at most, at least 1."""

    id: int
    arrival: float
    prompt: tuple[int, ...]
    max_new: int


@dataclass(frozen=True)
class Item:
    """One validated item of a step: ``tokens`` are computed at positions ``start``…, in ``blocks``.

    blocks: exactly those that cover positions 0 to start+len(tokens); block j holds positions j*block_size onwards.
    draws: the item reaches the end of what is known, so the model draws the request's next token.
    """

    id: int
    start: int
    tokens: tuple[int, ...]
    blocks: tuple[int, ...]
    draws: bool

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass
class Progress:
    """A request under way. known: prompt and drawn tokens; the times are those of the clock, None until they happen."""

    request: Request
    known: list[int]
    marks: list[Mark] = field(default_factory=list)
    arrived: bool = False
    finished: bool = False
    first_step: int | None = None
    first_token_at: float | None = None
    finished_at: float | None = None

    @property
    def text(self) -> list[int]:
        """The drawn tokens."""
        return self.known[len(self.request.prompt) :]

    def marks_until(self, end: int) -> list[Mark]:
        """The mark of each position, at least of those before ``end``: a hash of the known tokens up to and with it."""
        for token in self.known[len(self.marks) : end]:
            before = self.marks[-1] if self.marks else b""
            self.marks.append(blake2b(before + token.to_bytes(4, "little"), digest_size=16).digest())
        return self.marks


class Memory:
    """What every slot of every block holds: the mark of the prefix that ends there, None where nothing was written."""

    def __init__(self, limits: Limits):
        self._size = limits.block_size
        self._slots: list[list[Mark | None]] = [[None] * self._size for _ in range(limits.num_blocks)]
        self._writer: list[tuple[int, int] | None] = [None] * limits.num_blocks

    def check(self, item: Item, marks: list[Mark]) -> None:
        """Every position before ``item.start`` must hold the request's own prefix. Raises :class:`Violation`."""
        for i in range(-(-item.start // self._size)):
            block, first = item.blocks[i], i * self._size
            expected = marks[first : min(first + self._size, item.start)]
            if self._slots[block][: len(expected)] != expected:
                last = first + len(expected) - 1
                raise Violation(
                    f"el bloque {block} no guarda las posiciones {first} a {last} de la petición {item.id}: "
                    f"{self._history(block)}. Calcúlalas antes (desde más pequeño) o usa el bloque que las tiene"
                )

    def write(self, item: Item, marks: list[Mark], step: int) -> None:
        for position in range(item.start, item.end):
            block = item.blocks[position // self._size]
            self._slots[block][position % self._size] = marks[position]
            self._writer[block] = (item.id, step)

    def _history(self, block: int) -> str:
        writer = self._writer[block]
        if writer is None:
            return "nadie ha escrito en él"
        return f"la última en escribirlo fue la petición {writer[0]}, en el paso {writer[1]}"


def check_batch(batch: Any, progress: Mapping[int, Progress], memory: Memory, limits: Limits) -> list[Item]:
    """The batch as items, once every rule holds. Raises :class:`Violation`."""
    if type(batch) is not list:
        raise Violation(f"paso() debe devolver una lista de elementos; devolvió {shown(batch)}")
    if len(batch) > limits.max_requests:
        raise Violation(f"el lote lleva {len(batch)} elementos y max_peticiones es {limits.max_requests}")
    items = [_item(entry, progress, limits) for entry in batch]
    total = sum(len(item.tokens) for item in items)
    if total > limits.max_tokens:
        raise Violation(f"el lote calcula {total} tokens y max_tokens es {limits.max_tokens}")
    _check_ids(items)
    _check_writers(items, limits.block_size)
    for item in items:
        memory.check(item, progress[item.id].marks_until(item.end))
    return items


def _item(entry: Any, progress: Mapping[int, Progress], limits: Limits) -> Item:
    if type(entry) is not dict or set(entry) != set(FIELDS):
        raise Violation(f"cada elemento es un diccionario con las claves {', '.join(FIELDS)}; llegó {shown(entry)}")
    ident, start, tokens, blocks = (entry[name] for name in FIELDS)
    if type(ident) is not int or ident not in progress or not progress[ident].arrived:
        raise Violation(f"no ha llegado ninguna petición con id {shown(ident)}")
    state = progress[ident]
    if state.finished:
        raise Violation(f"la petición {ident} ya terminó (recibiste fin=True): no la planifiques más")
    if type(start) is not int or start < 0:
        raise Violation(f"petición {ident}: desde debe ser un entero ≥ 0; es {shown(start)}")
    _check_integers(ident, "tokens", tokens, limits.max_tokens, f"max_tokens es {limits.max_tokens}")
    _check_integers(ident, "bloques", blocks, limits.num_blocks, f"solo hay {limits.num_blocks} bloques")
    _check_tokens(state, start, tokens)
    needed = -(-(start + len(tokens)) // limits.block_size)
    _check_blocks(ident, blocks, needed, start + len(tokens), limits)
    end = start + len(tokens)
    return Item(ident, start, tuple(tokens), tuple(blocks[:needed]), draws=end == len(state.known))


def _check_integers(ident: int, name: str, values: Any, most: int, why: str) -> None:
    if type(values) is not list or not values:
        raise Violation(f"petición {ident}: {name} debe ser una lista con algún entero; es {shown(values)}")
    if len(values) > most:
        raise Violation(f"petición {ident}: {name} lleva {len(values)} elementos y {why}")
    if wrong := [v for v in values if type(v) is not int]:
        raise Violation(f"petición {ident}: {name} lleva {shown(wrong[0])}, que no es un entero")


def _check_tokens(state: Progress, start: int, tokens: list[int]) -> None:
    ident, known = state.request.id, state.known
    if start + len(tokens) > len(known):
        raise Violation(
            f"petición {ident}: desde {shown(start)} con {len(tokens)} tokens pasa del final: se conocen {len(known)} "
            "tokens (prompt más los que recibiste)"
        )
    for position, (given, own) in enumerate(zip(tokens, known[start:], strict=False), start):
        if given != own:
            raise Violation(
                f"petición {ident}: en la posición {position} va el token {own} y diste {shown(given)}; "
                "tokens son los suyos (prompt más los recibidos) a partir de desde"
            )


def _check_blocks(ident: int, blocks: list[int], needed: int, length: int, limits: Limits) -> None:
    if outside := [b for b in blocks if not 0 <= b < limits.num_blocks]:
        raise Violation(
            f"petición {ident}: el bloque {shown(outside[0])} no existe (van de 0 a {limits.num_blocks - 1})"
        )
    if len(set(blocks)) != len(blocks):
        raise Violation(f"petición {ident}: repite un bloque en su lista {shown(blocks)}")
    if len(blocks) < needed:
        size = limits.block_size
        raise Violation(
            f"petición {ident}: {length} posiciones ocupan {needed} bloques de {size} y diste {len(blocks)}"
        )


def _check_ids(items: list[Item]) -> None:
    seen: set[int] = set()
    for item in items:
        if item.id in seen:
            raise Violation(f"la petición {item.id} aparece dos veces en el mismo lote")
        seen.add(item.id)


def _check_writers(items: list[Item], size: int) -> None:
    """Within a step nobody reads or writes a block that another item writes."""
    writer = {block: item.id for item in items for block in item.blocks[item.start // size :]}
    for item in items:
        for block in item.blocks:
            if writer.get(block, item.id) != item.id:
                raise Violation(
                    f"el bloque {block} lo usan a la vez las peticiones {item.id} y {writer[block]}, y al menos una "
                    "escribe en él; solo se comparten bloques llenos que ya nadie escribe"
                )


def shown(value: Any, limit: int = 80) -> str:
    """A short repr that no value can break."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"un valor desmedido de tipo {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 1] + "…"
