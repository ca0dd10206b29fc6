"""A real Prometheus reads the server, and every query of the dashboard and of the rules has an answer.

``minillm compare setup tools`` gets prometheus and promtool; without them these tests are skipped.
"""

from __future__ import annotations

import json
import math
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from live_server import LiveServer, wait_until

import minillm_serve.deploy
from minillm_serve.compare.tools import tool_path
from minillm_serve.config import EngineConfig
from minillm_serve.engine.core import EngineStats
from minillm_serve.serve.observe.metrics import Metrics

DEPLOY = Path(minillm_serve.deploy.__file__).parent
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
RULES = [
    rule
    for name in ("rules.yml", "alerts.yml")
    for group in yaml.safe_load((DEPLOY / "prometheus" / name).read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    f"{panel['title']}, {target['legendFormat'] or target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}
WINDOW = "20s"  # of rates, in place of five minutes: all of it has been under load


def tool(name: str) -> str:
    path = tool_path(name)
    if path is None:
        pytest.skip(f"{name} is absent: minillm compare setup tools")
    return str(path)


def promtool(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [tool("promtool"), *arguments]
    folder = DEPLOY / "prometheus"
    return subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, timeout=60, check=False)


def for_prometheus(query: str) -> str:
    """What Grafana would send."""
    query = query.replace("${prefix}", "minillm").replace("$model", ".*").replace("$__rate_interval", WINDOW)
    assert "$" not in query, query
    return query


class Prometheus:
    """A real one, with the configuration we ship, only faster and at another port."""

    def __init__(self, folder: Path, target: str):
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        for name in config["rule_files"]:
            text = (DEPLOY / "prometheus" / name).read_text(encoding="utf-8")
            (folder / name).write_text(re.sub(r"\[[0-9]+m\]", f"[{WINDOW}]", text), encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self._log = folder / "log"
        self._command = [
            tool("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}", "--log.level=warn",
        ]  # fmt: skip
        self.http = httpx.Client(base_url=f"http://{address}/api/v1", timeout=30)

    def __enter__(self) -> Prometheus:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(lambda: self._process.poll() is not None or self._answers())
        assert self._process.poll() is None, self._log.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        self.http.close()

    def _answers(self) -> bool:
        try:
            return self.http.get("/query", params={"query": "1"}).status_code == 200
        except httpx.TransportError:
            return False

    def values(self, query: str) -> list[float]:
        answer = self.http.get("/query", params={"query": query}).json()
        assert answer["status"] == "success", f"{query}: {answer.get('error')}"
        return [float(sample["value"][1]) for sample in answer["data"]["result"]]


@pytest.fixture(scope="module")
def prometheus(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus beside a server under load, once everything that is counted has been counted in several scrapes."""
    tool("prometheus")
    spec = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_min": 1, "dynamic": False,
            "rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [0.8, 0.5]}  # fmt: skip
    config = EngineConfig(
        model=str(tiny_model_dir), num_kv_blocks=64, max_num_seqs=4, num_threads=1, speculative_config=spec
    )
    with LiveServer(config) as server, Prometheus(tmp_path_factory.mktemp("prometheus"), server.url[7:]) as prometheus:
        stop = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            loads = [pool.submit(load, server, stop) for _ in range(2)]
            try:
                everything = [*map(for_prometheus, QUERIES.values()), *(rule["record"] for rule in recordings())]
                wait_until(lambda: all(map(prometheus.values, everything)) and has_rates(prometheus), 60)
                yield prometheus
            finally:
                stop.set()
        for done in loads:
            done.result()


def has_rates(prometheus: Prometheus) -> bool:
    names = ("generation_tokens_total", "prefix_cache_hits_total", 'request_success_total{finished_reason="length"}',
             "spec_decode_num_drafts_total")  # fmt: skip
    return all(min(prometheus.values(f"rate(minillm:{name}[{WINDOW}])"), default=0) > 0 for name in names)


def load(server: LiveServer, stop: threading.Event) -> None:
    """The same prompt again and again, for prefix hits, with every token in it, for drafts after whatever is drawn."""
    while not stop.is_set():
        server.complete(prompt=list(range(3, 512)), max_tokens=8)
        server.post("/v1/completions", {"model": "tiny", "prompt": ""})
        stop.wait(0.05)


def recordings() -> list[dict[str, str]]:
    return [rule for rule in RULES if "record" in rule]


def test_every_query_of_the_dashboard_has_a_finite_answer(prometheus: Prometheus):
    for name, query in QUERIES.items():
        values = prometheus.values(for_prometheus(query))
        assert values and all(map(math.isfinite, values)), f"{name}: {query}: {values}"


def test_the_dashboards_variables_find_something(prometheus: Prometheus):
    [variable] = [v for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
    answer = prometheus.http.get(f"/label/{label}/values", params={"match[]": for_prometheus(metric)}).json()
    assert answer["data"] == ["tiny"]


def test_every_recording_rule_records_finite_values(prometheus: Prometheus):
    for rule in recordings():
        values = prometheus.values(rule["record"])
        assert values and all(map(math.isfinite, values)), f"{rule['record']}: {values}"


def test_every_alert_looks_at_something_that_is_there(prometheus: Prometheus):
    """An alert on a name that nobody exports would stay silent for ever."""
    for rule in RULES:
        if "alert" in rule:
            expression = re.sub(r"\[[0-9]+m\]", f"[{WINDOW}]", rule["expr"])
            for part in re.split(r"\band\b", expression):
                observed = re.split(r"[<>=]=?\s*[0-9.]+\s*$", part.strip())[0]
                values = prometheus.values(observed)
                assert values and all(map(math.isfinite, values)), f"{rule['alert']}: {observed}: {values}"


def test_no_rule_fails_and_no_alert_fires_on_a_healthy_server(prometheus: Prometheus):
    groups = prometheus.http.get("/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(RULES)
    for rule in rules:
        assert rule["health"] == "ok" and not rule.get("lastError"), rule
    alerts = prometheus.http.get("/alerts").json()["data"]["alerts"]
    assert not [alert for alert in alerts if alert["state"] == "firing"]
    assert "EngineStalled" not in {alert["labels"]["alertname"] for alert in alerts}


def test_prometheus_takes_every_line_of_the_page(prometheus: Prometheus):
    wait_until(lambda: prometheus.values('up{job="minillm"}') == [1.0])
    [target] = prometheus.http.get("/targets").json()["data"]["activeTargets"]
    assert "parse" not in target["lastError"] and "invalid" not in target["lastError"], target["lastError"]


def test_promtool_finds_the_rules_and_the_configuration_sound():
    for arguments in (("rules", "rules.yml", "alerts.yml"), ("config", "prometheus.yml")):
        checked = promtool("check", *arguments)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_fires_when_it_should_and_not_before():
    tested = promtool("test", "rules", "alerts_test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    text = (DEPLOY / "prometheus" / "alerts_test.yml").read_text(encoding="utf-8")
    for rule in RULES:
        if "alert" in rule:
            expected = [part for part in text.split("alertname: ") if part.startswith(rule["alert"])]
            assert any("exp_labels" in part for part in expected), f"{rule['alert']} is never seen firing"


@pytest.mark.parametrize("prefix", ["minillm_", "minillm", "vllm"])
def test_promtool_has_nothing_against_the_metrics_but_vllms_names(prefix: str, server: LiveServer):
    """Two things it would rather not see, and vLLM's dashboards need: the colon, and one histogram that ends in _total.

    With a prefix that ends in _ the colon is gone.
    """
    if prefix == "minillm":
        server.complete()
        page = server.http.get("/metrics").text
    else:
        page = (
            Metrics("m", lambda: EngineStats(0, 0, 0, 0, 0), prefix, {"max_num_queued_reqs": 0}).exposition().decode()
        )
    checked = promtool("check", "metrics", given=page)
    complaints = set((checked.stdout + checked.stderr).splitlines())
    full = prefix if prefix.endswith("_") else f"{prefix}:"
    expected = {f'{full}iteration_tokens_total non-counter metrics should not have "_total" suffix'}
    if full.endswith(":"):
        names = re.findall(rf"^# TYPE ({full}\w+) ", page, re.MULTILINE)
        expected |= {f"{name} metric names should not contain ':'" for name in names}
    assert complaints == expected


def test_the_dashboard_is_one_that_grafana_can_lay_out():
    """Unique ids, no overlap, every panel says what it shows and asks the chosen data source."""
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}" and panel["targets"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_dashboard_and_rules_ask_for_metrics_under_every_prefix():
    """No query but the unprefixed ones names a prefix of its own, so that vLLM can be looked at as well."""
    for query in QUERIES.values():
        assert "minillm" not in query and "vllm" not in query
