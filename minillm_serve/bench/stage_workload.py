"""The load of the stages: chosen so that each of them has something to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minillm_serve.bench.prompts import PROMPTS

SHARED_TOKENS = 160
LONG_TOKENS = 384
LONG_MAX_TOKENS = 4
SHARES = (1.0, 0.5, 0.25, 0.125)  # of max_tokens: a static batch waits for its longest answer


@dataclass(frozen=True)
class Job:
    """One request. It arrives once ``after_tokens`` tokens have been generated in all."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    after_tokens: int = 0


Workload = Sequence[Job]


def build_workload(
    encode: Callable[[str], Sequence[int]], num_prompts: int = 10, max_tokens: int = 24
) -> tuple[Job, ...]:
    """``num_prompts`` requests, answers of up to ``max_tokens`` tokens; encode: text -> token ids.

    Half are short questions, half the same question after a text that all of them share (a prefix hit), with
    answers of four lengths. The last is a long prompt, and it arrives when a quarter of the tokens has been generated.
    """
    if num_prompts < 2:
        raise ValueError(f"the stages need at least 2 prompts, got {num_prompts}")
    shared = _cut(encode, PROMPTS, SHARED_TOKENS)
    jobs = []
    for index in range(num_prompts - 1):
        question = tuple(encode(PROMPTS[index // 2 % len(PROMPTS)]))
        prompt = shared + question if index % 2 else question
        jobs.append(Job(prompt, max(2, round(max_tokens * SHARES[index // 2 % len(SHARES)]))))
    quarter = sum(job.max_tokens for job in jobs) // 4
    long = _cut(encode, tuple(reversed(PROMPTS)), LONG_TOKENS)
    return (*jobs, Job(long, min(LONG_MAX_TOKENS, max_tokens), after_tokens=quarter))


def _cut(encode: Callable[[str], Sequence[int]], texts: Sequence[str], count: int) -> tuple[int, ...]:
    """The first ``count`` tokens of the texts, said as often as it takes."""
    ids = tuple(encode(" ".join(texts)))
    return (ids * -(-count // len(ids)))[:count]
