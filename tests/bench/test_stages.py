"""The stages are configurations of one engine: each changes one thing, each answers with the same greedy tokens."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from rich.console import Console

from minillm_serve import cli
from minillm_serve.attention.no_cache import NoCache
from minillm_serve.bench import stage_table
from minillm_serve.bench.stage_workload import LONG_TOKENS, SHARED_TOKENS, Job, build_workload
from minillm_serve.bench.stages import STAGES, StageResult, kv_waste, run_stage, settings_of, stage_named
from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.engine.build import build_core
from minillm_serve.engine.replay import verify
from minillm_serve.engine.trace import duration
from minillm_serve.params import SamplingParams

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    Job(tuple(range(5, 15)), 12),
    Job(tuple(range(20, 60)), 4),
    Job((*range(20, 60), 99), 6),
    Job(tuple(range(60, 300)), 3, after_tokens=7),
)


@pytest.fixture(scope="module")
def results(tiny_model_dir) -> dict[str, StageResult]:
    return {stage.name: run_stage(stage, SMALL, str(tiny_model_dir), threads=1) for stage in STAGES}


def test_every_fp32_stage_gives_the_same_tokens(results):
    first = results["no-cache"]
    assert [len(ids) for ids in first.tokens] == [job.max_tokens for job in SMALL]
    for stage in STAGES:
        if settings_of(stage).get("quantization") is None:
            assert results[stage.name].tokens == first.tokens, stage.name


def test_every_stage_shows_its_point(results):
    """In counts, which do not depend on the machine: steps, tokens computed, slots wasted, prefix hits."""
    whole = sum(len(job.prompt_ids) + job.max_tokens - 1 for job in SMALL)
    assert results["no-cache"].kv_waste is None
    again = sum(len(job.prompt_ids) + n for job in SMALL for n in range(job.max_tokens))
    assert results["no-cache"].computed_tokens == again > 3 * whole
    assert results["paged"].computed_tokens == results["continuous"].computed_tokens == whole
    assert results["contiguous"].kv_waste > 0.8 > 0.3 > results["paged"].kv_waste > 0
    assert results["contiguous"].steps == results["paged"].steps == sum(job.max_tokens for job in SMALL)
    assert results["static"].steps < results["paged"].steps
    assert results["continuous"].steps < results["static"].steps
    longest = {name: max(sum(s["num_tokens"].values()) for s in r.trace["steps"]) for name, r in results.items()}
    assert longest["chunked"] <= 128 < 240 <= longest["continuous"]
    assert results["chunked"].cached_tokens == 0 < results["prefix"].cached_tokens
    assert results["prefix"].computed_tokens == whole - results["prefix"].cached_tokens


def test_a_stage_s_trace_replays(results):
    for result in results.values():
        assert verify(result.trace) == result.steps


def test_figures_come_from_the_trace(results):
    result = results["continuous"]
    steps = result.trace["steps"]
    ends = [step["start"] + duration(step) for step in steps]
    arrivals = [request["arrival"] for request in result.trace["requests"].values()]
    assert result.seconds == pytest.approx(ends[-1] - min(arrivals))
    assert result.tok_s == pytest.approx(sum(job.max_tokens for job in SMALL) / result.seconds)
    assert 0 < result.ttft_ms <= result.ttft_max_ms <= result.seconds * 1e3
    assert 0 < result.pause_ms < result.seconds * 1e3 and result.peak_mib > 50
    assert set(result.record()) == {f.name for f in fields(StageResult)} - {"trace"}


def test_kv_waste_counts_a_shared_block_once():
    """Two requests of 6 tokens in blocks of 4; the second finds the first's full block: 3 blocks hold 8 tokens."""
    from minillm_serve.engine.scheduling import build_scheduler
    from minillm_serve.engine.trace import Recorder, Trace
    from minillm_serve.plan import StepResult
    from minillm_serve.request import Request

    config = EngineConfig(model="none", block_size=4, num_kv_blocks=8)
    trace = Trace(config, 8)
    scheduler = Recorder(build_scheduler(config, 8), trace)
    for rid in range(2):
        params = SamplingParams(max_tokens=1, temperature=0)
        scheduler.add(Request(rid, [1, 2, 3, 4, 5, 6], 6, params, 7, frozenset(), seed=0))
    plan = scheduler.schedule()
    scheduler.update(plan, StepResult({0: (9,), 1: (9,)}))
    assert kv_waste(trace.content()) == pytest.approx(1 - 8 / 12)


def test_each_stage_changes_one_thing_and_names_a_file_that_is_there():
    known = {f.name for f in fields(EngineConfig)}
    for before, stage in zip((None, *STAGES), STAGES, strict=False):
        assert set(stage.settings) <= known
        assert (ROOT / "minillm_serve" / stage.read).is_file()
        assert stage.title and stage.watch and stage.switches
        if before is not None:
            assert settings_of(stage) != settings_of(before)
    assert len({stage.name for stage in STAGES}) == len(STAGES) == 8
    with pytest.raises(KeyError, match="the stages are no-cache, contiguous"):
        stage_named("warp")


def test_the_workload_shares_a_prefix_and_sends_a_long_prompt_late():
    jobs = build_workload(lambda text: [len(word) for word in text.split()], 12, 32)
    shared = [job for job in jobs[:-1] if len(job.prompt_ids) > SHARED_TOKENS]
    assert len(shared) == 5 and len({job.prompt_ids[:SHARED_TOKENS] for job in shared}) == 1
    assert len({job.max_tokens for job in jobs[:-1]}) == 4
    late = jobs[-1]
    assert len(late.prompt_ids) == LONG_TOKENS and 0 < late.after_tokens < sum(job.max_tokens for job in jobs[:-1])
    assert all(job.after_tokens == 0 for job in jobs[:-1])
    with pytest.raises(ValueError, match="at least 2"):
        build_workload(lambda text: [1], 1, 32)


