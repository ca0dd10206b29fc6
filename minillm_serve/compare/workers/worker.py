"""The child side of a comparison: load one engine, answer batches of prompts, measure, obey line by line.

Started as ``python …/workers/worker.py ENGINE`` by the interpreter of the engine's own environment, in which this
package need not be installed: the files of this folder import each other by plain name, and nothing else of ours
(``on_minillm`` excepted, whose engine is this package).

Protocol, one JSON object a line. In: ``{"do": "load", …}``, then any number of ``{"do": "run", "prompts": [[token ids],
…], "max_tokens": n}`` and ``{"do": "reset"}`` (forget cached prefixes); end of input ends the worker. Out, one for
each: ``{"ok": …}`` or ``{"error": "…"}``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO


@dataclass
class Answer:
    """What one prompt got. count: new tokens, by the engine's own account. token_ids: empty where it does not tell.

    times: when tokens arrived, in seconds after the batch was handed over (one entry per token, or per chunk).
    """

    count: int = 0
    token_ids: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


class Engine(Protocol):
    """An engine under test, loaded. ``info``: version and whatever a reader must know of its settings."""

    info: dict[str, Any]

    def answer(self, prompts: list[list[int]], max_tokens: int) -> list[Answer]:
        """Answer all prompts at once, greedily, exactly ``max_tokens`` tokens each (EOS ignored)."""
        ...

    def reset(self) -> None:
        """Forget what earlier prompts left in caches."""
        ...


def peak_mb() -> float | None:
    """The most memory this process has had resident, in MB (10^6 bytes); None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: its figure is inherited from the parent when a process starts another program.
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


def obey(engine: Engine, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out ``run`` or ``reset``. ``seconds``: from handing the batch over to its last token."""
    if command["do"] == "reset":
        engine.reset()
        return {}
    prompts, max_tokens = command["prompts"], command["max_tokens"]
    start = time.perf_counter()
    answers = engine.answer(prompts, max_tokens)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "answers": [asdict(answer) for answer in answers], "peak_mb": peak_mb()}


def converse(load: Any, lines: TextIO, answers: TextIO) -> None:
    """Answer every command line; the first must be ``load``. An engine's error is answered, never fatal here."""
    engine: Engine | None = None
    for line in lines:
        command = json.loads(line)
        try:
            if command["do"] == "load":
                engine = load(command)
                answer: dict[str, Any] = {"info": engine.info, "peak_mb": peak_mb()}
            elif engine is None:
                raise RuntimeError("nothing is loaded")
            else:
                answer = obey(engine, command)
            reply = {"ok": answer}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def main() -> None:
    """Serve the engine named on the command line. Whatever libraries print, C++ included, goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    module = importlib.import_module(f"on_{sys.argv[1]}")
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        converse(module.load, sys.stdin, answers)
    os._exit(0)  # at once: engines leave threads behind that would be waited for


if __name__ == "__main__":
    main()
