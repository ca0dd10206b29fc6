"""The server under load: started for one scenario, watched from outside through /metrics and /proc."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from minillm_serve.bench.load.wire import Address, Answer, once
from minillm_serve.bench.random_model import build_random_model
from minillm_serve.bench.server_process import ServerProcess
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model

RANDOM = "random"
SERVED_NAME = "load"
_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")


@dataclass(frozen=True)
class Target:
    """A running server. process: what can be told to end, or is looked at in /proc."""

    address: Address
    process: ServerProcess

    async def page(self) -> Page:
        """Its metrics now."""
        return Page((await once(self.address, "GET", "/metrics")).body.decode())

    async def complete(self, **fields: Any) -> Answer:
        """A small greedy completion over a connection of its own."""
        return await once(self.address, "POST", "/v1/completions", completion(**fields))

    async def until_idle(self, seconds: float) -> float:
        """Seconds until nothing runs, nothing waits and every KV block is free; inf if it takes longer than told."""
        started = time.perf_counter()
        while not (await self.page()).idle:
            if time.perf_counter() - started > seconds:
                return float("inf")
            await asyncio.sleep(0.02)
        return time.perf_counter() - started

    def resident_mb(self) -> float:
        """Resident memory of the server process, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def open_files(self) -> int:
        """Its open file descriptors, sockets included."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class Page:
    """One reading of /metrics."""

    def __init__(self, text: str):
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples; ``name`` without prefix, with its suffix. 0 where it has none."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name.rpartition(":")[2] == name and labels.items() <= sample.labels.items()
        )

    @property
    def idle(self) -> bool:
        return not any(self.value(name) for name in _GAUGES)


def completion(**fields: Any) -> dict[str, Any]:
    """The body of a greedy completion."""
    return {"model": SERVED_NAME, "prompt": "Once upon a time", "max_tokens": 5, "temperature": 0} | fields


@contextmanager
def serving(model: str, flags: Sequence[str]) -> Iterator[Target]:
    """A server of ``model`` with ``flags``. ``random`` is one layer of random weights behind the real tokenizer."""
    with tempfile.TemporaryDirectory(prefix="minillm-load-") as folder:
        path = Path(folder)
        served = str(build_random_model(resolve_model(DEFAULT_MODEL), path / "model")) if model == RANDOM else model
        with ServerProcess([served, "--served-model-name", SERVED_NAME, *flags], path / "server.log") as process:
            yield Target(Address("127.0.0.1", process.port), process)
