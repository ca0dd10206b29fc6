"""The ranking set is what it says, its figures are counted right, and the way /rerank uses is better than chance."""

from __future__ import annotations

import pytest

from minillm_serve import LLM
from minillm_serve.bench import rerank as bench


def test_the_committed_set_has_twenty_questions_with_five_passages_each():
    questions = bench.committed_questions()
    assert len(questions) == 20
    assert all(len(set(question.passages)) == 5 for question in questions)
    passages = [passage for question in questions for passage in question.passages]
    assert len(set(passages)) == 100


def test_a_file_reads_as_its_marks_say():
    assert bench.read_questions("# a set\n? why\n- no\n+ yes\n- not\n\n? how\n+ so\n") == [
        bench.Question("why", ("yes", "no", "not")),
        bench.Question("how", ("so",)),
    ]


def test_ranks_count_ties_against_the_answer():
    assert bench.ranks([[0.9, 0.1], [0.2, 0.9, 0.2], [0.5, 0.5]]) == [1, 3, 2]
    assert bench.summary([1, 2, 4]) == {"questions": 3, "top_1": 1, "mrr": pytest.approx(7 / 12)}
    five = bench.chance([bench.Question("q", tuple("abcde"))] * 20)
    assert five == {"questions": 20, "top_1": pytest.approx(4), "mrr": pytest.approx(137 / 300)}


def test_both_ways_score_every_passage(tiny_model_dir):
    questions = bench.committed_questions()[:2]
    with LLM(tiny_model_dir, num_kv_blocks=300) as llm:
        for way in bench.WAYS.values():
            assert [len(row) for row in way(llm, questions)] == [5, 5]


@pytest.mark.model
def test_query_likelihood_beats_chance_and_the_cosine_on_the_real_model():
    """11 of 20 by chance, one in five each, happens less than once in a thousand times."""
    with LLM("smollm2-135m", max_num_seqs=16, num_kv_blocks=256) as llm:
        rows = bench.measure(llm, bench.committed_questions())
    assert rows["query likelihood"]["top_1"] >= 11
    assert rows["query likelihood"]["mrr"] > rows["cosine of mean hidden states"]["mrr"] > rows["chance"]["mrr"]
