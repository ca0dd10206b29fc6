"""What a request is given that does not say: the model's recommended sampling, and what the server's flags add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minillm_serve.engine.defaults import recommended_fields
from minillm_serve.serve.settings import ServerSettings


@dataclass(frozen=True)
class SamplingDefaults:
    """``fields``: of SamplingParams, for requests without them. max_tokens: for a chat without one (None: all that the
    context leaves). max_tokens_cap: for every request, whatever it asks for.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    max_tokens_cap: int | None = None

    @classmethod
    def of(cls, model: str, settings: ServerSettings) -> SamplingDefaults:
        """``generation_config.json`` of the model folder, then ``--override-generation-config``. Raises ConfigError.

        As in vLLM, the file's max_new_tokens is a default and the flag's a cap.
        """
        recommended = recommended_fields(model) if settings.generation_config == "auto" else {}
        override = settings.generation_override
        fields = recommended | override
        limit = fields.pop("max_tokens", None)
        return cls(fields, limit, override.get("max_tokens"))

    def token_limit(self, asked: int | None) -> int | None:
        """max_tokens of a request that asked for so many (None: it did not say)."""
        wanted = self.max_tokens if asked is None else asked
        limits = [limit for limit in (wanted, self.max_tokens_cap) if limit is not None]
        return min(limits, default=None)
