"""Folding: the parts of a grammar that need no stack become finite automata, as large as is cheap.

What is left is a small grammar whose leaves are automata: fewer readings of a text to follow at once, and rules only
where there is recursion. (Regular parts are found bottom up, so nothing is spelled out before its size is known.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minillm_serve.guided.budget import Budget, budget, spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.expressions import (
    NONE,
    NOTHING,
    Call,
    Either,
    Expression,
    Leaf,
    Many,
    Series,
    nonempty,
)
from minillm_serve.guided.grammar.syntax import Grammar, Name, Rule, Tree, Word, names, refuse
from minillm_serve.guided.text.codepoints import Ranges, intersection
from minillm_serve.guided.text.regex import compile_tree
from minillm_serve.guided.text.regex_ast import EMPTY, Chars, Choice, Repeat, Sequence, choice, sequence

MAX_SIZE = 600  # characters and classes of a tree that becomes an automaton
MAX_DEPTH = 60
MAX_TREE_DEPTH = 150  # of one rule
MAX_WORDS = 200
MAX_STEPS = 150_000  # of work for one automaton; what takes more stays in pieces


@dataclass(eq=False)
class _Regular:
    """A part without recursion. size: its characters and classes when repetitions are spelled out.

    words: its texts, if they are few. expression: what it becomes, once that was asked for.
    """

    tree: Tree
    size: int
    depth: int
    words: tuple[str, ...] | None
    expression: Expression | None = None


class Folder:
    """Turns the rules of a grammar into expressions. ``allowed``: the characters that a text may have."""

    def __init__(self, grammar: Grammar, order: list[str], allowed: Ranges | None):
        self.grammar, self.allowed = grammar, allowed
        self.folded: dict[str, _Regular | Expression] = {}
        for name in _inside_out(grammar, order):
            self.folded[name] = self._fold(grammar.rules[name], grammar.rules[name].body)

    def rule(self, name: str) -> Expression:
        return self._expression(self.folded[name])

    # -- one tree ----------------------------------------------------------------------------------------------------

    def _fold(self, rule: Rule, tree: Tree, depth: int = 0) -> _Regular | Expression:
        spend(3, "grammar")
        if depth > MAX_TREE_DEPTH:
            raise refuse(rule.place, f"the rule {rule.name!r} is nested too deeply", "unsupported")
        depth += 1
        match tree:
            case Word(text):
                tree = self._restricted_word(text)
                return _Regular(tree, max(1, len(text)), 1, (text,) if isinstance(tree, Word) else ())
            case Chars(ranges):
                ranges = ranges if self.allowed is None else intersection(ranges, self.allowed)
                return _Regular(Chars(ranges), 1, 1, _characters(ranges))
            case Name(name, _):
                found = self.folded.get(name)
                return found if isinstance(found, _Regular) else Call(name)
            case Sequence(parts):
                return self._series([self._fold(rule, part, depth) for part in parts])
            case Choice(parts):
                return self._either([self._fold(rule, part, depth) for part in parts])
            case Repeat(body, low, high):
                return self._many(self._fold(rule, body, depth), low, high)
        raise TypeError(type(tree).__name__)

    def _restricted_word(self, text: str) -> Tree:
        """The word, or nothing if it has a character that is not allowed."""
        if self.allowed is None or all(any(a <= ord(char) <= b for a, b in self.allowed) for char in text):
            return Word(text)
        return Chars(())

    def _series(self, parts: list[_Regular | Expression]) -> _Regular | Expression:
        """Neighbours that are regular become one, as long as that is small."""
        merged: list[_Regular | Expression] = []
        run = _Run(_both, sequence)
        for part in parts:
            if isinstance(part, _Regular) and run.takes(part):
                continue
            merged += run.close()
            if not isinstance(part, _Regular) or not run.takes(part):
                merged.append(part)
        merged += run.close()
        if not merged:
            return _Regular(EMPTY, 0, 1, ("",))
        return merged[0] if len(merged) == 1 else Series(tuple(self._expression(part) for part in merged))

    def _either(self, parts: list[_Regular | Expression]) -> _Regular | Expression:
        """The regular alternatives become one, as long as that is small."""
        merged: list[_Regular | Expression] = []
        run = _Run(_one_of, choice)
        for part in parts:
            if not isinstance(part, _Regular):
                merged.append(part)
            elif not run.takes(part):
                merged += run.close()
                if not run.takes(part):
                    merged.append(part)
        merged += run.close()
        return merged[0] if len(merged) == 1 else Either(tuple(self._expression(part) for part in merged))

    def _many(self, body: _Regular | Expression, low: int, high: int | None) -> _Regular | Expression:
        times = max(low + (high is None), high or 0, 1)
        if high == 0:
            return _Regular(EMPTY, 0, 1, ("",))
        if isinstance(body, _Regular) and body.size * times <= MAX_SIZE and body.depth < MAX_DEPTH:
            words = None if body.words is None or (low, high) != (0, 1) else _one_of(("",), body.words)
            return _Regular(Repeat(body.tree, low, high), body.size * times, body.depth + 1, words)
        return Many(self._expression(body), low, high)

    # -- automata ----------------------------------------------------------------------------------------------------

    def _expression(self, part: _Regular | Expression) -> Expression:
        if not isinstance(part, _Regular):
            return part
        if part.expression is None:
            part.expression = self._leaf(part)
        return part.expression

    def _leaf(self, part: _Regular) -> Expression:
        if part.words is not None:
            leaf = Leaf(None, tuple(word for word in part.words if word))
            if len(leaf.words) == len(part.words):
                return leaf if leaf.words else NOTHING
            return Either((NONE, leaf)) if leaf.words else NONE
        try:
            with budget(Budget(MAX_STEPS, seconds=0.3)):
                dfa = compile_tree(_spelled(part.tree), keyword="grammar")
        except SchemaError:
            spend(MAX_STEPS, "grammar")
            return self._in_pieces(part.tree)
        spend(part.size + 4 * len(dfa.rows), "grammar")
        return nonempty(dfa)

    def _in_pieces(self, tree: Tree) -> Expression:
        """A tree whose automaton is too large, as its parts."""
        match tree:
            case Sequence(parts):
                return Series(tuple(self._leaf(_measured(part)) for part in parts))
            case Choice(parts):
                return Either(tuple(self._leaf(_measured(part)) for part in parts))
            case Repeat(body, low, high):
                return Many(self._leaf(_measured(body)), low, high)
        return nonempty(compile_tree(tree, keyword="grammar"))


class _Run:
    """Regular parts that are being collected into one."""

    def __init__(self, words: Callable[..., tuple[str, ...] | None], join: Callable[[list[Tree]], Tree]):
        self.join_words, self.join = words, join
        self.parts: list[_Regular] = []
        self.size = self.depth = 0
        self.words: tuple[str, ...] | None = None

    def takes(self, part: _Regular) -> bool:
        """Add ``part``, if the whole stays small (or a choice of words, which may be large)."""
        size, depth = self.size + part.size, max(self.depth, part.depth)
        wordy = self.join is choice and (not self.parts or self.words is not None) and part.words is not None
        if depth >= MAX_DEPTH or (size > MAX_SIZE and not wordy):
            return False
        self.parts.append(part)
        self.size, self.depth = size, depth
        self.words = () if wordy else None
        return True

    def close(self) -> list[_Regular | Expression]:
        """The one part (or none) that was collected; the next run begins."""
        parts, size, depth = self.parts, self.size, self.depth
        self.parts, self.size, self.depth, self.words = [], 0, 0, None
        if len(parts) < 2:
            return list(parts)
        words = self.join_words(*(part.words for part in parts))
        return [_Regular(self.join([part.tree for part in parts]), size, depth + 1, words)]


def _characters(ranges: Ranges) -> tuple[str, ...] | None:
    """The characters of a small set."""
    if sum(last - first + 1 for first, last in ranges) > 8:
        return None
    return tuple(chr(code) for first, last in ranges for code in range(first, last + 1) if not 0xD800 <= code < 0xE000)


def _both(*parts: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The words made of one of each part, in this order; None if that are many."""
    found: tuple[str, ...] = ("",)
    for part in parts:
        if part is None or len(found) * len(part) > MAX_WORDS:
            return None
        found = tuple(dict.fromkeys(start + end for start in found for end in part))
    return found


