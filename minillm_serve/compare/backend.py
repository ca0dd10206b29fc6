"""Engines to compare: what each is called, whether it can run here, and how to talk to its process.

One protocol for all (:mod:`.workers.worker`): load, run, reset. A backend that cannot run says why and what to do.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from minillm_serve.compare.environments import how_to_install, installed_version, python_of
from minillm_serve.config import ConfigError

WORKER = Path(__file__).parent / "workers" / "worker.py"
DTYPES = {"fp32": "float32", "float32": "float32", "bf16": "bfloat16", "bfloat16": "bfloat16", "int8": "int8"}
SHORT = {"float32": "fp32", "bfloat16": "bf16", "int8": "int8"}
LOG_TAIL = 1500


class BackendError(RuntimeError):
    """A backend could not be loaded, died, or answered with an error; says which and quotes it."""


@dataclass(frozen=True)
class Kind:
    """A way of running an engine. worker: the file that runs it. environment: its own, None for ours.

    package: what must be importable in our environment. dtypes: what it takes; the first is the default.
    one_by_one: prompts are answered one after another, so a sample of them is enough.
    """

    summary: str
    worker: str
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    environment: str | None = None
    package: str | None = None
    mode: str | None = None
    one_by_one: bool = False
    prefix_setting: str | None = None


KINDS = {
    "minillm": Kind(
        "this engine", "minillm", ("float32", "int8", "bfloat16"), prefix_setting="enable_prefix_caching"
    ),
    "transformers": Kind(
        "its pipeline, one prompt at a time", "transformers", package="transformers", mode="one", one_by_one=True
    ),
    "transformers-batch": Kind(
        "its pipeline, one padded batch", "transformers", package="transformers", mode="batch"
    ),
    "transformers-cb": Kind(
        "its continuous batching", "transformers", package="transformers", mode="continuous"
    ),
    "vllm": Kind("vLLM on the CPU, eager", "vllm", environment="vllm", prefix_setting="enable_prefix_caching"),
    "llamacpp": Kind(
        "llama.cpp on a GGUF, as many slots as requests", "llamacpp", ("gguf",), environment="llamacpp",
        prefix_setting="cache_prompt",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Backend:
    """A kind with its dtype and settings, as written ``minillm:int8``. ``label`` names it in results."""

    kind: str
    dtype: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""

    @property
    def spec(self) -> Kind:
        return KINDS[self.kind]

    @property
    def label(self) -> str:
        dtype = "" if self.dtype == "gguf" else f":{SHORT[self.dtype]}"
        return f"{self.kind}{dtype}" + (f" {self.variant}" if self.variant else "")

    def why_absent(self) -> str | None:
        """Why it cannot run on this machine, and what to do about it; None where it can."""
        environment, package = self.spec.environment, self.spec.package
        if environment is not None and installed_version(environment) is None:
            return f"not installed; install it once with: {how_to_install(environment)}"
        if package is not None and importlib.util.find_spec(package) is None:
            return f'the Python package {package} is not installed: pip install "minillm-serve[compare]"'
        return None

    def interpreter(self) -> str:
        return str(python_of(self.spec.environment)) if self.spec.environment else sys.executable


def parse_backend(text: str) -> Backend:
    """``NAME`` or ``NAME:DTYPE``. Raises :class:`ConfigError` on what does not exist."""
    name, _, dtype = text.strip().partition(":")
    if name not in KINDS:
        raise ConfigError(f"unknown backend {name!r}; known: {', '.join(KINDS)}")
    known = KINDS[name].dtypes
    if not dtype:
        return Backend(name, known[0])
    if DTYPES.get(dtype, dtype) not in known:
        raise ConfigError(f"{name} runs in {', '.join(SHORT.get(d, d) for d in known)}, not in {dtype!r}")
    return Backend(name, DTYPES.get(dtype, dtype))


def parse_backends(text: str) -> list[Backend]:
    """A comma-separated list, each backend once."""
    backends = [parse_backend(part) for part in text.split(",") if part.strip()]
    labels = [backend.label for backend in backends]
    if not backends or len(set(labels)) < len(labels):
        raise ConfigError(f"expected a list of different backends such as minillm:int8,vllm, got {text!r}")
    return backends


class WorkerProcess:
    """An engine in a process of its own; a context manager that ends it on every way out.

    ``pause`` stops the process where the system can (POSIX), so that an idle engine's spinning threads take no time
    from the one being measured; the next command wakes it. timeout_s: longest wait for one answer.
    """

    def __init__(self, label: str, command: list[str], timeout_s: float = 1800.0):
        self.label = label
        self._command = command
        self._timeout_s = timeout_s
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()

    @classmethod
    def of(cls, backend: Backend, timeout_s: float = 1800.0) -> WorkerProcess:
        return cls(backend.label, [backend.interpreter(), str(WORKER), backend.spec.worker], timeout_s)

    def __enter__(self) -> WorkerProcess:
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TRANSFORMERS_VERBOSITY": "error",
            "PYTHONUNBUFFERED": "1",
        }
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            env=environment,
            # A group of its own is paused and ended with whatever it started. Not a session of its own: a stopped
            # group is ended by the kernel when its parent dies only if both were in one session.
            **({"process_group": 0} if os.name == "posix" else {}),
        )
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._signal("SIGKILL")
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._log.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, **command: Any) -> dict[str, Any]:
        """Load the engine; returns ``info`` (version, settings) and ``peak_mb``. Raises :class:`BackendError`."""
        return self.ask({"do": "load", **command})

    def run(self, prompts: list[list[int]], max_tokens: int) -> dict[str, Any]:
        """Answer all prompts at once: ``seconds``, ``answers`` (count, token_ids, times) and ``peak_mb``.

        Raises :class:`BackendError`, also where an answer does not have exactly ``max_tokens`` tokens: a figure in
        tokens per second is only as good as its count.
        """
        result = self.ask({"do": "run", "prompts": prompts, "max_tokens": max_tokens})
        counts = [answer["count"] for answer in result["answers"]]
        if counts != [max_tokens] * len(prompts):
            wrong = sorted({count for count in counts if count != max_tokens})
            raise BackendError(
                f"{self.label} answered {len(counts)} of {len(prompts)} prompts, {max_tokens} tokens were asked for "
                f"each, it gave {', '.join(map(str, wrong)) or 'as many'}"
            )
        return result

    def reset(self) -> None:
        """Forget cached prefixes."""
        self.ask({"do": "reset"})

    def pause(self) -> None:
        self._signal("SIGSTOP")

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command of the worker's protocol, wait for what it answers. Raises :class:`BackendError`."""
        self._signal("SIGCONT")
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        try:
            line = self._replies.get(timeout=self._timeout_s)
        except queue.Empty:
            raise BackendError(f"{self.label} gave no answer within {self._timeout_s:.0f} s") from None
        if not line:
            raise BackendError(f"{self.label} ended with code {self._process.wait()}:\n{self._tail()}")
        reply = json.loads(line)
        if "error" in reply:
            raise BackendError(f"{self.label}: {reply['error']}")
        return reply["ok"]

    def _listen(self) -> None:
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put("")

    def _signal(self, name: str) -> None:
        if hasattr(os, "killpg") and self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, getattr(signal, name))

    def _tail(self) -> str:
        self._log.seek(0)
        return self._log.read()[-LOG_TAIL:].strip() or "(it wrote nothing)"
