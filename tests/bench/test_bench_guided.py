"""``minillm bench guided``: a verdict is counted where it belongs, and no schema can take the benchmark down."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import pytest

from minillm_serve.bench import guided
from minillm_serve.bench.guided_summary import summarise
from minillm_serve.cli import main
from minillm_serve.config import ConfigError

sys.path.insert(0, str(guided.WORKER.parent))
import masks

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
EOS = 40


class OneByOne:
    """Accepts exactly the token texts of its schema, a JSON list of ids; other schemas make it misbehave."""

    def compile(self, schema):
        wanted = json.loads(schema)
        if wanted == "refuse":
            raise masks.Refused("pattern at /x")
        if wanted == "hang":
            time.sleep(60)
        if wanted == "die":
            os._exit(3)
        if wanted == "eat":
            return bytearray(4 << 30)
        if wanted == "break":
            raise KeyError("internal")
        return wanted

    def matcher(self, wanted):
        class Matcher:
            place = 0
            mask = np.zeros(2, np.uint32)

            def fill(self):
                self.mask[:] = 0
                token = wanted[self.place] if self.place < len(wanted) else EOS
                self.mask[token >> 5] = 1 << (token & 31)

            def accept(self, token):
                self.place += 1
                return True

        return Matcher()


def judged(schema, instances=((1, 33),), seconds=20.0):
    command = {
        "schema": json.dumps(schema), "instances": [list(i) for i in instances], "seconds": seconds, "bytes": 1 << 30,
    }  # fmt: skip
    return masks.in_own_process(OneByOne(), command, [EOS])


@needs_fork
def test_an_instance_is_accepted_only_if_every_token_and_the_end_are():
    answer = judged([1, 33], [(1, 33), (1,), (1, 2), (1, 33, 4), ()])
    assert [instance["accepted"] for instance in answer["instances"]] == [True, False, False, False, False]
    assert [instance["at"] for instance in answer["instances"]] == [2, 1, 1, 2, 0]
    assert [len(instance["mask_us"]) for instance in answer["instances"]] == [3, 2, 2, 3, 1]


@needs_fork
@pytest.mark.parametrize(
    ("schema", "outcome"),
    [("refuse", "refused"), ("break", "internal"), ("die", "crash"), ("eat", "memory")],
)
def test_what_an_engine_does_wrong_is_named_and_stays_in_its_process(schema, outcome):
    assert judged(schema)["outcome"] == outcome


@needs_fork
def test_a_schema_that_takes_too_long_is_ended():
    assert judged("hang", seconds=0.2)["outcome"] == "timeout"


def answer(outcome="compiled", accepted=(), us=10.0):
    instances = [{"accepted": a, "at": 0, "mask_us": [us, us], "accept_us": [1.0]} for a in accepted]
    return {"outcome": outcome, "why": "", "compile_us": 1000.0, "instances": instances}


def test_verdicts_and_ratios_are_counted_by_engine():
    tests = [{"valid": True}, {"valid": False}]
    cases = [{"id": str(i), "tests": tests} for i in range(3)] + [{"id": "none", "tests": []}]
    ours = [answer(accepted=(True, False)), answer(accepted=(False, True)), answer("timeout"), answer()]
    peer = [answer(accepted=(True, False), us=40.0)] * 2 + [answer("refused"), answer()]
    figures = summarise(cases, [{"minillm": ours, "llguidance": peer}] * 2)["engines"]
    assert (figures["minillm"]["right"], figures["minillm"]["with_tests"]) == (1, 3)
    assert (figures["minillm"]["valid_refused"], figures["minillm"]["invalid_accepted"]) == (1, 1)
    assert (figures["minillm"]["valid"], figures["minillm"]["invalid"]) == (2, 2)
    assert [failure["id"] for failure in figures["minillm"]["failures"]] == ["2"]
    assert figures["llguidance"]["right"] == 2 and figures["llguidance"]["failures"] == []
    assert figures["minillm"]["ratios"]["mask_p50"] == pytest.approx(0.25)
    assert figures["minillm"]["ratios_common"]["mask_p50"] == pytest.approx(0.25)
    assert figures["minillm"]["verdicts_that_changed"] == 0


def test_bad_flags_and_files_are_refused_in_a_sentence(tmp_path, capsys):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "a", "schema": {}}\n', encoding="utf-8")
    for arguments, word in [
        (["--data", str(tmp_path / "none"), "--engine", "minillm"], "no file"),
        (["--data", str(bad), "--engine", "minillm"], "line 1"),
        (["--data", str(bad), "--engine", "grammarx"], "--engine"),
        (["--data", str(bad), "--engine", "minillm", "--repeats", "0"], "--repeats"),
    ]:
        assert main(["bench", "guided", *arguments]) == 2
        assert word in capsys.readouterr().err


@needs_fork
@pytest.mark.model
def test_the_command_judges_a_file_with_the_real_tokenizer(tmp_path, capsys):
    data, out = tmp_path / "data.jsonl", tmp_path / "out.json"
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    tests = [{"valid": True, "data": {"a": 1}}, {"valid": False, "data": {"a": "x"}}]
    data.write_text(json.dumps({"id": "s", "schema": schema, "tests": tests}) + "\n", encoding="utf-8")
    arguments = ["--data", str(data), "--engine", "minillm", "--repeats", "1", "--json", str(out)]
    assert main(["bench", "guided", *arguments]) == 0
    figures = json.loads(out.read_text(encoding="utf-8"))["engines"]["minillm"]
    assert figures["right"] == 1 and figures["wrong"] == [] and figures["times"]["mask_p50"] > 0


def test_a_limit_takes_schemas_from_all_over_the_file(tmp_path):
    file = tmp_path / "casos.jsonl"
    file.write_text("".join(json.dumps({"id": str(i), "schema": {}, "tests": []}) + "\n" for i in range(10)))
    assert [case["id"] for case in guided.read_cases(file, 4)] == ["0", "2", "5", "7"]
    assert len(guided.read_cases(file, 11)) == len(guided.read_cases(file)) == 10
    with pytest.raises(ConfigError, match="--limit must be at least 1"):
        guided.read_cases(file, 0)
