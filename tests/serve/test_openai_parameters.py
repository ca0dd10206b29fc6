"""Each parameter of chat and completions reaches the engine, and each thing asked for stands in the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer

from minillm_serve import LLM, SamplingParams
from minillm_serve.request import RequestOutput

PROMPT = [17, 42, 99, 7, 256, 300]
BODY = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
CHAT = {"messages": [{"role": "user", "content": "Name a river."}], "max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def offline(tiny_model_dir: Path) -> Iterator[LLM]:
    with LLM(str(tiny_model_dir), num_threads=1, num_kv_blocks=64) as llm:
        yield llm


def answered(server: LiveServer, path: str = "completions", **fields: Any) -> dict[str, Any]:
    body = (BODY if path == "completions" else CHAT) | fields
    response = server.post(f"/v1/{path}", body)
    assert response.status_code == 200, response.text
    return response.json()


def streamed(server: LiveServer, path: str = "completions", **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a stream that ends with [DONE]."""
    body = (BODY if path == "completions" else CHAT) | {"stream": True} | fields
    response = server.post(f"/v1/{path}", body)
    assert response.status_code == 200, response.text
    *events, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "") and all(event.startswith("data: ") for event in events)
    return [json.loads(event[6:]) for event in events]


def greedy(llm: LLM, **fields: Any) -> RequestOutput:
    [output] = llm.generate(
        [PROMPT], SamplingParams(**{"temperature": 0, "max_tokens": 12, "ignore_eos": True} | fields)
    )
    return output


@pytest.fixture(scope="module")
def plain(offline: LLM) -> RequestOutput:
    return greedy(offline)


PARAMETERS: list[dict[str, Any]] = [
    {"presence_penalty": 2.0},
    {"frequency_penalty": 2.0},
    {"repetition_penalty": 3.0},
    {"logit_bias": {"5": 100.0}},
    {"allowed_token_ids": [8, 9, 10]},
    {"temperature": 1.0, "seed": 3},
    {"temperature": 2.0, "seed": 3, "min_p": 0.5},
    {"temperature": 2.0, "seed": 3, "typical_p": 0.2},
    {"temperature": 2.0, "seed": 3, "top_k": 4, "top_p": 0.7},
    {"temperature": 1.0, "seed": 3, "n": 3},
    {"temperature": 1.0, "seed": 3, "n": 2, "best_of": 4},
    {"max_tokens": 3},
]


@pytest.mark.parametrize("fields", PARAMETERS, ids=lambda fields: ",".join(fields))
def test_a_parameter_acts_as_it_does_in_the_engine(server: LiveServer, offline: LLM, plain, fields: dict):
    theirs = greedy(offline, **fields)
    ours = answered(server, **fields)["choices"]
    assert [choice["token_ids"] for choice in ours] == [list(one.token_ids) for one in theirs.outputs]
    assert [choice["text"] for choice in ours] == [one.text for one in theirs.outputs]
    assert [choice["index"] for choice in ours] == list(range(len(ours)))
    assert ours[0]["token_ids"] != list(plain.outputs[0].token_ids), "the case shows nothing"


def test_parameters_about_the_end_of_the_text(server: LiveServer, plain: RequestOutput):
    tokens = list(plain.outputs[0].token_ids)
    later = next(token for token in tokens[2:] if token not in tokens[:2])
    stopped = answered(server, stop_token_ids=[later])["choices"][0]
    assert stopped["token_ids"] == tokens[: tokens.index(later) + 1]
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", later)
    assert later not in answered(server, stop_token_ids=[later], min_tokens=12)["choices"][0]["token_ids"]

    text = plain.outputs[0].text
    stop = text[4:6]
    without = answered(server, stop=stop)["choices"][0]
    assert (without["text"], without["stop_reason"]) == (text[: text.index(stop)], stop)
    included = answered(server, stop=[stop], include_stop_str_in_output=True)["choices"][0]
    assert included["text"] == text[: text.index(stop) + len(stop)]


