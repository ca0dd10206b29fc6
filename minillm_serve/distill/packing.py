"""Texts of different lengths, several to a row of one width, so that little of a batch is padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minillm_serve.distill.data import Texts

OPEN_ROWS = 16


@dataclass(frozen=True)
class Rows:
    """[R, T] each. position: within its text, 0 where one begins and on padding; answer: True on an answer's tokens."""

    tokens: Tensor
    position: Tensor
    answer: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, which: slice | Tensor) -> Rows:
        """Some of the rows."""
        return Rows(self.tokens[which], self.position[which], self.answer[which])

    def to(self, device: str) -> Rows:
        return Rows(self.tokens.to(device), self.position.to(device), self.answer.to(device))


def pack(texts: Texts, which: np.ndarray, width: int) -> Rows:
    """Rows that hold the texts numbered ``which``, in about that order; what exceeds ``width`` of a text is cut off."""
    lengths = np.minimum(texts.lengths[which], width)
    rows, columns = _places(lengths, width)
    count = int(rows.max()) + 1 if len(rows) else 0
    source = (np.cumsum(texts.lengths) - texts.lengths)[which]
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    target = np.repeat(rows * width + columns, lengths) + position
    packed = {
        "tokens": (np.zeros(count * width, np.int32), texts.tokens[np.repeat(source, lengths) + position]),
        "position": (np.zeros(count * width, np.int32), position),
        "answer": (np.zeros(count * width, bool), position >= np.repeat(texts.prompts[which], lengths)),
    }
    for array, values in packed.values():
        array[target] = values
    return Rows(**{name: torch.from_numpy(array).view(count, width) for name, (array, _) in packed.items()})


def _places(lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each text: the fullest of a few open rows that has room; with none, the fullest is closed."""
    rows, columns = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    open_rows: list[list[int]] = []  # [used, row]
    made = 0
    for index, length in enumerate(lengths.tolist()):
        place = max((one for one in open_rows if one[0] + length <= width), default=None)
        if place is None:
            if len(open_rows) == OPEN_ROWS:
                open_rows.remove(max(open_rows))
            place = [0, made]
            open_rows.append(place)
            made += 1
        rows[index], columns[index] = place[1], place[0]
        place[0] += length
    return rows, columns
