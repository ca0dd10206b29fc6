"""vLLM's own load generator drives this server: every request succeeds, and its figures agree with ours."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer

from minillm_serve.compare.environments import how_to_install, installed_version, python_of

PROMPTS, OUTPUT_TOKENS = 24, 8


@pytest.mark.parametrize(
    ("backend", "endpoint", "chunks"),
    [
        ("openai", "/v1/completions", OUTPUT_TOKENS),
        ("openai-chat", "/v1/chat/completions", OUTPUT_TOKENS + 1),  # one for the role, sent with the first token
    ],
)
def test_a_run_without_a_failure(
    server: LiveServer, tiny_model_dir: Path, tmp_path: Path, backend: str, endpoint: str, chunks: int
):
    if installed_version("vllm") is None:
        pytest.skip(f"vllm is not installed; install it with: {how_to_install('vllm')}")
    before = {name: server.metric(name) for name in ("generation_tokens_total", "request_success_total")}
    report = bench(server, tiny_model_dir, tmp_path, backend, endpoint)
    assert (report["completed"], report["failed"]) == (PROMPTS, 0)
    assert report["total_output_tokens"] == PROMPTS * OUTPUT_TOKENS
    assert len(report["ttfts"]) == PROMPTS and all(ttft > 0 for ttft in report["ttfts"])
    assert {len(gaps) for gaps in report["itls"]} == {chunks - 1}, "a chunk for each token"
    assert 0 < report["median_ttft_ms"] <= report["p99_ttft_ms"] < report["duration"] * 1000
    assert 0 < report["median_tpot_ms"] <= report["p99_tpot_ms"]
    served = {name: server.metric(name) - value for name, value in before.items()}
    asked = PROMPTS + 1  # and the client's warm-up
    assert served == {"generation_tokens_total": asked * OUTPUT_TOKENS, "request_success_total": asked}


def bench(server: LiveServer, model: Path, folder: Path, backend: str, endpoint: str) -> dict[str, Any]:
    """What ``vllm bench serve`` wrote about its run."""
    options = {
        "--backend": backend,
        "--base-url": server.url,
        "--endpoint": endpoint,
        "--model": "tiny",
        "--tokenizer": str(model),
        "--dataset-name": "random",
        "--random-input-len": "24",
        "--random-output-len": str(OUTPUT_TOKENS),
        "--num-prompts": str(PROMPTS),
        "--num-warmups": "1",
        "--ready-check-timeout-sec": "0",
        "--request-rate": "50",
        "--percentile-metrics": "ttft,tpot,itl,e2el",
        "--metric-percentiles": "50,99",
        "--result-dir": str(folder),
        "--result-filename": "report.json",
        "--seed": "0",
    }
    switches = ["--ignore-eos", "--save-result", "--save-detailed", "--disable-tqdm"]
    command = [str(python_of("vllm")), "-m", "vllm.entrypoints.cli.main", "bench", "serve", *switches]
    command += [word for pair in options.items() for word in pair]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))
