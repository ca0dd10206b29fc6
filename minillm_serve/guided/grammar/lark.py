"""Grammars in a subset of Lark's notation (https://lark-parser.readthedocs.io/en/stable/grammar.html).

``start: "say" WORD+``, ``WORD: /[a-z]+/``: strings (``"x"i`` in either case), ranges ``"a".."z"``, regular expressions,
groups, ``[optional]``, ``* + ?``, ``~ n`` and ``~ n..m``, ``%import common.NAME``, ``%ignore``, ``//`` comments. What
only shapes Lark's parse tree (``?rule``, ``!rule``, ``-> alias``) is read and means nothing.

There is no lexer that cuts a text into tokens first: a terminal matches wherever the rules allow it, keywords are not
set apart from names, and a terminal is not longer than its rule wants. Priorities, templates and the directives
``%extend``, ``%override`` and ``%declare`` are refused.
"""

from __future__ import annotations

import re
import string

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.lark_common import COMMON
from minillm_serve.guided.grammar.scanner import Scanner
from minillm_serve.guided.grammar.syntax import MAX_NESTING, MAX_RULES, Grammar, Name, Place, Rule, Tree, Word, refuse
from minillm_serve.guided.text.codepoints import of
from minillm_serve.guided.text.regex_ast import (
    EMPTY,
    Assertion,
    Chars,
    Choice,
    Look,
    Repeat,
    Sequence,
    choice,
    sequence,
)
from minillm_serve.guided.text.regex_parse import parse as parse_regex

START = "start"
_IGNORED = "%ignore"  # no name of a rule looks like this
_FIRST = string.ascii_letters + "_"
_REST = _FIRST + string.digits
_SPACE = re.compile(r"(?:\s+|(?://|#)[^\n]*)*")
_BLANKS = re.compile(r"(?:[^\S\n]+|(?://|#)[^\n]*)*")
_QUANTIFIERS = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def parse_lark(text: str) -> Grammar:
    """The rules of a grammar. Raises :class:`SchemaError` that says line, column and what is wrong."""
    return _Parser(text).grammar()


def _is_terminal(name: str) -> bool:
    """Terminals have names in capitals; those without a name are called what they are written as."""
    return name.lstrip("_")[:1].isupper() or name[0] in '"/'


