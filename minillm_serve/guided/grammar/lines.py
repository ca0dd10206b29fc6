"""Constraints on a whole text: it matches a regular expression, is one of several choices, or is any JSON object."""

from __future__ import annotations

from collections.abc import Sequence

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.ebnf import ALL_BYTES
from minillm_serve.guided.grammar.network import Network
from minillm_serve.guided.grammar.parts import Parts

MAX_CHOICES = 100_000
MAX_CHOICE_BYTES = 4 << 20  # of all of them together


def build_regex_network(pattern: str, alphabet: frozenset[int] = ALL_BYTES) -> Network:
    """Texts that match ``pattern`` (ECMA 262) from beginning to end. Raises :class:`SchemaError` (keyword regex)."""
    if not isinstance(pattern, str):
        raise SchemaError("regex", "", f"expected a pattern, got {type(pattern).__name__}", kind="malformed")
    parts = Parts(Network(), alphabet)
    parts.network.start = parts.begin(parts.regex(pattern), "regex")
    return parts.network


def build_choice_network(choices: Sequence[str], alphabet: frozenset[int] = ALL_BYTES) -> Network:
    """One of ``choices``, as it stands. Raises :class:`SchemaError` (keyword choice)."""
    if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
        raise SchemaError("choice", "", "expected a list of one or more strings", kind="malformed")
    if len(choices) > MAX_CHOICES:
        raise SchemaError("choice", "", f"{len(choices)} choices are more than {MAX_CHOICES}")
    size = 0
    for number, text in enumerate(choices):
        if not isinstance(text, str):
            raise SchemaError("choice", f"/{number}", f"expected a string, got {type(text).__name__}", kind="malformed")
        try:
            size += len(text.encode())
        except UnicodeEncodeError as error:
            problem = f"the character {error.object[error.start]!a} stands for no text"
            raise SchemaError("choice", f"/{number}", problem, kind="malformed") from error
        if size > MAX_CHOICE_BYTES:
            raise SchemaError("choice", "", f"the choices hold more than {MAX_CHOICE_BYTES} bytes")
    spend(4 * len(choices) + size // 8, "choice")
    parts = Parts(Network(), alphabet)
    parts.network.start = parts.begin(parts.text(*choices), "choice")
    return parts.network
