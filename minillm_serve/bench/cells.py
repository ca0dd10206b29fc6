"""What a benchmark asks: cells, each a series of waves of prompts as token ids, the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minillm_serve.bench.prompts import PROMPTS, conversation, evenly_spaced
from minillm_serve.config import ConfigError
from minillm_serve.model.tokenizer import Tokenizer

Prompt = tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """One experiment. waves: prompts handed over together; a wave begins when the one before has ended.

    prepare: how many leading waves only set the stage (they fill a cache) and are left out of every figure.
    max_tokens: new tokens of each answer, exactly.
    """

    name: str
    waves: tuple[tuple[Prompt, ...], ...]
    max_tokens: int
    prepare: int = 0

    @property
    def concurrency(self) -> int:
        """Most requests that are in the engine at once."""
        return max(map(len, self.waves))

    @property
    def max_len(self) -> int:
        """Tokens of the longest sequence, answer included."""
        return max(len(prompt) for wave in self.waves for prompt in wave) + self.max_tokens

    def one_by_one(self, sample: int) -> Cell:
        """``sample`` of the prompts, evenly spaced, each in a wave of its own: for engines that take one at a time."""
        prompts = [prompt for wave in self.waves for prompt in wave]
        if len(prompts) == 1:
            return self
        chosen = evenly_spaced(min(sample, len(prompts)), len(prompts))
        return replace(self, waves=tuple((prompts[i],) for i in chosen))

    def warm_up(self) -> Cell:
        """The same prompts with a few new tokens: buffers grow and code is compiled before anything is timed."""
        return replace(self, max_tokens=min(4, self.max_tokens))


def chat_prompts(model: Path, count: int) -> tuple[Prompt, ...]:
    """The first ``count`` of the demo's fifty chats, through the model's template; more repeat them from the start."""
    if count < 1:
        raise ConfigError(f"at least one prompt is needed, got {count}")
    tokenizer = Tokenizer.from_folder(model)
    known = [tuple(tokenizer.apply_chat_template(conversation(prompt))) for prompt in PROMPTS[:count]]
    return tuple(known[i % len(known)] for i in range(count))


def together(name: str, prompts: Sequence[Prompt], max_tokens: int) -> Cell:
    """All prompts handed over at once."""
    return Cell(name, (tuple(prompts),), max_tokens)


def shared_prefix(model: Path, prefix_tokens: int, requests: int, max_tokens: int, at_once: bool = False) -> Cell:
    """``requests`` prompts that begin with the same ``prefix_tokens`` tokens, each with a question of its own.

    The first comes alone and fills the cache; the later ones, which are measured, follow one after another, or all
    together with ``at_once``.
    """
    if not 2 <= requests <= len(PROMPTS):
        raise ConfigError(f"--requests must be between 2 and {len(PROMPTS)}, got {requests}")
    if prefix_tokens < 1:
        raise ConfigError(f"--prefix-tokens must be at least 1, got {prefix_tokens}")
    tokenizer = Tokenizer.from_folder(model)
    text = " ".join(PROMPTS)
    prefix: list[int] = []
    while len(prefix) < prefix_tokens:
        prefix += tokenizer.encode(text)
    first, *later = (
        (*prefix[:prefix_tokens], *tokenizer.encode(f"\nQuestion {i}: {PROMPTS[i]}\nAnswer:")) for i in range(requests)
    )
    name = f"prefix{prefix_tokens}" + ("-together" if at_once else "")
    waves = ((first,), tuple(later)) if at_once else tuple((prompt,) for prompt in (first, *later))
    return Cell(name, waves, max_tokens, prepare=1)
