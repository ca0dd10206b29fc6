"""Regular expressions as text -> syntax tree: ECMA 262 with the ``u`` flag, and the web's older syntax (annex B) too.

Two readings can be asked for, since the dialect in which a validator runs a pattern is not always ECMA's: characters
in every dialect, or (``over``) in some dialect; under a negation the other one is taken. What dialects read as
different constructs, or what no finite automaton can do, is refused.
"""

from __future__ import annotations

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.text import codepoints, unicode_sets
from minillm_serve.guided.text.codepoints import Ranges
from minillm_serve.guided.text.regex_ast import Assertion, Chars, Look, Repeat, Tree, choice, sequence

MAX_LENGTH = 20_000  # characters of a pattern
MAX_NESTING = 64  # groups inside groups
MAX_REPEAT = 1_000_000

_CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D}
_HEX = frozenset("0123456789abcdefABCDEF")


class _Group:
    """A group that is still open: the alternatives read so far, and what to do when it closes."""

    def __init__(self, kind: str, over: bool, position: int):
        self.kind = kind
        self.over = over
        self.position = position
        self.done: list[Tree] = []
        self.parts: list[Tree] = []

    def tree(self) -> Tree:
        body = choice([*self.done, sequence(self.parts)])
        if self.kind == "(":
            return body
        return Look(body, negative="!" in self.kind, behind="<" in self.kind)


