"""What constraints other than one JSON Schema are built of: literal text, patterns, grammars, JSON inside text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.ebnf import add_ebnf, characters
from minillm_serve.guided.grammar.expressions import NONE, NOTHING, Either, Embedded, Expression, Leaf, Series, nonempty
from minillm_serve.guided.grammar.json_network import Surrounded, add_json
from minillm_serve.guided.grammar.network import RETURN, Network
from minillm_serve.guided.grammar.rule_places import Step, height_of
from minillm_serve.guided.grammar.rules import IMPOSSIBLE, Rules
from minillm_serve.guided.options import JsonOptions
from minillm_serve.guided.schema.normalise import Normaliser
from minillm_serve.guided.text.chars_algebra import intersect
from minillm_serve.guided.text.regex import compile_pattern, compile_tree
from minillm_serve.guided.text.regex_ast import Chars, Repeat

MAX_DEPTH = 80  # frames: 64 for JSON, some for what is around it


class Parts:
    """Makes expressions over one network. notes: what in the schemas asserts nothing: (keyword, path, why)."""

    def __init__(self, network: Network, alphabet: frozenset[int], options: JsonOptions | None = None):
        self.network, self.alphabet, self.options = network, alphabet, options or JsonOptions()
        self.allowed = characters(alphabet)
        self.notes: list[tuple[str, str, str]] = []

    def text(self, *texts: str) -> Expression:
        """One of the texts; nothing if the tokenizer can write none of them."""
        words = tuple(text for text in dict.fromkeys(texts) if self.alphabet.issuperset(text.encode()))
        leaf = Leaf(None, tuple(word for word in words if word))
        if "" in words:
            return Either((NONE, leaf)) if leaf.words else NONE
        return leaf if words else NOTHING

    def regex(self, pattern: str, path: str = "") -> Expression:
        """Texts that match a pattern (ECMA 262) as a whole."""
        dfa = compile_pattern(pattern, keyword="regex", path=path, anchored=True)
        if self.allowed is not None:
            dfa = intersect(dfa, compile_tree(Repeat(Chars(self.allowed), 0, None)), keyword="regex", path=path)
        return nonempty(dfa)

    def grammar(self, text: str, path: str = "") -> Expression:
        """Texts of a grammar in GBNF or Lark's notation."""
        with placed(path):
            state = add_ebnf(self.network, text, None, self.alphabet)
        return self._embedded(state, height_of(self.network, state), "grammar")

    def json(self, schema: Any, path: str = "") -> Expression:
        """JSON texts that a schema accepts."""
        with placed(path):
            normaliser = Normaliser(schema, self.options)
            while True:
                root = normaliser.run()
                try:
                    point_zero = not normaliser.is_old_draft
                    state = add_json(self.network, root, normaliser, self.options, self.alphabet, point_zero)
                    break
                except SchemaError as error:
                    if not normaliser.leave_out(error):
                        raise
        self.notes += [(keyword, path + where, why) for keyword, where, why in normaliser.notes]
        place = self.network.places[state]
        around = isinstance(place, Surrounded)  # its value is called in a frame of its own
        value = self.network.places[place.value] if isinstance(place, Surrounded) else place
        return self._embedded(state, value.height + around, "JSON")  # type: ignore[union-attr]

    def _embedded(self, state: int, height: int, label: str) -> Expression:
        return Embedded(state, height, self.network.cost(state), label)

    def begin(self, expression: Expression, keyword: str) -> int:
        """The state in which the texts of ``expression`` begin. Raises :class:`SchemaError` if there are none."""
        rules = Rules({"": expression})
        if rules.heights[""] > self.network.max_depth:
            problem = "no text satisfies it" if rules.heights[""] >= IMPOSSIBLE else "every text is nested too deeply"
            raise SchemaError(keyword, "", problem, kind="unsatisfiable")
        return self.network.state(Step(rules, expression, 0, RETURN))


def series(parts: Iterable[Expression]) -> Expression:
    found = tuple(part for part in parts if part is not NONE)
    return found[0] if len(found) == 1 else Series(found) if found else NONE


@contextmanager
def placed(path: str) -> Iterator[None]:
    """Errors in the block say where they are inside ``path``."""
    try:
        yield
    except SchemaError as error:
        if not path:
            raise
        joint = "" if not error.path or error.path.startswith("/") else ", "
        raise SchemaError(error.keyword, f"{path}{joint}{error.path}", error.problem, kind=error.kind) from error
