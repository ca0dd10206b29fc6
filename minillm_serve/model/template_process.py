"""Templates that come with requests are programs of strangers: each is rendered in a process of its own.

The process has little memory, no more time than the limits say, may write no file, and is killed when it is late;
whatever a template does there, the server's own threads do not wait for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from minillm_serve.config import ConfigError
from minillm_serve.model.chat_template import ChatTemplate, Conversation
from minillm_serve.model.template_bounds import Limits
from minillm_serve.params import RequestError

MEMORY_BYTES = 512 * 2**20  # of address space, the interpreter's own included
START_S = 5.0  # a busy machine may take so long to start an interpreter
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT")  # the others may hold secrets


def render_apart(
    source: str,
    special_tokens: Mapping[str, str | None],
    conversation: Conversation,
    end_mark: str,
    limits: Limits,
) -> str:
    """What ``ChatTemplate(source, special_tokens).render(...)`` gives. Raises :class:`RequestError`. Blocks."""
    task = json.dumps([source, dict(special_tokens), asdict(conversation), end_mark, asdict(limits)])
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "minillm_serve.model.template_process"],
            input=task.encode("ascii"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=START_S + limits.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RequestError("the chat template is stopped: it takes too long", "chat_template") from error
    if done.returncode != 0:
        raise RequestError("the chat template is stopped: it takes too much memory or time", "chat_template")
    text, problem, param = json.loads(done.stdout)
    if problem is not None:
        raise RequestError(problem, "chat_template" if param == "messages" else param)
    return text


def main() -> None:
    """Reads one task from standard input and writes ``[text, problem, param]``."""
    data = sys.stdin.buffer.read()
    source, special_tokens, given, end_mark, limits = json.loads(data)
    _confine(Limits(**limits))
    answer: list[Any]
    try:
        template = ChatTemplate(source, special_tokens)
        answer = [template.render(replace(Conversation([]), **given), end_mark, Limits(**limits)), None, None]
    except ConfigError as error:
        answer = [None, str(error), "chat_template"]
    except RequestError as error:
        answer = [None, str(error)[:1000], error.param]
    sys.stdout.write(json.dumps(answer))


def _confine(limits: Limits) -> None:
    """Bounds that hold whatever Python code runs. Elsewhere than on Unix there is only the parent's patience."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + limits.seconds) + 1
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    main()
