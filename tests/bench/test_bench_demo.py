"""The demo end to end on a tiny random model, with the real server, client and transformers; and how it refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from minillm_serve.bench import demo


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(argv)


def test_the_demo_measures_proves_and_reports(tiny_model_dir: Path, tmp_path: Path) -> None:
    flags = [
        "--prompts",
        "4",
        "--max-tokens",
        "8",
        "--runs",
        "2",
        "--json-requests",
        "5",
        "--baseline-sample",
        "2",
        "--threads",
        "1",
    ]
    code = demo.run(arguments("--model", str(tiny_model_dir), "--output-dir", str(tmp_path), *flags))
    outcome = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))
    assert (outcome["greedy_equal"], outcome["greedy_total"]) == (4, 4), outcome["equality"]
    assert (outcome["json_valid"], outcome["json_total"]) == (5, 5), outcome["guided"]["answers"]
    assert code == 0
    assert outcome["equality"]["tokens_compared"] == 4 * 8
    assert outcome["minillm"]["same_tokens_in_all_runs"] == 4
    assert all(run["completion_tokens"] == 4 * 8 for run in outcome["minillm"]["runs"])
    assert outcome["ratio"] == outcome["minillm_tok_s"] / outcome["baseline_tok_s"] > 0
    assert len(outcome["baseline"]["one_by_one"]) == 2
    assert "4 requests in" in (tmp_path / "demo.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompts", "51"], "--prompts must be between 1 and 50"),
        (["--prompts", "0"], "--prompts must be between"),
        (["--prompts", "3", "--baseline-sample", "4"], "--baseline-sample must be between 1 and 3"),
        (["--max-tokens", "-1"], "--max-tokens must be"),
        (["--tolerance", "0"], "--tolerance must be"),
        (["--port", "70000"], "--port must be"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_what_cannot_run_is_one_sentence_and_code_2(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.run(arguments("--output-dir", str(tmp_path / "reports"), *flags)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_package_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "NEEDED", ("openai", "no_such_package_here"))
    assert demo.run(arguments()) == 2
    error = capsys.readouterr().err
    assert "no_such_package_here not installed" in error and "pip install" in error


@pytest.mark.model
def test_the_real_model_answers_as_transformers_does(tmp_path: Path) -> None:
    flags = ["--prompts", "4", "--max-tokens", "16", "--runs", "1", "--json-requests", "5", "--baseline-sample", "1"]
    code = demo.run(arguments("--output-dir", str(tmp_path), *flags))
    outcome = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))
    assert outcome["greedy_equal"] == outcome["greedy_total"] == 4, outcome["equality"]
    assert outcome["json_valid"] == outcome["json_total"] == 5, outcome["guided"]["answers"]
    assert code == 0
