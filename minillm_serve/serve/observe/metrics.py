"""Prometheus metrics with vLLM's names, labels and buckets, in a registry of their own for each app."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from minillm_serve.engine.core import EngineStats, StepStats
from minillm_serve.engine.group import RequestGroup
from minillm_serve.request import FinishReason, RequestOutput
from minillm_serve.serve.caller import Caller

FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
TOKEN_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)  # fmt: skip
REQUEST_BUCKETS = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip
STEP_BUCKETS = (1, *(2**power for power in range(3, 15)))
ENDINGS = (*FinishReason, "error")
LABELS = ("model_name", "engine")


class Metrics:
    """All instruments of one server. ``watch`` follows one request, ``on_step`` takes the engine's steps."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, model_name: str, engine_stats: Callable[[], EngineStats], prefix: str = "minillm:"):
        self._registry = CollectorRegistry()
        labels = dict(zip(LABELS, (model_name, "0"), strict=True))

        def histogram(name: str, what: str, buckets: Iterable[float]) -> Histogram:
            made = Histogram(prefix + name, what, LABELS, buckets=tuple(buckets), registry=self._registry)
            return made.labels(**labels)

        def counter(name: str, what: str) -> Counter:
            return Counter(prefix + name, what, LABELS, registry=self._registry).labels(**labels)

        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens processed.")
        self.generation_tokens = counter("generation_tokens", "Tokens generated.")
        success = Counter(
            f"{prefix}request_success", "Requests ended, by reason.", (*LABELS, "finished_reason"),
            registry=self._registry,
        )  # fmt: skip
        self.ended = {reason: success.labels(**labels, finished_reason=reason) for reason in ENDINGS}
        self.time_to_first_token = histogram(
            "time_to_first_token_seconds", "From the request's arrival to its first token.", FIRST_TOKEN_BUCKETS
        )
        self.inter_token_latency = histogram(
            "inter_token_latency_seconds", "Between two outputs of one request.", TOKEN_BUCKETS
        )
        self.e2e_latency = histogram(
            "e2e_request_latency_seconds", "From the request's arrival to its last token.", REQUEST_BUCKETS
        )
        self.queue_time = histogram(
            "request_queue_time_seconds", "From the engine's queue to the first scheduled step.", REQUEST_BUCKETS
        )
        self.iteration_tokens = histogram(
            "iteration_tokens_total", "Tokens computed in one engine step, prefill and decode.", STEP_BUCKETS
        )
        self._registry.register(_EngineCollector(engine_stats, prefix, tuple(labels.values())))

    def on_step(self, step: StepStats) -> None:
        """Book one engine step; called from the engine's thread."""
        self.iteration_tokens.observe(step.num_tokens)

    def watch(self, caller: Caller, group: RequestGroup) -> RequestWatch:
        """See Observer."""
        return RequestWatch(self, caller.received)

    def exposition(self) -> bytes:
        """What ``GET /metrics`` answers, in Prometheus' text format."""
        return generate_latest(_WithoutCreated(self._registry))


class RequestWatch:
    """Turns the outputs of one request into observations. Each token is counted once, also when it ends early."""

    def __init__(self, metrics: Metrics, received: float):
        self._metrics = metrics
        self._received = received
        self._last: float | None = None
        self._tokens = 0

    def update(self, output: RequestOutput) -> None:
        """Book one output (cumulative, see RequestOutput)."""
        metrics, now = self._metrics, time.monotonic()
        tokens = len(output.outputs[0].token_ids)
        if self._last is None:
            metrics.prompt_tokens.inc(len(output.prompt_token_ids))
            if output.metrics.first_scheduled is not None:
                metrics.queue_time.observe(output.metrics.first_scheduled - output.metrics.arrival)
        if self._last is None and output.metrics.first_token is not None:
            metrics.time_to_first_token.observe(output.metrics.first_token - self._received)
            metrics.generation_tokens.inc()
            self._last, self._tokens = output.metrics.first_token, 1
        # An output may bring several tokens (its reader was slow): each took its share of the time.
        for _ in range(new := tokens - self._tokens):
            metrics.inter_token_latency.observe((now - self._last) / new)
        metrics.generation_tokens.inc(new)
        self._last, self._tokens = now, tokens
        if output.finished:
            metrics.e2e_latency.observe(now - self._received)

    def end(self, reason: str) -> None:
        """See Watch."""
        self._metrics.ended[reason].inc()


class _WithoutCreated(Collector):
    """A registry less the ``_created`` series, which nobody reads and which double the page."""

    def __init__(self, registry: CollectorRegistry):
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _EngineCollector(Collector):
    """Reads the engine's own numbers when somebody asks, so that no step pays for them."""

    def __init__(self, stats: Callable[[], EngineStats], prefix: str, labels: tuple[str, ...]):
        self._stats = stats
        self._prefix = prefix
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        gauges = {
            "num_requests_running": ("Requests in the running batch.", stats.running),
            "num_requests_waiting": ("Requests waiting to be scheduled.", stats.waiting),
            "kv_cache_usage_perc": ("Used part of the KV cache, 0 to 1.", stats.kv_blocks_used / stats.kv_blocks_total),
        }
        for name, (what, value) in gauges.items():
            gauge = GaugeMetricFamily(self._prefix + name, what, labels=LABELS)
            gauge.add_metric(self._labels, value)
            yield gauge
        counters = {
            "num_preemptions": ("Preemptions.", stats.num_preemptions),
            "prefix_cache_queries": ("Tokens looked up in the prefix cache.", stats.prefix_cache_queries),
            "prefix_cache_hits": ("Tokens found in the prefix cache.", stats.prefix_cache_hits),
        }
        for name, (what, value) in counters.items():
            counter = CounterMetricFamily(self._prefix + name, what, labels=LABELS)
            counter.add_metric(self._labels, value)
            yield counter
