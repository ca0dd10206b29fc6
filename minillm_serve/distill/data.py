"""Training text that the target writes itself: it invents prompts, and answers them and ours.

Inventing: the chat template's user header alone, continued at temperature 1 (Magpie, Xu et al. 2024, arXiv:2406.08464).
Files: ``part-NNN.npz`` (token ids end to end, and what is known of each text) and ``data.json`` (how they were made).
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from minillm_serve.bench.environment import describe_environment
from minillm_serve.config import ConfigError
from minillm_serve.distill import asks
from minillm_serve.engine.llm import LLM
from minillm_serve.model.store import resolve_model, weights_name
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.params import SamplingParams
from minillm_serve.request import CompletionOutput

PART_TOKENS = 1_000_000  # 16-bit ids: some 2 MB a file before compression; what a kill costs at most
MIN_PROMPT_WORDS = 2
LEAST_ROUND = 1 / 8  # of round_size: a smaller round is mostly the tail of its longest answers
DRAWS = 8  # of a template per prompt wanted, at most


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """num_tokens, minutes: stop at whichever comes first (minutes None: no limit). seed: of prompts and sampling.

    processes: engines side by side on the device, each with its part of num_tokens and of our prompts. max_new: tokens
    of an answer at most (long greedy answers end in loops, which teach nothing); max_prompt: of an invented prompt.
    round_size: answers that a process asks for at once, fewer where ``minutes`` leaves no time for so many.

    invented: share of prompts that the target invents. greedy: share of answers at temperature 0; the others are
    sampled at ``temperature``. held_out: share of prompts kept for measuring. max_num_seqs: each engine's.
    """

    num_tokens: int = 20_000_000
    minutes: float | None = None
    seed: int = 0
    processes: int = 1
    max_new: int = 192
    max_prompt: int = 96
    round_size: int = 4096
    invented: float = 0.35
    greedy: float = 0.6
    temperature: float = 0.7
    held_out: float = 0.02
    max_num_seqs: int = 512

    def __post_init__(self) -> None:
        for name in ("num_tokens", "processes", "max_new", "max_prompt", "round_size", "max_num_seqs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("invented", "greedy", "held_out"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a share: it must be between 0 and 1, got {getattr(self, name)}")


TOY_DATA = DataSettings(num_tokens=40_000, minutes=3, max_new=96, round_size=96, held_out=0.1, max_num_seqs=64)


@dataclass(frozen=True)
class Texts:
    """Texts end to end. tokens: [sum of lengths]; lengths, prompts (tokens of each), greedy, held_out: [texts]."""

    tokens: np.ndarray
    lengths: np.ndarray
    prompts: np.ndarray
    greedy: np.ndarray
    held_out: np.ndarray


@dataclass
class _Part:
    """Texts that are not in a file yet, and those that are."""

    folder: Path
    dtype: type
    number: int = 0
    rows: list[tuple[Sequence[int], int, bool, bool]] = field(default_factory=list)
    waiting: int = 0

    def add(self, ids: Sequence[int], prompt: int, greedy: bool, held_out: bool) -> None:
        self.rows.append((ids, prompt, greedy, held_out))
        self.waiting += len(ids)
        if self.waiting >= PART_TOKENS:
            self.flush()

    def flush(self) -> None:
        if not self.rows:
            return
        ids, prompts, greedy, held_out = zip(*self.rows, strict=True)
        np.savez_compressed(
            self.folder / f"part-{self.number:03}.npz",
            tokens=np.concatenate([np.asarray(row, self.dtype) for row in ids]),
            lengths=np.asarray([len(row) for row in ids], np.int32),
            prompts=np.asarray(prompts, np.int32),
            greedy=np.asarray(greedy, bool),
            held_out=np.asarray(held_out, bool),
        )
        self.number, self.rows, self.waiting = self.number + 1, [], 0


def write(
    llm: LLM,
    out: str | Path,
    settings: DataSettings,
    command: str = "",
    say: Callable[[str], None] = print,
    share: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """Let ``llm`` write texts into the folder ``out``; returns what ``data.json`` says. Raises :class:`ConfigError`.

    share: (i, n), of our prompts only the i-th of n parts, so that n processes do not answer the same ones.

    A round is one call of the engine: it answers the prompts at hand and invents those of the next round, so that one
    tail of long answers serves both.
    """
    out = Path(out)
    refuse_filled(out)
    out.mkdir(parents=True, exist_ok=True)
    header, tokenizer = user_header(llm.tokenizer), llm.tokenizer
    room = llm.core.admission.max_model_len - settings.max_new
    vocabulary = tokenizer.backend.get_vocab_size()
    part = _Part(out, np.uint16 if vocabulary <= 1 << 16 else np.uint32)
    prompts, counts, start, size = _Prompts(settings, share), Counter(), time.monotonic(), settings.round_size
    fresh: list[str] = []
    for number in count():
        began = time.monotonic()
        fresh = fresh[: round(size * settings.invented)]
        asked = [*fresh, *prompts.ours(size - len(fresh), number)]
        ids = [tokenizer.apply_chat_template([{"role": "user", "content": text}]) for text in asked]
        kept = [(text, row) for text, row in zip(asked, ids, strict=True) if len(row) <= room]
        base = (settings.seed << 40) + (number << 20)
        answering = [_answering(settings, base + i) for i in range(len(kept))]
        wanted = round(size * settings.invented * 1.3)  # some are cut, doubled or too short
        inventing = [
            SamplingParams(temperature=1.0, max_tokens=settings.max_prompt, seed=base + (1 << 19) + i)
            for i in range(wanted)
        ]
        outputs = llm.generate([row for _, row in kept] + [header] * wanted, [*answering, *inventing])
        for (text, row), params, output in zip(kept, answering, outputs, strict=False):
            whole = [*row, *output.outputs[0].token_ids]
            held_out = _share_of(text) < settings.held_out
            part.add(whole, len(row), params.temperature == 0, held_out)
            counts.update(texts=1, tokens=len(whole), answer_tokens=len(whole) - len(row), held_out_texts=int(held_out))
        fresh = prompts.invented([output.outputs[0] for output in outputs[len(kept) :]])
        took, elapsed = time.monotonic() - began, time.monotonic() - start
        say(f"data: {elapsed:6.0f} s  {counts['texts']:,} texts, {counts['tokens']:,} tokens, "
            f"{counts['answer_tokens'] / elapsed:,.0f} answer tokens/s")  # fmt: skip
        if settings.minutes is not None:
            left = 60 * settings.minutes - elapsed
            size = min(settings.round_size, int(0.9 * size * left / took))  # the tail takes its time in any round
        if counts["tokens"] >= settings.num_tokens or size < settings.round_size * LEAST_ROUND:
            break
    part.flush()
    folder = resolve_model(llm.config.model)
    made = {
        "target": weights_name(folder),
        **counts,
        "dropped_prompts": dict(prompts.dropped),
        "seconds": round(time.monotonic() - start, 1),
        "settings": asdict(settings),
        "command": command,
        "device": llm.config.device,
        "environment": describe_environment(llm.config.num_threads or 0, llm.config.dtype),
    }
    (out / "data.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return made


def refuse_filled(out: Path) -> None:
    """Raise :class:`ConfigError` where ``out`` holds texts, whole or of a run that was cut off."""
    if any(out.rglob("part-*.npz")):
        raise ConfigError(f"{out} holds texts already: give another --out, or remove its part-*.npz files")


def read(folder: str | Path) -> tuple[Texts, dict[str, Any]]:
    """The texts of a folder that :func:`write` filled, and its ``data.json``. Raises :class:`ConfigError`."""
    folder = Path(folder)
    parts = sorted(folder.glob("part-*.npz"))
    if not parts or not (folder / "data.json").is_file():
        raise ConfigError(f"{folder} holds no finished training text: make it with the command 'data --out {folder}'")
    loaded = [dict(np.load(path)) for path in parts]
    columns = {name: np.concatenate([one[name] for one in loaded]) for name in loaded[0]}
    return Texts(**columns), json.loads((folder / "data.json").read_text(encoding="utf-8"))


def user_header(tokenizer: Tokenizer) -> list[int]:
    """Token ids of the chat template up to where the user's own words begin."""
    pair = [
        tokenizer.apply_chat_template([{"role": "user", "content": words}], add_generation_prompt=False)
        for words in ("alpha", "7")
    ]
    return [one for one, _ in takewhile(lambda both: both[0] == both[1], zip(*pair, strict=False))]


