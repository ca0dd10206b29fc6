"""The load generator: many chats at once through the official ``openai`` client, each chunk stamped on arrival."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minillm_serve.bench.prompts import Conversation
from minillm_serve.bench.stats import LoadResult, Timeline

REQUEST_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class ChatJob:
    """One chat completion to ask for. With ``schema`` the answer is constrained; without, exactly ``max_tokens`` come.

    Free text ignores EOS, so that every engine compared produces the same number of tokens.
    """

    request_id: str
    messages: Conversation
    max_tokens: int
    schema_name: str | None = None
    schema: dict[str, Any] | None = None

    def body(self) -> dict[str, Any]:
        """Keyword arguments of ``client.chat.completions.create`` for this job (greedy)."""
        body: dict[str, Any] = {
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.schema is None:
            return body | {"extra_body": {"ignore_eos": True, "return_token_ids": True}}
        wrapped = {"name": self.schema_name or "answer", "schema": self.schema, "strict": True}
        return body | {"response_format": {"type": "json_schema", "json_schema": wrapped}}


def run_load(
    base_url: str, model: str, jobs: Sequence[ChatJob], on_finish: Callable[[Timeline], None] | None = None
) -> LoadResult:
    """Send all jobs at the same moment and wait for the last token of the last answer.

    ``base_url`` ends in ``/v1``. A request that fails is returned with its ``error`` and does not stop the others.
    """
    return asyncio.run(_run(base_url, model, jobs, on_finish))


async def _run(
    base_url: str, model: str, jobs: Sequence[ChatJob], on_finish: Callable[[Timeline], None] | None
) -> LoadResult:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=base_url, api_key="not-needed", max_retries=0, timeout=REQUEST_TIMEOUT_S) as client:
        timelines = await asyncio.gather(*(_one(client, model, job, on_finish) for job in jobs))
    return LoadResult(tuple(timelines))


async def _one(client: Any, model: str, job: ChatJob, on_finish: Callable[[Timeline], None] | None) -> Timeline:
    from openai import OpenAIError

    timeline = Timeline(job.request_id, sent=time.perf_counter())
    texts: list[str] = []
    try:
        stream = await client.chat.completions.create(
            model=model, extra_headers={"X-Request-Id": job.request_id}, **job.body()
        )
        async for chunk in stream:
            _stamp(timeline, texts, chunk, time.perf_counter())
    except OpenAIError as error:
        timeline.error = _reason(error)
    timeline.text = "".join(texts)
    if timeline.error is None and not timeline.chunks:
        timeline.error = "the stream ended without a single choice"
    if on_finish:
        on_finish(timeline)
    return timeline


def _stamp(timeline: Timeline, texts: list[str], chunk: Any, now: float) -> None:
    timeline.response_id = chunk.id
    if chunk.usage is not None:
        timeline.prompt_tokens = chunk.usage.prompt_tokens
        timeline.completion_tokens = chunk.usage.completion_tokens
    if not chunk.choices:
        return
    choice = chunk.choices[0]
    timeline.chunks.append(now)
    if choice.delta.content:
        texts.append(choice.delta.content)
    if choice.finish_reason:
        timeline.finish_reason = choice.finish_reason
    timeline.token_ids.extend(getattr(choice, "token_ids", None) or ())


def _reason(error: Exception) -> str:
    """The client's message, followed by what it hides (a refused connection reads just «Connection error.»)."""
    cause = error.__cause__
    return f"{error} ({type(cause).__name__}: {cause})" if cause is not None else str(error)
