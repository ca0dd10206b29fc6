"""Rotary position embedding: which frequencies a model turns its heads by, and the tables the engine looks up.

A head's pair i turns by ``position * theta^(-2i/D)`` (Su et al. 2021, arXiv:2104.09864). Models trained on short texts
and stretched to long ones change those frequencies; each way of doing so is a ``kind`` here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minillm_serve.config import ConfigError

NUMBERS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
    "divisors": (),
}
YARN_DEFAULTS = {"beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 0.0, "mscale": 0.0, "mscale_all_dim": 0.0}
IGNORED = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "truncate", "finetuned", "divisors"}


@dataclass(frozen=True)
class Rope:
    """One table's worth of rotation. dim: D, the head size; kind: a key of :data:`NUMBERS`; numbers: its settings.

    divisors: of kind ``divisors``, the [D/2] numbers that divide the frequencies (GGUF files carry them worked out).
    """

    dim: int
    theta: float
    kind: str = "default"
    numbers: tuple[tuple[str, float], ...] = ()
    divisors: tuple[float, ...] = ()

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], dim: int, theta: float) -> Rope:
        """Read ``rope_parameters`` or ``rope_scaling`` of a config.json. Raises :class:`ConfigError` by name."""
        if not isinstance(raw, Mapping):
            raise ConfigError(f"RoPE's settings must be an object, config.json has {raw!r}")
        kind = raw.get("rope_type", raw.get("type")) or "default"
        if not isinstance(kind, str) or kind not in NUMBERS:
            raise ConfigError(f"RoPE scaling {kind!r} is not supported; supported: {', '.join(NUMBERS)}")
        if raw.get("partial_rotary_factor", 1.0) not in (None, 1, 1.0):
            raise ConfigError("RoPE over a part of each head (partial_rotary_factor) is not supported")
        if raw.get("truncate", True) is not True:
            raise ConfigError("RoPE scaling 'yarn' with truncate: false is not supported")
        numbers = dict(YARN_DEFAULTS) if kind == "yarn" else {}
        known = {*NUMBERS[kind], *numbers}
        if kind != "default" and (odd := sorted(set(raw) - known - IGNORED)):
            raise ConfigError(f"RoPE scaling {kind!r} does not know {', '.join(odd)}")
        for name in known:
            if raw.get(name) is not None:
                numbers[name] = positive(f"RoPE scaling's {name}", raw[name])
            elif name not in numbers:
                raise ConfigError(f"RoPE scaling {kind!r} needs {name}, config.json has none")
        divisors = tuple(positive("a RoPE divisor", value) for value in raw.get("divisors", ()))
        if len(divisors) != (dim // 2 if kind == "divisors" else 0):
            raise ConfigError(f"RoPE scaling {kind!r} of heads of {dim} has {len(divisors)} divisors")
        theta = positive("rope_theta", raw.get("rope_theta") or theta)
        return cls(dim, theta, kind, tuple(sorted(numbers.items())), divisors)

    def frequencies(self) -> Tensor:
        """Radians per position: [D/2] fp32."""
        powers = self.theta ** (torch.arange(0, self.dim, 2, dtype=torch.int64).float() / self.dim)
        inverse, numbers = 1.0 / powers, dict(self.numbers)
        if self.kind == "divisors":
            return inverse / torch.tensor(self.divisors, dtype=torch.float32)
        if self.kind == "linear":
            return inverse / numbers["factor"]
        if self.kind == "llama3":
            return _llama3(inverse, **numbers)
        if self.kind == "yarn":
            return _yarn(powers, self.dim, self.theta, numbers)
        return inverse

    def amplitude(self) -> float:
        """What cos and sin are multiplied by: 1, except in YaRN, which so sharpens the attention."""
        numbers = dict(self.numbers)
        if self.kind != "yarn":
            return 1.0
        if numbers["attention_factor"]:
            return numbers["attention_factor"]
        if numbers["mscale"] and numbers["mscale_all_dim"]:
            return _mscale(numbers["factor"], numbers["mscale"]) / _mscale(numbers["factor"], numbers["mscale_all_dim"])
        return _mscale(numbers["factor"], 1.0)

    def table(self, length: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """cos and sin of every position below ``length``, worked out on the CPU: two [length, D/2] on ``device``."""
        angles = torch.outer(torch.arange(length).float(), self.frequencies())
        return tuple((part * self.amplitude()).to(device, dtype) for part in (angles.cos(), angles.sin()))


def _llama3(
    inverse: Tensor,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: float,
) -> Tensor:
    """Llama 3.1: slow pairs are slowed by ``factor``, fast ones kept, those between blended (arXiv:2407.21783)."""
    turns = original_max_position_embeddings * inverse / (2 * math.pi)  # over the length the model was trained on
    blend = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return (1 - blend) * inverse / factor + blend * inverse


def _yarn(powers: Tensor, dim: int, theta: float, numbers: dict[str, float]) -> Tensor:
    """YaRN: the same idea, blended linearly in the pair's index (Peng et al. 2023, arXiv:2309.00071)."""

    def pair_that_turns(times: float) -> float:
        return dim * math.log(numbers["original_max_position_embeddings"] / (times * 2 * math.pi)) / 2 / math.log(theta)

    low = max(math.floor(pair_that_turns(numbers["beta_fast"])), 0)
    high = min(math.ceil(pair_that_turns(numbers["beta_slow"])), dim - 1)
    slowed = ((torch.arange(dim // 2).float() - low) / max(high - low, 0.001)).clamp(0, 1)
    return slowed / (numbers["factor"] * powers) + (1 - slowed) / powers


def _mscale(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def positive(name: str, value: Any) -> float:
    """A setting that must be a positive number. Raises :class:`ConfigError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(f"{name} must be a positive number, config.json has {value!r}")
    return float(value)
