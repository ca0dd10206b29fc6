"""Log-probabilities on the wire: both of OpenAI's shapes and vLLM's prompt_logprobs say what the engine says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from live_server import LiveServer
from tokenizers import Tokenizer

from minillm_serve import LLM, SamplingParams
from minillm_serve.plan import TokenLogprobs
from minillm_serve.request import RequestOutput
from minillm_serve.serve.openai.logprobs import LogprobsWriter
from minillm_serve.serve.token_texts import TokenTexts

PROMPT = [17, 42, 99, 7, 256, 300]
BODY = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
CHAT = {"messages": [{"role": "user", "content": "Name a river."}], "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def offline(tiny_model_dir: Path) -> Iterator[RequestOutput]:
    with LLM(str(tiny_model_dir), num_threads=1, num_kv_blocks=64) as llm:
        params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logprobs=3, prompt_logprobs=3)
        yield llm.generate([PROMPT], params)[0]


def answered(server: LiveServer, path: str, body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    response = server.post(f"/v1/{path}", body | fields)
    assert response.status_code == 200, response.text
    return response.json()


def streamed(server: LiveServer, path: str, body: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    response = server.post(f"/v1/{path}", body | {"stream": True} | fields)
    return [json.loads(event[6:])["choices"][0] for event in response.text.split("\n\n")[:-2]]


def test_completions_tell_the_engines_numbers(server: LiveServer, offline: RequestOutput):
    choice = answered(server, "completions", BODY, logprobs=3, return_tokens_as_token_ids=True)["choices"][0]
    told, truth = choice["logprobs"], offline.outputs[0].logprobs
    assert told["token_logprobs"] == pytest.approx([entry.logprob for entry in truth], abs=1e-4)
    assert [len(top) for top in told["top_logprobs"]] == [len(set(t for t, _ in e.top) | {e.token}) for e in truth]
    for top, token, logprob in zip(told["top_logprobs"], told["tokens"], told["token_logprobs"], strict=True):
        assert top[token] == logprob == max(top.values()), "greedy: the token that stands there is the likeliest"


def test_offsets_follow_the_texts_of_the_tokens(server: LiveServer):
    told = answered(server, "completions", BODY, logprobs=0, max_tokens=60)["choices"][0]["logprobs"]
    offsets = [0]
    for token in told["tokens"]:
        offsets.append(offsets[-1] + len(token))
    assert told["text_offset"] == offsets[:-1]
    assert [len(top) for top in told["top_logprobs"]] == [1] * 60


@pytest.mark.parametrize("echo", [False, True])
def test_a_streams_pieces_add_up_to_the_whole(server: LiveServer, echo: bool):
    whole = answered(server, "completions", BODY, logprobs=2, echo=echo)["choices"][0]["logprobs"]
    pieces = [choice["logprobs"] for choice in streamed(server, "completions", BODY, logprobs=2, echo=echo)]
    assert {name: [item for piece in pieces for item in piece[name]] for name in whole} == whole


def test_an_echo_describes_the_prompt_too(server: LiveServer, offline: RequestOutput):
    choice = answered(server, "completions", BODY, logprobs=3, echo=True)["choices"][0]
    told = choice["logprobs"]
    truth = [*offline.prompt_logprobs, *offline.outputs[0].logprobs]
    assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
    assert told["token_logprobs"][1:] == pytest.approx([entry.logprob for entry in truth[1:]], abs=1e-4)
    alone = answered(server, "completions", BODY, logprobs=3, echo=True, max_tokens=0)["choices"][0]["logprobs"]
    assert alone == {name: values[: len(PROMPT)] for name, values in told.items()}


def test_chat_tells_tokens_bytes_and_alternatives(server: LiveServer):
    choice = answered(server, "chat/completions", CHAT, logprobs=True, top_logprobs=3)["choices"][0]
    content = choice["logprobs"]["content"]
    assert len(content) == 8
    for entry in content:
        tops = [top["logprob"] for top in entry["top_logprobs"]]
        assert len(tops) == 3 and tops == sorted(tops, reverse=True) and tops[0] == entry["logprob"]
        assert bytes(entry["bytes"]).decode() == entry["token"] == entry["top_logprobs"][0]["token"]
    pieces = streamed(server, "chat/completions", CHAT, logprobs=True, top_logprobs=3)
    assert pieces[0]["logprobs"] is None, "the role has none"
    assert [entry for piece in pieces[1:] for entry in piece["logprobs"]["content"]] == content
    bare = answered(server, "chat/completions", CHAT, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [entry["top_logprobs"] for entry in bare] == [[]] * 8
    assert answered(server, "chat/completions", CHAT, logprobs=False, top_logprobs=0)["choices"][0]["logprobs"] is None


def test_the_official_client_reads_both_shapes(client: openai.OpenAI):
    chat = client.chat.completions.create(model="tiny", **CHAT, logprobs=True, top_logprobs=2)
    assert [len(entry.top_logprobs) for entry in chat.choices[0].logprobs.content] == [2] * 8
    completion = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=3, temperature=0, logprobs=2)
    assert len(completion.choices[0].logprobs.tokens) == 3


def test_tokens_can_be_named_by_their_ids(server: LiveServer):
    fields = {"return_token_ids": True, "return_tokens_as_token_ids": True}
    choice = answered(server, "completions", BODY, logprobs=2, **fields)["choices"][0]
    assert choice["logprobs"]["tokens"] == [f"token_id:{token}" for token in choice["token_ids"]]
    chat = answered(server, "chat/completions", CHAT, logprobs=True, top_logprobs=1, **fields)["choices"][0]
    assert [entry["token"] for entry in chat["logprobs"]["content"]] == [f"token_id:{t}" for t in chat["token_ids"]]


def test_the_client_may_choose_which_tokens_are_described(server: LiveServer):
    every = {"return_tokens_as_token_ids": True, "logprobs": 20}
    plain = answered(server, "completions", BODY, **every)["choices"][0]["logprobs"]
    likely = [int(name.removeprefix("token_id:")) for name in plain["top_logprobs"][0]][:3]
    told = answered(server, "completions", BODY, **every | {"logprobs": 1}, logprob_token_ids=likely)["choices"][0]
    first = told["logprobs"]["top_logprobs"][0]
    assert first == pytest.approx({name: plain["top_logprobs"][0][name] for name in first}) and len(first) == 3
    fields = {"logprobs": True, "logprob_token_ids": [7, 300], "return_tokens_as_token_ids": True}
    for entry in answered(server, "chat/completions", CHAT, **fields)["choices"][0]["logprobs"]["content"]:
        names = [top["token"] for top in entry["top_logprobs"]]
        assert names == list(dict.fromkeys([entry["token"], "token_id:7", "token_id:300"]))


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_prompt_logprobs_name_each_token_of_the_prompt(server: LiveServer, path: str):
    answer = answered(server, path, BODY if path == "completions" else CHAT, prompt_logprobs=2, return_token_ids=True)
    holder = answer["choices"][0] if path == "completions" else answer
    first, *others = holder["prompt_logprobs"]
    assert first is None and len(others) + 1 == answer["usage"]["prompt_tokens"]
    for token, told in zip(holder["prompt_token_ids"][1:], others, strict=True):
        assert {entry["rank"] for entry in told.values()} == {1, 2, told[str(token)]["rank"]}
        assert 2 <= len(told) <= 3 and all(isinstance(entry["decoded_token"], str) for entry in told.values())
    plain = answered(server, path, BODY if path == "completions" else CHAT)
    assert (plain["choices"][0] if path == "completions" else plain)["prompt_logprobs"] is None


def test_what_cannot_be_told_is_refused(server: LiveServer):
    def refused(path: str, body: dict[str, Any]) -> str:
        response = server.post(f"/v1/{path}", body)
        assert response.status_code == 400, response.text
        return response.json()["error"]["param"]

    for wrong in (21, -1, -2, 10**12, 1.5, "2", True, []):
        assert refused("completions", BODY | {"logprobs": wrong}) == "logprobs"
        assert refused("completions", BODY | {"prompt_logprobs": wrong}) == "prompt_logprobs"
        assert refused("chat/completions", CHAT | {"logprobs": True, "top_logprobs": wrong}) == "top_logprobs"
    assert refused("chat/completions", CHAT | {"top_logprobs": 2}) == "top_logprobs"
    assert refused("chat/completions", CHAT | {"logprobs": 2}) == "logprobs"
    assert refused("completions", BODY | {"prompt_logprobs": 1, "stream": True}) == "prompt_logprobs"
    for wrong in ([512], [-1], [5] * 129, ["5"], 5):
        refusal = refused("completions", BODY | {"logprobs": 1, "logprob_token_ids": wrong})
        assert refusal.startswith("logprob_token_ids")


def test_a_token_that_completes_a_character_has_all_of_it(tiny_model_dir: Path):
    tokenizer = Tokenizer.from_file(str(tiny_model_dir / "tokenizer.json"))
    texts = TokenTexts(tokenizer)
    for text in ("plain", "né", "🙂🙃 and é", "日本", "a\u0301"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        told = [texts.at(token, ids, place) for place, token in enumerate(ids)]
        assert "".join(told) == text and "\ufffd" not in "".join(told)
    broken = tokenizer.encode("🙂", add_special_tokens=False).ids[:-1]
    assert all(texts.at(token, broken, place) == "" for place, token in enumerate(broken))


def test_impossible_tokens_have_a_number_json_can_hold(tiny_model_dir: Path):
    texts = TokenTexts(Tokenizer.from_file(str(tiny_model_dir / "tokenizer.json")))
    entry = TokenLogprobs(5, float("-inf"), 512, ((5, float("-inf")),))
    writer = LogprobsWriter(texts)
    assert writer.completion([5], 0, [entry])["token_logprobs"] == [-9999.0]
    assert writer.chat([5], 0, [entry])["content"][0]["top_logprobs"][0]["logprob"] == -9999.0
    assert writer.prompt([5], [entry])[0]["5"]["logprob"] == -9999.0


def test_a_small_request_cannot_make_an_answer_of_gigabytes(server: LiveServer):
    many = {"prompt": [[1, 2, 3]] * 1000, "temperature": 0, "max_tokens": 60}
    refused = server.post("/v1/completions", many | {"logprobs": 20})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "logprobs"
    assert server.post("/v1/completions", many | {"logprobs": 1, "max_tokens": 1}).status_code == 200
