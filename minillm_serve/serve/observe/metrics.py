"""Prometheus metrics with vLLM's names and labels, in a registry of their own for each app.

A request is what a user sent: one prompt with all its samples. Tokens are booked by the engine's step thread, so that
they are right also for answers that are sent whole; everything else when the first token is there and at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from minillm_serve.config import EngineConfig
from minillm_serve.engine.core import EngineStats, StepStats
from minillm_serve.engine.group import RequestGroup
from minillm_serve.request import FinishReason, RequestMetrics
from minillm_serve.serve.caller import Caller
from minillm_serve.serve.observe import buckets
from minillm_serve.serve.observe.distribution import Distribution
from minillm_serve.serve.observe.engine_collector import EngineCollector, RejectionCollector
from minillm_serve.serve.observe.request_watch import RequestWatch

ENDINGS = (*FinishReason, "error")
SOURCES = ("local_compute", "local_cache_hit")
LABELS = ("model_name", "engine")


def full_prefix(prefix: str) -> str:
    """``vllm`` means ``vllm:``; a prefix that ends in a separator is taken as it is."""
    return prefix if not prefix or prefix[-1] in ":_" else f"{prefix}:"


class Metrics:
    """All instruments of one server. ``watch`` follows one request, ``on_step`` takes the engine's steps."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(
        self,
        model_name: str,
        engine_stats: Callable[[], EngineStats],
        prefix: str = "minillm",
        rejections: Mapping[str, int] | None = None,
    ):
        self.registry = CollectorRegistry()
        self._prefix = full_prefix(prefix)
        self._values = (model_name, "0")
        self._make_counters()
        self._make_step_instruments()
        self._make_request_histograms(buckets.TOKEN_COUNTS)
        self.registry.register(EngineCollector(engine_stats, self._prefix, LABELS, self._values))
        self.registry.register(RejectionCollector(rejections or {}, self._prefix, model_name))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _make_counters(self) -> None:
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens processed.")
        self.cached_tokens = self._counter("prompt_tokens_cached", "Prompt tokens that the prefix cache spared.")
        self.tokens_by_source = self._counters(
            "prompt_tokens_by_source", "Prompt tokens, computed or taken from the cache.", "source", SOURCES
        )
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated.")
        self.forced_tokens = self._counter(
            "jump_ahead_tokens", "Tokens that a constraint appended without a draw; they are generated tokens too."
        )
        self.event_loop_tasks = Gauge(
            self._prefix + "event_loop_tasks", "asyncio tasks, that of this answer among them.", LABELS,
            registry=self.registry,
        ).labels(*self._values)  # fmt: skip
        self.ended = self._counters("request_success", "Requests ended, by reason.", "finished_reason", ENDINGS)

    def _make_step_instruments(self) -> None:
        self.inter_token_latency = self._distribution(
            "inter_token_latency_seconds", "Between two outputs of one sequence.", buckets.TOKEN_SECONDS
        )
        self.iteration_tokens = self._distribution(
            "iteration_tokens_total", "Tokens computed in one engine step, prefill and decode.", buckets.STEP_TOKENS
        )
        self.step_seconds = self._distribution(
            "engine_step_duration_seconds", "One step of the engine.", buckets.STEP_SECONDS
        )

    def _make_request_histograms(self, token_counts: Iterable[float]) -> None:
        seconds, histogram = buckets.REQUEST_SECONDS, self._histogram
        self.time_to_first_token = histogram(
            "time_to_first_token_seconds", "From the request's arrival to its first token.", buckets.FIRST_TOKEN_SECONDS
        )
        self.time_per_output_token = histogram(
            "request_time_per_output_token_seconds", "Mean time between a request's tokens.", buckets.TOKEN_SECONDS
        )
        self.e2e_latency = histogram(
            "e2e_request_latency_seconds", "From the request's arrival to its last token.", seconds
        )
        self.queue_time = histogram("request_queue_time_seconds", "Before a request's first step.", seconds)
        self.prefill_time = histogram(
            "request_prefill_time_seconds", "From a request's first step to its first token.", seconds
        )
        self.decode_time = histogram(
            "request_decode_time_seconds", "From a request's first token to its last.", seconds
        )
        self.inference_time = histogram(
            "request_inference_time_seconds", "From a request's first step to its last token.", seconds
        )
        self.request_prompt_tokens = histogram("request_prompt_tokens", "Prompt tokens of a request.", token_counts)
        self.request_generation_tokens = histogram(
            "request_generation_tokens", "Tokens generated for a request, all samples together.", token_counts
        )
        self.max_generation_tokens = histogram(
            "request_max_num_generation_tokens", "Tokens of a request's longest sample.", token_counts
        )
        self.prefill_computed_tokens = histogram(
            "request_prefill_kv_computed_tokens", "Prompt tokens of a request that had to be computed.", token_counts
        )
        self.params_max_tokens = histogram("request_params_max_tokens", "max_tokens of a request.", token_counts)
        self.params_n = histogram("request_params_n", "Samples asked for.", buckets.SAMPLES)
        self.request_preemptions = histogram(
            "request_num_preemptions", "Preemptions of a request.", buckets.PREEMPTIONS
        )

    def _histogram(self, name: str, what: str, bounds: Iterable[float]) -> Histogram:
        made = Histogram(self._prefix + name, what, LABELS, buckets=tuple(bounds), registry=self.registry)
        return made.labels(*self._values)

    def _distribution(self, name: str, what: str, bounds: Iterable[float]) -> Distribution:
        made = Distribution(self._prefix + name, what, bounds, LABELS, self._values)
        self.registry.register(made)
        return made

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(self._prefix + name, what, LABELS, registry=self.registry).labels(*self._values)

    def _counters(self, name: str, what: str, label: str, values: Iterable[str]) -> dict[str, Counter]:
        made = Counter(self._prefix + name, what, (*LABELS, label), registry=self.registry)
        return {value: made.labels(*self._values, value) for value in values}

    def count_drafts(self, num_speculative_tokens: int) -> None:
        """Count what becomes of drafts, of at most so many tokens each. Without this call there are no such metrics."""
        self.drafts = self._counter("spec_decode_num_drafts", "Drafts verified.")
        self.draft_tokens = self._counter("spec_decode_num_draft_tokens", "Tokens of those drafts.")
        self.accepted_tokens = self._counter("spec_decode_num_accepted_tokens", "Draft tokens accepted.")
        positions = map(str, range(num_speculative_tokens))
        self.accepted_by_position = self._counters(
            "spec_decode_num_accepted_tokens_per_pos", "Draft tokens accepted, by place in the draft.",
            "position", positions,
        )  # fmt: skip

    def describe_cache(self, config: EngineConfig, num_blocks: int) -> None:
        """``cache_config_info``: settings as labels of a constant 1, to be joined with other series."""
        info = {
            "block_size": config.block_size,
            "cache_dtype": config.kv_cache_dtype,
            "enable_prefix_caching": config.enable_prefix_caching,
            "num_gpu_blocks": num_blocks,
        }
        labels = ("engine", "model_name", *info)
        gauge = Gauge(f"{self._prefix}cache_config_info", "The KV cache's settings.", labels, registry=self.registry)
        gauge.labels(self._values[1], self._values[0], *map(str, info.values())).set(1)

    def on_step(self, step: StepStats) -> None:
        """Book one engine step; called from the engine's thread."""
        self.iteration_tokens.observe(step.num_tokens)
        self.step_seconds.observe(step.duration_s)
        for interval, sequences in step.intervals.items():
            self.inter_token_latency.observe(interval, sequences)
        if step.new_tokens:
            self.generation_tokens.inc(step.new_tokens)
        if step.forced_tokens:
            self.forced_tokens.inc(step.forced_tokens)
        if step.drafts:
            self._book_drafts(step.drafts)

    def _book_drafts(self, drafts: Sequence[tuple[int, int]]) -> None:
        self.drafts.inc(len(drafts))
        self.draft_tokens.inc(sum(drafted for drafted, _ in drafts))
        for _, accepted in drafts:
            self.accepted_tokens.inc(accepted)
            for position in range(accepted):
                self.accepted_by_position[str(position)].inc()

    def watch(self, caller: Caller, group: RequestGroup) -> RequestWatch:
        """See Observer."""
        return RequestWatch(self, caller.received, group)

    def book_prompt(self, moments: RequestMetrics, tokens: int) -> None:
        """A prompt has been computed."""
        self.prompt_tokens.inc(tokens)
        self.cached_tokens.inc(moments.num_cached_tokens)
        self.tokens_by_source["local_cache_hit"].inc(moments.num_cached_tokens)
        self.tokens_by_source["local_compute"].inc(tokens - moments.num_cached_tokens)

    def book_end(self, reason: str) -> None:
        """A request has ended, one way or another."""
        self.ended.get(reason, self.ended["error"]).inc()

    def exposition(self) -> bytes:
        """What ``GET /metrics`` answers, in Prometheus' text format."""
        return generate_latest(_WithoutCreated(self.registry))


class _WithoutCreated(Collector):
    """A registry less the ``_created`` series, which nobody reads and which double the page."""

    def __init__(self, registry: CollectorRegistry):
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
