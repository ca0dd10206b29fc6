"""The load and fault plan in small: each scenario against a server of its own, and the arithmetic of its figures."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from pathlib import Path

import pytest

from minillm_serve.bench.load.soak import _p99_of_thirds, _slope
from minillm_serve.bench.load.verdict import Figure, Verdict, exactly
from minillm_serve.bench.load.wire import Address, Connection, request_bytes
from minillm_serve.cli import main

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the server is watched through /proc")


@pytest.mark.parametrize(
    ("figure", "kept"),
    [
        (Figure("x", 1.0), True),
        (Figure("x", 1.0, most=1.0), True),
        (Figure("x", 1.1, most=1.0), False),
        (Figure("x", 0.9, least=1.0), False),
        (Figure("x", math.nan, most=1.0), False),
        (Figure("x", math.inf, most=1.0), False),
        (exactly("x", 3, 3), True),
        (exactly("x", 4, 3), False),
    ],
)
def test_a_figure_knows_whether_it_keeps_its_limits(figure: Figure, kept: bool):
    assert figure.kept is kept
    assert Verdict("s", (figure,)).to_dict()["passed"] is kept


def test_the_slope_is_that_of_the_line_through_the_samples():
    samples = [{"time": float(t), "value": 5.0 + 2.0 * t} for t in range(10)]
    assert _slope(samples, "value") == pytest.approx(2.0)
    assert _slope(samples[:2], "value") == 0.0


def test_drift_compares_the_first_third_with_the_last():
    answers = [(float(i), 1.0 if i < 100 else 3.0) for i in range(300)]
    assert _p99_of_thirds(answers[::-1]) == (1.0, 3.0)


def test_the_bare_client_reads_answers_of_known_length_and_chunked_ones():
    async def scenario() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\n{}")
            await reader.readuntil(b"\r\n\r\n")
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head + b"9\r\ndata: a\n\n\r\n" + b"c\r\n: ping\n\ndata\r\n")
            writer.write(b"5\r\n: b\n\n\r\n0\r\n\r\n")
            await writer.drain()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            connection = await Connection.open(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
            plain = await connection.ask("GET", "/")
            assert (plain.status, plain.headers["x-a"], plain.json()) == (200, "b", {})
            assert [event async for _, event in connection.events("/", {})] == [b"a", b"b"]
            connection.close()

    asyncio.run(scenario())


def test_a_request_says_how_long_it_is():
    head, body = request_bytes("POST", "/x", {"a": "é"}).split(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {"a": "é"}


SMALL = {
    "cancel": ["--requests", "12", "--max-tokens", "4000"],
    "idle": ["--connections", "60", "--streams", "3", "--max-tokens", "200"],
    "burst": ["--posts", "80", "--queue", "8", "--max-tokens", "100"],
    "kv": ["--requests", "6", "--prompt-tokens", "64", "--max-tokens", "600"],  # long beside the 20 ms between arrivals
    "drain": ["--streams", "6", "--max-tokens", "400", "--seconds", "300"],  # as long as a slow machine may need
    "overhead": ["--streams", "3", "--max-tokens", "8", "--rounds", "2"],
    "soak": ["--minutes", "0.3"],
}
# On a busy machine a figure in seconds may miss its limit: here only what must hold at any speed is judged.
TIMED = ("s", "ms", "x", "kB", "MB/min", "/min", "%")


@linux
@pytest.mark.model
@pytest.mark.parametrize("scenario", SMALL)
def test_a_scenario_in_small(scenario: str, tmp_path: Path):
    file = tmp_path / "verdict.json"
    main(["bench", "load", scenario, "--json", str(file), *SMALL[scenario]])
    document = json.loads(file.read_text())
    missed = [row for row in document["figures"] if not row["kept"] and row["unit"] not in TIMED]
    assert not missed
    assert len(document["figures"]) >= 6
