"""Guided decoding: constraint -> transition network -> machine -> token masks.

Read in this order: schema/ (what a JSON Schema means), text/ (which characters a string or a number may have),
grammar/ (which texts those are, as a network), automaton/ (where a text stands in the network, and which tokens may
come next). ``automaton/matcher.py`` is what the engine calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

from minillm_serve.guided.automaton.matcher import CompiledGrammar, Matcher
from minillm_serve.guided.automaton.vocab import vocab_of
from minillm_serve.guided.budget import budget
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.json_network import build_json_network
from minillm_serve.guided.grammar.network import Network
from minillm_serve.guided.options import JsonOptions
from minillm_serve.guided.schema.nodes import Interval, Node, NumberSchema
from minillm_serve.guided.schema.normalise import Normaliser
from minillm_serve.guided.text.numeric import number_dfa

__all__ = ["CompiledGrammar", "JsonOptions", "Matcher", "SchemaError", "compile_json_schema", "json_stages"]


def compile_json_schema(
    schema: dict | bool | str,
    tokenizer: Any,
    *,
    vocab_size: int | None = None,
    eos_token_ids: Iterable[int] | None = None,
    options: JsonOptions | None = None,
    machine: str = "auto",
) -> CompiledGrammar:
    """Compile a JSON Schema (a dict, a boolean or JSON text) for a tokenizer.

    ``tokenizer``: ours, a ``tokenizers.Tokenizer`` or a transformers fast tokenizer; ``vocab_size``: width of the
    logits, when it is more than the tokenizer's; ``eos_token_ids``: default those of the tokenizer. ``options``: how
    the text may be spelled; by default as ``json.dumps`` does with default or compact separators, properties in any
    order, as JSON Schema has it (requests to the engine want the schema's order unless they say otherwise: what is
    generated is then as its reader expects, and names are forced). ``machine``: ``native`` (compiled), ``reference``
    (Python) or ``auto``.
    Raises :class:`SchemaError` for a schema that cannot be honoured or that nothing satisfies, ValueError for a
    tokenizer that cannot be used. Keep the grammar for the next request with the same schema: its masks are cached.
    """
    vocab = vocab_of(tokenizer, vocab_size, eos_token_ids)
    _prepare(vocab.alphabet)
    stages = json_stages(schema, options or JsonOptions(any_order=True), vocab.alphabet)
    return CompiledGrammar(stages.network, vocab, notes=stages.notes, machine=machine)


@lru_cache(maxsize=4)
def _prepare(alphabet: frozenset[int]) -> None:
    """Build what nearly every schema needs, once in a process and outside every request's budget."""
    common = NumberSchema(), NumberSchema(integer=True), NumberSchema(Interval(low=0), integer=True)
    for schema, point_zero in product(common, (True, False)):
        if (dfa := number_dfa(schema, point_zero, alphabet)) is not None:
            assert dfa.triples


class JsonStages(NamedTuple):
    """What a JSON Schema becomes: normalised root, network, and (keyword, path, why) of what is not enforced."""

    root: Node
    network: Network
    notes: list[tuple[str, str, str]]


def json_stages(
    schema: dict | bool | str, options: JsonOptions | None = None, alphabet: frozenset[int] = frozenset(range(256))
) -> JsonStages:
    """Compile a JSON Schema for tokenizers whose single-byte tokens are ``alphabet``. Raises :class:`SchemaError`."""
    options = options or JsonOptions()
    with budget():
        normaliser = Normaliser(schema, options)
        while True:
            root = normaliser.run()
            try:
                network = build_json_network(root, normaliser, options, alphabet, not normaliser.is_old_draft)
                return JsonStages(root, network, normaliser.notes)
            except SchemaError as error:
                if not normaliser.leave_out(error):
                    raise
