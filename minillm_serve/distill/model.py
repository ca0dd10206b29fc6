"""The draft head in plain torch, for training (EAGLE, Li et al. 2024, arXiv:2401.15077; EAGLE-3, arXiv:2503.01840).

At position i it reads the token there and what the target made of position i - 1, and predicts token i + 1. Where the
target has not been yet, its own output of position i - 1 stands in: so it is trained too, unrolled over its own outputs
(HASS, arXiv:2408.15766). Notation: B rows, T positions, H hidden size, D draft tokens, d head size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import pad, rms_norm, silu

Memory = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Shape of a head, with the keys that its ``config.json`` has; the shapes are the target's.

    aux_layers: the target's layers whose entering residual stream is read beside its final hidden state.
    draft_vocab_size: D. own_head: it has an LM head of its own (not a key of the file: the tensor is there or not).
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float
    rope_theta: float
    aux_layers: tuple[int, ...]
    draft_vocab_size: int
    vocab_size: int
    max_position_embeddings: int
    target: str
    own_head: bool = False

    def to_json(self) -> dict[str, Any]:
        values = asdict(self) | {"aux_layers": list(self.aux_layers)}
        del values["own_head"]
        return {"architectures": ["MiniLLMEagleHead"], "method": "eagle", **values, "torch_dtype": "bfloat16"}


class RMSNorm(nn.Module):
    """x: [..., H], normed in float32, of the dtype it came in."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


class Layer(nn.Module):
    """A pre-norm Llama layer whose attention is the caller's; parameter names are the checkpoints'."""

    def __init__(self, config: Any):
        super().__init__()
        hidden, inner, dim = config.hidden_size, config.intermediate_size, config.head_dim
        sizes = {"q_proj": config.num_attention_heads * dim, "k_proj": config.num_key_value_heads * dim}
        sizes["v_proj"] = sizes["k_proj"]
        self.head_dim = dim
        self.input_layernorm = RMSNorm(hidden, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(hidden, config.rms_norm_eps)
        self.self_attn = nn.ModuleDict({name: nn.Linear(hidden, size, bias=False) for name, size in sizes.items()})
        self.self_attn["o_proj"] = nn.Linear(sizes["q_proj"], hidden, bias=False)
        self.mlp = nn.ModuleDict({name: nn.Linear(hidden, inner, bias=False) for name in ("gate_proj", "up_proj")})
        self.mlp["down_proj"] = nn.Linear(inner, hidden, bias=False)

    def heads(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [B, heads, T, d] and keys, and values [B, KV heads, T, d], of x: [B, T, H]."""
        x = self.input_layernorm(x)
        q, k, v = (
            self.self_attn[name](x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        return rotate(q, rope), rotate(k, rope), v

    def rest(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The layer's output from its input x: [B, T, H] and what attention mixed: [B, heads, T, d]."""
        x = x + self.self_attn["o_proj"](mixed.transpose(1, 2).flatten(2))
        y = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y))


