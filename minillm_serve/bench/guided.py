"""``minillm bench guided``: schemas judged and masks timed beside xgrammar, llguidance and outlines-core.

Every schema is compiled in a process of its own (one core, a time and a memory limit) and its instances are run
through the masks token by token. The engines take turns block by block, ``--repeats`` times over: ratios compare what
one pass measured. Method and data: MaskBench (Geng et al. 2025, arXiv:2501.10868).
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from minillm_serve.bench.environment import describe_environment
from minillm_serve.bench.guided_summary import print_summary, summarise
from minillm_serve.compare.backend import WorkerProcess
from minillm_serve.compare.environments import how_to_install, installed_version, python_of
from minillm_serve.config import ConfigError
from minillm_serve.guided.automaton.vocab import vocab_of
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model

OURS = ("minillm", "minillm-ordered")
ENGINES = (*OURS, "llguidance", "xgrammar", "outlines")
WORKER = Path(__file__).parents[1] / "compare" / "workers" / "masks.py"
BLOCK = 100  # schemas an engine judges before the next one takes its turn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags on ``parser``."""
    parser.add_argument(
        "--engine", default="minillm,minillm-ordered,llguidance,xgrammar", help="engines, by comma (%(default)s)"
    )
    parser.add_argument("--data", required=True, type=Path, help="JSON lines (.gz) with id, schema and tests")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="whose tokenizer (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure and every wrong verdict here")
    parser.add_argument("--repeats", type=int, default=3, help="passes over the data (%(default)s)")
    parser.add_argument("--limit", type=int, help="only so many schemas, evenly spread over the data")
    parser.add_argument("--seconds", type=float, default=20.0, help="time a schema may take (%(default)s)")
    parser.add_argument("--memory-gib", type=float, default=2.0, help="memory a schema may take (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """0; 1 if minillm judged an instance wrongly, crashed or ran out of its limits."""
    engines = _engines(args.engine)
    if args.repeats < 1:
        raise ConfigError(f"--repeats must be at least 1, got {args.repeats}")
    cases = read_cases(args.data, args.limit)
    vocabulary = _vocabulary(args.model)
    console = Console()
    passes: list[dict[str, list[dict[str, Any]]]] = []
    with contextlib.ExitStack() as stack, _one_core():
        workers = {name: stack.enter_context(_worker(name)) for name in engines}
        info = {name: worker.load(**vocabulary["load"]) for name, worker in workers.items()}
        work = [_work(case, vocabulary["encode"], args) for case in cases]
        for number in range(args.repeats):
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
            for name, block in _turns(engines, work, number):
                found[name] += [workers[name].ask(command) for command in block]
                console.print(f"pass {number + 1}: {name} {len(found[name])}/{len(work)}", highlight=False)
            passes.append(found)
    document = summarise(cases, passes) | {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(args),
        "info": info,
        "data": {"file": args.data.name, "schemas": len(cases)},
        "limits": {"seconds": args.seconds, "memory_gib": args.memory_gib, "cores": 1},
        "environment": describe_environment(1, "none"),
    }
    print_summary(document, console)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    ours = document["engines"].get("minillm")
    return int(ours is not None and bool(ours["wrong"] or ours["failures"]))


def _command(args: argparse.Namespace) -> str:
    """What was asked for, without anybody's folders."""
    limit = "" if args.limit is None else f" --limit {args.limit}"
    return f"minillm bench guided --engine {args.engine} --data {args.data.name} --repeats {args.repeats}{limit}"


def _engines(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names) or not set(names) <= set(ENGINES):
        raise ConfigError(f"--engine takes different names of {', '.join(ENGINES)}; got {text!r}")
    if set(names).difference(OURS) and installed_version("guided") is None:
        raise ConfigError(f"the other engines are not installed; once: {how_to_install('guided')}")
    if not hasattr(os, "fork"):
        raise ConfigError("this benchmark needs a system with fork (Linux, macOS)")
    return names


def read_cases(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The schemas and instances of a MaskBench-like file. Raises :class:`ConfigError` naming the line at fault.

    limit: so many of them, evenly spread: such files go family by family, and the first ones would be all of a kind.
    """
    if not path.is_file():
        raise ConfigError(f"--data: there is no file {path}")
    cases = []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                case = json.loads(line)
                cases.append({"id": case["id"], "schema": case["schema"], "tests": case["tests"]})
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"--data: line {number} is not a case with id, schema and tests: {error}") from None
    if not cases:
        raise ConfigError(f"--data: {path} holds no schema")
    if limit is None or limit >= len(cases):
        return cases
    if limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {limit}")
    return [cases[i * len(cases) // limit] for i in range(limit)]


def _vocabulary(model: str) -> dict[str, Any]:
    """What the workers load, and the tokenizer's ``encode``."""
    import tokenizers

    file = resolve_model(model) / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    vocab = vocab_of(tokenizer)
    tokens = [text.hex() if text else None for text in vocab.token_bytes]
    load = {"tokenizer": str(file), "tokens": tokens, "eos": sorted(vocab.eos_token_ids)}
    return {"load": load, "encode": lambda text: tokenizer.encode(text, add_special_tokens=False).ids}


def _worker(name: str) -> WorkerProcess:
    python = sys.executable if name in OURS else str(python_of("guided"))
    return WorkerProcess(name, [python, str(WORKER), name], timeout_s=600)


def _work(case: dict[str, Any], encode: Any, args: argparse.Namespace) -> dict[str, Any]:
    texts = [json.dumps(test["data"], ensure_ascii=False) for test in case["tests"]]
    return {
        "do": "judge",
        "schema": json.dumps(case["schema"], ensure_ascii=False),
        "instances": [encode(text) for text in texts],
        "seconds": args.seconds,
        "bytes": int(args.memory_gib * 2**30),
    }


def _turns(engines: list[str], work: list[Any], number: int) -> Iterator[tuple[str, list[Any]]]:
    """Blocks of the work, each for every engine in turn; another one begins in every block and pass."""
    for block, start in enumerate(range(0, len(work), BLOCK)):
        first = (number + block) % len(engines)
        for name in engines[first:] + engines[:first]:
            yield name, work[start : start + BLOCK]


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Children inherit the last of our cores; this process keeps them all afterwards."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
