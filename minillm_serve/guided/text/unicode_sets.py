"""What ``\\d``, ``\\w``, ``\\s``, ``.`` and ``\\p{...}`` stand for, where the dialects of regular expressions differ.

A pattern of a JSON Schema is an ECMA 262 regular expression, and most validators run it in their own language's
dialect. So each class has two readings: the characters that ECMA 262 and Python's ``re`` both take, and (``over``)
those that at least one of them takes.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import numpy as np

from minillm_serve.guided.text.chars import MAX_CODE_POINT
from minillm_serve.guided.text.codepoints import EVERYTHING, Ranges, complement, intersection, of, ranges, union

DIGITS = of("0123456789")
WORD = ranges(((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)))
ECMA_SPACE = union(of("\t\n\v\f\r \xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff"), ((0x2000, 0x200A),))
PYTHON_SPACE = union(of("\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"), ((0x2000, 0x200A),))
SPACE = {False: intersection(ECMA_SPACE, PYTHON_SPACE), True: union(ECMA_SPACE, PYTHON_SPACE)}
DISPUTED_SPACE = intersection(SPACE[True], complement(SPACE[False]))
DOT = {False: complement(of("\n\r\u2028\u2029")), True: complement(of("\n"))}

# Under-approximations of Script=...: the letters whose names begin so. Which other characters a script has is not in
# Python's character database, so these classes cannot be negated.
_SCRIPTS = {
    "Latin": ("LATIN SMALL LETTER ", "LATIN CAPITAL LETTER "),
    "Greek": ("GREEK SMALL LETTER ", "GREEK CAPITAL LETTER "),
    "Cyrillic": ("CYRILLIC SMALL LETTER ", "CYRILLIC CAPITAL LETTER "),
    "Han": ("CJK UNIFIED IDEOGRAPH-", "CJK COMPATIBILITY IDEOGRAPH-"),
    "Hiragana": ("HIRAGANA LETTER ",),
    "Katakana": ("KATAKANA LETTER ",),
    "Hangul": ("HANGUL SYLLABLE ",),
    "Arabic": ("ARABIC LETTER ",),
    "Hebrew": ("HEBREW LETTER ",),
    "Thai": ("THAI CHARACTER ",),
    "Devanagari": ("DEVANAGARI LETTER ",),
    "Armenian": ("ARMENIAN SMALL LETTER ", "ARMENIAN CAPITAL LETTER "),
    "Georgian": ("GEORGIAN LETTER ",),
    "Bengali": ("BENGALI LETTER ",),
    "Tamil": ("TAMIL LETTER ",),
}
_SHORT_SCRIPTS = {
    "Latn": "Latin",
    "Grek": "Greek",
    "Cyrl": "Cyrillic",
    "Hani": "Han",
    "Hira": "Hiragana",
    "Kana": "Katakana",
    "Hang": "Hangul",
    "Arab": "Arabic",
    "Hebr": "Hebrew",
    "Deva": "Devanagari",
    "Armn": "Armenian",
    "Geor": "Georgian",
    "Beng": "Bengali",
    "Taml": "Tamil",
}
_LONG_CATEGORIES = {
    "Letter": "L",
    "Cased_Letter": "LC",
    "Uppercase_Letter": "Lu",
    "Lowercase_Letter": "Ll",
    "Titlecase_Letter": "Lt",
    "Modifier_Letter": "Lm",
    "Other_Letter": "Lo",
    "Mark": "M",
    "Combining_Mark": "M",
    "Nonspacing_Mark": "Mn",
    "Spacing_Mark": "Mc",
    "Enclosing_Mark": "Me",
    "Number": "N",
    "Decimal_Number": "Nd",
    "digit": "Nd",
    "Letter_Number": "Nl",
    "Other_Number": "No",
    "Punctuation": "P",
    "punct": "P",
    "Connector_Punctuation": "Pc",
    "Dash_Punctuation": "Pd",
    "Open_Punctuation": "Ps",
    "Close_Punctuation": "Pe",
    "Initial_Punctuation": "Pi",
    "Final_Punctuation": "Pf",
    "Other_Punctuation": "Po",
    "Symbol": "S",
    "Math_Symbol": "Sm",
    "Currency_Symbol": "Sc",
    "Modifier_Symbol": "Sk",
    "Other_Symbol": "So",
    "Separator": "Z",
    "Space_Separator": "Zs",
    "Line_Separator": "Zl",
    "Paragraph_Separator": "Zp",
    "Other": "C",
    "Control": "Cc",
    "cntrl": "Cc",
    "Format": "Cf",
    "Private_Use": "Co",
}
_BINARY = {
    "Alphabetic": ("L", "Nl"),
    "Alpha": ("L", "Nl"),
    "Lowercase": ("Ll",),
    "Lower": ("Ll",),
    "Uppercase": ("Lu",),
    "Upper": ("Lu",),
}
# Code points that this Python does not know yet may be in any class of a newer Unicode, so "over" holds them all.
_KNOWN_CATEGORIES = frozenset(_LONG_CATEGORIES.values())


def shorthand(letter: str, over: bool) -> Ranges:
    """The class of ``\\d``, ``\\w``, ``\\s`` and, in upper case, of what is in none of them."""
    if letter.isupper():
        return complement(shorthand(letter.lower(), not over))
    if letter == "s":
        return SPACE[over]
    if over:
        return _python_class(letter)
    return DIGITS if letter == "d" else WORD


@lru_cache(maxsize=2)
def _python_class(letter: str) -> Ranges:
    """What ``\\d`` or ``\\w`` takes in Python."""
    return tuple((found.start(), found.end() - 1) for found in re.finditer(f"\\{letter}+", _every_character()))


def _every_character() -> str:
    """The string whose character at index i is U+i (a stand-in where that is a surrogate)."""
    codes = np.arange(MAX_CODE_POINT + 1, dtype="<u4")
    codes[0xD800:0xE000] = 0
    return codes.tobytes().decode("utf-32-le")


def unicode_property(name: str, value: str | None, over: bool) -> Ranges | None:
    """The class of ``\\p{name}`` or ``\\p{name=value}``; None if it is not one of those known here.

    Known: general categories, the letters of common scripts, ASCII, Any, Alphabetic, Lowercase and Uppercase. Where
    ``over`` cannot be told it is everything.
    """
    if value is None:
        if name in ("Any", "ASCII"):
            return EVERYTHING if name == "Any" else ((0, 0x7F),)
        if name in _BINARY:
            return EVERYTHING if over else union(*map(_category, _BINARY[name]))
    if value is None or name in ("General_Category", "gc"):
        category = _LONG_CATEGORIES.get(value or name, value or name)
        if category not in _KNOWN_CATEGORIES:
            return None
        return union(_category(category), _category("Cn")) if over else _category(category)
    if name in ("Script", "sc", "Script_Extensions", "scx"):
        script = _SHORT_SCRIPTS.get(value, value)
        if script in _SCRIPTS:
            return EVERYTHING if over else _script(script)
    return None


@lru_cache(maxsize=64)
def _category(name: str) -> Ranges:
    """The characters whose general category is ``name`` or begins so (``LC``: Lu, Ll or Lt)."""
    wanted = {"LC": ("Lu", "Ll", "Lt")}.get(name, (name,))
    return tuple((first, last) for first, last, category in _category_runs() if category.startswith(wanted))


@lru_cache(maxsize=1)
def _category_runs() -> tuple[tuple[int, int, str], ...]:
    categories = np.array(list(map(unicodedata.category, _every_character())))
    starts = np.flatnonzero(np.concatenate(([True], categories[1:] != categories[:-1])))
    ends = np.concatenate((starts[1:], [len(categories)])) - 1
    return tuple(zip(starts.tolist(), ends.tolist(), categories[starts].tolist(), strict=True))


@lru_cache(maxsize=16)
def _script(name: str) -> Ranges:
    letters = (code for first, last in _category("L") for code in range(first, last + 1))
    return ranges((code, code) for code in letters if unicodedata.name(chr(code), "").startswith(_SCRIPTS[name]))
