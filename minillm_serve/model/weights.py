"""The tensors of a Llama-family model, projections that read the same input joined into one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minillm_serve.model.config import ModelConfig
from minillm_serve.model.linear import Linear, LinearMethod
from minillm_serve.model.loader import Checkpoint


@dataclass(frozen=True)
class LayerWeights:
    """One transformer layer; shapes of the weights inside.

    qkv: [(heads + 2 * kv_heads) * head_dim, hidden], q rows first, then k, then v; output: [hidden, heads * head_dim];
    gate_up: [2 * intermediate, hidden], gate rows first; down: [hidden, intermediate].
    """

    input_norm: Tensor
    qkv: Linear
    output: Linear
    post_attention_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True)
class Weights:
    """The whole model. embedding: [vocab, hidden]; lm_head is made of the embedding when the two are tied."""

    dtype: torch.dtype
    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor
    lm_head: Linear


def load_weights(checkpoint: Checkpoint, config: ModelConfig, method: LinearMethod, dtype: torch.dtype) -> Weights:
    """Read a checkpoint layer by layer and hand its matrices to ``method``. Raises CheckpointError on an odd tensor."""
    hidden, dim, inner = config.hidden_size, config.head_dim, config.intermediate_size
    q_rows, kv_rows = config.num_heads * dim, config.num_kv_heads * dim

    def read(name: str, *shape: int) -> Tensor:
        return checkpoint.read(name, shape).to(dtype)

    def read_layer(index: int) -> LayerWeights:
        attn, mlp = f"model.layers.{index}.self_attn.", f"model.layers.{index}.mlp."
        norm = f"model.layers.{index}.{{}}_layernorm.weight"
        qkv_rows = {"q_proj": q_rows, "k_proj": kv_rows, "v_proj": kv_rows}
        bias = config.attention_bias
        qkv_bias = torch.cat([read(f"{attn}{n}.bias", rows) for n, rows in qkv_rows.items()]) if bias else None
        qkv = torch.cat([read(f"{attn}{n}.weight", rows, hidden) for n, rows in qkv_rows.items()])
        gate_up = torch.cat([read(f"{mlp}{n}_proj.weight", inner, hidden) for n in ("gate", "up")])
        output_bias = read(f"{attn}o_proj.bias", hidden) if bias else None
        return LayerWeights(
            input_norm=read(norm.format("input"), hidden),
            qkv=method.make(qkv, qkv_bias),
            output=method.make(read(f"{attn}o_proj.weight", hidden, q_rows), output_bias),
            post_attention_norm=read(norm.format("post_attention"), hidden),
            gate_up=method.make(gate_up, None),
            down=method.make(read(f"{mlp}down_proj.weight", hidden, inner), None),
        )

    embedding = read("model.embed_tokens.weight", config.vocab_size, hidden)
    head = embedding if config.tie_word_embeddings else read("lm_head.weight", config.vocab_size, hidden)
    return Weights(
        dtype=dtype,
        embedding=embedding,
        layers=tuple(read_layer(index) for index in range(config.num_layers)),
        final_norm=read("model.norm.weight", hidden),
        lm_head=method.make(head, None),
    )
