"""Settings for tests: every row alike but for its seed."""

from __future__ import annotations

import torch
from torch import Tensor

from minillm_serve.sample.sampler import SampleSettings


def asked(
    seeds: Tensor, positions: Tensor | int = 0, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0
) -> SampleSettings:
    """seeds: [S] int64; positions: [S] int64, or one for all."""

    def full(value: float) -> Tensor:
        return torch.full((len(seeds),), float(value))

    return SampleSettings(
        temperature=full(temperature),
        top_k=torch.full((len(seeds),), top_k),
        top_p=full(top_p),
        min_p=full(min_p),
        typical_p=full(typical_p),
        seeds=seeds,
        positions=torch.as_tensor(positions).expand(len(seeds)),
    )
