"""Grammars: the network reads just the texts that the rules derive; what cannot be followed says where and why."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from guided_tools import byte_level
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_serve.guided.automaton.machine import ReferenceMachine
from minillm_serve.guided.automaton.vocab import vocab_of
from minillm_serve.guided.budget import Budget, budget
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.ebnf import build_ebnf_network
from minillm_serve.guided.grammar.gbnf import parse_gbnf
from minillm_serve.guided.grammar.lark import parse_lark
from minillm_serve.guided.grammar.syntax import Grammar, Name, Tree, Word
from minillm_serve.guided.text.regex_ast import Chars, Choice, Repeat, Sequence

ARITHMETIC = r"""
# sums of products
root ::= (sum "\n")+
sum ::= product (("+" | "-") product)*
product ::= atom ("*" atom)*
atom ::= [0-9]+ | "(" sum ")" | "-" atom
"""

JSON_GBNF = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt/] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""

CALCULATOR = r"""
// left recursion, as Lark's users write it
start: sum
?sum: product
    | sum "+" product   -> add
    | sum "-" product   -> sub
?product: atom
    | product "*" atom  -> mul
?atom: NUMBER           -> number
     | "-" atom         -> neg
     | "(" sum ")"
%import common.NUMBER
%import common.WS_INLINE
%ignore WS_INLINE
"""


def machine_of(grammar: str, dialect: str | None = None) -> ReferenceMachine:
    with budget(Budget(seconds=30)):
        network = build_ebnf_network(grammar, dialect)
    return ReferenceMachine(network, vocab_of(byte_level(), None, None))


def accepts(machine: ReferenceMachine, text: str) -> bool:
    position = machine.advance(machine.start(), text.encode())
    return position is not None and machine.complete(position)


def shortest(machine: ReferenceMachine, position) -> bytes:
    """The cheapest way to the end, by asking for the cost after each byte."""
    found = bytearray()
    while not machine.complete(position):
        cost = machine.cost(position)
        options = ((byte, machine.step(position, byte)) for byte in range(256))
        byte, position = min(((b, p) for b, p in options if p is not None), key=lambda pair: machine.cost(pair[1]))
        found.append(byte)
        assert machine.cost(position) < cost
    return bytes(found)


# -- an independent reading of the rules -------------------------------------------------------------------------------


class Recogniser:
    """Which texts a rule derives, straight from the rules: ends of all matches, as a least fixed point."""

    def __init__(self, grammar: Grammar, text: str):
        self.grammar, self.text = grammar, text
        self.ends: dict[tuple[str, int], frozenset[int]] = {}
        while True:
            before = dict(self.ends)
            for name, rule in grammar.rules.items():
                for start in range(len(text) + 1):
                    self.ends[name, start] = self.match(rule.body, start)
            if self.ends == before:
                break

    def accepts(self) -> bool:
        return len(self.text) in self.ends[self.grammar.start, 0]

    def match(self, tree: Tree, start: int) -> frozenset[int]:
        match tree:
            case Chars(ranges):
                code = ord(self.text[start]) if start < len(self.text) else -1
                return frozenset({start + 1} if any(a <= code <= b for a, b in ranges) else ())
            case Word(text):
                return frozenset({start + len(text)} if self.text.startswith(text, start) else ())
            case Name(name, _):
                return self.ends.get((name, start), frozenset())
            case Sequence(parts):
                found = frozenset({start})
                for part in parts:
                    found = frozenset(end for middle in found for end in self.match(part, middle))
                return found
            case Choice(parts):
                return frozenset(end for part in parts for end in self.match(part, start))
            case Repeat(body, low, high):
                return self.repeat(body, low, high, start)
        raise TypeError(tree)

    def repeat(self, body: Tree, low: int, high: int | None, start: int) -> frozenset[int]:
        level, found, seen = frozenset({start}), set(), set()
        for count in itertools.count():
            if count >= low:
                found |= level
            if not level or count == high or (high is None and count >= low and (count, level) in seen):
                return frozenset(found)
            seen.add((min(count + 1, low), level))
            if count > low + len(self.text) + 2:
                return frozenset(found)
            level = frozenset(end for middle in level for end in self.match(body, middle))


def all_texts(letters: str, longest: int) -> list[str]:
    return ["".join(text) for length in range(longest + 1) for text in itertools.product(letters, repeat=length)]


ATOMS = ['"a"', '"b"', '"ab"', "[ab]", "[^a]", '""', "r1", "r2", "r3"]
expressions = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(" ".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " | ".join(parts) + ")"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}"])).map(lambda p: f"({p[0]}){p[1]}"),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(expressions, expressions, expressions, expressions)
def test_random_grammars_are_read_as_their_rules_say(root, r1, r2, r3):
    text = f"root ::= {root}\nr1 ::= {r1}\nr2 ::= {r2}\nr3 ::= {r3}\n"
    try:
        machine = machine_of(text)
    except SchemaError as error:
        assert error.keyword == "grammar" and error.kind in ("unsupported", "unsatisfiable"), error
        return
    grammar = parse_gbnf(text)
    for candidate in all_texts("ab", 4):
        expected = Recogniser(grammar, candidate).accepts()
        assert accepts(machine, candidate) == expected, (text, candidate)
    end = shortest(machine, machine.start())
    assert Recogniser(grammar, end.decode()).accepts()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_from_anywhere_in_a_text_the_end_is_as_near_as_the_cost_says(seed):
    rng = random.Random(seed)
    machine = machine_of(ARITHMETIC)
    position, text = machine.start(), bytearray()
    for _ in range(rng.randrange(40)):
        options = [byte for byte in b"0123456789()+-*\n" if machine.step(position, byte) is not None]
        byte = rng.choice(options)
        text.append(byte)
        position = machine.step(position, byte)
    cost = machine.cost(position)
    rest = shortest(machine, position)
    assert len(rest) <= cost
    assert accepts(machine, (bytes(text) + rest).decode())


@pytest.mark.parametrize("text", ["1\n", "(1+2)*3\n", "1\n22-(3)\n", "((((((1))))))*-2\n", "--1\n"])
def test_arithmetic_takes(text):
    assert accepts(machine_of(ARITHMETIC), text)


@pytest.mark.parametrize("text", ["", "1", "(1\n", "1+\n", "1 \n", "()\n", "1)\n"])
def test_arithmetic_refuses(text):
    assert not accepts(machine_of(ARITHMETIC), text)


def test_nesting_ends_in_time():
    """As many brackets as the stack has room for, and from there the way back is still open."""
    machine = machine_of(ARITHMETIC)
    position, depth = machine.start(), 0
    while (deeper := machine.step(position, ord("("))) is not None:
        position, depth = deeper, depth + 1
    assert depth > 40
    assert accepts(machine, "(" * depth + shortest(machine, position).decode())


def test_llama_cpps_json_grammar_reads_json():
    machine = machine_of(JSON_GBNF)
    rng = random.Random(4)
    for _ in range(40):
        value = {
            "k" + chr(rng.randrange(32, 0x250)): rng.choice(
                [1, -2.5, "é\n", None, True, [[], {}, [3]], {"a": {"b": []}}]
            )
        }
        for ascii_only in (True, False):
            assert accepts(machine, json.dumps(value, ensure_ascii=ascii_only)), value
    for wrong in ("[1]", '{"a":}', '{"a" 1}', '{"a":01}', '{"a":"\t"}', "{'a':1}"):
        assert not accepts(machine, wrong)


def test_larks_calculator_is_read_with_blanks_between_its_tokens():
    machine = machine_of(CALCULATOR)
    for text in ("1+2", " 1 + 2 * ( 3-4 ) ", "1.5e3", "--3", "1-2-3"):
        assert accepts(machine, text), text
    for text in ("1+", "(1", "1 2", "1\n+2", "", "1. 5"):
        assert not accepts(machine, text), text


def test_lark_terminals_mean_what_they_say():
    grammar = """
        start: GREETING NAME~1..2 [tail] DIGITS? "x".."z" END
        GREETING: "hi"i " "
        NAME: /[A-Z][a-z]*/ ","
        tail: "(" NAME ")" | LETTERS
        LETTERS: ("a" | "b")+
        DIGITS: "0".."9"~3
        END: /\\/[^\\/]\\//
    """
    machine = machine_of(grammar)
    for text in ("hi Ana,y/q/", "HI Ana,Bo,abba123z/é/", "hI A,(B,)x/1/"):
        assert accepts(machine, text), text
    for text in ("hi y/q/", "hi A,B,C,y/q/", "hi A,12y/q/", "hi A,w/q/", "hi A,y///"):
        assert not accepts(machine, text), text


def test_characters_are_raw_text_not_json():
    machine = machine_of('root ::= "\\"" [^"]+ "\\"" | "é\\n\\u00e9\\x41\\U0001F600"')
    assert accepts(machine, '"\\n"') and accepts(machine, '"😀"') and accepts(machine, "é\néA😀")
    assert not accepts(machine, '"\\""')


def test_long_repetitions_cost_nothing_until_they_are_counted():
    machine = machine_of('root ::= item{3,1000000} "."\nitem ::= "a" | "(" root ")"\n')
    assert accepts(machine, "a" * 500 + ".") and accepts(machine, "aa(aaa.).")
    assert not accepts(machine, "aa.")


def test_thousands_of_rules_and_words_compile():
    rules = "".join(f'r{i} ::= "w{i}" r{i + 1} | "end{i}"\n' for i in range(500))
    machine = machine_of("root ::= r0\n" + rules + 'r500 ::= "z"\n')
    assert accepts(machine, "w0w1w2end3") and not accepts(machine, "w1end2")
    words = " | ".join(f'"word{i}"' for i in range(3_000))
    machine = machine_of(f"root ::= ({words}) ({words})")
    assert accepts(machine, "word17word2999") and not accepts(machine, "word3000word1")


@pytest.mark.parametrize(
    ("grammar", "place", "part"),
    [
        ('root ::= "a" other\n', "line 1, column 14", "'other' is not defined"),
        ('start ::= "a"\n', "line 1, column 1", "no rule 'root'"),
        ('root ::= "a"\nroot ::= "b"', "line 2, column 1", "defined twice"),
        ('root ::= "a', "line 1, column 12", "not closed"),
        ("root ::= [a-", "line 1, column 13", "not closed"),
        ("root ::= [z-a]", "line 1, column 10", "end comes before"),
        ('root ::= ("a"', "line 1, column 14", "not closed"),
        ('root ::= "a")', "line 1, column 13", "cannot stand here"),
        ('root ::= "a"{3,2}', "line 1, column 10", "less than its first"),
        ('root ::= "a"{9999999}', "line 1, column 14", "count above"),
        ('root ::= "\\q"', "line 1, column 11", "escape"),
        ('root ::= "\\uD800"', "line 1, column 11", "not a character"),
        ('root ::= "a"**', "line 1, column 14", "quantifier behind a quantifier"),
        ('root ::= (?="a") "a"', "line 1, column 10", "lookahead"),
        ('root ::= a\na ::= b "x"\nb ::= a "y" | "z"', "line 2, column 1", "'a' -> 'b' -> 'a'"),
        ('root ::= a\na ::= "x"? a "y" | "z"', "line 2, column 1", "left recursion"),
        ('root ::= "a" r\nr ::= "b" r', "line 2, column 1", "no finite text"),
        ("root ::= r\nr ::= r", "line 2, column 1", "no finite text"),
        ("root ::= []", "line 1, column 1", "no finite text"),
        ("start: missing", "line 1, column 8", "'missing' is not defined"),
        ('start: "a"\nstart: "b"', "line 2, column 1", "defined twice"),
        ("rule: \"a\"\n", "line 1, column 1", "no rule 'start'"),
        ("start: /a/s", "line 1, column 8", "flags"),
        ("start: /^a/", "line 1, column 8", "assertion"),
        ("start: /(a/", "line 1, column 8", "not closed"),
        ("start.2: \"a\"", "line 1, column 6", "priorities"),
        ("start: a{x}\n", "line 1, column 8", "templates"),
        ("%declare A\nstart: A", "line 1, column 1", "directive"),
        ("%import python.NAME\nstart: NAME", "line 1, column 1", "only the library 'common'"),
        ("%import common.NAMES\nstart: NAMES", "line 1, column 1", "not known"),
        ("start: A\nA: b\nb: \"x\"", "line 2, column 4", "terminal cannot be made of the rule"),
        ('start: "a', "line 1, column 10", "not closed"),
        ("start: (\"a\"", "line 1, column 12", "not closed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(grammar, place, part):
    with pytest.raises(SchemaError) as caught:
        machine_of(grammar)
    assert caught.value.keyword == "grammar"
    assert caught.value.path == place
    assert part in caught.value.problem
    assert caught.value.param == "structured_outputs.grammar"
    assert place in str(caught.value)


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= " + "(" * 10_000,
        "root ::= " + "(" * 10_000 + '"a"' + ")" * 10_000,
        'root ::= "a"' + "*" * 10_000,
        "start: " + "[" * 5_000,
        "start: /" + "(" * 60 + "a" + ")" * 60 + "/",
        'root ::= ("a" | "aa" | [ab]*){1000} "b" [ab]{1000}',
        'root ::= [ab]* "a" [ab]{400}',
        'root ::= ((("a"{1000}){1000}){1000}){1000}',
        "root ::= " + " ".join(["r"] * 50_000) + '\nr ::= "a" r | "b"',
        "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} r{i + 1}\n" for i in range(60)) + 'r60 ::= "a"',
        "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1}? a{i + 1}?\n" for i in range(3_000)) + 'a3000 ::= "a"',
        "x" * 500_000,
        "::=" * 1_000,
        "\x00\ud800",
        "",
    ],
)
def test_hostile_grammars_are_answered(grammar):
    """Within the budget of steps and seconds: a machine or a refusal, nothing else."""
    try:
        machine = machine_of(grammar)
    except SchemaError as error:
        assert error.keyword == "grammar"
        return
    assert machine.cost(machine.start()) >= 0
    assert machine.complete(machine.start()) or any(machine.step(machine.start(), byte) for byte in range(256))


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet='root:=|"ab()[]{}*+?~.,-/\\\n #%ignore0A^', max_size=60))
def test_any_text_is_a_grammar_or_a_clear_refusal(text):
    for parse in (parse_gbnf, parse_lark):
        try:
            parse("root ::= " + text if parse is parse_gbnf else "start: " + text)
        except SchemaError as error:
            assert error.keyword == "grammar" and (error.path.startswith("line ") or not error.path)


def test_the_dialect_is_found_and_can_be_given():
    assert accepts(machine_of('root ::= "a:b"'), "a:b")
    assert accepts(machine_of('start: "::="'), "::=")
    assert accepts(machine_of('start: "a"', "lark"), "a")
    with pytest.raises(SchemaError, match="dialect"):
        machine_of('start: "a"', "bison")
    with pytest.raises(SchemaError):
        machine_of('start: "a"', "gbnf")


def test_a_tokenizer_without_some_bytes_gets_texts_it_can_write():
    network = build_ebnf_network(
        'root ::= ("ab" | "cd" | [x-z]) rest\nrest ::= [a-z] | "(" root ")"', None, frozenset(b"bcdx")
    )
    machine = ReferenceMachine(network, vocab_of(byte_level(), None, None))
    assert accepts(machine, "cdb") and accepts(machine, "xx")
    assert not accepts(machine, "abb") and not accepts(machine, "x(xx)")
    with pytest.raises(SchemaError, match="no finite text"):
        build_ebnf_network('root ::= "ab"', None, frozenset(b"b"))
