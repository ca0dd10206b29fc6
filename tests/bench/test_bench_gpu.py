"""``minillm bench gpu``: the workloads of the published figures, limits by the stated formula, no result lost."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from minillm_serve.bench.gpu import processes
from minillm_serve.bench.gpu.cells import CELLS, MEASURED_SHAPES, SHAPES, Cell, make_cell, write_shape
from minillm_serve.bench.gpu.kernels import all_cases, measure_kernels, row_line
from minillm_serve.bench.gpu.limits import Limits, Work
from minillm_serve.bench.gpu.op_case import COLD_BYTES, MAX_COPIES, copies_for
from minillm_serve.bench.gpu.processes import WorkerError, follow
from minillm_serve.bench.gpu.profile import profile_decode, profile_lines, profile_prompts
from minillm_serve.bench.gpu.report import Report, public, result_lines
from minillm_serve.cli import main
from minillm_serve.config import ConfigError
from minillm_serve.engine.llm import LLM

# sha256 of [prompts, new tokens] as JSON: the workloads with which vLLM's figures were taken.
DIGESTS = {"home50": "b0afcc14f132f195", "mix256": "199c6f016a1bff73", "single": "a8d6826c55676a3e"}
CPU = torch.device("cpu")
CELL = Cell("single", ((1, 2, 3),), (4,))
LIMITS = {"copy_gb_s": 1000.0, "matmul_tflop_s": 100.0, "node_us": 1.0}
SMALL = SHAPES["tiny"] | {
    "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 200,
    "model_type": "qwen3",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    folder = write_shape("tiny", tmp_path_factory.mktemp("shapes") / "tiny")
    settings = {"load_format": "dummy", "skip_tokenizer_init": True, "num_threads": 1, "num_kv_blocks": 64}
    return LLM(folder, kernels="torch", max_num_batched_tokens=32, **settings)


@pytest.mark.parametrize("name", CELLS)
def test_cells_are_the_published_workloads_token_for_token(name: str) -> None:
    cell = make_cell(name)
    data = json.dumps([cell.prompts, cell.new]).encode()
    assert hashlib.sha256(data).hexdigest()[:16] == DIGESTS[name]
    small = make_cell(name, 0.05)
    assert small.prompts[0] == cell.prompts[0][: len(small.prompts[0])]
    assert len(small.prompts) == len(small.new) <= len(cell.new) and min(small.new) >= 2


def test_a_shape_weighs_what_the_model_of_that_shape_does(tiny_llm: LLM) -> None:
    weights = tiny_llm.core.runner.model.weights
    assert Work.of(SHAPES["tiny"]).weight_bytes == weights.step_bytes // weights.dtype.itemsize * 2
    assert round(Work.of(SHAPES["llama3-8b"]).weight_bytes / 1e9, 2) == 15.01


def test_a_cells_floor_is_one_step_for_the_prompts_and_one_for_each_further_token() -> None:
    work, limits = Work(1000, 100, 10, 4), Limits(1e-6, 1e-9)  # 1000 bytes and 1000 operations a second
    weights = 2 * 1100 / 1000
    # Two prompts of 3 and 5 tokens, 3 and 2 new ones: everything is bound by arithmetic but the last step.
    prompts = (2 * (1000 * 8 + 100 * 2) + 4 * (6 + 15)) / 1000
    second = 2 * 1100 * 2 / 1000 + 10 * (4 + 6) / 1000
    third = max(weights, 2 * 1100 / 1000) + 10 * 5 / 1000
    assert work.cell_seconds(limits, [3, 5], [3, 2]) == pytest.approx(prompts + second + third)
    assert work.step_seconds(Limits(1e-6, 1e6), 1, 1, 0) == pytest.approx(weights)


def test_runs_become_a_median_a_share_and_a_ratio_and_the_file_is_always_whole(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    report = Report({}, file)
    report.take({"info": {"version": "1"}}, "minillm", "tiny")
    for seconds in (1.0, 4.0, 2.0):
        report.take({"run": {"cell": "single", "seconds": seconds, "tokens": 4}}, "minillm", "tiny", CELL)
    report.take({"limits": {"device": "GPU", "versions": {"torch": "2"}, **LIMITS}}, "minillm", "tiny")
    report.take({"run": {"cell": "single", "seconds": 4.0, "tokens": 4}}, "vllm", "tiny", CELL)
    profile = {"steps": "single", "step_us": 300.0, "launches": 100.0, "kernels": []}
    report.take({"profile": profile}, "minillm", "tiny")
    report.fail("vllm", "tiny", "RuntimeError: no room in /tmp/secret/engine.py\nlog")
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written == report.document
    ours, _ = written["results"]
    floor = Work.of(SHAPES["tiny"]).cell_seconds(Limits(**LIMITS), [3], [4])
    assert (ours["tok_s"], ours["runs"], ours["version"]) == (2.0, [4.0, 1.0, 2.0], "1")
    assert ours["limit_share"] == pytest.approx(2.0 / (4 / floor))
    assert (ours["launches"], ours["us_per_node"]) == (100.0, 3.0)
    assert written["ratios"] == [{"shape": "tiny", "cell": "single", "peer": "vllm", "ratio": 2.0}]
    assert written["failed"] == [{"backend": "vllm", "shape": "tiny", "reason": "RuntimeError: no room in engine.py"}]
    assert any("minillm is 2.00 times as fast" in line for line in result_lines(written))


def test_what_another_run_measured_is_kept_until_it_is_measured_again() -> None:
    first = Report({})
    first.take({"run": {"cell": "single", "seconds": 1.0, "tokens": 4}}, "minillm", "tiny", CELL)
    first.take({"run": {"cell": "single", "seconds": 1.0, "tokens": 4}}, "vllm", "tiny", CELL)
    kept = first.document | {"results": [row | {"date": "yesterday"} for row in first.document["results"]]}
    second = Report({}, kept=kept)
    second.take({"run": {"cell": "single", "seconds": 2.0, "tokens": 4}}, "minillm", "tiny", CELL)
    assert [(row["backend"], row["runs"]) for row in second.document["results"]] == [
        ("minillm", [2.0]),
        ("vllm", [4.0]),
    ]
    assert second.document["ratios"][0]["ratio"] == 0.5
    elsewhere = Report({}, kept=kept | {"device": "another"})
    with pytest.raises(ConfigError, match="results are of another"):
        elsewhere.take({"limits": {"device": "GPU", "versions": {}, **LIMITS}}, "minillm", "tiny")


def test_no_path_is_published() -> None:
    assert public("error in /home/ada/site-packages/x.py: 1/2 of a/b") == "error in x.py: 1/2 of a/b"


def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> list[dict[str, Any]]:
    """What a worker that runs ``body`` says; ``say`` prints a message."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, os, subprocess, sys, time\n"
        "def say(**message): print(json.dumps(message), flush=True)\n"
        "job = json.loads(sys.stdin.read())\n" + body,
        encoding="utf-8",
    )
    monkeypatch.setattr(processes, "WORKER", script)
    monkeypatch.setattr(processes, "POLL_S", 0.1)
    return list(follow({"backend": "vllm", "n": 3}, timeout_s=3))


