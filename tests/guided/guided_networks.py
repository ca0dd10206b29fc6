"""Random networks that keep every promise of network.py, random small vocabularies, and a judge that backtracks."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from minillm_serve.guided.automaton.forbidden import UNREACHABLE
from minillm_serve.guided.automaton.leaf_states import ByteLeaf
from minillm_serve.guided.automaton.text_states import TextLeaf
from minillm_serve.guided.automaton.vocab import Vocab
from minillm_serve.guided.grammar.network import (
    RETURN,
    UNBOUNDED_COST,
    Arc,
    Bytes,
    Call,
    Jump,
    Leaf,
    Literals,
    Network,
    Read,
    Text,
)
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.dfa import Dfa

EVERY_BYTE = frozenset(range(256))
PIECES = [
    b'"a', b'a"', b'":"', b'","', b'"]', b"aa", b"ab", b'b"', b"bb", b'ab"c', b'""', b"\\u00", b"\\u0061", b"61",
    b'\\"', b"\\n", b"\xc3", b"\xc3\xa9", b"\xa9", b"\xf0\x9f", b"\x98\x80", b"\\ud83d", b"\\ude00", b"c,", b",c",
    b'c"a"', b'"b"c', b"[[", b"]]", b"[a", b'a"b"', b"ccc", b"abc", b"cab", b'"\xc3\xa9"', b'\\u00e9"', b"d83",
    b"\\", b"bab", b"a,b", b"a]", b"b,a", b",b]", b"[c", b"a,", b'"a"]', b'"a","b"]',
]  # fmt: skip


@dataclass(frozen=True)
class Spot:
    """A place whose arcs are given beforehand."""

    number: int
    table: Table

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        return tuple(self.table.arcs[self.number])

    def cost(self, network: Network) -> int:
        return min(self.table.costs[self.number], UNBOUNDED_COST)

    def describe(self) -> str:
        return f"spot {self.number}"


@dataclass(eq=False)
class Table:
    """arcs, costs, heights: of each state; costs and heights count only ways that no unique arc can close."""

    arcs: list[list[Arc]]
    costs: list[int]
    heights: list[int]


def random_network(seed: int, vocab: Vocab) -> Network:
    """Up to six states with random arcs among random leaves; recursion always reads something first."""
    rng = random.Random(seed)
    states = rng.randint(1, 6)
    network = Network(max_depth=rng.choice([1, 2, 3, 64]))
    table = Table([[] for _ in range(states + 1)], [0] * (states + 1), [0] * (states + 1))
    for number in range(1, states + 1):
        assert network.state(Spot(number, table)) == number
    network.leaves += [random_leaf(rng) for _ in range(rng.randint(1, 4))]
    leaves = [(TextLeaf if isinstance(leaf, Text) else ByteLeaf)(leaf, vocab.alphabet) for leaf in network.leaves]
    network.leaves.append(Literals((b"c", b"b,"), (0, 0)))
    leaves.append(ByteLeaf(network.leaves[-1], vocab.alphabet))
    for number in range(1, states + 1):
        for _ in range(rng.randint(1, 3)):
            table.arcs[number].append(_random_arc(rng, number, states, network))
        if rng.random() < 0.5:
            table.arcs[number].append(Read(len(leaves) - 1, (RETURN,)))
    _settle(table, leaves)
    for number in range(1, states + 1):
        if table.costs[number] >= UNREACHABLE or table.heights[number] > network.max_depth:
            table.arcs[number].append(Read(len(leaves) - 1, (RETURN,)))
    _settle(table, leaves)
    for number in range(1, states + 1):
        table.arcs[number] = [_with_height(arc, table) for arc in table.arcs[number]]
    network.start = 1
    return network


def _random_arc(rng: random.Random, number: int, states: int, network: Network) -> Arc:
    later = [*range(number + 1, states + 1), RETURN]
    kind = rng.random()
    if kind < 0.15 and number < states:
        return Jump(rng.randint(number + 1, states))
    if kind < 0.4 and number < states:
        return Call(rng.randint(number + 1, states), rng.choice(later))
    leaf = rng.randrange(len(network.leaves) - 1)
    unique = rng.random() < 0.4
    chosen = network.leaves[leaf]
    # Bare texts in a loop, each remembered, have exponentially many readings; the cap would then decide.
    bare = unique and isinstance(chosen, Text) and not chosen.quoted
    reachable = later if bare or is_nullable(chosen) else [*range(1, states + 1), RETURN]
    return Read(leaf, tuple(rng.choice(reachable) for _ in range(3)), unique=unique)


def _settle(table: Table, leaves: list[ByteLeaf | TextLeaf]) -> None:
    """Least costs and heights, by the ways without a unique arc."""
    states = len(table.arcs)
    table.costs[:] = [0] + [UNREACHABLE] * (states - 1)
    table.heights[:] = [0] + [1_000] * (states - 1)
    for _ in range(2 * states + 2):
        for number in range(1, states):
            for arc in table.arcs[number]:
                if isinstance(arc, Read) and arc.unique:
                    continue
                table.costs[number] = min(table.costs[number], _cost(arc, table, leaves))
                table.heights[number] = min(table.heights[number], _height(arc, table))


def _cost(arc: Arc, table: Table, leaves: list[ByteLeaf | TextLeaf]) -> int:
    match arc:
        case Jump(target):
            return table.costs[target]
        case Call(entry, then):
            return min(table.costs[entry] + table.costs[then], UNREACHABLE)
    leaf = leaves[arc.leaf]
    forbidden = (leaf.excluded,) if isinstance(leaf, TextLeaf) and leaf.leaf.excluded else ()
    start = leaf.start(False, forbidden)
    weights = tuple(table.costs[target] for target in arc.targets)
    return UNREACHABLE if start is None else leaf.cost(start, forbidden, weights)


def _height(arc: Arc, table: Table) -> int:
    match arc:
        case Jump(target):
            return table.heights[target]
        case Call(entry, then) if then == RETURN:
            return table.heights[entry]
        case Call(entry, then):
            return max(table.heights[entry] + 1, table.heights[then])
    return max(table.heights[target] for target in arc.targets)


def _with_height(arc: Arc, table: Table) -> Arc:
    match arc:
        case Jump(target):
            return Jump(target, _height(arc, table))
        case Call(entry, then):
            return Call(entry, then, _height(arc, table))
    return Read(arc.leaf, arc.targets, _height(arc, table), arc.unique)


def random_list(seed: int, vocab: Vocab) -> Network:
    """``[`` items ``]``, no two equal, of which there are only a few: what remains decides which separator may come."""
    rng = random.Random(seed)
    network = Network(max_depth=3)
    network.leaves += [
        Literals((b"[",), (0,)),
        rng.choice([Literals((b"]", b",", b",b"), (0, 1, 1)), Literals((b"]", b",", b"]]"), (0, 1, 0))]),
        _few_texts(rng),
        Literals((b"c", b"c,"), (0, 1)),
    ]
    begin, key, after, inner = 1, 2, 3, 4
    value = rng.choice([[Read(3, (after, key))], [Call(begin, after, 1), Read(3, (RETURN, after))], [Jump(after)]])
    table = Table(
        [
            [],
            [Read(0, (rng.choice([key, after]),))],
            [Read(2, (inner, after, RETURN), unique=True)],
            [Read(1, (RETURN, key))],
            value,
        ],
        [0, 3, 2, 1, 2],
        [0] * 5,
    )
    for number in range(1, 5):
        network.state(Spot(number, table))
    network.start = begin
    return network


def _few_texts(rng: random.Random) -> Leaf:
    """A leaf of one to four texts."""
    words = rng.sample(["a", "b", "ab", "c", "é"], rng.randint(1, 4))
    kind = rng.randrange(3)
    if kind == 0:
        return Literals(tuple(word.encode() for word in words), tuple(rng.randrange(3) for _ in words))
    if kind == 1:
        return Text(CharDfa((0, 97, 98, 99), (1, 0, 0, 1), ((1, -1), (-1, -1)), (-1, rng.randrange(3))))  # "a", "b"
    dfa = Dfa()
    for word in words:
        dfa.finals[dfa.add_path(dfa.start, [bytes([byte]) for byte in word.encode()])] = rng.randrange(3)  # type: ignore
    return Bytes(dfa)


# -- leaves and vocabularies -------------------------------------------------------------------------------------------


def random_leaf(rng: random.Random) -> Leaf:
    kind = rng.random()
    if kind < 0.35:
        words = {bytes(rng.choices(b'abc,"[]', k=rng.randint(1, 4))) for _ in range(rng.randint(1, 4))}
        return Literals(tuple(sorted(words)), tuple(rng.randrange(3) for _ in words))
    if kind < 0.5:
        return Bytes(random_dfa(rng))
    low = rng.choice([0, 0, 0, 1, 2])
    high = None if rng.random() < 0.5 else low + rng.randint(0, 3)
    excluded = tuple(rng.sample(["", "a", "b", "ab", "é", "aa", "😀", "c"], rng.choice([0, 0, 1, 3])))
    dfa = None if rng.random() < 0.4 else random_char_dfa(rng, low, high)
    text = Text(dfa, low, high, excluded, quoted=rng.random() < 0.7)
    return text if has_words(text) else Text(dfa, 0, None, (), text.quoted)


def random_dfa(rng: random.Random) -> Dfa:
    dfa = Dfa()
    for _ in range(rng.randint(1, 3)):
        word = [bytes(rng.sample(b"abc,", rng.randint(1, 2))) for _ in range(rng.randint(1, 3))]
        dfa.finals[dfa.add_path(dfa.start, word)] = rng.randrange(3)  # type: ignore[assignment]
    if rng.random() < 0.5:  # a loop
        state = rng.choice(list(dfa.finals))
        dfa.edges[state][ord("a")] = rng.choice(list(dfa.finals))
    return dfa.trimmed(EVERY_BYTE) or dfa


def random_char_dfa(rng: random.Random, low: int, high: int | None) -> CharDfa:
    """Two or three states over a few classes; trimmed, with at least one text of an allowed length."""
    bounds = (0, *sorted(rng.sample([97, 98, 99, 0x80, 0xE9, 0xEA, 0x4000, 0x10000, 0x1F600], rng.randint(1, 4))))
    while True:
        classes = tuple(rng.randrange(3) for _ in bounds)
        states = rng.randint(1, 3)
        rows = [[rng.choice([-1, *range(states)]) for _ in range(3)] for _ in range(states)]
        tags = [rng.choice([-1, 0, 1, 2]) for _ in range(states)]
        live = {state for state in range(states) if tags[state] >= 0}
        for _ in range(states):
            live |= {state for state in range(states) if any(rows[state][c] in live for c in set(classes))}
        if len(live) == states:
            return CharDfa(bounds, classes, tuple(map(tuple, rows)), tuple(tags))


def has_words(leaf: Text) -> bool:
    built = TextLeaf(leaf, EVERY_BYTE)
    return built.start(False, (built.excluded,) if leaf.excluded else ()) is not None


def is_nullable(leaf: Leaf) -> bool:
    """Is the empty text one of the leaf's?"""
    if isinstance(leaf, Literals):
        return False
    if isinstance(leaf, Bytes):
        return leaf.dfa.start in leaf.dfa.finals
    return not leaf.quoted and leaf.min_length == 0


