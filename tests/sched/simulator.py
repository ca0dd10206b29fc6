"""A device without a model: it plays runner and model, and remembers what every KV slot really holds.

The keys and values of a token are a function of all tokens up to it. So the simulator writes into each slot the
*prefix* that ends there (interned: equal prefixes under one salt are one number), and before a token is "attended" it
asserts that the slot holds this very sequence's own prefix. A block shared wrongly, freed too early, written twice,
published before its time or found under another tenant's salt shows up as a slot with somebody else's content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from minillm_serve.plan import StepPlan, StepResult
from minillm_serve.request import Request

EOS = 0


class DeviceError(RuntimeError):
    """The device failed in the middle of a step (on purpose)."""


class Prefixes:
    """Numbers for prefixes: one per (salt, tokens), the same for the same content."""

    def __init__(self) -> None:
        self._ids: dict[tuple[object, int], int] = {}

    def extend(self, path: list[int], tokens: Sequence[int], salt: object) -> None:
        """Append to ``path`` the prefix that ends at each of ``tokens``."""
        for token in tokens:
            path.append(self._ids.setdefault((path[-1] if path else salt, token), len(self._ids)))

    @staticmethod
    def next_token(prefix: int, seed: int, vocab: int) -> int:
        """The oracle "model": a token that depends on the whole prefix and the request's seed."""
        return ((prefix * 2654435761 + seed * 40503 + 12345) >> 8) % vocab


@dataclass
class Running:
    """What the device knows of one request: only what plans have told it, plus its salt (the truth to check by)."""

    tokens: list[int]
    computed: int
    seed: int
    salt: object
    epoch: int
    table: list[int] = field(default_factory=list)
    path: list[int] = field(default_factory=list)