def test_a_worker_is_given_its_job_and_heard_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = worker(tmp_path, monkeypatch, "say(run=job['n'])\nsay(run=os.getcwd())\nsay(done=True)\nsay(run='late')")
    assert said[0] == {"run": 3} and len(said) == 2
    assert not Path(said[1]["run"]).exists()  # a folder of its own, gone with it


def test_packages_for_one_engine_reach_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", "given")
    assert processes._python_path("vllm", tmp_path).split(os.pathsep) == [str(tmp_path), "given"]
    ours = processes._python_path("minillm", None).split(os.pathsep)
    assert ours[0] == "given" and str(Path(processes.__file__).parents[3]) in ours


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("say(error='ValueError: no')", "ValueError: no"),
        ("sys.exit('out of memory')", "ended with code 1\nout of memory"),
        ("time.sleep(60)", "said nothing for 3 s"),
        # A process that it leaves behind holds the pipe open.
        ("subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nos._exit(3)", "ended with code 3"),
    ],
)
def test_a_worker_that_ends_early_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str
) -> None:
    start = time.monotonic()
    with pytest.raises(WorkerError) as failure:
        worker(tmp_path, monkeypatch, body)
    assert str(failure.value).startswith(told) and time.monotonic() - start < 30


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_nothing_that_a_worker_started_outlives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "child = subprocess.Popen(['sleep', '60'])\nsay(run=child.pid)\nsay(done=True)\ntime.sleep(60)"
    [said] = worker(tmp_path, monkeypatch, body)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _alive(said["run"]):
        time.sleep(0.02)
    assert not _alive(said["run"])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return False


