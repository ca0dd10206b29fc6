"""Several streams read as one: everything arrives, nothing piles up, and every stream is closed whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from minillm_serve.serve.http.streaming import MAX_ARRIVED, merged


class Stream:
    """Counts up to ``count``, then ends or fails."""

    def __init__(self, count: int, failure: Exception | None = None):
        self.count = count
        self.failure = failure
        self.made = 0
        self.closed = False

    async def items(self) -> AsyncGenerator[int]:
        try:
            while self.made < self.count:
                await asyncio.sleep(0)
                self.made += 1
                yield self.made
            if self.failure is not None:
                raise self.failure
        finally:
            self.closed = True


async def idle_turns(count: int = 1000) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("streams", [1, 2, 5])
def test_every_item_arrives_in_its_streams_order(streams: int):
    async def read() -> list[tuple[int, int]]:
        return [item async for item in merged([Stream(200).items() for _ in range(streams)])]

    got = asyncio.run(read())
    for index in range(streams):
        assert [value for which, value in got if which == index] == list(range(1, 201))


def test_streams_wait_for_a_slow_reader():
    async def read() -> None:
        streams = [Stream(100_000) for _ in range(3)]
        async with aclosing(merged([stream.items() for stream in streams])) as items:
            await anext(items)
            await idle_turns()
            assert sum(stream.made for stream in streams) <= 1 + MAX_ARRIVED + len(streams)
        assert all(stream.closed for stream in streams)

    asyncio.run(read())


@pytest.mark.parametrize("items_before", [0, 1, 3 * MAX_ARRIVED])
def test_one_failure_fails_the_whole_and_closes_the_others(items_before: int):
    async def read() -> None:
        streams = [Stream(10**9), Stream(items_before, ValueError("broken"))]
        with pytest.raises(ValueError, match="broken"):
            async with aclosing(merged([stream.items() for stream in streams])) as items:
                async for _ in items:
                    pass
        assert all(stream.closed for stream in streams)

    asyncio.run(read())
