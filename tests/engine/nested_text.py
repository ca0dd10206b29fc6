"""A small recursive constraint, written as a network by hand, and what its texts mean."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minillm_serve import LLM, StructuredOutputsParams
from minillm_serve.guided.automaton.matcher import CompiledGrammar
from minillm_serve.guided.automaton.vocab import vocab_of
from minillm_serve.guided.grammar.network import RETURN, Arc, Call, Literals, Network, Read, Text
from minillm_serve.sample.sampler import SampleSettings

NESTED = StructuredOutputsParams(grammar="nested")
FIXED = StructuredOutputsParams(grammar="fixed")
FIXED_TEXT = '{"city": "Ñuñoa", "tags": ["math", "engine"]}'
PARTS = ('{"name": ', None, ', "next": ', "null", "}")
SHORTEST = '{"name": "", "next": null}'


@dataclass(frozen=True)
class At:
    """In ``{"name": STRING, "next": null or the like}``, before part ``part``."""

    part: int

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        then = network.state(At(self.part + 1)) if self.part < 4 else RETURN
        text = PARTS[self.part]
        if text is None:
            return (Read(network.leaf(Text(max_length=6), "name"), (then,)),)
        read = Read(network.leaf(Literals((text.encode(),), (0,)), text), (then,))
        if self.part == 3:
            return (read, Call(network.state(At(0)), then, height=1))
        return (read,)

    def cost(self, network: Network) -> int:
        return sum(2 if text is None else len(text) for text in PARTS[self.part :])

    def describe(self) -> str:
        return f"part {self.part}"


@dataclass(frozen=True)
class Fixed:
    """One text and no other."""

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        return (Read(network.leaf(Literals((FIXED_TEXT.encode(),), (0,))), (RETURN,)),)

    def cost(self, network: Network) -> int:
        return len(FIXED_TEXT.encode())

    def describe(self) -> str:
        return "fixed"


def network(place: Any, max_depth: int = 40) -> Network:
    made = Network(max_depth)
    made.start = made.state(place)
    return made


def compiled(constraint: StructuredOutputsParams, tokenizer: Any, *, vocab_size: int) -> CompiledGrammar:
    place = {"nested": At(0), "fixed": Fixed()}[constraint.grammar]
    return CompiledGrammar(network(place), vocab_of(tokenizer, vocab_size))


def guided_llm(folder: Any, **settings: Any) -> LLM:
    """An engine that knows the two constraints above."""
    llm = LLM(folder, **{"num_kv_blocks": 200, **settings})
    llm.core.admission.grammars._compile = compiled
    return llm


def depth_of(text: str) -> int:
    """How many objects lie one in the other. Raises on a text that is not of the constraint."""
    value, depth = json.loads(text), 0
    while value is not None:
        assert list(value) == ["name", "next"] and len(value["name"]) <= 6
        value, depth = value["next"], depth + 1
    return depth


def hostile(logits: Tensor, settings: SampleSettings) -> Tensor:
    """Any token that is not forbidden, all alike; each row by its own seed and position."""
    drawn = []
    for row, (seed, position) in enumerate(zip(settings.seeds.tolist(), settings.positions.tolist(), strict=True)):
        allowed = torch.nonzero(logits[row] > float("-inf"))[:, 0]
        generator = torch.Generator().manual_seed((seed * 1_000_003 + position) % 2**62)
        drawn.append(int(allowed[torch.randint(len(allowed), (1,), generator=generator)]) if len(allowed) else 0)
    return torch.tensor(drawn)
