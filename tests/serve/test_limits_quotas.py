"""A client gets what its quota says, to the token: at once, over a minute, and whatever happens to its requests."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from live_server import Brake, LiveServer, wait_until
from test_disconnect import send

from minillm_serve.config import EngineConfig
from minillm_serve.serve.caller import Caller
from minillm_serve.serve.http.errors import ApiError
from minillm_serve.serve.limits.bucket import Bucket
from minillm_serve.serve.limits.keys import ApiKey, digest_of
from minillm_serve.serve.limits.quotas import Quotas
from minillm_serve.serve.limits.rejections import Rejections

BODY = {"prompt": [70] * 10, "max_tokens": 20, "temperature": 0, "ignore_eos": True}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_exact():
    clock = Clock()
    bucket = Bucket(100, clock=clock)
    for _ in range(100):
        assert bucket.wait(1) == 0
        bucket.take(1)
    assert bucket.wait(1) == pytest.approx(0.6)
    clock.now += bucket.wait(1)
    assert bucket.wait(1) == 0


@pytest.mark.parametrize("capacity", [1, 7, 60, 6000, 1_000_000])
@pytest.mark.parametrize("seed", range(3))
def test_sixty_seconds_grant_what_the_quota_says(capacity: int, seed: int):
    """An empty bucket and a client that always wants more, in steps as they come: within 2 % of a minute's worth."""
    clock, chance = Clock(), random.Random(seed)
    bucket = Bucket(capacity, clock=clock)
    bucket.take(capacity)
    granted, start = 0, clock.now
    most = max(1, capacity // 100)
    while True:
        clock.now += chance.expovariate(50)
        if clock.now >= start + 60:
            break
        while bucket.wait(units := chance.randint(1, most)) == 0:
            bucket.take(units)
            granted += units
    assert granted <= capacity
    assert granted >= capacity * 0.98 - most, (granted, capacity)


def test_what_is_given_back_never_overfills_it():
    clock = Clock()
    bucket = Bucket(10, clock=clock)
    bucket.take(4)
    bucket.give_back(9)
    assert bucket.level == 10
    clock.now += 1e9
    assert bucket.level == 10


def group(prompt: int, longest: int, samples: int = 1) -> Any:
    def sample() -> Any:
        request = SimpleNamespace(max_total_tokens=prompt + longest, metrics=SimpleNamespace(first_scheduled=None))
        return SimpleNamespace(request=request, num_tokens=0)

    return SimpleNamespace(prompt_token_ids=(0,) * prompt, samples=tuple(sample() for _ in range(samples)))


def quotas(clock: Clock, requests: int = 0, tokens: int = 0, keys: tuple[ApiKey, ...] = ()) -> Quotas:
    return Quotas(keys, requests, tokens, Rejections(), clock)


def test_a_request_pays_for_what_it_used():
    clock = Clock()
    limit = quotas(clock, tokens=1000)
    caller = Caller("r")
    asked = group(prompt=100, longest=200, samples=2)
    limit.check(caller, [asked])
    watch = limit.watch(caller, asked)
    assert dict(limit.headers(caller))[b"x-ratelimit-remaining-tokens"] == b"500"
    asked.samples[0].request.metrics.first_scheduled = 1.0
    for sample in asked.samples:
        sample.num_tokens = 50
    watch.end("stop")
    assert dict(limit.headers(caller))[b"x-ratelimit-remaining-tokens"] == b"800"


def test_a_request_that_never_ran_costs_nothing():
    limit = quotas(Clock(), tokens=1000)
    asked = group(prompt=100, longest=200)
    limit.watch(Caller("r"), asked).end("abort")
    assert dict(limit.headers(Caller("s")))[b"x-ratelimit-remaining-tokens"] == b"1000"


def test_too_much_now_is_429_and_too_much_ever_is_400():
    clock = Clock()
    limit = quotas(clock, tokens=600)
    caller = Caller("r")
    limit.watch(caller, group(100, 400))
    with pytest.raises(ApiError) as refusal:
        limit.check(caller, [group(100, 30), group(50, 20)])
    assert refusal.value.status == 429
    assert refusal.value.headers == {"Retry-After": "10", "Retry-After-Ms": "10000"}
    clock.now += 10
    limit.check(caller, [group(100, 30), group(50, 20)])
    with pytest.raises(ApiError) as refusal:
        limit.check(caller, [group(300, 301)])
    assert (refusal.value.status, refusal.value.param) == (400, "max_tokens")


def test_each_key_has_a_quota_of_its_own():
    keys = (ApiKey("small", digest_of(b"1"), 2, 0), ApiKey("usual", digest_of(b"2")))
    limit = quotas(Clock(), requests=5, tokens=100, keys=keys)
    granted = {"small": 0, "usual": 0, "anonymous": 0}
    for client in granted:
        for number in range(10):
            try:
                limit.enter(Caller(str(number), client=client))
                granted[client] += 1
            except ApiError as refusal:
                assert refusal.status == 429 and int(refusal.headers["Retry-After"]) >= 1
    assert granted == {"small": 2, "usual": 5, "anonymous": 5}
    assert not any(name.endswith(b"tokens") for name, _ in limit.headers(Caller("r", client="small")))


@pytest.fixture
def limited(tiny_model_dir: Path) -> Iterator[LiveServer]:
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=256, max_num_seqs=32, num_threads=1)
    keys = tuple(ApiKey(name, digest_of(name.encode()), 40, tokens) for name, tokens in (("a", 1000), ("b", 0)))
    with LiveServer(config, api_keys=keys, open_metrics=True) as server:
        yield server


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


