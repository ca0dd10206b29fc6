"""The compiled machine by itself: masks against brute force, hostile sizes, failures, bounds, threads, files."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from guided_tools import byte_level

from minillm_serve.guided.automaton import native, stored
from minillm_serve.guided.automaton.vocab import Vocab, _load_or_make
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.network import RETURN, Arc, Bytes, Call, Literals, Network, Read, Text
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.dfa import literal

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler")

PIECES = [b'{"a":1,"a":', b'a":1,"b":', b'b":2,"b"', b'":1}', b'","', b'"}', b'",', b'":', b"},", b"\\u00", b"61"]
PIECES += ["é".encode(), b"\xc3", b"\xa9x", b"\xf0\x9f", b"\x98\x80", b"\\ud83d", b"\\ude00", b'":{"', b'a"', b'abc"']
PIECES += [
    b'b","a',
    b'a","a","b',
    b"\\n",
    b"abc",
    b" the",
    b"The",
    b"quick",
    b"12",
    b"a1",
    b"a-b",
    b" a b",
    b"/x",
    b"ab",
]
PIECES += [b"ab", b"bb", "caf\u00e9".encode(), "\u2028".encode(), b"a/b", b"  "]


def vocab_with(missing: bytes = b"") -> Vocab:
    singles = [bytes([byte]) for byte in range(256) if byte not in missing]
    return Vocab([None, *PIECES, *singles], frozenset({0}))


@dataclass(frozen=True)
class Stop:
    """A place whose arcs a function makes."""

    name: str
    make: Callable[[Network], tuple[Arc, ...]]
    least: int = 0

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        return self.make(network)

    def cost(self, network: Network) -> int:
        return self.least

    def describe(self) -> str:
        return self.name


def network_of(*leaves: Text | Bytes | Literals, end: tuple[bytes, ...] = (b",", b"}")) -> Network:
    """Any number of items, each one of the leaves, with ',' between and '}' behind the last; ``end`` has both."""
    network = Network()
    number = network.leaf(Literals(end, (0, 1)))
    after = Stop("after", lambda net: (Read(number, (net.state(item), RETURN)),), 1)
    item = Stop("item", lambda net: tuple(Read(net.leaf(leaf, leaf), (net.state(after),) * 3) for leaf in leaves), 4)
    network.start = network.state(item)
    return network


def unique_network(*leaves: Text | Bytes | Literals, depth: int = 8) -> Network:
    """Arrays of different items; an item may be an array too."""
    network = Network(depth)
    opening = network.leaf(literals(b"["))
    closing = network.leaf(Literals((b",", b"]"), (0, 1)))
    array = Stop("array", lambda net: (Read(opening, (net.state(item),)),), 4)
    after = Stop("after", lambda net: (Read(closing, (net.state(item), RETURN)),), 1)

    def items(net: Network) -> tuple[Arc, ...]:
        nested = Call(net.state(array), net.state(after), 1)
        return (*(Read(net.leaf(leaf, leaf), (net.state(after),) * 3, unique=True) for leaf in leaves), nested)

    item = Stop("item", items, 3)
    network.start = network.state(array)
    return network


def literals(*texts: bytes) -> Literals:
    return Literals(texts, (0,) * len(texts))


def letters(*ranges: tuple[str, str]) -> CharDfa:
    """One or more characters out of these ranges, in ascending order."""
    bounds, classes = [0], [0]
    for low, high in ranges:
        bounds += [ord(low), ord(high) + 1]
        classes += [1, 0]
    return CharDfa(tuple(bounds), tuple(classes), ((-1, 1), (-1, 1)), (-1, 0))


def allowed(machine: native.NativeMachine, position: object, budget: int | None = None) -> set[int]:
    mask = np.empty(machine.vocab.words, dtype=np.uint32)
    machine.fill(position, mask, budget)
    return set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())


def tried(machine: native.NativeMachine, position: object, budget: int | None = None) -> set[int]:
    """The same, one token at a time."""
    found = set(machine.vocab.eos_token_ids) if machine.complete(position) else set()
    for token, text in enumerate(machine.vocab.token_bytes):
        target = machine.advance(position, text) if text else None
        if target is not None and (budget is None or machine.cost(target) <= budget):
            found.add(token)
    return found


NETWORKS = {
    "free": lambda: network_of(Text()),
    "limits": lambda: network_of(Text(min_length=2, max_length=5), Text(min_length=3, max_length=90)),
    "pattern": lambda: network_of(Text(letters(("a", "z"))), Text(letters(("0", "9"), ("A", "z")), 3, 6)),
    "words": lambda: network_of(Text(letters((" ", " "), ("0", "9"), ("A", "Z"), ("a", "z")))),
    "printable": lambda: network_of(Text(letters((" ", ".")), 1, 3), Text(letters((" ", "~"), ("¡", "\u1fff")))),
    "one character": lambda: network_of(Text(letters(("é", "é"))), Text(letters(("😀", "😀")), 2)),
    "excluded": lambda: network_of(Text(excluded=("a", "ab", "é", "", "a\n"))),
    "excluded letters": lambda: network_of(Text(letters(("a", "b")), excluded=("a", "bb"))),
    "bare": lambda: network_of(Text(letters(("a", "c"), ("é", "é")), 1, 4, quoted=False)),
    "unique": lambda: unique_network(Text()),
    "unique letters": lambda: unique_network(Text(letters(("a", "b")), 1, 2)),
    "unique literals": lambda: unique_network(literals(b"a", b"ab", b"b"), Text(None, 0, 1)),
    "unique bytes": lambda: unique_network(Bytes(literal(b"1", b"12", follow=0)), Text(max_length=1)),
}


MISSING = (b"", b"a", b"\\", b"\xa9", b"0123456789abcdefABCDEF", b"\x80\x98")
# Without both letters a network over them does not keep its promise.
KEPT = [(name, missing) for name in NETWORKS for missing in MISSING if not ("letters" in name and b"ab" in missing)]


@pytest.mark.parametrize(("name", "missing"), KEPT)
def test_a_mask_is_exactly_what_advance_accepts(name: str, missing: bytes) -> None:
    machine = native.NativeMachine(NETWORKS[name](), vocab_with(missing))
    for seed in range(4):
        rng, position = random.Random(seed), machine.start()
        for _ in range(14):
            found = allowed(machine, position)
            assert found and found == tried(machine, position)
            assert found == allowed(machine, position)  # and so it is when the mask comes from the cache
            budget = rng.randrange(12)
            assert allowed(machine, position, budget) == tried(machine, position, budget)
            going_on = sorted(token for token in found if machine.vocab.token_bytes[token])
            long = [token for token in going_on if token <= len(PIECES)]
            if not going_on:
                break
            token = rng.choice(long if long and rng.random() < 0.6 else going_on)
            position = machine.advance(position, machine.vocab.token_bytes[token])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_position_can_be_completed_within_its_cost(name: str) -> None:
    machine = native.NativeMachine(NETWORKS[name](), vocab_with())
    for seed in range(6):
        rng, position = random.Random(seed), machine.start()
        for _ in range(rng.randrange(1, 12)):
            texts = [t for token in allowed(machine, position) if (t := machine.vocab.token_bytes[token])]
            if texts:
                position = machine.advance(position, rng.choice(texts))
        for _ in range(60):
            if machine.complete(position):
                break
            steps = [machine.advance(position, bytes([byte])) for byte in range(256)]
            position = min((step for step in steps if step is not None), key=machine.cost)
        assert machine.complete(position)


def test_what_is_unique_stays_so_however_it_is_spelled() -> None:
    machine = native.NativeMachine(unique_network(Text(letters(("a", "b")), 1, 1)), vocab_with())
    one = machine.advance(machine.start(), b'["a",')
    assert machine.advance(one, b'"a"') is None and machine.advance(one, b'"\\u0061"') is None
    assert machine.advance(one, b'"\\u006') is not None  # it may still become b
    assert machine.advance(one, b'["a"]') is not None  # another array
    both = machine.advance(one, b'"\\u0062"')
    assert machine.advance(both, b",[") is not None and machine.advance(both, b',"') is None


def test_a_comma_behind_which_nothing_is_left_is_not_allowed() -> None:
    network = Network()
    keys, comma = network.leaf(literals(b"x", b"y")), network.leaf(Literals((b",", b"]"), (0, 1)))
    item = Stop("item", lambda net: (Read(keys, (net.state(after),), unique=True),), 2)
    after = Stop("after", lambda net: (Read(comma, (net.state(item), RETURN)),), 1)
    network.start = network.state(item)
    machine = native.NativeMachine(network, vocab_with())
    assert machine.advance(machine.start(), b"x,y,") is None
    assert machine.forced(machine.advance(machine.start(), b"x,y")) == b"]"
    assert machine.forced(machine.advance(machine.start(), b"x,")) == b"y]"


def test_forced_bytes_stop_at_a_choice_and_at_the_end() -> None:
    machine = native.NativeMachine(network_of(literals(b"true", b"trust"), end=(b", ", b"}")), vocab_with())
    assert machine.forced(machine.start()) == b"tru" and machine.forced(machine.start(), 2) == b"tr"
    assert machine.forced(machine.advance(machine.start(), b"true,")) == b" tru"
    assert machine.forced(machine.advance(machine.start(), b"true}")) == b""


# -- hostile sizes -----------------------------------------------------------------------------------------------------


def test_a_million_characters_cost_what_a_few_do() -> None:
    million = 10**6
    for leaf in (Text(None, million, million), Text(None, 0, million), Text(letters(("a", "b")), million - 5, million)):
        machine = native.NativeMachine(network_of(leaf), vocab_with())
        position = machine.advance(machine.start(), b'"' + b"a" * (million - 1))
        assert machine.advance(position, b"ab") is None
        last = machine.advance(position, b"a")
        assert machine.forced(last)[:1] == b'"' and machine.cost(last) == 2
        assert machine.nbytes() < 4 << 20
    assert machine.cost(machine.start()) == million - 5 + 3


def test_ten_thousand_names_and_unique_items() -> None:
    names = tuple(b'"name%d"' % number for number in range(10_000))
    machine = native.NativeMachine(unique_network(literals(*names)), vocab_with())
    position = machine.start()
    for name in (b"[", *(name + b"," for name in names[:1_000])):
        position = machine.advance(position, name)
    assert allowed(machine, position) == tried(machine, position)
    assert machine.advance(position, names[5]) is None and machine.advance(position, names[1_000]) is not None
    excluded = Text(letters(("0", "9"), ("a", "z")), excluded=tuple(name[1:-1].decode() for name in names))
    machine = native.NativeMachine(network_of(excluded), vocab_with())
    assert machine.advance(machine.start(), names[77]) is None
    assert machine.advance(machine.start(), b'"name10000"') is not None


def test_a_pattern_that_needs_too_much_memory_is_refused() -> None:
    """A cycle of a prime length for each of several lengths: the ways to a count repeat only after their product."""
    states, rows, tags = 1, [[]], [-1]
    for length in (89, 97, 101, 103, 107):
        rows[0].append(states)
        for place in range(length):
            rows.append([states + (place + 1) % length] * 5)
            tags.append(0 if place == length - 1 else -1)
        states += length
    bounds = (0, *range(ord("a"), ord("a") + 5), ord("f"))
    dfa = CharDfa(bounds, (5, 0, 1, 2, 3, 4, 5), tuple((*row, -1) for row in rows), tuple(tags))
    machine = native.NativeMachine(network_of(Text(dfa, 500, 2_000)), vocab_with())
    assert machine.advance(machine.start(), b'"abc') is not None
    with pytest.raises(SchemaError, match="minLength"):
        native.NativeMachine(network_of(Text(dfa, 10**6, 10**6 + 500)), vocab_with())


def test_a_deep_stack_needs_no_recursion() -> None:
    network = Network(200_000)
    opening, closing = network.leaf(literals(b"[")), network.leaf(literals(b"]"))
    close = Stop("close", lambda net: (Read(closing, (RETURN,)),), 1)
    inside = Stop("inside", lambda net: (Call(net.state(array), net.state(close), 1), Read(closing, (RETURN,))), 1)
    array = Stop("array", lambda net: (Read(opening, (net.state(inside),)),), 2)
    network.start = network.state(array)
    machine = native.NativeMachine(network, vocab_with())
    position = machine.advance(machine.start(), b"[" * 100_000)
    assert machine.complete(machine.advance(position, b"]" * 100_000))
    assert machine.cost(position) == 100_000 and len(machine.describe(position)) == 2


def test_very_ambiguous_networks_are_cut_and_stay_exact() -> None:
    network = Network()
    digit, stop = network.leaf(literals(b"1")), network.leaf(literals(b"}"))

    def arcs(net: Network, number: int) -> tuple[Arc, ...]:
        twice = (net.state(places[2 * number % 9_001]), net.state(places[(2 * number + 1) % 9_001]))
        return (*(Read(digit, (target,)) for target in twice), Read(stop, (RETURN,)))

    places = [Stop(str(n), lambda net, n=n: arcs(net, n), 1) for n in range(9_001)]
    network.start = network.state(places[1])
    machine = native.NativeMachine(network, vocab_with())
    position = machine.advance(machine.start(), b"1" * 16)
    assert allowed(machine, position) == tried(machine, position)
    assert machine.complete(machine.advance(position, b"}"))


# -- failures ----------------------------------------------------------------------------------------------------------


def test_what_the_network_raises_comes_out_of_the_call_and_does_no_harm() -> None:
    network, failing = Network(), [True]
    stop = network.leaf(literals(b"]"))

    def arcs(net: Network) -> tuple[Arc, ...]:
        if failing[0]:
            raise SchemaError("pattern", "/x", "too hard")
        return (Read(stop, (RETURN,)),)

    class Priceless(Stop):
        def cost(self, network: Network) -> int:
            raise KeyboardInterrupt

    hard = Priceless("hard", arcs)
    network.start = network.state(Stop("start", lambda net: (Read(net.leaf(literals(b"[")), (net.state(hard),)),)))
    machine = native.NativeMachine(network, vocab_with())
    for call in (lambda: machine.advance(machine.start(), b"["), lambda: allowed(machine, machine.start())):
        with pytest.raises(SchemaError, match="too hard"):
            call()
    failing[0] = False
    position = machine.advance(machine.start(), b"[")
    assert allowed(machine, position) == {machine.vocab.token_bytes.index(b"]")}
    with pytest.raises(KeyboardInterrupt):
        machine.cost(machine.start())
    assert machine.complete(machine.advance(position, b"]"))


def test_only_a_writable_mask_of_the_right_size_is_filled() -> None:
    machine = native.NativeMachine(network_of(Text()), vocab_with())
    words = machine.vocab.words
    for wrong in (np.zeros(words + 1, np.uint32), np.zeros(words, np.int64)):
        with pytest.raises(ValueError, match="a mask is uint32"):
            machine.fill(machine.start(), wrong)
    read_only = np.zeros(words, np.uint32)
    read_only.flags.writeable = False
    for wrong in (read_only, np.zeros(2 * words, np.uint32)[::2]):
        with pytest.raises((TypeError, ValueError)):
            machine.fill(machine.start(), wrong)


# -- bounds, threads, files --------------------------------------------------------------------------------------------


def test_memory_is_bounded_and_held_positions_stay_what_they_are() -> None:
    machine = native.NativeMachine(unique_network(Text()), vocab_with(), limit=1 << 20)
    held = machine.advance(machine.start(), b'["a",["b","c"],"x')
    before, rng = allowed(machine, held), random.Random(1)
    for _ in range(30):
        position = machine.start()
        for number in range(200):
            text = b'%s"%d-%d"' % (b"," if number else b"[", number, rng.randrange(10**9))
            position = machine.advance(position, text)
            allowed(machine, position)
    assert machine.nbytes() < 6 << 20
    assert allowed(machine, held) == before == tried(machine, held)
    assert machine.advance(held, b'","a"') is None and machine.advance(held, b'","b"') is not None
    again = machine.advance(machine.start(), b'["a",["b","c"],"x')
    assert again == held and hash(again) == hash(held) and again != machine.start()


def test_a_machine_stays_as_long_as_one_of_its_positions() -> None:
    machine = native.NativeMachine(network_of(Text()), vocab_with())
    position, watched = machine.advance(machine.start(), b'"a'), weakref.ref(machine)
    del machine
    gc.collect()
    assert position.machine.advance(position, b'"') is not None
    del position
    gc.collect()
    assert watched() is None


def test_threads_share_a_machine() -> None:
    machine = native.NativeMachine(unique_network(Text(), Text(letters(("0", "9"), ("a", "f")))), vocab_with())
    expected = {}
    texts = [b'["%x",["%x"],"a%d' % (seed, seed * 7, seed) for seed in range(200)]
    single = native.NativeMachine(unique_network(Text(), Text(letters(("0", "9"), ("a", "f")))), vocab_with())
    for text in texts:
        expected[text] = allowed(single, single.advance(single.start(), text))
    wrong: list[bytes] = []

    def work(seed: int) -> None:
        for text in random.Random(seed).sample(texts, len(texts)):
            position = machine.start()
            for byte in text:
                position = machine.advance(position, bytes([byte]))
            if allowed(machine, position) != expected[text]:
                wrong.append(text)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize("kind", ["vocab", "sets"])
@pytest.mark.parametrize("damage", ["none", "missing", "empty", "garbage", "cut", "flipped", "another's"])
def test_a_damaged_file_is_as_good_as_none(
    kind: str, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path))

    def load(eos: int = 0) -> tuple[Vocab, list[set[int]]]:
        vocab = _load_or_make(byte_level(), frozenset({eos}), None)
        machine = native.NativeMachine(network_of(Text(min_length=1), Text(letters(("0", "9"), ("a", "z")))), vocab)
        return vocab, [allowed(machine, machine.advance(machine.start(), text)) for text in (b"", b'"', b'"a', b'"a"')]

    fresh, masks = load()
    (path,) = tmp_path.rglob(f"{kind}-*{fresh.key}*")
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
    damaged = {"none": data, "empty": b"", "garbage": b"no archive", "cut": data[:middle], "flipped": flipped}
    if damage == "missing":
        path.unlink()
    elif damage == "another's":
        other = load(1)[0]
        path.write_bytes(next(tmp_path.rglob(f"{kind}-*{other.key}*")).read_bytes())
    else:
        path.write_bytes(damaged[damage])
    for _ in range(2):  # made again, and then loaded
        vocab, found = load()
        assert found == masks
        assert vocab.token_bytes == fresh.token_bytes and vocab.eos_token_ids == fresh.eos_token_ids
        assert all((a == b).all() for a, b in zip(vars(vocab.trie).values(), vars(fresh.trie).values(), strict=True))
    if damage != "another's" or kind == "sets":
        assert path.read_bytes() == data


def test_only_so_many_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path))
    for number in range(stored.MAX_FILES + 5):
        stored.save_bytes("sets", str(number), np.zeros(3, dtype=np.uint8))
    assert len(list(tmp_path.rglob("sets-*"))) == stored.MAX_FILES
    assert stored.load_bytes("sets", str(stored.MAX_FILES + 4)) is not None


def test_without_a_compiler_the_reference_machine_serves() -> None:
    code = (
        "from minillm_serve.guided.automaton import native\n"
        "from minillm_serve.guided.automaton.matcher import make_machine\n"
        "from minillm_serve.guided.automaton.vocab import Vocab\n"
        "from minillm_serve.guided.grammar.network import Network\n"
        "assert not native.available()\n"
        "machine = make_machine(Network(), Vocab([None, b'a'], frozenset({0})))\n"
        "assert type(machine).__name__ == 'ReferenceMachine'"
    )
    environment = os.environ | {"MINILLM_COMPILE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_compiling_and_running_a_schema_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from guided_tools import byte_level\n"
        "from minillm_serve.guided import compile_json_schema\n"
        "compile_json_schema({'type': 'object'}, byte_level()).matcher().fill_mask()\n"
        "assert 'torch' not in sys.modules"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
