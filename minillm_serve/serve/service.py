"""What every generation endpoint does: check the request, queue it, follow it, count it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from minillm_serve import __version__
from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.engine.group import RequestGroup
from minillm_serve.model.chat_template import Conversation
from minillm_serve.params import PoolingParams, RequestError, SamplingParams
from minillm_serve.request import RequestOutput
from minillm_serve.serve.answer_size import check_logprobs
from minillm_serve.serve.caller import Caller
from minillm_serve.serve.chat_prompts import ChatPrompts
from minillm_serve.serve.following import Outputs
from minillm_serve.serve.http.errors import ApiError
from minillm_serve.serve.lifecycle.slot import EngineSlot
from minillm_serve.serve.limits.isolation import CacheIsolation
from minillm_serve.serve.limits.queue import QueuePatience
from minillm_serve.serve.observer import Gate, Observer
from minillm_serve.serve.openai.defaults import SamplingDefaults
from minillm_serve.serve.settings import ServerSettings
from minillm_serve.serve.token_texts import TokenTexts
from minillm_serve.serve.truncation import Truncation

Params = TypeVar("Params", SamplingParams, PoolingParams)

TGI_MODEL_NAMES = ("tgi", "dummy")  # what clients made for TGI call its one model


@dataclass(frozen=True)
class Service:
    """The engine as one HTTP server offers it. names: what clients may call the model, the first one is its own.

    slot: holds the engine; no request gets as far as here while it is empty (lifecycle/middleware.py).
    observers: what follows every request (metrics, limits, traces). gates: what may refuse a sound one now.
    patience: how long requests may wait for their first step. isolation: keeps the prefixes of clients apart.
    """

    slot: EngineSlot
    names: tuple[str, ...]
    settings: ServerSettings
    observers: Sequence[Observer] = ()
    gates: Sequence[Gate] = ()
    patience: QueuePatience | None = None
    isolation: CacheIsolation | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def engine(self) -> AsyncEngine:
        """Raises ApiError 503 while the model is not loaded."""
        return self.slot.engine

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
        names = (*self.names, *TGI_MODEL_NAMES) if self.settings.tgi else self.names
        if name is not None and name not in names:
            raise ApiError(404, f"the model {name[:200]!r} is not served here; GET /v1/models lists what is", "model")

    @cached_property
    def sampling_defaults(self) -> SamplingDefaults:
        """What requests are given that do not say. Raises ConfigError."""
        return SamplingDefaults.of(self.engine.config.model, self.settings)

    @cached_property
    def token_texts(self) -> TokenTexts:
        """The text of single tokens."""
        return TokenTexts(self.engine.tokenizer.backend)

    async def encode(
        self,
        prompts: Sequence[str | list[int]],
        *,
        truncation: Truncation | None = None,
        add_special_tokens: bool = True,
    ) -> list[list[int]]:
        """Token ids of each prompt. Raises :class:`RequestError`.

        truncation: longer ones are cut. add_special_tokens: texts get what the model expects around them (BOS).
        """
        if truncation is None:
            self._check_chars(max((len(text) for text in prompts if isinstance(text, str)), default=0))
        else:
            chars = self.max_prompt_chars
            prompts = [truncation.cut_text(p, chars) if isinstance(p, str) else p for p in prompts]
        tokenizer = self.engine.tokenizer
        encode = tokenizer.encode_prompt if add_special_tokens else tokenizer.encode
        encoded = await asyncio.to_thread(lambda: [encode(p) if isinstance(p, str) else p for p in prompts])
        return encoded if truncation is None else [self.truncated(ids, truncation) for ids in encoded]

    def truncated(self, ids: list[int], truncation: Truncation) -> list[int]:
        """A prompt no longer than that. Raises :class:`RequestError`."""
        return truncation.cut(ids, self.engine.max_model_len)

    def with_special_tokens(self, ids: list[int]) -> list[int]:
        """A rendered conversation with what the tokenizer puts around a text (BOS), besides what the template wrote."""
        tokenizer = self.engine.tokenizer
        bare, dressed = tokenizer.encode("a"), tokenizer.encode_prompt("a")
        before = next((i for i in range(len(dressed)) if dressed[i : i + len(bare)] == bare), 0)
        return [*dressed[:before], *ids, *dressed[before + len(bare) :]]

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of a prompt, control tokens included."""
        return self.engine.tokenizer.backend.decode(list(ids), skip_special_tokens=False)

    @cached_property
    def chat_prompts(self) -> ChatPrompts:
        """Conversations to prompts."""
        return ChatPrompts(self.engine.tokenizer, self.settings)

    async def render_chat(
        self, conversation: Conversation, template: str | None = None, *, any_length: bool = False
    ) -> list[int]:
        """Token ids of a conversation, ready to be answered. Raises :class:`RequestError`.

        template: one that came with the request. any_length: it may be longer than the context.
        """
        if not any_length:
            self._check_chars(conversation.num_chars)
        longest = 2 * self.settings.max_body_bytes if any_length else self.max_prompt_chars
        return await self.chat_prompts.render(conversation, template, longest)

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
        params: SamplingParams | PoolingParams,
        caller: Caller,
        *,
        default_max_tokens: int | None = None,
        shorten: bool = False,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> list[RequestGroup]:
        """Check all prompts before any of them is queued. Raises :class:`RequestError`, or ApiError from a gate.

        default_max_tokens: for params without max_tokens; shortened to what the context leaves (None: all of it).
        shorten: an explicit max_tokens is shortened like that too, unless no prompt at all could have it (vLLM).
        priority, cache_salt: see EngineCore.prepare.
        """
        if self.isolation is not None:
            cache_salt = self.isolation.salt(caller, cache_salt)
        admitted = []
        for index, prompt in enumerate(prompts):
            try:
                wanted = self._with_room(params, len(prompt), default_max_tokens, shorten)
                admitted.append(await self.engine.prepare(prompt, wanted, priority=priority, cache_salt=cache_salt))
            except RequestError as error:
                if error.param == "prompt" and len(prompts) > 1:
                    error.param = f"prompt.{index}"
                raise
        check_logprobs(admitted, self.engine.tokenizer.vocab_size)
        for gate in self.gates:
            gate.check(caller, admitted)
        return admitted

    def _with_room(self, params: Params, prompt_tokens: int, default_max_tokens: int | None, shorten: bool) -> Params:
        if isinstance(params, PoolingParams):
            return params
        longest = self.engine.max_model_len
        wanted = default_max_tokens if params.max_tokens is None else params.max_tokens
        if wanted is None or (params.max_tokens is not None and not shorten):
            return params
        if shorten and wanted > longest:
            raise RequestError(
                f"max_tokens is {wanted}; this server's maximum context length is {longest} tokens, prompt included",
                "max_tokens",
            )
        given = min(wanted, max(1, longest - prompt_tokens))
        return params if given == params.max_tokens else replace(params, max_tokens=given)

    def follow(
        self, requests: Sequence[RequestGroup], label: str, caller: Caller, *, final_only: bool = False
    ) -> list[Outputs]:
        """One stream of outputs for each request; a request is queued when its stream is first read.

        final_only: the last output alone.
        """
        labels = [label] if len(requests) == 1 else [f"{label}-{index}" for index in range(len(requests))]
        return [
            Outputs(self.engine, self.observers, request, name, caller, final_only=final_only, patience=self.patience)
            for request, name in zip(requests, labels, strict=True)
        ]


def usage_of(outputs: Sequence[RequestOutput]) -> dict[str, Any]:
    """OpenAI's ``usage`` of the latest outputs of all prompts of one HTTP request."""
    prompt = sum(len(output.prompt_token_ids) for output in outputs)
    completion = sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
