"""``minillm bench spec``: turns are compared in pairs, nothing is carried from one to the next, losses are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minillm_serve import LLM, SamplingParams
from minillm_serve.bench.copy_prompts import COPY_PROMPTS
from minillm_serve.bench.prompts import PROMPTS
from minillm_serve.bench.spec import losses
from minillm_serve.bench.spec_run import Contender, Turn, figures, per_position
from minillm_serve.cli import main
from minillm_serve.config import ConfigError

FIGURES = {
    "speed_up", "speed_up_low", "speed_up_high", "plain_tok_s", "tok_s", "tokens_per_step", "acceptance_rate",
    "acceptance_per_position", "mean_acceptance_length", "same_tokens", "others_cpu",
}  # fmt: skip
FAST = ["--rounds", "2", "--max-tokens", "6", "--prompts", "2", "--threads", "1"]


def turn(seconds: float, *answers: tuple[int, ...], drafts: tuple[tuple[int, int], ...] = (), steps: int = 4) -> Turn:
    return Turn(list(answers), seconds, steps, list(drafts), 0.0)


def bench(model: Path, *flags: str) -> int:
    return main(["bench", "spec", "--model", str(model), *FAST, *flags])


def test_the_command_writes_both_tables_with_the_environment_beside_them(tiny_model_dir, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert bench(tiny_model_dir, "--method", "ngram,suffix", "--batch", "1,2", "--json", str(out)) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["kind"] == "spec" and found["environment"]["cpu"] and found["environment"]["weights"]
    assert found["methods"]["ngram"]["method"] == "ngram" and found["settings"]["rounds"] == 2
    assert [(row["method"], row["suite"]) for row in found["suites"]] == [
        (method, suite) for method in ("ngram", "suffix") for suite in ("chat", "copy")
    ]
    assert [(row["method"], row["at_once"], row["length"]) for row in found["batches"]] == [
        (method, count, length) for method in ("ngram", "suffix") for count in (1, 2) for length in ("dynamic", "fixed")
    ]
    for row in (*found["suites"], *found["batches"]):
        assert row.keys() >= FIGURES and row["same_tokens"] is True
        assert row["speed_up_low"] <= row["speed_up"] <= row["speed_up_high"]
    assert all(row["prompts"] == 2 and row["answers"] == 2 * 2 * 2 for row in (*found["suites"], *found["batches"]))
    assert any(row["draft_tokens"] for row in found["suites"])
    assert len(found["losses"]) == sum(row["speed_up"] < 1 for row in (*found["suites"], *found["batches"]))
    printed = capsys.readouterr().out
    assert "One request at a time" in printed and "Chats at once" in printed


def test_a_suite_alone_and_no_batches(tiny_model_dir, tmp_path):
    out = tmp_path / "out.json"
    assert bench(tiny_model_dir, "--suite", "copy", "--method", "ngram", "--batch", "", "--json", str(out)) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [row["suite"] for row in found["suites"]] == ["copy"] and found["batches"] == []


def test_answers_that_differ_are_told_and_the_status_is_1(tiny_model_dir, tmp_path):
    """Made-up acceptance changes the text: the comparison must see it."""
    out = tmp_path / "out.json"
    made_up = '{"prompt_lookup_min": 1, "rejection_sample_method": "synthetic", "synthetic_acceptance_length": 4}'
    flags = ("--method", "ngram", "--suite", "copy", "--batch", "", "--speculative-config", made_up)
    assert bench(tiny_model_dir, *flags, "--max-tokens", "24", "--json", str(out)) == 1
    [row] = json.loads(out.read_text(encoding="utf-8"))["suites"]
    assert row["same_tokens"] is False and row["answers_equal"] < row["answers"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "ngram,magic"], "--method takes"),
        (["--method", "draft_model"], "draft_model needs --draft-model"),
        (["--draft-model", "x"], "names neither"),
        (["--batch", "0"], "--batch takes different numbers"),
        (["--batch", "2,2"], "--batch takes different numbers"),
        (["--batch", "two"], "--batch takes numbers"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--json", "/nowhere/out.json"], "the folder does not exist"),
        (["--speculative-config", '{"dynamic": false}'], "dynamic is what this benchmark sets"),
        (["--speculative-config", '{"warp": 9}'], "no key 'warp'"),
    ],
)
def test_what_cannot_be_measured_is_refused(tiny_model_dir, capsys, flags, message):
    try:
        status = bench(tiny_model_dir, *flags)
    except ConfigError as error:
        assert message in str(error)
    else:
        assert status != 0 and message in capsys.readouterr().err


def test_ratios_are_those_of_turns_side_by_side():
    """A machine that becomes twice as slow between the rounds changes no ratio."""
    plain = [turn(2.0, (1, 2, 3, 4)), turn(4.0, (1, 2, 3, 4)), turn(1.0, (1, 2, 3, 4))]
    fast = [turn(1.0, (1, 2, 3, 4)), turn(2.0, (1, 2, 3, 4)), turn(2.0, (1, 2, 3, 4), drafts=((3, 1), (2, 2)), steps=2)]
    found = figures(plain, fast)
    assert (found["speed_up_low"], found["speed_up"], found["speed_up_high"]) == (0.5, 2.0, 2.0)
    assert found["acceptance_rate"] == 3 / 5 and found["mean_acceptance_length"] == 2.5
    assert found["tokens_per_step"] == 12 / 10 and found["same_tokens"]


def test_one_other_token_in_one_round_is_seen():
    found = figures([turn(1.0, (1, 2), (3,))] * 2, [turn(1.0, (1, 2), (3,)), turn(1.0, (1, 9), (3,))])
    assert not found["same_tokens"] and (found["answers_equal"], found["answers"]) == (7, 8)


def test_without_any_draft_there_is_no_rate():
    found = figures([turn(1.0, (1,))], [turn(1.0, (1,))])
    assert found["acceptance_rate"] is None and found["acceptance_per_position"] == []


def test_a_short_draft_says_nothing_of_later_positions():
    assert per_position([(3, 1), (1, 1), (3, 3), (1, 0)]) == [3 / 4, 1 / 2, 1 / 2]


def test_every_cell_below_one_is_a_loss():
    figures = {"speed_up_low": 0.8, "speed_up_high": 1.1}
    document = {
        "suites": [{"method": "ngram", "suite": "chat", "speed_up": 0.97, **figures},
                   {"method": "ngram", "suite": "copy", "speed_up": 1.0, **figures}],
        "batches": [{"method": "suffix", "at_once": 16, "length": "fixed", "speed_up": 0.9, **figures}],
    }  # fmt: skip
    assert losses(document) == [
        "ngram, chat: 0.97× (0.80 to 1.10)",
        "suffix, 16 at once, fixed lengths: 0.90× (0.80 to 1.10)",
    ]


@pytest.mark.parametrize("method", ["ngram", "suffix"])
def test_no_turn_profits_from_the_one_before(tiny_model_dir, method):
    """Otherwise suffixes would find the very answer that they gave a minute ago."""
    spec = {"method": method, "num_speculative_tokens": 12, "dynamic": True}
    llm = LLM(tiny_model_dir, num_threads=1, num_kv_blocks=32, speculative_config=spec)
    contender = Contender(llm)
    asks = [([9] * 12, SamplingParams(temperature=0, max_tokens=24, ignore_eos=True))] * 2
    first, second = contender.turn(asks, 1), contender.turn(asks, 1)
    assert first.drafts == second.drafts and first.steps == second.steps and first.answers == second.answers
    assert llm.core.on_step is None
    if method == "suffix":  # within a turn it does remember
        assert sum(accepted for _, accepted in first.drafts) > 12


def test_copy_prompts_are_of_every_kind_and_none_of_the_chats():
    assert len({prompt.text for prompt in COPY_PROMPTS}) == len(COPY_PROMPTS) == 24
    assert {(prompt.kind, prompt.schema is not None) for prompt in COPY_PROMPTS} == {
        ("extract", False), ("edit", False), ("json", False), ("json", True)
    }  # fmt: skip
    assert not {prompt.text for prompt in COPY_PROMPTS} & set(PROMPTS)