class DraftHead(nn.Module):
    """The head's parameters, under the names of its file."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.config = config
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.fc = nn.Linear((len(config.aux_layers) + 1) * hidden, hidden, bias=False)
        self.embed_norm, self.feature_norm, self.norm = (RMSNorm(hidden, eps) for _ in range(3))
        self.input = nn.Linear(2 * hidden, hidden, bias=False)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.lm_head = nn.Linear(hidden, config.draft_vocab_size, bias=False) if config.own_head else None

    def unroll(self, embeddings: Tensor, features: Tensor, position: Tensor, steps: int) -> list[Tensor]:
        """Outputs [B, T, H] (before the last norm) of ``steps`` draft steps, every position being drafted from at once.

        Step j at position i is the (j+1)-th draft of a chain that began at position i - j with the target's features:
        it stands on the output of step j - 1 at position i - 1, and attends to step 0 up to position i - j and to steps
        1 to j of its own chain. Where i - j lies in another text there is no chain, and its output means nothing.
        embeddings: [B, T, H] of the tokens; features: [B, T, (aux + 1) H] of the target at the same positions;
        position: [B, T] within each text, 0 where one begins.
        """
        same = same_text(position)
        rope = rotation(position, self.config.head_dim, self.config.rope_theta)
        e = self.embed_norm(embeddings)
        g = back(self.fc(features), 1) * (position > 0)[..., None]
        memories: list[Memory] = [[] for _ in self.layers]
        outputs: list[Tensor] = []
        for step in range(steps):
            x = self.input(torch.cat([e, self.feature_norm(g).to(e.dtype)], dim=-1))
            reach = same.tril(-step)
            for layer, memory in zip(self.layers, memories, strict=True):
                q, k, v = layer.heads(x, rope)
                memory.append((k, v))
                x = layer.rest(x, chain_attention(q, memory, reach))
            outputs.append(x)
            g = back(x, 1)
        return outputs

    def save(self, folder: str | Path, token_map: Tensor) -> None:
        """Write ``config.json`` and ``model.safetensors``; token_map: [D], draft to target id, kept as int32."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().to("cpu", torch.bfloat16) for name, value in self.state_dict().items()}
        tensors["token_map"] = token_map.to("cpu", torch.int32)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self.config.to_json(), indent=1) + "\n", encoding="utf-8")


def chain_attention(q: Tensor, memory: Sequence[tuple[Tensor, Tensor]], reach: Tensor) -> Tensor:
    """Attention [B, heads, T, d] of the last draft step: over step 0 within ``reach``, and over its own chain.

    q: [B, heads, T, d]; memory: each step's keys and values [B, KV heads, T, d]; reach: [B, T, T], True where a query
    may see a key of step 0. A chain has one key per later step, so its scores are sums of products, not a matrix: the
    two parts are summed as exponentials under one maximum.
    """
    (first_key, first_value), chain = memory[0], memory[1:]
    kv_heads = first_key.shape[1]
    group = q.shape[1] // kv_heads
    q = q.unflatten(1, (kv_heads, group)) * q.shape[-1] ** -0.5
    ages = range(len(chain) - 1, -1, -1)  # how many positions before the query its chain's keys stand
    scores = (q.flatten(2, 3) @ first_key.mT).float().unflatten(2, (group, -1))
    scores = scores.masked_fill(~reach[:, None, None], float("-inf"))
    own = [(q * back(k, age)[:, :, None]).float().sum(-1) for (k, _), age in zip(chain, ages, strict=True)]
    top = torch.stack([scores.amax(-1), *own]).amax(0).detach()
    weights, own = (scores - top[..., None]).exp(), [(score - top).exp() for score in own]
    mixed = (weights.to(q.dtype).flatten(2, 3) @ first_value).unflatten(2, (group, -1)).float()
    for weight, (_, v), age in zip(own, chain, ages, strict=True):
        mixed = mixed + weight[..., None] * back(v, age)[:, :, None]
    return (mixed / sum(own, weights.sum(-1))[..., None]).flatten(1, 2).to(first_value.dtype)


def back(x: Tensor, count: int) -> Tensor:
    """x: [..., T, C] as it stood ``count`` positions earlier; zeros where a row had not begun."""
    return pad(x, (0, 0, count, 0))[..., : x.shape[-2], :] if count else x


def same_text(position: Tensor) -> Tensor:
    """[B, T, T]: True where two positions of a row belong to the same text. position: [B, T], 0 where one begins."""
    text = (position == 0).cumsum(-1)
    return text[:, :, None] == text[:, None, :]


def rotation(position: Tensor, dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine [B, 1, T, d / 2] by which heads turn (Su et al. 2021, arXiv:2104.09864)."""
    frequencies = theta ** (-torch.arange(0, dim, 2, device=position.device, dtype=torch.float32) / dim)
    angles = position[:, None, :, None].float() * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """x: [B, heads, T, d], each pair (i, i + d/2) turned."""
    cos, sin = rope
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
