"""The outputs of one engine request, with everybody who wants to know of them told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.engine.group import RequestGroup
from minillm_serve.request import FinishReason, RequestOutput
from minillm_serve.serve.caller import Caller
from minillm_serve.serve.http.errors import ApiError
from minillm_serve.serve.limits.queue import QueuePatience
from minillm_serve.serve.observer import Observer

ABORT = "abort"
ERROR = "error"


class Outputs(AsyncIterator[RequestOutput]):
    """Queues an admitted request when first read; closing it early aborts the request. Reading raises ApiError.

    The observers watch from the making of this object to its end, which comes exactly once: with the last output, an
    error, ``aclose()``, or the end of the HTTP request, also when nobody ever read it. final_only: the last output
    alone. patience: how long a request may wait until a step takes it up; None for ever.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        observers: Sequence[Observer],
        request: RequestGroup,
        label: str,
        caller: Caller,
        *,
        final_only: bool = False,
        patience: QueuePatience | None = None,
    ):
        self._request = request
        self._outputs = engine.stream(request, label, final_only=final_only)
        self._patience = patience
        self._begun = False
        self._watches = [observer.watch(caller, request) for observer in observers]
        caller.at_end(lambda: self._end(ABORT))

    async def __anext__(self) -> RequestOutput:
        try:
            output = await (anext(self._outputs) if self._begun else self._first())
            if any(completion.finish_reason == FinishReason.ERROR for completion in output.outputs):
                raise ApiError(500, "no token could follow within the constraint; the request was given up")
        except StopAsyncIteration:
            raise
        except Exception:
            self._end(ERROR)
            raise
        for watch in self._watches:
            watch.update(output)
        if output.finished:
            self._end(output.outputs[0].finish_reason or FinishReason.STOP)
        return output

    async def aclose(self) -> None:
        """End it now; the engine forgets an unfinished request."""
        try:
            await self._outputs.aclose()
        finally:
            self._end(ABORT)

    async def _first(self) -> RequestOutput:
        self._begun = True
        if self._patience is None:
            return await anext(self._outputs)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:

                def give_up_waiting() -> None:
                    if not self._scheduled:
                        limit.reschedule(loop.time())

                timer = loop.call_later(self._patience.seconds, give_up_waiting)
                try:
                    return await anext(self._outputs)
                finally:
                    timer.cancel()
        except TimeoutError:
            raise self._patience.refusal() from None

    @property
    def _scheduled(self) -> bool:
        return self._request.samples[0].request.metrics.first_scheduled is not None

    def _end(self, reason: str) -> None:
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.end(reason)
