"""The equality check confirms transformers' own greedy answer, catches one wrong token, and shows ties as ties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from minillm_serve.bench.equality import compare_answer, measure_equality, teacher_forced_logits

CHATS = [[{"role": "user", "content": text}] for text in ("Count from one to ten", "¿Dónde está 日本語? 🙂")]
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def network(tiny_model_dir: Path) -> Any:
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def greedy(network: Any, tiny_model_dir: Path) -> list[tuple[list[int], list[int]]]:
    """transformers' own (prompt ids, answer ids) for every chat, EOS ignored."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    network.generation_config.eos_token_id = None
    pairs = []
    for chat in CHATS:
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        ids = network.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
        pairs.append((prompt, ids[0, len(prompt) :].tolist()))
    return pairs


def job(folder: Path, greedy: list[tuple[list[int], list[int]]]) -> dict[str, Any]:
    return {
        "model": str(folder),
        "threads": 1,
        "tolerance": 1e-3,
        "conversations": CHATS,
        "answers": [list(answer) for _, answer in greedy],
        "prompt_tokens": [len(prompt) for prompt, _ in greedy],
    }


def test_transformers_own_answers_are_equal(tiny_model_dir: Path, greedy: list) -> None:
    said: list[str] = []
    measured = measure_equality(job(tiny_model_dir, greedy), said.append)
    assert [c["equal"] for c in measured["comparisons"]] == [True, True]
    assert [c["tokens"] for c in measured["comparisons"]] == [NEW_TOKENS, NEW_TOKENS]
    assert "2 of 2 answers checked, 2 equal" in said[-1]


def test_one_wrong_token_is_caught_where_it_is(tiny_model_dir: Path, greedy: list) -> None:
    work = job(tiny_model_dir, greedy)
    right = work["answers"][1][5]
    work["answers"][1][5] = wrong = (right + 1) % 512
    first, second = measure_equality(work, lambda _: None)["comparisons"]
    assert first["equal"] and not second["equal"]
    assert (second["wrong"][0]["position"], second["wrong"][0]["served"]) == (5, wrong)
    assert second["wrong"][0]["expected"] == right
    assert second["wrong"][0]["gap"] > 1e-3


def test_a_prompt_of_another_length_is_not_equal(tiny_model_dir: Path, greedy: list) -> None:
    """The server's token count is checked too: equal answers to different prompts would prove nothing."""
    work = job(tiny_model_dir, greedy)
    work["prompt_tokens"][0] += 1
    first, second = measure_equality(work, lambda _: None)["comparisons"]
    assert (first["equal"], first["prompt_equal"], first["wrong"]) == (False, False, [])
    assert second["equal"]


def test_row_i_of_the_logits_predicts_answer_token_i(network: Any, greedy: list) -> None:
    prompt, answer = greedy[0]
    logits = teacher_forced_logits(network, prompt, answer)
    assert logits.shape == (NEW_TOKENS, 512)
    assert logits.argmax(-1).tolist() == answer


def test_a_gap_below_the_tolerance_is_a_tie_and_stays_visible() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.0], [2.0, 2.0 - 5e-4, 0.0], [0.0, 0.0, 3.0]])
    comparison = compare_answer(logits, [1, 1, 2], tolerance=1e-3)
    assert comparison.equal
    assert [(t.position, t.served, t.expected) for t in comparison.ties] == [(1, 1, 0)]
    assert comparison.ties[0].gap == pytest.approx(5e-4, rel=1e-2)


def test_the_served_token_itself_must_be_close_to_the_best() -> None:
    """Two tied best logits excuse no third token."""
    comparison = compare_answer(torch.tensor([[2.0, 2.0, 0.0]]), [2])
    assert not comparison.equal
    assert comparison.wrong[0].gap == 2.0


def test_an_empty_answer_is_not_equal() -> None:
    assert not compare_answer(torch.zeros(0, 3), []).equal


@pytest.mark.parametrize(("rows", "tolerance"), [(2, 1e-3), (1, 0.0), (1, float("nan"))])
def test_impossible_input_is_refused(rows: int, tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"rows of logits|tolerance must be positive"):
        compare_answer(torch.zeros(rows, 3), [0], tolerance)
