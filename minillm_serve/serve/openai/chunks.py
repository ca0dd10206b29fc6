"""A stream's chunks: engine outputs in, server-sent events out. One event for each output and choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minillm_serve.request import CompletionOutput, RequestOutput
from minillm_serve.serve.http.streaming import encode_json, event
from minillm_serve.serve.openai.shape import Delta, Shape


@dataclass(slots=True)
class _Told:
    """How much of one choice the client has."""

    chars: int = 0
    tokens: int = 0
    begun: bool = False
    finished: bool = False


class ChunkWriter:
    """Writes the chunks of one answer. What is the same in all of them is encoded once.

    frame: fields of every chunk. choices: per prompt. interval: tokens in each chunk but the first and the last.
    usage: tell it in every chunk. last: further fields of a choice's last chunk.
    """

    def __init__(
        self,
        shape: Shape,
        frame: Mapping[str, Any],
        choices: int,
        *,
        interval: int = 1,
        usage: bool = False,
        last: Mapping[str, Any] | None = None,
    ):
        self._shape = shape
        self._frame = dict(frame)
        self._head = f'data: {encode_json(self._frame)[:-1]},"choices":['
        self._tail = "]}\n\n"
        self._last_tail = f"],{encode_json(dict(last))[1:]}\n\n" if last else self._tail
        self._choices = choices
        self._interval = interval
        self._usage = usage
        self._told: dict[int, _Told] = {}

    def write(self, prompt: int, output: RequestOutput) -> bytes:
        """The events that an output of the prompt with that number adds; none is no bytes."""
        if len(output.outputs) == 1:
            return self._choice(prompt * self._choices, output, output.outputs[0])
        first = prompt * self._choices
        return b"".join([self._choice(first + one.index, output, one) for one in output.outputs])

    def _choice(self, index: int, output: RequestOutput, completion: CompletionOutput) -> bytes:
        told = self._told.get(index)
        if told is None:
            told = self._told[index] = _Told()
        tokens, finished = len(completion.token_ids), completion.finish_reason is not None
        if told.finished or not (finished or tokens - told.tokens >= (self._interval if told.begun else 1)):
            return b""
        text = completion.text
        new = Delta(index, text[told.chars :], told.tokens, not told.begun, output, completion)
        choice = self._shape.delta(new)
        opening = b"" if told.begun else self._opening(new)
        told.chars, told.tokens, told.begun, told.finished = len(text), tokens, True, finished
        return opening if choice is None else opening + self._event(choice, new)

    def _event(self, choice: dict[str, Any], new: Delta) -> bytes:
        tail = self._last_tail if new.finish_reason is not None else self._tail
        if self._usage:
            told = encode_json({"usage": self._running_usage(new, len(new.completion.token_ids))})
            tail = f"],{told[1:-1]}{tail[1:]}"
        return (self._head + encode_json(choice) + tail).encode()

    def _opening(self, new: Delta) -> bytes:
        usage = {"usage": self._running_usage(new, 0)} if self._usage else {}
        return b"".join([event(self._frame | content | usage) for content in self._shape.opening(new)])

    def _running_usage(self, new: Delta, completion_tokens: int) -> dict[str, Any]:
        """Usage in the middle of a stream: of one choice."""
        prompt = len(new.output.prompt_token_ids)
        details = {"completion_tokens_details": None} if self._shape.detailed_usage else {}
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion_tokens,
            "completion_tokens": completion_tokens,
            **details,
        }
