"""The target in plain torch: what a head reads of it, and the distributions that it learns from. Nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention

from minillm_serve.config import ConfigError
from minillm_serve.distill.model import Layer, RMSNorm, rotation, same_text
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.loader import Checkpoint

RunLayer = Callable[[Layer, Tensor, tuple[Tensor, Tensor], Tensor], Tensor]


class Teacher:
    """A frozen Llama of safetensors weights. aux_layers: whose entering residual stream belongs to the features."""

    def __init__(self, folder: Path, aux_layers: tuple[int, ...], device: str, dtype: torch.dtype):
        self.config = config = ModelConfig.from_folder(folder)
        _refuse_other_shapes(config, aux_layers)
        self.aux_layers = aux_layers
        self.shape = SimpleNamespace(
            hidden_size=config.hidden_size, intermediate_size=config.intermediate_size, head_dim=config.head_dim,
            num_attention_heads=config.num_heads, num_key_value_heads=config.num_kv_heads,
            rms_norm_eps=config.rms_norm_eps, rope_theta=config.ropes[0].theta,
        )  # fmt: skip
        checkpoint = Checkpoint(folder)

        def weight(name: str) -> Tensor:
            return checkpoint.read_any(name).to(device, dtype)

        def load(module: torch.nn.Module, prefix: str) -> torch.nn.Module:
            module.load_state_dict({name: weight(f"{prefix}.{name}") for name in module.state_dict()})
            return module.to(device, dtype).requires_grad_(False)

        self.layers = [load(Layer(self.shape), f"model.layers.{i}") for i in range(config.num_layers)]
        self.norm = load(RMSNorm(config.hidden_size, config.rms_norm_eps), "model.norm")
        self.embed_tokens = weight("model.embed_tokens.weight")
        self.lm_head = self.embed_tokens if config.tie_word_embeddings else weight("lm_head.weight")

    def embed(self, tokens: Tensor) -> Tensor:
        """[B, T, H]: the target's embeddings of tokens [B, T]."""
        return embedding(tokens, self.embed_tokens)

    @torch.no_grad()
    def features(self, tokens: Tensor, position: Tensor, run_layer: RunLayer | None = None) -> Tensor:
        """[B, T, (aux + 1) H]: the auxiliary residual streams, then the final hidden state (normed).

        tokens: [B, T]; position: [B, T] within each text of a row, 0 where one begins. run_layer: what runs a layer,
        :func:`layer_output` or a compiled one.
        """
        run_layer = run_layer or layer_output
        reach = same_text(position).tril()[:, None]
        rope = rotation(position, self.shape.head_dim, self.shape.rope_theta)
        x, taken = self.embed(tokens), []
        for index, layer in enumerate(self.layers):
            if index in self.aux_layers:
                taken.append(x)
            x = run_layer(layer, x, rope, reach)
        return torch.cat([*taken, self.norm(x)], dim=-1)

    def logits(self, features: Tensor, rows: Tensor | None = None) -> Tensor:
        """[..., V], or of the tokens ``rows`` only, from features [..., (aux + 1) H]."""
        hidden = features[..., -self.config.hidden_size :]
        return linear(hidden, self.lm_head if rows is None else self.lm_head[rows])


def layer_output(layer: Layer, x: Tensor, rope: tuple[Tensor, Tensor], reach: Tensor) -> Tensor:
    """The stream [B, T, H] behind a layer. reach: [B, 1, T, T], True where a position may see another."""
    q, k, v = layer.heads(x, rope)
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    return layer.rest(x, scaled_dot_product_attention(q, k, v, attn_mask=reach))


def _refuse_other_shapes(config: ModelConfig, aux_layers: tuple[int, ...]) -> None:
    odd = {
        "biases": config.qkv_bias or config.output_bias or config.mlp_bias,
        "norms of queries and keys": config.qk_norm,
        "norms after attention and MLP": config.sandwich_norms,
        "Gemma's norms or embedding scale": config.norm_offset != 0 or config.embedding_scale != 1,
        f"the activation {config.activation}": config.activation != "silu",
        f"the attention scale {config.attention_scale}": abs(config.attention_scale**-2 - config.head_dim) > 1e-3,
        "sliding windows": any(config.sliding_windows),
        "scaled or missing RoPE": any(r is None or r.kind != "default" or r != config.ropes[0] for r in config.ropes),
        "quantised weights": config.quantization is not None,
    }
    if found := [name for name, present in odd.items() if present]:
        raise ConfigError(f"a draft head can be trained for plain Llama models; this one has {', '.join(found)}")
    layers = range(config.num_layers)
    if sorted(set(aux_layers)) != list(aux_layers) or not set(aux_layers) <= set(layers):
        raise ConfigError(f"aux_layers must be ascending layers from 0 to {layers[-1]}, got {list(aux_layers)}")
