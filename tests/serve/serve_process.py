"""``minillm serve`` as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

COMMAND = (sys.executable, "-m", "minillm_serve.cli", "serve")
posix = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")


@contextmanager
def serving(*arguments: str, command: tuple[str, ...] = COMMAND) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its base URL, read from its ready line."""
    flags = ["--port", "0", "--num-threads", "1", "--num-gpu-blocks-override", "128"]
    process = subprocess.Popen(
        [*command, *arguments, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        match = re.search(r"ready at (http://127\.0\.0\.1:\d+)/v1", line)
        assert match, line + process.stderr.read()
        yield process, match[1]
    finally:
        process.kill()
        process.communicate()
