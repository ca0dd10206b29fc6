"""How many tokens to draft: as many as are expected to pay, by what was accepted lately and what verifying costs.

With acceptance rate a, a draft of k tokens yields ``E(k) = 1 + a + … + a^k`` tokens (Leviathan et al. 2023,
arXiv:2211.17192, equation 1); what is chosen for a batch has the most of them per unit of time. A batch that fills the
machine by itself has nothing to gain: 0 drafts, and a step is what it is without speculation.
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


STEP_COSTS = {"cpu": StepCosts(free=5, slope=0.09), "cuda": StepCosts(free=96, slope=0.004)}
"""By device: SmolLM2-135M in float32 on two CPU cores, and on an H100."""

FIRST_GUESS = 0.6  # acceptance rate before anything was observed
PRIOR_TRIALS = 2.0  # weight of what all requests have seen, in the estimate of one
MEMORY, GLOBAL_MEMORY = 0.9, 0.995  # share of an estimate's weight that is left after another observation
PROBE_EVERY = 16  # steps after which a request without drafts gets one, to be seen when it becomes predictable again
HOPEFUL = 0.9  # ... unless not even this acceptance rate would pay in its batch


@dataclass(slots=True)
class Acceptance:
    """A rate that forgets. trials: drafts whose predecessors were all accepted; hits: those accepted themselves."""

    hits: float = 0.0
    trials: float = 0.0

    def observe(self, drafted: int, accepted: int, memory: float) -> None:
        self.hits = memory * self.hits + accepted
        self.trials = memory * self.trials + min(accepted + 1, drafted)

    def rate(self, prior: float, weight: float) -> float:
        return (self.hits + weight * prior) / (self.trials + weight)


class DraftLength:
    """Chooses each request's draft length, step by step.

    device: ``cpu`` or ``cuda``, names its :class:`StepCosts` unless ``costs`` are given. draft_cost: what the proposer
    takes for one more token of all drafts, in steps over one token.

    Without ``config.dynamic`` every request drafts ``config.draft_tokens(batch size)``; with it, never more than that.
    """

    def __init__(
        self, config: SpeculativeConfig, device: str, draft_cost: float = 0.0, costs: StepCosts | None = None
    ) -> None:
        self._config = config
        self._costs = STEP_COSTS[device] if costs is None else costs
        self._draft_cost = draft_cost
        self._all = Acceptance()
        self._of: dict[int, Acceptance] = {}
        self._step = 0

    def observe(self, rid: int, drafted: int, accepted: int) -> None:
        """Of ``drafted`` tokens that were verified for a request, the first ``accepted`` stand."""
        if drafted:
            self._all.observe(drafted, accepted, GLOBAL_MEMORY)
            self._of.setdefault(rid, Acceptance()).observe(drafted, accepted, MEMORY)

    def drop(self, rid: int) -> None:
        """The request has ended. Unknown ids are passed over."""
        self._of.pop(rid, None)

    def acceptance(self, rid: int) -> float:
        """The estimate for a request; what all have seen for one that has not drafted yet."""
        return self._rates([rid])[0]

    def lengths(self, rids: Sequence[int], peek: bool = False) -> dict[int, int]:
        """Request id -> tokens to draft for the next step of this batch, 0 where it does not pay.

        peek: only to know what the answer will be; else it counts as a step.
        """
        step = self._step + 1
        if not peek:
            self._step = step
        most = self._config.draft_tokens(len(rids))
        if not self._config.dynamic or most == 0 or not rids:
            return dict.fromkeys(rids, most)
        lengths = self._best(np.array(self._rates(rids)), most)
        # All in one step: what a draft costs the whole batch is then paid once.
        if step % PROBE_EVERY == 0 and self._pays(HOPEFUL, len(rids)):
            lengths = [max(1, length) for length in lengths]
        return dict(zip(rids, lengths, strict=True))

    def _rates(self, rids: Sequence[int]) -> list[float]:
        prior = self._all.rate(FIRST_GUESS, PRIOR_TRIALS)
        return [self._of[rid].rate(prior, PRIOR_TRIALS) if rid in self._of else prior for rid in rids]

    def _best(self, rates: np.ndarray, most: int) -> list[int]:
        """The lengths with the most expected tokens per time; of equals the shortest."""
        depths = np.arange(1, most + 1)
        gains = (rates[:, None] ** depths).ravel()  # [requests * most]: of drafting each further token
        order = np.argsort(-gains, kind="stable")
        gains, depth_of = gains[order], np.tile(depths, len(rates))[order]
        best, chosen = len(rates) / self._time(len(rates)), order[:0]
        for deepest in depths if self._draft_cost else depths[-1:]:
            allowed = depth_of <= deepest
            tokens = len(rates) + np.cumsum(gains[allowed])
            drafted = np.arange(1, len(tokens) + 1)
            speeds = tokens / (self._time(len(rates) + drafted) + self._draft_cost * deepest)
            count = int(speeds.argmax())
            if speeds[count] > best:
                best, chosen = speeds[count], order[allowed][: count + 1]
        return np.bincount(chosen // most, minlength=len(rates)).tolist()

    def _pays(self, rate: float, batch: int) -> bool:
        """Whether a draft of one token each, accepted at ``rate``, makes a batch of requests faster."""
        with_drafts = self._time(2 * batch) + self._draft_cost
        return bool((1 + rate) / with_drafts > 1 / self._time(batch))

    def _time(self, tokens: int | np.ndarray) -> np.ndarray:
        return 1 + self._costs.slope * np.maximum(0, tokens - self._costs.free)
