"""FP8 linear layers (e4m3): half of bf16's bytes to stream, twice the products per instruction (``quantize linear``).

Weights are rounded when the model is loaded, one scale per output or one per matrix, or taken as an FP8 checkpoint
keeps them; activations are rounded at each call, one scale per token. Made for GPUs with FP8 tensor cores (Ada,
Hopper); elsewhere the reference computes the same, slowly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from minillm_kernels import Ops
from minillm_kernels.ref_fp8 import Fp8Weight
from minillm_serve.config import ConfigError
from minillm_serve.model.loader import CheckpointError


@dataclass(frozen=True)
class Fp8Linear:
    """A weight in the layout that ``ops.linear_fp8`` wants."""

    ops: Ops
    packed: Fp8Weight
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return self.ops.linear_fp8(x, self.packed, self.bias)


@dataclass(frozen=True)
class Fp8:
    """The linear method ``fp8`` (W8A8). The embedding stays as it is: only its copy in the LM head is rounded."""

    ops: Ops
    per_tensor: bool = False

    def make(self, weight: Tensor, bias: Tensor | None) -> Fp8Linear:
        return Fp8Linear(self.ops, self.ops.pack_linear_fp8(weight, self.per_tensor), bias)


def check_fp8_format(raw: Mapping[str, Any]) -> None:
    """Refuses with :class:`ConfigError` a ``quantization_config`` whose checkpoint :class:`StoredFp8` would misread.

    Two ways to write it are known: vLLM's ``fp8`` and ``compressed-tensors``. Fixed scales of activations are no
    obstacle: scales per token, as here, are at least as exact.
    """
    method = raw.get("quant_method")
    if method == "fp8":
        if raw.get("weight_block_size"):
            raise ConfigError(f"fp8 with weight_block_size {raw['weight_block_size']!r} is not supported")
    elif method == "compressed-tensors" and raw.get("format") == "float-quantized":
        groups = raw.get("config_groups")
        parts = [group.get("weights") for group in groups.values()] if isinstance(groups, dict) else [None]
        for weights in parts:
            strategy = weights.get("strategy") if isinstance(weights, dict) else weights
            if strategy not in ("tensor", "channel"):
                raise ConfigError(f"FP8 weights of strategy {strategy!r} are not supported, only tensor and channel")
    else:
        raise ConfigError(f"quantization_config with quant_method {method!r}, format {raw.get('format')!r} is not FP8")


class Fp8Source(Protocol):
    """A checkpoint that holds scales as well (loader.Checkpoint)."""

    def names(self) -> list[str]: ...
    def read(self, name: str, shape: Sequence[int]) -> Tensor: ...
    def read_any(self, name: str) -> Tensor: ...


class StoredFp8:
    """The layers that a checkpoint keeps in FP8: ``weight`` [out, in] e4m3 and ``weight_scale`` [], [1] or [out, 1]."""

    def __init__(self, ops: Ops, source: Fp8Source, dtype: torch.dtype, device: torch.device | str):
        self.ops, self.source = ops, source
        self.dtype, self.device = dtype, device
        self._names = frozenset(source.names())

    def tensors(self, layer: str) -> list[str]:
        """The file's tensors of a layer, such as ``model.layers.0.mlp.down_proj``; none if it is stored unquantised."""
        if f"{layer}.weight_scale" not in self._names:
            return []
        parts = ("weight", "weight_scale", "input_scale", "bias")
        return [name for name in (f"{layer}.{part}" for part in parts) if name in self._names]

    def make(self, layers: Mapping[str, int], num_inputs: int, bias: bool) -> Fp8Linear:
        """One layer of some projections (name -> outputs) of the same inputs: codes stay as they are, and scales too,
        one per output even where each projection has a single one. Raises CheckpointError."""
        codes = [self._codes(layer, outputs, num_inputs) for layer, outputs in layers.items()]
        scales = [self._scales(layer, outputs) for layer, outputs in layers.items()]
        biases = [self.source.read(f"{layer}.bias", (outputs,)) for layer, outputs in layers.items()] if bias else None
        packed = Fp8Weight(torch.cat(codes).to(self.device), torch.cat(scales).to(self.device))
        return Fp8Linear(self.ops, packed, None if biases is None else torch.cat(biases).to(self.device, self.dtype))

    def _codes(self, layer: str, outputs: int, inputs: int) -> Tensor:
        codes = self.source.read(f"{layer}.weight", (outputs, inputs))
        if codes.dtype != torch.float8_e4m3fn:
            raise CheckpointError(f"{layer}.weight has a scale, but holds {codes.dtype} instead of float8_e4m3fn")
        return codes

    def _scales(self, layer: str, outputs: int) -> Tensor:
        scales = self.source.read_any(f"{layer}.weight_scale")
        if tuple(scales.shape) not in ((), (1,), (outputs,), (outputs, 1)):
            raise CheckpointError(
                f"{layer}.weight_scale has shape {list(scales.shape)}, expected one or {outputs} scales"
            )
        return scales.float().flatten().expand(outputs)
