"""The reference machine on random networks: against a judge that backtracks, token by token, and to the end."""

from __future__ import annotations

import random

import numpy as np
import pytest
from guided_networks import accepts, random_list, random_network, random_vocab

from minillm_serve.guided import json_stages
from minillm_serve.guided.automaton.machine import ReferenceMachine
from minillm_serve.guided.automaton.positions import Position
from minillm_serve.guided.automaton.text_states import TextLeaf
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.network import Text
from minillm_serve.guided.text.regex import compile_pattern

NETWORKS = 40
MANY_READINGS = 12  # beyond, an ambiguous network only makes the test slow


def machine_of(seed: int) -> tuple[ReferenceMachine, random.Random]:
    rng = random.Random(seed)
    vocab = random_vocab(rng)
    return ReferenceMachine(random_network(seed, vocab), vocab), rng


def allowed(machine: ReferenceMachine, position: Position, budget: int | None = None) -> list[int]:
    mask = np.full(machine.vocab.words, 0xFFFFFFFF, dtype=np.uint32)  # what the machine does not write stays visible
    machine.fill(position, mask, budget)
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


def walk(machine: ReferenceMachine, rng: random.Random, steps: int) -> list[tuple[bytes, Position]]:
    """A random text, token by token, longer tokens preferred."""
    data, position, found = b"", machine.start(), []
    for _ in range(steps):
        if len(position.threads) > MANY_READINGS:
            break
        found.append((data, position))
        tokens = [token for token in allowed(machine, position) if token]
        if not tokens:
            break
        long = [token for token in tokens if len(machine.vocab.token_bytes[token]) > 1]
        token = rng.choice(long if long and rng.random() < 0.6 else tokens)
        data += machine.vocab.token_bytes[token]
        position = machine.advance(position, machine.vocab.token_bytes[token])
    return found


def shortest(machine: ReferenceMachine, position: Position) -> bytes:
    """A completion, by always taking a byte after which the least is left to write."""
    data, position_now = b"", position
    while not machine.complete(position_now):
        ways = [(byte, machine.advance(position_now, bytes([byte]))) for byte in sorted(machine.vocab.alphabet)]
        left, byte = min((machine.cost(target), byte) for byte, target in ways if target is not None)
        assert left < machine.cost(position_now), "each byte of the cheapest way brings the end nearer"
        data += bytes([byte])
        position_now = machine.advance(position_now, bytes([byte]))
    return data


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_a_token_is_in_the_mask_exactly_if_its_bytes_can_be_read(seed: int) -> None:
    machine, rng = machine_of(seed)
    for _, position in walk(machine, rng, 8):
        can_follow = [
            token
            for token, data in enumerate(machine.vocab.token_bytes)
            if data and machine.advance(position, data) is not None
        ]
        assert allowed(machine, position) == ([0] if machine.complete(position) else []) + can_follow


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_every_position_is_completed_within_its_cost_and_the_judge_accepts_the_text(seed: int) -> None:
    machine, rng = machine_of(seed)
    for data, position in walk(machine, rng, 6):
        ending = shortest(machine, position)
        assert len(ending) <= machine.cost(position)
        assert accepts(machine.network, data + ending)


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_the_texts_that_may_end_are_those_that_the_judge_accepts(seed: int) -> None:
    """Texts the machine likes, damaged at random: both must agree on each."""
    machine, rng = machine_of(seed)
    for data, position in walk(machine, rng, 5):
        whole = data + shortest(machine, position)
        for _ in range(8):
            text = bytearray(whole)
            for _ in range(rng.randint(0, 2)):
                where = rng.randrange(len(text) + 1)
                text[where : where + rng.randint(0, 2)] = rng.choice([b"", b"a", b'"', b"c", b"\\u0061", b"\xc3\xa9"])
            end = machine.advance(machine.start(), bytes(text))
            assert (end is not None and machine.complete(end)) == accepts(machine.network, bytes(text)), bytes(text)


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_a_budget_allows_exactly_the_tokens_after_which_it_suffices(seed: int) -> None:
    machine, rng = machine_of(seed)
    for _, position in walk(machine, rng, 5):
        for budget in (machine.cost(position), machine.cost(position) + rng.randint(0, 4), 3):
            followed = (
                (token, machine.advance(position, machine.vocab.token_bytes[token]))
                for token in allowed(machine, position)
                if token
            )
            enough = [token for token, target in followed if machine.cost(target) <= budget]
            assert allowed(machine, position, budget) == ([0] if machine.complete(position) else []) + enough


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_forced_bytes_are_the_only_ones(seed: int) -> None:
    machine, rng = machine_of(seed)
    for _, position in walk(machine, rng, 6):
        forced = machine.forced(position)
        for byte in forced:
            assert not machine.complete(position)
            ways = [b for b in range(256) if machine.advance(position, bytes([b])) is not None]
            assert ways == [byte]
            position = machine.advance(position, bytes([byte]))
        ways = [b for b in range(256) if machine.advance(position, bytes([b])) is not None]
        assert machine.complete(position) or len(ways) > 1


