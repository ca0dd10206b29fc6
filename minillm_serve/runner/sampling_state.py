"""How each row of the batch is sampled: settings in arrays, and for the rows that need more, what they have seen.

A step in which no row has constraints, penalties or log-probabilities looks at two flags and does nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from minillm_serve.params import SamplingParams
from minillm_serve.plan import RequestInit
from minillm_serve.runner.constraints import Constraints, NewTokens, TokenCounts, has_penalties
from minillm_serve.runner.guide import Guide
from minillm_serve.sample.edits import LogitEdits, Penalties
from minillm_serve.sample.logprobs import Named
from minillm_serve.sample.masks import words_for
from minillm_serve.sample.sampler import SampleSettings

Result = TypeVar("Result")
MAX_TOP_K = np.iinfo(np.int64).max
LARGEST = np.finfo(np.float32).max

logger = logging.getLogger("minillm.guided")


@dataclass(frozen=True)
class Masks:
    """Packed masks of the rows that have one. at: [R] their indices among the rows that sample; words: [R, words]."""

    at: list[int]
    words: NDArray[np.uint32]


class SamplingState:
    """One entry per batch row. eos_token_ids: what min_tokens keeps from being drawn, beside the stop ids.

    guide_for: the guide of a request with structured outputs, before its first generated token.
    """

    def __init__(
        self,
        max_num_seqs: int,
        guide_for: Callable[[RequestInit], Guide] | None = None,
        eos_token_ids: Collection[int] = (),
    ):
        self.temperature = np.zeros(max_num_seqs, np.float32)
        self.top_k = np.zeros(max_num_seqs, np.int64)
        self.top_p = np.ones(max_num_seqs, np.float32)
        self.min_p = np.zeros(max_num_seqs, np.float32)
        self.typical_p = np.ones(max_num_seqs, np.float32)
        self.seed = np.zeros(max_num_seqs, np.int64)
        self.plain = np.ones(max_num_seqs, bool)  # nothing but its temperature, cuts and seed decides its draws
        self.constraints: dict[int, Constraints] = {}
        self.logprobs: dict[int, Named] = {}  # row -> which tokens to name beside the drawn one; only rows that asked
        self.prompt_logprobs: dict[int, tuple[int, int]] = {}  # row -> the same, and the prompt's length
        self.counts_on_device = False  # the runner itself counts what penalised rows have seen, and penalises it
        self._guide_for = guide_for
        self._eos_token_ids = eos_token_ids
        self._words = np.zeros((max_num_seqs, 0), np.uint32)  # one mask a row, filled anew in each step
        self._filler = ThreadPoolExecutor(1, "minillm-masks")
        self._filling: Future[Masks] | None = None
        self._after: dict[int, list[Constraints]] = {}  # rows that verify drafts -> what holds after each of them

    def insert(self, row: int, init: RequestInit) -> None:
        """Take a request in. What it had generated before a preemption is booked again."""
        params = init.params
        self.temperature[row], self.top_p[row] = params.temperature, params.top_p
        self.top_k[row] = min(params.top_k, MAX_TOP_K)  # beyond any vocabulary it keeps every token
        self.min_p[row], self.typical_p[row], self.seed[row] = params.min_p, params.typical_p, init.seed
        if params.logprobs is not None:
            self.logprobs[row] = params.logprob_token_ids or params.logprobs
        if params.prompt_logprobs is not None:
            self.prompt_logprobs[row] = params.prompt_logprobs, init.num_prompt_tokens
        if _needs_constraints(params):
            self.constraints[row] = self._constraints(init)
        self.plain[row] = not (params.typical_p < 1 or row in self.constraints or row in self.logprobs)

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
        if has_penalties(params):
            constraints.prompt = init.token_ids[: init.num_prompt_tokens]
            constraints.seen = None if self.counts_on_device else TokenCounts(constraints.prompt, ())
        generated = init.token_ids[init.num_prompt_tokens :]
        constraints.count(generated)
        if params.structured_outputs is not None:
            if self._guide_for is None:
                raise ValueError("this runner was built without guided decoding")
            _contained(constraints.begin, self._guide_for, init)
        return constraints

    def look_ahead(self, drafts: Iterable[tuple[int, Sequence[int]]]) -> None:
        """Rows, and the drafts that each verifies in the step now laid out. From here on, whoever names the rows that
        sample names such a row once for its last known token, then once for each draft."""
        self._after = {}
        for row, tokens in drafts:
            if (constraints := self.constraints.get(row)) is not None:
                after = self._after[row] = []
                for token in tokens:
                    constraints = _contained(constraints.after, token) or replace(constraints, guide=None)
                    after.append(constraints)

    def allowed(self, row: int, drafts: Sequence[int]) -> Sequence[int]:
        """As many of a row's drafts as its constraints let stand."""
        constraints = self.constraints.get(row)
        return drafts if constraints is None else (_contained(constraints.allowed, drafts) or ())

    def _own(self, rows: Iterable[int]) -> Iterator[tuple[int, Constraints]]:
        """Of the rows that sample: index, and what holds there."""
        times: dict[int, int] = {}
        for at, row in enumerate(rows):
            if (constraints := self.constraints.get(row)) is not None:
                drafts = times[row] = times.get(row, -1) + 1
                yield at, self._after[row][drafts - 1] if drafts else constraints

    def settings(self, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> SampleSettings:
        """Of the rows that sample now; positions: [S] index of the token drawn."""
        arrays = (self.temperature, self.top_k, self.top_p, self.min_p, self.typical_p, self.seed)
        return SampleSettings(*(torch.from_numpy(array[rows]) for array in arrays), torch.from_numpy(positions))

    def start_masks(self, rows: NDArray[np.int64], vocab_size: int) -> None:
        """Begin to fill the masks of the rows that sample in this step, beside the model: :meth:`edits` waits for them.

        Masks depend on tokens that are known before the model runs.
        """
        if self._filling is not None:  # of a step that failed
            wait([self._filling])
            self._filling = None
        if len(rows) and any(constraints.guided for constraints in self.constraints.values()):
            self._filling = self._filler.submit(self._fill_masks, rows.tolist(), vocab_size)

    def _fill_masks(self, rows: Sequence[int], vocab_size: int) -> Masks:
        masked = [(at, own) for at, own in self._own(rows) if own.masked]
        if self._words.shape[1] != words_for(vocab_size) or len(self._words) < len(masked):
            self._words = np.zeros((max(len(self._words), len(masked)), words_for(vocab_size)), np.uint32)
        for place, (_, own) in enumerate(masked):
            if not _contained(own.fill, self._words[place]):
                self._words[place] = 0
        return Masks([at for at, _ in masked], self._words[: len(masked)])

    def edits(self, rows: NDArray[np.int64], vocab_size: int) -> LogitEdits | None:
        """What the rows that sample now do to their logits; None where none of them does anything."""
        found = list(self._own(rows.tolist())) if self.constraints else []
        if not found:
            return None
        filling, self._filling = self._filling, None
        masks = self._fill_masks(rows.tolist(), vocab_size) if filling is None else filling.result()
        biases = [(at, *own.bias) for at, own in found if own.bias is not None]
        bans = [(at, banned) for at, own in found if (banned := own.forbidden())]
        seen = [(at, own.seen, own.params) for at, own in found if own.seen is not None]
        return LogitEdits(
            allowed=(masks.at, masks.words) if masks.at else None,
            bias=(_spread(biases), _joined(ids for _, ids, _ in biases), _joined(values for *_, values in biases))
            if biases
            else None,
            forbidden=(_spread(bans), torch.tensor([token for _, banned in bans for token in banned]))
            if bans
            else None,
            penalties=_penalties(seen) if seen else None,
        )

    def narrowed(self, rows: NDArray[np.int64], drawn: NDArray[np.int64]) -> Masks | None:
        """Masks for the rows whose drawn token would leave too little room for the rest of the text; None: for none."""
        tight = [
            (at, own)
            for at, own in self._own(rows.tolist())
            if own.closes and not _contained(own.guide.fits, int(drawn[at]))
        ]
        for place, (_, own) in enumerate(tight):
            if not _contained(own.fill, self._words[place], narrow=True):
                self._words[place] = 0
        return Masks([at for at, _ in tight], self._words[: len(tight)]) if tight else None

    def draw(self, row: int, token: int) -> NewTokens:
        """Book a drawn token: what the row goes on with, no token if that one is forbidden."""
        constraints = self.constraints.get(row)
        if constraints is None:
            return NewTokens((token,))
        return _contained(constraints.draw, token) or NewTokens(())


def _contained(step: Callable[..., Result], *args: Any, **more: Any) -> Result | None:
    """Whatever goes wrong in one sequence's constraint is in the log, and ends that sequence alone: None."""
    try:
        return step(*args, **more)
    except Exception:
        logger.exception("a constraint failed; its request is given up")
        return None


def _needs_constraints(params: SamplingParams) -> bool:
    return bool(
        params.structured_outputs is not None
        or params.allowed_token_ids is not None
        or params.logit_bias
        or params.bad_words_ids
        or params.min_tokens
        or has_penalties(params)
    )


def _spread(parts: Sequence[tuple[int, Sequence[int] | NDArray[np.int64], *tuple[object, ...]]]) -> torch.Tensor:
    """Each part's row, once for each of its tokens."""
    return torch.from_numpy(np.repeat([part[0] for part in parts], [len(part[1]) for part in parts]))


def _joined(parts: Iterable[NDArray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(list(parts)))


def _penalties(seen: Sequence[tuple[int, TokenCounts, SamplingParams]]) -> Penalties:
    sizes = [len(counts.tokens) for _, counts, _ in seen]

    def each(values: Iterable[float]) -> torch.Tensor:
        finite = np.minimum(list(values), LARGEST).astype(np.float32)
        return torch.from_numpy(np.repeat(finite, sizes))

    return Penalties(
        rows=torch.from_numpy(np.repeat([at for at, _, _ in seen], sizes)),
        tokens=_joined(counts.tokens for _, counts, _ in seen),
        counts=_joined(counts.counts for _, counts, _ in seen),
        repetition=each(params.repetition_penalty for _, _, params in seen),
        frequency=each(params.frequency_penalty for _, _, params in seen),
        presence=each(params.presence_penalty for _, _, params in seen),
    )
