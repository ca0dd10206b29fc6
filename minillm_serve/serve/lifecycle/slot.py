"""Where a server keeps its engine: there from the start, on its way, or loaded when first asked for."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from minillm_serve.config import ConfigError
from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.engine.core import EngineStats
from minillm_serve.serve.http.errors import ApiError

Made = TypeVar("Made")

logger = logging.getLogger("minillm.serve")
LOADING_RETRY_S = 5
LAST_STEP_S = 1.0  # once told to end, a server is gone in 4 s: see lifecycle/server.py for the others
LOADER_THREAD = "minillm-loader"
NOTHING_YET = EngineStats(running=0, waiting=0, kv_blocks_used=0, kv_blocks_total=0, num_preemptions=0)


def still_loading() -> ApiError:
    """What a request hears that came before the model."""
    return ApiError(503, "the model is loading; try again in a moment", headers={"Retry-After": str(LOADING_RETRY_S)})


class EngineSlot:
    """Holds one engine, or knows how to make it. On the event loop alone; the making has a thread of its own.

    on_loaded: called once with the engine, before it takes requests. error: why there will be none.
    """

    def __init__(self, make: Callable[[], AsyncEngine]):
        self._make = make
        self._engine: AsyncEngine | None = None
        self._loading: asyncio.Task[None] | None = None
        self.on_loaded: Callable[[AsyncEngine], None] = lambda engine: None
        self.error: BaseException | None = None

    @classmethod
    def holding(cls, engine: AsyncEngine) -> EngineSlot:
        """Of an engine that is loaded already, and only has to be started."""
        slot = cls(lambda: engine)
        slot._engine = engine
        return slot

    @property
    def loaded(self) -> bool:
        return self._engine is not None

    @property
    def loading(self) -> bool:
        return self._loading is not None and not self._loading.done()

    @property
    def engine(self) -> AsyncEngine:
        """Raises ApiError 503 while there is none."""
        if self._engine is None:
            raise still_loading()
        return self._engine

    def stats(self) -> EngineStats:
        """The engine's; all zeros before there is one."""
        return NOTHING_YET if self._engine is None else self._engine.stats()

    def begin(self) -> asyncio.Task[None]:
        """Start loading unless that was done; the task ends, without an error of its own, when it has gone well or ill.

        Whoever waits for it must shield it: others wait too.
        """
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        return self._loading

    async def _load(self) -> None:
        try:
            self._engine = self._engine or await _in_daemon_thread(self._make)
            self.on_loaded(self._engine)
            await self._engine.start()
        except ConfigError as error:
            self.error = error
            logger.error("the model could not be loaded: %s", error)
        except Exception as error:
            self.error = error
            logger.exception("the model could not be loaded")

    def abort(self) -> None:
        """Every request under way ends with an error, now."""
        if self._engine is not None:
            self._engine.close()

    async def close(self) -> None:
        """Stop the engine, or its loading. Waits for the last step, but not for ever."""
        if self._engine is None:
            if self._loading is not None:
                self._loading.cancel()
        elif not await self._engine.stop(LAST_STEP_S):
            logger.warning("the last step did not end within %s s: it is left behind, and a trace is not written",
                           LAST_STEP_S)  # fmt: skip


async def _in_daemon_thread(make: Callable[[], Made]) -> Made:
    """What ``make`` returns. Unlike with ``to_thread``, nobody waits at the process's end for what is not wanted then.

    If its waiter is cancelled, the thread goes on and its result is dropped.
    """
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Made] = loop.create_future()

    def settle(set_outcome: Callable[[object], None], outcome: object) -> None:
        if not made.done():
            set_outcome(outcome)

    def work() -> None:
        try:
            outcome = made.set_result, make()
        except Exception as error:
            outcome = made.set_exception, error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=work, name=LOADER_THREAD, daemon=True).start()
    return await made
