"""The one way in which a schema is refused."""

from __future__ import annotations

from minillm_serve.params import RequestError


class SchemaError(RequestError):
    """The schema cannot be honoured exactly, so it is not honoured at all.

    ``keyword`` is the JSON Schema keyword to blame and ``path`` the JSON pointer of where it stands ("" is the root).
    """

    def __init__(self, keyword: str, path: str, problem: str):
        place = path if len(path) <= 120 else path[:60] + "..." + path[-57:]
        super().__init__(f"JSON Schema: {keyword!r} at {place or '(root)'!r}: {problem}", "structured_outputs.json")
        self.keyword = keyword
        self.path = path


def pointer(path: str, *tokens: str | int) -> str:
    """Append reference tokens to a JSON pointer (RFC 6901)."""
    return path + "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in tokens)
