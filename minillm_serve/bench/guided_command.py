"""``minillm guided explain``: what became of a constraint, what in it is not enforced, and a text run through it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from minillm_serve.config import ConfigError
from minillm_serve.guided import JsonOptions, json_stages
from minillm_serve.guided.automaton.matcher import CompiledGrammar
from minillm_serve.guided.automaton.vocab import Vocab, vocab_of
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.explain import explain
from minillm_serve.guided.explain import render as render_explanation
from minillm_serve.guided.options import WHITESPACE
from minillm_serve.guided.trace import render as render_trace
from minillm_serve.guided.trace import trace
from minillm_serve.model.store import resolve_model
from minillm_serve.model.tokenizer import Tokenizer

REFUSED_TEXT, REFUSED_SCHEMA = 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``explain`` on ``parser``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "show the normalised schema, the grammar with its states, and what is not enforced"
    shown = actions.add_parser("explain", help=summary, description=summary)
    shown.add_argument("schema", metavar="SCHEMA", help="a JSON Schema: a file, - for standard input, or the text")
    shown.add_argument("--tokenizer", metavar="MODEL", help="its tokens instead of single bytes")
    shown.add_argument("--text", help="run this text through the grammar; exit status 1 if it is refused")
    shown.add_argument("--lenient", action="store_true", help="leave out what cannot be enforced")
    shown.add_argument("--any-order", action="store_true", help="properties in any order")
    shown.add_argument("--whitespace", choices=WHITESPACE, default="json", help="(default: %(default)s)")
    shown.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """0; 1 when the text is refused; 2 when the schema is, with the keyword, its path and the reason."""
    schema = _read(args.schema)
    tokenizer = None if args.tokenizer is None else Tokenizer.from_folder(resolve_model(args.tokenizer))
    vocab = _bytes_vocab() if tokenizer is None else vocab_of(tokenizer)
    options = JsonOptions(args.whitespace, any_order=args.any_order, lenient=args.lenient)
    try:
        stages = json_stages(schema, options, vocab.alphabet)
    except SchemaError as error:
        return _refuse(error, _unsupported(schema, options, vocab), args.json)
    found = explain(stages.network, stages.notes, stages.root)
    rows = None
    if args.text is not None:
        pieces = [bytes([byte]) for byte in args.text.encode()] if tokenizer is None else tokenizer.encode(args.text)
        rows = trace(CompiledGrammar(stages.network, vocab), pieces)
    if args.json:
        print(json.dumps(found.to_dict() | ({} if rows is None else {"trace": [row.to_dict() for row in rows]})))
    else:
        print(render_explanation(found) + ("" if rows is None else "\n\n" + render_trace(rows)))
    fits = rows is None or (rows[-1].accepted and rows[-1].complete)
    return 0 if fits else REFUSED_TEXT


def _read(source: str) -> str:
    """The schema's text: what stands in the file, or the argument itself if it looks like JSON."""
    if source == "-":
        return sys.stdin.read()
    if source.lstrip()[:1] in ("{", "[") or source.strip() in ("true", "false"):
        return source
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} is no JSON text, and cannot be read as a file: {error}") from None


def _bytes_vocab() -> Vocab:
    """Every byte a token, and an end of text."""
    return Vocab([*(bytes([byte]) for byte in range(256)), None], frozenset({256}))


def _unsupported(schema: str, options: JsonOptions, vocab: Vocab) -> list[tuple[str, str, str]]:
    """Everything that a lenient request would leave out; empty where that does not help."""
    try:
        lenient = JsonOptions(options.whitespace, options.max_whitespace, options.any_order, lenient=True)
        return [note for note in json_stages(schema, lenient, vocab.alphabet).notes if note[2].startswith("left out")]
    except SchemaError:
        return []


def _refuse(error: SchemaError, unsupported: list[tuple[str, str, str]], as_json: bool) -> int:
    reasons: list[Any] = unsupported or [(error.keyword, error.path, error.problem)]
    if as_json:
        refused = [{"keyword": keyword, "path": path, "why": why} for keyword, path, why in reasons]
        print(json.dumps({"refused": refused, "kind": error.kind, "message": str(error)}))
    else:
        print(f"minillm: {error}", file=sys.stderr)
        for keyword, path, why in unsupported:
            print(f"minillm: not enforced with --lenient: {keyword} at {path or '(root)'}: {why}", file=sys.stderr)
    return REFUSED_SCHEMA
