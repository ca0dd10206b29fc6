"""Regular expressions -> automata over code points. The one door to the files regex_*.py.

pattern --(regex_parse)--> syntax tree --(regex_nfa)--> positions --(regex_dfa)--> CharDfa. The dialect is ECMA 262's;
where others differ (``\\d``, ``\\w``, ``\\s``, ``.``, ``$``), the side says which way to err.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_algebra import complement, intersect
from minillm_serve.guided.text.chars_reduce import reduced
from minillm_serve.guided.text.codepoints import partition
from minillm_serve.guided.text.dfa_cache import DfaCache
from minillm_serve.guided.text.regex_ast import Assertion, Choice, Look, Repeat, Sequence, Tree
from minillm_serve.guided.text.regex_dfa import NONWORD, UNSURE, WORD, Context, Determiniser
from minillm_serve.guided.text.regex_loop import loop_of
from minillm_serve.guided.text.regex_nfa import Nfa
from minillm_serve.guided.text.regex_parse import parse
from minillm_serve.guided.text.unicode_sets import DISPUTED_SPACE

SIDES = ("accept", "reject")
_EVERYWHERE = (Context(), Context(False, NONWORD), Context(False, WORD), Context(False, UNSURE))
_cache = DfaCache()


def compile_pattern(
    pattern: str, *, keyword: str = "pattern", path: str = "", anchored: bool = False, side: str = "accept"
) -> CharDfa:
    """The strings in which ``pattern`` is found (``anchored``: that it matches as a whole).

    side: ``accept``, only strings that match in ECMA 262 and in Python's ``re``, whichever a validator uses;
    ``reject``, only strings that match in neither: what ``not`` asks for. Most patterns mean the same in both.
    Lookahead and lookbehind are exact (plain text inside a lookbehind, and none inside a lookahead); lazy quantifiers
    are just quantifiers. Raises :class:`SchemaError` for what is
    wrong, what is not regular (backreferences), what dialects disagree about altogether, and what is too large.
    """
    if side not in SIDES:
        raise ValueError(f"side is one of {', '.join(SIDES)}, not {side!r}")
    key = (pattern, anchored, side)
    known = _cache.get(key)
    if known is None:
        over = side == "reject"
        tree = parse(pattern, over=over, keyword=keyword, path=path)
        if anchored:
            tree = Sequence((Assertion("^"), tree, Assertion("z")))
        loop = None if over else loop_of(tree)
        known = loop.counted(keyword, path) if loop else _automaton(tree, over, keyword, path)
        if over:
            known = complement(known, keyword=keyword, path=path)
            if "\\s" in pattern.lower():
                known = intersect(known, _undisputed(), keyword=keyword, path=path)
        _cache.put(key, known)
    return known


@lru_cache(maxsize=1)
def _undisputed() -> CharDfa:
    """The texts without the characters that are a space in some dialects only."""
    bounds, classes, members = partition([DISPUTED_SPACE])
    return reduced(bounds, classes, [[-1 if disputed else 0 for disputed in members]], [0])


def _automaton(tree: Tree, over: bool, keyword: str, path: str) -> CharDfa:
    return _determiniser(tree, over, keyword, path).run(Context())


def _determiniser(tree: Tree, over: bool, keyword: str, path: str) -> Determiniser:
    nfa = Nfa(tree, over, keyword, path)
    ahead: dict[int, dict[Context, CharDfa]] = {}
    behind: dict[int, CharDfa] = {}
    for number, look in enumerate(nfa.looks):
        if look.behind:
            behind[number] = _behind(look, keyword, path)
            continue
        if any(part.kind == "behind" for part in _assertions(look.body)):
            raise SchemaError(keyword, path, "a lookbehind inside a lookahead")
        inner = _determiniser(look.body, over != look.negative, keyword, path)
        places = _EVERYWHERE if any(part.kind in "^bB" for part in _assertions(look.body)) else (Context(),)
        ahead[number] = {place: inner.run(place, search=False) for place in places}
        if look.negative:
            ahead[number] = {place: complement(dfa, keyword=keyword, path=path) for place, dfa in ahead[number].items()}
    return Determiniser(nfa, ahead, behind)


def _behind(look: Look, keyword: str, path: str) -> CharDfa:
    """The texts that end with a match of a lookbehind's body."""
    if any(True for _ in _assertions(look.body)):
        raise SchemaError(keyword, path, "an assertion inside a lookbehind")
    return _automaton(Sequence((look.body, Assertion("z"))), False, keyword, path)


def _assertions(tree: Tree) -> Iterator[Assertion]:
    """All that reads no character in a tree; look-around counts as ``ahead`` or ``behind``, and as what is in it."""
    match tree:
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from _assertions(part)
        case Repeat(body, _, _):
            yield from _assertions(body)
        case Look(body, _, behind):
            yield Assertion("behind" if behind else "ahead")
            yield from _assertions(body)
        case Assertion():
            yield tree


def compile_tree(tree: Tree, *, keyword: str = "pattern", path: str = "") -> CharDfa:
    """The strings that match a syntax tree without look-around as a whole. Raises :class:`SchemaError` if too large."""
    return _automaton(Sequence((Assertion("^"), tree, Assertion("z"))), False, keyword, path)
