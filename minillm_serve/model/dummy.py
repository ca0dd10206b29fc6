"""A model without its files' contents: random weights for measurements, and no tokenizer where none is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tokenizers
import torch
from tokenizers.models import WordLevel
from torch import Tensor

from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.params import RequestError

SCALE = 0.02  # of the normal distribution: about what models are initialised with


class DummyCheckpoint:
    """Any tensor that is asked for, made where it is needed. Norms are ones; the same seed gives the same model."""

    def __init__(self, device: torch.device | str, dtype: torch.dtype, seed: int = 0):
        self._device, self._dtype = device, dtype
        self._generator = torch.Generator(device).manual_seed(seed)

    def names(self) -> list[str]:
        """What is there where it may be left out: an LM head, so that a draft head is given its own. And nothing that a
        model does not use."""
        return ["lm_head.weight"]

    def read(self, name: str, shape: Sequence[int]) -> Tensor:
        """A tensor of this shape on the device."""
        if name.endswith("norm.weight"):
            return torch.ones(tuple(shape), dtype=self._dtype, device=self._device)
        empty = torch.empty(tuple(shape), dtype=self._dtype, device=self._device)
        return empty.normal_(0.0, SCALE, generator=self._generator)

    def read_integers(self, name: str, shape: Sequence[int]) -> Tensor:
        """Of a table of ids: the first ones."""
        return torch.arange(*shape)


class NoTokenizer(Tokenizer):
    """Stands where a tokenizer stands (``skip_tokenizer_init``): knows which ids end a text, and no text."""

    def __init__(self, eos_token_ids: Iterable[int]):
        super().__init__(tokenizers.Tokenizer(WordLevel({}, unk_token="")), eos_token_ids)

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        raise RequestError(
            "this engine was started with skip_tokenizer_init: a prompt is a list of token ids", "prompt"
        )
