"""Context-free grammars as constraints: text in one of two notations -> rules -> transition network.

gbnf.py and lark.py read the notations (scanner.py, syntax.py), regular.py folds what needs no stack into automata,
rules.py checks what is left, rule_places.py makes the network of it.
"""

from __future__ import annotations

import re

from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.expressions import Call
from minillm_serve.guided.grammar.gbnf import parse_gbnf
from minillm_serve.guided.grammar.lark import parse_lark
from minillm_serve.guided.grammar.network import RETURN, Network
from minillm_serve.guided.grammar.regular import Folder
from minillm_serve.guided.grammar.rule_places import Step
from minillm_serve.guided.grammar.rules import checked
from minillm_serve.guided.grammar.syntax import Grammar, reached
from minillm_serve.guided.text.chars import MAX_CODE_POINT
from minillm_serve.guided.text.codepoints import Ranges, ranges

DIALECTS = {"gbnf": parse_gbnf, "lark": parse_lark}
MAX_DEPTH = 200  # calls of rules inside each other in a text
ALL_BYTES = frozenset(range(256))
_UTF8 = frozenset(range(0xF5)) - {0xC0, 0xC1}


def build_ebnf_network(text: str, dialect: str | None = None, alphabet: frozenset[int] = ALL_BYTES) -> Network:
    """The texts of a grammar, as they stand in the output.

    dialect: ``gbnf`` or ``lark``; None: GBNF if ``::=`` occurs in the text. alphabet: the bytes that are tokens of
    their own. Raises :class:`SchemaError` (keyword ``grammar``, path ``line L, column C``).
    """
    network = Network(MAX_DEPTH)
    network.start = add_ebnf(network, text, dialect, alphabet)
    return network


def add_ebnf(network: Network, text: str, dialect: str | None = None, alphabet: frozenset[int] = ALL_BYTES) -> int:
    """Add a grammar to a network; the state in which its texts begin."""
    if not isinstance(text, str):
        raise SchemaError("grammar", "", f"expected text, got {type(text).__name__}", kind="malformed")
    if dialect is None:
        dialect = "gbnf" if "::=" in _without_strings(text) else "lark"
    if dialect not in DIALECTS:
        raise SchemaError("grammar", "", f"the dialect is one of {', '.join(DIALECTS)}, not {dialect!r}")
    return add_rules(network, DIALECTS[dialect](text), alphabet)


def add_rules(network: Network, grammar: Grammar, alphabet: frozenset[int]) -> int:
    """Add checked rules to a network; the state in which the texts of the first one begin."""
    order = reached(grammar)
    folder = Folder(grammar, order, characters(alphabet))
    bodies = _needed(grammar.start, folder)
    rules = checked(grammar, bodies)
    if rules.heights[grammar.start] > network.max_depth:
        problem = f"no text has at most {network.max_depth} calls of rules inside each other"
        raise SchemaError("grammar", str(grammar.rules[grammar.start].place), problem, kind="unsatisfiable")
    return network.state(Step(rules, bodies[grammar.start], 0, RETURN))


def _needed(start: str, folder: Folder) -> dict:
    """The expressions of the rules that are still called once everything regular was folded."""
    bodies = {start: folder.rule(start)}
    stack = [bodies[start]]
    while stack:
        expression = stack.pop()
        stack += getattr(expression, "parts", ())
        if hasattr(expression, "body"):
            stack.append(expression.body)
        if isinstance(expression, Call) and expression.rule not in bodies:
            bodies[expression.rule] = folder.rule(expression.rule)
            stack.append(bodies[expression.rule])
    return bodies


def characters(alphabet: frozenset[int]) -> Ranges | None:
    """The characters that can be written with the bytes of ``alphabet`` alone; None: all."""
    if alphabet >= _UTF8:
        return None
    found = [(code, code) for code in range(0x80) if code in alphabet]
    return ranges([*found, (0x80, MAX_CODE_POINT)] if alphabet >= _UTF8 - set(range(0x80)) else found)


def _without_strings(text: str) -> str:
    return re.sub(r'"(?:[^"\\\n]|\\.)*"|#[^\n]*|//[^\n]*', " ", text)
