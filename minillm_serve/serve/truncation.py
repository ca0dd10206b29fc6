"""Prompts cut to a length that their client allows, instead of refused."""

from __future__ import annotations

from dataclasses import dataclass

from minillm_serve.params import RequestError

AS_LONG_AS_POSSIBLE = -1


@dataclass(frozen=True)
class Truncation:
    """tokens: to keep at most; -1: all but one of the context, which is left for the answer. side: where to cut."""

    tokens: int
    side: str = "left"

    def limit(self, max_model_len: int) -> int:
        """Tokens to keep. Raises :class:`RequestError`."""
        if self.tokens > max_model_len:
            raise RequestError(
                f"truncate_prompt_tokens must be at most the maximum context length {max_model_len}, got {self.tokens}",
                "truncate_prompt_tokens",
            )
        return max_model_len - 1 if self.tokens == AS_LONG_AS_POSSIBLE else self.tokens

    def cut(self, ids: list[int], max_model_len: int) -> list[int]:
        """Raises :class:`RequestError`."""
        limit = self.limit(max_model_len)
        return ids[max(0, len(ids) - limit) :] if self.side == "left" else ids[:limit]

    def cut_text(self, text: str, chars: int) -> str:
        """What of a text can matter when no token is longer than the context in ``chars``: no need to encode more."""
        return text[max(0, len(text) - chars) :] if self.side == "left" else text[:chars]
