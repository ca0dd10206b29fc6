"""The commands that hold the engine to a schema: they count what it writes, find what is wrong, take their turns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minillm_serve.bench import guided_soundness
from minillm_serve.bench.judge import Verdict, judge_by_draft
from minillm_serve.cli import main

SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1},
    {"type": "string", "format": "date"},
    {"type": "string", "pattern": r"^(a|b)\1$"},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    lines = (json.dumps({"id": f"case {n}", "schema": schema, "tests": []}) for n, schema in enumerate(SCHEMAS))
    path.write_text("\n".join(lines))
    return path


def soundness(data: Path, model: Path, *flags: str) -> tuple[int, dict]:
    out = data.parent / "out.json"
    command = [
        "bench",
        "guided-soundness",
        "--data",
        str(data),
        "--model",
        str(model),
        "--threads",
        "1",
        "--json",
        str(out),
    ]
    return main([*command, *flags]), json.loads(out.read_text())


@pytest.mark.parametrize("flags", [["--hostile"], ["--hostile", "--no-jump-ahead"], ["--max-tokens", "40"]], ids=str)
def test_every_text_is_judged(tiny_model_dir, data, flags):
    status, found = soundness(data, tiny_model_dir, "--schemas", "4", "--generations", "24", *flags)
    assert status == 0 and found["failures"] == []
    assert found["counts"]["generations"] == found["counts"]["valid"] == 24 and found["schemas"] == 3
    assert [refusal["id"] for refusal in found["refused"]] == ["case 3"]


def test_a_wrong_text_is_a_failure_with_its_schema(tiny_model_dir, data, monkeypatch):
    monkeypatch.setattr(guided_soundness, "judge_by_draft", lambda *rest: Verdict(False, "made up"))
    status, found = soundness(data, tiny_model_dir, "--hostile", "--schemas", "2", "--generations", "4")
    assert status == 1 and len(found["failures"]) == found["counts"]["invalid"] == 4
    assert all(failure["reason"] == "made up" and failure["id"] for failure in found["failures"])


def test_the_judge_goes_by_the_schema_s_own_draft_and_its_formats():
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "maximum": 3, "exclusiveMaximum": True}
    assert not judge_by_draft("3", old, "stop").valid and judge_by_draft("2", old, "stop").valid
    assert not judge_by_draft('"2024-02-30"', {"format": "date"}, "stop").valid
    assert not judge_by_draft('{"a": 1, "a": 2}', {}, "stop").valid
    assert not judge_by_draft("1", {}, "length").valid


def test_throughput_with_and_without_a_constraint_makes_the_same_tokens(tiny_model_dir, tmp_path):
    schema, out = tmp_path / "schema.json", tmp_path / "out.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"long name": {"type": "string", "maxLength": 9}},
                                  "required": ["long name"], "additionalProperties": False}))  # fmt: skip
    command = ["bench", "guided-throughput", "--model", str(tiny_model_dir), "--requests", "3", "--repeats", "2"]
    assert main([*command, "--max-tokens", "30", "--threads", "1", "--schema", str(schema), "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert len(found["turns"]) == 2 and set(found["ratios"]) == {"guided", "guided, jump-ahead"}
    for turn in found["turns"]:
        assert all(way["tokens"] == way["free"]["tokens"] for way in turn.values())
        assert turn["guided, jump-ahead"]["steps"] < turn["guided"]["steps"]
