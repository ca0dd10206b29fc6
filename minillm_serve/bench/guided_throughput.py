"""``minillm bench guided-throughput``: tokens per second under a JSON Schema beside the same number without one.

One engine, in turns: guided, guided with jump-ahead, and free text after each of them. A guided request ends where its
text ends; the free one beside it gets just as many tokens, so that both make steps of the same size.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console

from minillm_serve.bench.environment import available_cores, describe_environment
from minillm_serve.bench.prompts import PROMPTS, conversation
from minillm_serve.config import ConfigError
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model
from minillm_serve.params import SamplingParams, StructuredOutputsParams

if TYPE_CHECKING:
    from minillm_serve.engine.llm import LLM

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 8, "maxLength": 60},
        "language": {"enum": ["en", "es", "fr", "other"]},
        "summary": {"type": "string", "minLength": 160, "maxLength": 320},
        "sections": {
            "type": "array",
            "minItems": 2,
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {
                    "heading": {"type": "string", "minLength": 4, "maxLength": 40},
                    "text": {"type": "string", "minLength": 40, "maxLength": 120},
                    "pages": {"type": "integer", "minimum": 1, "maximum": 999},
                },
                "required": ["heading", "text", "pages"],
                "additionalProperties": False,
            },
        },
        "rating": {"type": "number", "minimum": 0, "maximum": 5},
        "published": {"type": ["string", "null"], "format": "date"},
    },
    "required": ["title", "language", "summary", "sections", "rating", "published"],
    "additionalProperties": False,
}
GUIDED, JUMPING = "guided", "guided, jump-ahead"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags on ``parser``."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="known model name or local folder (%(default)s)")
    parser.add_argument("--quantization", help="int8: 8-bit weights and activations (default: none)")
    parser.add_argument("--requests", type=int, default=50, help="requests at once (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=160, help="new tokens of a request at most (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each way (%(default)s)")
    parser.add_argument("--schema", type=Path, metavar="FILE", help="a JSON Schema instead of the built-in one")
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of the model (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write environment, turns and ratios there")


def run(args: argparse.Namespace) -> int:
    """0: measured. Raises ConfigError or RequestError on what cannot be run."""
    for name in ("requests", "repeats", "threads"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(args, name)}")
    schema = SCHEMA if args.schema is None else json.loads(args.schema.read_text(encoding="utf-8"))
    llm = _engine(args)
    prompts = [llm.tokenizer.apply_chat_template(conversation(PROMPTS[i % len(PROMPTS)])) for i in range(args.requests)]
    console = Console()
    turns = measure(llm, prompts, StructuredOutputsParams(json=schema), args.max_tokens, args.repeats, console)
    ratios = {way: median(turn[way]["ratio"] for turn in turns) for way in (GUIDED, JUMPING)}
    document = {
        "kind": "guided-throughput",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": describe_environment(args.threads, "int8" if args.quantization else "float32"),
        "settings": {"requests": args.requests, "max_tokens": args.max_tokens, "repeats": args.repeats,
                     "quantization": args.quantization, "schema": schema},
        "turns": turns,
        "ratios": ratios,
    }  # fmt: skip
    for way, ratio in ratios.items():
        console.print(f"{way}: {ratio:.1%} of the free throughput (median of {args.repeats})", highlight=False)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def measure(
    llm: LLM,
    prompts: Sequence[list[int]],
    constraint: StructuredOutputsParams,
    max_tokens: int,
    repeats: int,
    console: Console,
) -> list[dict[str, Any]]:
    """One entry a turn: each way's tokens, seconds and steps; for the guided ways their ratio to free text.

    A free run follows each guided one with its numbers of tokens; the order of the two guided ways alternates.
    """
    guided = [
        SamplingParams(max_tokens=max_tokens, temperature=0.8, seed=seed, structured_outputs=constraint)
        for seed in range(len(prompts))
    ]
    _once(llm, prompts, [replace(params, max_tokens=4) for params in guided])  # masks of the first states, buffers
    turns = []
    for number in range(repeats):
        turn: dict[str, Any] = {}
        for way in (GUIDED, JUMPING) if number % 2 == 0 else (JUMPING, GUIDED):
            llm.core.admission.grammars.jump_ahead = way == JUMPING
            constrained, counts = _once(llm, prompts, guided)
            free, _ = _once(llm, prompts, [_unconstrained(seed, count) for seed, count in enumerate(counts)])
            ratio = constrained["tokens_per_s"] / free["tokens_per_s"]
            turn[way] = constrained | {"free": free, "ratio": ratio}
            console.print(f"turn {number + 1}: {way} {ratio:.1%}", highlight=False)
        turns.append(turn)
    return turns


def _unconstrained(seed: int, tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens, temperature=0.8, seed=seed, ignore_eos=True)


def _once(
    llm: LLM, prompts: Sequence[list[int]], params: Sequence[SamplingParams]
) -> tuple[dict[str, float], list[int]]:
    llm.reset_prefix_cache()
    steps = []
    llm.core.on_step = lambda stats: steps.append(stats.duration_s)
    start = time.perf_counter()
    outputs = llm.generate(prompts, params)
    seconds = time.perf_counter() - start
    llm.core.on_step = None
    counts = [len(output.outputs[0].token_ids) for output in outputs]
    tokens = sum(counts)
    return {"tokens": tokens, "seconds": seconds, "steps": len(steps), "tokens_per_s": tokens / seconds}, counts


def _engine(args: argparse.Namespace) -> LLM:
    from minillm_serve.engine.llm import LLM

    return LLM(
        resolve_model(args.model),
        quantization=args.quantization,
        num_threads=args.threads,
        max_num_seqs=args.requests,
        guided_jump_ahead=True,
    )
