"""The Llama family: embedding, N x (attention, SwiGLU MLP) on a residual stream, norm, LM head (arXiv:2302.13971)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from minillm_kernels import Ops
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.weights import LayerWeights, Weights


class Attention(Protocol):
    """What the model needs of an attention backend (see :mod:`minillm_serve.attention.backends`)."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q: [T, heads, head_dim]; k, v: [T, kv_heads, head_dim] -> [T, heads, head_dim]."""
        ...


class LlamaModel:
    """Weights and the forward pass; no state between calls. T tokens of any mix of sequences lie end to end."""

    def __init__(self, config: ModelConfig, weights: Weights, ops: Ops):
        self.config = config
        self.weights = weights
        self.ops = ops
        self.cos, self.sin = rope_table(config)
        if weights.dtype != torch.float32:
            self.cos, self.sin = self.cos.to(weights.dtype), self.sin.to(weights.dtype)

    def forward(self, ids: Tensor, positions: Tensor, attention: Attention, last: Tensor) -> Tensor:
        """ids, positions: [T] int64; last: [S] rows whose next token is wanted -> fp32 logits [S, vocab_size]."""
        ops, weights, eps = self.ops, self.weights, self.config.rms_norm_eps
        cos, sin = self.cos[positions], self.sin[positions]
        residual = weights.embedding[ids]
        x = ops.rms_norm(residual, weights.layers[0].input_norm, eps)
        for index, layer in enumerate(weights.layers):
            if index:
                x, residual = ops.add_rms_norm(x, residual, layer.input_norm, eps)
            x = self._attention(index, layer, x, cos, sin, attention)
            x, residual = ops.add_rms_norm(x, residual, layer.post_attention_norm, eps)
            x = layer.down(ops.silu_mul(layer.gate_up(x)))
        x, _ = ops.add_rms_norm(x[last], residual[last], weights.final_norm, eps)
        return weights.lm_head(x).float()

    def _attention(
        self, index: int, layer: LayerWeights, x: Tensor, cos: Tensor, sin: Tensor, attention: Attention
    ) -> Tensor:
        """x: [T, hidden] -> [T, hidden]."""
        config = self.config
        qkv = layer.qkv(x).view(x.shape[0], -1, config.head_dim)
        qk, v = qkv.split((config.num_heads + config.num_kv_heads, config.num_kv_heads), dim=1)
        q, k = self.ops.rope(qk, cos, sin).split((config.num_heads, config.num_kv_heads), dim=1)
        return layer.output(attention.attend(index, q, k, v).flatten(1))


def rope_table(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos and sin of position * theta^(-2i/D), each [max_position_embeddings, head_dim / 2] in fp32."""
    dim = config.head_dim
    frequencies = 1.0 / config.rope_theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim)
    angles = torch.outer(torch.arange(config.max_position_embeddings).float(), frequencies)
    return angles.cos(), angles.sin()