def test_without_a_cache_nothing_outlives_a_step(tiny_model_dir):
    """The scratch is filled with NaN between steps: had any step read what an earlier one left, NaN would show."""
    core = build_core(EngineConfig(model=str(tiny_model_dir), attention_backend="none", num_threads=1, kernels="ref"))
    cache = core.runner.kv_cache
    assert isinstance(cache, NoCache)
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    core.add("a", core.prepare(list(range(9, 30)), params))
    core.add("b", core.prepare([7, 8], params))
    answers = {}
    while core.has_work():
        for scratch in (cache.layers[0].keys, cache.layers[0].values):
            with torch.inference_mode():
                scratch.fill_(float("nan"))
        answers |= {output.request_id: output.outputs[0].token_ids for output in core.step()}
    plain = build_core(EngineConfig(model=str(tiny_model_dir), num_kv_blocks=32, num_threads=1, kernels="ref"))
    plain.add("a", plain.prepare(list(range(9, 30)), params))
    plain.add("b", plain.prepare([7, 8], params))
    expected = {}
    while plain.has_work():
        expected |= {output.request_id: output.outputs[0].token_ids for output in plain.step()}
    assert {k: tuple(v) for k, v in answers.items()} == {k: tuple(v) for k, v in expected.items()}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_kv_blocks": 8}, "leave num_kv_blocks out"),
        ({"kv_cache_memory_bytes": 1 << 20}, "leave kv_cache_memory_bytes out"),
        ({"kv_cache_dtype": "int8"}, "kv_cache_dtype must be auto"),
    ],
)
def test_what_needs_a_cache_is_refused_without_one(tiny_model_dir, settings, message):
    with pytest.raises(ConfigError, match=message):
        build_core(EngineConfig(model=str(tiny_model_dir), attention_backend="none", **settings))


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    stage_table.add_arguments(parser)
    return parser.parse_args(argv)


def test_the_command_writes_a_row_per_stage_and_a_trace_each(tiny_model_dir, tmp_path, capsys):
    target = tmp_path / "stages.json"
    flags = ["--prompts", "2", "--max-tokens", "4", "--threads", "1", "--only", "paged,no-cache"]
    status = cli.main(["stages", str(tiny_model_dir), *flags, "--json", str(target), "--trace-dir", str(tmp_path)])
    assert status == 0
    outcome = json.loads(target.read_text(encoding="utf-8"))
    assert outcome["environment"]["threads"] == 1
    assert [row["stage"] for row in outcome["results"]] == ["no-cache", "paged"], "in the story's order"
    for row in outcome["results"]:
        assert {"backend", "dtype", "cell", "tok_s", "ttft_ms", "peak_mb", "kv_waste", "read"} <= set(row)
        assert row["equal_tokens"] == 1
    assert verify(tmp_path / "1-no-cache.json") and verify(tmp_path / "2-paged.json")
    assert "no_cache.py" in capsys.readouterr().out


def test_different_fp32_tokens_are_a_failure_and_different_int8_tokens_are_not(monkeypatch, capsys):
    def outcome_of(name: str, share: float) -> dict:
        figures = dict.fromkeys(("ttft_ms", "ttft_max_ms", "pause_ms", "tok_s", "seconds", "peak_mib"), 1.0)
        figures |= {"stage": name, "kv_waste": None, "cached_tokens": 0, "tokens": [[1, 2], [3, 4]]}
        row = stage_table.row(stage_named(name), figures, [{"tokens": [[1, 2], [3, 4 if share == 1 else 5]]}])
        assert row["equal_tokens"] == share
        return {"results": [row]}

    for name, share, status in (("paged", 1, 0), ("paged", 0.75, 1), ("int8", 0.75, 0)):
        monkeypatch.setattr(stage_table, "run_stages", lambda *_, name=name, share=share: outcome_of(name, share))
        assert stage_table.run(arguments()) == status
    assert "differ in paged" in capsys.readouterr().err


def test_the_table_fits_its_width(tmp_path):
    row = dict.fromkeys(("ttft_ms", "ttft_max_ms", "pause_ms", "peak_mib", "cached_tokens"), 12345)
    row |= {"stage": "contiguous", "tok_s": 1234.5, "kv_waste": 0.876, "equal_tokens": 0.5}
    row["read"] = max((f"minillm_serve/{stage.read}" for stage in STAGES), key=len)
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        console = Console(record=True, width=stage_table.WIDTH, file=file)
        console.print(stage_table.table([row]))
    assert "…" not in console.export_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "paged,warp"], "--only: unknown stage 'warp'"),
        (["--prompts", "1"], "--prompts must be between 2"),
        (["--max-tokens", "1000"], "--max-tokens must be"),
        (["--json", "/no/such/folder/x.json"], "the folder /no/such/folder does not exist"),
        (["no-such-model"], "no-such-model"),
    ],
)
def test_what_cannot_run_is_one_sentence_and_code_2(flags, message, capsys):
    assert stage_table.run(arguments(*flags)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.model
def test_the_real_model_answers_alike_with_and_without_a_cache():
    jobs = (Job(tuple(range(300, 340)), 6), Job((*range(300, 332), 17, 18), 4), Job(tuple(range(900, 905)), 3, 2))
    answers = {run_stage(stage_named(name), jobs).tokens for name in ("no-cache", "prefix")}
    assert len(answers) == 1
