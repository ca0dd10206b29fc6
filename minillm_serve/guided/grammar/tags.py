"""Structural tags: free text in which certain markers begin parts that are constrained.

Two notations are read, those of vLLM's ``structural_tag`` field. The older one::

    {"type": "structural_tag", "triggers": ["<f="],
     "structures": [{"begin": "<f=add>", "schema": {...}, "end": "</f>"}]}

and the newer one, ``{"type": "structural_tag", "format": FORMAT}``, where a format is an object with a ``type``:
``const_string`` (value), ``json_schema`` (json_schema), ``regex`` (pattern), ``grammar`` (grammar), ``any_text``
(excludes), ``sequence`` and ``or`` (elements), ``tag`` (begin, content, end), ``triggered_tags`` (triggers, tags,
at_least_one, stop_after_first) and ``tags_with_separator`` (tags, separator, the same two).

Free text ends where a trigger is complete for the first time; what follows must be the rest of a ``begin`` that starts
with that trigger.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.grammar.ebnf import ALL_BYTES
from minillm_serve.guided.grammar.expressions import NONE, Either, Embedded, Expression, Many, Series, nonempty
from minillm_serve.guided.grammar.free_text import FreeText, Tagged
from minillm_serve.guided.grammar.network import Network
from minillm_serve.guided.grammar.parts import MAX_DEPTH, Parts, series
from minillm_serve.guided.options import JsonOptions
from minillm_serve.guided.text.chars_reduce import ANYTHING
from minillm_serve.guided.text.regex import compile_tree
from minillm_serve.guided.text.regex_ast import Chars, Repeat

MAX_NESTING = 16  # formats inside formats
MAX_MARKER = 2_000  # characters of a begin, an end or a trigger
_CONTENTS = ("schema", "regex", "grammar", "content")
Notes = list[tuple[str, str, str]]


def build_tag_network(
    tag: dict[str, Any] | str, alphabet: frozenset[int] = ALL_BYTES, options: JsonOptions | None = None
) -> tuple[Network, Notes]:
    """The texts that a structural tag (an object or JSON text) allows, and notes on what in it asserts nothing.

    Raises :class:`SchemaError`: keyword ``structural_tag`` and the JSON pointer of what is wrong in the tag itself; the
    keyword to blame, and its pointer from the tag's root, for a schema in it.
    """
    if isinstance(tag, str):
        try:
            tag = json.loads(tag)
        except (ValueError, RecursionError) as error:
            raise SchemaError("structural_tag", "", f"it is not JSON: {error}", kind="malformed") from error
    reader = TagReader(Parts(Network(MAX_DEPTH), alphabet, options))
    expression = reader.read(tag)
    reader.parts.network.start = reader.parts.begin(expression, "structural_tag")
    return reader.parts.network, reader.parts.notes


class TagReader:
    """Structural tags -> expressions over the network of ``parts``."""

    def __init__(self, parts: Parts):
        self.parts = parts
        self.formats: dict[str, Callable[[dict, str, int], Expression]] = {
            "const_string": lambda raw, path, _: self.parts.text(self._string(raw, "value", path)),
            "json_schema": lambda raw, path, _: self._json_schema(raw, path),
            "regex": lambda raw, path, _: self.parts.regex(self._string(raw, "pattern", path), path + "/pattern"),
            "grammar": lambda raw, path, _: self.parts.grammar(self._string(raw, "grammar", path), path + "/grammar"),
            "any_text": lambda raw, path, _: self._any_text(raw, path),
            "sequence": lambda raw, path, depth: series(self._elements(raw, path, depth)),
            "or": lambda raw, path, depth: Either(tuple(self._elements(raw, path, depth))),
            "tag": lambda raw, path, depth: series([self._begin(raw, path), self._inside(raw, path, depth)]),
            "triggered_tags": self._triggered,
            "tags_with_separator": self._separated,
        }

    def read(self, tag: Any) -> Expression:
        """A whole structural tag, in either notation."""
        if not isinstance(tag, dict) or tag.get("type") != "structural_tag":
            self._fail("", 'expected an object with "type": "structural_tag"')
        if "format" in tag:
            return self.format(tag["format"], "/format", 0)
        if not isinstance(tag.get("structures"), list) or not tag["structures"]:
            self._fail("/structures", "expected a list of one or more structures (or a 'format' in their stead)")
        return self._tagged(tag["structures"], "/structures", tag, "", 0)

    def format(self, raw: Any, path: str, depth: int) -> Expression:
        spend(50, "structural_tag", path)
        if depth > MAX_NESTING:
            self._fail(path, f"more than {MAX_NESTING} formats inside each other", "unsupported")
        kind = raw.get("type") if isinstance(raw, dict) else None
        if not isinstance(kind, str) or kind not in self.formats:
            self._fail(path, f"expected an object whose type is one of {', '.join(self.formats)}", "unsupported")
        return self.formats[kind](raw, path, depth + 1)

    # -- single formats ----------------------------------------------------------------------------------------------

    def _json_schema(self, raw: dict, path: str) -> Expression:
        if raw.get("style", "json") != "json":
            self._fail(path + "/style", "only the style 'json' is supported", "unsupported")
        return self._schema(raw, "json_schema", path)

    def _schema(self, raw: dict, key: str, path: str) -> Expression:
        if not isinstance(raw.get(key), (dict, bool)):
            self._fail(pointer(path, key), "expected a JSON Schema: an object or a boolean")
        return self.parts.json(raw[key], pointer(path, key))

    def _any_text(self, raw: dict, path: str) -> Expression:
        excluded = self._strings(raw, "excludes", path) if raw.get("excludes") else []
        if excluded:
            return self._free(Tagged({}, excluded=tuple(excluded), allowed=self.parts.allowed))
        allowed = self.parts.allowed
        return nonempty(ANYTHING if allowed is None else compile_tree(Repeat(Chars(allowed), 0, None)))

    def _triggered(self, raw: dict, path: str, depth: int) -> Expression:
        if not isinstance(raw.get("tags"), list) or not raw["tags"]:
            self._fail(path + "/tags", "expected a list of one or more tags")
        return self._tagged(raw["tags"], path + "/tags", raw, path, depth)

    def _separated(self, raw: dict, path: str, depth: int) -> Expression:
        tags = raw.get("tags")
        if not isinstance(tags, list) or not tags:
            self._fail(path + "/tags", "expected a list of one or more tags")
        one = Either(tuple(self._whole_tag(tag, pointer(path, "tags", i), depth) for i, tag in enumerate(tags)))
        separator = self.parts.text(self._string(raw, "separator", path, empty=True))
        several = Series((one, Many(Series((separator, one)), 0, None)))
        found = one if self._flag(raw, "stop_after_first", path) else several
        return found if self._flag(raw, "at_least_one", path) else Either((NONE, found))

    def _elements(self, raw: dict, path: str, depth: int) -> list[Expression]:
        elements = raw.get("elements")
        if not isinstance(elements, list) or not elements:
            self._fail(path + "/elements", "expected a list of one or more formats")
        return [self.format(element, pointer(path, "elements", i), depth) for i, element in enumerate(elements)]

    # -- tags --------------------------------------------------------------------------------------------------------

    def _tagged(self, tags: list, path: str, raw: dict, raw_path: str, depth: int) -> Expression:
        """Free text with ``tags``, each where one of the triggers of ``raw`` is."""
        triggers = self._strings(raw, "triggers", raw_path)
        for i, trigger in enumerate(triggers):
            hidden = next((other for other in triggers if other != trigger and other in trigger[:-1]), None)
            if hidden is not None:
                self._fail(pointer(raw_path, "triggers", i), f"{trigger!r} is never complete before {hidden!r} is")
        parts: dict[str, list[Expression]] = {trigger: [] for trigger in triggers}
        for i, tag in enumerate(tags):
            here = pointer(path, i)
            begin = self._string(self._object(tag, here), "begin", here)
            found = [trigger for trigger in triggers if begin.startswith(trigger)]
            if not found:
                self._fail(here + "/begin", f"{begin!r} starts with none of the triggers")
            rest = self._inside(tag, here, depth)
            parts[found[0]].append(series([self.parts.text(begin[len(found[0]) :]), rest]))
        for i, trigger in enumerate(triggers):
            if not parts[trigger]:
                self._fail(pointer(raw_path, "triggers", i), f"nothing begins with the trigger {trigger!r}")
        choices = {trigger: found[0] if len(found) == 1 else Either(tuple(found)) for trigger, found in parts.items()}
        at_least_one, only_one = (self._flag(raw, key, raw_path) for key in ("at_least_one", "stop_after_first"))
        return self._free(Tagged(choices, at_least_one, only_one, allowed=self.parts.allowed))

    def _free(self, tagged: Tagged) -> Expression:
        place = FreeText(tagged, tagged.at_least_one)
        network = self.parts.network
        return Embedded(network.state(place), place.height(network), place.cost(network), "free text")

    def _whole_tag(self, raw: Any, path: str, depth: int) -> Expression:
        return series([self._begin(self._object(raw, path), path), self._inside(raw, path, depth)])

    def _begin(self, raw: dict, path: str) -> Expression:
        return self.parts.text(self._string(raw, "begin", path))

    def _inside(self, raw: dict, path: str, depth: int) -> Expression:
        """What follows the ``begin`` of a tag: its content and its end."""
        given = [key for key in _CONTENTS if key in raw]
        if len(given) != 1:
            self._fail(path, f"expected exactly one of {', '.join(_CONTENTS)}, got {', '.join(given) or 'none'}")
        many = isinstance(raw.get("end"), list)
        ends = self._strings(raw, "end", path, empty=True) if many else [self._string(raw, "end", path, empty=True)]
        content = raw[given[0]]
        if given[0] == "content" and isinstance(content, dict) and content.get("type") == "any_text" and all(ends):
            excluded = self._strings(content, "excludes", path + "/content") if content.get("excludes") else []
            tagged = Tagged(dict.fromkeys(ends, NONE), True, True, tuple(excluded), self.parts.allowed)
            return self._free(tagged)
        return series([self._content(raw, given[0], path, depth), self.parts.text(*ends)])

    def _content(self, raw: dict, key: str, path: str, depth: int) -> Expression:
        if key == "content":
            return self.format(raw[key], pointer(path, key), depth)
        if key == "schema":
            return self._schema(raw, key, path)
        make = self.parts.regex if key == "regex" else self.parts.grammar
        return make(self._string(raw, key, path), pointer(path, key))

    # -- checked values ----------------------------------------------------------------------------------------------

    def _fail(self, path: str, problem: str, kind: str = "malformed") -> NoReturn:
        raise SchemaError("structural_tag", path, problem, kind=kind)

    def _object(self, raw: Any, path: str) -> dict:
        if not isinstance(raw, dict):
            self._fail(path, f"expected an object, got {type(raw).__name__}")
        return raw

    def _string(self, raw: dict, key: str, path: str, empty: bool = False) -> str:
        return self._text(raw.get(key), pointer(path, key), empty)

    def _strings(self, raw: dict, key: str, path: str, empty: bool = False) -> list[str]:
        found = raw.get(key)
        if not isinstance(found, list) or not found:
            self._fail(pointer(path, key), "expected a list of one or more strings")
        return list(dict.fromkeys(self._text(text, pointer(path, key, i), empty) for i, text in enumerate(found)))

    def _text(self, value: Any, path: str, empty: bool) -> str:
        long = path.endswith(("/pattern", "/regex", "/grammar", "/value"))
        if not isinstance(value, str) or not (value or empty):
            self._fail(path, f"expected a string{'' if empty else ' that is not empty'}")
        if not long and len(value) > MAX_MARKER:
            self._fail(path, f"more than {MAX_MARKER} characters", "unsupported")
        if any(0xD800 <= ord(char) < 0xE000 for char in value):
            self._fail(path, "it holds a lone surrogate, which stands for no text")
        return value

    def _flag(self, raw: dict, key: str, path: str) -> bool:
        value = raw.get(key, False)
        if not isinstance(value, bool):
            self._fail(pointer(path, key), "expected true or false")
        return value
