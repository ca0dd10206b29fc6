"""An engine with speculation beside the same engine without: they take turns on the same prompts, in one process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from minillm_serve.bench.contention import OtherPrograms
from minillm_serve.params import SamplingParams

if TYPE_CHECKING:
    from minillm_serve.engine.core import StepStats
    from minillm_serve.engine.llm import LLM

WARM_UP_TOKENS = 4
Ask = tuple[Sequence[int], SamplingParams]  # prompt token ids, and how to answer


@dataclass
class Turn:
    """One engine's answers to all prompts. drafts: (verified, accepted) of every draft; others_cpu: see contention."""

    answers: list[tuple[int, ...]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0
    drafts: list[tuple[int, int]] = field(default_factory=list)
    others_cpu: float | None = None

    @property
    def tokens(self) -> int:
        return sum(map(len, self.answers))

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


class Contender:
    """An engine that answers the same prompts again and again as if it had never seen them."""

    def __init__(self, llm: LLM):
        self._llm = llm
        speculation = llm.core.runner.speculation
        # A proposer that is fed by the model's steps keeps nothing of a request that has ended.
        learns = speculation is not None and speculation.reader is None
        self._fresh = deepcopy(speculation.proposer) if learns else None

    def turn(self, asks: Sequence[Ask], at_once: int) -> Turn:
        """Answer all, ``at_once`` of them together at a time."""
        self._forget()
        turn = Turn()

        def note(stats: StepStats) -> None:
            turn.steps += 1
            turn.drafts += stats.drafts

        self._llm.core.on_step = note
        with OtherPrograms() as others:
            start = time.perf_counter()
            for first in range(0, len(asks), at_once):
                prompts, params = zip(*asks[first : first + at_once], strict=True)
                outputs = self._llm.generate(list(prompts), list(params))
                turn.answers += [tuple(output.outputs[0].token_ids) for output in outputs]
            turn.seconds = time.perf_counter() - start
        self._llm.core.on_step = None
        turn.others_cpu = others.share
        return turn

    def _forget(self) -> None:
        """What the turn before taught: cached prefixes, answers remembered, acceptance rates."""
        self._llm.reset_prefix_cache()
        if (speculation := self._llm.core.runner.speculation) is not None:
            speculation.lengths.forget()
            if self._fresh is not None:
                speculation.proposer = deepcopy(self._fresh)


def compare(
    plain: Contender, others: Mapping[str, Contender], asks: Sequence[Ask], at_once: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Name -> figures (see :func:`figures`) of each engine beside the plain one, after ``rounds`` turns of all."""
    contenders = {"": plain, **others}
    for contender in contenders.values():  # buffers grow and grammars are compiled before anything is timed
        contender.turn([(prompt, replace(params, max_tokens=WARM_UP_TOKENS)) for prompt, params in asks], at_once)
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            turns[name].append(contender.turn(asks, at_once))
    return {name: figures(turns[""], turns[name]) for name in others}


def figures(plain: Sequence[Turn], speculating: Sequence[Turn]) -> dict[str, Any]:
    """What drafts did, and what they gave: the ratios are those of turns that followed each other.

    acceptance_rate: of drafted tokens, those accepted; acceptance_per_position: of drafts that long, those that stand
    up to there. mean_acceptance_length: tokens of a step that verified a draft, the drawn one included.
    """
    drafts = [draft for turn in speculating for draft in turn.drafts]
    drafted, accepted = sum(count for count, _ in drafts), sum(count for _, count in drafts)
    ratios = [fast.speed / slow.speed for slow, fast in zip(plain, speculating, strict=True)]
    expected = plain[0].answers
    equal = [answer == first for turn in (*plain, *speculating) for answer, first in
             zip(turn.answers, expected, strict=True)]  # fmt: skip
    return {
        "speed_up": median(ratios),
        "speed_up_low": min(ratios),
        "speed_up_high": max(ratios),
        "plain_tok_s": median(turn.speed for turn in plain),
        "tok_s": median(turn.speed for turn in speculating),
        "tokens": speculating[0].tokens,
        "tokens_per_step": sum(turn.tokens for turn in speculating) / sum(turn.steps for turn in speculating),
        "drafts": len(drafts),
        "draft_tokens": drafted,
        "accepted_tokens": accepted,
        "acceptance_rate": accepted / drafted if drafted else None,
        "acceptance_per_position": per_position(drafts),
        "mean_acceptance_length": 1 + accepted / len(drafts) if drafts else None,
        "same_tokens": all(equal),
        "answers_equal": sum(equal),
        "answers": len(equal),
        "others_cpu": [turn.others_cpu for turn in (*plain, *speculating)],
    }


def per_position(drafts: Sequence[tuple[int, int]]) -> list[float]:
    """Entry i: of the drafts of more than i tokens, the share whose first i + 1 tokens were accepted."""
    longest = max((drafted for drafted, _ in drafts), default=0)
    return [
        sum(accepted > place for _, accepted in drafts) / sum(drafted > place for drafted, _ in drafts)
        for place in range(longest)
    ]
