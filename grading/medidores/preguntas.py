"""The trusted client: sends request bodies all at once to a real server, stamps every chunk, and doubts the answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from minilab.asincrono import corre
from minilab_grading.medidores.banco import MeterError
from minilab_grading.medidores.cargas import TOPICS, WORDS
from minillm_serve.bench.prompts import GuidedCase, guided_cases

TIMEOUT_S = 600.0
# What a student's body may set; anything else would be about the connection, not about the request.
BODY_FIELDS = {
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stream",
    "stream_options", "extra_body", "response_format",
}  # fmt: skip
EXTRA_FIELDS = {"ignore_eos", "structured_outputs", "top_k", "min_p", "chat_template_kwargs"}
# Above any machine sold today, in bytes per second: a decode step reads all weights once for the whole batch.
FASTEST_MEMORY = {"cpu": 1e12, "cuda": 1e13}


@dataclass
class Answer:
    """chunks: [seconds after the common send, text]. end: of the last chunk. tokens: the server's own count.

    ids: the drawn tokens, where the server names them; they are not kept in a record. error: why the server refused
    the request, None where it answered.
    """

    chunks: list[tuple[float, str]] = field(default_factory=list)
    end: float = 0.0
    tokens: int = 0
    finish: str | None = None
    ids: list[int] = field(default_factory=list)
    error: str | None = None

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.chunks)

    def to_plain(self) -> dict[str, Any]:
        return {"uso": self.tokens, "fin": round(self.end, 4), "trozos": [[round(t, 4), x] for t, x in self.chunks]}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Answer:
        return cls([(t, text) for t, text in plain["trozos"]], plain["fin"], plain["uso"])


def nonce_prompts(rng: Random, count: int) -> list[str]:
    """Prompts of different lengths that no cache has seen: the nonce comes first."""
    numbers = rng.sample(range(10**6, 10**7), count)
    return [
        f"{n}. Explain {rng.choice(TOPICS)}. Use these words: {' '.join(rng.choices(WORDS, k=rng.randrange(1, 24)))}."
        for n in numbers
    ]


def hidden_questions(rng: Random, count: int) -> list[GuidedCase]:
    """Questions with bounded schemas whose property names nobody has seen."""
    questions = []
    for case in rng.sample(guided_cases(50), count):
        names = {
            name: f"{rng.choice(WORDS)}_{rng.randrange(1000)}_{i}" for i, name in enumerate(case.schema["properties"])
        }
        properties = {names[name]: schema for name, schema in case.schema["properties"].items()}
        schema = {**case.schema, "properties": properties, "required": [names[n] for n in case.schema["required"]]}
        questions.append(GuidedCase(case.name, schema, f"{rng.randrange(10**6)}. {case.prompt}"))
    return questions


def free_body(model: str, prompt: str, max_tokens: int) -> dict[str, Any]:
    """Free text of exactly ``max_tokens`` tokens, greedy and streamed."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "extra_body": {"ignore_eos": True},
    }


def foreign_fields(body: Mapping[str, Any]) -> list[str]:
    """Fields of a student's body that must not be forwarded."""
    extra = body.get("extra_body") or {}
    inner = set(extra) if isinstance(extra, dict) else {"extra_body"}
    return sorted((set(body) - BODY_FIELDS) | (inner - EXTRA_FIELDS))


def ask_all(base_url: str, bodies: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """All bodies at the same moment; one answer each, in order; a refused one has an ``error``.

    Raises :class:`MeterError` when the server fails.
    """
    from openai import OpenAIError

    try:
        return corre(_ask_all(base_url, bodies))
    except OpenAIError as error:
        raise MeterError(f"el servidor no respondió como debía: {error}") from error


async def _ask_all(base_url: str, bodies: Sequence[Mapping[str, Any]]) -> list[Answer]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=base_url, api_key="sin-clave", max_retries=0, timeout=TIMEOUT_S) as client:
        start = time.perf_counter()
        return list(await asyncio.gather(*(_ask(client, body, start) for body in bodies)))


async def _ask(client: Any, body: Mapping[str, Any], start: float) -> Answer:
    from openai import BadRequestError

    try:
        return await _stream(client, body, start)
    except BadRequestError as error:
        return Answer(error=f"HTTP 400: {error}"[:300])


async def _stream(client: Any, body: Mapping[str, Any], start: float) -> Answer:
    answer, extra = Answer(), {**(body.get("extra_body") or {}), "return_token_ids": True}
    usage = {"stream": True, "stream_options": {"include_usage": True}, "extra_body": extra}
    async for chunk in await client.chat.completions.create(**{**body, **usage}):
        now = time.perf_counter() - start
        for choice in chunk.choices:
            if choice.delta.content:
                answer.chunks.append((now, choice.delta.content))
            answer.finish = choice.finish_reason or answer.finish
            answer.ids.extend(getattr(choice, "token_ids", None) or ())
        if chunk.usage:
            answer.tokens = chunk.usage.completion_tokens
        answer.end = now
    return answer


def server_version(base_url: str) -> str:
    """What the server says of itself. Raises :class:`MeterError`."""
    try:
        with urlopen(base_url.removesuffix("/v1") + "/version", timeout=30) as answer:
            return str(json.load(answer)["version"])
    except (URLError, OSError, ValueError, KeyError) as error:
        raise MeterError(f"{base_url} no dice qué versión es: {error}") from error


def refuse_dishonest(answers: Sequence[Answer], folder: Path, new_tokens: int, device: str) -> None:
    """The count is that of the ids, the text is that of the ids, and no memory is that fast. Raises MeterError."""
    from minillm_serve.model.tokenizer import Tokenizer

    backend = Tokenizer.from_folder(folder).backend
    for number, answer in enumerate(answers, 1):
        if answer.error:
            raise MeterError(f"el servidor rechazó la petición {number}: {answer.error}")
        if not answer.chunks or answer.tokens != new_tokens:
            raise MeterError(f"la respuesta {number} trae {answer.tokens} tokens y se pidieron {new_tokens}")
        if len(answer.ids) != answer.tokens:
            raise MeterError(f"la respuesta {number} dice {answer.tokens} tokens y trae {len(answer.ids)}")
        whole = backend.decode(answer.ids, skip_special_tokens=True).rstrip("\ufffd")
        if not whole.startswith(answer.text.rstrip("\ufffd")):
            raise MeterError(f"el texto de la respuesta {number} no es el de sus tokens")
    steps_s = throughput_steps(answers)
    fastest = FASTEST_MEMORY[device] / sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    if steps_s > fastest:
        raise MeterError(f"{steps_s:.0f} pasos por segundo son más de los {fastest:.0f} que permite la memoria")


def throughput_steps(answers: Sequence[Answer]) -> float:
    """Decode steps per second if every step advanced every request: less than any server really makes."""
    return max(a.tokens for a in answers) / max(a.end for a in answers)
