"""The Llama family: embedding, N x (attention, gated MLP) on a residual stream, norm, LM head (arXiv:2302.13971).

Mistral, Qwen2, Qwen3, SmolLM and Gemma are this decoder with other numbers and a few more norms: see ModelConfig.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from minillm_kernels import HeadNorms, Ops
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.weights import LayerWeights, Weights


class Attention(Protocol):
    """What the model needs of an attention backend (see :mod:`minillm_serve.attention.backends`)."""

    def attend(self, layer: int, qkv: Tensor, norms: HeadNorms | None, angles: Any | None) -> Tensor:
        """qkv: [T, heads + 2 * kv_heads, head_dim] -> [T, heads, head_dim] (see ``Ops.attend_qkv``)."""
        ...


@dataclass
class Taps:
    """What a draft head wants to know of a forward pass: the residual stream that enters each of ``layers``.

    states: [T, hidden] of each, in ascending order of layers, once the pass has run.
    """

    layers: tuple[int, ...]
    states: list[Tensor] = field(default_factory=list)


class LlamaModel:
    """Weights and the forward pass; no state between calls. T tokens of any mix of sequences lie end to end.

    max_model_len: positions to make rotary tables for (None: all that the model was trained for).
    """

    def __init__(self, config: ModelConfig, weights: Weights, ops: Ops, max_model_len: int | None = None):
        self.config = config
        self.weights = weights
        self.ops = ops
        self.activate = {"silu": ops.silu_mul, "gelu_tanh": ops.gelu_tanh_mul}[config.activation]
        self.embedding_scale = torch.tensor(
            config.embedding_scale, dtype=weights.dtype, device=weights.embedding.device
        )
        length, device = max_model_len or config.max_position_embeddings, weights.embedding.device
        ropes = {rope: rope.table(length, weights.dtype, device) for rope in set(config.ropes) - {None}}
        self.tables = list(ropes.values())
        self.table_of_layer = [None if rope is None else list(ropes).index(rope) for rope in config.ropes]

    def forward(self, ids: Tensor, positions: Tensor, attention: Attention, last: Tensor) -> Tensor:
        """ids, positions: [T] int64; last: [S] rows whose next token is wanted, ascending -> logits [S, vocab]."""
        return self.logits(self.hidden(ids, positions, attention, last))

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: [S, hidden] -> [S, vocab] in the model's dtype."""
        return self.weights.lm_head(hidden)

    def hidden(
        self, ids: Tensor, positions: Tensor, attention: Attention, last: Tensor, taps: Taps | None = None
    ) -> Tensor:
        """The last layer's normalised output [S, hidden] of some rows (arguments as for ``forward``)."""
        return self.decode(self.embed(ids), positions, attention, last, taps)[0]

    def embed(self, ids: Tensor) -> Tensor:
        """ids: [T] -> [T, hidden], what enters the first layer."""
        x = torch.embedding(self.weights.embedding, ids)
        return x * self.embedding_scale if self.config.embedding_scale != 1 else x

    def decode(
        self, residual: Tensor, positions: Tensor, attention: Attention, last: Tensor, taps: Taps | None = None
    ) -> tuple[Tensor, Tensor]:
        """All layers over ``residual`` [T, hidden], which may be overwritten: the output [S, hidden] of the rows
        ``last``, normalised, and as it was before the norm."""
        ops, weights, eps = self.ops, self.weights, self.config.rms_norm_eps
        angles = [ops.angles(table, positions) for table in self.tables]
        x = ops.rms_norm(residual, weights.layers[0].input_norm, eps)
        for index, layer in enumerate(weights.layers):
            if index:
                x, residual = ops.add_rms_norm(x, residual, layer.input_norm, eps)
            if taps is not None and index in taps.layers:
                taps.states.append(residual.clone())
            x = self._attention(index, layer, x, angles, attention)
            if index == len(weights.layers) - 1 and len(last) < len(positions):
                x, residual = x[last], residual[last]  # from here on no row reads another
            if layer.output_norm is not None:
                x = ops.rms_norm(x, layer.output_norm, eps)
            x, residual = ops.add_rms_norm(x, residual, layer.mlp_norm, eps)
            x = layer.down(self.activate(layer.gate_up(x)))
            if layer.down_norm is not None:
                x = ops.rms_norm(x, layer.down_norm, eps)
        return ops.add_rms_norm(x, residual, weights.final_norm, eps)

    def _attention(
        self, index: int, layer: LayerWeights, x: Tensor, angles: Sequence[Any], attention: Attention
    ) -> Tensor:
        """x: [T, hidden] -> [T, hidden]."""
        table = self.table_of_layer[index]
        qkv = layer.qkv(x).view(x.shape[0], -1, self.config.head_dim)
        turn = None if table is None else angles[table]
        return layer.output(attention.attend(index, qkv, layer.head_norms, turn).flatten(1))
