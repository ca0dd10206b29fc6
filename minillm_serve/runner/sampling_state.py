"""How each row of the batch is sampled: settings in arrays, and for the rows that need more, what they have seen.

A step in which no row has constraints, penalties or log-probabilities looks at two flags and does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from minillm_serve.params import SamplingParams
from minillm_serve.plan import RequestInit
from minillm_serve.sample.edits import LogitEdits, Penalties
from minillm_serve.sample.sampler import SampleSettings


class Matcher(Protocol):
    """One sequence's position in a grammar (see :mod:`minillm_serve.guided`)."""

    def fill_mask(self) -> NDArray[np.uint32]: ...
    def accept(self, token_id: int) -> bool: ...


class Grammar(Protocol):
    """A compiled constraint, shared by all sequences that ask for the same one."""

    def matcher(self) -> Matcher: ...


class TokenCounts:
    """The distinct tokens of a sequence and how often each was generated; a new token costs one look-up."""

    def __init__(self, prompt: Sequence[int], generated: Iterable[int]):
        self._index = {token: index for index, token in enumerate(dict.fromkeys(prompt))}
        self._size = len(self._index)
        self._tokens = np.zeros(max(2 * self._size, 64), np.int64)
        self._tokens[: self._size] = list(self._index)
        self._counts = np.zeros(len(self._tokens), np.float32)
        for token in generated:
            self.add(token)

    def add(self, token: int) -> None:
        """Count one more generated token."""
        index = self._index.setdefault(token, self._size)
        if index == self._size:
            if self._size == len(self._tokens):
                self._tokens = np.concatenate((self._tokens, np.zeros_like(self._tokens)))
                self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
            self._tokens[index] = token
            self._size += 1
        self._counts[index] += 1

    @property
    def tokens(self) -> NDArray[np.int64]:
        return self._tokens[: self._size]

    @property
    def counts(self) -> NDArray[np.float32]:
        """Times generated, for each of ``tokens``; 0 for one that stands only in the prompt."""
        return self._counts[: self._size]


@dataclass(eq=False)
class Constraints:
    """What one row's logits go through before the draw. Present only for rows that need any of it."""

    params: SamplingParams
    stop_ids: NDArray[np.int64]
    bias: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None
    allowed: NDArray[np.int64] | None = None
    matcher: Matcher | None = None
    seen: TokenCounts | None = None
    generated: list[int] = field(default_factory=list)

    def add(self, token: int) -> bool:
        """Book a generated token. False, and nothing booked, if the grammar forbids it."""
        if self.matcher is not None and not self.matcher.accept(token):
            return False
        self.generated.append(token)
        if self.seen is not None:
            self.seen.add(token)
        return True

    def mask(self, vocab_size: int) -> NDArray[np.bool_] | None:
        """Tokens that may come next: [vocab] bool, None where all may."""
        if self.matcher is None and self.allowed is None:
            return None
        mask = np.ones(vocab_size, np.bool_)
        if self.matcher is not None:  # bit t % 32 of word t // 32
            mask = np.unpackbits(self.matcher.fill_mask().view(np.uint8), bitorder="little")[:vocab_size].view(np.bool_)
        if self.allowed is not None:
            listed = np.zeros(vocab_size, np.bool_)
            listed[self.allowed] = True
            mask = mask & listed
        return mask

    def forbidden(self) -> list[int]:
        """Tokens banned now: the end before min_tokens, and the last token of each bad word that is all but written.

        As in vLLM, only generated tokens count as its beginning.
        """
        banned = self.stop_ids.tolist() if len(self.generated) < self.params.min_tokens else []
        for *start, last in self.params.bad_words_ids:
            if len(start) <= len(self.generated) and self.generated[len(self.generated) - len(start) :] == start:
                banned.append(last)
        return banned


