"""uvicorn with an ending: drain on the first signal, abort on the second, give up when the engine is lost."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from minillm_serve.engine.async_engine import STEP_THREAD
from minillm_serve.serve.lifecycle.slot import LOADER_THREAD
from minillm_serve.serve.lifecycle.state import Lifecycle
from minillm_serve.serve.settings import ServerSettings

logger = logging.getLogger("minillm.serve")
# Once the draining is over: for requests that have just been failed to write their errors out (what still runs then
# is cancelled), and, at the very end, for threads that nobody waits for any more.
LAST_WORDS_S = 1
EXIT_S = 1


class Server(uvicorn.Server):
    """Serves until told to end, then until what it had accepted is answered, at most ``shutdown_timeout`` seconds.

    While it drains it goes on listening: whoever asks /ready, or sends a request too late, hears so instead of finding
    nobody. exit_code: 0, or 1 when the engine was lost. announce: told each new status of the lifecycle.
    """

    def __init__(
        self, config: uvicorn.Config, lifecycle: Lifecycle, settings: ServerSettings, announce: Callable[[str], None]
    ):
        config.timeout_graceful_shutdown = LAST_WORDS_S
        super().__init__(config)
        self.exit_code = 0
        self._lifecycle = lifecycle
        self._settings = settings
        self._announce = announce
        self._announced = ""
        self._deadline: float | None = None  # of the drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal: the second one ends the draining."""
        patience = self._settings.shutdown_timeout if self._deadline is None else 0
        self._deadline = time.monotonic() + patience
        self._lifecycle.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end now."""
        if await super().on_tick(counter):
            return True
        lifecycle = self._lifecycle
        lifecycle.check_step(self._settings.step_timeout)
        if lifecycle.failed and not self._settings.keep_alive_on_engine_death:
            self.exit_code = 1
            return True
        if (status := lifecycle.status) != self._announced:
            self._announced = status
            self._announce(status)
        if self._deadline is None:
            return False
        return lifecycle.under_way == 0 or time.monotonic() >= self._deadline

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """What is still under way ends with an error; then the connections, the engine and the trace file."""
        if (left := self._lifecycle.under_way) and not self._lifecycle.failed:
            logger.warning("%d requests were still under way and are aborted", left)
        self._lifecycle.draining = True
        self._lifecycle.slot.abort()
        await super().shutdown(sockets)


def end_process_within(seconds: float, exit_code: int) -> None:
    """What nobody waits for any more (a template, a constraint being compiled) must not keep the process for long."""
    timer = threading.Timer(seconds, _end_process, (exit_code,))
    timer.daemon = True
    timer.start()


def end_process_if_computing(exit_code: int) -> None:
    """End it here when a step or a loading still runs: the interpreter's own end would pull the floor from under it."""
    if any(thread.name in (STEP_THREAD, LOADER_THREAD) for thread in threading.enumerate()):
        _end_process(exit_code)


def _end_process(exit_code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
