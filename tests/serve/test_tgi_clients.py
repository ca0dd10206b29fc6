"""Hugging Face's clients, made for TGI, work against this server: InferenceClient, and the older text_generation."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer, wait_until

from minillm_serve.compare.environments import how_to_install, installed_version, python_of

hub = pytest.importorskip("huggingface_hub", minversion="1.0")
errors = pytest.importorskip("huggingface_hub.errors")

PROMPT = "Once upon a time"
CHAT = [{"role": "user", "content": "What is the capital of France?"}]
OLDER_CLIENT = Path(__file__).parent / "text_generation_calls.py"


@pytest.fixture
def inference(server: LiveServer) -> Any:
    return hub.InferenceClient(f"{server.url}/tgi", provider="hf-inference", timeout=60)


def generated(server: LiveServer, max_tokens: int) -> str:
    return server.complete(prompt=PROMPT, max_tokens=max_tokens)["choices"][0]["text"]


def test_text_and_details(server: LiveServer, inference: Any):
    assert inference.text_generation(PROMPT, max_new_tokens=12) == generated(server, 12)
    answer = inference.text_generation(
        PROMPT, max_new_tokens=12, details=True, decoder_input_details=True, top_n_tokens=2, return_full_text=True
    )
    assert answer.generated_text == PROMPT + generated(server, 12)
    details = answer.details
    assert details.finish_reason == "length" and details.generated_tokens == 12 and details.seed is None
    assert "".join(token.text for token in details.tokens) == generated(server, 12)
    assert "".join(token.text for token in details.prefill) == PROMPT
    assert [len(tokens) for tokens in details.top_tokens] == [2] * 12


def test_streams_of_text_and_of_details(server: LiveServer, inference: Any):
    assert "".join(inference.text_generation(PROMPT, max_new_tokens=12, stream=True)) == generated(server, 12)
    *tokens, last = inference.text_generation(PROMPT, max_new_tokens=12, stream=True, details=True)
    assert [token.generated_text for token in tokens] == [None] * 11
    assert last.generated_text == generated(server, 12) and last.details.finish_reason == "length"
    assert [token.index for token in (*tokens, last)] == list(range(1, 13))


def test_every_parameter_of_the_client_is_taken(inference: Any):
    answer = inference.text_generation(
        PROMPT, details=True, do_sample=True, seed=7, temperature=0.8, top_k=20, top_p=0.9, typical_p=0.95,
        repetition_penalty=1.1, frequency_penalty=0.2, max_new_tokens=5, truncate=3, stop=["never"], watermark=False,
        best_of=1, return_full_text=False,
    )  # fmt: skip
    assert answer.details.seed == 7 and answer.details.generated_tokens <= 5
    best = inference.text_generation(PROMPT, details=True, do_sample=True, best_of=2, max_new_tokens=5)
    assert len(best.details.best_of_sequences) == 1


def test_a_grammar(inference: Any):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    text = inference.text_generation(PROMPT, max_new_tokens=30, grammar={"type": "json", "value": schema})
    assert isinstance(json.loads(text)["ok"], bool)


def test_chat_whole_and_streamed(server: LiveServer, inference: Any):
    asked = {"messages": CHAT, "max_tokens": 8, "temperature": 0.0}
    whole = inference.chat_completion(**asked)
    assert whole.usage.completion_tokens == 8 and whole.choices[0].finish_reason == "length"
    chunks = list(inference.chat_completion(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == whole.choices[0].message.content
    openai_side = hub.InferenceClient(base_url=f"{server.url}/v1", timeout=60)
    beside = openai_side.chat.completions.create(model="tiny", **asked)
    assert beside.choices[0].message.content == whole.choices[0].message.content


def test_what_the_endpoint_is(inference: Any):
    assert inference.get_endpoint_info()["model_id"] == "tiny"
    assert inference.health_check() is True


def test_errors_have_their_classes(inference: Any):
    for streamed in (False, True):
        with pytest.raises(errors.ValidationError, match="top_p"):
            for _ in inference.text_generation(PROMPT, top_p=2.0, stream=streamed):
                pass


def test_many_at_once_give_what_each_gives_alone(server: LiveServer):
    async def ask_all() -> list[str]:
        client = hub.AsyncInferenceClient(f"{server.url}/tgi", timeout=60)
        async with client:

            async def ask(length: int) -> str:
                if length % 2:
                    return await client.text_generation(PROMPT, max_new_tokens=length)
                stream = await client.text_generation(PROMPT, max_new_tokens=length, stream=True)
                return "".join([text async for text in stream])

            return await asyncio.gather(*(ask(length) for length in range(1, 13)))

    assert asyncio.run(ask_all()) == [generated(server, length) for length in range(1, 13)]


def test_a_stream_that_is_left_ends_in_the_engine(server: LiveServer, inference: Any):
    stream = inference.text_generation("x" * 20, do_sample=True, max_new_tokens=900, stream=True)
    assert isinstance(next(stream), str)
    stream.close()
    wait_until(server.idle)


def test_the_older_client(server: LiveServer):
    """text_generation 0.7.0 wants a huggingface_hub of its own time: it runs in an environment of its own."""
    if installed_version("tgi-client") is None:
        pytest.skip(f"text_generation is not installed; install it with: {how_to_install('tgi-client')}")
    command = [str(python_of("tgi-client")), "-W", "ignore", str(OLDER_CLIENT), f"{server.url}/tgi"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    text = generated(server, 10)
    assert said["generate"] == {"text": text, "tokens": text, "finish_reason": "length", "generated_tokens": 10}
    assert said["stream"] == said["async_stream"] == {"text": text, "tokens": text}
    assert said["async_generate"] == text
    assert said["best_of"] == 1 and said["stopped"] == "stop_sequence" and said["grammar"].isdigit()
    assert said["chat"] == server.post("/v1/chat/completions", {"messages": CHAT, "max_tokens": 6, "temperature": 0}
                                       ).json()["choices"][0]["message"]["content"]  # fmt: skip
    assert said["errors"] == {"validation": "ValidationError", "stream": "ValidationError", "path": "NotFoundError"}
