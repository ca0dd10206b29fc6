"""/metrics is what Prometheus can read, and it agrees with what clients were told."""

from __future__ import annotations

import openai
from live_server import LiveServer, metric_in
from prometheus_client.parser import text_string_to_metric_families

HISTOGRAMS = (
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "iteration_tokens_total",
)
GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
COUNTERS = (
    "num_preemptions",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "prompt_tokens",
    "generation_tokens",
    "request_success",
)


def test_the_first_dozen_has_vllms_names_types_and_labels(server: LiveServer):
    response = server.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    for names, kind in ((HISTOGRAMS, "histogram"), (GAUGES, "gauge"), (COUNTERS, "counter")):
        for name in names:
            assert families[f"minillm:{name}"].type == kind
    for family in families.values():
        for sample in family.samples:
            assert sample.labels["model_name"] == "tiny" and sample.labels["engine"] == "0"


def test_counts_are_those_of_usage(server: LiveServer, client: openai.OpenAI):
    before = server.http.get("/metrics").text
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
    after = server.http.get("/metrics").text

    def grown(name: str, **labels: str) -> float:
        return metric_in(after, name, **labels) - metric_in(before, name, **labels)

    assert grown("prompt_tokens_total") == sum(usage.prompt_tokens for usage in usages)
    generated = sum(usage.completion_tokens for usage in usages)
    assert grown("generation_tokens_total") == generated
    assert grown("request_success_total", finished_reason="length") == 9
    assert grown("request_success_total") == 9
    assert grown("time_to_first_token_seconds_count") == 9
    assert grown("e2e_request_latency_seconds_count") == 9
    assert grown("request_queue_time_seconds_count") == 9
    assert grown("inter_token_latency_seconds_count") == generated - 9
    needed = sum(usage.prompt_tokens for usage in usages) + generated - 9
    spared = grown("prefix_cache_hits_total")
    assert grown("iteration_tokens_total_sum") + spared == needed, "each token but a request's last: computed or cached"
    assert 0 < spared <= grown("prefix_cache_queries_total"), "the chat's prompt comes three times"


def test_a_refused_request_counts_nowhere(server: LiveServer):
    names = ("prompt_tokens_total", "generation_tokens_total", "request_success_total")
    before = [server.metric(name) for name in names]
    assert server.post("/v1/completions", {"prompt": ["fine", ""]}).status_code == 400
    assert [server.metric(name) for name in names] == before
