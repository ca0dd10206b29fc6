"""The offline engine: a list of prompts in, a list of outputs out (vLLM's ``LLM``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minillm_serve.config import EngineConfig
from minillm_serve.engine.build import build_core
from minillm_serve.engine.core import EngineCore, EngineStats
from minillm_serve.engine.defaults import default_sampling_params
from minillm_serve.engine.scoring import pair, paired
from minillm_serve.model.store import DEFAULT_MODEL
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.params import PoolingParams, RequestError, SamplingParams
from minillm_serve.request import (
    EmbeddingOutput,
    EmbeddingRequestOutput,
    RequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
)
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

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's ``generation_config.json`` recommends (temperature, top_p …)."""
        return default_sampling_params(self.config.model)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | PoolingParams | Sequence[SamplingParams | PoolingParams] | None = None,
        *,
        priority: int | Sequence[int] = 0,
        cache_salt: str | Sequence[str | None] | None = None,
    ) -> list[RequestOutput]:
        """Complete one prompt or many (text, or lists of token ids), all in one continuous batch, in the order given.

        params: taken as they are; None means :meth:`get_default_sampling_params`; PoolingParams: nothing is generated,
        the prompt alone is described. priority, cache_salt: see :meth:`EngineCore.prepare`. Each of the three is one
        for all prompts, or a list with one for each.
        Raises :class:`RequestError` before anything runs if any one of them cannot be served.
        """
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
            prompts = [prompts]
        prompts = list(prompts)
        count = len(prompts)
        if params is None:
            params = self.get_default_sampling_params()
        each = zip(
            prompts,
            _for_each("params", params, count),
            _for_each("priority", priority, count),
            _for_each("cache_salt", cache_salt, count),
            strict=True,
        )
        groups = [self.core.prepare(prompt, p, priority=rank, cache_salt=salt) for prompt, p, rank, salt in each]
        for group, prompt in zip(groups, prompts, strict=True):
            self.core.add(str(group.rid), group, prompt if isinstance(prompt, str) else None, final_only=True)
        return self._run([group.rid for group in groups])

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        **each: Any,
    ) -> list[RequestOutput]:
        """Answer one conversation (a list of role/content dicts) or several, through the model's chat template.

        Further keywords are those of :meth:`generate`.
        """
        conversations = [messages] if messages and isinstance(messages[0], dict) else list(messages)
        return self.generate([self.tokenizer.apply_chat_template(c) for c in conversations], params, **each)

    def embed(
        self, prompts: Prompt | Sequence[Prompt], pooling_params: PoolingParams | None = None, **each: Any
    ) -> list[EmbeddingRequestOutput]:
        """A vector for each prompt: the mean of its hidden states, of length 1 unless ``use_activation`` is False.

        Further keywords are those of :meth:`generate`. Texts that say similar things point in similar directions, as
        far as a model that was trained to continue text can tell.
        """
        params = pooling_params or PoolingParams()
        if params.task != "embed":
            raise RequestError(f"embed does the task 'embed', not {params.task!r}", "task")
        return [
            EmbeddingRequestOutput(
                output.request_id,
                EmbeddingOutput(list(output.embedding)),
                list(output.prompt_token_ids),
                output.num_cached_tokens,
            )
            for output in self.generate(prompts, params, **each)
        ]

    def score(
        self, queries: str | Sequence[str], documents: str | Sequence[str], **each: Any
    ) -> list[ScoringRequestOutput]:
        """How well documents answer queries: one query for all documents, or one for each (see engine.scoring).

        Further keywords are those of :meth:`generate`.
        """
        queries, documents = ([texts] if isinstance(texts, str) else list(texts) for texts in (queries, documents))
        pairs = [pair(self.tokenizer, *both) for both in paired(queries, documents)]
        outputs = self.generate([p.token_ids for p in pairs], PoolingParams(task="likelihood"), **each)
        return [
            ScoringRequestOutput(
                output.request_id,
                ScoringOutput(scored.score(output)),
                list(output.prompt_token_ids),
                output.num_cached_tokens,
            )
            for scored, output in zip(pairs, outputs, strict=True)
        ]

    def _run(self, rids: list[int]) -> list[RequestOutput]:
        done: dict[int, RequestOutput] = {}
        try:
            while self.core.has_work():
                done.update((output.rid, output) for output in self.core.step() if output.finished)
        except BaseException:  # Ctrl-C included: leave no request behind for the next call
            self.core.abort([rid for rid in rids if rid not in done])
            raise
        return [done[rid] for rid in rids]

    def reset_prefix_cache(self) -> None:
        """Let no later request find a prefix computed before now: for measurements that must do all the work."""
        self.core.scheduler.reset_prefix_cache()

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


def _for_each(name: str, given: Any, count: int) -> list[Any]:
    """One value for each prompt, from a single value or from as many as there are prompts."""
    if not isinstance(given, (list, tuple)):
        return [given] * count
    if len(given) != count:
        raise RequestError(f"{count} prompts need as many {name}, got {len(given)}", name)
    return list(given)
