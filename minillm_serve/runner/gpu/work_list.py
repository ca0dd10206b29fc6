"""The attention's work list as part of a step's inputs: planned on the host, read by kernels at fixed addresses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from minillm_kernels.triton.decode import DecodeWork
from minillm_kernels.triton.tiles import capacity, plan_tiles
from minillm_serve.model.config import ModelConfig


class WorkList:
    """Tiles of up to ``size`` sequences with one query each (see tiles.py), and scratch for their partial results.

    name: goes before the names of its fields. slack: tokens by which sequences may be shorter when the list is used
    than when it is filled: a window then begins as much earlier.
    """

    def __init__(self, name: str, size: int, config: ModelConfig, device: torch.device, slack: int = 0):
        self._name, self._capacity = name, capacity(size)
        self._partials = torch.empty(self._capacity, config.num_heads, config.head_dim, device=device)
        self._lse = torch.empty(self._capacity, config.num_heads, device=device)
        windows = config.sliding_windows
        self._window = max(windows) + slack if all(windows) else 0  # the layer that sees most decides
        self.fields: dict[str, tuple[DTypeLike, int]] = {
            f"{name}tile_seq": (np.int32, self._capacity),
            f"{name}tile_start": (np.int32, self._capacity),
            f"{name}tile_first": (np.int32, size + 1),
            f"{name}num_tiles": (np.int32, 1),
            f"{name}chunk": (np.int32, 1),
        }

    def fill(self, host: Mapping[str, NDArray], seq_lens: NDArray[np.int32]) -> None:
        """host: arrays of the step's inputs; seq_lens: [B] tokens in the cache, 0 for padding."""
        size, name = len(seq_lens), self._name
        tiles = plan_tiles(seq_lens, capacity(size), self._window)
        count = len(tiles.tile_seq)
        host[f"{name}tile_seq"][:count], host[f"{name}tile_start"][:count] = tiles.tile_seq, tiles.tile_start
        host[f"{name}tile_first"][: size + 1] = tiles.tile_first
        host[f"{name}num_tiles"][0], host[f"{name}chunk"][0] = count, tiles.chunk

    def work(self, inputs: Mapping[str, Tensor], tables: Tensor, rows: Tensor, seq_lens: Tensor) -> DecodeWork:
        """What the kernels read. inputs: those arrays on the device; rows, seq_lens: [B] int32, there too."""
        size, name = len(rows), self._name
        tiles = capacity(size)
        return DecodeWork(
            tables,
            rows,
            seq_lens,
            inputs[f"{name}tile_seq"][:tiles],
            inputs[f"{name}tile_start"][:tiles],
            inputs[f"{name}tile_first"][: size + 1],
            inputs[f"{name}num_tiles"],
            inputs[f"{name}chunk"],
            self._partials[:tiles],
            self._lse[:tiles],
        )
