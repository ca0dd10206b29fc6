"""/rerank and /score: query likelihood, in the shapes of Jina, Cohere and vLLM."""

from __future__ import annotations

import pytest
from live_server import LiveServer

from minillm_serve import LLM

QUERY = "What is the capital of France?"
DOCUMENTS = ["Count to ten: 1, 2, 3.", "The capital of France is Paris.", "Once upon a time", ""]


@pytest.fixture(scope="module")
def expected(tiny_model_dir):
    with LLM(tiny_model_dir, num_kv_blocks=64) as llm:
        return [output.outputs.score for output in llm.score(QUERY, DOCUMENTS)]


def rerank(server: LiveServer, path: str = "/rerank", **fields):
    return server.post(path, {"model": "tiny", "query": QUERY, "documents": DOCUMENTS} | fields)


def score(server: LiveServer, **fields):
    return server.post("/score", {"model": "tiny"} | fields)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_come_best_first_with_the_engines_scores(server, expected, path):
    response = rerank(server, path)
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["id"].startswith("rerank-")
    assert body["model"] == "tiny"
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0
    scores = [result["relevance_score"] for result in body["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < value <= 1 for value in scores)
    assert sorted(result["index"] for result in body["results"]) == [0, 1, 2, 3]
    for result in body["results"]:
        assert result["document"] == {"text": DOCUMENTS[result["index"]], "multi_modal": None}
        assert result["relevance_score"] == pytest.approx(expected[result["index"]], rel=1e-3)


def test_top_n_keeps_the_best(server):
    every = rerank(server).json()["results"]
    assert rerank(server, top_n=2).json()["results"] == every[:2]
    assert rerank(server, top_n=0).json()["results"] == every
    assert rerank(server, top_n=99).json()["results"] == every


def test_documents_are_left_out_on_request(server):
    assert all("document" not in result for result in rerank(server, return_documents=False).json()["results"])


def test_long_texts_are_cut_where_that_was_asked_for(server):
    document, query = "word " * 3000, "why " * 900
    refused = rerank(server, documents=[document])
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "documents")
    assert rerank(server, documents=[document], max_tokens_per_doc=20).status_code == 200
    cut = rerank(server, query=query, documents=[document], max_tokens_per_doc=20, max_tokens_per_query=5)
    assert cut.json()["usage"]["prompt_tokens"] < 80


@pytest.mark.parametrize("names", [("queries", "documents"), ("queries", "items"), ("text_1", "text_2")])
def test_pairs_are_scored_in_their_order_under_every_name(server, expected, names):
    first, second = names
    one_for_all = score(server, **{first: QUERY, second: DOCUMENTS}).json()
    assert [item["score"] for item in one_for_all["data"]] == pytest.approx(expected, rel=1e-3)
    assert [item["index"] for item in one_for_all["data"]] == [0, 1, 2, 3]
    each = score(server, **{first: [QUERY] * 4, second: DOCUMENTS}).json()
    assert [item["score"] for item in each["data"]] == pytest.approx(expected, rel=1e-3)
    single = score(server, **{first: QUERY, second: DOCUMENTS[1]}).json()
    assert [item["score"] for item in single["data"]] == pytest.approx(expected[1:2], rel=1e-3)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": " "}, "query"),
        ({"query": None}, "query"),
        ({"query": ["a"]}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": [3]}, "documents"),
        ({"documents": [{"content": []}]}, "documents"),
        ({"documents": ["a"] * 1025}, "documents"),
        ({"documents": ["a", "x" * 100_000]}, "documents.1"),
        ({"top_n": -1}, "top_n"),
        ({"top_n": 1.5}, "top_n"),
        ({"max_tokens_per_doc": -1}, "max_tokens_per_doc"),
        ({"truncate_prompt_tokens": 4}, "truncate_prompt_tokens"),
        ({"instruction": "find"}, "instruction"),
        ({"use_activation": False}, "use_activation"),
    ],
)
def test_what_cannot_be_reranked_is_refused_by_name(server, fields, param):
    response = rerank(server, **fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1"),
        ({"text_1": ["a", "b"], "text_2": "c"}, "text_1"),
        ({"text_1": "", "text_2": "c"}, "text_1"),
        ({"text_1": "a"}, None),
        ({"text_1": "a", "documents": "b"}, None),
        ({"queries": "a", "documents": "b", "items": "c"}, None),
        ({}, None),
    ],
)
def test_what_cannot_be_scored_is_refused(server, fields, param):
    response = score(server, **fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
