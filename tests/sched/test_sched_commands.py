"""The two commands around the scheduler run and write what they say."""

from __future__ import annotations

import json

import run_traces

from minillm_serve.sched import bench


def test_the_bench_measures_steps_in_which_everybody_decodes(tmp_path, monkeypatch, capsys):
    path = tmp_path / "sched.json"
    monkeypatch.setattr("sys.argv", ["bench", "--running", "1", "5", "--steps", "40", "--json", str(path)])
    bench.main()
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [result["running"] for result in written["results"]] == [1, 5]
    for result in written["results"]:
        assert 0 < result["ms_min"] <= result["ms_median"] <= result["ms_p90"] <= result["ms_p99"]
    assert written["environment"]["python"]
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_trace_command_counts_and_reports_violations(tmp_path, monkeypatch, capsys):
    path = tmp_path / "traces.json"
    monkeypatch.setattr("sys.argv", ["run_traces", "30", "--json", str(path)])
    assert run_traces.main() == 0
    summary = json.loads(path.read_text(encoding="utf-8"))
    assert (summary["traces"], summary["violations"]) == (30, 0) and summary["totals"]["requests"] > 30

    def broken(seed: int) -> tuple[int, str]:
        return seed, "AssertionError: blocks leaked"

    monkeypatch.setattr(run_traces, "play_seed", broken)
    monkeypatch.setattr("sys.argv", ["run_traces", "3"])
    assert run_traces.main() == 1
    assert '"violations": 3' in capsys.readouterr().out