def _one_of(*parts: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The words of all parts; None if one of them has many."""
    if any(part is None for part in parts):
        return None
    return tuple(dict.fromkeys(word for part in parts for word in part))  # type: ignore[union-attr]


def _spelled(tree: Tree) -> Tree:
    """With words as characters in a row."""
    match tree:
        case Word(text):
            return sequence([Chars(((ord(char), ord(char)),)) for char in text])
        case Sequence(parts):
            return Sequence(tuple(_spelled(part) for part in parts))
        case Choice(parts):
            return Choice(tuple(_spelled(part) for part in parts))
        case Repeat(body, low, high):
            return Repeat(_spelled(body), low, high)
    return tree


def _measured(tree: Tree) -> _Regular:
    """A part of a folded tree; its size matters no more."""
    return _Regular(tree, 0, 0, (tree.text,) if isinstance(tree, Word) else None)


def _inside_out(grammar: Grammar, order: list[str]) -> list[str]:
    """Each rule behind those that it names; those with recursion in them last."""
    named = {name: {ref.name for ref in names(grammar.rules[name].body)} for name in order}
    users: dict[str, list[str]] = {name: [] for name in order}
    for name, refs in named.items():
        for ref in refs:
            users[ref].append(name)
    waiting = {name: len(refs) for name, refs in named.items()}
    done = [name for name, count in waiting.items() if count == 0]
    for name in done:  # the list grows on the way
        for user in users[name]:
            waiting[user] -= 1
            if waiting[user] == 0:
                done.append(user)
    return list(dict.fromkeys([*done, *order]))
