"""Run one measurement in a fresh process of its own, so that nothing it loads disturbs the next one.

The protocol is JSON: the job on stdin, then, a line each, ``{"progress": …}`` and one ``{"result": …}`` on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

Progress = Callable[[str], None]


class ChildError(RuntimeError):
    """The measuring process ended without a result; the message carries the end of what it wrote."""


def run_child(module: str, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Run ``python -m module`` on ``job`` and return its result; ``progress`` gets its messages as they come."""
    env = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=env,
        )
        try:
            result = _converse(process, job, progress)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        if result is None:
            log.seek(0)
            tail = log.read()[-1500:].strip()
            raise ChildError(f"{module} ended with code {process.returncode} and no result:\n{tail}")
    return result


def _converse(process: subprocess.Popen[str], job: dict[str, Any], progress: Progress) -> dict[str, Any] | None:
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(job))
        process.stdin.close()
    result = None
    for line in process.stdout:
        message = json.loads(line)
        if "progress" in message:
            progress(message["progress"])
        result = message.get("result", result)
    process.wait()
    return result if process.returncode == 0 else None


def child_main(measure: Callable[[dict[str, Any], Progress], dict[str, Any]]) -> None:
    """Entry point of a child: read the job, measure, answer. Whatever libraries print goes to stderr."""
    job = json.loads(sys.stdin.read())
    answers = sys.stdout

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    with contextlib.redirect_stdout(sys.stderr):
        result = measure(job, lambda text: say({"progress": text}))
    say({"result": result})
