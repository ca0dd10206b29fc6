"""The sampling that a model's makers recommend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minillm_serve.config import ConfigError
from minillm_serve.model.store import resolve_model
from minillm_serve.params import RequestError, SamplingParams

RECOMMENDED = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_new_tokens": "max_tokens",
}


def recommended_fields(model: str) -> dict[str, Any]:
    """The fields of ``generation_config.json`` that vLLM takes over, by the names of SamplingParams.

    Raises :class:`ConfigError` on values out of range. Empty for a model without that file.
    """
    path = Path(resolve_model(model)) / "generation_config.json"
    if not path.is_file():
        return {}
    try:
        return checked_fields(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RequestError) as error:
        raise ConfigError(f"{path} recommends sampling that cannot be: {error}") from error


def checked_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a generation config says of sampling, by the names of SamplingParams. Raises :class:`RequestError`."""
    found = {ours: config[name] for name, ours in RECOMMENDED.items() if config.get(name) is not None}
    SamplingParams(**found)
    return found


def default_sampling_params(model: str) -> SamplingParams:
    """What a model's makers recommend, on top of the usual defaults. Raises :class:`ConfigError`."""
    return SamplingParams(**recommended_fields(model))
