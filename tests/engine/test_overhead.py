"""The command that times the engine outside the model runs the engine that serves: every request decodes every step."""

from __future__ import annotations

import json

import pytest

from minillm_serve.engine import overhead


@pytest.mark.parametrize("way", overhead.WAYS)
def test_every_running_request_gets_a_token_in_every_step(tiny_model_dir, way):
    asked = []
    collect = overhead.InstantRunner.collect

    def counted(runner, plan):
        asked.append(list(plan.num_tokens.values()))
        return collect(runner, plan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overhead.InstantRunner, "collect", counted)
        result = overhead.measure(str(tiny_model_dir), way, num_running=5, steps=12)
    assert len(asked[0]) == 5 and asked[1:] == [[1] * 5] * 12, "one step of prefill, then decodes alone"
    assert 0 < result["ms_min"] <= result["ms_median"] <= result["ms_p99"]


def test_the_json_names_its_environment(tiny_model_dir, tmp_path, monkeypatch, capsys):
    path = tmp_path / "overhead.json"
    arguments = ["overhead", "--model", str(tiny_model_dir), "--running", "2", "--steps", "3", "--json", str(path)]
    monkeypatch.setattr("sys.argv", arguments)
    overhead.main()
    written = json.loads(path.read_text(encoding="utf-8"))
    assert {result["way"] for result in written["results"]} == set(overhead.WAYS)
    assert set(written["environment"]) >= {"python", "machine"} and "streamed" in capsys.readouterr().out
