"""The way back: what a step drew, copied to pinned memory behind the step itself, and waited for by an event."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.typing import NDArray
from torch import Tensor


class Landings:
    """Copies to the host that wait for nothing but their own step. One is made for each step under way."""

    def __init__(self, device: torch.device):
        self._on_gpu = device.type == "cuda"

    def start(self, values: Tensor) -> Callable[[], NDArray]:
        """Begin to copy; the result is called to wait for the copy, and gives it as a numpy array."""
        if not self._on_gpu:
            copy = values.clone()  # the tensor may be a static buffer that the next step overwrites
            return copy.numpy
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()

        def wait() -> NDArray:
            arrived.synchronize()
            return host.numpy()

        return wait
