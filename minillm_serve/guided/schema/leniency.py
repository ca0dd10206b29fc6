"""Lenient requests: what cannot be enforced is left out and noted, where other requests are refused."""

from __future__ import annotations

from typing import Any

from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.options import JsonOptions
from minillm_serve.guided.schema.document import malformed
from minillm_serve.guided.schema.keywords import read_flag, read_map

MAX_LEFT_OUT = 200
CONDITION = ("if", "then", "else")


def is_lenient(root: Any, options: JsonOptions | None) -> bool:
    """Does the request, or ``"x-minillm": {"lenient": true}`` in the schema's root, ask for leniency?"""
    ours = read_map(root, "x-minillm", "") if isinstance(root, dict) else {}
    for name in ours:
        if name != "lenient":
            raise malformed(name, pointer("", "x-minillm", name), "expected lenient; nothing else can be set here")
    return read_flag(ours, "lenient", "/x-minillm") or (options is not None and options.lenient)


class Leniency:
    """What is left out of one schema document so far; every keyword left out makes the schema accept more."""

    def __init__(self, root: Any):
        self.root = root
        self.notes: list[tuple[str, str, str]] = []
        self._paths: set[str] = set()

    def leave_out(self, error: SchemaError) -> bool:
        """Leave out the keyword to blame. False if the schema is wrong in itself, or no such keyword is found."""
        path = None if error.kind != "unsupported" else self._place(error)
        if path is None or path in self._paths or len(self._paths) >= MAX_LEFT_OUT:
            return False
        self._paths.add(path)
        self.notes.append((error.keyword, path, f"left out: {error.problem}"))
        return True

    def _place(self, error: SchemaError) -> str | None:
        """The pointer of the keyword: where the error says, right below that, or around it."""
        if self._holds(pointer(error.path, error.keyword)):
            return pointer(error.path, error.keyword)
        path = error.path
        while path:
            parent, _, last = path.rpartition("/")
            if last == pointer("", error.keyword)[1:] and self._holds(path):
                return path
            path = parent
        return None

    def _holds(self, path: str) -> bool:
        value = self.root
        for token in path.split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, (list, tuple)) and key.isascii() and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                return False
        return True

    def kept(self, raw: dict, path: str) -> dict:
        """``raw`` without what is left out, and without what would turn leaving out into refusing more.

        The one thing that the reader has to see to: ``oneOf`` with something left out :meth:`inside` is ``anyOf``.
        """
        if not self._paths:
            return raw
        kept = {key: value for key, value in raw.items() if pointer(path, key) not in self._paths}
        for keyword in ("not", "if"):
            if keyword in kept and self.inside(pointer(path, keyword)):
                kept = {key: value for key, value in kept.items() if key not in (keyword, *CONDITION)}
        if self.inside(path):  # what is left out evaluates nothing, so that more would be left over
            kept = {key: value for key, value in kept.items() if not key.startswith("unevaluated")}
        if self.inside(pointer(path, "contains")):
            kept.pop("maxContains", None)
        return kept

    def inside(self, path: str) -> bool:
        """Was something left out below ``path``?"""
        return any(place.startswith(path + "/") for place in self._paths)
