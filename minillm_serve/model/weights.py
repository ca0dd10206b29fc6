"""The tensors of a Llama-family model, projections that read the same input joined into one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from minillm_kernels import HeadNorms
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.linear import Linear, LinearMethod, weight_bytes
from minillm_serve.model.loader import CheckpointError

# What files carry and no forward pass reads: tables that old versions saved, and the copy of a tied head.
UNUSED = re.compile(r".*\.rotary_emb\.inv_freq|.*\.self_attn\.(masked_)?bias|lm_head\.weight")


class TensorSource(Protocol):
    """A checkpoint: tensors by their Hugging Face names (loader.Checkpoint, gguf_checkpoint.GGUFCheckpoint)."""

    def names(self) -> list[str]: ...
    def read(self, name: str, shape: Sequence[int]) -> Tensor: ...


class StoredLayers(Protocol):
    """The layers that a checkpoint keeps quantised, in a format of its own (quant.fp8.StoredFp8, quant.w4.StoredW4)."""

    def tensors(self, layer: str) -> list[str]:
        """The names of a layer's tensors; none if it is stored whole."""
        ...

    def make(self, layers: Mapping[str, int], num_inputs: int, bias: bool) -> Linear:
        """One layer of some projections (name -> outputs) of the same inputs."""
        ...


@dataclass(frozen=True)
class LayerWeights:
    """One transformer layer; shapes of the weights inside.

    qkv: [(heads + 2 * kv_heads) * head_dim, hidden], q rows first, then k, then v; output: [hidden, heads * head_dim];
    gate_up: [2 * intermediate, hidden], gate rows first; down: [hidden, intermediate]. Norms: [hidden]; None: the
    architecture has none there.
    """

    input_norm: Tensor
    qkv: Linear
    head_norms: HeadNorms | None
    output: Linear
    output_norm: Tensor | None
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
    down_norm: Tensor | None


@dataclass(frozen=True)
class Weights:
    """The whole model. embedding: [vocab, hidden]; lm_head is made of the embedding when the two are tied."""

    dtype: torch.dtype
    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor
    lm_head: Linear

    @property
    def step_bytes(self) -> int:
        """Bytes of matrices that every step reads whole."""
        layers = [part for layer in self.layers for part in (layer.qkv, layer.output, layer.gate_up, layer.down)]
        return sum(map(weight_bytes, [*layers, self.lm_head]))


def load_weights(
    source: TensorSource,
    config: ModelConfig,
    method: LinearMethod,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    stored: StoredLayers | None = None,
    head_method: LinearMethod | None = None,
) -> Weights:
    """Read a checkpoint layer by layer and hand its matrices to ``method``: of the whole model only one copy exists.

    stored: makes those that the checkpoint holds quantised. head_method: for the LM head; None: the same.

    Raises CheckpointError on a tensor that is missing, misshapen or used by nothing.
    """
    hidden, dim, inner = config.hidden_size, config.head_dim, config.intermediate_size
    q_rows, kv_rows = config.num_heads * dim, config.num_kv_heads * dim
    used: set[str] = set()

    def read(name: str, *shape: int) -> Tensor:
        used.add(name)
        return source.read(name, shape).to(device, dtype)

    def norm(name: str, size: int = hidden) -> Tensor:
        used.add(name)
        return (source.read(name, (size,)).float() + config.norm_offset).to(device, dtype)

    def linear(prefix: str, rows: dict[str, int], columns: int, bias: bool) -> Linear:
        """One layer of the projections ``rows`` (name -> outputs), which read the same ``columns`` inputs."""
        layers = {f"{prefix}{name}": count for name, count in rows.items()}
        tensors = [name for layer in layers for name in stored.tensors(layer)] if stored else []
        if stored and tensors:
            used.update(tensors)
            return stored.make(layers, columns, bias)
        weights = [read(f"{prefix}{name}.weight", count, columns) for name, count in rows.items()]
        biases = [read(f"{prefix}{name}.bias", count) for name, count in rows.items()] if bias else None
        return method.make(_joined(weights), biases and _joined(biases))

    def head_norms(prefix: str) -> HeadNorms:
        return HeadNorms(*(norm(f"{prefix}{x}_norm.weight", dim) for x in "qk"), config.rms_norm_eps)

    def read_layer(index: int) -> LayerWeights:
        layer = f"model.layers.{index}."
        attn, mlp, sandwich = f"{layer}self_attn.", f"{layer}mlp.", config.sandwich_norms
        before_mlp = "pre_feedforward" if sandwich else "post_attention"
        return LayerWeights(
            input_norm=norm(f"{layer}input_layernorm.weight"),
            qkv=linear(attn, {"q_proj": q_rows, "k_proj": kv_rows, "v_proj": kv_rows}, hidden, config.qkv_bias),
            head_norms=head_norms(attn) if config.qk_norm else None,
            output=linear(attn, {"o_proj": hidden}, q_rows, config.output_bias),
            output_norm=norm(f"{layer}post_attention_layernorm.weight") if sandwich else None,
            mlp_norm=norm(f"{layer}{before_mlp}_layernorm.weight"),
            gate_up=linear(mlp, {"gate_proj": inner, "up_proj": inner}, hidden, config.mlp_bias),
            down=linear(mlp, {"down_proj": hidden}, inner, config.mlp_bias),
            down_norm=norm(f"{layer}post_feedforward_layernorm.weight") if sandwich else None,
        )

    embedding = read("model.embed_tokens.weight", config.vocab_size, hidden)
    head = embedding if config.tie_word_embeddings else read("lm_head.weight", config.vocab_size, hidden)
    weights = Weights(
        dtype=dtype,
        embedding=embedding,
        layers=tuple(read_layer(index) for index in range(config.num_layers)),
        final_norm=norm("model.norm.weight"),
        lm_head=(head_method or method).make(head, None),
    )
    if odd := [name for name in source.names() if name not in used and not UNUSED.fullmatch(name)]:
        raise CheckpointError(
            f"the checkpoint has {len(odd)} tensors that {config.architecture} does not use ({', '.join(odd[:4])}): "
            "its config.json describes another model"
        )
    return weights


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
