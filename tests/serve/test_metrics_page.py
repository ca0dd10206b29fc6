"""/metrics is what Prometheus can read, and it agrees with what clients were told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from fastapi import APIRouter, FastAPI
from live_server import Brake, LiveServer, metric_in, wait_until
from prometheus_client.parser import text_string_to_metric_families
from test_disconnect import send

from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.engine.core import EngineStats, StepStats
from minillm_serve.serve.observe.http import handler_of
from minillm_serve.serve.observe.metrics import Metrics
from minillm_serve.serve.settings import ServerSettings

HISTOGRAMS = (
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_inference_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
    "request_max_num_generation_tokens",
    "request_prefill_kv_computed_tokens",
    "request_params_max_tokens",
    "request_params_n",
    "request_num_preemptions",
    "iteration_tokens_total",
)
GAUGES = (
    "num_requests_running",
    "num_requests_waiting",
    "num_requests_waiting_by_reason",
    "kv_cache_usage_perc",
    "engine_sleep_state",
    "cache_config_info",
)
COUNTERS = (
    "num_preemptions",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "prompt_tokens",
    "prompt_tokens_cached",
    "prompt_tokens_by_source",
    "generation_tokens",
    "request_success",
    "admission_rejections",
)
SPEC_COUNTERS = (
    "spec_decode_num_drafts",
    "spec_decode_num_draft_tokens",
    "spec_decode_num_accepted_tokens",
    "spec_decode_num_accepted_tokens_per_pos",
)
GREEDY = {"model": "tiny", "prompt": "Hello", "max_tokens": 6, "temperature": 0, "ignore_eos": True}


class Growth:
    """How much metrics have grown since it was made."""

    def __init__(self, server: LiveServer):
        self._server = server
        self._before = server.http.get("/metrics").text

    def __call__(self, name: str, **labels: str) -> float:
        return self._server.metric(name, **labels) - metric_in(self._before, name, **labels)


def idle_stats() -> EngineStats:
    return EngineStats(running=0, waiting=0, kv_blocks_used=0, kv_blocks_total=0, num_preemptions=0)


def http_count(server: LiveServer, **labels: str) -> float:
    families = text_string_to_metric_families(server.http.get("/metrics").text)
    samples = [sample for family in families if family.name == "http_requests" for sample in family.samples]
    return sum(s.value for s in samples if s.name == "http_requests_total" and labels.items() <= s.labels.items())


def test_names_types_and_labels_are_vllms(server: LiveServer):
    response = server.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    for names, kind in ((HISTOGRAMS, "histogram"), (GAUGES, "gauge"), (COUNTERS, "counter")):
        for name in names:
            assert families[f"minillm:{name}"].type == kind
    ours = [family for name, family in families.items() if name.startswith("minillm:")]
    for family in ours:
        for sample in family.samples:
            assert sample.labels["model_name"] == "tiny"
            assert sample.labels.get("engine") == "0" or family.name == "minillm:admission_rejections"
    assert {name.partition(":")[0] for name in families} - {"minillm"} == {
        name for name in families if name.startswith(("http_", "process_", "python_"))
    }


def test_tasks_of_the_event_loop_are_counted_and_end_with_their_requests(server: LiveServer):
    wait_until(server.idle)
    before = server.metric("event_loop_tasks")
    assert before >= 1  # that of this very answer
    with Brake(server, steps=0), send(server, {"prompt": "x", "max_tokens": 9}):
        wait_until(lambda: server.metric("event_loop_tasks") > before)
    wait_until(lambda: server.metric("event_loop_tasks") == before)


@pytest.mark.parametrize(("given", "full"), [("vllm", "vllm:"), ("vllm:", "vllm:"), ("minillm_", "minillm_"), ("", "")])
def test_the_prefix_is_a_word_or_ends_in_its_own_separator(given: str, full: str):
    page = Metrics("m", idle_stats, given).exposition().decode()
    for name in (*HISTOGRAMS, *GAUGES[:-1]):
        assert f"# HELP {full}{name} " in page
    assert ServerSettings(metrics_prefix=given).metrics_prefix == given


@pytest.mark.parametrize("prefix", ["1st", "a b", "a-b", "é", "a\n"])
def test_a_prefix_that_prometheus_could_not_read_is_refused_at_the_start(prefix: str):
    with pytest.raises(ConfigError, match="--metrics-prefix"):
        ServerSettings(metrics_prefix=prefix)


def test_an_engine_that_is_not_there_yet_is_all_zeros():
    page = Metrics("m", idle_stats).exposition().decode()
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "generation_tokens_total"):
        assert metric_in(page, name) == 0


def test_counts_are_those_of_usage(server: LiveServer, client: openai.OpenAI):
    grown = Growth(server)
    usages = []
    for number in range(3):
        extra = {"ignore_eos": True}
        answer = client.completions.create(model="tiny", prompt=["Hello", "there"], max_tokens=5 + number,
                                           extra_body=extra)  # fmt: skip
        usages.append(answer.usage)
        stream = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=7, stream=True,
            stream_options={"include_usage": True}, extra_body=extra,
        )  # fmt: skip
        usages.append([chunk.usage for chunk in stream][-1])

    prompt_tokens = sum(usage.prompt_tokens for usage in usages)
    generated = sum(usage.completion_tokens for usage in usages)
    assert grown("prompt_tokens_total") == grown("prompt_tokens_by_source_total") == prompt_tokens
    assert grown("generation_tokens_total") == generated
    assert grown("request_success_total", finished_reason="length") == grown("request_success_total") == 9
    for name in HISTOGRAMS[:2] + HISTOGRAMS[-1:]:
        assert grown(f"{name}_count") > 0
    for name in set(HISTOGRAMS) - {"inter_token_latency_seconds", "iteration_tokens_total"}:
        assert grown(f"{name}_count") == 9, name
    assert grown("inter_token_latency_seconds_count") == generated - 9
    assert grown("request_prompt_tokens_sum") == prompt_tokens
    assert grown("request_generation_tokens_sum") == grown("request_params_max_tokens_sum") == generated
    spared = grown("prefix_cache_hits_total")
    assert grown("prompt_tokens_cached_total") == grown("prompt_tokens_by_source_total", source="local_cache_hit")
    assert grown("prompt_tokens_cached_total") == spared
    assert grown("request_prefill_kv_computed_tokens_sum") == prompt_tokens - spared
    needed = prompt_tokens + generated - 9
    assert grown("iteration_tokens_total_sum") + spared == needed, "each token but a request's last: computed or cached"
    assert 0 < spared <= grown("prefix_cache_queries_total"), "the chat's prompt comes three times"


def test_every_sample_of_a_prompt_counts_and_the_prompt_once(server: LiveServer):
    grown = Growth(server)
    usage = server.complete(n=3, temperature=1.0, ignore_eos=True, max_tokens=5)["usage"]
    assert usage["completion_tokens"] == 15
    assert grown("generation_tokens_total") == grown("request_generation_tokens_sum") == 15
    assert grown("prompt_tokens_total") == usage["prompt_tokens"]
    assert grown("request_max_num_generation_tokens_sum") == 5 and grown("request_params_n_sum") == 3
    assert grown("request_success_total") == grown("time_to_first_token_seconds_count") == 1
    assert grown("inter_token_latency_seconds_count") == 3 * 4


@pytest.mark.parametrize("stream", [False, True])
def test_times_are_the_engines_however_the_answer_is_sent(server: LiveServer, stream: bool):
    """A step is held up after the first token: that is decode time, also when the answer is sent in one piece."""
    grown = Growth(server)
    with ThreadPoolExecutor(1) as pool, Brake(server, steps=1):
        answer = pool.submit(server.post, "/v1/completions", GREEDY | {"stream": stream})
        wait_until(lambda: grown("generation_tokens_total") == 2)
    assert answer.result().status_code == 200
    phases = [grown(f"request_{phase}_time_seconds_sum") for phase in ("queue", "prefill", "decode")]
    assert grown("request_inference_time_seconds_sum") == pytest.approx(phases[1] + phases[2], abs=1e-6)
    assert grown("e2e_request_latency_seconds_sum") >= sum(phases)
    first, whole = grown("time_to_first_token_seconds_sum"), grown("e2e_request_latency_seconds_sum")
    assert first == pytest.approx(whole - phases[2], abs=1e-6)
    assert grown("request_time_per_output_token_seconds_sum") == pytest.approx(phases[2] / 5)
    assert grown("inter_token_latency_seconds_count") == 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_counted_once_with_what_it_cost(server: LiveServer, stream: bool):
    grown = Growth(server)
    with Brake(server, steps=4), send(server, GREEDY | {"max_tokens": 500, "stream": stream}):
        wait_until(lambda: grown("generation_tokens_total") == 5)
    wait_until(server.idle)
    assert grown("request_success_total", finished_reason="abort") == grown("request_success_total") == 1
    assert grown("prompt_tokens_total") == 5 and grown("generation_tokens_total") < 500
    assert grown("time_to_first_token_seconds_count") == 1
    assert grown("e2e_request_latency_seconds_count") == 0, "it has no end of its own"


def test_a_refused_request_counts_nowhere(server: LiveServer):
    grown = Growth(server)
    assert server.post("/v1/completions", {"prompt": ["fine", ""]}).status_code == 400
    assert not any(map(grown, ("prompt_tokens_total", "generation_tokens_total", "request_success_total")))


def test_an_embedding_counts_its_prompt_and_has_no_first_token(server: LiveServer):
    grown = Growth(server)
    usage = server.post("/v1/embeddings", {"model": "tiny", "input": "some text"}).json()["usage"]
    assert grown("prompt_tokens_total") == usage["prompt_tokens"]
    assert grown("request_success_total", finished_reason="stop") == grown("e2e_request_latency_seconds_count") == 1
    assert grown("generation_tokens_total") == grown("time_to_first_token_seconds_count") == 0


def test_forced_tokens_are_generated_tokens_too(server: LiveServer):
    grown = Growth(server)
    answer = server.complete(max_tokens=40, structured_outputs={"choice": ["abcdefghijklmnopqrstuvwxyz"]})
    assert grown("generation_tokens_total") == answer["usage"]["completion_tokens"]
    assert 0 < grown("jump_ahead_tokens_total") <= grown("generation_tokens_total")


def test_every_http_request_is_counted_by_its_route(server: LiveServer):
    count = {"method": "POST", "handler": "/v1/completions"}
    before = [http_count(server, **count, code=code) for code in ("200", "400")]
    server.complete()
    server.post("/v1/completions", {"prompt": []})
    wait_until(lambda: http_count(server, **count, code="400", status="4xx") == before[1] + 1)
    assert http_count(server, **count, code="200", status="2xx") == before[0] + 1
    model = {"handler": "/v1/models/{name}"}
    before = [http_count(server, **model, code=code) for code in ("200", "404")]
    assert [server.http.get(f"/v1/models/{name}").status_code for name in ("tiny", "else")] == [200, 404]
    wait_until(lambda: http_count(server, **model, code="404", status="4xx") == before[1] + 1)
    assert http_count(server, **model, code="200", status="2xx") == before[0] + 1


@pytest.mark.parametrize(
    ("path", "handler"),
    [
        ("/plain", "/plain"),
        ("/under/there", "/under/there"),
        ("/under", "/under"),
        ("/things/007", "unknown"),
        ("/files/a/b", "/files/{name}"),
        ("/files/files", "/files/{name}"),
        ("/files/", "/files/{name}"),
        ("/elsewhere", "unknown"),
        ("/Plain", "unknown"),
    ],
)
def test_a_refused_request_has_the_route_it_would_have_had(path: str, handler: str):
    """A request without a key, say, never comes to the routes; and a label never holds what a client chose."""
    app, included = FastAPI(), APIRouter()
    for template in ("/plain", "/things/{number:int}", "/files/{name:path}"):
        app.get(template)(lambda: None)
    for template in ("/there", ""):
        included.get(template)(lambda: None)
    app.include_router(included, prefix="/under")
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "root_path": "", "query_string": b""}
    assert handler_of(scope, app.router) == handler


def test_what_monitoring_asks_is_not_counted(server: LiveServer):
    before = http_count(server)
    for path in ("/health", "/ready", "/version", "/load", "/metrics"):
        assert server.http.get(path).status_code == 200
    server.http.get("/v1/models")
    wait_until(lambda: http_count(server) == before + 1)


def test_strangers_cannot_make_new_series(server: LiveServer):
    """Whatever paths and methods come, they share one label each."""

    def handlers_and_methods() -> set[tuple[str, str]]:
        families = text_string_to_metric_families(server.http.get("/metrics").text)
        labels = [s.labels for family in families for s in family.samples if s.name == "http_requests_total"]
        return {(label["handler"], label["method"]) for label in labels}

    server.http.get("/unknown/0")
    server.http.request("BREW", "/coffee/0")
    wait_until(lambda: {("unknown", "GET"), ("unknown", "OTHER")} <= handlers_and_methods())
    before, seen = handlers_and_methods(), http_count(server)
    for number in range(1, 20):
        server.http.get(f"/unknown/{number}")
        server.http.request(f"BREW{number}", f"/coffee/{number}")
    wait_until(lambda: http_count(server) == seen + 38)
    assert handlers_and_methods() == before


def test_the_server_tells_how_many_requests_it_has(server: LiveServer):
    assert server.http.get("/load").json() == {"server_load": 0}
    with ThreadPoolExecutor(1) as pool, Brake(server, steps=0) as brake:
        answer = pool.submit(server.post, "/v1/completions", GREEDY)
        wait_until(lambda: server.http.get("/load").json() == {"server_load": 1})
        brake.allow(10)
    assert answer.result().status_code == 200
    wait_until(lambda: server.http.get("/load").json() == {"server_load": 0})


def test_a_step_books_equal_intervals_together():
    metrics = Metrics("m", idle_stats)
    metrics.on_step(StepStats(8, 0.02, 4, 0, new_tokens=5, forced_tokens=1, intervals={0.03: 3, 0.4: 1}))
    page = metrics.exposition().decode()
    assert metric_in(page, "inter_token_latency_seconds_count") == 4
    assert metric_in(page, "inter_token_latency_seconds_sum") == pytest.approx(0.49)
    assert metric_in(page, "inter_token_latency_seconds_bucket", le="0.05") == 3
    assert metric_in(page, "generation_tokens_total") == 5 and metric_in(page, "jump_ahead_tokens_total") == 1


def test_drafts_are_counted_under_vllms_names():
    metrics = Metrics("m", idle_stats)
    metrics.count_drafts(3)
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}
    assert all(families[f"minillm:{name}"].type == "counter" for name in SPEC_COUNTERS)
    metrics.on_step(StepStats(9, 0.02, 3, 0, new_tokens=6, drafts=[(3, 2), (1, 0), (2, 1)]))
    page = metrics.exposition().decode()
    assert [metric_in(page, f"{name}_total") for name in SPEC_COUNTERS] == [3, 6, 3, 3]
    by_position = [metric_in(page, f"{SPEC_COUNTERS[3]}_total", position=str(place)) for place in range(3)]
    assert by_position == [2, 1, 0]


def test_an_engine_that_drafts_nothing_does_not_speak_of_drafts(server: LiveServer):
    assert "spec_decode" not in server.http.get("/metrics").text


def test_a_server_that_speculates_counts_what_it_verified(tiny_model_dir: Path):
    spec = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_min": 1, "dynamic": False,
            "rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [1.0, 0.5]}  # fmt: skip
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=32, num_threads=1, speculative_config=spec)
    with LiveServer(config) as server:
        server.complete(prompt=[9] * 12, max_tokens=30, ignore_eos=True)
        drafts, tokens, accepted, per_place = (server.metric(f"{name}_total") for name in SPEC_COUNTERS)
        steps = server.metric("iteration_tokens_total_count")
        first = server.metric(f"{SPEC_COUNTERS[3]}_total", position="0")
        assert 0 < drafts == first < tokens <= 2 * drafts and accepted == per_place < tokens
        assert steps + accepted == server.metric("generation_tokens_total") == 30
