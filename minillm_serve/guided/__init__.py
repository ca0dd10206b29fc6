"""Guided decoding: JSON Schema -> normalised schema -> grammar -> byte automaton -> token masks.

Read in this order: normalise.py (what the schema means), grammar.py (which texts those are), pushdown.py (where a text
stands in the grammar), masks.py (which tokens may come next), matcher.py (what the engine calls).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minillm_serve.guided.automaton.matcher import CompiledGrammar, Matcher
from minillm_serve.guided.automaton.vocab import vocab_of
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.old_grammar import Builder
from minillm_serve.guided.schema.normalise import Normaliser

__all__ = ["CompiledGrammar", "Matcher", "SchemaError", "compile_json_schema"]


def compile_json_schema(
    schema: dict | bool | str,
    tokenizer: Any,
    *,
    vocab_size: int | None = None,
    eos_token_ids: Iterable[int] | None = None,
) -> CompiledGrammar:
    """Compile a JSON Schema (a dict, a boolean or JSON text) for a tokenizer.

    ``tokenizer``: ours, a ``tokenizers.Tokenizer`` or a transformers fast tokenizer; ``vocab_size``: width of the
    logits, when it is more than the tokenizer's; ``eos_token_ids``: default those of the tokenizer. The texts are
    those of ``json.dumps`` with default or compact separators, properties in the schema's order, further ones last.
    Raises :class:`SchemaError` for a schema that cannot be honoured or that nothing satisfies, ValueError for a
    tokenizer that cannot be used. Keep the grammar for the next request with the same schema: its masks are cached.
    """
    normaliser = Normaliser(schema)
    root = normaliser.run()
    vocab = vocab_of(tokenizer, vocab_size, eos_token_ids)
    builder = Builder(vocab.alphabet, point_zero=not normaliser.is_old_draft)
    return CompiledGrammar(builder.build(root), builder.chars, vocab)
