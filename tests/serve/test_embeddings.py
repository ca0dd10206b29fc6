"""/v1/embeddings: OpenAI's shape, vLLM's parameters, and every other request's manners."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from live_server import Brake, LiveServer, wait_until

from minillm_serve import LLM

TEXTS = ["Once upon a time", "The capital of France is Paris.", "日本語 🙂"]


@pytest.fixture(scope="module")
def offline(tiny_model_dir):
    with LLM(tiny_model_dir, num_kv_blocks=64) as llm:
        yield llm


def embed(server: LiveServer, **fields):
    return server.post("/v1/embeddings", {"model": "tiny", "input": TEXTS[0]} | fields)


def vectors(response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.array([item["embedding"] for item in response.json()["data"]])


def test_the_answer_has_openais_shape_and_the_engines_vectors(server, offline):
    response = embed(server, input=TEXTS)
    body = response.json()
    expected = offline.embed(TEXTS)
    np.testing.assert_allclose(vectors(response), [output.outputs.embedding for output in expected], atol=1e-4)
    tokens = sum(len(output.prompt_token_ids) for output in expected)
    nothing_generated = {
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens} | nothing_generated
    assert (body["object"], body["model"]) == ("list", "tiny")
    assert body["id"].startswith("embd-")
    assert [(item["object"], item["index"]) for item in body["data"]] == [("embedding", i) for i in range(3)]


def test_the_four_forms_of_input_are_one(server, offline):
    ids = [offline.tokenizer.encode_prompt(text) for text in TEXTS]
    expected = vectors(embed(server, input=TEXTS))
    np.testing.assert_allclose(vectors(embed(server, input=ids)), expected, atol=1e-6)
    np.testing.assert_allclose(vectors(embed(server, input=TEXTS[0])), expected[:1], atol=1e-6)
    np.testing.assert_allclose(vectors(embed(server, input=ids[0])), expected[:1], atol=1e-6)
    np.testing.assert_allclose(vectors(embed(server, input=[TEXTS[0], ids[1], TEXTS[2]])), expected, atol=1e-6)


def test_openai_python_reads_the_vectors(client, server):
    """It asks for base64 and decodes it, unless told otherwise."""
    plain = vectors(embed(server, input=TEXTS))
    for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        answer = client.embeddings.create(model="tiny", input=TEXTS, **options)
        assert answer.usage.prompt_tokens > 0
        got = [item.embedding for item in answer.data]
        if options.get("encoding_format") == "base64":
            got = [np.frombuffer(base64.b64decode(text), "<f4") for text in got]
        np.testing.assert_allclose(np.array(got), plain, atol=1e-6)


def test_use_activation_decides_about_length_one(server):
    unit, raw = vectors(embed(server, use_activation=True)), vectors(embed(server, use_activation=False))
    assert np.linalg.norm(unit) == pytest.approx(1)
    assert np.linalg.norm(raw) != pytest.approx(1)
    np.testing.assert_allclose(raw / np.linalg.norm(raw), unit, atol=1e-6)


def test_truncation_keeps_the_side_that_was_asked_for(server, offline):
    ids = offline.tokenizer.encode_prompt(TEXTS[1])
    for fields, kept in (
        ({"truncate_prompt_tokens": 4}, ids[:4]),
        ({"truncate_prompt_tokens": 4, "truncation_side": "right"}, ids[:4]),
        ({"truncate_prompt_tokens": 4, "truncation_side": "left"}, ids[-4:]),
        ({"truncate_prompt_tokens": -1}, ids),
        ({"truncate_prompt_tokens": 1000}, ids),
        ({"add_special_tokens": False}, offline.tokenizer.encode(TEXTS[1])),
    ):
        response = embed(server, input=TEXTS[1], **fields)
        np.testing.assert_allclose(vectors(response)[0], offline.embed([kept])[0].outputs.embedding, atol=1e-4)
        assert response.json()["usage"]["prompt_tokens"] == len(kept)
    too_long = vectors(embed(server, input="word " * 3000, truncate_prompt_tokens=-1))
    assert too_long.shape == (1, 64), "a text beyond the context is cut when that was asked for"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [[]]}, "input.0"),
        ({"input": ["fine", ""]}, "input.1"),
        ({"input": ["fine", 3]}, "input.1"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": None}, "input"),
        ({"input": [[512]]}, "input"),
        ({"input": [[1], [-1]]}, "input.1"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [[5] * 1025]}, "input"),
        ({"input": "x" * 100_000}, "input"),
        ({"dimensions": 8}, "dimensions"),
        ({"encoding_format": "bytes"}, "encoding_format"),
        ({"normalize": True}, "normalize"),
        ({"use_activation": "yes"}, "use_activation"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 1025}, "truncate_prompt_tokens"),
        ({"truncation_side": "middle"}, "truncation_side"),
        ({"priority": 1}, "priority"),
        ({"embed_dtype": "float16"}, "embed_dtype"),
        ({"messages": [{"role": "user", "content": "a"}]}, "messages"),
        ({"cache_salt": ""}, "cache_salt"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(server, fields, param):
    response = embed(server, **fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert len(response.content) < 2000


def test_a_missing_input_and_an_unknown_model_are_refused(server):
    assert server.post("/v1/embeddings", {"model": "tiny"}).json()["error"]["param"] == "input"
    assert embed(server, model="other").status_code == 404


def test_unknown_fields_are_named_in_a_header(server):
    response = embed(server, colour="red", user="somebody")
    assert response.status_code == 200
    assert "colour" in response.headers["x-minillm-warning"]
    assert "user" not in response.headers["x-minillm-warning"]


def test_embeddings_and_completions_share_the_batch(server):
    expected, vector = server.complete(max_tokens=12), vectors(embed(server))
    with ThreadPoolExecutor(16) as pool:
        texts = [pool.submit(server.complete, max_tokens=12) for _ in range(8)]
        pooled = [pool.submit(embed, server) for _ in range(8)]
        assert all(text.result()["choices"] == expected["choices"] for text in texts)
        for response in pooled:
            np.testing.assert_allclose(vectors(response.result()), vector, atol=1e-4)


def test_an_embedding_whose_client_left_is_given_up(server):
    with Brake(server, steps=0) as brake, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(server.http.post, "/v1/embeddings", json={"input": [TEXTS[1]] * 40}, timeout=0.3)
        assert pending.exception() is not None, "the client was to run out of patience"
        brake.allow(4)
        wait_until(lambda: not server.engine._streams)
    wait_until(server.idle)


def test_embeddings_count_as_prompts_and_generate_nothing(server):
    before = [server.metric(name) for name in ("prompt_tokens_total", "generation_tokens_total")]
    tokens = embed(server, input=TEXTS).json()["usage"]["prompt_tokens"]
    wait_until(lambda: server.metric("prompt_tokens_total") == before[0] + tokens)
    assert server.metric("generation_tokens_total") == before[1]