@dataclass
class Device:
    """Runs plans. ``epoch`` counts the resets of the prefix cache: nothing computed before one may be read after it.

    jumps: now and then more than one token follows at once, as where a constraint leaves no choice. drafts: after each
    token it proposes how the text goes on, seldom right to the end, often beyond it.
    """

    block_size: int
    vocab: int
    jumps: bool = False
    drafts: bool = False
    prefixes: Prefixes = field(default_factory=Prefixes)
    sequences: dict[int, Running] = field(default_factory=dict)
    salts: dict[int, object] = field(default_factory=dict)
    memory: dict[int, tuple[int, int]] = field(default_factory=dict)  # slot -> (prefix, epoch of its writer)
    epoch: int = 0
    reads: int = 0
    jumped: int = 0
    accepted: int = 0
    rejected: int = 0

    def alone(self, request: Request) -> list[int]:
        """The tokens this request gets with the device to itself."""
        tokens, path = list(request.token_ids[: request.num_prompt_tokens]), []
        self.prefixes.extend(path, tokens, self.salts[request.rid])
        while True:
            token = self.prefixes.next_token(path[-1], request.seed, self.vocab)
            tokens.append(token)
            if (token == EOS and not request.params.ignore_eos) or len(tokens) >= request.max_total_tokens:
                return tokens
            self.prefixes.extend(path, [token], self.salts[request.rid])

    def execute(self, plan: StepPlan, fail: str | None = None) -> StepResult:
        """fail: None, or where to raise: ``before`` anything, ``applied`` (deltas booked), ``written`` (half of it)."""
        if fail == "before":
            raise DeviceError(fail)
        self._apply(plan)
        if fail == "applied":
            raise DeviceError(fail)
        self._write(plan, stop_after=plan.total_tokens // 2 if fail else None)
        if fail:
            raise DeviceError(fail)
        self._accepted: dict[int, int] = {}
        tokens = self._read(plan)
        drafts = {rid: self._proposed(self.sequences[rid]) for rid in tokens} if self.drafts else {}
        return StepResult(tokens, accepted=self._accepted, drafts={rid: ids for rid, ids in drafts.items() if ids})

    def _apply(self, plan: StepPlan) -> None:
        for rid in (*plan.finished, *plan.preempted):
            self.sequences.pop(rid, None)
        for init in plan.new_requests:
            assert init.rid not in self.sequences, f"request {init.rid} is new twice"
            new = Running(list(init.token_ids), init.num_computed, init.seed, self.salts[init.rid], self.epoch)
            self.prefixes.extend(new.path, new.tokens, new.salt)
            self.sequences[init.rid] = new
        for rid, blocks in (plan.new_blocks or {}).items():
            self.sequences[rid].table.extend(blocks)

    def _slot(self, sequence: Running, position: int) -> int:
        return sequence.table[position // self.block_size] * self.block_size + position % self.block_size

    def _write(self, plan: StepPlan, stop_after: int | None) -> None:
        written: set[int] = set()
        for rid, count in plan.num_tokens.items():
            sequence, drafts = self.sequences[rid], plan.drafts.get(rid, ())
            end = len(sequence.tokens) + len(drafts)
            assert sequence.computed + count <= end, f"request {rid} computes unknown tokens"
            assert not drafts or sequence.computed + count == end, f"request {rid}: drafts must follow all its tokens"
            path = self._path(sequence, drafts)
            for position in range(sequence.computed, sequence.computed + count):
                if stop_after is not None and len(written) >= stop_after:
                    return
                slot = self._slot(sequence, position)
                assert slot not in written, "two writers of one slot in one step"
                written.add(slot)
                self.memory[slot] = (path[position], sequence.epoch)

    def _read(self, plan: StepPlan) -> dict[int, tuple[int, ...]]:
        """After all writes, as in each layer of a real model: every position must hold the sequence's own prefix."""
        sampled = {}
        for rid, count in plan.num_tokens.items():
            sequence, drafts = self.sequences[rid], plan.drafts.get(rid, ())
            sequence.computed += count
            path = self._path(sequence, drafts)
            for position in range(sequence.computed):
                content = self.memory.get(self._slot(sequence, position))
                expected = (path[position], sequence.epoch)
                assert content == expected, f"request {rid} reads foreign memory at position {position}"
            self.reads += sequence.computed
            if drafts:
                sampled[rid] = self._verify(rid, sequence, drafts)
            elif sequence.computed == len(sequence.tokens):
                more = sequence.path[-1] * 7919 % 11 if self.jumps else 0
                sampled[rid] = tuple(self._next(sequence) for _ in range(1 + (more if more < 6 else 0)))
                self.jumped += len(sampled[rid]) - 1
        return sampled

    def _path(self, sequence: Running, drafts: Sequence[int]) -> list[int]:
        """The prefixes of its tokens, and of the drafts behind them."""
        if not drafts:
            return sequence.path
        path = list(sequence.path)
        self.prefixes.extend(path, drafts, sequence.salt)
        return path

    def _verify(self, rid: int, sequence: Running, drafts: Sequence[int]) -> tuple[int, ...]:
        """Keep the drafts that are what follows, and add one token more; what fell was computed in vain."""
        tokens = [self._next(sequence)]
        while len(tokens) <= len(drafts) and tokens[-1] == drafts[len(tokens) - 1]:
            tokens.append(self._next(sequence))
        stand = self._accepted[rid] = len(tokens) - 1
        sequence.computed -= len(drafts) - stand
        self.accepted, self.rejected = self.accepted + stand, self.rejected + len(drafts) - stand
        return tuple(tokens)

    def _proposed(self, sequence: Running) -> tuple[int, ...]:
        """Up to six tokens, the first of which are right, by no other chance than the text itself."""
        path, drafts = list(sequence.path), []
        chance = path[-1] * 31337
        for number in range(chance % 7):
            right = self.prefixes.next_token(path[-1], sequence.seed, self.vocab)
            drafts.append(right if chance // 7 % 5 > number - 2 else (right + 1) % self.vocab)
            self.prefixes.extend(path, drafts[-1:], sequence.salt)
        return tuple(drafts)

    def _next(self, sequence: Running) -> int:
        token = self.prefixes.next_token(sequence.path[-1], sequence.seed, self.vocab)
        sequence.tokens.append(token)
        self.prefixes.extend(sequence.path, [token], sequence.salt)
        return token
