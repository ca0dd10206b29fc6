"""Grammars in llama.cpp's notation (GBNF), which other engines call EBNF.

``root ::= "yes" | [0-9]{1,3} item*``: literals in double quotes, character classes, ``.`` for any character, groups,
``* + ?`` and ``{m}``, ``{m,}``, ``{m,n}``, ``#`` comments. The text is one of the rule ``root``. A rule may go on over
several lines; the next one begins with its name and ``::=``.
"""

from __future__ import annotations

import re
import string

from minillm_serve.guided.grammar.scanner import Scanner
from minillm_serve.guided.grammar.syntax import MAX_NESTING, MAX_RULES, Grammar, Name, Rule, Tree, Word, refuse
from minillm_serve.guided.text.codepoints import EVERYTHING, complement, ranges
from minillm_serve.guided.text.regex_ast import Chars, Repeat, choice, sequence

START = "root"
_FIRST = string.ascii_letters + "_"
_REST = _FIRST + string.digits + "-"
_SPACE = re.compile(r"(?:\s+|#[^\n]*)*")
_QUANTIFIERS = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def parse_gbnf(text: str) -> Grammar:
    """The rules of a grammar. Raises :class:`SchemaError` that says line, column and what is wrong."""
    return _Parser(text).grammar()


class _Parser:
    def __init__(self, text: str):
        self.scan = Scanner(text)

    def grammar(self) -> Grammar:
        rules: dict[str, Rule] = {}
        self._space()
        while not self.scan.at_end:
            start = self.scan.place()
            name = self.scan.word(_FIRST, _REST)
            if not name:
                self.scan.fail(f"expected the name of a rule, found {self.scan.shown()}")
            if name in rules:
                raise refuse(start, f"the rule {name!r} is defined twice, first in {rules[name].place}")
            self._space()
            self.scan.expect("::=", f"after the rule's name {name!r}")
            rules[name] = Rule(name, self._alternatives(0), start)
            if len(rules) > MAX_RULES:
                raise refuse(start, f"more than {MAX_RULES} rules", "unsupported")
        if START not in rules:
            raise refuse(self.scan.place(0), f"there is no rule {START!r}, with which a text begins")
        return Grammar(rules, START)

    def _space(self) -> None:
        self.scan.skip(_SPACE)

    def _alternatives(self, depth: int) -> Tree:
        if depth > MAX_NESTING:
            self.scan.fail(f"more than {MAX_NESTING} groups inside each other")
        found = [self._sequence(depth)]
        while self.scan.take("|"):
            found.append(self._sequence(depth))
        return choice(found)

    def _sequence(self, depth: int) -> Tree:
        parts: list[Tree] = []
        while True:
            self._space()
            start = self.scan.position
            part = self._atom(depth)
            if part is None:
                return sequence(parts)
            self._space()
            parts.append(self._quantified(part, start))

    def _atom(self, depth: int) -> Tree | None:
        """What a quantifier may stand behind; None at the end of a sequence."""
        scan, start = self.scan, self.scan.position
        char = scan.peek()
        if char in ('"', "'") and char:
            scan.position += 1
            return Word(self.scan.quoted(char, "a literal"))
        if char == "[":
            scan.position += 1
            return self._class(start)
        if char == ".":
            scan.position += 1
            return Chars(EVERYTHING)
        if char == "(":
            scan.position += 1
            if scan.peek() == "?":
                scan.fail("a lookahead or another group with '(?' is not supported", start)
            body = self._alternatives(depth + 1)
            scan.expect(")", f"the group of {scan.place(start)} is not closed")
            return body
        if char and char in _FIRST:
            return self._name()
        if char in ("", "|") or (char == ")" and depth):
            return None
        scan.fail(f"{char!r} cannot stand here")

    def _name(self) -> Tree | None:
        """A rule's name; None if it is the beginning of the next rule, which is not read then."""
        start, place = self.scan.position, self.scan.place()
        name = self.scan.word(_FIRST, _REST)
        end = self.scan.position
        self._space()
        if self.scan.peek(3) == "::=":
            self.scan.position = start
            return None
        self.scan.position = end
        return Name(name, place)

    def _class(self, start: int) -> Tree:
        scan, pairs = self.scan, []
        negated = scan.take("^")
        while not scan.take("]"):
            first = scan.character("]", "a character class")
            last = first
            if scan.peek() == "-" and scan.peek(2) != "-]":
                scan.position += 1
                last = scan.character("]", "a character class")
            if last < first:
                scan.fail("a range whose end comes before its start", start)
            pairs.append((first, last))
        found = ranges(pairs)
        return Chars(complement(found) if negated else found)

    def _quantified(self, tree: Tree, start: int) -> Tree:
        scan, first = self.scan, tree
        while scan.peek() and scan.peek() in "*+?{":
            if tree is not first:
                scan.fail("a quantifier behind a quantifier: put the first one in a group")
            if scan.take("{"):
                self._space()
                low = scan.number()
                self._space()
                if scan.take(","):
                    self._space()
                    high = scan.number()
                    self._space()
                else:
                    high = low
                scan.expect("}", "the counts of a repetition")
                limits = scan.bounds(low, high, start)
            else:
                limits = _QUANTIFIERS[scan.peek()]
                scan.position += 1
            tree = tree if limits == (1, 1) else Repeat(tree, *limits)  # type: ignore[arg-type]
            self._space()
        return tree
