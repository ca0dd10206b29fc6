"""What every generation endpoint does: check the request, queue it, follow it, count it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from minillm_serve import __version__
from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.engine.group import RequestGroup
from minillm_serve.params import RequestError, SamplingParams
from minillm_serve.request import RequestOutput
from minillm_serve.serve.caller import Caller
from minillm_serve.serve.following import Outputs, follow
from minillm_serve.serve.http.errors import ApiError
from minillm_serve.serve.observer import Gate, Observer
from minillm_serve.serve.settings import ServerSettings


@dataclass(frozen=True)
class Service:
    """The engine as one HTTP server offers it. names: what clients may call the model, the first one is its own.

    observers: what follows every request (metrics, limits, traces). gates: what may refuse a sound one now.
    """

    engine: AsyncEngine
    names: tuple[str, ...]
    settings: ServerSettings
    observers: Sequence[Observer] = ()
    gates: Sequence[Gate] = ()
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def model_name(self) -> str:
        return self.names[0]

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the version or the engine's settings do, and so may answers."""
        settings = repr(sorted(asdict(self.engine.config).items(), key=str))
        return f"minillm-{__version__}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"

    @cached_property
    def max_prompt_chars(self) -> int:
        """A longer text has more tokens than the context, whatever it says: no need to tokenise it to know."""
        longest_token = max(map(len, self.engine.tokenizer.backend.get_vocab()))
        return self.engine.max_model_len * longest_token

    def check_model(self, name: str | None) -> None:
        """Raises ApiError 404 for a model that is not served here; None means the one that is."""
        if name is not None and name not in self.names:
            raise ApiError(404, f"the model {name[:200]!r} is not served here; GET /v1/models lists what is", "model")

    async def encode(self, prompts: Sequence[str | list[int]]) -> list[list[int]]:
        """Token ids of each prompt. Raises :class:`RequestError`."""
        for text in prompts:
            if isinstance(text, str):
                self._check_chars(len(text))
        encode = self.engine.tokenizer.encode_prompt
        return await asyncio.to_thread(lambda: [encode(p) if isinstance(p, str) else p for p in prompts])

    async def render_chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a conversation, ready to be answered. Raises :class:`RequestError`."""
        self._check_chars(sum(len(message["content"]) for message in messages))
        return await asyncio.to_thread(self.engine.tokenizer.apply_chat_template, messages)

    def _check_chars(self, chars: int) -> None:
        if chars > self.max_prompt_chars:
            raise RequestError(
                f"the prompt has {chars} characters, which cannot fit in this server's maximum context length of "
                f"{self.engine.max_model_len} tokens",
                "prompt",
            )

    async def admit(
        self,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        caller: Caller,
        *,
        default_max_tokens: int | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> list[RequestGroup]:
        """Check all prompts before any of them is queued. Raises :class:`RequestError`, or ApiError from a gate.

        default_max_tokens: for params without max_tokens; shortened to what the context leaves (None: all of it).
        priority, cache_salt: see EngineCore.prepare.
        """
        admitted = []
        for index, prompt in enumerate(prompts):
            wanted = params
            if params.max_tokens is None and default_max_tokens is not None:
                left = max(1, self.engine.max_model_len - len(prompt))
                wanted = replace(params, max_tokens=min(default_max_tokens, left))
            try:
                admitted.append(await self.engine.prepare(prompt, wanted, priority=priority, cache_salt=cache_salt))
            except RequestError as error:
                if error.param == "prompt" and len(prompts) > 1:
                    error.param = f"prompt.{index}"
                raise
        for gate in self.gates:
            gate.check(caller, admitted)
        return admitted

    def follow(
        self, requests: Sequence[RequestGroup], label: str, caller: Caller, *, final_only: bool = False
    ) -> list[Outputs]:
        """One stream of outputs for each request; a request is queued when its stream is first read.

        final_only: the last output alone.
        """
        labels = [label] if len(requests) == 1 else [f"{label}-{index}" for index in range(len(requests))]
        return [
            follow(self.engine, self.observers, request, name, caller, final_only=final_only)
            for request, name in zip(requests, labels, strict=True)
        ]


def usage_of(outputs: Sequence[RequestOutput]) -> dict[str, Any]:
    """OpenAI's ``usage`` of the latest outputs of all prompts of one HTTP request."""
    prompt = sum(len(output.prompt_token_ids) for output in outputs)
    completion = sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