def test_sixteen_threads_get_what_one_client_may_have(limited: LiveServer):
    """1000 tokens a minute are 33 requests of 30 tokens, and what flows back while they are made."""

    def ask(number: int) -> Any:
        return limited.post("/v1/completions", BODY, headers=key("a"))

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(64)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert 33 <= statuses.count(200) < 64
    for answer in answers:
        for unit, limit in (("requests", 40), ("tokens", 1000)):
            assert answer.headers[f"x-ratelimit-limit-{unit}"] == str(limit)
            assert 0 <= int(answer.headers[f"x-ratelimit-remaining-{unit}"]) <= limit
            assert 0 <= float(answer.headers[f"x-ratelimit-reset-{unit}"].removesuffix("s")) <= 60
        if answer.status_code == 429:
            assert answer.json()["error"]["type"] == "RateLimitError"
            seconds, milliseconds = int(answer.headers["retry-after"]), int(answer.headers["retry-after-ms"])
            assert seconds == math.ceil(milliseconds / 1000) > 0
    reasons = ("requests_per_minute", "tokens_per_minute")
    counted = [limited.metric("admission_rejections_total", reason=reason) for reason in reasons]
    assert sum(counted) == statuses.count(429)
    assert limited.post("/v1/completions", BODY, headers=key("b")).status_code == 200, "one key is not another"
    assert "x-ratelimit-limit-tokens" not in limited.http.get("/v1/models", headers=key("b")).headers
    assert limited.http.get("/v1/models", headers=key("a")).status_code == 200, "only work is counted"


def test_tokens_are_held_while_a_request_runs_and_come_back_when_its_client_leaves(limited: LiveServer):
    def remaining() -> int:
        return int(limited.http.get("/v1/models", headers=key("a")).headers["x-ratelimit-remaining-tokens"])

    body = BODY | {"max_tokens": 990}
    with Brake(limited, steps=0) as brake:
        connection = send(limited, body, headers=key("a"))
        brake.allow_when_told(things=1, steps=3)
        wait_until(lambda: remaining() < 500)
        refused = limited.post("/v1/completions", body, headers=key("a"))
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
        connection.close()
    wait_until(lambda: remaining() > 950)
    impossible = limited.post("/v1/completions", body | {"prompt": [70] * 30}, headers=key("a"))
    assert impossible.status_code == 400 and impossible.json()["error"]["param"] == "max_tokens"


def test_what_the_server_could_not_do_does_not_count(limited: LiveServer):
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("made by this test")

    limited.engine.prepare = broken

    def remaining() -> int:
        return int(limited.http.get("/v1/models", headers=key("a")).headers["x-ratelimit-remaining-requests"])

    before = remaining()
    assert limited.post("/v1/completions", BODY, headers=key("a")).status_code == 500
    assert remaining() >= before