def test_bad_words_do_not_come(server: LiveServer, offline: LLM, plain: RequestOutput):
    tokenizer, tokens = offline.tokenizer, list(plain.outputs[0].token_ids)
    texts = {token: tokenizer.decode([token]) for token in tokens}
    token = next(token for token in tokens if texts[token].strip() and tokenizer.encode(texts[token]) == [token])
    ours = answered(server, bad_words=[texts[token]])["choices"][0]["token_ids"]
    assert ours == list(greedy(offline, bad_words=[texts[token]]).outputs[0].token_ids)
    assert token not in ours


def test_special_tokens_are_told_only_on_request(server: LiveServer):
    [eos] = server.engine.tokenizer.eos_token_ids
    forced = {"logit_bias": {str(eos): 100}, "max_tokens": 2}
    assert answered(server, **forced)["choices"][0]["text"] == ""
    shown = answered(server, **forced, skip_special_tokens=False)["choices"][0]
    assert shown["text"] == server.engine.tokenizer.backend.id_to_token(eos) * 2


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_a_stream_of_several_samples_is_the_whole_answer_in_pieces(server: LiveServer, path: str):
    fields = {"n": 3, "temperature": 1.0, "seed": 11, "max_tokens": 8, "return_token_ids": True, "ignore_eos": True}
    whole = answered(server, path, **fields)
    chunks = streamed(server, path, **fields, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 24
    for choice in whole["choices"]:
        mine = [c["choices"][0] for c in chunks[:-1] if c["choices"][0]["index"] == choice["index"]]
        assert [c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + ["length"]
        assert [token for c in mine for token in c.get("token_ids") or []] == choice["token_ids"]
        if path == "completions":
            assert "".join(c["text"] for c in mine) == choice["text"]
            assert [c["prompt_token_ids"] for c in mine] == [PROMPT] + [None] * (len(mine) - 1)
        else:
            assert [c["delta"].get("role") for c in mine] == ["assistant"] + [None] * (len(mine) - 1)
            assert "".join(c["delta"].get("content", "") for c in mine) == choice["message"]["content"]
    assert len({json.dumps(choice["token_ids"]) for choice in whole["choices"]}) == 3
    single = answered(server, path, **fields | {"n": 1})
    assert single["choices"][0]["token_ids"] == whole["choices"][0]["token_ids"], "n does not change the first sample"


def test_samples_of_several_prompts_are_numbered_through(server: LiveServer):
    fields = {"prompt": ["one", [17, 42]], "n": 2, "temperature": 1.0, "seed": 5, "max_tokens": 4}
    whole = answered(server, **fields)
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    assert [choice["prompt_token_ids"] for choice in whole["choices"]][2:] == [[17, 42]] * 2
    alone = answered(server, **fields | {"prompt": [17, 42]})
    assert [c["text"] for c in whole["choices"][2:]] == [c["text"] for c in alone["choices"]]
    texts = ["", "", "", ""]
    for chunk in streamed(server, **fields):
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == [choice["text"] for choice in whole["choices"]]


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_each_of_several_samples_keeps_to_its_constraint(server: LiveServer, path: str):
    schema = {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 2, "maxItems": 3}
    fields = {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        **{"n": 4, "temperature": 1.5, "seed": 1, "max_tokens": 60, "ignore_eos": None, "return_token_ids": None},
    }
    whole = answered(server, path, **fields)["choices"]
    texts = [choice["text"] if path == "completions" else choice["message"]["content"] for choice in whole]
    assert all({1, 2, 3}.issuperset(json.loads(text)) for text in texts) and len(texts) == 4
    pieces = [""] * 4
    for chunk in streamed(server, path, **fields):
        choice = chunk["choices"][0]
        pieces[choice["index"]] += choice["text"] if path == "completions" else choice["delta"].get("content", "")
    assert pieces == texts


def test_max_tokens_is_shortened_to_what_the_context_leaves(server: LiveServer):
    body = {"prompt": PROMPT * 168, "max_tokens": 1024}  # 1008 of 1024 tokens
    answer = answered(server, **body)
    assert answer["usage"]["completion_tokens"] == 16 and answer["choices"][0]["finish_reason"] == "length"
    assert server.post("/v1/completions", BODY | body | {"max_tokens": 1025}).status_code == 400


def test_truncation_keeps_the_side_that_was_asked_for(server: LiveServer):
    def prompt_of(**fields: Any) -> list[int]:
        return answered(server, **{"prompt": list(range(100, 120)), "max_tokens": 1} | fields)["choices"][0][
            "prompt_token_ids"
        ]

    assert prompt_of(truncate_prompt_tokens=5) == list(range(115, 120))
    assert prompt_of(truncate_prompt_tokens=5, truncation_side="right") == list(range(100, 105))
    assert prompt_of(truncate_prompt_tokens=50) == list(range(100, 120))
    assert len(prompt_of(prompt=[7] * 5000, truncate_prompt_tokens=-1)) == 1023
    assert len(prompt_of(prompt="word " * 20_000, truncate_prompt_tokens=40)) == 40
    for wrong in (1025, -2, 0):
        assert server.post("/v1/completions", BODY | {"truncate_prompt_tokens": wrong}).status_code == 400
    chat = answered(server, "chat/completions", truncate_prompt_tokens=3, return_token_ids=True)
    assert (
        chat["prompt_token_ids"] == answered(server, "chat/completions", return_token_ids=True)["prompt_token_ids"][-3:]
    )


def test_echo_puts_the_prompt_before_the_answer(server: LiveServer):
    plain = {"return_token_ids": None, "max_tokens": 4}
    text = answered(server, **plain)["choices"][0]["text"]
    assert answered(server, **plain, prompt="Once upon", echo=True)["choices"][0]["text"].startswith("Once upon")
    prompt = server.engine.tokenizer.decode(PROMPT)
    whole = answered(server, **plain, echo=True)["choices"][0]["text"]
    assert whole == prompt + text
    assert "".join(c["choices"][0]["text"] for c in streamed(server, **plain, echo=True)) == whole
    alone = answered(server, **plain | {"max_tokens": 0}, echo=True)
    assert alone["choices"][0]["text"] == prompt
    [chunk] = streamed(server, **plain | {"max_tokens": 0}, echo=True)
    assert chunk["choices"][0]["text"] == prompt and chunk["choices"][0]["finish_reason"] == "length"
    with_ids = answered(server, max_tokens=4, echo=True)["choices"][0]
    assert with_ids["text"] == text and with_ids["prompt_token_ids"] == PROMPT


def test_chat_echo_repeats_only_a_last_message_of_its_own(server: LiveServer):
    messages = [*CHAT["messages"], {"role": "assistant", "content": "The river"}]
    plain = answered(server, "chat/completions", messages=messages)["choices"][0]["message"]["content"]
    echoed = answered(server, "chat/completions", messages=messages, echo=True)
    assert echoed["choices"][0]["message"]["content"] == "The river" + plain
    assert len(echoed["prompt_logprobs"]) == echoed["usage"]["prompt_tokens"]
    chunks = streamed(server, "chat/completions", messages=messages, echo=True)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "The river" + plain
    asked = answered(server, "chat/completions")["choices"][0]["message"]["content"]
    assert answered(server, "chat/completions", echo=True)["choices"][0]["message"]["content"] == asked


def test_what_the_model_saw_can_be_looked_at(server: LiveServer):
    answer = answered(server, "chat/completions", return_token_ids=True, return_prompt_text=True)
    decode = server.engine.tokenizer.backend.decode
    assert answer["prompt_text"] == decode(answer["prompt_token_ids"], skip_special_tokens=False)
    assert "Name a river." in answer["prompt_text"] and answer["usage"]["prompt_tokens"] == len(
        answer["prompt_token_ids"]
    )
    first, *rest = streamed(server, "chat/completions", return_token_ids=True, return_prompt_text=True)
    assert (first["prompt_token_ids"], first["prompt_text"]) == (answer["prompt_token_ids"], answer["prompt_text"])
    assert [token for c in rest for token in c["choices"][0]["token_ids"]] == answer["choices"][0]["token_ids"]


def test_usage_in_every_chunk_counts_up(server: LiveServer):
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = streamed(server, max_tokens=5, stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == [1, 2, 3, 4, 5, 5] and {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {len(PROMPT)}
    assert all(c["usage"]["total_tokens"] == len(PROMPT) + c["usage"]["completion_tokens"] for c in chunks)
    assert "system_fingerprint" in chunks[-1] and not any("system_fingerprint" in chunk for chunk in chunks[:-1])
    plain = streamed(server, max_tokens=5, stream_options={"include_usage": False, "continuous_usage_stats": True})
    assert not any("usage" in chunk for chunk in plain) and "system_fingerprint" in plain[-1]


def test_an_interval_makes_fewer_chunks_of_the_same_text(server: LiveServer):
    every = streamed(server)
    fewer = streamed(server, stream_interval=5)
    assert [len(c["choices"][0]["token_ids"]) for c in fewer] == [1, 5, 5, 1]
    for chunks in (every, fewer):
        assert "".join(c["choices"][0]["text"] for c in chunks) == answered(server)["choices"][0]["text"]


def test_the_bodys_request_id_is_used_unless_the_header_has_one(server: LiveServer):
    body = BODY | {"request_id": "mine-7"}
    response = server.post("/v1/completions", body)
    assert response.json()["id"] == "cmpl-mine-7" and response.headers["x-request-id"] == "mine-7"
    assert server.post("/v1/completions", body, headers={"X-Request-Id": "theirs"}).json()["id"] == "cmpl-theirs"
    refused = server.post("/v1/completions", BODY | {"request_id": "no spaces\r\n"})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "request_id"


def test_a_salt_keeps_cached_prefixes_apart(server: LiveServer):
    fields = {"prompt": list(range(200, 264)), "max_tokens": 1}

    def hits(salt: str | None) -> float:
        before = server.metric("prefix_cache_hits_total")
        answered(server, **fields, cache_salt=salt)
        return server.metric("prefix_cache_hits_total") - before

    assert hits("a") == 0
    assert hits("a") > 0
    assert hits("b") == 0
    for wrong in ("", "a/b", "a@b", "x" * 129, 5):
        response = server.post("/v1/completions", BODY | {"cache_salt": wrong})
        assert response.status_code == 400 and response.json()["error"]["param"] == "cache_salt"


def test_parameters_that_change_nothing_are_accepted(server: LiveServer):
    neutral = {
        "user": "someone", "session_id": "s", "metadata": {"a": "b"}, "logprobs": None, "suffix": None, "best_of": None,
        "use_beam_search": False, "length_penalty": 1.0, "logprob_token_ids": None, "add_special_tokens": True,
        "spaces_between_special_tokens": True, "response_format": {"type": "text"}, "priority": 0, "seed": -1,
        "stream_options": None, "stop": None, "n": 1, "logit_bias": {}, "bad_words": [], "min_tokens": 0,
        "stop_token_ids": [], "stream": None,
    }  # fmt: skip
    response = server.post("/v1/completions", BODY | neutral)
    assert response.json()["choices"] == answered(server)["choices"]
    assert "x-minillm-warning" not in response.headers


NUMBERS = (
    *("n", "best_of", "max_tokens", "max_completion_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p"),
    *("typical_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed", "logprobs", "top_logprobs"),
    *("prompt_logprobs", "truncate_prompt_tokens", "stream_interval", "priority"),
)


@pytest.mark.parametrize("name", NUMBERS)
def test_any_value_of_a_number_is_answered_or_refused(server: LiveServer, name: str):
    short = {"max_tokens": 2, "ignore_eos": True}
    for value in (-1, 0, 1, 2**31, 2**63, -(2**63), 10**308, 1e308, -0.0, 0.5, "1", True, None, [], {}):
        for path, body in (("completions", BODY), ("chat/completions", CHAT)):
            response = server.post(f"/v1/{path}", body | short | {name: value})
            assert response.status_code in (200, 400), (path, value, response.text)
            assert len(response.content) < 8000
