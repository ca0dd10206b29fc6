"""What a step costs on the virtual clock, and what one request at a time would have cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minilab.reloj.reglas import Item, Request


@dataclass(frozen=True)
class Costs:
    """Seconds: of any step, of each token it computes, of each cached token that its attention reads."""

    step_s: float
    token_s: float
    read_s: float

    def seconds(self, items: Sequence[Item]) -> float:
        """One step: ``step_s + token_s * computed tokens + read_s * cached tokens``."""
        computed, read = sum(len(item.tokens) for item in items), sum(item.start for item in items)
        return self.step_s + self.token_s * computed + self.read_s * read


# Llama 3 8B in bf16 on one H100: the least squares (of relative errors) of the step times in the profiles of
# reports/gpu-h100.json; read_s is a token's 131,072 bytes of keys and values at that report's copy bandwidth.
LLAMA3_8B_ON_H100 = Costs(step_s=5.190e-3, token_s=2.060e-5, read_s=4.344e-8)


class VirtualClock:
    """A clock that only work and waiting move."""

    def __init__(self, costs: Costs = LLAMA3_8B_ON_H100):
        self._costs, self._now = costs, 0.0

    def now(self) -> float:
        return self._now

    def charge(self, items: Sequence[Item]) -> None:
        self._now += self._costs.seconds(items)

    def wait_until(self, moment: float) -> None:
        self._now = max(self._now, moment)


def sequential_seconds(requests: Sequence[Request], new: Mapping[int, int], costs: Costs = LLAMA3_8B_ON_H100) -> float:
    """The baseline: one request after another, the prompt in one step, then one token a step.

    new: request id -> tokens that it draws, its end token included.
    """
    clock = VirtualClock(costs)
    for request in requests:
        clock.wait_until(request.arrival)
        clock.charge([Item(request.id, 0, request.prompt, (), True)])
        for drawn in range(1, new[request.id]):
            clock.charge([Item(request.id, len(request.prompt) + drawn - 1, (0,), (), True)])
    return clock.now()
