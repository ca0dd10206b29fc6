"""Embeddings and reranking: of a generating vLLM, and of one that was started to pool (mean, as ours does)."""

from __future__ import annotations

from typing import Any

from minillm_serve.compare.conformance.case import MODEL, Case
from minillm_serve.compare.conformance.cases.making import LEAVE_OUT

EMBEDDINGS: dict[str, dict[str, Any]] = {
    "one": {"input": "The sun is a star."},
    "several": {"input": ["The sun is a star.", "Bread is baked."]},
    "ids": {"input": [504, 5128, 314]},
    "ids-in-lists": {"input": [[504, 5128, 314], [504]]},
    "float": {"input": "Hi", "encoding_format": "float"},
    "base64": {"input": "Hi", "encoding_format": "base64"},
    "user": {"input": "Hi", "user": "somebody"},
    "without-model": {"model": LEAVE_OUT, "input": "Hi"},
    "truncated": {"input": "one two three four five six", "truncate_prompt_tokens": 3},
    "unicode": {"input": "Ñandú 你好 🙂"},
    "dimensions": {"input": "Hi", "dimensions": 8},
    "missing": {},
    "null": {"input": None},
    "empty": {"input": ""},
    "empty-list": {"input": []},
    "empty-in-a-list": {"input": ["a", ""]},
    "number": {"input": 3},
    "object": {"input": {"a": 1}},
    "mixed": {"input": ["a", 1]},
    "out-of-vocabulary": {"input": [10**6]},
    "negative-id": {"input": [-1]},
    "too-long": {"input": "word " * 3000},
    "unknown-encoding": {"input": "Hi", "encoding_format": "hex"},
    "unknown-model": {"model": "gpt-4", "input": "Hi"},
    "truncate-word": {"input": "Hi", "truncate_prompt_tokens": "all"},
}
DOCUMENTS = ["Paris is the capital of France.", "Bread is baked from flour.", "The Seine flows through Paris."]
RERANK: dict[str, dict[str, Any]] = {
    "three": {"query": "capital of France", "documents": DOCUMENTS},
    "top-n": {"query": "capital of France", "documents": DOCUMENTS, "top_n": 2},
    "top-n-0": {"query": "capital of France", "documents": DOCUMENTS, "top_n": 0},
    "one-document": {"query": "bread", "documents": ["Bread is baked."]},
    "query-missing": {"documents": DOCUMENTS},
    "documents-missing": {"query": "a"},
    "documents-null": {"query": "a", "documents": None},
    "documents-empty": {"query": "a", "documents": []},
    "documents-of-numbers": {"query": "a", "documents": [1]},
    "top-n-negative": {"query": "a", "documents": DOCUMENTS, "top_n": -1},
    "top-n-word": {"query": "a", "documents": DOCUMENTS, "top_n": "two"},
    "unknown-model": {"model": "gpt-4", "query": "a", "documents": DOCUMENTS},
}
SCORE: dict[str, dict[str, Any]] = {
    "one": {"text_1": "bread", "text_2": "Bread is baked."},
    "one-and-several": {"text_1": "capital of France", "text_2": DOCUMENTS},
    "pairs": {"text_1": ["bread", "river"], "text_2": DOCUMENTS[:2]},
    "queries": {"queries": "bread", "documents": DOCUMENTS},
    "unequal": {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]},
    "missing": {"text_1": "a"},
    "empty": {"text_1": "a", "text_2": []},
    "number": {"text_1": 3, "text_2": "a"},
    "unknown-model": {"model": "gpt-4", "text_1": "a", "text_2": "b"},
}


def cases() -> list[Case]:
    """Asked of the pooling server."""
    made = [_case(f"embeddings/{name}", "/v1/embeddings", fields) for name, fields in EMBEDDINGS.items()]
    made += [_case(f"rerank/{name}", "/v1/rerank", fields) for name, fields in RERANK.items()]
    made += [_case(f"score/{name}", "/v1/score", fields) for name, fields in SCORE.items()]
    made += [
        _case("score/unversioned-path", "/score", SCORE["one"]),
        _case("rerank/unversioned-path", "/rerank", RERANK["three"]),
        _case("rerank/second-version", "/v2/rerank", RERANK["three"]),
        Case("embeddings/bad-json", "/v1/embeddings", raw="{", server="pooling"),
        Case("rerank/bad-json", "/v1/rerank", raw="{", server="pooling"),
        Case("embeddings/wrong-method", "/v1/embeddings", method="GET", server="pooling"),
    ]
    return made


def _case(name: str, path: str, fields: dict[str, Any]) -> Case:
    body = {key: value for key, value in ({"model": MODEL} | fields).items() if value is not LEAVE_OUT}
    return Case(name, path, body, server="pooling")
