"""One engine of guided decoding judging schemas, each in a forked process of its own with a time and a memory limit.

Started as ``python …/workers/masks.py ENGINE`` by the interpreter of the engine's environment; standard library only,
besides the engine. Protocol, one JSON object a line. In: ``{"do": "load", "tokenizer": path of tokenizer.json,
"tokens": [hex text or null, one per id], "eos": [ids]}``, then any number of ``{"do": "judge", "schema": JSON text,
"instances": [[token ids], …], "seconds": s, "bytes": b}``. Out, one for each: ``{"ok": …}`` or ``{"error": "…"}``.

The answer to ``judge``: ``outcome`` is compiled, refused, internal (an error that is not the engine's documented
refusal), timeout, memory or crash; ``why``; ``compile_us``; and for each instance ``accepted``, ``mask_us`` and
``accept_us`` (one entry a token, and a last mask for the end of the text).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, Protocol, TextIO


class Refused(Exception):
    """The engine said, in its documented way, that it does not take this schema."""


class Matcher(Protocol):
    """One text's position; ``mask`` holds the words of the last ``fill``."""

    mask: Any

    def fill(self) -> None: ...
    def accept(self, token: int) -> bool: ...


class MaskEngine(Protocol):
    """A loaded engine. ``info``: version and settings. ``compile`` raises :class:`Refused`."""

    info: dict[str, Any]

    def compile(self, schema: str) -> Any: ...
    def matcher(self, compiled: Any) -> Matcher: ...


def judge(engine: MaskEngine, schema: str, instances: list[list[int]], eos: list[int]) -> dict[str, Any]:
    """Compile a schema and run every instance through its masks."""
    start = time.perf_counter_ns()
    try:
        compiled = engine.compile(schema)
        engine.matcher(compiled)
    except Refused as error:
        return {"outcome": "refused", "why": str(error)[:300]}
    except MemoryError:
        return {"outcome": "memory", "why": "while compiling"}
    except Exception as error:
        return {"outcome": "internal", "why": f"{type(error).__name__}: {error}"[:300]}
    spent = (time.perf_counter_ns() - start) / 1000
    try:
        found = [run(engine.matcher(compiled), tokens, eos) for tokens in instances]
    except MemoryError:
        return {"outcome": "memory", "why": "while filling masks"}
    except Exception as error:
        return {"outcome": "internal", "why": f"{type(error).__name__}: {error}"[:300]}
    return {"outcome": "compiled", "why": "", "compile_us": spent, "instances": found}


def run(matcher: Matcher, tokens: list[int], eos: list[int]) -> dict[str, Any]:
    """Feed one instance; it is accepted if every mask allows its next token and the last one the end."""
    mask_us, accept_us = [], []
    clock = time.perf_counter_ns
    for token in tokens:
        start = clock()
        matcher.fill()
        filled = clock()
        mask_us.append((filled - start) / 1000)
        if not allows(matcher.mask, token):
            return {"accepted": False, "at": len(mask_us) - 1, "mask_us": mask_us, "accept_us": accept_us}
        start = clock()
        taken = matcher.accept(token)
        accept_us.append((clock() - start) / 1000)
        if not taken:
            raise RuntimeError("the mask allows a token that the matcher does not accept")
    start = clock()
    matcher.fill()
    mask_us.append((clock() - start) / 1000)
    ended = any(allows(matcher.mask, token) for token in eos)
    return {"accepted": ended, "at": len(tokens), "mask_us": mask_us, "accept_us": accept_us}


def allows(mask: Any, token: int) -> bool:
    """Bit t % 32 of word t // 32."""
    return bool(int(mask[token >> 5]) >> (token & 31) & 1)


def in_own_process(engine: MaskEngine, command: dict[str, Any], eos: list[int]) -> dict[str, Any]:
    """:func:`judge` in a forked child that is killed after ``seconds`` and may take ``bytes`` more memory than this."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _limit_memory(command["bytes"])
        answer = json.dumps(judge(engine, command["schema"], command["instances"], eos)).encode()
        with os.fdopen(writer, "wb") as stream:
            stream.write(answer)
        os._exit(0)
    os.close(writer)
    answer, late = _read(reader, time.monotonic() + command["seconds"])
    if late:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if late:
        return {"outcome": "timeout", "why": f"more than {command['seconds']} s"}
    if status or not answer:
        return {"outcome": "crash", "why": f"wait status {status}"}
    return json.loads(answer)


def _read(reader: int, deadline: float) -> tuple[bytes, bool]:
    """(what the child wrote, whether it was too late)."""
    parts: list[bytes] = []
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([stream], [], [], left)[0]:
                break
            if not (part := stream.read(1 << 20)):
                return b"".join(parts), False
            parts.append(part)
    return b"", True


def _limit_memory(extra: int) -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def converse(name: str, lines: TextIO, answers: TextIO) -> None:
    """Answer every command line; the first must be ``load``."""
    engine: MaskEngine | None = None
    eos: list[int] = []
    for line in lines:
        command = json.loads(line)
        try:
            if command["do"] == "load":
                engine = load(name, command)
                eos = command["eos"]
                gc.collect()
                gc.freeze()  # the children share these pages; a collection in a child would copy them
                answer: dict[str, Any] = {"ok": engine.info}
            else:
                answer = {"ok": in_own_process(engine, command, eos)}  # type: ignore[arg-type]
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def load(name: str, command: dict[str, Any]) -> MaskEngine:
    """The engine ``name`` (see mask_engines.py), with the vocabulary of the command."""
    import mask_engines

    tokens = [None if text is None else bytes.fromhex(text) for text in command["tokens"]]
    return mask_engines.ENGINES[name](command["tokenizer"], tokens, command["eos"])


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        sys.modules.setdefault("masks", sys.modules["__main__"])
        # Whatever an engine prints must not reach the answers.
        answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        converse(sys.argv[1], sys.stdin, answers)
