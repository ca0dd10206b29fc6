"""The sampling that a model's makers recommend."""

from __future__ import annotations

import json
from pathlib import Path

from minillm_serve.config import ConfigError
from minillm_serve.model.store import resolve_model
from minillm_serve.params import RequestError, SamplingParams

RECOMMENDED = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}


def default_sampling_params(model: str) -> SamplingParams:
    """The fields of ``generation_config.json`` that vLLM takes over, on top of the usual defaults.

    Raises :class:`ConfigError` on values out of range.
    """
    path = Path(resolve_model(model)) / "generation_config.json"
    if not path.is_file():
        return SamplingParams()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return SamplingParams(**{ours: raw[name] for name, ours in RECOMMENDED.items() if raw.get(name) is not None})
    except (ValueError, RequestError) as error:
        raise ConfigError(f"{path} recommends sampling that cannot be: {error}") from error
