"""A client that is told 429 or 503 waits as long as it is told, tries again, and gets its answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from live_server import Brake, LiveServer, wait_until
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minillm_serve.config import EngineConfig

LATE = 0.005  # seconds by which a client's clock and ours may differ


@dataclass
class Exchange:
    """One POST as the server saw it."""

    came: float
    status: int = 0
    answered: float = 0.0
    told_to_wait: float | None = None  # seconds


class Witness:
    """Pure ASGI: notes when each POST came and what it was told."""

    def __init__(self, app: ASGIApp, exchanges: list[Exchange]):
        self._app = app
        self._exchanges = exchanges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(time.monotonic())
        self._exchanges.append(exchange)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                exchange.status, exchange.answered = message["status"], time.monotonic()
                if b"retry-after-ms" in headers:
                    exchange.told_to_wait = int(headers[b"retry-after-ms"]) / 1000
                elif b"retry-after" in headers:
                    exchange.told_to_wait = float(headers[b"retry-after"])
            await send(message)

        await self._app(scope, receive, noting)


class WatchedServer(LiveServer):
    """A live server whose POSTs are written down."""

    def __init__(self, model: Path, **settings: Any):
        super().__init__(EngineConfig(model=str(model), num_kv_blocks=128, num_threads=1), **settings)
        self.exchanges: list[Exchange] = []
        self.app.add_middleware(Witness, exchanges=self.exchanges)


@pytest.fixture
def limited(tiny_model_dir: Path) -> Iterator[WatchedServer]:
    with WatchedServer(tiny_model_dir, requests_per_minute=60) as server:
        yield server


@pytest.fixture
def narrow(tiny_model_dir: Path) -> Iterator[WatchedServer]:
    with WatchedServer(tiny_model_dir, max_num_queued_reqs=1) as server:
        yield server


def client_of(server: LiveServer, max_retries: int) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=max_retries, timeout=60)


def spend_quota(server: LiveServer) -> None:
    while server.post("/v1/completions", {}).status_code != 429:
        pass


def test_a_client_over_its_quota_comes_back_when_told(limited: WatchedServer):
    asked = {"model": "tiny", "prompt": "Once", "max_tokens": 2}
    with client_of(limited, max_retries=0) as hasty, pytest.raises(openai.RateLimitError) as refused:
        while True:
            spend_quota(limited)
            hasty.completions.create(**asked)
    assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    with client_of(limited, max_retries=4) as patient:
        retries = 0
        while retries == 0:  # the bucket may have a new token by the time the client asks
            spend_quota(limited)
            seen = len(limited.exchanges)
            raw = patient.completions.with_raw_response.create(**asked)
            retries = raw.retries_taken
    assert raw.parse().usage.completion_tokens == 2
    refusal, retry = limited.exchanges[seen : seen + 2]
    assert refusal.status == 429 and refusal.told_to_wait is not None and 0 < refusal.told_to_wait <= 1.0
    assert retry.came - refusal.answered >= refusal.told_to_wait - LATE


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_is_tried_again_and_served(narrow: WatchedServer, stream: bool):
    asked = {"model": "tiny", "prompt": "Once", "max_tokens": 3, "temperature": 0}
    with Brake(narrow, steps=1) as brake, ThreadPoolExecutor(2) as threads, client_of(narrow, 4) as client:
        first = threads.submit(client.completions.create, **asked)
        wait_until(lambda: narrow.engine.stats().running == 1)
        second = threads.submit(client.completions.create, stream=stream, **asked)
        wait_until(lambda: any(exchange.status == 503 for exchange in narrow.exchanges))
        brake.allow(100)
        answer = second.result()
        text = "".join(c.choices[0].text for c in answer) if stream else answer.choices[0].text
        assert text == first.result().choices[0].text
    refusal = next(exchange for exchange in narrow.exchanges if exchange.status == 503)
    retry = narrow.exchanges[narrow.exchanges.index(refusal) + 1]
    assert refusal.told_to_wait is not None and retry.came - refusal.answered >= refusal.told_to_wait - LATE


def test_what_cannot_succeed_is_not_tried_again(narrow: WatchedServer):
    with client_of(narrow, max_retries=4) as client:
        for fault in ({"temperature": 9}, {"model": "other"}, {"max_tokens": 10_000}):
            before = len(narrow.exchanges)
            with pytest.raises(openai.APIStatusError):
                client.completions.create(**{"model": "tiny", "prompt": "Once"} | fault)
            assert len(narrow.exchanges) == before + 1, fault
