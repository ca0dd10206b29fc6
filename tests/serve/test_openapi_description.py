"""/openapi.json tells the truth: schemathesis sends what it allows, and what it does not, and compares the answers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer, wait_until

from minillm_serve.compare.environments import how_to_install, installed_version, python_of
from minillm_serve.config import EngineConfig

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def roomy(tiny_model_dir: Path) -> Iterator[LiveServer]:
    """Of its own: with a context so short that no answer is long."""
    config = EngineConfig(
        model=str(tiny_model_dir), num_kv_blocks=256, max_num_seqs=64, num_threads=1, max_model_len=128
    )
    with LiveServer(config, max_body_bytes=200_000, dev=True) as server:
        yield server


def test_schemathesis_finds_no_answer_that_the_description_does_not_tell_of(roomy: LiveServer, tmp_path: Path):
    """About 6,000 requests to every operation."""
    if installed_version("clients") is None:
        pytest.skip(f"schemathesis has an environment of its own: {how_to_install('clients')}")
    command = [
        *(str(python_of("clients").with_name("schemathesis")), "run", f"{roomy.url}/openapi.json", "--checks", CHECKS),
        *("--phases", "coverage,fuzzing", "--max-examples", "8", "--seed", "5", "--no-shrink"),
        *("--continue-on-failure", "--request-timeout", "30"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    tested = re.search(r"Tested: (\d+)", done.stdout)
    operations = sum(map(len, roomy.http.get("/openapi.json").json()["paths"].values()))
    assert tested is not None and int(tested[1]) == operations, done.stdout[-2000:]
    assert roomy.complete()["usage"]["completion_tokens"] == 4
    wait_until(roomy.idle)


def test_every_operation_says_what_it_takes_and_what_it_answers(roomy: LiveServer):
    described = roomy.http.get("/openapi.json").json()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            answer = operation["responses"]["200"]
            for content in answer.get("content", {}).values():
                assert content.get("schema") or content.get("itemSchema"), f"{where} answers with anything at all"
            for status in ("401", "503"):
                assert operation["responses"][status]["content"], f"{where} does not describe {status}"
            if method == "post" and path != "/reset_prefix_cache":
                body = operation["requestBody"]["content"]["application/json"]["schema"]
                assert body.get("properties") or body.get("anyOf"), f"{where} takes anything at all"
                assert {"400", "413", "415"} <= operation["responses"].keys(), where


def test_the_description_names_every_path_of_the_api(roomy: LiveServer):
    paths = roomy.http.get("/openapi.json").json()["paths"].keys()
    assert paths >= {
        *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/score", "/tokenize"),
        *("/detokenize", "/v1/models", "/v1/models/{name}", "/health", "/ready", "/version", "/metrics"),
        *("/tgi", "/tgi/", "/tgi/generate", "/tgi/generate_stream", "/tgi/info"),
    }
