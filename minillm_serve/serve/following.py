"""The outputs of one engine request, with everybody who wants to know of them told."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.engine.group import RequestGroup
from minillm_serve.request import FinishReason, RequestOutput
from minillm_serve.serve.caller import Caller
from minillm_serve.serve.http.errors import ApiError
from minillm_serve.serve.observer import Observer

Outputs = AsyncGenerator[RequestOutput]


async def follow(
    engine: AsyncEngine,
    observers: Sequence[Observer],
    request: RequestGroup,
    label: str,
    caller: Caller,
    *,
    final_only: bool = False,
) -> Outputs:
    """Queue an admitted request when first read; closing it early aborts the request. Raises ApiError.

    final_only: the last output alone.
    """
    watches = [observer.watch(caller, request) for observer in observers]
    reason = "abort"
    try:
        async with aclosing(engine.stream(request, label, final_only=final_only)) as outputs:
            async for output in outputs:
                if any(completion.finish_reason == FinishReason.ERROR for completion in output.outputs):
                    raise ApiError(500, "no token could follow within the constraint; the request was given up")
                for watch in watches:
                    watch.update(output)
                if output.finished:
                    reason = output.outputs[0].finish_reason or FinishReason.STOP
                yield output
    except Exception:
        reason = "error"
        raise
    finally:
        for watch in watches:
            watch.end(reason)
