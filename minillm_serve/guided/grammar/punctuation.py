"""The leaves between values: braces, commas, colons, and the whitespace that may stand around them."""

from __future__ import annotations

from minillm_serve.guided.grammar.network import Bytes, Leaf, Literals, Network
from minillm_serve.guided.options import JsonOptions
from minillm_serve.guided.text.dfa import Dfa

BLANK = b" \t\n\r"
COMMA, CLOSE = 0, 1  # the tags of what may come after a value
_AFTER = {"json": (b"", b" "), "compact": (b"",), "spaced": (b" ",)}


class Punctuation:
    """Leaf numbers of the punctuation of one network under one whitespace policy.

    Under the policy ``flexible``, whitespace belongs to the mark before it, except that the marks after a value (comma
    and closing bracket) also take what stands before them; so each text is read in one way only.
    """

    def __init__(self, network: Network, options: JsonOptions):
        self._network = network
        self.flexible = options.whitespace == "flexible"
        self._room = options.max_whitespace if self.flexible else 0
        self._after = _AFTER.get(options.whitespace, ())
        self._key = (options.whitespace, self._room)
        self.key_ends = () if self.flexible else tuple(b":" + space for space in self._after)
        self.comma_cost = self.colon_cost = 2 if options.whitespace == "spaced" else 1

    def open(self, mark: bytes) -> int:
        """``{`` or ``[``."""
        return self._leaf(mark, {mark: 0}, trailing=True)

    def close(self, mark: bytes) -> int:
        """``}`` or ``]`` where nothing stands between the brackets."""
        return self._leaf(mark, {mark: 0})

    def after_value(self, mark: bytes, comma: bool, close: bool) -> int:
        """A comma (tag COMMA), the closing ``mark`` (tag CLOSE), or either."""
        marks = ({b",": COMMA} if comma else {}) | ({mark: CLOSE} if close else {})
        return self._leaf(b"after" + b"".join(marks), marks, leading=True, trailing=comma)

    def colon(self) -> int:
        return self._leaf(b":", {b":": 0}, leading=True, trailing=True)

    def blank(self) -> int:
        """At least one character of whitespace."""
        key = ("blank", *self._key)
        found = self._network.has_leaf(key)
        if found is None:
            dfa = Dfa()
            state = dfa.start
            for _ in range(self._room):
                state = dfa.add_path(state, [BLANK])
                dfa.finals[state] = 0  # type: ignore[assignment]
            found = self._network.leaf(Bytes(dfa), key)
        return found

    def _leaf(self, name: bytes, marks: dict[bytes, int], leading: bool = False, trailing: bool = False) -> int:
        key = (name, leading, trailing, *self._key)
        found = self._network.has_leaf(key)
        if found is None:
            found = self._network.leaf(self._make(marks, leading, trailing), key)
        return found

    def _make(self, marks: dict[bytes, int], leading: bool, trailing: bool) -> Leaf:
        if self._room:
            return Bytes(self._blanks_around(marks, leading, trailing))
        texts = {
            mark + space: tag
            for mark, tag in marks.items()
            for space in (self._after if mark in b",:" and trailing and not self.flexible else (b"",))
        }
        return Literals(tuple(texts), tuple(texts.values()))

    def _blanks_around(self, marks: dict[bytes, int], leading: bool, trailing: bool) -> Dfa:
        dfa = Dfa()
        before = [dfa.start]
        for _ in range(self._room if leading else 0):
            before.append(dfa.add_path(before[-1], [BLANK]))
        for mark, tag in marks.items():
            end = dfa.new_state()
            for state in before:
                dfa.edges[state][mark[0]] = end
            dfa.finals[end] = tag  # type: ignore[assignment]
            for _ in range(self._room if trailing and mark not in b"}]" else 0):
                end = dfa.add_path(end, [BLANK])
                dfa.finals[end] = tag  # type: ignore[assignment]
        return dfa
