"""Log-probabilities as the APIs write them: chat, completions, and vLLM's ``prompt_logprobs``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minillm_serve.plan import TokenLogprobs
from minillm_serve.serve.token_texts import TokenTexts

LOWEST = -9999.0  # JSON has no infinity; this is what OpenAI writes


def finite(logprob: float) -> float:
    return max(logprob, LOWEST)


@dataclass(frozen=True)
class LogprobsWriter:
    """Writes them for one request. as_ids: tokens are named ``token_id:ID``, not by their text.

    chosen: the client chose which tokens are named; chat then names the one that stands there among them (vLLM).
    """

    texts: TokenTexts
    as_ids: bool = False
    chosen: bool = False

    def _name(self, token: int, sequence: Sequence[int], place: int) -> str:
        return f"token_id:{token}" if self.as_ids else self.texts.at(token, sequence, place)

    def chat(self, sequence: Sequence[int], start: int, entries: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """OpenAI's chat shape for the tokens of ``sequence`` from ``start`` on, which ``entries`` describe."""
        return {"content": [self._chat_entry(sequence, place, e) for place, e in enumerate(entries, start)]}

    def _chat_entry(self, sequence: Sequence[int], place: int, entry: TokenLogprobs) -> dict[str, Any]:
        text = self.texts.at(entry.token, sequence, place)
        named, top = entry.top, []
        if self.chosen:
            named = dict([(entry.token, entry.logprob), *named]).items()
        for token, logprob in named:
            name = self._name(token, sequence, place)
            top.append({"token": name, "logprob": finite(logprob), "bytes": list(name.encode())})
        return {
            "token": f"token_id:{entry.token}" if self.as_ids else text,
            "logprob": finite(entry.logprob),
            "bytes": list(text.encode()),
            "top_logprobs": top,
        }

    def completion(
        self, sequence: Sequence[int], start: int, entries: Sequence[TokenLogprobs | None], offset: int = 0
    ) -> dict[str, Any]:
        """OpenAI's older shape. offset: where in the text the first token begins; None entries: nothing predicts it."""
        tokens, offsets, logprobs, tops = [], [], [], []
        for place, entry in enumerate(entries, start):
            name = self._name(sequence[place], sequence, place)
            tokens.append(name)
            offsets.append(offset)
            offset += len(name)
            logprobs.append(None if entry is None else finite(entry.logprob))
            tops.append(None if entry is None else self._named_tops(sequence, place, entry))
        return {"text_offset": offsets, "token_logprobs": logprobs, "tokens": tokens, "top_logprobs": tops}

    def _named_tops(self, sequence: Sequence[int], place: int, entry: TokenLogprobs) -> dict[str, float]:
        """The token that stands there and the likeliest ones. Tokens of equal text share a key."""
        pairs = ((entry.token, entry.logprob), *entry.top)
        return {self._name(token, sequence, place): finite(logprob) for token, logprob in pairs}

    def prompt(
        self, sequence: Sequence[int], entries: Sequence[TokenLogprobs | None]
    ) -> list[dict[str, dict[str, Any]] | None]:
        """vLLM's shape: for each prompt token, token id -> its logprob, rank and text; None for the first."""
        return [None if entry is None else self._ranked(sequence, place, entry) for place, entry in enumerate(entries)]

    def _ranked(self, sequence: Sequence[int], place: int, entry: TokenLogprobs) -> dict[str, dict[str, Any]]:
        ranked = [(entry.token, entry.logprob, entry.rank)]
        ranked += [(token, logprob, rank) for rank, (token, logprob) in enumerate(entry.top, 1)]
        return {
            str(token): {
                "logprob": finite(logprob),
                "rank": rank,
                "decoded_token": self.texts.at(token, sequence, place),
            }
            for token, logprob, rank in ranked
        }


def joined(pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pieces of the older shape as one; each was written with the offset at which the one before it ends."""
    return {name: [item for piece in pieces for item in piece[name]] for name in pieces[0]}


def end_of(logprobs: dict[str, Any], offset: int) -> int:
    """Where the text goes on after a piece of the older shape that began at ``offset``."""
    return logprobs["text_offset"][-1] + len(logprobs["tokens"][-1]) if logprobs["tokens"] else offset
