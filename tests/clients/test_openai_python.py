"""openai-python as applications use it: sync and async, helpers, raw answers, errors, and what it does when told no."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import openai
import pydantic
import pytest
from live_server import LiveServer, wait_until

CHAT = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"model": "tiny", "temperature": 0}


class Place(pydantic.BaseModel):
    """Short on purpose: the model is random and writes as much as it may."""

    kind: Literal["city", "country"]
    open: bool


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def test_the_stream_helper_rebuilds_the_whole_answer(client: openai.OpenAI):
    """The helper takes an answer that was cut for an error, so this one ends by itself."""
    asked = {"messages": CHAT, "max_tokens": 20, "extra_body": {"structured_outputs": {"regex": "[a-z]{9}"}}}
    whole = client.chat.completions.create(**asked, **GREEDY)
    with client.chat.completions.stream(**asked, **GREEDY) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert kinds.count("content.done") == 1 and "content.delta" in kinds


def test_parse_and_its_stream_give_the_pydantic_object(client: openai.OpenAI):
    asked = {"model": "tiny", "messages": CHAT, "seed": 3, "max_tokens": 200, "response_format": Place}
    parsed = client.chat.completions.parse(**asked).choices[0].message.parsed
    assert isinstance(parsed, Place)
    with client.chat.completions.stream(**asked) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == parsed


def test_logprobs_arrive_in_the_clients_types(client: openai.OpenAI):
    choice = client.chat.completions.create(messages=CHAT, max_tokens=5, logprobs=True, top_logprobs=2, **GREEDY
                                            ).choices[0]  # fmt: skip
    assert [len(entry.top_logprobs) for entry in choice.logprobs.content] == [2] * 5
    assert all(entry.logprob == entry.top_logprobs[0].logprob for entry in choice.logprobs.content)
    legacy = client.completions.create(prompt="Once", max_tokens=5, logprobs=2, echo=True, **GREEDY).choices[0]
    assert legacy.text.startswith("Once") and "".join(legacy.logprobs.tokens).startswith("Once")
    assert legacy.logprobs.token_logprobs[0] is None


def test_several_choices(client: openai.OpenAI):
    answer = client.chat.completions.create(model="tiny", messages=CHAT, n=3, seed=1, max_tokens=6)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_raw_answers_have_the_request_id(client: openai.OpenAI):
    raw = client.chat.completions.with_raw_response.create(
        messages=CHAT, max_tokens=2, extra_headers={"X-Request-Id": "mine-1"}, **GREEDY
    )
    assert raw.headers["x-request-id"] == "mine-1" and raw.retries_taken == 0
    assert raw.parse().id == "chatcmpl-mine-1" and raw.parse()._request_id == "mine-1"


def test_models_and_embeddings(client: openai.OpenAI):
    assert client.models.retrieve("tiny").id == "tiny"
    assert [model.id for model in client.models.list()] == ["tiny", "tiny-alias"]
    answer = client.embeddings.create(model="tiny", input=["one text", "another"])
    assert [entry.index for entry in answer.data] == [0, 1]
    norms = [sum(x * x for x in entry.embedding) ** 0.5 for entry in answer.data]
    assert all(abs(norm - 1) < 1e-3 for norm in norms), "the client asks for base64 and decodes it"
    plain = client.embeddings.create(model="tiny", input="one text", encoding_format="float").data[0].embedding
    assert max(abs(a - b) for a, b in zip(plain, answer.data[0].embedding, strict=True)) < 1e-5


def test_errors_have_their_classes(client: openai.OpenAI, server: LiveServer):
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="tiny", messages=CHAT, temperature=9)
    assert bad.value.param == "temperature" and bad.value.code == "400" and bad.value.request_id
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4o", messages=CHAT)
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(messages=CHAT, max_tokens=4, extra_body={"guided_json": {}}, **GREEDY)
    assert bad.value.param == "guided_json"
    huge = [{"role": "user", "content": "x" * (5 * 2**20)}]
    with pytest.raises(openai.APIStatusError) as large:
        client.chat.completions.create(model="tiny", messages=huge)
    assert large.value.status_code == 413


def test_a_client_that_gives_up_leaves_nothing_behind(client: openai.OpenAI, server: LiveServer):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.02).completions.create(
            model="tiny", prompt="x", max_tokens=1000, extra_body={"ignore_eos": True, "n": 8}
        )
    wait_until(server.idle)


def test_async_streams_side_by_side(server: LiveServer):
    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=60) as client:

            async def ask(length: int) -> str:
                stream = await client.chat.completions.create(messages=CHAT, max_tokens=length, stream=True, **GREEDY)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(ask(length) for length in range(1, 17)))

    texts = asyncio.run(ask_all())
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(texts))


def test_an_async_stream_that_is_left_ends_in_the_engine(server: LiveServer):
    async def leave() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=60) as client:
            stream = await client.completions.create(
                model="tiny", prompt="x", max_tokens=1000, stream=True, extra_body={"ignore_eos": True}
            )
            async for _ in stream:
                break
            await stream.close()

    asyncio.run(leave())
    wait_until(server.idle)


class Weather(pydantic.BaseModel):
    """The weather of a place."""

    model_config = pydantic.ConfigDict(extra="forbid")
    place: Literal["Lima", "Paris"]
    celsius: bool


def test_tools_whole_streamed_and_answered(client: openai.OpenAI):
    tool = openai.pydantic_function_tool(Weather, name="weather")
    asked = {"messages": CHAT, "tools": [tool], "tool_choice": "required", "max_tokens": 300, **GREEDY}
    message = client.chat.completions.create(**asked, parallel_tool_calls=False).choices[0].message
    [call] = message.tool_calls
    arguments = Weather.model_validate_json(call.function.arguments)
    assert call.type == "function" and call.function.name == "weather" and call.id
    parsed = client.chat.completions.parse(**asked, parallel_tool_calls=False).choices[0].message.tool_calls[0]
    assert parsed.function.parsed_arguments == arguments
    with client.chat.completions.stream(**asked, parallel_tool_calls=False) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion().choices[0]
    assert [event.parsed_arguments for event in done] == [arguments]
    assert final.finish_reason == "tool_calls" and final.message.tool_calls[0].function.parsed_arguments == arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "20 degrees"}
    conversation = [*CHAT, message.model_dump(exclude_none=True), result]
    after = client.chat.completions.create(messages=conversation, tools=[tool], max_tokens=4, **GREEDY)
    before = client.chat.completions.create(messages=CHAT, tools=[tool], max_tokens=4, **GREEDY)
    assert after.usage.prompt_tokens > before.usage.prompt_tokens


def test_a_named_tool_and_none(client: openai.OpenAI):
    tools = [openai.pydantic_function_tool(model, name=name) for model, name in ((Weather, "weather"), (Weather, "b"))]
    asked = {"messages": CHAT, "tools": tools, "max_tokens": 300, **GREEDY}
    named = {"type": "function", "function": {"name": "b"}}
    [call] = client.chat.completions.create(tool_choice=named, **asked).choices[0].message.tool_calls
    assert call.function.name == "b" and Weather.model_validate_json(call.function.arguments)
    said = client.chat.completions.create(tool_choice="none", **asked | {"max_tokens": 5}).choices[0].message
    assert said.tool_calls is None or said.tool_calls == []
    assert said.content


def test_async_parse_of_several_at_once(server: LiveServer):
    async def ask_all() -> list[Place | None]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=60) as client:
            asked = {"model": "tiny", "messages": CHAT, "max_tokens": 200, "response_format": Place}
            answers = await asyncio.gather(*(client.chat.completions.parse(seed=seed, **asked) for seed in range(6)))
            return [answer.choices[0].message.parsed for answer in answers]

    assert all(isinstance(place, Place) for place in asyncio.run(ask_all()))
