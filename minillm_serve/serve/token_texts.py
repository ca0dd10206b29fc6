"""The text of single tokens, as log-probabilities and token lists name them."""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers

from minillm_serve.engine.detokenizer import REPLACEMENT

MAX_CONTEXT = 4  # a character has at most four bytes, hence tokens
SPACE_MARK = "\u2581"  # how SentencePiece writes a leading space


class TokenTexts:
    """Text of one token at a time.

    A token that ends inside a character has the text ``""``; the token that completes it has the whole character. So
    the texts of a sequence add up to its text. Control tokens are named (``<|im_end|>``).
    """

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = backend
        self._alone: dict[int, str] = {}  # at most one entry for each token of the vocabulary

    def at(self, token: int, sequence: Sequence[int], place: int) -> str:
        """Text of ``token`` at ``place`` of ``sequence``, where it or another token may stand."""
        text = self.alone(token)
        if not text.endswith(REPLACEMENT):
            return text
        return self._completed(token, list(sequence[max(0, place - MAX_CONTEXT) : place]))

    def alone(self, token: int) -> str:
        """Text of a token that nothing precedes; ends with REPLACEMENT where it ends inside a character."""
        text = self._alone.get(token)
        if text is None:
            text = self._decode([token])
            if (self._backend.id_to_token(token) or "").startswith(SPACE_MARK) and not text.startswith(" "):
                text = " " + text
            self._alone[token] = text
        return text

    def _completed(self, token: int, before: list[int]) -> str:
        """What ``token`` adds once enough of the tokens before it are decoded with it."""
        for count in range(1, len(before) + 1):
            window = before[-count:]
            whole = self._decode([*window, token])
            if whole.endswith(REPLACEMENT) or (whole.startswith(REPLACEMENT) and count < len(before)):
                continue  # it ends inside a character, or the window begins inside one
            while window and self._decode(window[-1:]).endswith(REPLACEMENT):
                window.pop()  # its text was "": it counts as this token's
            known = self._decode(window) if window else ""
            return whole[len(known) :] if whole.startswith(known) else whole
        return ""

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=False)