class _Parser:
    def __init__(self, text: str):
        self.scan = Scanner(text)
        self.rules: dict[str, Rule] = {}
        self.ignored: list[Tree] = []
        self.in_terminal = False  # is the rule that is being read a terminal?

    def grammar(self) -> Grammar:
        self._space()
        while not self.scan.at_end:
            if self.scan.peek() == "%":
                self._directive()
            else:
                self._rule()
            if len(self.rules) > MAX_RULES:
                self.scan.fail(f"more than {MAX_RULES} rules")
            self._space()
        if START not in self.rules:
            raise refuse(self.scan.place(0), f"there is no rule {START!r}, with which a text begins")
        return self._with_ignored() if self.ignored else Grammar(self.rules, START)

    def _add(self, name: str, body: Tree, place: Place) -> None:
        if name in self.rules:
            raise refuse(place, f"the rule {name!r} is defined twice, first in {self.rules[name].place}")
        self.rules[name] = Rule(name, body, place)

    def _space(self, lines: bool = True) -> None:
        self.scan.skip(_SPACE if lines else _BLANKS)

    # -- definitions -------------------------------------------------------------------------------------------------

    def _rule(self) -> None:
        scan, place = self.scan, self.scan.place()
        scan.take("?")
        scan.take("!")
        name = scan.word(_FIRST, _REST)
        if not name:
            scan.fail(f"expected the name of a rule, found {scan.shown()}")
        if scan.peek() == "{":
            scan.fail("templates are not supported")
        if scan.peek() == ".":
            scan.fail("priorities are not supported: every reading of a text counts alike")
        self._space()
        scan.expect(":", f"after the rule's name {name!r}")
        self.in_terminal = _is_terminal(name)
        self._add(name, self._alternatives(0, True), place)
        self._space(lines=False)
        if not scan.at_end and scan.peek() != "\n":
            scan.fail(f"{scan.peek()!r} cannot stand here")

    def _directive(self) -> None:
        scan, place = self.scan, self.scan.place()
        scan.position += 1
        kind = scan.word(_FIRST, _REST)
        self._space(lines=False)
        if kind == "ignore":
            self.in_terminal = True
            self.ignored.append(self._alternatives(0, True))
        elif kind == "import":
            self._import(place)
        else:
            raise refuse(place, f"the directive '%{kind}' is not supported", "unsupported")

    def _import(self, place: Place) -> None:
        scan = self.scan
        scan.take(".")
        library = scan.word(_FIRST, _REST)
        scan.expect(".", f"the import of {library!r}")
        self._space(lines=False)
        if library != "common":
            raise refuse(place, f"only the library 'common' can be imported, not {library!r}", "unsupported")
        for name, alias in self._imported():
            if name not in COMMON:
                known = ", ".join(COMMON)
                raise refuse(place, f"the terminal {name!r} of 'common' is not known; there are {known}", "unsupported")
            self._add(alias, parse_regex(COMMON[name], keyword="grammar"), place)

    def _imported(self) -> list[tuple[str, str]]:
        """(name, name here) of what an import brings in."""
        scan, found = self.scan, []
        several = scan.take("(") or (scan.peek() == "." and scan.take(".") and scan.take("("))
        while True:
            self._space(lines=False)
            name = alias = scan.word(_FIRST, _REST)
            self._space(lines=False)
            if scan.take("->"):
                self._space(lines=False)
                alias = scan.word(_FIRST, _REST)
            if not alias:
                scan.fail(f"expected the name of a terminal, found {scan.shown()}")
            found.append((name, alias))
            self._space(lines=False)
            if not several:
                return found
            if scan.take(")"):
                return found
            scan.expect(",", "the names of an import")

    def _with_ignored(self) -> Grammar:
        """Ignored text may stand before each terminal that a rule names, and at the end."""
        place = self.rules[START].place
        skipped = Name(_IGNORED, place)
        rules = {
            name: rule if _is_terminal(name) else Rule(name, _skipping(rule.body, skipped), rule.place)
            for name, rule in self.rules.items()
        }
        rules[_IGNORED] = Rule(_IGNORED, Repeat(choice(self.ignored), 0, None), place)
        end = "%start"
        rules[end] = Rule(end, Sequence((Name(START, place), skipped)), place)
        return Grammar(rules, end)

    # -- bodies ------------------------------------------------------------------------------------------------------

    def _alternatives(self, depth: int, top: bool = False) -> Tree:
        scan = self.scan
        if depth > MAX_NESTING:
            scan.fail(f"more than {MAX_NESTING} groups inside each other")
        found = []
        while True:
            found.append(self._sequence(depth))
            self._alias()
            here = scan.position
            self._space()
            if not scan.take("|"):
                if top:
                    scan.position = here
                return choice(found)

    def _alias(self) -> None:
        self._space(lines=False)
        if self.scan.take("->"):
            self._space(lines=False)
            if not self.scan.word(_FIRST, _REST):
                self.scan.fail(f"expected a name behind '->', found {self.scan.shown()}")

    def _sequence(self, depth: int) -> Tree:
        parts: list[Tree] = []
        while True:
            self._space(lines=depth > 0)
            start = self.scan.position
            part = self._atom(depth)
            if part is None:
                return sequence(parts)
            parts.append(self._quantified(part, start))

    def _atom(self, depth: int) -> Tree | None:
        scan, start, place = self.scan, self.scan.position, self.scan.place()
        char = scan.peek()
        if char and char in '"/':
            return self._terminal(self._string(start) if char == '"' else self._regex(start), start)
        if char in ("(", "["):
            scan.position += 1
            body = self._alternatives(depth + 1)
            self._space()
            scan.expect(")" if char == "(" else "]", f"the group of {place} is not closed")
            return body if char == "(" else Choice((body, EMPTY))
        if char and char in _FIRST:
            name = scan.word(_FIRST, _REST)
            if scan.peek() == "{":
                scan.fail("templates are not supported", start)
            if self.in_terminal and not _is_terminal(name):
                raise refuse(place, f"a terminal cannot be made of the rule {name!r}")
            return Name(name, place)
        if char in ("", "\n", "|") or scan.peek(2) == "->" or (char in ")]" and depth):
            return None
        scan.fail(f"{char!r} cannot stand here")

    def _quantified(self, tree: Tree, start: int) -> Tree:
        scan = self.scan
        here = scan.position
        self._space(lines=False)
        if scan.take("~"):
            self._space(lines=False)
            low = high = scan.number()
            if scan.take(".."):
                high = scan.number()
                if high is None:
                    scan.fail("a count is expected behind '..'")
            return Repeat(tree, *scan.bounds(low, high, start))
        if scan.peek() and scan.peek() in "*+?":
            limits = _QUANTIFIERS[scan.peek()]
            scan.position += 1
            return Repeat(tree, *limits)
        scan.position = here
        return tree

    def _terminal(self, tree: Tree, start: int) -> Tree:
        """A string or regular expression; inside a rule it is a terminal of its own, though without a name."""
        if self.in_terminal:
            return tree
        name, place = self.scan.text[start : self.scan.position], self.scan.place(start)
        self.rules.setdefault(name, Rule(name, tree, place))
        return Name(name, place)

    def _string(self, start: int) -> Tree:
        text = self._quoted()
        if self.scan.peek(2) == ".." and self.scan.peek(3)[2:] == '"':
            self.scan.position += 2
            last = self._quoted()
            if len(text) != 1 or len(last) != 1 or last < text:
                self.scan.fail("a range goes from one character to a later one", start)
            return Chars(((ord(text), ord(last)),))
        if self.scan.peek() == "i" and self.scan.peek(2)[1:] not in tuple(_REST):
            self.scan.position += 1
            return sequence([_either_case(char) for char in text])
        return Word(text)

    def _quoted(self) -> str:
        self.scan.expect('"', "a string")
        return self.scan.quoted('"', "a string")

    def _regex(self, start: int) -> Tree:
        scan = self.scan
        scan.position += 1
        while scan.peek() != "/":
            if scan.at_end or scan.peek() == "\n":
                scan.fail("a regular expression is not closed: expected '/'", start)
            scan.position += 2 if scan.peek() == "\\" else 1
        pattern = scan.text[start + 1 : scan.position].replace("\\/", "/")
        scan.position += 1
        flags = scan.word("imslux", "imslux")
        if flags.strip("u"):
            scan.fail(f"the flags {flags!r} of a regular expression are not supported", start)
        try:
            tree = parse_regex(pattern, keyword="grammar")
        except SchemaError as error:
            raise refuse(scan.place(start), error.problem, error.kind) from error
        if any(isinstance(part, Assertion | Look) for part in _parts(tree)):
            scan.fail("an assertion in a terminal's regular expression looks beyond the terminal", start)
        return tree


def _either_case(char: str) -> Tree:
    cases = {char, *(case for case in (char.lower(), char.upper()) if len(case) == 1)}
    return Chars(of("".join(cases)))


def _parts(tree: Tree) -> list[Tree]:
    """The tree and all that is in it."""
    found = [tree]
    for part in found:  # the list grows on the way
        if isinstance(part, Sequence | Choice):
            found.extend(part.parts)
        elif isinstance(part, Repeat):
            found.append(part.body)
    return found


def _skipping(tree: Tree, skipped: Name) -> Tree:
    """With ``skipped`` before each terminal."""
    spend(2, "grammar")
    match tree:
        case Name(name, _):
            return Sequence((skipped, tree)) if _is_terminal(name) else tree
        case Sequence(parts):
            return Sequence(tuple(_skipping(part, skipped) for part in parts))
        case Choice(parts):
            return Choice(tuple(_skipping(part, skipped) for part in parts))
        case Repeat(body, low, high):
            return Repeat(_skipping(body, skipped), low, high)
    return tree
