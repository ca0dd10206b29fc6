"""What the engine and the limits count themselves, read when somebody asks, so that nobody else pays for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from minillm_serve.engine.core import EngineStats

Family = GaugeMetricFamily | CounterMetricFamily


class EngineCollector(Collector):
    """Queues, KV cache, prefix cache; all zeros, with no KV block at all, until the engine is there."""

    def __init__(self, stats: Callable[[], EngineStats], prefix: str, labels: Sequence[str], values: Sequence[str]):
        self._stats = stats
        self._prefix = prefix
        self._labels = tuple(labels)
        self._values = tuple(values)

    def collect(self) -> Iterator[Family]:
        """See prometheus_client: the families as they are now."""
        stats = self._stats()
        blocks = max(1, stats.kv_blocks_total)
        used, cached = stats.kv_blocks_used / blocks, stats.kv_blocks_cached / blocks
        yield self._gauge("num_requests_running", "Sequences in the running batch.", stats.running)
        yield self._gauge("num_requests_waiting", "Sequences waiting to be scheduled.", stats.waiting)
        yield self._by("num_requests_waiting_by_reason", "Waiting sequences; none is deferred here.", "reason",
                       {"capacity": stats.waiting, "deferred": 0})  # fmt: skip
        yield self._by("engine_sleep_state", "1 once the model is loaded: this engine does not sleep.", "sleep_state",
                       {"awake": int(stats.kv_blocks_total > 0)})  # fmt: skip
        yield self._gauge("kv_cache_usage_perc", "Used part of the KV cache, 0 to 1.", used)
        yield self._gauge("kv_cache_cached_perc", "Part of the KV cache that a prefix hit can find, 0 to 1.", cached)
        yield self._counter("num_preemptions", "Preemptions.", stats.num_preemptions)
        yield self._counter("prefix_cache_queries", "Tokens looked up in the prefix cache.", stats.prefix_cache_queries)
        yield self._counter("prefix_cache_hits", "Tokens found in the prefix cache.", stats.prefix_cache_hits)

    def _gauge(self, name: str, what: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(self._prefix + name, what, labels=self._labels)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, what: str, value: float) -> CounterMetricFamily:
        family = CounterMetricFamily(self._prefix + name, what, labels=self._labels)
        family.add_metric(self._values, value)
        return family

    def _by(self, name: str, what: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(self._prefix + name, what, labels=(*self._labels, label))
        for key, value in values.items():
            family.add_metric((*self._values, key), value)
        return family


class RejectionCollector(Collector):
    """Requests turned away because of what was under way, by reason; a reason is one of a few words."""

    def __init__(self, rejections: Mapping[str, int], prefix: str, model_name: str):
        self._rejections = rejections
        self._name = f"{prefix}admission_rejections"
        self._model_name = model_name

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See prometheus_client: the family as it is now."""
        family = CounterMetricFamily(self._name, "Requests turned away or cut off.", labels=("model_name", "reason"))
        for reason, count in self._rejections.items():
            family.add_metric((self._model_name, reason), count)
        yield family
