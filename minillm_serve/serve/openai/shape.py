"""What chat and completions write differently: the seam between an answer's frame and its choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from minillm_serve.plan import TokenLogprobs
from minillm_serve.request import CompletionOutput, RequestOutput


@dataclass(slots=True)
class Delta:
    """What is new of one choice since the last time; in a whole answer, all of it.

    index: of the choice in the answer. start: how many of its tokens were told before. first: nothing was told before.
    """

    index: int
    text: str
    start: int
    first: bool
    output: RequestOutput
    completion: CompletionOutput

    @property
    def token_ids(self) -> list[int]:
        return list(self.completion.token_ids[self.start :])

    @property
    def logprobs(self) -> Sequence[TokenLogprobs]:
        """One entry for each of token_ids. Only for requests that asked."""
        return self.completion.logprobs[self.start :]

    @property
    def finish_reason(self) -> str | None:
        return self.completion.finish_reason

    @property
    def stop_reason(self) -> int | str | None:
        return self.completion.stop_reason


class Shape(Protocol):
    """How an API writes its answers. One object for each HTTP request: it may keep what it knows of each choice."""

    object: str
    chunk_object: str
    detailed_usage: bool  # whether vLLM tells more of its usage: cached blocks made, and details in every chunk

    def choice(self, new: Delta) -> dict[str, Any]:
        """A finished choice of a whole answer."""

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, Any]:
        """Further fields of a whole answer. outputs: the last one of each prompt."""

    def opening(self, new: Delta) -> list[dict[str, Any]]:
        """Chunks that go before a choice's first one, in the same write: their choices and further fields."""

    def delta(self, new: Delta) -> dict[str, Any] | None:
        """A choice of a chunk; None to send nothing now. With a finish_reason there must be one."""
