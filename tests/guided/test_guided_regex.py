"""Patterns as automata: what is accepted matches in every dialect, and what is rejected in none."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_serve.guided.budget import Budget, budget
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_algebra import ANYTHING, intersect, is_empty, is_subset
from minillm_serve.guided.text.regex import compile_pattern
from minillm_serve.guided.text.regex_loop import loop_of
from minillm_serve.guided.text.regex_parse import parse


def accepts(pattern: str, text: str, **how: object) -> bool:
    return compile_pattern(pattern, **how).match(text) >= 0  # type: ignore[arg-type]


def assert_trimmed(dfa: CharDfa) -> None:
    """From the start every state is reached, and from every state an end; only "no text at all" is a lone state."""
    reached, stack = {0}, [0]
    while stack:
        for target in dfa.rows[stack.pop()]:
            if target >= 0 and target not in reached:
                reached.add(target)
                stack.append(target)
    assert reached == set(range(len(dfa.rows)))
    live = {state for state, tag in enumerate(dfa.tags) if tag >= 0}
    while True:
        more = {state for state, row in enumerate(dfa.rows) if state not in live and live & set(row)}
        if not more:
            break
        live |= more
    assert live == reached or (live == set() and len(dfa.rows) == 1)


MATCHES = [
    ("^$|^a$", ["", "a"], ["b", "aa", "\n"]),
    ("a|^b", ["a", "xa", "b", "bx"], ["xb", ""]),
    ("(^a|b$)", ["a", "ax", "b", "xb"], ["xa", "bx", ""]),
    ("a^b", [], ["ab", "a", "b", "a^b"]),
    ("$a|b", ["b"], ["a", "$a"]),
    ("(|x)^y", ["y", "yz"], ["xy"]),
    ("^dev|rc$", ["dev", "devil", "rc", "arc"], ["rcs", "adev"]),
    ("x{0}y", ["y", "xy"], ["x"]),
    ("^a{2,3}$", ["aa", "aaa"], ["a", "aaaa"]),
    ("^a{2,}?$", ["aa", "aaaaa"], ["a"]),
    ("^(?:ab)+?$", ["ab", "abab"], ["", "aba"]),
    ("^(?<year>[0-9]{4})-(?P<month>[0-9]{2})$", ["2024-12"], ["2024-1"]),
    ("^[a-zA-Z0-9-_]$", ["-", "_", "z"], ["@", ""]),
    (r"^[\w-.]$", ["a", "-", "."], ["+"]),
    (r"^[\]\\^-]$", ["]", "\\", "^", "-"], ["["]),
    ("^[[]$", ["["], ["]"]),
    ("^{a}$", ["{a}"], ["a"]),
    ("^a{b$", ["a{b"], ["ab"]),
    (r".*\{\{.+}}.*", ["{{x}}", "a{{b}}c"], ["{{}}", "{x}"]),
    (r"^\x41\u0042\u{43}\cJ\t\0$", ["ABC\n\t\0"], ["ABC"]),
    (r"^\uD83D\uDC32*$", ["🐲", "🐲🐲", "🐲" * 3], ["🐉"]),
    ("^🐲*$", ["", "🐲", "🐲🐲"], ["🐉", "🐉🐉"]),
    (r"^\/\-\_\:\@\"$", ['/-_:@"'], ["/"]),
    (r"\bfoo\b", ["foo", "a foo.", "foo-bar"], ["foobar", "afoo", "foo_"]),
    (r"^\Ba", [], ["a", " a"]),
    (r"a\Bb", ["ab"], ["a b"]),
    (r"^\S(|(.|\n)*\S)$", ["a", "a b", "a\nb"], [" a", "a ", ""]),
    (r"^\p{L}+$", ["abc", "éß", "日本"], ["a1", ""]),
    (r"^\p{Lu}\p{Letter}*\P{L}$", ["Ab1", "É-"], ["ab1", "Abc"]),
    (r"^[\p{Script=Greek}\p{Nd}]+$", ["λόγος", "α1"], ["a"]),
    (r"^(?!.*\.\.)[a-z.]+$", ["a.b", "a", ".a."], ["a..b", "", "A"]),
    (r"^(?=.*[0-9])(?=.*[a-z]).{4,6}$", ["abc1", "1abcde"], ["abcd", "1234", "a1", "abcdef7"]),
    (r"^(?:(?!-)[a-z-]{1,4}(?<!-)\.)+$", ["a.", "a-b.cd."], ["-a.", "a-.", "abcde.", ""]),
    (r"(?<=a)b", ["ab", "cab"], ["b", "cb"]),
    (r"(?<!a)b", ["b", "abb", "cb"], ["ab", "a"]),
    (r"^(?!^a)b|(?!$)c", ["b", "c"], ["a", ""]),
    (r"^(?=\ba|b)..$", ["ab", "ba"], ["cb"]),
    (r"^(?:\S+\s+){0,199}\S+$", ["word", "two words", " ".join("w" * 200)], ["", " a", " ".join("w" * 201)]),
    ("^.{1,4000}$", ["x", "x" * 4000], ["", "x" * 4001, "a\nb"]),
    (r"^[\w\-\.]{1,255}$", ["a-b.c", "x" * 255], ["", "x" * 256, "a b"]),
]


@pytest.mark.parametrize(("pattern", "matching", "others"), MATCHES, ids=[pattern[:30] for pattern, _, _ in MATCHES])
def test_a_pattern_is_found_where_it_should_be(pattern: str, matching: list[str], others: list[str]) -> None:
    dfa, rejected = compile_pattern(pattern), compile_pattern(pattern, side="reject")
    assert_trimmed(dfa)
    assert_trimmed(rejected)
    assert is_empty(intersect(dfa, rejected))
    for text in matching:
        assert dfa.match(text) >= 0 > rejected.match(text), text
    for text in others:
        assert dfa.match(text) < 0, text


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^\d$", "٣"),  # a digit in Python only
        (r"^\w$", "é"),
        (r"^\W$", "é"),  # none in Python
        (r"^[^\d]$", "٣"),
        (r"^\s$", "\ufeff"),  # a space in ECMA 262 only
        (r"^\S$", "\ufeff"),
        (r"^\S$", "\x1c"),  # a space in Python only
        ("^.$", "\r"),  # ends a line in ECMA 262 only
        ("^a$", "a\n"),  # $ holds before the last line end in Python only
        (r"a\b", "aé"),  # a word goes on in Python only
        (r"a\B", "aé"),
        (r"\B", ""),  # holds in ECMA 262 only, up to Python 3.13
        (r"^\P{L}$", "\U0001fffe"),  # unassigned: who knows what it will be
    ],
)
def test_what_dialects_disagree_about_is_neither_accepted_nor_rejected(pattern: str, text: str) -> None:
    assert not accepts(pattern, text) and not accepts(pattern, text, side="reject")


def test_a_whole_match_is_one_from_end_to_end() -> None:
    assert accepts("a|ab", "ab", anchored=True) and accepts("a|ab", "a", anchored=True)
    assert not accepts("a|b", "ab", anchored=True) and not accepts("a", "a\n", anchored=True)
    assert accepts("a", "a\n", anchored=True, side="reject")
    assert not accepts("a", "a\n", side="reject")
    assert compile_pattern("") is ANYTHING or compile_pattern("").match("x\n") >= 0


@pytest.mark.parametrize(
    ("pattern", "low", "high"),
    [
        ("^[a-f]{2,5}$", 2, 5),
        ("^[a-f]+$", 1, None),
        ("^[a-f]*?$", 0, None),
        ("^[a-f]$", 1, 1),
        ("^(?:[a-f]{3})$", 3, 3),
    ],
)
def test_a_counted_set_is_known_as_such_and_means_the_same(pattern: str, low: int, high: int | None) -> None:
    loop = loop_of(parse(pattern))
    assert loop is not None and (loop.low, loop.high) == (low, high)
    general = compile_pattern(f"(?:{pattern})(?=)")  # the same texts, by the general construction
    dfa = compile_pattern(pattern)
    assert_trimmed(dfa)
    assert is_subset(dfa, general) and is_subset(general, dfa)


@pytest.mark.parametrize("pattern", ["[a-f]{2}", "^[a-f]{2}", "^[a-f]+b$", "^(a|bc)*$", "^([a-f]{2}){3}$", ""])
def test_other_patterns_are_no_counted_sets(pattern: str) -> None:
    assert loop_of(parse(pattern)) is None


REFUSED = [
    (r"(a)\1", "backreference", 3),
    (r"(?<n>a)\k<n>", "backreference", 7),
    ("(?P=n)", "backreference", 0),
    ("(?i)a", "flag", 0),
    ("x(?>a)", "(?>", 1),
    ("a**", "quantifier", 2),
    ("a++", "quantifier", 2),
    ("*a", "quantifier", 0),
    ("a|+", "quantifier", 2),
    ("a{2}{3}", "quantifier", 4),
    ("a{3,2}", "less than", 1),
    ("a{,5}", "plain text in others", 1),
    ("a{1,10000000}", "quantifier above", 1),
    ("^*", "reads no character", 0),
    ("(?=a)*", "reads no character", 0),
    ("(a", "not closed", 0),
    ("a)", "closes no group", 1),
    ("[a", "not closed", 0),
    ("[]a]", "begins with ']'", 0),
    ("[^]", "begins with ']'", 0),
    ("[z-a]", "before its start", 0),
    ("a\\", "backslash", 1),
    (r"\Z", "does not know", 0),
    (r"\a", "does not know", 0),
    (r"\x4", "hexadecimal", 0),
    (r"\u{110000}", "no code point", 0),
    (r"\p{Klingon}", "not supported", 0),
    (r"\pL", "without", 0),
    (r"(?<=^a)b", "inside a lookbehind", None),
    (r"(?=a(?<=a))b", "inside a lookahead", None),
    ("(?<1a>b)", "group name", 0),
]


@pytest.mark.parametrize(("pattern", "reason", "position"), REFUSED, ids=[pattern for pattern, _, _ in REFUSED])
def test_a_refusal_names_the_construct_and_where_it_stands(pattern: str, reason: str, position: int | None) -> None:
    for side in ("accept", "reject"):
        with pytest.raises(SchemaError) as refused:
            compile_pattern(pattern, path="/properties/a/pattern", side=side)
        assert refused.value.keyword == "pattern" and refused.value.path == "/properties/a/pattern"
        assert reason in str(refused.value)
        if position is not None:
            assert f"at character {position} of" in str(refused.value)


HOSTILE = [
    "^a{1,100000}$",
    "(x{1,1000}){1,1000}",
    "((a{100}){100}){100}",
    "(" * 10_000 + ")" * 10_000,
    "(" * 10_000,
    ".*.*.*.*a.{30}$",
    "(a|b)*a(a|b){40}",
    "(?=a" * 60 + ")" * 60,
    "^(?=.*a.{12})(?=.*b.{12})(?=.*c.{12})",
    "x" * 100_000,
    "[" + "a-z" * 5_000 + "]" * 2,
    "(a?){3000}a{3000}",
    "(?:" * 40 + "a" + "{0,9})" * 40,
    r"\p{L}{1,5000}\d",
]


@pytest.mark.parametrize("pattern", HOSTILE, ids=[pattern[:24] for pattern in HOSTILE])
def test_a_pattern_that_explodes_is_refused_within_its_budget(pattern: str) -> None:
    for side in ("accept", "reject"):
        try:
            with budget(Budget()) as limit:
                dfa = compile_pattern(pattern, side=side)
        except SchemaError:
            assert limit.left > -1_000_000  # no single step ran far past what was left
        else:
            assert len(dfa.rows) * len(dfa.rows[0]) <= 1_000_000


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*b", "(a*)*$", "^(a?){50}$", "(.*)*x", "^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_what_makes_backtracking_engines_hang_is_small_here(pattern: str) -> None:
    assert len(compile_pattern(pattern).rows) <= 60


# -- against other implementations -----------------------------------------------------------------------------------

_ATOMS = ["a", "b", "1", "_", "-", " ", ".", "é", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", "[ab]", "[^a]", "[a-c1]"]
_ATOMS += [r"[^\w]", r"[\s\d]", r"[^\d\s]", r"\.", r"\u00e9", r"\n", "٣", "^", "$", r"\b", r"\B"]
_PLAIN = st.text(alphabet="ab1_- .", max_size=6)
_WILD = st.text(alphabet="ab1_- .\n\réÉ٣\u2028\ufeff\x1c", max_size=5)


def _patterns(look: bool) -> st.SearchStrategy[str]:
    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        quantifiers = st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "{0,2}?"])
        kinds = [
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda both: f"({both[0]}|{both[1]})"),
            st.tuples(inner, quantifiers).map(lambda both: f"(?:{both[0]}){both[1]}"),
        ]
        if look:
            ahead = inner.filter(lambda pattern: "(?<" not in pattern)
            kinds.append(st.tuples(st.sampled_from(["(?=", "(?!"]), ahead).map(lambda both: f"{both[0]}{both[1]})"))
            kinds.append(st.sampled_from(["(?<=a)", "(?<!a)", r"(?<=[b1]\w)", r"(?<!\s)", "(?<!ab|1-)"]))
        return st.one_of(kinds)

    return st.recursive(st.sampled_from(_ATOMS), larger, max_leaves=10)


@settings(max_examples=400, deadline=None)
@given(_patterns(look=False) | _patterns(look=True), st.lists(_PLAIN, max_size=25), st.lists(_WILD, max_size=25))
def test_it_agrees_with_python(pattern: str, plain: list[str], wild: list[str]) -> None:
    python = re.compile(pattern)
    accepted, rejected = compile_pattern(pattern), compile_pattern(pattern, side="reject")
    assert_trimmed(accepted)
    for text in ["", *plain, *wild]:
        found = python.search(text) is not None
        assert accepted.match(text) < 0 or found, text
        assert rejected.match(text) < 0 or not found, text
        if text in plain and text:
            assert (accepted.match(text) >= 0) == found, text
            assert (rejected.match(text) >= 0) == (not found), text


@settings(max_examples=100, deadline=None)
@given(_patterns(look=False), st.lists(_PLAIN, max_size=25))
def test_a_whole_match_agrees_with_python(pattern: str, texts: list[str]) -> None:
    python = re.compile(f"(?:{pattern})\\Z")
    dfa = compile_pattern(pattern, anchored=True)
    for text in filter(None, texts):
        assert (dfa.match(text) >= 0) == (python.match(text) is not None), text


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to ask about ECMA 262")
def test_it_agrees_with_a_javascript_engine() -> None:
    """One process for all patterns: those of the tables above, and the random texts of a fixed list."""
    texts = ["", "a", "a1", "ab", "b-a", "é", "aé", "a\n", "a\r", "\ufeff", "\x1c", "a b", "٣", "\u2028a", "1_", "_é"]
    patterns = [pattern for pattern, _, _ in MATCHES if "(?P" not in pattern]
    endings = ("", "a", "+$", "|^b", r"\b.")
    patterns += [one + two for one in _ATOMS for two in endings if two != "+$" or one not in ("^", "$", r"\b", r"\B")]
    script = (
        "const [ps, ts] = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        "const re = p => { try { return new RegExp(p, 'u') } catch { return new RegExp(p) } };"
        "console.log(JSON.stringify(ps.map(p => ts.map(t => re(p).test(t)))))"
    )
    asked = json.dumps([patterns, texts]).encode()
    answer = subprocess.run(["node", "-e", script], input=asked, capture_output=True, check=True, timeout=60).stdout
    for pattern, row in zip(patterns, json.loads(answer), strict=True):
        accepted, rejected = compile_pattern(pattern), compile_pattern(pattern, side="reject")
        for text, found in zip(texts, row, strict=True):
            assert accepted.match(text) < 0 or found, (pattern, text)
            assert rejected.match(text) < 0 or not found, (pattern, text)
