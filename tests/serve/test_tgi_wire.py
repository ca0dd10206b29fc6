"""TGI's API on the wire: shapes, headers, events, bounds and errors of TGI 3.3, with our engine behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer, wait_until
from tgi_wire import PROMPT, events_of, refused

from minillm_serve import LLM, SamplingParams
from minillm_serve.config import EngineConfig

TIMES = {"x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token"}


@pytest.fixture(scope="module")
def at_root(tiny_model_dir: Path) -> Iterator[LiveServer]:
    """A server told to speak TGI at its root as well."""
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1)
    with LiveServer(config, tgi=True) as made:
        yield made


def generate(server: LiveServer, *, inputs: str = PROMPT, **parameters: Any) -> dict[str, Any]:
    response = server.post("/tgi/generate", {"inputs": inputs, "parameters": {"max_new_tokens": 8} | parameters})
    assert response.status_code == 200, response.text
    return response.json()


def test_greedy_text_is_the_offline_engines(server: LiveServer, tiny_model_dir: Path):
    answer = generate(server, max_new_tokens=24)
    with LLM(str(tiny_model_dir), num_threads=1, num_kv_blocks=64) as llm:
        [offline] = llm.generate([PROMPT], SamplingParams(temperature=0, max_tokens=24))
    assert answer == {"generated_text": offline.outputs[0].text}


def test_details_tell_every_token(server: LiveServer):
    answer = generate(server, details=True, decoder_input_details=True, top_n_tokens=2)
    details = answer["details"]
    assert details["finish_reason"] == "length" and details["generated_tokens"] == 8 and details["seed"] is None
    assert [set(token) for token in details["tokens"]] == [{"id", "text", "logprob", "special"}] * 8
    assert "".join(token["text"] for token in details["tokens"]) == answer["generated_text"]
    taken = [(token["id"], token["logprob"]) for token in details["tokens"]]
    assert [(top[0]["id"], top[0]["logprob"]) for top in details["top_tokens"]] == taken, "greedy: it is the likeliest"
    assert {len(top) for top in details["top_tokens"]} == {2}
    assert "".join(token["text"] for token in details["prefill"]) == PROMPT
    assert [token["logprob"] is None for token in details["prefill"]] == [True] + [False] * (len(PROMPT) - 1)
    assert "best_of_sequences" not in details
    plain = generate(server, details=True)["details"]
    assert plain["prefill"] == [] and "top_tokens" not in plain and plain["tokens"] == details["tokens"]


def test_a_stream_is_the_same_answer_token_by_token(server: LiveServer):
    parameters = {"max_new_tokens": 12, "details": True, "top_n_tokens": 3}
    body = {"inputs": PROMPT, "parameters": parameters}
    whole = server.post("/tgi/generate", body).json()
    response = server.post("/tgi/generate_stream", body)
    assert response.headers["x-accel-buffering"] == "no" and response.headers["x-compute-characters"] == "8"
    events = events_of(response)
    assert [event["index"] for event in events] == list(range(1, 13))
    assert [event["token"] for event in events] == whole["details"]["tokens"]
    assert [event["top_tokens"] for event in events] == whole["details"]["top_tokens"]
    assert [event["generated_text"] for event in events] == [None] * 11 + [whole["generated_text"]]
    assert [event["details"] for event in events[:-1]] == [None] * 11
    assert events[-1]["details"] == {
        "finish_reason": "length", "generated_tokens": 12, "seed": None, "input_length": len(PROMPT),
    }  # fmt: skip


def test_the_end_token_is_told_as_a_token_and_is_no_text(server: LiveServer):
    """A grammar ends the text; its end token has the reason eos_token and counts, as in TGI."""
    grammar = {"type": "regex", "value": "[0-9]{3}"}
    answer = generate(server, max_new_tokens=9, details=True, grammar=grammar)
    assert answer["generated_text"].isdigit() and len(answer["generated_text"]) == 3
    *digits, end = answer["details"]["tokens"]
    assert answer["details"]["finish_reason"] == "eos_token"
    assert end["special"] and end["text"] == "<|im_end|>" and not any(token["special"] for token in digits)
    assert answer["details"]["generated_tokens"] == len(digits) + 1


@pytest.mark.parametrize(
    "grammar",
    [
        {"type": "json", "value": {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}},
        {"type": "json_object", "value": {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}},
        {"type": "json", "value": '{"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}'},
        {"type": "json_schema", "value": {"name": "n", "schema": {"properties": {"n": {"enum": [1, 2]}},
                                                                  "type": "object", "required": ["n"]}}},
    ],
)  # fmt: skip
def test_every_kind_of_json_grammar(server: LiveServer, grammar: dict[str, Any]):
    assert json.loads(generate(server, max_new_tokens=40, grammar=grammar)["generated_text"])["n"] in (1, 2)


def test_a_stop_sequence_ends_the_text_and_stays_in_it(server: LiveServer):
    text = generate(server, max_new_tokens=20)["generated_text"]
    stop = text[6:9]
    for streamed in (False, True):
        body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 20, "stop": ["never", stop], "details": True}}
        if streamed:
            last = events_of(server.post("/tgi/generate_stream", body))[-1]
        else:
            last = server.post("/tgi/generate", body).json()
        assert last["generated_text"] == text[: text.index(stop) + len(stop)]
        assert last["details"]["finish_reason"] == "stop_sequence"


def test_truncate_keeps_the_end_of_the_prompt(server: LiveServer):
    long = "x" * 3000 + " " + PROMPT
    cut = generate(server, inputs=long, truncate=4, details=True, decoder_input_details=True)
    assert "".join(token["text"] for token in cut["details"]["prefill"]) == PROMPT[-4:]
    assert cut["generated_text"] == generate(server, inputs=PROMPT[-4:])["generated_text"]


def test_full_text_begins_with_the_prompt(server: LiveServer):
    assert generate(server, return_full_text=True)["generated_text"] == PROMPT + generate(server)["generated_text"]


def test_sampling_is_on_when_tgi_would_sample(server: LiveServer):
    """TGI draws when told to, when a filter or a temperature other than 1 is given, and when no parameters are."""

    def seed(body: dict[str, Any]) -> int | None:
        return events_of(server.post("/tgi/generate_stream", body))[-1]["details"]["seed"]

    def asked(**parameters: Any) -> dict[str, Any]:
        return {"inputs": PROMPT, "parameters": {"max_new_tokens": 2, "details": True} | parameters}

    for greedy in ({}, {"temperature": 1.0}, {"seed": 5}, {"repetition_penalty": 1.2}, {"do_sample": False}):
        assert seed(asked(**greedy)) is None, greedy
    for drawn in ({"do_sample": True}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.9}, {"typical_p": 0.9}):
        assert isinstance(seed(asked(**drawn)), int), drawn
    assert seed(asked(do_sample=True, seed=2**64 - 1)) == 2**64 - 1
    texts = {server.post("/tgi/generate", {"inputs": "x" * 1015}).json()["generated_text"] for _ in range(4)}
    assert len(texts) > 1, "no parameters at all: TGI draws, to the end of the context"


def test_a_told_seed_makes_the_same_text_again(server: LiveServer):
    first = generate(server, do_sample=True, max_new_tokens=16, details=True)
    again = generate(server, do_sample=True, max_new_tokens=16, seed=first["details"]["seed"])
    assert again["generated_text"] == first["generated_text"]


def test_best_of_tells_the_others_with_seeds_that_make_them(server: LiveServer):
    best = generate(server, do_sample=True, best_of=2, details=True)
    [other] = best["details"].pop("best_of_sequences")
    mean = [sum(t["logprob"] for t in tokens) / len(tokens) for tokens in (best["details"]["tokens"], other["tokens"])]
    assert mean[0] >= mean[1]
    for sequence in ({"generated_text": best["generated_text"], **best["details"]}, other):
        alone = generate(server, do_sample=True, seed=sequence["seed"], details=True)
        assert {"generated_text": alone["generated_text"], **alone["details"]} == sequence


def test_the_answer_says_how_long_everything_took(server: LiveServer):
    headers = server.post("/tgi/generate", {"inputs": PROMPT, "parameters": {"max_new_tokens": 3}}).headers
    assert headers["x-prompt-tokens"] == str(len(PROMPT)) and headers["x-generated-tokens"] == "3"
    assert headers["x-compute-type"] == "cpu+minillm" and headers["x-compute-characters"] == str(len(PROMPT))
    assert all(headers[name].isdigit() for name in TIMES) and float(headers["x-compute-time"]) >= 0
    assert int(headers["x-total-time"]) >= int(headers["x-inference-time"])


def test_unknown_parameters_are_told_of(server: LiveServer):
    body = {"inputs": PROMPT, "colour": 1, "parameters": {"max_new_tokens": 2, "max_tokens": 9}}
    response = server.post("/tgi/generate", body)
    assert response.headers["x-minillm-warning"] == "ignored unknown parameters: 'colour', 'parameters.max_tokens'"


def test_tokens_are_told_with_their_place_in_bytes(server: LiveServer):
    text = "Hola, ñandú 日本"
    tokens = server.post("/tgi/tokenize", {"inputs": text}).json()
    assert [token["id"] for token in tokens] == server.engine.tokenizer.encode_prompt(text)
    raw = text.encode()
    assert all(raw[token["start"] : token["stop"]].decode() == token["text"] for token in tokens)
    assert tokens[0]["start"] == 0 and tokens[-1]["stop"] == len(raw)
    last = server.post("/tgi/tokenize", {"inputs": text, "parameters": {"truncate": 2}}).json()
    assert last == tokens[-2:]
    assert "inputs" in refused(server.post("/tgi/tokenize", {"inputs": "x" * 100_000}), 422, "validation")


def test_a_conversations_tokens_are_those_that_are_answered(server: LiveServer):
    messages = [{"role": "user", "content": "ñ <|im_end|>"}]
    told = server.post("/tgi/chat_tokenize", {"messages": messages}).json()
    tokens = told["tokenize_response"]
    chat = {"messages": messages, "max_tokens": 1, "return_token_ids": True}
    assert [token["id"] for token in tokens] == server.post("/v1/chat/completions", chat).json()["prompt_token_ids"]
    assert "".join(token["text"] for token in tokens) == told["templated_text"]
    assert told["templated_text"].endswith("<|im_start|>assistant\n")
    raw = told["templated_text"].encode()
    assert all(raw[token["start"] : token["stop"]].decode() == token["text"] for token in tokens)


def test_info_and_health(server: LiveServer):
    info = server.http.get("/tgi/info").json()
    assert info["model_id"] == "tiny" and info["max_total_tokens"] == 1024 and info["max_input_tokens"] == 1023
    assert info["max_best_of"] == 2 and info["max_stop_sequences"] == 4 and info["router"] == "minillm"
    for path in ("/tgi", "/tgi/", "/tgi/health"):
        assert server.http.get(path).status_code == 200


def test_the_openai_routes_beside_it_are_ours_with_tgis_errors(server: LiveServer):
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "temperature": 0}
    ours, beside = (server.post(path, chat).json() for path in ("/v1/chat/completions", "/tgi/v1/chat/completions"))
    assert ours["choices"] == beside["choices"]
    completed = server.post("/tgi/v1/completions", {"prompt": PROMPT, "max_tokens": 3, "temperature": 0}).json()
    assert completed["choices"][0]["text"] == server.complete(prompt=PROMPT, max_tokens=3)["choices"][0]["text"]
    assert "temperature" in refused(server.post("/tgi/v1/completions", {"prompt": "x", "temperature": -1}), 422,
                                    "validation")  # fmt: skip


def test_at_the_root_it_answers_like_a_tgi_server(at_root: LiveServer):
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 4, "details": True}}
    whole = at_root.post("/generate", body).json()
    assert at_root.post("/", body).json() == [whole], "the compatible endpoint puts the answer in a list"
    assert events_of(at_root.post("/", body | {"stream": True})) == events_of(at_root.post("/generate_stream", body))
    assert at_root.http.get("/info").json() == at_root.http.get("/tgi/info").json()
    assert at_root.http.get("/").status_code == 200
    placed = at_root.post("/tokenize", {"inputs": PROMPT}).json()
    assert placed == at_root.post("/tgi/tokenize", {"inputs": PROMPT}).json()
    assert at_root.post("/tokenize", {"prompt": PROMPT}).json()["tokens"] == [token["id"] for token in placed]
    refused(at_root.post("/tokenize", {"inputs": 3}), 422, "validation")
    refused(at_root.post("/generate", {}), 422, "validation")
    assert at_root.post("/v1/completions", {}).json()["error"]["code"] == 400, "the OpenAI API keeps its own errors"
    for name, status in (("tgi", 200), ("dummy", 200), ("gpt-4o", 404)):
        assert at_root.post("/v1/completions", {"model": name, "prompt": "x", "max_tokens": 1}).status_code == status
    wait_until(at_root.idle)
