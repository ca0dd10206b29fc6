"""OpenTelemetry: one span for each prompt, with vLLM's name and attributes, inside the client's trace.

The packages are the extra ``otel`` and are imported only when an endpoint is given: without it nothing of this costs
anything. The SDK's own variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_...) hold as everywhere.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from minillm_serve.config import ConfigError
from minillm_serve.engine.group import RequestGroup
from minillm_serve.request import RequestMetrics, RequestOutput
from minillm_serve.serve.caller import Caller

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

SPAN_NAME = "llm_request"
EXPORT_TIMEOUT_S = 5
CLOSE_S = 1.0
PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def check_endpoint(endpoint: str) -> None:
    """Raises ConfigError when spans could not be sent there."""
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"--otlp-traces-endpoint must be a URL such as http://localhost:4318/v1/traces, got {endpoint!r}"
        )
    if not all(map(_installed, PACKAGES)):
        raise ConfigError(
            "--otlp-traces-endpoint needs OpenTelemetry, which is not installed: pip install 'minillm-serve[otel]'"
        )


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even what the package lies in
        return False


class Tracing:
    """Observer. exporter: where finished spans go; by default to ``endpoint``, over HTTP, from a thread."""

    def __init__(self, endpoint: str, model_name: str, exporter: SpanExporter | None = None):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "minillm"}
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        exporter = exporter or OTLPSpanExporter(endpoint, timeout=EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("minillm_serve")
        self._model_name = model_name

    def watch(self, caller: Caller, group: RequestGroup) -> _SpanWatch:
        """See Observer."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = None
        if caller.trace is not None:
            headers = {"traceparent": caller.trace.parent, "tracestate": caller.trace.state}
            parent = TraceContextTextMapPropagator().extract(headers)
        span = self._tracer.start_span(SPAN_NAME, parent, SpanKind.SERVER, start_time=_wall_clock_ns(caller.received))
        caller.account.trace_id = f"{span.get_span_context().trace_id:032x}"
        return _SpanWatch(span, caller, group, self._model_name)

    def close(self) -> None:
        """Send what is left, for CLOSE_S at most: a collector that is away must not hold up the end."""
        closing = threading.Thread(target=self._provider.shutdown, name="minillm-spans", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class _SpanWatch:
    def __init__(self, span: Span, caller: Caller, group: RequestGroup, model_name: str):
        self._span = span
        self._caller = caller
        self._group = group
        self._model_name = model_name

    def update(self, output: RequestOutput) -> None:
        """See Watch."""

    def end(self, reason: str) -> None:
        """See Watch."""
        from opentelemetry.trace import StatusCode

        moments, span = self._group.metrics(), self._span
        if span.is_recording():
            span.set_attributes(self._attributes(moments, reason))
            for name in ("first_scheduled", "first_token"):
                if (moment := getattr(moments, name)) is not None:
                    span.add_event(name, timestamp=_wall_clock_ns(moment))
            if reason == "error":
                span.set_status(StatusCode.ERROR)
        span.end()

    def _attributes(self, moments: RequestMetrics, reason: str) -> dict[str, Any]:
        group, params = self._group, self._group.params
        return {
            "gen_ai.request.id": self._caller.request_id,
            "gen_ai.response.model": self._model_name,
            "gen_ai.response.finish_reasons": [str(reason)],
            "gen_ai.request.n": params.n,
            "gen_ai.request.temperature": params.temperature,
            "gen_ai.request.top_p": params.top_p,
            **({} if params.max_tokens is None else {"gen_ai.request.max_tokens": params.max_tokens}),
            "gen_ai.usage.prompt_tokens": len(group.prompt_token_ids),
            "gen_ai.usage.completion_tokens": sum(sample.num_tokens for sample in group.samples),
            **{f"gen_ai.latency.{name}": seconds for name, seconds in _latencies(moments, self._caller.received)},
        }


def _latencies(moments: RequestMetrics, received: float) -> Iterator[tuple[str, float]]:
    """vLLM's names of the times that have passed; what did not happen has none."""
    scheduled, first, end = moments.first_scheduled, moments.first_token, moments.finished
    if scheduled is not None:
        yield "time_in_queue", scheduled - moments.arrival
    if first is not None:
        yield "time_to_first_token", first - received
        yield "time_in_model_prefill", first - scheduled
    if end is not None:
        yield "e2e", end - received
        if scheduled is not None:
            yield "time_in_model_inference", end - scheduled
        if first is not None:
            yield "time_in_model_decode", end - first


def _wall_clock_ns(moment: float) -> int:
    """``time.monotonic()`` as nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
