"""``minillm bench rerank``: which of two untrained ways puts the passage that answers a question first.

The two: the cosine of mean hidden states (what /v1/embeddings gives), and the likelihood of the question after the
passage (what /rerank gives, engine/scoring.py). The questions are twenty of our own, each with one passage that answers
it and four others of its field (data/ranking.txt). The sentence between passage and question was chosen among six on
these same questions, so the level flatters it; all six beat the cosine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from minillm_serve.bench.environment import describe_environment
from minillm_serve.config import ConfigError
from minillm_serve.model.store import DEFAULT_MODEL

if TYPE_CHECKING:
    from minillm_serve.engine.llm import LLM


@dataclass(frozen=True)
class Question:
    """A question and its passages; the first one answers it."""

    text: str
    passages: tuple[str, ...]


def read_questions(text: str) -> list[Question]:
    """Lines ``? question``, ``+ the passage that answers it``, ``- another``; ``#`` begins a comment."""
    found: list[tuple[str, list[str], list[str]]] = []
    for line in text.splitlines():
        mark, content = line[:1], line[2:].strip()
        if mark == "?":
            found.append((content, [], []))
        elif mark in ("+", "-"):
            found[-1]["+-".index(mark) + 1].append(content)
    return [Question(text, (*right, *wrong)) for text, right, wrong in found]


def committed_questions() -> list[Question]:
    """The set that every figure is taken on."""
    data = resources.files("minillm_serve.bench").joinpath("data/ranking.txt")
    return read_questions(data.read_text(encoding="utf-8"))


def by_cosine(llm: LLM, questions: Sequence[Question]) -> list[list[float]]:
    """For each question, a score of each passage."""
    scores = []
    for question in questions:
        asked, *passages = (output.outputs.embedding for output in llm.embed([question.text, *question.passages]))
        scores.append([sum(a * b for a, b in zip(asked, passage, strict=True)) for passage in passages])
    return scores


def by_likelihood(llm: LLM, questions: Sequence[Question]) -> list[list[float]]:
    """For each question, a score of each passage."""
    return [[one.outputs.score for one in llm.score(q.text, q.passages)] for q in questions]


WAYS = {"cosine of mean hidden states": by_cosine, "query likelihood": by_likelihood}


def ranks(scores: Sequence[Sequence[float]]) -> list[int]:
    """The place of the first passage among its own, 1 for the best; a tie counts against it."""
    return [1 + sum(other >= first for other in others) for first, *others in scores]


def summary(places: Sequence[int]) -> dict[str, Any]:
    """top_1: questions whose answer came first. mrr: mean reciprocal rank."""
    return {
        "questions": len(places),
        "top_1": sum(place == 1 for place in places),
        "mrr": sum(1 / place for place in places) / len(places),
    }


def chance(questions: Sequence[Question]) -> dict[str, Any]:
    """What the same figures are when passages are shuffled."""
    sizes = [len(question.passages) for question in questions]
    return {
        "questions": len(sizes),
        "top_1": sum(1 / size for size in sizes),
        "mrr": sum(sum(1 / place for place in range(1, size + 1)) / size for size in sizes) / len(sizes),
    }


def measure(llm: LLM, questions: Sequence[Question]) -> dict[str, dict[str, Any]]:
    """One row for each way, and one for chance."""
    return {"chance": chance(questions)} | {name: summary(ranks(way(llm, questions))) for name, way in WAYS.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``minillm bench rerank``."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="known name or local folder (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows and the environment there")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write where asked. Raises ConfigError."""
    import torch

    from minillm_serve.engine.llm import LLM

    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise ConfigError(f"--json: the folder {args.json.parent} does not exist")
    with LLM(args.model, max_num_seqs=16) as llm:
        rows = measure(llm, committed_questions())
    table = Table("passages ranked by", "answer first", "mean reciprocal rank")
    for name, row in rows.items():
        table.add_row(name, f"{row['top_1']:g} of {row['questions']}", f"{row['mrr']:.3f}")
    Console().print(table)
    if args.json is not None:
        report = {
            "environment": describe_environment(torch.get_num_threads(), "float32"),
            "model": Path(args.model).name,
        }
        args.json.write_text(json.dumps(report | {"results": rows}, indent=1) + "\n", encoding="utf-8")
    return 0
