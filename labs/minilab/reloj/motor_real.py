"""The real model behind the world: validated batches become the runner's step plans, so no token can be made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from minilab.reloj.reglas import Item
from minillm_kernels import resolve
from minillm_serve.attention.backends import KVCache
from minillm_serve.model.linear import Unquantized
from minillm_serve.model.llama import LlamaModel
from minillm_serve.model.source import open_model
from minillm_serve.model.weights import load_weights
from minillm_serve.params import SamplingParams
from minillm_serve.plan import RequestInit, StepPlan
from minillm_serve.runner.batch import PersistentBatch
from minillm_serve.runner.runner import Runner

GREEDY = SamplingParams(temperature=0.0, max_tokens=None, ignore_eos=True)
MAX_LEN = 2048


def load_model(folder: Path) -> LlamaModel:
    """float32 on plain torch operations: what is gained on it is the scheduler's, not the kernels'.

    Raises ``ConfigError`` for a folder that is not a model.
    """
    ops, source = resolve("torch"), open_model(folder, tokenizer=False)
    weights = load_weights(source.checkpoint, source.config, Unquantized(ops), torch.float32)
    return LlamaModel(source.config, weights, ops, min(MAX_LEN, source.config.max_position_embeddings))


@dataclass(frozen=True)
class _Held:
    """What the runner knows of a request: tokens in its cache, and the blocks they lie in."""

    computed: int
    blocks: tuple[int, ...]


class RunnerBackend:
    """A :class:`minilab.reloj.mundo.Backend`: greedy decoding by the engine's runner over the student's tables.

    prompts: request id -> token ids, of all requests that will come. max_new: tokens that any of them may draw.
    """

    def __init__(
        self, model: LlamaModel, prompts: Mapping[int, Sequence[int]], max_new: int, num_blocks: int, block_size: int
    ):
        longest = max(map(len, prompts.values())) + max_new
        cache = KVCache(model.config, model.ops, num_blocks, block_size, model.weights.dtype)
        self._runner = Runner(model, cache, PersistentBatch(len(prompts), longest, block_size))
        self._prompt_tokens = {ident: len(prompt) for ident, prompt in prompts.items()}
        self._known = {ident: list(prompt) for ident, prompt in prompts.items()}
        self._held: dict[int, _Held] = {}
        self._steps = 0

    def step(self, items: Sequence[Item]) -> dict[int, int]:
        """One step of the model; returns the token drawn for each item that reaches the end of what is known."""
        result = self._runner.execute(self._plan(items))
        drawn = {ident: tokens[0] for ident, tokens in result.tokens.items()}
        for ident, token in drawn.items():
            self._known[ident].append(token)
        return drawn

    def _plan(self, items: Sequence[Item]) -> StepPlan:
        """A table only ever grows in a plan: a request that starts again, or in other blocks, is a new one."""
        new, again, grown = [], [], {}
        for item in items:
            held = self._held.get(item.id)
            if held is not None and held.computed == item.start and item.blocks[: len(held.blocks)] == held.blocks:
                added = item.blocks[len(held.blocks) :]
            else:
                again += [item.id] if held is not None else []
                new.append(self._init(item))
                added = item.blocks
            if added:
                grown[item.id] = added
            self._held[item.id] = _Held(item.end, item.blocks)
        self._steps += 1
        counts = {item.id: len(item.tokens) for item in items}
        return StepPlan(self._steps, counts, tuple(new), grown, preempted=tuple(again))

    def _init(self, item: Item) -> RequestInit:
        known = tuple(self._known[item.id])
        return RequestInit(item.id, known, self._prompt_tokens[item.id], GREEDY, seed=0, num_computed=item.start)
