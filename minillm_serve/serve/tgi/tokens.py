"""Tokens as TGI lists them: id, text, log-probability, and whether it is a control token."""

from __future__ import annotations

from typing import Any

from minillm_serve.engine.detokenizer import StreamFactory, TextStream
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.request import CompletionOutput, RequestOutput
from minillm_serve.serve.openai.logprobs import finite
from minillm_serve.serve.token_texts import TokenTexts

FINISH = {"length": "length", "stop": "eos_token"}


class TokenWriter:
    """Writes the tokens of one tokenizer. Log-probabilities are the model's own, before temperature and penalties."""

    def __init__(self, tokenizer: Tokenizer, texts: TokenTexts):
        self._texts = texts
        self._streams = StreamFactory(tokenizer)
        added = tokenizer.backend.get_added_tokens_decoder()
        self._special = {id for id, token in added.items() if token.special}

    def sequence(self) -> TokenSequence:
        """To write one text's tokens, in their order."""
        return TokenSequence(self, self._streams(skip_special_tokens=False))

    def named(self, token: int, logprob: float, text: str) -> dict[str, Any]:
        return {"id": token, "text": text, "logprob": finite(logprob), "special": token in self._special}

    def top(self, completion: CompletionOutput, place: int) -> list[dict[str, Any]]:
        """The likeliest tokens at ``place``, best first."""
        return [
            self.named(token, logprob, self._texts.at(token, completion.token_ids, place))
            for token, logprob in completion.logprobs[place].top
        ]

    def prefill(self, output: RequestOutput) -> list[dict[str, Any]]:
        """The prompt's tokens; nothing predicts the first of them."""
        ids, entries = output.prompt_token_ids, output.prompt_logprobs or ()
        return [
            {
                "id": token,
                "text": self._texts.at(token, ids, place),
                "logprob": None if entry is None else finite(entry.logprob),
            }
            for place, (token, entry) in enumerate(zip(ids, entries, strict=True))
        ]


class TokenSequence:
    """The tokens of one text. Their texts add up to it, with the control tokens in it (TGI's ``decode_token``).

    A token that ends inside a character has no text; the one that completes it, or ends the text, has it.
    """

    def __init__(self, writer: TokenWriter, stream: TextStream):
        self._writer = writer
        self._stream = stream
        self.written = 0

    def next(self, completion: CompletionOutput) -> dict[str, Any]:
        """The token after those that were written."""
        place = self.written
        self.written += 1
        token = completion.token_ids[place]
        text = self._stream.push([token])
        if completion.finish_reason is not None and self.written == len(completion.token_ids):
            text += self._stream.flush()
        return self._writer.named(token, completion.logprobs[place].logprob, text)


def finish_reason(completion: CompletionOutput) -> str:
    """TGI's word for why a text ended."""
    if isinstance(completion.stop_reason, str):
        return "stop_sequence"
    return FINISH.get(completion.finish_reason or "", "length")


def mean_logprob(completion: CompletionOutput) -> float:
    """By what TGI's best_of ranks: log-probability per token, in nats."""
    return (completion.cumulative_logprob or 0.0) / max(1, len(completion.token_ids))
