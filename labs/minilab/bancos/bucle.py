"""The real model, token by token, over a student's KV cache and attention: lab 1's seam.

The student's loop calls an object ``modelo(ids, posiciones) -> logits``. Here that object runs the engine's own
:class:`LlamaModel`; only where keys and values are kept, and how queries meet them, is the student's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from minilab.modelo import LabModel
from minilab.reloj.motor_real import load_model
from minillm_kernels import HeadNorms
from minillm_serve.model.llama import LlamaModel

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""f(queries [T, H, D], keys [S, G, D], values [S, G, D]) -> [T, H, D]; the queries are the last T of S tokens."""


class Cache(Protocol):
    """What the student's ``CacheKV`` offers the model."""

    def agrega(self, capa: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep k and v [T, G, D] of a layer; all that the layer holds now, two [S, G, D]."""
        ...


def carga(modelo: LabModel) -> LlamaModel:
    """The notebook's model in float32, on plain torch operations."""
    return load_model(Path(modelo.carpeta))


class AtencionConTuCache:
    """Attention over the student's cache, with the interface of ``PagedAttention``: one sequence, one call a layer."""

    def __init__(self, red: LlamaModel, cache: Cache, atencion: AttentionFunction):
        self._config, self._cache, self._attention = red.config, cache, atencion
        self._ops = replace(red.ops, attend=self._attend, fused_attend_qkv=None)

    def attend(self, layer: int, qkv: Tensor, norms: HeadNorms | None, angles: Any | None) -> Tensor:
        """qkv: [T, H + 2 * G, D] of the new tokens -> [T, H, D]; the engine's ops normalise and rotate the heads."""
        kv_heads, scale = self._config.num_kv_heads, self._config.attention_scale
        return self._ops.attend_qkv(qkv, norms, angles, layer, None, None, kv_heads, scale, 0)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, layer: int, slots: None, plan: None, scale: float, window: int
    ) -> Tensor:
        keys, values = self._cache.agrega(layer, k, v)
        out = self._attention(q, keys, values)
        if not isinstance(out, Tensor):
            raise TypeError(f"la atención debe devolver un tensor y devolvió un objeto de tipo {type(out).__name__}")
        if out.shape != q.shape:
            raise ValueError(f"la atención debe devolver la forma {tuple(q.shape)} y devolvió {tuple(out.shape)}")
        return out


class ConTuCache:
    """``modelo(ids, posiciones) -> logits [vocab]`` of the last id; what went before is in the student's cache.

    calculados: tokens that went through the model since it was made.
    """

    def __init__(self, red: LlamaModel, cache: Cache, atencion: AttentionFunction):
        self._model, self._attention = red, AtencionConTuCache(red, cache, atencion)
        self.calculados = 0

    @torch.inference_mode()
    def __call__(self, ids: Sequence[int], posiciones: Sequence[int]) -> Tensor:
        self.calculados += len(ids)
        last = torch.tensor([len(ids) - 1])
        return self._model.forward(torch.tensor(ids), torch.tensor(posiciones), self._attention, last)[0]


class SinCache:
    """The same object without memory between steps: each call puts the whole text through the model again."""

    def __init__(self, red: LlamaModel, nueva_cache: Callable[[], Cache], atencion: AttentionFunction):
        self._model, self._new_cache, self._attention = red, nueva_cache, atencion
        self._known: list[int] = []
        self.calculados = 0

    def __call__(self, ids: Sequence[int], posiciones: Sequence[int]) -> Tensor:
        self._known += ids
        again = ConTuCache(self._model, self._new_cache(), self._attention)
        logits = again(self._known, range(len(self._known)))
        self.calculados += again.calculados
        return logits
