"""What a user may ask for: sampling parameters, checked when they are made, with the field at fault named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite
from typing import Any


class RequestError(ValueError):
    """The request cannot be served as asked: says what was wrong, what was expected and which field it was.

    ``param`` is the dotted path of the offending field (``None`` when no single field is to blame).
    The HTTP server answers it with 400; nothing of the request has been scheduled.
    """

    def __init__(self, message: str, param: str | None = None):
        super().__init__(message)
        self.param = param


MAX_STOP_STRINGS = 4


@dataclass(frozen=True, kw_only=True)
class StructuredOutputsParams:
    """Constraint on the generated text (vLLM's field names). ``json`` is a JSON Schema, as a dict or JSON text."""

    json: dict[str, Any] | bool | str

    def json_text(self) -> str:
        """The schema as canonical JSON text: the key under which its compiled grammar is shared."""
        if isinstance(self.json, str):
            return self.json
        try:
            return json.dumps(self.json, ensure_ascii=False)
        except (RecursionError, TypeError, ValueError) as error:
            raise RequestError(f"the schema is not JSON: {error}", "structured_outputs.json") from error


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to pick each next token and when to stop; field names and meanings follow vLLM.

    ``temperature`` 0 is greedy. ``top_k`` 0 or -1 keeps every token. ``seed`` makes the output a function of the
    request alone, whatever else is in the batch. ``max_tokens`` None means "until the context is full".
    ``stop`` strings never appear in the output. Raises :class:`RequestError` on any value outside its range.
    """

    max_tokens: int | None = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    structured_outputs: StructuredOutputsParams | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        for name in ("stop", "stop_token_ids"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (list, tuple)):
                raise RequestError(f"{name} must be a list, got {value!r}", name)
            object.__setattr__(self, name, tuple(value or ()))
        _check_int("max_tokens", self.max_tokens, low=1, optional=True)
        _check_number("temperature", self.temperature, low=0.0, high=2.0)
        _check_number("top_p", self.top_p, low=0.0, high=1.0)
        if self.top_p == 0:
            raise RequestError("top_p must be in (0, 1], got 0", "top_p")
        _check_int("top_k", self.top_k, low=-1)
        _check_int("seed", self.seed, low=-(2**63), high=2**63 - 1, optional=True)
        if len(self.stop) > MAX_STOP_STRINGS:
            raise RequestError(f"at most {MAX_STOP_STRINGS} stop strings are allowed, got {len(self.stop)}", "stop")
        for text in self.stop:
            if not isinstance(text, str) or not text:
                raise RequestError("each stop string must be a non-empty string", "stop")
        for token in self.stop_token_ids:
            _check_int("stop_token_ids", token, low=0)
        if not isinstance(self.ignore_eos, bool):
            raise RequestError("ignore_eos must be true or false", "ignore_eos")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


def _check_int(name: str, value: Any, low: int, high: int | None = None, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} must be an integer, got {value!r}", name)
    if value < low or (high is not None and value > high):
        limit = f"at least {low}" if high is None else f"between {low} and {high}"
        raise RequestError(f"{name} must be {limit}, got {value}", name)


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise RequestError(f"{name} must be a finite number, got {value!r}", name)
    if not low <= value <= high:
        raise RequestError(f"{name} must be between {low:g} and {high:g}, got {value:g}", name)