def random_vocab(rng: random.Random, every_byte: bool = False) -> Vocab:
    """The single bytes (often without some of them) and a few longer pieces."""
    missing = rng.choice([b"", b"", b"", b"\\", b"\xc3\xa9", b"0123456789", b"\xf0\x9f\x98\x80", b"a", b"u", b'"'])
    singles = [bytes([byte]) for byte in range(256) if every_byte or byte not in missing]
    return Vocab([None, *rng.sample(PIECES, 25), *singles], frozenset({0}))


# -- the judge ---------------------------------------------------------------------------------------------------------


def reads(leaf: Leaf, data: bytes) -> tuple[int, str | bytes] | None:
    """(tag, what a unique arc records) if the leaf reads exactly ``data``, straight from the definition."""
    if isinstance(leaf, Literals):
        return (leaf.tags[leaf.texts.index(data)], data) if data in leaf.texts else None
    if isinstance(leaf, Bytes):
        state: int | None = leaf.dfa.start
        for byte in data:
            state = leaf.dfa.edges[state].get(byte) if state is not None else None
        return None if state is None or state not in leaf.dfa.finals else (leaf.dfa.finals[state], data)  # type: ignore
    try:
        text = data.decode()
        if leaf.quoted:
            if not text.startswith('"') or text != text.strip():
                return None
            text = json.loads(text)
    except ValueError:
        return None
    if not isinstance(text, str) or any("\ud800" <= char <= "\udfff" for char in text):
        return None
    if not leaf.min_length <= len(text) <= (len(text) if leaf.max_length is None else leaf.max_length):
        return None
    tag = 0 if leaf.dfa is None else leaf.dfa.match(text)
    return None if tag < 0 or text in leaf.excluded else (tag, text)


def accepts(network: Network, data: bytes) -> bool:
    """Does the network read the whole of ``data``? By trying every way."""
    seen = set()
    queue = [(0, network.start, (), frozenset())]  # place, state, ((then, its frame's texts), ...), texts of the frame
    while queue:
        item = queue.pop()
        if item in seen:
            continue
        seen.add(item)
        place, state, stack, taken = item
        if state == RETURN:
            if stack:
                (then, below), *rest = stack
                queue.append((place, then, tuple(rest), below))
            elif place == len(data):
                return True
            continue
        for arc in network.expand(state):
            if len(stack) + arc.height > network.max_depth:
                continue
            match arc:
                case Jump(target):
                    queue.append((place, target, stack, taken))
                case Call(entry, then) if then == RETURN:
                    queue.append((place, entry, stack, frozenset()))
                case Call(entry, then):
                    queue.append((place, entry, ((then, taken), *stack), frozenset()))
                case Read(leaf, targets, _, unique):
                    for end in range(place, len(data) + 1):
                        found = reads(network.leaves[leaf], data[place:end])
                        if found and not (unique and found[1] in taken):
                            after = taken | {found[1]} if unique else taken
                            queue.append((end, targets[found[0]], stack, after))
    return False
