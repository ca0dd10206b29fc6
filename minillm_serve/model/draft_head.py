"""Small networks that guess what a large one will say next: an EAGLE-style head, or a whole model of its own.

The head (arXiv:2401.15077, trained as in arXiv:2503.01840; see :mod:`minillm_serve.distill`) reads, for the token at
position i, the target's features of position i - 1 and the embedding of token i, and predicts token i + 1. Where the
target has not been yet, the head's own output stands in for the features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from minillm_serve.config import ConfigError
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.linear import Linear, LinearMethod, Unquantized, weight_bytes
from minillm_serve.model.llama import Attention, LlamaModel
from minillm_serve.model.loader import CheckpointError
from minillm_serve.model.weights import TensorSource, load_weights

ARCHITECTURE = "MiniLLMEagleHead"


class DraftNet(Protocol):
    """What :mod:`minillm_serve.runner.drafter` drives.

    aux_layers: target layers whose input is wanted beside its final hidden state; None: it reads tokens alone.
    token_map: [D] the target's id of each token it can draft; None: it has the target's own vocabulary. step_bytes: of
    matrices that each drafted token reads.
    """

    config: ModelConfig
    aux_layers: tuple[int, ...] | None
    token_map: Tensor | None
    step_bytes: int

    def first(
        self, ids: Tensor, positions: Tensor, attention: Attention, last: Tensor, features: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """ids, positions: [T]; features: [T, F] of the position before each -> logits [S, D] and state [S, hidden]."""
        ...

    def further(
        self, ids: Tensor, positions: Tensor, attention: Attention, every: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same for tokens that were only drafted; state: [S, hidden] of the position before; every: 0 to S - 1."""
        ...


class DraftModel:
    """A whole model with the target's vocabulary."""

    aux_layers = None
    token_map = None

    def __init__(self, model: LlamaModel):
        self.model, self.config = model, model.config
        self.step_bytes = model.weights.step_bytes

    def first(
        self, ids: Tensor, positions: Tensor, attention: Attention, last: Tensor, features: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        hidden = self.model.hidden(ids, positions, attention, last)
        return self.model.logits(hidden), hidden

    def further(
        self, ids: Tensor, positions: Tensor, attention: Attention, every: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.first(ids, positions, attention, every, None)


class EagleHead:
    """fc: features [F] -> hidden; join: token and features, normalised, [2 * hidden] -> hidden; then ``layers``."""

    def __init__(
        self,
        layers: LlamaModel,
        fc: Linear,
        join: Linear,
        norms: tuple[Tensor, Tensor],
        aux_layers: tuple[int, ...],
        token_map: Tensor,
    ):
        self.layers, self.config = layers, layers.config
        self.fc, self.join, self.norms = fc, join, norms
        self.aux_layers, self.token_map = aux_layers, token_map
        self.step_bytes = layers.weights.step_bytes + weight_bytes(join)

    def first(
        self, ids: Tensor, positions: Tensor, attention: Attention, last: Tensor, features: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        assert features is not None
        return self._run(ids, positions, attention, last, self.fc(features))

    def further(
        self, ids: Tensor, positions: Tensor, attention: Attention, every: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self._run(ids, positions, attention, every, state)

    def _run(
        self, ids: Tensor, positions: Tensor, attention: Attention, last: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor]:
        layers, (of_token, of_features) = self.layers, self.norms
        eps, rms_norm = self.config.rms_norm_eps, self.layers.ops.rms_norm
        both = torch.cat((rms_norm(layers.embed(ids), of_token, eps), rms_norm(features, of_features, eps)), 1)
        hidden, state = layers.decode(self.join(both), positions, attention, last)
        return layers.logits(hidden), state


class HeadSource(TensorSource, Protocol):
    """A head's own checkpoint, which holds a table of token ids too."""

    def read_integers(self, name: str, shape: Sequence[int]) -> Tensor: ...


class _HeadTensors:
    """A head's checkpoint under the names that :func:`load_weights` asks for; it borrows the target's embedding."""

    def __init__(self, source: TensorSource, target: LlamaModel, head: Tensor):
        self._source, self._target, self._head = source, target, head

    def names(self) -> list[str]:
        return []  # what is there besides was read by load_head

    def read(self, name: str, shape: Sequence[int]) -> Tensor:
        if name == "model.embed_tokens.weight":
            return self._target.weights.embedding
        return self._head if name == "lm_head.weight" else self._source.read(name.removeprefix("model."), shape)


def read_head_config(folder: str | Path) -> dict[str, Any] | None:
    """The config.json of a draft head's folder; None if the folder holds something else."""
    path = Path(folder) / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}, of the model that drafts, cannot be read: {error}") from error
    return raw if ARCHITECTURE in raw.get("architectures", ()) else None


def load_head(
    raw: dict[str, Any], source: HeadSource, target: LlamaModel, method: LinearMethod, max_model_len: int
) -> EagleHead:
    """raw: what config.json says. method: makes its layers and LM head; ``fc`` and ``input`` are kept whole, since
    features have channels a thousand times larger than the rest, beside which 8 bits leave nothing.

    Raises ConfigError on a head that was made for another target.
    """
    hidden, vocab = target.config.hidden_size, target.config.vocab_size
    try:
        size, aux = int(raw["draft_vocab_size"]), tuple(int(layer) for layer in raw["aux_layers"])
        theirs = int(raw["hidden_size"]), int(raw["vocab_size"])
        config = ModelConfig.from_hf(raw | {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False})
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"the draft head's config.json is incomplete: {error!r}") from error
    if theirs != (hidden, vocab) or any(not 0 <= layer < target.config.num_layers for layer in aux):
        raise ConfigError(
            f"the draft head was made for a target of hidden size {theirs[0]} and {theirs[1]} tokens, with features of "
            f"layers {list(aux)}: this one has {hidden}, {vocab} and {target.config.num_layers} layers"
        )
    weights, ops = target.weights, target.ops
    whole = Unquantized(ops)
    device, dtype = weights.embedding.device, weights.dtype

    def read(name: str, *shape: int) -> Tensor:
        return source.read(name, shape).to(device, dtype)

    token_map = _token_map(source, size, vocab).to(device)
    own = "lm_head.weight" in source.names()
    head = read("lm_head.weight", size, hidden) if own else _rows_of_head(target, token_map)
    return EagleHead(
        LlamaModel(
            replace(config, vocab_size=vocab, embedding_scale=target.config.embedding_scale),
            load_weights(_HeadTensors(source, target, head), config, method, dtype, device),
            ops,
            max_model_len,
        ),
        whole.make(read("fc.weight", hidden, (len(aux) + 1) * hidden), None),
        whole.make(read("input.weight", hidden, 2 * hidden), None),
        (read("embed_norm.weight", hidden), read("feature_norm.weight", hidden)),
        tuple(sorted(aux)),
        token_map,
    )


def _token_map(source: HeadSource, size: int, vocab: int) -> Tensor:
    token_map = source.read_integers("token_map", (size,)).long()
    if token_map.min() < 0 or token_map.max() >= vocab or len(token_map.unique()) != size:
        raise CheckpointError(f"the draft head's token_map must name {size} different tokens below {vocab}")
    return token_map


def _rows_of_head(target: LlamaModel, token_map: Tensor) -> Tensor:
    """The target's own LM head, of the tokens that are drafted. It is tied to the embedding where nothing is stored."""
    if not target.config.tie_word_embeddings:
        raise CheckpointError("the draft head has no lm_head.weight, and the target's is not its embedding")
    return target.weights.embedding[token_map]
