"""What an error message must not tell a client: where things lie in memory and on disk, and how the code runs."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

HIDDEN = "…"
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}\b")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\).*", re.DOTALL)
_FRAME = re.compile(r'File "[^"\n]*"(, line \d+)?(, in \S+)?')
_ROOTS = (
    "Users|app|bin|boot|data|dev|etc|home|lib|lib64|media|mnt|opt|private|proc|root|run|sbin|srv|sys|tmp|usr|var|"
    "workspace"
)


def clean(text: str, limit: int) -> str:
    """At most ``limit`` characters of valid UTF-8, without memory addresses, file paths or parts of a traceback."""
    text = text[: 4 * limit].encode("utf-8", "replace").decode("utf-8")
    text = _FRAME.sub(HIDDEN, _TRACEBACK.sub(HIDDEN, text))
    text = _path().sub(HIDDEN, _ADDRESS.sub(f"0x{HIDDEN}", text))
    return text if len(text) <= limit else text[: limit - 1] + HIDDEN


@cache
def _path() -> re.Pattern[str]:
    """Absolute paths below the usual roots, below this process's own folders, and Windows' with a drive letter.

    Not every word with a slash before it: the paths of this API are to be read.
    """
    own = {str(folder) for folder in (Path.home(), Path.cwd(), Path(sys.prefix), Path(__file__).parents[3])} - {"/"}
    roots = [*map(re.escape, sorted(own, key=len, reverse=True)), f"/(?:{_ROOTS})(?=/)", r"\b[A-Za-z]:\\"]
    return re.compile(rf"(?<![\w/.])(?:{'|'.join(roots)})[^\s'\",;:()<>\[\]]*")
