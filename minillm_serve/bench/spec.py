"""``minillm bench spec``: what speculative decoding gives, and where it loses, beside the same engine without it.

Suites: ``chat`` is the demo's free prose, ``copy`` are answers that repeat their input (see copy_prompts.py); one
request at a time. Then batches of chats, with draft lengths that follow what pays and with fixed ones. Greedy, so that
every answer can be compared token by token.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from minillm_serve.bench.copy_prompts import COPY_PROMPTS
from minillm_serve.bench.environment import available_cores, describe_environment
from minillm_serve.bench.prompts import PROMPTS, conversation, evenly_spaced
from minillm_serve.bench.session import write_json
from minillm_serve.bench.spec_run import Ask, Contender, compare
from minillm_serve.bench.spec_tables import print_spec
from minillm_serve.config import ConfigError
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model, shipped_head, weights_name
from minillm_serve.params import SamplingParams, StructuredOutputsParams
from minillm_serve.speculative import METHODS, SpeculativeConfig, read_keys, speculative_config

if TYPE_CHECKING:
    from minillm_serve.engine.llm import LLM

SUITES = ("chat", "copy")
LENGTHS = {"dynamic": True, "fixed": False}
WITH_MODEL = ("draft_model", "eagle")
DEFAULTS: dict[str, dict[str, Any]] = {
    "ngram": {"num_speculative_tokens": 8, "prompt_lookup_min": 2, "prompt_lookup_max": 4},
    "suffix": {},
    "draft_model": {"num_speculative_tokens": 4},
    "eagle": {"num_speculative_tokens": 6},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags on ``parser``."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="known model name or local folder (%(default)s)")
    parser.add_argument("--method", default="ngram,suffix", help=f"by comma, of {', '.join(METHODS)} (%(default)s)")
    parser.add_argument(
        "--draft-model", metavar="DIR", help="draft model or head, for draft_model and eagle (eagle: the one we ship)"
    )
    parser.add_argument("--speculative-config", default="{}", metavar="JSON", help="further keys, for every method")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each engine (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=128, help="new tokens of an answer at most (%(default)s)")
    parser.add_argument("--suite", default="all", choices=(*SUITES, "all"), help="(%(default)s)")
    parser.add_argument("--prompts", type=int, default=24, help="prompts of a suite at most (%(default)s)")
    parser.add_argument("--batch", default="1,4,16,50", help="chats at once, by comma; empty: none (%(default)s)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of the model (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write environment and figures there")


def run(args: argparse.Namespace) -> int:
    """0; 1 if an answer differed from the one without speculation. Raises ConfigError on what cannot be run."""
    configs, batches = _check(args)
    folder, console = resolve_model(args.model), Console()
    seats = max([1, *batches])
    plain = _engine(folder, seats, args.threads)
    suites = {name: asks for name, asks in _suites(plain, args).items() if args.suite in (name, "all")}
    # One short chat would say little of one at a time: waves of each size, as many as the prompts fill.
    chats = {count: _chats(plain, count * max(1, args.prompts // count), args.max_tokens) for count in batches}
    document: dict[str, Any] = {
        "kind": "spec",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": describe_environment(args.threads, "float32") | {"weights": weights_name(folder)},
        "settings": {"rounds": args.rounds, "max_tokens": args.max_tokens, "prompts": args.prompts},
        "methods": {method: _described(config) for method, config in configs.items()},
        "suites": [],
        "batches": [],
    }
    for method, config in configs.items():
        for row in _measure(folder, plain, config, suites, chats, args, seats):
            document["suites" if "suite" in row else "batches"].append({"method": method} | row)
            document["losses"] = losses(document)
            cell = row.get("suite") or f"{row['at_once']} at once, {row['length']} lengths"
            console.print(f"{method}, {cell}: {row['speed_up']:.2f}×", style="dim", highlight=False)
            if args.json is not None:
                write_json(args.json, document)
    print_spec(document, console)
    return 0 if all(row["same_tokens"] for row in (*document["suites"], *document["batches"])) else 1


def losses(document: Mapping[str, Any]) -> list[str]:
    """A line for every cell in which the engine is slower with speculation."""
    cells = [(f"{row['method']}, {row['suite']}", row) for row in document["suites"]]
    cells += [
        (f"{row['method']}, {row['at_once']} at once, {row['length']} lengths", row) for row in document["batches"]
    ]
    return [
        f"{name}: {row['speed_up']:.2f}× ({row['speed_up_low']:.2f} to {row['speed_up_high']:.2f})"
        for name, row in cells
        if row["speed_up"] < 1
    ]


def _measure(
    folder: Path,
    plain: LLM,
    config: SpeculativeConfig,
    suites: Mapping[str, Sequence[Ask]],
    chats: Mapping[int, Sequence[Ask]],
    args: argparse.Namespace,
    seats: int,
) -> Iterator[dict[str, Any]]:
    """Rows of both tables, one by one."""
    said = _described(config)
    engines = {
        name: Contender(_engine(folder, seats, args.threads, said | {"dynamic": dynamic}))
        for name, dynamic in LENGTHS.items()
        if chats or name == "dynamic"
    }
    beside = Contender(plain)
    for name, asks in suites.items():
        found = compare(beside, {"dynamic": engines["dynamic"]}, asks, 1, args.rounds)
        yield {"suite": name, "prompts": len(asks), **found["dynamic"]}
    for count, asks in chats.items():
        for length, row in compare(beside, engines, asks, count, args.rounds).items():
            yield {"at_once": count, "length": length, "prompts": len(asks), **row}


def _check(args: argparse.Namespace) -> tuple[dict[str, SpeculativeConfig], list[int]]:
    """What to measure. Raises ConfigError."""
    for name, least in (("rounds", 1), ("max_tokens", 2), ("prompts", 1), ("threads", 1)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(args, name)}")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {args.json}: the folder does not exist")
    methods = args.method.split(",")
    if unknown := [method for method in methods if method not in METHODS]:
        raise ConfigError(f"--method takes {', '.join(METHODS)}, got {', '.join(unknown)}")
    if args.draft_model is not None and not set(methods) & set(WITH_MODEL):
        raise ConfigError("--draft-model is for the methods draft_model and eagle, and --method names neither")
    own = args.model if args.draft_model is None and shipped_head(args.model) else None
    drafts = {"draft_model": args.draft_model, "eagle": args.draft_model or own}
    if lacking := [method for method in methods if method in WITH_MODEL and drafts[method] is None]:
        raise ConfigError(f"--method {lacking[0]} needs --draft-model DIR")
    try:
        batches = [int(text) for text in args.batch.split(",") if text]
    except ValueError:
        raise ConfigError(f"--batch takes numbers such as 1,4,16, got {args.batch!r}") from None
    if any(not 1 <= count <= len(PROMPTS) for count in batches) or len(set(batches)) < len(batches):
        raise ConfigError(f"--batch takes different numbers from 1 to {len(PROMPTS)}, got {args.batch}")
    further = read_keys(args.speculative_config)
    if ours := sorted({"method", "model", "dynamic"} & further.keys()):
        raise ConfigError(f"--speculative-config: {ours[0]} is what this benchmark sets: leave it out")
    return {
        method: speculative_config(
            {"method": method} | DEFAULTS[method] | ({"model": drafts[method]} if method in drafts else {}) | further
        )
        for method in methods
    }, batches


def _described(config: SpeculativeConfig) -> dict[str, Any]:
    """Fields that were said or filled in: a configuration that can be made again, and read as JSON."""
    default = SpeculativeConfig.__dataclass_fields__
    said = {name: getattr(config, name) for name, field in default.items() if getattr(config, name) != field.default}
    return json.loads(json.dumps(said))


def _suites(llm: LLM, args: argparse.Namespace) -> dict[str, list[Ask]]:
    chosen = evenly_spaced(min(args.prompts, len(COPY_PROMPTS)), len(COPY_PROMPTS))
    copies = []
    for prompt in (COPY_PROMPTS[index] for index in chosen):
        structured = None if prompt.schema is None else StructuredOutputsParams(json=prompt.schema)
        copies.append(_ask(llm, prompt.text, args.max_tokens, structured))
    return {"chat": _chats(llm, min(args.prompts, len(PROMPTS)), args.max_tokens), "copy": copies}


def _chats(llm: LLM, count: int, max_tokens: int) -> list[Ask]:
    chosen = evenly_spaced(min(count, len(PROMPTS)), len(PROMPTS))
    return [_ask(llm, PROMPTS[chosen[number % len(chosen)]], max_tokens) for number in range(count)]


def _ask(llm: LLM, text: str, max_tokens: int, structured: StructuredOutputsParams | None = None) -> Ask:
    params = SamplingParams(temperature=0, max_tokens=max_tokens, structured_outputs=structured)
    return llm.tokenizer.apply_chat_template(conversation(text)), params


def _engine(folder: Path, seats: int, threads: int, spec: Mapping[str, Any] | None = None) -> LLM:
    from minillm_serve.engine.llm import LLM

    return LLM(folder, max_num_seqs=seats, num_threads=threads, speculative_config=spec)
