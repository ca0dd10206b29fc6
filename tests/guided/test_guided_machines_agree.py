"""The compiled machine and the one in Python, byte by byte and mask by mask: what one says, the other says."""

from __future__ import annotations

import random

import numpy as np
import pytest
from guided_networks import random_list, random_network, random_vocab
from guided_random import SchemaMaker
from guided_schemas import random_schema
from guided_tools import byte_level, sentencepiece_like

from minillm_serve.guided import JsonOptions, SchemaError, json_stages
from minillm_serve.guided.automaton import native
from minillm_serve.guided.automaton.interface import Machine, Position
from minillm_serve.guided.automaton.machine import ReferenceMachine
from minillm_serve.guided.automaton.vocab import Vocab, vocab_of
from minillm_serve.guided.constraints import compile_constraint
from minillm_serve.guided.grammar.network import Network
from minillm_serve.params import StructuredOutputsParams

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled machine needs a C++ compiler")

MANY_READINGS = 12


def mask_of(machine: Machine, vocab: Vocab, position: Position, budget: int | None = None) -> list[int]:
    mask = np.full(vocab.words, 0xFFFFFFFF, dtype=np.uint32)
    machine.fill(position, mask, budget)
    return mask.tolist()


def tokens_of(vocab: Vocab, words: list[int]) -> list[int]:
    return [token for token in range(vocab.size) if words[token // 32] >> (token % 32) & 1 and vocab.token_bytes[token]]


def assert_same_walk(network: Network, vocab: Vocab, rng: random.Random, steps: int) -> None:
    """Both machines along one random text; at each place all that can be asked."""
    compiled, reference = native.NativeMachine(network, vocab), ReferenceMachine(network, vocab)
    ours, theirs, data = reference.start(), compiled.start(), b""
    for _ in range(steps):
        if len(ours.threads) > MANY_READINGS:
            break
        words = mask_of(reference, vocab, ours)
        assert mask_of(compiled, vocab, theirs) == words, data
        assert mask_of(compiled, vocab, theirs) == words, "the second time it comes from the cache"
        assert compiled.complete(theirs) == reference.complete(ours), data
        assert compiled.forced(theirs) == reference.forced(ours), data
        cost = reference.cost(ours)
        assert compiled.cost(theirs) == cost, data
        for budget in (cost, cost + rng.randint(1, 5), 2):
            assert mask_of(compiled, vocab, theirs, budget) == mask_of(reference, vocab, ours, budget), (data, budget)
        for byte in range(256):
            goes_on = reference.advance(ours, bytes([byte])) is not None
            assert (compiled.advance(theirs, bytes([byte])) is not None) == goes_on, (data, byte)
        tokens = tokens_of(vocab, words)
        if not tokens:
            break
        long = [token for token in tokens if len(vocab.token_bytes[token]) > 1]
        piece = vocab.token_bytes[rng.choice(long if long and rng.random() < 0.6 else tokens)]
        data += piece
        ours, theirs = reference.advance(ours, piece), compiled.advance(theirs, piece)


@pytest.mark.parametrize("seed", range(70))
def test_random_networks(seed: int) -> None:
    rng = random.Random(seed)
    vocab = random_vocab(rng)
    assert_same_walk(random_network(seed, vocab), vocab, rng, steps=8)


@pytest.mark.parametrize("seed", range(25))
def test_lists_that_run_out_of_items(seed: int) -> None:
    rng = random.Random(seed)
    vocab = random_vocab(rng, every_byte=True)
    assert_same_walk(random_list(seed, vocab), vocab, rng, steps=10)


@pytest.mark.parametrize("seed", range(40))
def test_random_schemas(seed: int) -> None:
    rng = random.Random(seed)
    vocab = vocab_of(rng.choice([byte_level, sentencepiece_like])())
    schema = SchemaMaker(seed).document() if seed % 2 else random_schema(seed)
    options = JsonOptions(rng.choice(["json", "compact", "spaced", "flexible"]), any_order=rng.random() < 0.4)
    try:
        network = json_stages(schema, options, vocab.alphabet).network
    except SchemaError:
        network = json_stages({"type": ["array", "string"]}, options, vocab.alphabet).network
    assert_same_walk(network, vocab, rng, steps=12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "constraint",
    [
        {"regex": "(ab|a)*c{2,5}[\\w-]{1,8}(é|😀)?"},
        {"choice": ["yes", "yes indeed", "no", "noé"]},
        {"grammar": 'root ::= "a" root "b" | item+\nitem ::= [^"a] | "\\"" [a-z]* "\\""'},
        {"json_object": True},
    ],
)
def test_other_constraints(constraint: dict, seed: int) -> None:
    grammar = compile_constraint(StructuredOutputsParams(**constraint), byte_level(), machine="reference")
    assert_same_walk(grammar.network, grammar.vocab, random.Random(seed), steps=12)
