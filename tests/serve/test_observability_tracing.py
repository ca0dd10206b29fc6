"""Spans go to an OTLP receiver, inside the client's trace, and say what happened to each prompt."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from live_server import Brake, LiveServer, wait_until
from test_disconnect import send

from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.serve.observe import tracing
from minillm_serve.serve.observe.trace_context import MAX_STATE_BYTES, trace_context
from minillm_serve.serve.settings import ServerSettings

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01"


class Receiver(ThreadingHTTPServer):
    """Takes OTLP over HTTP; ``spans`` are those it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1/traces"

    @property
    def spans(self) -> list[Any]:
        service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        requests = [service.ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        resources = [resource for request in requests for resource in request.resource_spans]
        return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def traced(tiny_model_dir: Path, receiver: Receiver | None = None, **settings: Any) -> Iterator[LiveServer]:
    url = "http://127.0.0.1:9/v1/traces" if receiver is None else receiver.url
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=64, max_num_seqs=4, num_threads=1)
    with LiveServer(config, otlp_traces_endpoint=url, **settings) as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")
    with Receiver() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def test_a_span_tells_what_its_request_asked_for_and_what_became_of_it(tiny_model_dir: Path, receiver: Receiver):
    with traced(tiny_model_dir, receiver) as server:
        body = {"model": "tiny", "prompt": "Hello", "max_tokens": 5, "n": 2, "temperature": 0.5, "ignore_eos": True}
        headers = {"x-request-id": "mine"}
        assert server.post("/v1/completions", body | {"top_p": 0.9}, headers=headers).status_code == 200
    [span] = receiver.spans
    told = attributes(span)
    assert span.name == "llm_request" and span.kind == span.SPAN_KIND_SERVER
    assert told["gen_ai.request.id"] == "mine" and told["gen_ai.response.model"] == "tiny"
    assert told["gen_ai.request.n"] == 2 and told["gen_ai.request.max_tokens"] == 5
    assert told["gen_ai.request.temperature"] == 0.5 and told["gen_ai.request.top_p"] == 0.9
    assert told["gen_ai.usage.prompt_tokens"] == 5 and told["gen_ai.usage.completion_tokens"] == 10
    latency = {name.removeprefix("gen_ai.latency."): value for name, value in told.items() if ".latency." in name}
    inside = latency["time_in_model_prefill"] + latency["time_in_model_decode"]
    assert latency["time_in_model_inference"] == pytest.approx(inside)
    assert latency["e2e"] == pytest.approx(latency["time_to_first_token"] + latency["time_in_model_decode"])
    assert latency["time_in_queue"] + inside <= latency["e2e"]
    assert [event.name for event in span.events] == ["first_scheduled", "first_token"]
    moments = [span.start_time_unix_nano, *(event.time_unix_nano for event in span.events), span.end_time_unix_nano]
    assert moments == sorted(moments)


def test_a_span_lies_in_the_clients_trace(tiny_model_dir: Path, receiver: Receiver):
    with traced(tiny_model_dir, receiver) as server:
        headers = {"traceparent": SAMPLED, "tracestate": "vendor=1"}
        server.post("/v1/completions", {"model": "tiny", "prompt": ["a", "b"], "max_tokens": 2}, headers=headers)
        server.complete()
    *mine, other = sorted(receiver.spans, key=lambda span: span.start_time_unix_nano)
    assert len(mine) == 2, "one for each prompt"
    for span in mine:
        assert span.trace_id.hex() == TRACE and span.parent_span_id.hex() == SPAN and span.trace_state == "vendor=1"
    assert other.trace_id.hex() != TRACE and not other.parent_span_id


def test_what_the_client_does_not_sample_is_not_sent(tiny_model_dir: Path, receiver: Receiver):
    with traced(tiny_model_dir, receiver) as server:
        unsampled = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
        server.post("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 2}, headers=unsampled)
    assert not receiver.spans


def test_a_request_that_was_given_up_has_a_span_that_says_so(tiny_model_dir: Path, receiver: Receiver):
    with traced(tiny_model_dir, receiver) as server:
        body = {"model": "tiny", "prompt": "Hello", "max_tokens": 200, "ignore_eos": True}
        with Brake(server, steps=2), send(server, body):
            wait_until(lambda: server.metric("generation_tokens_total") == 3)
        wait_until(server.idle)
    [span] = receiver.spans
    told = attributes(span)
    assert [value.string_value for value in told["gen_ai.response.finish_reasons"].values] == ["abort"]
    assert "gen_ai.latency.time_to_first_token" in told


def test_a_collector_that_is_away_costs_no_answer_and_no_long_goodbye(tiny_model_dir: Path):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")
    with traced(tiny_model_dir) as server:
        assert server.complete()["usage"]["completion_tokens"] == 4


def test_without_the_packages_the_flag_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'minillm-serve\[otel\]'"):
        ServerSettings(otlp_traces_endpoint="http://localhost:4318/v1/traces")


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://x", ""])
def test_an_endpoint_must_be_an_http_url(endpoint: str):
    with pytest.raises(ConfigError, match="--otlp-traces-endpoint"):
        ServerSettings(otlp_traces_endpoint=endpoint)


def test_without_the_flag_nothing_of_opentelemetry_is_imported():
    code = (
        "import sys, minillm_serve.serve.api, minillm_serve.serve.observe.tracing;"
        "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "sound", [SAMPLED, f"00-{TRACE}-{SPAN}-00", f"01-{TRACE}-{SPAN}-01-later", f"cc-{TRACE}-{SPAN}-ff"]
)
def test_a_sound_traceparent_is_kept(sound: str):
    found = trace_context([(b"traceparent", sound.encode()), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")])
    assert found.trace_id == TRACE and found.parent == sound[:55] and found.state == "a=1,b=2"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nonsense",
        SAMPLED.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{SAMPLED}-more",
        f"01-{TRACE}-{SPAN}-01later",
        f"00-{TRACE}-{SPAN}",
        SAMPLED + "\r\nx: y",
    ],
)
def test_nonsense_is_passed_over(bad: str):
    assert trace_context([(b"traceparent", bad.encode())]) is None


def test_two_parents_are_none_and_a_long_state_is_dropped():
    parent = (b"traceparent", SAMPLED.encode())
    assert trace_context([parent, parent]) is None
    assert trace_context([parent, (b"tracestate", b"a" * (MAX_STATE_BYTES + 1))]).state == ""
    assert trace_context([]) is None
