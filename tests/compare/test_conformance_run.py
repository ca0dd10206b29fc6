"""The differential run against vLLM: no difference but those on the reviewed list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minillm_serve import cli
from minillm_serve.compare.conformance.servers import vllm_version
from minillm_serve.model.store import DEFAULT_MODEL, is_complete, model_folder

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not is_complete(model_folder(DEFAULT_MODEL)), reason="needs the real model: minillm model get"),
]


def differences(tmp_path: Path, *arguments: str) -> dict:
    """What a run found. Its status says the same as its result."""
    path = tmp_path / "conformance.json"
    status = cli.main(["compare", "conformance", "--json", str(path), *arguments])
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (status == 0) is (not found["unexplained"] and not found["stale_rules"])
    return found


def test_answers_differ_from_the_recorded_ones_of_vllm_only_as_listed(tmp_path: Path) -> None:
    """The weights, the arithmetic and the greedy choice are the same; so are the answers, down to token ids."""
    found = differences(tmp_path, "--replay")
    assert found["unexplained"] == {} and found["stale_rules"] == []
    assert found["compared"] >= 1000 and found["agreed"] >= 0.8 * found["compared"]


@pytest.mark.skipif(vllm_version() is None, reason="needs vLLM: minillm compare setup vllm")
def test_answers_differ_from_those_of_a_running_vllm_only_as_listed(tmp_path: Path) -> None:
    """A share of the cases, so that the recording is known to be what vLLM says; `make conformance` asks them all."""
    globs = ("chat/stop-*", "completions/wrong-*", "chat/tools-required*", "completions/logprobs-[0-9]*", "keys/*")
    found = differences(tmp_path, *(f"--only={glob}" for glob in globs))
    assert found["unexplained"] == {}
    assert found["compared"] >= 120
