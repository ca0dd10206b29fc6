"""Which tokens a head can draft: the target's most frequent ones, counted on what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minillm_serve.distill.data import Texts
from minillm_serve.model.config import ModelConfig


def frequent_tokens(texts: Texts, which: np.ndarray, count: int, config: ModelConfig, special: set[int]) -> Tensor:
    """[D] ids, the most frequent in the answers of the texts ``which`` first.

    Those that end a text are always in, and the ``special`` ones that occur.
    """
    seen = np.bincount(texts.tokens[_answer_places(texts, which)], minlength=config.vocab_size)
    order = np.argsort(-seen, kind="stable")
    always = np.isin(order, config.eos_token_ids) | (np.isin(order, list(special)) & (seen[order] > 0))
    chosen = always | (np.cumsum(~always) <= count - always.sum())
    return torch.from_numpy(order[chosen])


def special_tokens(folder: Path) -> set[int]:
    """Ids of the control tokens in ``tokenizer.json``."""
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")).get("added_tokens", [])
    return {token["id"] for token in added if token["special"]}


def coverage(texts: Texts, which: np.ndarray, token_map: Tensor) -> float:
    """Share of the answers' tokens in the texts ``which`` that the draft vocabulary has."""
    ids = texts.tokens[_answer_places(texts, which)]
    return round(float(np.isin(ids, token_map.cpu().numpy()).mean()), 5) if len(ids) else 0.0


def _answer_places(texts: Texts, which: np.ndarray) -> np.ndarray:
    """Where in ``texts.tokens`` the answers of the texts ``which`` stand."""
    owner = np.repeat(np.arange(len(texts.lengths)), texts.lengths)
    place = np.arange(len(texts.tokens)) - (np.cumsum(texts.lengths) - texts.lengths)[owner]
    return np.flatnonzero(np.isin(owner, which) & (place >= texts.prompts[owner]))
