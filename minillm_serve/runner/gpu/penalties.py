"""Penalties on the device: the counts of seen tokens stay there, so a penalised row waits for no token to come back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_kernels.triton.logits import count_tokens, penalize, reset_counts
from minillm_serve.runner.constraints import Constraints, has_penalties
from minillm_serve.runner.sampling_state import LARGEST, SamplingState

OFF = (1.0, 0.0, 0.0)  # repetition, frequency, presence of a row that has no penalties


class DeviceCounts:
    """How often each penalised row has generated each token. put: brings an array to the device.

    A draw is counted where it was made, on the device. A guided row may go on with other tokens than the drawn one, and
    never runs ahead: its tokens are counted when the host knows them.
    """

    def __init__(self, rows: int, vocab: int, device: torch.device, put: Callable[[NDArray], Tensor]):
        self.counts = torch.zeros(rows, vocab, dtype=torch.int32, device=device)
        self._put = put
        self._counted: dict[int, tuple[Constraints, int]] = {}  # row -> whose counts, of how many generated tokens

    def penalize(self, logits: Tensor, rows: NDArray[np.int64], state: SamplingState) -> None:
        """logits: [S, vocab], changed in place; rows: [S] those of the batch. Nothing is launched if none has any."""
        penalised = _penalised(rows, state)
        if not penalised:
            return
        settings = np.tile(np.array(OFF, np.float32)[:, None], len(rows))
        for at, constraints in penalised:
            params = constraints.params
            values = params.repetition_penalty, params.frequency_penalty, params.presence_penalty
            settings[:, at] = np.minimum(values, LARGEST)
            self._catch_up(int(rows[at]), constraints)
        penalize(logits, self._put(rows), self.counts, *self._put(settings))

    def count(self, rows: NDArray[np.int64], sampled: Tensor, state: SamplingState) -> None:
        """After a draw. sampled: [S] ids on the device."""
        drawn = [at for at, constraints in _penalised(rows, state) if not constraints.guided]
        if drawn:
            own = np.full_like(rows, -1)
            own[drawn] = rows[drawn]
            count_tokens(self.counts, self._put(own), sampled)

    def _catch_up(self, row: int, constraints: Constraints) -> None:
        whose, counted = self._counted.get(row, (None, 0))
        generated = constraints.generated
        if whose is not constraints:
            reset_counts(self.counts, row, self._ids(constraints.prompt), self._ids(generated))
        elif constraints.guided and counted < len(generated):
            new = self._ids(generated[counted:])
            count_tokens(self.counts, torch.full_like(new, row), new)
        self._counted[row] = constraints, len(generated)

    def _ids(self, tokens: Sequence[int]) -> Tensor:
        return self._put(np.array(tokens, np.int64))


def _penalised(rows: NDArray[np.int64], state: SamplingState) -> list[tuple[int, Constraints]]:
    """Index among the rows, and constraints, of those with penalties."""
    own = ((at, state.constraints.get(row)) for at, row in enumerate(rows.tolist()))
    return [(at, found) for at, found in own if found is not None and has_penalties(found.params)]
