"""What the meters ask for: prompts that nobody has seen, made for one run each."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from minilab.reloj.reglas import Limits, Request

LIMITS = Limits(max_requests=16, max_tokens=256, num_blocks=128, block_size=16)
# Fewer places than requests, and answers of very different lengths: waiting for the longest of a batch then costs.
COUNTED_LIMITS = Limits(max_requests=8, max_tokens=256, num_blocks=64, block_size=16)
COUNTED_REQUESTS = 32
TOPICS = (
    "why the sea is salty", "how bread is baked", "what a compass does", "how bridges stand", "why leaves fall",
    "how a bicycle keeps its balance", "what clouds are made of", "how clocks keep time", "why ice floats",
    "how letters travel", "what a lighthouse is for", "how bees find flowers", "why the moon changes its shape",
)  # fmt: skip
WORDS = (
    "river", "stone", "lamp", "window", "paper", "forest", "garden", "metal", "bridge", "candle", "summer",
    "winter", "music", "table", "orange", "silver", "cotton", "harbour", "valley", "mirror", "basket", "thunder",
    "feather", "engine", "village", "market", "needle", "copper",
)  # fmt: skip


SYSTEM = {"role": "system", "content": "Answer."}


@dataclass(frozen=True)
class Chats:
    """One run on the real clock. texts: user messages of one length, all different from the first token of the user's
    turn on: the baseline answers the first and its speed is that of the whole. max_new: tokens of every answer.
    """

    texts: tuple[str, ...]
    max_new: int

    @property
    def conversations(self) -> list[list[dict[str, str]]]:
        """A short system message stands in for the long one that some templates add: decoding is what is compared."""
        return [[SYSTEM, {"role": "user", "content": text}] for text in self.texts]


def chats(rng: Random, count: int = 12, max_new: int = 8) -> Chats:
    """``count`` questions, each behind a nonce of its own. Short ones: twenty students' runs have to fit in minutes."""
    nonces = rng.sample(range(10**5, 10**6), count)
    return Chats(tuple(f"{nonce}. Explain {rng.choice(TOPICS)}." for nonce in nonces), max_new)


def counted_requests(rng: Random, vocabulary: int) -> list[Request]:
    """Requests of token ids for the counted clock: one answer in four is long."""
    shapes = [(rng.randint(6, 40), 24 if i % 4 == 0 else 6) for i in range(COUNTED_REQUESTS)]
    rng.shuffle(shapes)
    return [
        Request(ident, 0.0, tuple(rng.randrange(3, vocabulary) for _ in range(prompt)), max_new)
        for ident, (prompt, max_new) in enumerate(shapes)
    ]
