"""A plain continuous-batching scheduler: what it reaches on a machine is that machine's ceiling."""

from __future__ import annotations

from typing import Any


class Planificador:
    """Takes whatever fits, in order of arrival; a request keeps its blocks until it ends (the memory is ample)."""

    def __init__(self, limits: dict[str, int]):
        self._limits = limits
        self._free = list(range(limits["num_bloques"]))
        self._known: dict[int, list[int]] = {}
        self._computed: dict[int, int] = {}
        self._blocks: dict[int, list[int]] = {}

    def llega(self, ident: int, prompt: list[int], max_new: int) -> None:
        self._known[ident], self._computed[ident], self._blocks[ident] = list(prompt), 0, []

    def paso(self) -> list[dict[str, Any]]:
        batch, room = [], self._limits["max_tokens"]
        for ident, known in self._known.items():
            start = self._computed[ident]
            tokens = known[start : start + room]
            if not tokens or len(batch) == self._limits["max_peticiones"] or not self._grow(ident, start + len(tokens)):
                break
            batch.append({"id": ident, "desde": start, "tokens": tokens, "bloques": list(self._blocks[ident])})
            self._computed[ident], room = start + len(tokens), room - len(tokens)
        return batch

    def _grow(self, ident: int, end: int) -> bool:
        missing = -(-end // self._limits["tam_bloque"]) - len(self._blocks[ident])
        if missing > len(self._free):
            return False
        self._blocks[ident] += [self._free.pop() for _ in range(missing)]
        return True

    def recibe(self, outputs: list[dict[str, Any]]) -> None:
        for output in outputs:
            ident = output["id"]
            self._known[ident].append(output["token"])
            if output["fin"]:
                self._free += self._blocks.pop(ident)
                del self._known[ident], self._computed[ident]
