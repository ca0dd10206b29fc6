"""4-bit linear layers (W4A16): rounded when the model is loaded (``int4``), or as AWQ and GPTQ checkpoints keep them.

Decode streams a quarter of bf16's bytes. Embedding, norms and the LM head stay in the model's dtype: the head's errors
fall on the logits without a layer in between, and checkpoints leave it alone too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from minillm_kernels import Ops
from minillm_kernels.ref_w4 import GROUPS, W4Weight, join_w4
from minillm_kernels.w4_layouts import from_awq, from_gptq
from minillm_serve.config import ConfigError
from minillm_serve.model.loader import CheckpointError

FORMATS = {"awq": {"gemm": "version"}, "gptq": {"gptq": "checkpoint_format", "gptq_v2": "checkpoint_format"}}


@dataclass(frozen=True)
class W4Linear:
    """A weight in the layout that ``ops.linear_w4`` wants."""

    ops: Ops
    packed: W4Weight
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return self.ops.linear_w4(x, self.packed, self.bias)


@dataclass(frozen=True)
class Int4:
    """The linear method ``int4``: round to nearest, in the largest group of 128, 64 or 32 that divides the inputs."""

    ops: Ops

    def make(self, weight: Tensor, bias: Tensor | None) -> W4Linear:
        return W4Linear(self.ops, self.ops.pack_linear_w4(weight), bias)


@dataclass(frozen=True)
class W4Format:
    """What ``quantization_config`` in a config.json says. method: awq or gptq; group: inputs to a scale, -1: all."""

    method: str
    layout: str
    group: int

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> W4Format:
        """Refuses with :class:`ConfigError` what we would read wrongly."""
        method = raw.get("quant_method")
        if not isinstance(method, str) or method not in FORMATS:
            raise ConfigError(f"quantization_config with quant_method {method!r}; supported: {', '.join(FORMATS)}")
        if raw.get("bits", raw.get("w_bit")) != 4:
            raise ConfigError(f"{method} with {raw.get('bits', raw.get('w_bit'))!r} bits is not supported, only 4 are")
        layouts = FORMATS[method]
        name, default = next((name, layout) for layout, name in layouts.items())
        layout = str(raw.get(name) or default).lower()
        if layout not in layouts:
            raise ConfigError(f"{method} with {name} {raw[name]!r} is not supported; supported: {', '.join(layouts)}")
        if raw.get("dynamic"):
            raise ConfigError(f"{method} with dynamic = {raw['dynamic']!r}: layers that differ are not supported")
        group = raw.get("group_size", raw.get("q_group_size", 128))
        if isinstance(group, bool) or not isinstance(group, int) or (group != -1 and (group < 1 or group % GROUPS[-1])):
            raise ConfigError(f"{method} needs group_size -1 or a multiple of {GROUPS[-1]}, it has {group!r}")
        return cls(method, layout, group)


class W4Source(Protocol):
    """A checkpoint that holds integers as well (loader.Checkpoint)."""

    def names(self) -> list[str]: ...
    def read(self, name: str, shape: Sequence[int]) -> Tensor: ...
    def read_integers(self, name: str, shape: Sequence[int]) -> Tensor: ...


class StoredW4:
    """The layers that a checkpoint keeps in 4 bits, repacked one at a time."""

    def __init__(self, ops: Ops, source: W4Source, format: W4Format, dtype: torch.dtype, device: torch.device | str):
        self.ops, self.source, self.format = ops, source, format
        self.dtype, self.device = dtype, device
        self._names = frozenset(source.names())

    def tensors(self, layer: str) -> list[str]:
        """The file's tensors of a layer, such as ``model.layers.0.mlp.down_proj``; none if it is stored unquantised."""
        if f"{layer}.qweight" not in self._names:
            return []
        parts = ("qweight", "qzeros", "scales", "g_idx", "bias")
        return [name for name in (f"{layer}.{part}" for part in parts) if name in self._names]

    def make(self, layers: Mapping[str, int], num_inputs: int, bias: bool) -> W4Linear:
        """One layer of some projections (name -> outputs) of the same inputs. Raises CheckpointError.

        bias: the architecture has one. Some files carry one all the same, mostly zeros: it is added.
        """
        try:
            packed = join_w4([self._read(layer, outputs, num_inputs) for layer, outputs in layers.items()])
        except ValueError as error:
            raise CheckpointError(f"{', '.join(layers)}: {error}") from error
        return W4Linear(self.ops, packed, self._bias(layers, bias))

    def _read(self, layer: str, outputs: int, inputs: int) -> W4Weight:
        group = inputs if self.format.group == -1 else self.format.group
        if inputs % group or outputs % 8:
            raise CheckpointError(
                f"{layer} has {inputs} inputs and {outputs} outputs: not whole groups of {group}, of 8"
            )
        awq, groups = self.format.method == "awq", inputs // group
        qweight = self._integers(f"{layer}.qweight", *((inputs, outputs // 8) if awq else (inputs // 8, outputs)))
        qzeros = self._integers(f"{layer}.qzeros", groups, outputs // 8)
        scales = self.source.read(f"{layer}.scales", (groups, outputs)).to(self.device)
        if awq:
            return from_awq(qweight, qzeros, scales)
        named = f"{layer}.g_idx" in self._names
        g_idx = self._integers(f"{layer}.g_idx", inputs) if named else None
        return from_gptq(qweight, qzeros, scales, g_idx, zeros_less_one=self.format.layout == "gptq")

    def _integers(self, name: str, *shape: int) -> Tensor:
        return self.source.read_integers(name, shape).to(self.device)

    def _bias(self, layers: Mapping[str, int], needed: bool) -> Tensor | None:
        stored = [f"{layer}.bias" in self._names for layer in layers]
        if not needed and not any(stored):
            return None
        parts = [
            self.source.read(f"{layer}.bias", (outputs,)) if needed or there else torch.zeros(outputs)
            for (layer, outputs), there in zip(layers.items(), stored, strict=True)
        ]
        joined = torch.cat([part.float() for part in parts])
        return joined.to(self.device, self.dtype) if joined.any() else None
