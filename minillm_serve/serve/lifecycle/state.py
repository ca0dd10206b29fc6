"""Whether a server takes requests now, and if not, why: loading, draining, failed."""

from __future__ import annotations

import logging

from minillm_serve.serve.http.errors import ApiError
from minillm_serve.serve.lifecycle.slot import EngineSlot, still_loading

logger = logging.getLogger("minillm.serve")
DRAINING_RETRY_S = 1


class Lifecycle:
    """One server's life: ``loading``, ``ready``, ``draining``, or ``failed`` when the engine cannot be had any more.

    under_way: requests that were let in and are not answered to the end. lazy: the first of them starts the loading.
    hung: a step took longer than any may.
    """

    def __init__(self, slot: EngineSlot, lazy: bool = False):
        self.slot = slot
        self.lazy = lazy
        self.draining = False  # set once, by a signal handler: nothing else may be done there
        self.hung = False
        self.under_way = 0

    @property
    def failed(self) -> bool:
        """The model could not be loaded, or the step loop has died or hangs: only a new process helps."""
        return self.hung or self.slot.error is not None or (self.slot.loaded and self.slot.engine.errored)

    def check_step(self, timeout: float) -> None:
        """Give the engine up if its step has taken more than ``timeout`` seconds (0: never)."""
        if timeout and not self.hung and self.slot.loaded and self.slot.engine.step_seconds > timeout:
            logger.error("an engine step has not ended within %s s (--step-timeout): the engine is given up", timeout)
            self.hung = True
            self.slot.abort()

    @property
    def status(self) -> str:
        if self.failed:
            return "failed"
        if self.draining:
            return "draining"
        if self.slot.loaded:
            return "ready"
        return "loading" if self.slot.loading or not self.lazy else "not loaded"

    @property
    def reason(self) -> str | None:
        """Why it is not ready, in words fit for strangers; the log has the rest. None when it is."""
        if self.slot.error is not None:
            return "the model could not be loaded; the server's log says why"
        return {
            "failed": "the engine has failed; restart the server",
            "draining": "the server is shutting down",
            "loading": "the model is loading",
            "not loaded": "the model is loaded when the first request comes",
        }.get(self.status)

    def refusal(self) -> ApiError | None:
        """What a new request is answered instead of being let in; None lets it in."""
        if self.failed:
            return ApiError(503, self.reason or "")
        if self.draining:
            return ApiError(503, "the server is shutting down", headers={"Retry-After": str(DRAINING_RETRY_S)})
        if not self.slot.loaded and not self.lazy:
            return still_loading()
        return None
