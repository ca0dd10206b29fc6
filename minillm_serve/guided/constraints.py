"""One door for every kind of constraint: what a request asks for -> a compiled grammar."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minillm_serve.guided import compile_json_schema
from minillm_serve.guided.automaton.matcher import CompiledGrammar
from minillm_serve.guided.automaton.vocab import vocab_of
from minillm_serve.guided.budget import budget
from minillm_serve.guided.grammar.ebnf import build_ebnf_network
from minillm_serve.guided.grammar.lines import build_choice_network, build_regex_network
from minillm_serve.guided.grammar.network import Network
from minillm_serve.guided.grammar.tags import Notes, build_tag_network
from minillm_serve.guided.options import JsonOptions
from minillm_serve.params import StructuredOutputsParams

ANY_OBJECT = {"type": "object"}


def compile_constraint(
    params: StructuredOutputsParams,
    tokenizer: Any,
    *,
    vocab_size: int | None = None,
    eos_token_ids: Iterable[int] | None = None,
    machine: str = "auto",
) -> CompiledGrammar:
    """Compile the one constraint that ``params`` names: json, regex, choice, grammar, json_object or structural_tag.

    The other arguments are those of :func:`~minillm_serve.guided.compile_json_schema`. Raises
    :class:`~minillm_serve.guided.errors.SchemaError` for what cannot be honoured or takes too much work (about a
    second); its ``param`` is the request's field.
    """
    options = JsonOptions(params.whitespace, params.max_whitespace, params.any_order, params.lenient)
    vocab_arguments = {"vocab_size": vocab_size, "eos_token_ids": eos_token_ids}
    if params.kind in ("json", "json_object"):
        schema = params.json if params.kind == "json" else ANY_OBJECT
        return compile_json_schema(schema, tokenizer, **vocab_arguments, options=options, machine=machine)  # type: ignore[arg-type]
    vocab = vocab_of(tokenizer, vocab_size, eos_token_ids)
    with budget():
        network, notes = _network(params, vocab.alphabet, options)
    return CompiledGrammar(network, vocab, notes=notes, machine=machine)


def _network(params: StructuredOutputsParams, alphabet: frozenset[int], options: JsonOptions) -> tuple[Network, Notes]:
    match params.kind:
        case "regex":
            return build_regex_network(params.regex, alphabet), []  # type: ignore[arg-type]
        case "choice":
            return build_choice_network(params.choice, alphabet), []  # type: ignore[arg-type]
        case "grammar":
            return build_ebnf_network(params.grammar, None, alphabet), []  # type: ignore[arg-type]
        case "structural_tag":
            return build_tag_network(params.structural_tag, alphabet, options)  # type: ignore[arg-type]
    raise ValueError(f"unknown kind of constraint: {params.kind!r}")
