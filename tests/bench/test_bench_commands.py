"""``minillm bench``: what is asked is what is measured, figures are right, one engine's failure costs only its own."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from minillm_serve.bench import session
from minillm_serve.bench.cells import Cell, chat_prompts, shared_prefix, together
from minillm_serve.bench.figures import compare_tokens, decode_rate, ratios, result_of
from minillm_serve.bench.prefix import on_against_off, on_and_off
from minillm_serve.bench.rounds import Answered, Job, Measured, Run, measure_cell
from minillm_serve.bench.session import parse_setting, sweep
from minillm_serve.bench.tables import LATENCY, PREFIX, THROUGHPUT, print_results
from minillm_serve.cli import main
from minillm_serve.compare.backend import Backend, BackendError, parse_backends
from minillm_serve.compare.weights import ModelSize
from minillm_serve.config import ConfigError

CELL = together("two", [(1, 2, 3), (4, 5)], 3)
SINGLE = together("single", [(1, 2, 3)], 3)
LIMITS = {"read_gb_s": 10.0, "fp32_gflop_s": 100.0, "int8_gop_s": None}


def answered(prompt: tuple[int, ...], tokens: tuple[int, ...] = (7, 8, 9), first: float = 0.1, gap: float = 0.05):
    return Answered(prompt, tokens, tuple(first + i * gap for i in range(len(tokens))))


def measured(name: str, *seconds: float, cell: Cell = CELL, tokens: tuple[int, ...] = (7, 8, 9)) -> Measured:
    [backend] = parse_backends(name)
    prompts = [prompt for wave in cell.waves for prompt in wave]
    runs = [Run(s, 3 * len(prompts), tuple(answered(p, tokens) for p in prompts), 0.0) for s in seconds]
    return Measured(backend, cell, runs=runs)


class FakeWorker:
    """An engine of the imagination: writes down what it is told; ``plan`` says what goes wrong."""

    log: list[tuple[str, str]]

    def __init__(self, backend: Backend, log: list[tuple[str, str]], fails_at: int | None):
        self.backend, self.log, self.fails_at, self.runs, self.pid = backend, log, fails_at, 0, 1

    def __enter__(self) -> FakeWorker:
        return self

    def __exit__(self, *error: object) -> None:
        self.log.append((self.backend.label, "end"))

    def load(self, **command: Any) -> dict[str, Any]:
        self.log.append((self.backend.label, f"load {command['slots']} {command['max_len']}"))
        if self.fails_at == 0:
            raise BackendError(f"no memory in {Path.home()}/models")
        return {"info": {"version": "1"}, "peak_mb": 5.0}

    def run(self, prompts: list[list[int]], max_tokens: int) -> dict[str, Any]:
        self.runs += 1
        if self.fails_at == self.runs:
            raise BackendError("died")
        self.log.append((self.backend.label, f"run {len(prompts)}x{max_tokens}"))
        answers = [{"count": max_tokens, "token_ids": [7] * max_tokens, "times": [0.1] * max_tokens} for _ in prompts]
        return {"seconds": 0.5, "answers": answers, "peak_mb": 6.0}

    def reset(self) -> None:
        self.log.append((self.backend.label, "reset"))

    def pause(self) -> None:
        self.log.append((self.backend.label, "pause"))


def play(cell: Cell, names: str, repeats: int = 2, fails: dict[str, int] | None = None):
    log: list[tuple[str, str]] = []
    kept: list[list[int]] = []
    backends = parse_backends(names)
    job = Job(Path("model"), lambda: Path("m.gguf"), 1, repeats, sample=2, timeout_s=1)
    results = measure_cell(
        cell,
        backends,
        job,
        lambda text: None,
        lambda so_far: kept.append([len(r.runs) for r in so_far]),
        lambda backend: FakeWorker(backend, log, (fails or {}).get(backend.label)),  # type: ignore[arg-type, return-value]
    )
    return results, log, kept


def test_engines_take_turns_with_forgotten_caches_and_the_others_stopped() -> None:
    _, log, kept = play(CELL, "minillm:int8,minillm")
    turns = [entry for entry in log if entry[1] in ("reset", "run 2x3", "pause")]
    turn = lambda label: [(label, "reset"), (label, "run 2x3"), (label, "pause")]  # noqa: E731
    both = turn("minillm:int8") + turn("minillm:fp32")
    # Before the turns, each engine is warmed up (with as many tokens, these being few) and stopped.
    assert turns[4:] == both * 2
    assert kept == [[1, 0], [1, 1], [2, 1], [2, 2], [2, 2]]
    assert [entry for entry in log if entry[1] == "end"] == [("minillm:fp32", "end"), ("minillm:int8", "end")]


def test_an_engine_that_fails_loses_its_own_figures_only() -> None:
    (dead, dying, fine), _, _ = play(CELL, "minillm:int8,minillm:fp32,minillm:bf16", 3,
                                     {"minillm:int8": 0, "minillm:fp32": 3})  # fmt: skip
    assert (len(dead.runs), dead.reason) == (0, "no memory in ~/models")
    assert (len(dying.runs), dying.reason) == (1, "died")
    assert (len(fine.runs), fine.reason) == (3, None)


def test_an_absent_engine_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path))
    results, log, _ = play(CELL, "vllm,minillm")
    assert results[0].reason == "not installed; install it once with: minillm compare setup vllm"
    assert "vllm:fp32" not in {label for label, _ in log} and len(results[1].runs) == 2


def test_engines_that_go_one_by_one_get_a_sample_alone() -> None:
    pytest.importorskip("transformers", reason="the pipeline is absent without it")
    cell = together("home", [(i, i) for i in range(1, 9)], 3)
    [result], log, _ = play(cell, "transformers", 1)
    assert [len(wave) for wave in result.cell.waves] == [1, 1]
    assert ("transformers:fp32", "load 1 5") in log and ("transformers:fp32", "run 1x3") in log


def test_the_waves_that_fill_the_cache_are_not_measured() -> None:
    cell = Cell("prefix", (((1, 2),), ((1, 3),), ((1, 4),)), 2, prepare=1)
    [result], _, _ = play(cell, "minillm", 1)
    [run] = result.runs
    assert [answer.prompt for answer in run.answers] == [(1, 3), (1, 4)]
    assert (run.seconds, run.new_tokens) == (1.0, 4)


def test_prompts_are_the_demos_chats_and_the_shared_prefix_is_as_long_as_asked(tiny_model_dir: Path) -> None:
    chats = chat_prompts(tiny_model_dir, 52)
    assert len(set(chats)) == 50 and chats[50:] == chats[:2]
    cell = shared_prefix(tiny_model_dir, 100, 4, 8)
    prompts = [prompt for wave in cell.waves for prompt in wave]
    assert len(cell.waves) == 4 and cell.prepare == 1 and cell.concurrency == 1
    assert len({prompt[:100] for prompt in prompts}) == 1 and len({prompt[100:] for prompt in prompts}) == 4
    at_once = shared_prefix(tiny_model_dir, 100, 4, 8, at_once=True)
    assert [len(wave) for wave in at_once.waves] == [1, 3]
    assert at_once.max_len == max(map(len, prompts)) + 8


def test_throughput_is_the_median_and_shares_are_of_the_measured_limits() -> None:
    size = ModelSize(parameters=1_000_000, streamed=500_000_000, output=100_000_000)
    result = result_of(measured("minillm", 1.0, 2.0, 4.0, cell=SINGLE), size, LIMITS)
    assert (result["tok_s"], result["tok_s_min"], result["tok_s_max"]) == (1.5, 0.75, 3.0)
    assert result["ttft_ms"] == pytest.approx(100) and result["itl_ms"] == pytest.approx(50)
    assert result["decode_tok_s"] == pytest.approx(20)
    assert result["gb_s"] == pytest.approx(20 * 2.0) and result["share_of_bandwidth"] == pytest.approx(4.0)
    # Three prompt and three new tokens, a multiply and an add per weight, the output matrix for new ones, in 2 s.
    assert result["gflop_s"] == pytest.approx(2.7) and result["share_of_compute"] == pytest.approx(0.027)


def test_an_engine_that_keeps_its_weights_smaller_is_measured_by_what_it_reads() -> None:
    size = ModelSize(parameters=1_000_000, streamed=500_000_000, output=100_000_000)
    ours = measured("minillm", 1.0, 2.0, 4.0, cell=SINGLE)
    ours.info["weight_bytes"] = 10**9
    assert result_of(ours, size, LIMITS)["gb_s"] == pytest.approx(20 * 1.0)


def test_a_figure_that_has_no_meaning_is_left_out() -> None:
    size = ModelSize(1, 1, 0)
    together_result = result_of(measured("minillm:int8", 1.0), size, LIMITS)
    assert together_result["gb_s"] is None and together_result["share_of_bandwidth"] is None
    assert together_result["share_of_compute"] is None  # the machine's int8 limit is not known
    gguf = result_of(measured("llamacpp", 1.0, cell=SINGLE), size, LIMITS, gguf_bytes=10**8)
    assert gguf["gb_s"] == pytest.approx(2.0) and gguf["share_of_compute"] is None
    absent = result_of(Measured(parse_backends("vllm")[0], CELL, reason="not installed"), size, LIMITS)
    assert "tok_s" not in absent and absent["reason"] == "not installed"
    assert decode_rate([Answered((1,), (1,), (0.1,))], 1) is None


def test_greedy_tokens_are_compared_with_an_engine_that_is_not_ours() -> None:
    cell = [measured("minillm", 1.0), measured("minillm:int8", 1.0), measured("transformers-batch", 1.0),
            measured("vllm", 1.0, tokens=(7, 8, 1)), measured("llamacpp", 1.0, tokens=())]  # fmt: skip
    ours, int8, reference, vllm, gguf = compare_tokens(cell)
    assert ours == {"backend": "transformers-batch:fp32", "equal": 2, "of": 2}
    assert vllm == {"backend": "transformers-batch:fp32", "equal": 0, "of": 2}
    assert int8 is reference is gguf is None


def test_ratios_are_ours_over_theirs_within_a_cell() -> None:
    size = ModelSize(1, 1, 0)
    results = [result_of(m, size, LIMITS) for m in (
        measured("minillm:int8", 1.0, 1.0), measured("vllm", 2.0, 4.0), measured("vllm", 2.0, cell=SINGLE)
    )]  # fmt: skip
    [row] = ratios(results)
    assert (row["of"], row["to"], row["ratio"]) == ("minillm:int8", "vllm:fp32", pytest.approx(6 / 2.25))
    assert (row["low"], row["high"]) == (2.0, 4.0)


def test_the_prefix_benchmark_switches_each_engines_own_cache() -> None:
    pairs = on_and_off(parse_backends("minillm,llamacpp"))
    assert [dict(p.settings) for p in pairs] == [
        {"enable_prefix_caching": True},
        {"enable_prefix_caching": False},
        {"cache_prompt": True},
        {"cache_prompt": False},
    ]
    rows = on_against_off(
        [
            {"label": "minillm:fp32 cache on", "cell": "p", "ttft_ms": 5.0},
            {"label": "minillm:fp32 cache off", "cell": "p", "ttft_ms": 100.0},
            {"label": "vllm:fp32 cache on", "cell": "p", "ttft_ms": None},
        ]
    )
    assert rows == [{"cell": "p", "of": "minillm:fp32 cache off", "to": "minillm:fp32 cache on", "ratio": 20.0}]
    with pytest.raises(ConfigError, match="transformers has no prefix cache"):
        on_and_off(parse_backends("transformers"))


def test_a_sweep_multiplies_our_engine_only() -> None:
    swept = sweep(parse_backends("minillm:int8,vllm"), "max_num_batched_tokens=64,128")
    assert [b.label for b in swept] == [
        "minillm:int8 [64]",
        "minillm:int8 [128]",
        "vllm:fp32",
    ]
    assert swept[1].settings == {"max_num_batched_tokens": 128}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour=1", "expected KEY=VALUE with a KEY among"),
        ("quantization=int8", "expected KEY=VALUE"),
        ("block_size", "expected KEY=VALUE"),
        ("block_size=0", "block_size must be at least 1"),
        ("block_size=many", "block_size"),
        ("kernels=gpu", "kernels must be one of"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_anything_starts(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_setting(text)


def test_settings_are_values_not_texts() -> None:
    assert parse_setting("block_size=32") == ("block_size", 32)
    assert parse_setting("enable_prefix_caching=false") == ("enable_prefix_caching", False)
    assert parse_setting("kv_cache_dtype=int8") == ("kv_cache_dtype", "int8")
    assert parse_setting("max_model_len=None") == ("max_model_len", None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["throughput", "--backends", "oracle"], "unknown backend"),
        (["throughput", "--cells", "office"], "--cells takes home and single"),
        (["throughput", "--repeats", "0"], "--repeats must be at least 1"),
        (["throughput", "--threads", "4096"], "this process may use"),
        (["throughput", "--json", "/no/such/folder/r.json"], "the folder does not exist"),
        (["throughput", "--gguf", "/no/such/file"], "no such file"),
        (["throughput", "--backends", "vllm", "--set", "block_size=8"], "names none"),
        (["throughput", "--max-tokens", "1"], "too small"),
        (["latency", "--concurrency", "one"], "takes numbers"),
        (["latency", "--concurrency", "2,2"], "names a number twice"),
        (["latency", "--max-tokens", "1"], "at least 2"),
        (["prefix", "--requests", "1"], "between 2 and 50"),
        (["prefix", "--prefix-tokens", "0"], "at least 1"),
        (["prefix", "--backends", "minillm", "--set", "enable_prefix_caching=true"], "leave it out of --set"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(
    arguments: list[str], said: str, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments, "--model", str(tiny_model_dir), "--no-limits"]) == 2
    assert said in capsys.readouterr().err


def test_the_tables_show_every_engine_and_say_why_one_is_missing() -> None:
    size = ModelSize(1, 1, 0)
    results = [result_of(m, size, LIMITS) | {"same_tokens_as": None} for m in (
        measured("minillm:int8", 1.0), Measured(parse_backends("vllm")[0], CELL, reason="not installed; [run] that")
    )]  # fmt: skip
    results[0]["others_cpu"] = [0.9]
    environment = {"cpu": "a CPU", "threads": 2, "weights": "w", "limits": LIMITS}
    for columns in (THROUGHPUT, LATENCY, PREFIX):
        console = Console(width=200, record=True, file=io.StringIO())
        print_results({"environment": environment, "results": results, "ratios": []}, columns, console)
        text = console.export_text()
        assert "minillm:int8" in text and "two: vllm:fp32 left out: not installed; [run] that" in text
        assert "10 GB/s read, 100 GFLOP/s fp32" in text and "Other programs took more than" in text


def test_a_file_is_whole_or_the_old_one(tmp_path: Path) -> None:
    session.write_json(tmp_path / "r.json", {"a": 1})
    with pytest.raises(TypeError):
        session.write_json(tmp_path / "r.json", {"a": object()})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": 1}


def test_the_commands_measure_real_engines(tiny_model_dir: Path, tmp_path: Path) -> None:
    """This engine in two dtypes and the three ways of transformers, for real, on a tiny model."""
    pytest.importorskip("transformers", reason="compares with transformers")
    file = tmp_path / "r.json"
    names = "minillm,minillm:int8,transformers,transformers-batch,llamacpp"
    arguments = ["throughput", "--cells", "home", "--prompts", "2", "--max-tokens", "4", "--repeats", "1", "--threads",
                 "1", "--backends", names, "--no-limits", "--json", str(file)]  # fmt: skip
    assert main(["bench", *arguments, "--model", str(tiny_model_dir)]) == 0
    document = json.loads(file.read_text())
    assert document["environment"]["packages"]["torch"] and document["environment"]["limits"] == {}
    results = {result["label"]: result for result in document["results"]}
    assert list(results) == ["minillm:fp32", "minillm:int8", "transformers:fp32", "transformers-batch:fp32", "llamacpp"]
    assert "tok_s" not in results.pop("llamacpp")  # no GGUF was made of the tiny model, or it is not installed
    for result in results.values():
        assert result["reason"] is None and result["tok_s"] > 0 and result["ttft_ms"] > 0
        assert result["same_tokens_in_all_runs"]
    assert results["minillm:fp32"]["same_tokens_as"] == {"backend": "transformers:fp32", "equal": 2, "of": 2}
    assert results["transformers-batch:fp32"]["same_tokens_as"]["equal"] == 2
    compared = {(row["of"], row["to"]) for row in document["ratios"]}
    ours, theirs = ("minillm:fp32", "minillm:int8"), ("transformers:fp32", "transformers-batch:fp32")
    assert compared == {(a, b) for a in ours for b in theirs} | {ours}