class Parser:
    """One pattern being read. keyword and path: what to blame when it cannot be."""

    def __init__(self, pattern: str, over: bool, keyword: str, path: str):
        self.pattern = pattern
        self.over = over
        self.rejects = over
        self.keyword = keyword
        self.path = path
        self.position = 0

    def parse(self) -> Tree:
        """The tree of the whole pattern. Raises :class:`SchemaError` that names the construct and its position."""
        if len(self.pattern) > MAX_LENGTH:
            raise SchemaError(self.keyword, self.path, f"a pattern of more than {MAX_LENGTH} characters")
        spend(4 * len(self.pattern), self.keyword, self.path)
        stack = [_Group("(", self.over, 0)]
        while self.position < len(self.pattern):
            start, char = self.position, self.pattern[self.position]
            if char == "(":
                stack.append(self._open_group())
                if len(stack) > MAX_NESTING:
                    self._refuse(f"more than {MAX_NESTING} groups inside each other", start)
                self.over = stack[-1].over
            elif char == ")":
                self.position += 1
                if len(stack) == 1:
                    self._refuse("a ')' that closes no group", start)
                group = stack.pop()
                self.over = stack[-1].over
                stack[-1].parts.append(self._quantified(group.tree(), group.position, group.kind != "("))
            elif char == "|":
                self.position += 1
                stack[-1].done.append(sequence(stack[-1].parts))
                stack[-1].parts = []
            else:
                atom = self._atom(char)
                stack[-1].parts.append(self._quantified(atom, start, isinstance(atom, Assertion)))
        if len(stack) > 1:
            self._refuse("a group that is not closed", stack[-1].position)
        return stack[0].tree()

    def _refuse(self, problem: str, position: int | None = None) -> None:
        at = self.position if position is None else position
        shown = self.pattern if len(self.pattern) <= 80 else self.pattern[:77] + "..."
        raise SchemaError(self.keyword, self.path, f"{problem}, at character {at} of {shown!r}")

    def _peek(self, length: int = 1) -> str:
        return self.pattern[self.position : self.position + length]

    # -- groups and quantifiers ----------------------------------------------------------------------------------

    def _open_group(self) -> _Group:
        start = self.position
        self.position += 1
        if self._peek() != "?":
            return _Group("(", self.over, start)
        for sign, kind in (("?:", "("), ("?=", "?="), ("?!", "?!"), ("?<=", "?<="), ("?<!", "?<!")):
            if self.pattern.startswith(sign, self.position):
                self.position += len(sign)
                return _Group(kind, self.over != ("!" in kind), start)
        for sign in ("?<", "?P<"):
            if self.pattern.startswith(sign, self.position):
                end = self.pattern.find(">", self.position)
                if not self.pattern[self.position + len(sign) : max(end, 0)].isidentifier():
                    self._refuse("a group name that is not closed or is no identifier", start)
                self.position = end + 1
                return _Group("(", self.over, start)
        if self._peek(3) == "?P=":
            self._refuse("a backreference, which no finite automaton can follow", start)
        self._refuse(f"the group '({self._peek(2)}', an inline flag or an extension that is not supported", start)
        raise AssertionError

    def _quantified(self, tree: Tree, start: int, bare: bool) -> Tree:
        """``tree`` with the quantifier that stands here, if there is one. bare: it is an assertion without a group."""
        char = self._peek()
        if char == "" or char not in "*+?{":
            return tree
        limits = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(char)
        if limits is None:
            limits = self._braces()
            if limits is None:
                return tree  # a brace that is just a character
        else:
            self.position += 1
        if bare:
            self._refuse("a quantifier behind something that reads no character", start)
        if self._peek() == "?":
            self.position += 1
        if self._peek() and self._peek() in "*+?":
            self._refuse(f"a quantifier behind a quantifier ({self._peek()!r})")
        second = self.position
        if self._peek() == "{" and self._braces() is not None:
            self._refuse("a quantifier behind a quantifier", second)
        return tree if limits == (1, 1) else Repeat(tree, *limits)

    def _braces(self) -> tuple[int, int | None] | None:
        """Read ``{m}``, ``{m,}`` or ``{m,n}``; None, and nothing is read, where the brace opens none of them."""
        start = self.position
        end = self.pattern.find("}", start)
        low, comma, high = self.pattern[start + 1 : max(end, 0)].partition(",")
        if comma and not low and (high == "" or _is_number(high)):
            self._refuse("'{,n}', which is a quantifier in some dialects and plain text in others", start)
        if not _is_number(low) or not (high == "" or _is_number(high)):
            return None
        if len(low) > 7 or len(high) > 7 or int(low) > MAX_REPEAT or int(high or 0) > MAX_REPEAT:
            self._refuse(f"a quantifier above {MAX_REPEAT}", start)
        if high and int(high) < int(low):
            self._refuse("a quantifier whose second number is less than its first", start)
        self.position = end + 1
        return int(low), int(high) if high else None if comma else int(low)

    # -- single characters ---------------------------------------------------------------------------------------

    def _atom(self, char: str) -> Tree:
        start = self.position
        self.position += 1
        if char in "^$":
            return Assertion(char)
        if char == ".":
            return Chars(unicode_sets.DOT[self.over])
        if char == "[":
            return Chars(self._class(start))
        if char in "*+?":
            self._refuse(f"the quantifier {char!r} behind nothing", start)
        if char == "{":
            self.position = start
            if self._braces() is not None:
                self._refuse("a quantifier behind nothing", start)
            self.position = start + 1
        if char == "\\":
            if self._peek() and self._peek() in "bB":
                self.position += 1
                return Assertion(self.pattern[start + 1])
            return Chars(self._escape(start, self.over))
        return Chars(((ord(char), ord(char)),))

    def _class(self, start: int) -> Ranges:
        """``[...]``, from behind the bracket on."""
        negated = self._peek() == "^"
        over = self.over != negated
        self.position += negated
        if self._peek() == "]":
            self._refuse("a class that begins with ']', which dialects read differently", start)
        sets: list[Ranges] = []
        while True:
            if self.position >= len(self.pattern):
                self._refuse("a class that is not closed", start)
            if self._peek() == "]":
                self.position += 1
                break
            first = self._class_item(over)
            if self._peek() == "-" and self._peek(2) not in ("-]", "-"):
                self.position += 1
                last = self._class_item(over)
                sets.extend(self._range(first, last, start))
            else:
                sets.append(first)
        merged = codepoints.union(*sets)
        return codepoints.complement(merged) if negated else merged

    def _range(self, first: Ranges, last: Ranges, start: int) -> list[Ranges]:
        """``a-z``; where an end is a class such as ``\\w``, the hyphen is a character (annex B)."""
        if any(len(one) != 1 or one[0][0] != one[0][1] for one in (first, last)):
            return [first, ((0x2D, 0x2D),), last]
        if first[0][0] > last[0][0]:
            self._refuse("a range whose end comes before its start", start)
        return [((first[0][0], last[0][0]),)]

    def _class_item(self, over: bool) -> Ranges:
        char = self._peek()
        start = self.position
        self.position += 1
        if char == "\\":
            if self._peek() == "b":
                self.position += 1
                return ((0x08, 0x08),)
            return self._escape(start, over)
        return ((ord(char), ord(char)),)

    def _escape(self, start: int, over: bool) -> Ranges:
        """What stands behind a backslash, as a set of characters."""
        char = self._peek()
        self.position += 1
        if char == "":
            self._refuse("a backslash at the end", start)
        if char in "sS" and self.rejects:
            return unicode_sets.ECMA_SPACE if char == "s" else codepoints.complement(unicode_sets.ECMA_SPACE)
        if char in "dDwWsS":
            return unicode_sets.shorthand(char, over)
        if char in "pP":
            return self._property(start, char == "P", over)
        code = self._escaped_code(char, start)
        return ((code, code),)

    def _escaped_code(self, char: str, start: int) -> int:
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char == "0" and not self._peek().isdigit():
            return 0
        if char.isdigit() or char == "k":
            self._refuse(f"the backreference '\\{char}', which no finite automaton can follow", start)
        if char == "x":
            return self._hex(2, start)
        if char == "u":
            return self._unicode_escape(start)
        if char == "c" and self._peek().isascii() and self._peek().isalpha():
            self.position += 1
            return ord(self.pattern[self.position - 1]) % 32
        if char.isascii() and char.isalpha():
            self._refuse(f"the escape '\\{char}', which ECMA 262 does not know", start)
        return ord(char)

    def _hex(self, length: int, start: int) -> int:
        digits = self._peek(length)
        if len(digits) != length or not _HEX.issuperset(digits):
            self._refuse(f"an escape that wants {length} hexadecimal digits", start)
        self.position += length
        return int(digits, 16)

    def _unicode_escape(self, start: int) -> int:
        if self._peek() != "{":
            code = self._hex(4, start)
            if 0xD800 <= code < 0xDC00 and self._peek(2) == "\\u" and _is_low_surrogate(self._peek(6)[2:]):
                self.position += 2
                return 0x10000 + ((code - 0xD800) << 10) + (self._hex(4, start) - 0xDC00)
            return code
        end = self.pattern.find("}", self.position)
        digits = self.pattern[self.position + 1 : max(end, 0)]
        if not 1 <= len(digits) <= 8 or not _HEX.issuperset(digits) or int(digits, 16) > 0x10FFFF:
            self._refuse("an escape '\\u{...}' that is no code point", start)
        self.position = end + 1
        return int(digits, 16)

    def _property(self, start: int, negated: bool, over: bool) -> Ranges:
        end = self.pattern.find("}", self.position)
        if self._peek() != "{" or end < 0:
            self._refuse("an escape '\\p' without '{...}'", start)
        text = self.pattern[self.position + 1 : end]
        self.position = end + 1
        name, equals, value = text.partition("=")
        found = unicode_sets.unicode_property(name, value if equals else None, over != negated)
        if found is None:
            self._refuse(f"the property '\\p{{{text[:40]}}}', which is not supported", start)
            raise AssertionError
        return codepoints.complement(found) if negated else found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_low_surrogate(digits: str) -> bool:
    return len(digits) == 4 and _HEX.issuperset(digits) and 0xDC00 <= int(digits, 16) < 0xE000


def parse(pattern: str, *, over: bool = False, keyword: str = "pattern", path: str = "") -> Tree:
    """The syntax tree of ``pattern``. Raises :class:`SchemaError` if it is wrong or not supported.

    With ``over``, ``\\s`` and ``\\S`` are read as in ECMA 262: the six characters about which dialects disagree are no
    reason to make them overlap, as counted words then need far more states. The caller sets these characters aside.
    """
    return Parser(pattern, over, keyword, path).parse()
