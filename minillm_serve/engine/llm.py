"""The offline engine: a list of prompts in, a list of outputs out (vLLM's ``LLM``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minillm_serve.config import EngineConfig
from minillm_serve.engine.build import build_core
from minillm_serve.engine.core import EngineCore, EngineStats
from minillm_serve.model.store import DEFAULT_MODEL
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.params import RequestError, SamplingParams
from minillm_serve.request import RequestOutput
from minillm_serve.seams import Seams

Prompt = str | Sequence[int]
Conversation = Sequence[dict[str, Any]]


class LLM:
    """``LLM("smollm2-135m").generate(["Once upon a time"])``. Keyword arguments are EngineConfig's fields.

    trace_file: write every step there on ``close()``. seams: a student's own parts (see :mod:`minillm_serve.seams`).
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        trace_file: str | Path | None = None,
        seams: Seams | None = None,
        **settings: Any,
    ):
        self.config = EngineConfig(model=str(model), **settings)
        self.core: EngineCore = build_core(self.config, trace=trace_file is not None, seams=seams)
        self._trace_file = trace_file

    @property
    def tokenizer(self) -> Tokenizer:
        return self.core.admission.tokenizer

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Complete one prompt or many (text, or lists of token ids), all in one continuous batch, in the order given.

        Raises :class:`RequestError` before anything runs if any one of them cannot be served.
        """
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
            prompts = [prompts]
        prompts = list(prompts)
        if params is None or isinstance(params, SamplingParams):
            params = [params or SamplingParams()] * len(prompts)
        if len(params) != len(prompts):
            raise RequestError(f"{len(prompts)} prompts need as many params, got {len(params)}", "params")
        requests = [self.core.prepare(prompt, p) for prompt, p in zip(prompts, params, strict=True)]
        for request, prompt in zip(requests, prompts, strict=True):
            self.core.add(str(request.rid), request, prompt if isinstance(prompt, str) else None)
        return self._run([request.rid for request in requests])

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation (a list of role/content dicts) or several, through the model's chat template."""
        conversations = [messages] if messages and isinstance(messages[0], dict) else list(messages)
        return self.generate([self.tokenizer.apply_chat_template(c) for c in conversations], params)

    def _run(self, rids: list[int]) -> list[RequestOutput]:
        done: dict[int, RequestOutput] = {}
        try:
            while self.core.has_work():
                done.update((output.rid, output) for output in self.core.step() if output.finished)
        except BaseException:  # Ctrl-C included: leave no request behind for the next call
            self.core.abort([rid for rid in rids if rid not in done])
            raise
        return [done[rid] for rid in rids]

    def stats(self) -> EngineStats:
        """Queues, KV blocks and preemptions now."""
        return self.core.stats()

    def close(self) -> None:
        """Write the trace, if one was asked for."""
        if self._trace_file is not None and self.core.trace is not None:
            self.core.trace.write(self._trace_file)

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