class SamplingState:
    """One entry per batch row. eos_token_ids: what min_tokens keeps from being drawn, beside the stop ids."""

    def __init__(
        self,
        max_num_seqs: int,
        grammar_for: Callable[[str], Grammar] | None = None,
        eos_token_ids: Collection[int] = (),
    ):
        self.temperature = np.zeros(max_num_seqs, np.float32)
        self.top_k = np.zeros(max_num_seqs, np.int64)
        self.top_p = np.ones(max_num_seqs, np.float32)
        self.min_p = np.zeros(max_num_seqs, np.float32)
        self.typical_p = np.ones(max_num_seqs, np.float32)
        self.seed = np.zeros(max_num_seqs, np.int64)
        self.constraints: dict[int, Constraints] = {}
        self.logprobs: dict[int, int] = {}  # row -> how many likeliest tokens to name; only rows that asked
        self.prompt_logprobs: dict[int, tuple[int, int]] = {}  # row -> the same, and the prompt's length
        self._grammar_for = grammar_for
        self._eos_token_ids = eos_token_ids

    def insert(self, row: int, init: RequestInit) -> None:
        """Take a request in. What it had generated before a preemption is booked again."""
        params = init.params
        self.temperature[row], self.top_k[row], self.top_p[row] = params.temperature, params.top_k, params.top_p
        self.min_p[row], self.typical_p[row], self.seed[row] = params.min_p, params.typical_p, init.seed
        if params.logprobs is not None:
            self.logprobs[row] = params.logprobs
        if params.prompt_logprobs is not None:
            self.prompt_logprobs[row] = params.prompt_logprobs, init.num_prompt_tokens
        if _needs_constraints(params):
            self.constraints[row] = self._constraints(init)

    def remove(self, row: int) -> None:
        for rare in (self.constraints, self.logprobs, self.prompt_logprobs):
            rare.pop(row, None)

    def _constraints(self, init: RequestInit) -> Constraints:
        params = init.params
        stop_ids = np.array([*self._eos_token_ids, *params.stop_token_ids], np.int64)
        constraints = Constraints(params, stop_ids)
        if params.logit_bias:
            ids, values = zip(*params.logit_bias.items(), strict=True)
            constraints.bias = np.array(ids, np.int64), np.array(values, np.float32)
        if params.allowed_token_ids is not None:
            constraints.allowed = np.array(params.allowed_token_ids, np.int64)
        if params.structured_outputs is not None:
            if self._grammar_for is None:
                raise ValueError("this runner was built without guided decoding")
            constraints.matcher = self._grammar_for(params.structured_outputs.json_text()).matcher()
        if _penalised(params):
            constraints.seen = TokenCounts(init.token_ids[: init.num_prompt_tokens], ())
        for token in init.token_ids[init.num_prompt_tokens :]:
            constraints.add(token)
        return constraints

    def settings(self, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> SampleSettings:
        """Of the rows that sample now; positions: [S] index of the token drawn."""
        arrays = (self.temperature, self.top_k, self.top_p, self.min_p, self.typical_p, self.seed)
        return SampleSettings(*(torch.from_numpy(array[rows]) for array in arrays), torch.from_numpy(positions))

    def edits(self, rows: NDArray[np.int64], vocab_size: int) -> LogitEdits | None:
        """What the rows that sample now do to their logits; None where none of them does anything."""
        if not self.constraints:
            return None
        found = [(at, self.constraints[row]) for at, row in enumerate(rows.tolist()) if row in self.constraints]
        if not found:
            return None
        masks = [(at, mask) for at, own in found if (mask := own.mask(vocab_size)) is not None]
        biases = [(at, *own.bias) for at, own in found if own.bias is not None]
        bans = [(at, banned) for at, own in found if (banned := own.forbidden())]
        seen = [(at, own.seen, own.params) for at, own in found if own.seen is not None]
        return LogitEdits(
            allowed=(torch.tensor([at for at, _ in masks]), torch.from_numpy(np.stack([mask for _, mask in masks])))
            if masks
            else None,
            bias=(_spread(biases), _joined(ids for _, ids, _ in biases), _joined(values for *_, values in biases))
            if biases
            else None,
            forbidden=(_spread(bans), torch.tensor([token for _, banned in bans for token in banned]))
            if bans
            else None,
            penalties=_penalties(seen) if seen else None,
        )

    def add(self, row: int, token: int) -> bool:
        """Book a sampled token. False if the row's grammar forbids it."""
        constraints = self.constraints.get(row)
        return constraints is None or constraints.add(token)


def _needs_constraints(params: SamplingParams) -> bool:
    return bool(
        params.structured_outputs is not None
        or params.allowed_token_ids is not None
        or params.logit_bias
        or params.bad_words_ids
        or params.min_tokens
        or _penalised(params)
    )


def _penalised(params: SamplingParams) -> bool:
    return (params.repetition_penalty, params.frequency_penalty, params.presence_penalty) != (1, 0, 0)


def _spread(parts: Sequence[tuple[int, Sequence[int] | NDArray[np.int64], *tuple[object, ...]]]) -> torch.Tensor:
    """Each part's row, once for each of its tokens."""
    return torch.from_numpy(np.repeat([part[0] for part in parts], [len(part[1]) for part in parts]))


def _joined(parts: Iterable[NDArray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(list(parts)))


def _penalties(seen: Sequence[tuple[int, TokenCounts, SamplingParams]]) -> Penalties:
    sizes = [len(counts.tokens) for _, counts, _ in seen]

    def each(values: Iterable[float]) -> torch.Tensor:
        return torch.from_numpy(np.repeat(np.array(list(values), np.float32), sizes))

    return Penalties(
        rows=torch.from_numpy(np.repeat([at for at, _, _ in seen], sizes)),
        tokens=_joined(counts.tokens for _, counts, _ in seen),
        counts=_joined(counts.counts for _, counts, _ in seen),
        repetition=each(params.repetition_penalty for _, _, params in seen),
        frequency=each(params.frequency_penalty for _, _, params in seen),
        presence=each(params.presence_penalty for _, _, params in seen),
    )