@pytest.mark.parametrize("seed", range(30))
def test_lists_that_run_out_of_items_have_no_dead_ends(seed: int) -> None:
    """Every text of single bytes, to its end: what may begin can be finished, and the judge accepts just that."""
    rng = random.Random(seed)
    vocab = random_vocab(rng, every_byte=True)
    machine = ReferenceMachine(random_list(seed, vocab), vocab)
    queue, seen = [(b"", machine.start())], set()
    while queue and len(seen) < 60:
        data, position = queue.pop(rng.randrange(len(queue)))
        if position in seen:
            continue
        seen.add(position)
        assert machine.complete(position) == accepts(machine.network, data)
        ways = [(data + bytes([byte]), machine.advance(position, bytes([byte]))) for byte in sorted(vocab.alphabet)]
        ways = [way for way in ways if way[1] is not None]
        assert ways or machine.complete(position), data
        can_follow = [t for t, d in enumerate(vocab.token_bytes) if d and machine.advance(position, d) is not None]
        assert allowed(machine, position) == ([0] if machine.complete(position) else []) + can_follow
        queue += ways


@pytest.mark.parametrize(
    ("pattern", "low", "high"), [("^(ab|cde)*$", 10**6, None), ("^(ab|cde)*$", 10**6, 10**6), ("^[a-z ]+$", 0, 10**6)]
)
def test_lengths_in_the_millions_cost_no_memory(pattern: str, low: int, high: int | None) -> None:
    """The vectors of distances repeat, and what repeats is not kept twice."""
    leaf = Text(compile_pattern(pattern), low, high)
    automaton = TextLeaf(leaf, frozenset(range(256)))
    state = automaton.start(False, ())
    assert low <= automaton.cost(state, (), (0,)) - 2 <= low + 3
    assert sum(vector.nbytes for vector in automaton.lives._short._vectors) < 100_000


def test_lengths_that_do_not_repeat_soon_are_refused_with_the_keyword() -> None:
    pattern = "^(" + "|".join(f"(a{{{prime}}})*" for prime in (7, 11, 13, 17)) + ")$"
    with pytest.raises(SchemaError, match="minLength"):
        TextLeaf(Text(compile_pattern(pattern), 10**6), frozenset(range(256)))


def test_a_length_that_cannot_be_counted_is_refused_before_a_text_begins() -> None:
    pattern = "^(" + "|".join(f"(a{{{prime}}})*" for prime in (7, 11, 13, 17)) + ")$"
    schema = {"properties": {"x": {"type": "string", "pattern": pattern, "minLength": 10**6}}}
    with pytest.raises(SchemaError) as caught:
        json_stages(schema)
    assert (caught.value.keyword, caught.value.path) == ("pattern", "/properties/x/pattern")