def test_operands_come_in_copies_that_no_cache_holds() -> None:
    assert copies_for(COLD_BYTES * 2) == 1
    assert copies_for(COLD_BYTES // 5) == 5
    assert copies_for(10) == MAX_COPIES


def test_every_op_is_measured_on_both_shapes_and_none_twice() -> None:
    pytest.importorskip("triton")
    titles = [case.title for case in all_cases({name: SHAPES[name] for name in MEASURED_SHAPES}, CPU)]
    assert len(set(titles)) == len(titles)
    ops = {"decode attention", "decode, int8 KV", "prefill attention", "rope_kv", "linear", "linear int8", "linear fp8",
           "linear w4", "lora", "rms_norm", "add_rms_norm", "silu_mul", "draw", "cutoffs", "bitmask",
           "logit_bias", "penalties", "count_tokens", "prepare_decode", "scatter_tables"}  # fmt: skip
    for name in MEASURED_SHAPES:
        assert ops <= {title.partition(f" {name}")[0] for title in titles if name in title}


def test_every_op_runs_beside_its_baseline() -> None:
    pytest.importorskip("triton")
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton needs a GPU or its interpreter")
    rows: list[dict[str, Any]] = []
    measure_kernels(CPU, Limits(10.0, 0.1), rows.append, {"small": SMALL}, "")
    assert [row_line(row) for row in rows if "error" in row] == []
    for row in rows:
        assert row["us"] > 0 and row["baseline_us"] > 0 and row["share_of_limit"] > 0
        assert ("gb_s" in row) != ("tflop_s" in row)
    assert not [row for row in rows if row["op"] == "rms_norm" and "tflop_s" in row]


def test_a_kernel_that_cannot_run_costs_its_own_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from minillm_kernels.triton import norms

    monkeypatch.delattr(norms, "rms_norm")
    rows: list[dict[str, Any]] = []
    measure_kernels(CPU, Limits(10.0, 0.1), rows.append, {"small": SMALL}, "rms_norm")
    broken, fine = rows[-2:]
    assert "ImportError" in broken["error"] and "us" not in broken and fine["us"] > 0
    assert "ImportError" in row_line(broken)


def test_the_profile_counts_its_own_steps_and_leaves_the_engine_as_it_was(tiny_llm: LLM) -> None:
    core = tiny_llm.core
    profile = profile_decode(tiny_llm, [20, 30, 3], 0.6, timed=4)
    assert profile["tokens"] == 3 and profile["kv_tokens"] >= 53
    assert {"schedule", "submit", "collect", "update", "outputs", "other"} == set(profile["host_us"])
    assert sum(row["share"] for row in profile["kernels"]) == pytest.approx(1)
    assert sum(row["calls"] for row in profile["kernels"]) == pytest.approx(profile["launches"])
    assert "schedule" not in vars(core.scheduler) and "submit" not in vars(core.runner)
    assert not core.has_work() and core.stats().kv_blocks_used == 0
    reading = profile_prompts(tiny_llm, 16, 0.6, timed=2)
    assert reading["tokens"] == 32 and not core.has_work()
    assert any("launches" in line for line in profile_lines(reading))


def run(*flags: str) -> int:
    return main(["bench", "gpu", "--device", "cpu", "--shapes", "tiny", "--scale", "0.02", *flags])


def test_the_command_measures_writes_and_adds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gpu.json"
    assert run("--cells", "home50,single", "--repeats", "2", "--set", "num_threads=1", "--json", str(file)) == 0
    document = json.loads(file.read_text(encoding="utf-8"))
    rows = {row["cell"]: row for row in document["results"]}
    assert set(rows) == {"home50", "single"} and document["device"] == "cpu"
    assert all(len(row["runs"]) == 2 and row["limit_share"] > 0 for row in rows.values())
    assert rows["single"]["us_per_node"] > 0
    assert {row["op"] for row in document["kernels"]} == {"decode attention"}
    assert document["versions"]["minillm"]["settings"] == {"num_threads": 1}
    assert "tiny        home50  minillm" in capsys.readouterr().out
    assert run("--kernels", "rms_norm", "--json", str(file), "--add") == 0
    added = json.loads(file.read_text(encoding="utf-8"))
    assert added["results"] == document["results"]
    assert {row["op"] for row in added["kernels"]} == {
        "decode attention",
        "rms_norm",
        "add_rms_norm",
    }


def test_drafting_is_measured_beside_the_same_engine_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gpu.json"
    assert run("--speculation", "--repeats", "2", "--json", str(file)) == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["speculation"]
    assert [row["drafts"] for row in rows] == [3, 4, 5]
    for row in rows:
        assert row["ratio"] > 0 and len(row["runs"]) == len(row["plain_runs"]) == 2
        assert 1 < row["tokens_per_step"] < row["drafts"] + 1, "some drafts stand, not all"
    assert "drafts at 70%" in capsys.readouterr().out


def test_transformers_goes_through_the_same_prompts_one_by_one(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    file = tmp_path / "gpu.json"
    assert run("--cells", "home50", "--repeats", "1", "--peers", "transformers,minillm", "--json", str(file)) == 0
    document = json.loads(file.read_text(encoding="utf-8"))
    assert [(row["backend"], row["cell"]) for row in document["results"]] == [
        ("transformers", "home50"),
        ("minillm", "home50"),
    ]
    assert document["ratios"][0]["peer"] == "transformers"


def test_an_engine_that_is_not_there_costs_its_own_rows_alone(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    assert run("--cells", "single", "--repeats", "1", "--peers", "vllm", "--json", str(file)) == 1
    document = json.loads(file.read_text(encoding="utf-8"))
    assert [row["backend"] for row in document["results"]] == ["minillm"]
    [failed] = document["failed"]
    assert failed["backend"] == "vllm" and "vllm" in failed["reason"] and str(Path.home()) not in failed["reason"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--shapes", "gpt"], "--shapes takes different names"),
        (["--cells", "home50,home50"], "--cells takes different names"),
        (["--peers", "sglang"], "--peers takes different names"),
        (["--set", "no_such=1"], "--set"),
        (["--set", "dtype"], "--set takes KEY=VALUE"),
        (["--scale", "0"], "--scale"),
        (["--repeats", "0"], "--repeats"),
        (["--add"], "--json"),
        (["--json", "no/such/folder/x.json"], "the folder does not exist"),
        (["--vllm-site", "no/such/folder"], "no such folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*flags) == 2
    assert told in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu", "--cells", "single"]) == 2
    assert "no CUDA GPU" in capsys.readouterr().err


def test_a_gpu_machine_needs_nothing_of_the_server() -> None:
    absent = ("fastapi", "uvicorn", "pydantic", "starlette", "gguf", "prometheus_client", "openai", "transformers")
    code = (
        f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
        "import minillm_serve.bench.gpu.command, minillm_serve.bench.gpu.worker, minillm_serve.engine.llm\n"
        "import minillm_serve.bench.main, minillm_serve.cli"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
