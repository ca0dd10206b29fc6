"""One copy per step: every small array that a step takes from the host, side by side in one pinned buffer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

ALIGNMENT = 16  # bytes; kernels may load a field in vectors
RING = 3  # host buffers: one being filled, one whose copy is under way, one of the step before that


class PackedBuffer:
    """Named arrays that live at fixed addresses on the device, as CUDA graphs want them, and are written on the host.

    fields: name -> (numpy dtype, elements). ``begin`` gives the host's arrays for one step, ``upload`` sends them all
    in one asynchronous copy. Where more than ``RING - 1`` are under way (of steps that failed, nobody waits for them),
    ``begin`` waits for the oldest.
    """

    def __init__(self, fields: Mapping[str, tuple[DTypeLike, int]], device: torch.device):
        spans, end = {}, 0
        for name, (dtype, count) in fields.items():
            size = np.dtype(dtype).itemsize * count
            spans[name] = slice(end, end + size)
            end += -(-size // ALIGNMENT) * ALIGNMENT
        self._on_device = torch.zeros(end, dtype=torch.uint8, device=device)
        pinned = device.type == "cuda"
        self._on_host = [torch.zeros(end, dtype=torch.uint8, pin_memory=pinned) for _ in range(RING)]
        self._sent = [torch.cuda.Event() for _ in range(RING)] if pinned else []
        self._arrays = [
            {name: host.numpy()[spans[name]].view(dtype) for name, (dtype, _) in fields.items()}
            for host in self._on_host
        ]
        self.device: dict[str, Tensor] = {
            name: self._on_device[spans[name]].view(torch.from_numpy(np.zeros(1, dtype)).dtype)
            for name, (dtype, _) in fields.items()
        }
        self._at = 0

    def begin(self) -> dict[str, NDArray]:
        """The arrays to fill for the next step. They hold what an earlier step left there."""
        self._at = (self._at + 1) % RING
        if self._sent:
            self._sent[self._at].synchronize()  # at once, but for steps that nobody has waited for
        return self._arrays[self._at]

    def upload(self) -> None:
        """Send what ``begin`` gave, in the order of the current stream."""
        self._on_device.copy_(self._on_host[self._at], non_blocking=True)
        if self._sent:
            self._sent[self._at].record()


def sent(values: NDArray, device: torch.device) -> Tensor:
    """An array of its own on the device, without waiting for it."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
