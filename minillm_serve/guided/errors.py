"""The one way in which a schema is refused."""

from __future__ import annotations

from minillm_serve.params import RequestError

OTHER_FIELDS = ("regex", "choice", "grammar", "structural_tag", "json_object")  # constraints that are no JSON Schema


class SchemaError(RequestError):
    """The constraint cannot be honoured exactly, so it is not honoured at all.

    ``keyword`` is the JSON Schema keyword to blame and ``path`` the JSON pointer of where it stands ("" is the root).
    For other constraints it is the request's field, and the place in it (``line 3, column 7`` of a grammar).
    ``kind``: ``unsupported`` (what a lenient request leaves out), ``malformed`` or ``unsatisfiable``.
    """

    def __init__(self, keyword: str, path: str, problem: str, *, kind: str = "unsupported"):
        place = path if len(path) <= 120 else path[:60] + "..." + path[-57:]
        if keyword in OTHER_FIELDS:
            super().__init__(f"{keyword}{' at ' if place else ''}{place}: {problem}", f"structured_outputs.{keyword}")
        else:
            super().__init__(f"JSON Schema: {keyword!r} at {place or '(root)'!r}: {problem}", "structured_outputs.json")
        self.keyword = keyword
        self.path = path
        self.problem = problem
        self.kind = kind


def pointer(path: str, *tokens: str | int) -> str:
    """Append reference tokens to a JSON pointer (RFC 6901)."""
    for token in tokens:
        text = str(token)
        path += "/" + (text.replace("~", "~0").replace("/", "~1") if "~" in text or "/" in text else text)
    return path
