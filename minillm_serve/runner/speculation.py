"""After each step: what every request may say next, within what it has room for; and the rule by which it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from minillm_serve.plan import StepPlan, StepResult
from minillm_serve.runner.batch import UNKNOWN, PersistentBatch, StepBatch
from minillm_serve.runner.constraints import Constraints, has_penalties
from minillm_serve.sample.rejection import Verify, standard, synthetic
from minillm_serve.sample.sampler import SampleSettings
from minillm_serve.spec.length import DraftLength
from minillm_serve.spec.proposer import Proposer


class Reader(Protocol):
    """What a proposer has besides, if it is fed by the model's steps (:class:`minillm_serve.runner.drafter.Drafter`).

    aux_layers: see DraftNet; None: it wants no features. laws: request id -> [drafts, vocab] probabilities of what it
    drew with noise of its own; empty where it did not.
    """

    aux_layers: tuple[int, ...] | None
    laws: Mapping[int, Tensor]

    def observe(self, batch: StepBatch, features: Tensor | None) -> None: ...


class DeviceReader(Reader, Protocol):
    """One whose drafts stay on the device: it proposes ids of -1 - i, for the i-th. made: the ids, waited for."""

    def made(self) -> dict[int, tuple[int, ...]]: ...


@dataclass(frozen=True)
class Rule:
    """By what a draft stands. Neither field set: it is the token that the target draws there.

    verify: rejection sampling. rates: draft i stands with probability rates[i], whatever the target says (to measure).
    """

    verify: Verify | None = None
    rates: Sequence[float] = ()


@dataclass
class Speculation:
    """Asks the proposer for drafts, keeps it informed, and gives each request the length that has paid so far.

    reader: the proposer itself, where it is fed by the model's steps.
    """

    proposer: Proposer
    lengths: DraftLength
    batch: PersistentBatch
    reader: Reader | None = None
    rule: Rule = Rule()
    _ends: dict[int, int] = field(default_factory=dict)  # request id -> tokens that it may have in all
    _laws: dict[int, Tensor] = field(default_factory=dict)

    @property
    def aux_layers(self) -> tuple[int, ...] | None:
        return None if self.reader is None else self.reader.aux_layers

    def begin(self, plan: StepPlan) -> None:
        """Take in who comes and goes with a plan, once the batch has."""
        for rid in (*plan.finished, *plan.preempted):
            if self._ends.pop(rid, None) is not None:
                self.proposer.drop(rid)
                self.lengths.drop(rid)
        for init in plan.new_requests:
            if not init.prompt_only:
                self._ends[init.rid] = init.max_total_tokens or self.batch.tokens.shape[1]
                self.proposer.add(init.rid, init.token_ids)

    def see_drafts(self, batch: StepBatch) -> dict[int, tuple[int, ...]]:
        """Put the ids of drafts that only the device knew into a finished step's batch. Returns them, by request."""
        if not _unseen(batch.drafts.values()):
            return {}
        made = cast(DeviceReader, self.reader).made()
        batch.drafts.update({index: made[batch.rids[index]][: len(own)] for index, own in batch.drafts.items()})
        return {batch.rids[index]: own for index, own in batch.drafts.items()}

    def wants(self, rids: Iterable[int]) -> bool:
        """Whether it would draft for any request of a batch of these."""
        return any(self.lengths.lengths([rid for rid in rids if rid in self._ends], peek=True).values())

    def follow(
        self, batch: StepBatch, result: StepResult, features: Tensor | None = None, propose: bool = True
    ) -> StepResult:
        """The result of a step, with drafts for the next one. features: [T, F] of the step's tokens, for a reader.

        propose: False where the next step is under way already.
        """
        for index, drafts in batch.drafts.items():
            if (rid := batch.rids[index]) in self._ends:
                self.lengths.observe(rid, len(drafts), result.accepted.get(rid, 0))
        going = [rid for rid in result.tokens if rid in self._ends]
        for rid in going:
            self.proposer.extend(rid, result.tokens[rid])
        if self.reader is not None:
            self.reader.observe(batch, features)
        limits = self._limits(going)  # asked in every step, so that what happens every so many steps does
        if not propose:
            limits = {}
        if not limits and (self.reader is None or self.lengths.resting):
            return result
        drafts = self.proposer.propose(limits)
        self._laws = {} if self.reader is None else dict(self.reader.laws)
        state, row_of = self.batch.sampling, self.batch.row_of
        if _unseen(drafts.values()) and (self.rule.verify or any(row_of(rid) in state.constraints for rid in drafts)):
            drafts = cast(DeviceReader, self.reader).made()  # the host has a say in them
        allowed = {rid: tuple(state.allowed(row_of(rid), tokens)) for rid, tokens in drafts.items()}
        return replace(result, drafts={rid: tokens for rid, tokens in allowed.items() if tokens})

    def settle(self, batch: StepBatch, sampled: Tensor, logits: Tensor, settings: SampleSettings) -> Tensor:
        """``sampled`` [S], drawn from ``logits`` [S, vocab], as the rule has it."""
        if self.rule.verify is None or not batch.drafts:
            return sampled
        laws = [self._laws.get(batch.rids[index]) for index in batch.drafts]
        drawn_from = [
            None if law is None else law[: len(drafts)].numpy(force=True)
            for law, drafts in zip(laws, batch.drafts.values(), strict=True)
        ]
        spans, drafts = _spans(batch), list(batch.drafts.values())
        return standard(sampled, logits, settings.to(logits.device), spans, drafts, drawn_from, self.rule.verify)

    def pretend(self, batch: StepBatch, sampled: NDArray[np.int64], vocab: int) -> NDArray[np.int64]:
        """``sampled`` [S] with drafts that stand at the rule's rates."""
        if not self.rule.rates or not batch.drafts:
            return sampled
        seeds = self.batch.sampling.seed[batch.rows[batch.sampling]]
        drafts = list(batch.drafts.values())
        return synthetic(sampled, _spans(batch), drafts, self.rule.rates, seeds, batch.drawn_at, vocab)

    def _limits(self, rids: list[int]) -> dict[int, int]:
        """One token more than the drafts is drawn, and the last of a request is never computed."""
        batch, limits = self.batch, {}
        for rid, length in self.lengths.lengths(rids).items():
            row = batch.row_of(rid)
            count = min(length, self._ends[rid] - 1 - int(batch.num_tokens[row]))
            if count > 0 and self._may_draft(batch.sampling.constraints.get(row)):
                limits[rid] = count
        return limits

    def _may_draft(self, constraints: Constraints | None) -> bool:
        """Penalties that the device counts hold for one token a step. And a rule that goes by probabilities must not
        see a draft left out for what it is, nor a token drawn twice."""
        if constraints is None:
            return True
        if self.batch.sampling.counts_on_device and has_penalties(constraints.params):
            return False
        return self.rule.verify is None or not constraints.masked


def _unseen(drafts: Iterable[Sequence[int]]) -> bool:
    """Whether the device alone knows them: all or none."""
    return any(own[0] < UNKNOWN for own in drafts)


def _spans(batch: StepBatch) -> list[slice]:
    """Of each sequence that verifies drafts, its places among those that are drawn."""
    starts = np.searchsorted(batch.sampling, list(batch.drafts)).tolist()
    return [slice(start, start + len(own) + 1) for start, own in zip(starts, batch.drafts.values(), strict=True)]
