"""How many tokens to draft: as many as are expected to pay, by what was accepted lately and what verifying costs.

With acceptance rate a, a draft of k tokens yields ``E(k) = 1 + a + … + a^k`` tokens (Leviathan et al. 2023,
arXiv:2211.17192, equation 1); what is chosen for a batch has the most of them per unit of time. A batch that fills the
machine by itself has nothing to gain: 0 drafts, and a step is what it is without speculation.

A proposer that makes its drafts one after another, and knows of each how sure it is, need not settle on k beforehand
(:class:`Chains`). To have the most tokens per time is to take whatever yields more of them for its time than the whole
does (Dinkelbach 1967): another draft, where it is expected to; the verification of one that was made, likewise. Since
the chance that a whole chain stands never rises with its length, nor the cost of a token ever falls, what does not pay
now will not pay later either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minillm_serve.speculative import SpeculativeConfig


@dataclass(frozen=True)
class StepCosts:
    """What a step over T tokens costs, in steps over one token: ``1 + slope * max(0, T - free)``."""

    free: float
    slope: float


STEP_COSTS = {"cpu": StepCosts(free=3.5, slope=0.12), "cuda": StepCosts(free=96, slope=0.004)}
"""By device: SmolLM2-135M in float32 on two CPU cores that do nothing else, and on an H100."""

FIRST_GUESS = 0.6  # acceptance rate before anything was observed
PRIOR_TRIALS = 2.0  # weight of what all requests have seen, in the estimate of one
MEMORY, GLOBAL_MEMORY = 0.9, 0.995  # share of an estimate's weight that is left after another observation
PROBE_EVERY = 16  # steps after which a request without drafts gets one, to be seen when it becomes predictable again
HOPEFUL = 0.9  # ... unless not even this acceptance rate would pay in its batch
CONFIDENCE_BINS = 5  # of equal width; more of them would learn more slowly, and drop drafts by bad luck
CONFIDENCE_MEMORY = 0.999  # what a proposer's probabilities are worth hardly changes


@dataclass(slots=True)
class Acceptance:
    """A rate that forgets. trials: drafts whose predecessors were all accepted; hits: those accepted themselves. Of
    drafts that were never verified, what is expected."""

    hits: float = 0.0
    trials: float = 0.0

    def observe(self, hits: float, trials: float, memory: float) -> None:
        self.hits = memory * self.hits + hits
        self.trials = memory * self.trials + trials

    def rate(self, prior: float, weight: float) -> float:
        return (self.hits + weight * prior) / (self.trials + weight)


class DraftLength:
    """Chooses each request's draft length, step by step.

    device: ``cpu`` or ``cuda``, names its :class:`StepCosts` unless ``costs`` are given. draft_cost: what the proposer
    takes for one more token of all drafts, in steps over one token. stops_early: the proposer asks its :meth:`chains`
    whether to go on, so that a length is only what it may not exceed.

    resting: the batch of the last step fills the machine, and no acceptance rate would pay in it: a network that drafts
    need not even read what it says. Drafts come back when the batch gets smaller.

    Without ``config.dynamic`` every request drafts ``config.draft_tokens(batch size)``; with it, never more than that.
    """

    def __init__(
        self,
        config: SpeculativeConfig,
        device: str,
        draft_cost: float = 0.0,
        costs: StepCosts | None = None,
        stops_early: bool = False,
    ) -> None:
        self._config = config
        self._stops_early = stops_early and config.dynamic
        self._costs = STEP_COSTS[device] if costs is None else costs
        self.draft_cost = draft_cost
        self.forget()

    def forget(self) -> None:
        """Be as before the first step. For a benchmark, between its turns."""
        self._all = Acceptance()
        self._of: dict[int, Acceptance] = {}
        self._step = 0
        self.resting = False
        self._batch, self._speed = 0, 0.0  # requests of the step that lengths are for, and its tokens per time
        self._of_confidence = [Acceptance() for _ in range(CONFIDENCE_BINS)]
        self._confidences: dict[int, list[float]] = {}  # of the drafts that each request made last

    def observe(self, rid: int, drafted: int, accepted: int) -> None:
        """Of ``drafted`` tokens that were verified for a request, the first ``accepted`` stand."""
        trials = min(accepted + 1, drafted)
        for place, confidence in enumerate(self._confidences.pop(rid, [])[:trials]):
            self._of_confidence[_bin(confidence)].observe(place < accepted, 1, CONFIDENCE_MEMORY)
        if drafted:
            self._count(rid, accepted, trials)

    def _count(self, rid: int, hits: float, trials: float) -> None:
        self._all.observe(hits, trials, GLOBAL_MEMORY)
        self._of.setdefault(rid, Acceptance()).observe(hits, trials, MEMORY)

    def drop(self, rid: int) -> None:
        """The request has ended. Unknown ids are passed over."""
        self._of.pop(rid, None)

    def acceptance(self, rid: int) -> float:
        """The estimate for a request; what all have seen for one that has not drafted yet."""
        return self.rates([rid])[0]

    def lengths(self, rids: Sequence[int], peek: bool = False) -> dict[int, int]:
        """Request id -> tokens to draft for the next step of this batch, 0 where it does not pay.

        peek: only to know what the answer will be; else it counts as a step.
        """
        step = self._step + 1
        if not peek:
            self._step = step
        most = self._config.draft_tokens(len(rids))
        if not self._config.dynamic or most == 0 or not rids:
            self.resting = False
            return dict.fromkeys(rids, most)
        lengths, speed = self._best(np.array(self.rates(rids)), most)
        hopeful = self._pays(HOPEFUL, len(rids))
        if not peek:
            self._batch, self._speed, self.resting = len(rids), speed, not hopeful and not any(lengths)
        if self._stops_early:
            lengths = [most if length else 0 for length in lengths]
        # All in one step: what a draft costs the whole batch is then paid once.
        if step % PROBE_EVERY == 0 and hopeful:
            lengths = [max(1, length) for length in lengths]
        return dict(zip(rids, lengths, strict=True))

    def chains(self) -> Chains | None:
        """What tells a proposer when to stop, in the step that :meth:`lengths` was last asked for; None: never."""
        self._confidences = {}
        if not self._stops_early:
            return None
        return Chains(self, self._batch, self._speed, probing=self._step % PROBE_EVERY == 0)

    def standing(self, rid: int, confidence: float) -> float:
        """The chance that a request's next draft, to which the proposer gave this probability, stands if all before it
        do.

        A probability by the proposer's own law is not yet that: the proposer may be too sure, or too modest. So it is
        counted how often drafts of about this probability stood. NaN counts as 0.
        """
        confidence = confidence if confidence > 0 else 0.0
        self._confidences.setdefault(rid, []).append(confidence)
        return self._of_confidence[_bin(confidence)].rate(confidence, PRIOR_TRIALS)

    def leave(self, rid: int, before: float, stands: float) -> None:
        """A draft was not worth verifying; before: the chance that all before it stand, stands: that it does too.

        Were it not counted, only what is likely to stand would be, and the rate of what is drafted be overrated.
        """
        self._count(rid, stands, before)

    def time(self, tokens: int) -> float:
        """Of a step of the target over so many tokens, in steps over one."""
        return 1 + self._costs.slope * max(0.0, tokens - self._costs.free)

    def rates(self, rids: Sequence[int]) -> list[float]:
        """:meth:`acceptance` of each."""
        prior = self._all.rate(FIRST_GUESS, PRIOR_TRIALS)
        return [self._of[rid].rate(prior, PRIOR_TRIALS) if rid in self._of else prior for rid in rids]

    def _best(self, rates: np.ndarray, most: int) -> tuple[list[int], float]:
        """The lengths with the most expected tokens per time, and those tokens; of equals the shortest."""
        depths = np.arange(1, most + 1)
        gains = (rates[:, None] ** depths).ravel()  # [requests * most]: of drafting each further token
        order = np.argsort(-gains, kind="stable")
        gains, depth_of = gains[order], np.tile(depths, len(rates))[order]
        allowed = depth_of <= depths[:, None] if self.draft_cost else np.ones((1, len(order)), bool)
        drafted = allowed.cumsum(1)
        tokens = len(rates) + (gains * allowed).cumsum(1)
        over = np.maximum(0, len(rates) + drafted - self._costs.free)
        speeds = tokens / (1 + self._costs.slope * over + self.draft_cost * depths[: len(allowed), None])
        deepest, count = np.unravel_index(speeds.argmax(), speeds.shape)
        best, plain = speeds[deepest, count], len(rates) / self.time(len(rates))
        if best <= plain:
            return [0] * len(rates), plain
        chosen = order[: count + 1][allowed[deepest, : count + 1]]
        return np.bincount(chosen // most, minlength=len(rates)).tolist(), float(best)

    def _pays(self, rate: float, batch: int) -> bool:
        """Whether a draft of one token each, accepted at ``rate``, makes a batch of requests faster."""
        with_drafts = self.time(2 * batch) + self.draft_cost
        return (1 + rate) / with_drafts > 1 / self.time(batch)


class Chains:
    """The drafts of one step while they grow, by a token of every request at a time.

    batch: requests whose next step computes at least their last token; speed: tokens per time that the step is expected
    to yield with drafts of the best length. probing: all that is drafted is verified, to see what it is worth.
    """

    def __init__(self, lengths: DraftLength, batch: int, speed: float, probing: bool):
        self._lengths, self._computed, self._speed, self._probing = lengths, batch, speed, probing
        self._stands: dict[int, float] = {}  # request id -> chance that all of its drafts stand

    def grown(
        self, rids: Sequence[int], may: Sequence[bool], confidences: Sequence[float] | None
    ) -> tuple[list[bool], list[bool]]:
        """Each of ``rids`` has just drafted a token: whose is worth verifying (else it is to be dropped), and who is to
        draft another.

        may: whether a request has room for more. confidences: the probability that the proposer gave to each token;
        None where it did not take the likeliest: then the acceptance rate stands in, and all are verified.
        """
        lengths, rates = self._lengths, self._lengths.rates(rids)
        before = [self._stands.get(rid, 1.0) for rid in rids]
        chances = rates if confidences is None else list(map(lengths.standing, rids, confidences))
        stands = [so_far * chance for so_far, chance in zip(before, chances, strict=True)]
        worth = [True] * len(rids)
        if confidences is not None and not self._probing:
            worth = self._pay(stands, 0.0)
        for place, rid in enumerate(rids):
            self._stands[rid] = stands[place]
            if not worth[place]:
                lengths.leave(rid, before[place], stands[place])
        self._computed += sum(worth)
        gains = [p * rate if a and b else 0.0 for p, rate, a, b in zip(stands, rates, worth, may, strict=True)]
        return worth, self._pay(gains, lengths.draft_cost)

    def _pay(self, gains: Sequence[float], cost: float) -> list[bool]:
        """gains: tokens expected of one more of each request; 0: it cannot have one. Which of them to compute, to have
        the most tokens for the time of that, and ``cost`` besides; none if even they do not pay."""
        time, computed = self._lengths.time, self._computed
        order = sorted((place for place, gain in enumerate(gains) if gain > 0), key=lambda place: -gains[place])
        tokens = most = count = 0
        for more, place in enumerate(order, start=1):
            tokens += gains[place]
            surplus = tokens - self._speed * (time(computed + more) - time(computed) + cost)
            if surplus > most:
                most, count = surplus, more
        chosen = set(order[:count])
        return [place in chosen for place in range(len(gains))]


def _bin(confidence: float) -> int:
    return min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)
