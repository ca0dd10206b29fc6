"""The official openai client works unchanged."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Literal

import openai
import pydantic
import pytest
from live_server import LiveServer

from minillm_serve import LLM, SamplingParams

CHAT = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"model": "tiny", "temperature": 0}
LONG = {"max_tokens": 24, "extra_body": {"ignore_eos": True}}


def test_models_are_listed_and_retrieved(client: openai.OpenAI):
    listed = client.models.list().data
    assert [model.id for model in listed] == ["tiny", "tiny-alias"]
    assert listed[0].max_model_len == 1024
    assert client.models.retrieve("tiny-alias").id == "tiny-alias"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4o")
    assert caught.value.body["param"] == "model"


def test_chat_gives_the_offline_engines_text(client: openai.OpenAI, tiny_model_dir):
    answer = client.chat.completions.create(messages=CHAT, **GREEDY, **LONG)
    with LLM(str(tiny_model_dir), num_threads=1, num_kv_blocks=64) as llm:
        [offline] = llm.chat(CHAT, SamplingParams(temperature=0, max_tokens=24, ignore_eos=True))
    choice = answer.choices[0]
    assert choice.message.content == offline.outputs[0].text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "length"
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-") and answer.model == "tiny"
    assert answer.usage.prompt_tokens == len(offline.prompt_token_ids)
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24


def test_chat_stream_is_the_same_answer_in_pieces(client: openai.OpenAI):
    whole = client.chat.completions.create(messages=CHAT, **GREEDY, **LONG)
    chunks = list(client.chat.completions.create(
        messages=CHAT, stream=True, stream_options={"include_usage": True}, **GREEDY, **LONG
    ))  # fmt: skip
    *texts, usage = chunks
    assert texts[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.role for c in texts[1:]] == [None] * 24, "one role chunk, then one chunk a token"
    assert "".join(c.choices[0].delta.content for c in texts) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in texts] == [None] * 24 + ["length"]
    assert usage.choices == [] and usage.usage == whole.usage
    assert {c.object for c in chunks} == {"chat.completion.chunk"} and len({c.id for c in chunks}) == 1


def test_stream_without_include_usage_has_no_usage(client: openai.OpenAI):
    chunks = list(client.chat.completions.create(messages=CHAT, stream=True, max_tokens=3, **GREEDY))
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)


def test_completion_stream_is_the_same_answer_in_pieces(client: openai.OpenAI):
    whole = client.completions.create(prompt="The scheduler gives", **GREEDY, **LONG)
    chunks = list(client.completions.create(
        prompt="The scheduler gives", stream=True, stream_options={"include_usage": True}, **GREEDY, **LONG
    ))  # fmt: skip
    *texts, usage = chunks
    assert "".join(c.choices[0].text for c in texts) == whole.choices[0].text
    assert [c.choices[0].finish_reason for c in texts] == [None] * 23 + ["length"]
    assert usage.usage == whole.usage
    assert whole.id.startswith("cmpl-") and whole.object == "text_completion"


def test_completion_default_is_sixteen_tokens_less_where_the_context_ends(client: openai.OpenAI):
    free = client.completions.create(prompt="A", extra_body={"ignore_eos": True}, **GREEDY)
    assert free.usage.completion_tokens == 16
    full = client.completions.create(prompt=[70] * 1020, extra_body={"ignore_eos": True}, **GREEDY)
    assert full.usage.completion_tokens == 4 and full.choices[0].finish_reason == "length"


def test_chat_default_is_the_rest_of_the_context(client: openai.OpenAI):
    long = [{"role": "user", "content": "ab" * 450}]
    answer = client.chat.completions.create(messages=long, extra_body={"ignore_eos": True}, **GREEDY)
    assert answer.usage.total_tokens == 1024 and answer.choices[0].finish_reason == "length"


def test_every_kind_of_prompt(client: openai.OpenAI):
    def texts(prompt) -> list[str]:
        answer = client.completions.create(prompt=prompt, max_tokens=6, **GREEDY)
        assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
        return [choice.text for choice in answer.choices]

    [one], [two] = texts("Hello"), texts([80, 81, 82])
    assert one != two
    assert texts(["Hello", "Hello"]) == [one, one]
    assert texts([[80, 81, 82], [90]])[0] == two
    usage = client.completions.create(prompt=[[80, 81, 82], [90]], max_tokens=6, **GREEDY).usage
    assert usage.prompt_tokens == 4 and usage.completion_tokens == 12


def test_several_prompts_stream_as_several_choices(client: openai.OpenAI):
    prompts = ["Hello", "Once upon a time", "The cache"]
    whole = client.completions.create(prompt=prompts, max_tokens=9, **GREEDY)
    texts, ends = ["", "", ""], [0, 0, 0]
    for chunk in client.completions.create(prompt=prompts, max_tokens=9, stream=True, **GREEDY):
        [choice] = chunk.choices
        texts[choice.index] += choice.text
        ends[choice.index] += choice.finish_reason is not None
    assert texts == [choice.text for choice in whole.choices]
    assert ends == [1, 1, 1], "one finish_reason for each choice"


def test_text_parts_are_joined(client: openai.OpenAI):
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "the capital?"}]
    by_parts = client.chat.completions.create(messages=[{"role": "user", "content": parts}], max_tokens=5, **GREEDY)
    plain = client.chat.completions.create(
        messages=[{"role": "user", "content": "What is\nthe capital?"}], max_tokens=5, **GREEDY
    )
    assert by_parts.choices[0].message == plain.choices[0].message and by_parts.usage == plain.usage


def test_stop_string_ends_the_text_before_it(client: openai.OpenAI):
    text = client.completions.create(prompt="Hello", **GREEDY, **LONG).choices[0].text
    stop = text[len(text) // 2 :][:3]
    for streamed in (False, True):
        answer = client.completions.create(prompt="Hello", stop=[stop, "never to be seen"], stream=streamed, **GREEDY,
                                           **LONG)  # fmt: skip
        choices = [chunk.choices[0] for chunk in answer] if streamed else [answer.choices[0]]
        assert "".join(choice.text for choice in choices) == text[: text.index(stop)]
        assert choices[-1].finish_reason == "stop" and choices[-1].stop_reason == stop


def test_stop_token_id_ends_the_text(client: openai.OpenAI):
    body = {"ignore_eos": True, "return_token_ids": True}
    free = client.completions.create(prompt="Hello", max_tokens=20, extra_body=body, **GREEDY).choices[0]
    last = free.token_ids[9]
    cut = client.completions.create(prompt="Hello", max_tokens=20, extra_body=body | {"stop_token_ids": [last]},
                                    **GREEDY).choices[0]  # fmt: skip
    assert cut.token_ids == free.token_ids[: free.token_ids.index(last) + 1]
    assert cut.finish_reason == "stop" and cut.stop_reason == last


def test_token_ids_in_a_stream_are_those_of_the_whole_answer(client: openai.OpenAI):
    body = {"extra_body": {"return_token_ids": True, "ignore_eos": True}, "max_tokens": 12}
    whole = client.chat.completions.create(messages=CHAT, **GREEDY, **body)
    chunks = list(client.chat.completions.create(messages=CHAT, stream=True, **GREEDY, **body))
    assert chunks[0].prompt_token_ids == whole.prompt_token_ids
    assert len(whole.prompt_token_ids) == whole.usage.prompt_tokens
    assert [id for c in chunks[1:] for id in c.choices[0].token_ids] == whole.choices[0].token_ids


def test_a_seed_repeats_and_another_seed_differs(client: openai.OpenAI):
    def sampled(seed: int) -> str:
        body = {"top_k": 50, "ignore_eos": True}
        answer = client.completions.create(
            model="tiny", prompt="Hello", temperature=1.0, top_p=0.95, seed=seed, max_tokens=24, extra_body=body
        )
        return answer.choices[0].text

    assert sampled(7) == sampled(7)
    assert len({sampled(seed) for seed in range(6)}) > 1


def test_guided_answers_are_valid(client: openai.OpenAI):
    schema = {
        "type": "object",
        "properties": {
            "ok": {"type": "boolean"},
            "code": {"enum": ["a", "b"]},
            "n": {"type": "integer", "maximum": 99},
        },
        "required": ["ok", "code", "n"],
        "additionalProperties": False,
    }  # fmt: skip
    forms = (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}},
        {"extra_body": {"structured_outputs": {"json": schema}}},
        {"extra_body": {"structured_outputs": {"json": json.dumps(schema)}}},
    )
    for seed in range(3):
        for form in forms:
            answer = client.chat.completions.create(model="tiny", messages=CHAT, seed=seed, max_tokens=300, **form)
            value = json.loads(answer.choices[0].message.content)
            assert answer.choices[0].finish_reason == "stop"
            assert list(value) == ["ok", "code", "n"] and isinstance(value["ok"], bool)
            assert value["code"] in "ab" and value["n"] == int(value["n"]) and value["n"] <= 99


class Place(pydantic.BaseModel):
    name: Annotated[str, pydantic.Field(max_length=5)]
    kind: Literal["city", "country"]
    open: bool | None


def test_parse_gives_a_pydantic_object(client: openai.OpenAI):
    answer = client.chat.completions.parse(model="tiny", messages=CHAT, seed=3, max_tokens=400, response_format=Place)
    assert isinstance(answer.choices[0].message.parsed, Place)


def test_what_benchmark_clients_send_is_accepted(client: openai.OpenAI):
    """The fields of ``vllm bench serve`` and guidellm, with the values they send when nothing was asked for."""
    chunks = list(client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        max_completion_tokens=5, temperature=0.0, logprobs=None, stop=None, stream=True,
        stream_options={"include_usage": True},
        extra_body={"repetition_penalty": 1.0, "ignore_eos": True}, extra_headers={"x-request-id": "bench-0"},
    ))  # fmt: skip
    assert chunks[-1].usage.completion_tokens == 5 and chunks[0].id == "chatcmpl-bench-0"


def test_json_object_is_an_object(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model="tiny", messages=CHAT, max_tokens=600, seed=1, response_format={"type": "json_object"}
    )
    text = answer.choices[0].message.content
    assert text.startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


def test_fifty_at_once_give_what_each_gives_alone(server: LiveServer):
    prompts = [f"Count from {number} to" for number in range(50)]

    async def ask_all() -> list[str]:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0, timeout=120) as client:

            async def ask(index: int) -> str:
                kind = {**GREEDY, "max_tokens": 12, "extra_body": {"ignore_eos": True}}
                if index % 2:
                    return (await client.completions.create(prompt=prompts[index], **kind)).choices[0].text
                stream = await client.completions.create(prompt=prompts[index], stream=True, **kind)
                return "".join([chunk.choices[0].text async for chunk in stream])

            return await asyncio.gather(*(ask(index) for index in range(50)))

    together = asyncio.run(ask_all())
    alone = [server.complete(prompt=p, max_tokens=12, ignore_eos=True)["choices"][0]["text"] for p in prompts]
    assert together == alone