class _Prompts:
    """Prompts, each once, none of those that the engine is measured with; ``dropped`` counts the refused by reason."""

    def __init__(self, settings: DataSettings, share: tuple[int, int] = (0, 1)):
        self.settings = settings
        self.share = share
        self.seen: set[str] = set()
        self.dropped: Counter[str] = Counter()

    def ours(self, wanted: int, number: int) -> list[str]:
        """At most ``wanted`` filled templates, of round ``number``: fewer once most have been asked."""
        rng, (mine, count) = random.Random(f"{self.settings.seed}/{number}"), self.share
        drawn = (asks.ask(rng) for _ in range(DRAWS * count * wanted))
        return list(islice((text for text in drawn if _hash(text) % count == mine and self._new(text)), wanted))

    def invented(self, outputs: Sequence[CompletionOutput]) -> list[str]:
        """The usable ones of what the target wrote after the user's header."""
        ended = [output.text.strip() for output in outputs if output.finish_reason == "stop"]
        self.dropped["cut"] += len(outputs) - len(ended)
        return [text for text in ended if self._new(text)]

    def _new(self, text: str) -> bool:
        key = asks.key(text)
        reason = (
            "too short" if len(key.split()) < MIN_PROMPT_WORDS
            else "reserved for measuring" if asks.is_reserved(text)
            else "seen before" if key in self.seen
            else None
        )  # fmt: skip
        self.seen.add(key)
        if reason:
            self.dropped[reason] += 1
        return reason is None


def _answering(settings: DataSettings, seed: int) -> SamplingParams:
    greedy = random.Random(seed).random() < settings.greedy
    return SamplingParams(temperature=0.0 if greedy else settings.temperature, seed=seed, max_tokens=settings.max_new)


def _share_of(prompt: str) -> float:
    """Where in [0, 1) a prompt falls: the same in every run, so that no held-out prompt is ever trained on."""
    return _hash(prompt) / 2**64


def _hash(prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(asks.key(prompt).encode()).digest()[:8], "big")
