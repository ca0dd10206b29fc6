"""One request's moments and sizes, taken from the engine's own clock and put into the histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minillm_serve.engine.group import RequestGroup
from minillm_serve.request import FinishReason, RequestMetrics, RequestOutput

if TYPE_CHECKING:
    from minillm_serve.serve.observe.metrics import Metrics

DONE = (FinishReason.STOP, FinishReason.LENGTH)


class RequestWatch:
    """See Watch. A request that was given up counts as ended, and with what was computed for it; its times do not."""

    def __init__(self, metrics: Metrics, received: float, group: RequestGroup):
        self._metrics = metrics
        self._received = received
        self._group = group
        self._begun = False

    def update(self, output: RequestOutput) -> None:
        """See Watch."""
        if not self._begun:
            self._begin(output.metrics)

    def end(self, reason: str) -> None:
        """See Watch. An answer that is sent whole, or whose client left early, is known here alone."""
        moments = self._group.metrics()
        if not self._begun:
            self._begin(moments)
        self._metrics.book_end(reason)
        if reason in DONE and moments.finished is not None:
            self._book_sizes(moments)
            self._book_times(moments)

    def _begin(self, moments: RequestMetrics) -> None:
        """Its prompt is computed: the first token is there, or, where none is wanted, the end."""
        nothing_generated = self._group.samples[0].request.prompt_only and moments.finished is not None
        self._begun = moments.first_token is not None or nothing_generated
        if not self._begun:
            return
        self._metrics.book_prompt(moments, len(self._group.prompt_token_ids))
        if moments.first_token is not None:
            self._metrics.time_to_first_token.observe(moments.first_token - self._received)

    def _book_sizes(self, moments: RequestMetrics) -> None:
        metrics, group = self._metrics, self._group
        prompt_tokens = len(group.prompt_token_ids)
        metrics.request_prompt_tokens.observe(prompt_tokens)
        metrics.prefill_computed_tokens.observe(prompt_tokens - moments.num_cached_tokens)
        metrics.request_preemptions.observe(moments.num_preemptions)
        if moments.first_token is None:
            return
        lengths = [sample.num_tokens for sample in group.samples]
        metrics.request_generation_tokens.observe(sum(lengths))
        metrics.max_generation_tokens.observe(max(lengths))
        metrics.params_n.observe(group.params.n)
        if group.params.max_tokens is not None:
            metrics.params_max_tokens.observe(group.params.max_tokens)

    def _book_times(self, moments: RequestMetrics) -> None:
        metrics, end = self._metrics, moments.finished
        metrics.e2e_latency.observe(end - self._received)
        metrics.queue_time.observe(moments.first_scheduled - moments.arrival)
        metrics.inference_time.observe(end - moments.first_scheduled)
        if moments.first_token is None:
            return
        metrics.prefill_time.observe(moments.first_token - moments.first_scheduled)
        metrics.decode_time.observe(end - moments.first_token)
        if (longest := max(sample.num_tokens for sample in self._group.samples)) > 1:
            metrics.time_per_output_token.observe((end - moments.first_token) / (longest - 1))
