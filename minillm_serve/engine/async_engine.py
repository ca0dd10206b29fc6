"""The engine for servers: the step loop in its own thread, one async stream of outputs per request."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from minillm_serve.config import EngineConfig
from minillm_serve.engine.build import build_core
from minillm_serve.engine.core import EngineCore, EngineStats, StepStats
from minillm_serve.engine.group import RequestGroup
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.params import PoolingParams, SamplingParams, StructuredOutputsParams
from minillm_serve.request import RequestOutput


class EngineDeadError(RuntimeError):
    """The step loop has ended, by an error or by ``stop()``; no request can be served any more."""


class EngineBusyError(RuntimeError):
    """The request was not taken: too much of its kind is under way. A later try may succeed."""


Made = TypeVar("Made")
STEP_THREAD = "minillm-steps"
MAX_UNREAD = 64
MAX_UNREAD_CHARS = 32 * 2**10
MAX_COMPILING = 64


class _Mailbox:
    """Outputs on their way to one reader. One that falls behind misses some, not their content.

    Outputs are cumulative: the newest tells all. Each holds a copy of its text, so what a client that stops reading
    makes the server keep is bounded twice: ``MAX_UNREAD`` outputs, and ``MAX_UNREAD_CHARS`` characters in all of them.
    """

    def __init__(self) -> None:
        self._unread: deque[RequestOutput | EngineDeadError] = deque()
        self._arrived = asyncio.Event()

    def put(self, output: RequestOutput | EngineDeadError) -> None:
        if self._unread and isinstance(output, RequestOutput) and self._has_no_room_beside(output):
            self._unread.pop()
        self._unread.append(output)
        self._arrived.set()

    def _has_no_room_beside(self, output: RequestOutput) -> bool:
        count, chars = len(self._unread), sum(len(completion.text) for completion in output.outputs)
        return count >= MAX_UNREAD or (count + 1) * chars > MAX_UNREAD_CHARS

    async def get(self) -> RequestOutput | EngineDeadError:
        while not self._unread:
            self._arrived.clear()
            await self._arrived.wait()
        return self._unread.popleft()


class AsyncEngine:
    """Many coroutines on one event loop, one step thread.

    The thread alone touches the core once started: coroutines put commands in a queue, outputs come back through
    the loop in one hop per step.
    """

    def __init__(self, core: EngineCore, config: EngineConfig, trace_file: str | Path | None = None):
        self.core = core
        self.config = config
        self._trace_file = trace_file
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._streams: dict[int, _Mailbox] = {}
        self._calls: set[asyncio.Future[Any]] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._step_began: float | None = None
        self._compiler = ThreadPoolExecutor(1, "minillm-grammars")
        self._compiling = 0  # constraints in that thread or waiting for it
        self._open = False  # changed on the event loop alone, so that no stream slips in behind the closing
        self._stats = core.stats()

    @classmethod
    def from_config(cls, config: EngineConfig, trace_file: str | Path | None = None) -> AsyncEngine:
        """Load the model (seconds). Raises ConfigError.

        In a thread that ends with it, and its OpenMP team with the thread. A team that stayed behind would make more
        threads than cores: libgomp's workers then sleep after each kernel instead of spinning for the next, and waking
        them hundreds of times a step costs a tenth to a quarter of the throughput (serve/LEDGER.md).
        """
        made: Future[EngineCore] = Future()

        def load() -> None:
            try:
                made.set_result(build_core(config, trace=trace_file is not None))
            except BaseException as error:
                made.set_exception(error)

        # A daemon, unlike an executor's threads: whoever gives up waiting need not wait for it at the end either.
        threading.Thread(target=load, name="minillm-load", daemon=True).start()
        return cls(made.result(), config, trace_file)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.core.admission.tokenizer

    @property
    def max_model_len(self) -> int:
        return self.core.admission.max_model_len

    @property
    def errored(self) -> bool:
        """The step thread died of an error."""
        return self._error is not None

    @property
    def step_seconds(self) -> float:
        """How long the step under way has been so; 0 between steps."""
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def on_step(self) -> Callable[[StepStats], None] | None:
        """Called after every step, from the step thread."""
        return self.core.on_step

    @on_step.setter
    def on_step(self, callback: Callable[[StepStats], None] | None) -> None:
        self.core.on_step = callback

    def stats(self) -> EngineStats:
        """The state after the last step."""
        return self._stats

    async def start(self) -> None:
        """Start the step thread on the running event loop."""
        if self._thread is not None:
            raise RuntimeError("the engine was already started")
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=STEP_THREAD, daemon=True)
        self._open = True
        self._thread.start()

    def close(self) -> None:
        """Take no more requests; unfinished streams raise EngineDeadError now, the step thread ends with its step."""
        self._close_streams()
        self._commands.put(None)

    async def stop(self, step_timeout: float | None = None) -> bool:
        """End the step thread; unfinished streams raise EngineDeadError. Writes the trace.

        False, and no trace, when a step has not ended within ``step_timeout`` seconds (None: wait for it).
        """
        if self._thread is None:
            return True
        self._compiler.shutdown(wait=False, cancel_futures=True)
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join, step_timeout)
        if self._thread.is_alive():
            return False
        if self._trace_file is not None and self.core.trace is not None:
            self.core.trace.write(self._trace_file)
            self._trace_file = None
        return True

    async def call(self, operation: Callable[[EngineCore], Made]) -> Made:
        """The result of ``operation(core)``, run between two steps. Raises EngineDeadError, and what it raises."""
        if not self._open:
            raise EngineDeadError("the engine is not running") from self._error
        done: asyncio.Future[Made] = self._loop.create_future()
        self._calls.add(done)
        done.add_done_callback(self._calls.discard)

        def command() -> None:
            try:
                outcome = done.set_result, operation(self.core)
            except Exception as error:
                outcome = done.set_exception, error
            self._hop(_settle, done, *outcome)

        self._commands.put(command)
        return await done

    async def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | PoolingParams,
        request_id: str,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> AsyncIterator[RequestOutput]:
        """Cumulative outputs of one request; the last has ``finished`` True.

        A reader that falls far behind misses some of them, never the last. ``best_of`` has one output, the last.
        Raises :class:`RequestError` before anything is scheduled, :class:`EngineDeadError` when the engine is gone.
        Closing the generator early (or cancelling its task) aborts the request.
        """
        group = await self.prepare(prompt, params, priority=priority, cache_salt=cache_salt)
        async with contextlib.aclosing(self.stream(group, request_id)) as outputs:
            async for output in outputs:
                yield output

    async def prepare(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | PoolingParams,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> RequestGroup:
        """Check a request (tokenise, compile its constraint) off the event loop.

        priority, cache_salt: see :meth:`EngineCore.prepare`. Raises :class:`RequestError`, :class:`EngineBusyError`
        when too many constraints wait to be compiled.
        """
        constraint = params.structured_outputs if isinstance(params, SamplingParams) else None
        grammar = await self._grammar(constraint)  # noqa: F841 - held: the cache may be full
        return await asyncio.to_thread(self.core.prepare, prompt, params, priority=priority, cache_salt=cache_salt)

    async def _grammar(self, constraint: StructuredOutputsParams | None) -> Any:
        """The compiled constraint, from the one thread that compiles: slow ones make only each other wait."""
        if constraint is None:
            return None
        grammars = self.core.admission.grammars
        if (grammar := grammars.find(constraint)) is not None:
            return grammar
        if self._compiling >= MAX_COMPILING:
            raise EngineBusyError(f"{MAX_COMPILING} constraints wait to be compiled; try again in a moment")
        try:
            compiled = asyncio.get_running_loop().run_in_executor(self._compiler, grammars.get, constraint)
        except RuntimeError as error:  # the thread ended with the engine
            raise EngineDeadError("the engine is not running") from error
        self._compiling += 1
        try:
            return await compiled
        finally:
            self._compiling -= 1

    async def stream(
        self, group: RequestGroup, request_id: str, *, final_only: bool = False
    ) -> AsyncIterator[RequestOutput]:
        """Queue a prepared request and follow it; see :meth:`generate`. request_id is a label, unique or not.

        final_only: the last output alone, which spares the making of the others.
        """
        if not self._open:
            raise EngineDeadError("the engine is not running") from self._error
        mailbox = self._streams[group.rid] = _Mailbox()
        self._commands.put(lambda: self.core.add(request_id, group, final_only=final_only))
        finished = False
        try:
            while not finished:
                output = await mailbox.get()
                if isinstance(output, EngineDeadError):
                    raise output
                finished = output.finished
                yield output
        finally:
            del self._streams[group.rid]
            if not finished:
                self._commands.put(lambda: self._publish(self.core.abort([group.rid])))

    def _run(self) -> None:
        """The step thread: take what came in, compute one step, publish, again; sleep only when there is no work."""
        try:
            while self._take_commands():
                if self.core.has_work():
                    self._step_began = time.monotonic()
                    outputs = self.core.step()
                    self._step_began = None
                    self._publish(outputs)
        except BaseException as error:  # whatever it was, no stream may wait for ever
            self._error = error
            raise
        finally:
            self._hop(self._close_streams)

    def _take_commands(self) -> bool:
        """Run all queued commands, waiting for one when idle. False when the engine should end."""
        command = None
        if not self.core.has_work():
            command = self._commands.get()
            if command is None:
                return False
            command()
        while not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return False
            command()
        self._stats = self.core.stats()
        return True

    def _publish(self, outputs: list[RequestOutput]) -> None:
        self._stats = self.core.stats()
        if outputs:
            self._hop(self._deliver, outputs)

    def _hop(self, callback: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(callback, *args)

    def _deliver(self, outputs: list[RequestOutput]) -> None:
        for output in outputs:
            if (stream := self._streams.get(output.rid)) is not None:
                stream.put(output)

    def _close_streams(self) -> None:
        self._open = False
        for stream in self._streams.values():
            stream.put(EngineDeadError("the engine has stopped"))
        for call in list(self._calls):
            if not call.done():
                call.set_exception(EngineDeadError("the engine has stopped"))


def _settle(done: asyncio.Future[Any], set_outcome: Callable[[Any], None], outcome: object) -> None:
    if not done.done():
        set_outcome(outcome)
