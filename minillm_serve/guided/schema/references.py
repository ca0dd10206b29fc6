"""Where ``$ref`` and its relatives lead: JSON pointers, anchors, and resources embedded under an ``$id``.

Only what stands in the document itself is found; nothing is ever fetched. (JSON Schema 2020-12 core, sections 8 and 9.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.schema.document import malformed
from minillm_serve.guided.schema.keywords import shown

_SCHEMA = ("additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
           "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties")  # fmt: skip
_LIST = ("allOf", "anyOf", "oneOf", "items", "prefixItems")
_MAP = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")


@dataclass(eq=False)
class Resource:
    """A schema that is named by a URI of its own (the document's root has the URI "" unless it says otherwise)."""

    uri: str
    raw: Any
    path: str
    anchors: dict[str, tuple[Any, str]] = field(default_factory=dict)
    dynamic: dict[str, tuple[Any, str]] = field(default_factory=dict)
    recursive: bool = False


Scope = tuple[tuple[str, Resource], ...]  # where the dynamic anchors lead that several resources have


class References:
    """The names in one document, read when a reference first needs them.

    named: has a subschema below the root an ``$id`` or an anchor? If not, ``#/...`` needs no names.
    """

    def __init__(self, root: Any, draft: int, named: bool):
        self.draft = draft
        self.id_keyword = "id" if draft == 4 else "$id"
        self.root = Resource("", root, "")
        self._by_uri: dict[str, Resource] = {"": self.root}
        self._homes: dict[int, Resource] = {}  # id of a raw subschema -> the resource it belongs to
        self._named = named

    @cached_property
    def _ambiguous(self) -> frozenset[str]:
        """Dynamic anchors that several resources have: where they lead depends on the way taken."""
        if not self._named or self.draft < 2020:
            return frozenset()
        self._read()
        found = Counter(name for resource in self._resources() for name in resource.dynamic)
        return frozenset(name for name, number in found.items() if number > 1)

    def entered(self, scope: Scope, raw: dict) -> Scope:
        """The dynamic scope inside ``raw``, which is evaluated in ``scope``: the outermost of each ambiguous anchor."""
        if not self._ambiguous:
            return scope
        home = self._homes.get(id(raw), self.root)
        known = {name for name, _ in scope}
        return (*scope, *((name, home) for name in sorted(self._ambiguous & home.dynamic.keys() - known)))

    def _read(self) -> None:
        if not self._homes:
            self._walk(self.root.raw, "", self.root)

    def follow(self, raw: dict, keyword: str, path: str, scope: Scope = ()) -> tuple[Any, str]:
        """The raw subschema that ``raw[keyword]`` refers to in ``scope``, and its pointer. Raises SchemaError."""
        ref, here = raw[keyword], pointer(path, keyword)
        if not isinstance(ref, str):
            raise malformed(keyword, here, f"expected a string, got {shown(ref)}")
        if self._named or not (ref == "#" or ref.startswith("#/")):
            self._read()
        home = self._homes.get(id(raw)) or self._home_at(path)
        if keyword == "$recursiveRef":
            return self._recursive(ref, home, here)
        resource, fragment = self._resource(ref, home, keyword, here)
        name = unquote(fragment)
        if name and not name.startswith("/"):
            if keyword == "$dynamicRef" and name in resource.dynamic:
                return dict(scope).get(name, resource).dynamic[name]
            if name not in resource.anchors:
                raise malformed(keyword, here, f"{ref!r} leads nowhere: there is no anchor {name!r}")
            return resource.anchors[name]
        return self._point(resource, name, ref, keyword, here)

    def _home_at(self, path: str) -> Resource:
        """The resource of a subschema that was made from the one at ``path``."""
        around = [r for r in self._resources() if path == r.path or path.startswith(r.path + "/")]
        return max(around, key=lambda resource: len(resource.path))

    def _resource(self, ref: str, home: Resource, keyword: str, path: str) -> tuple[Resource, str]:
        if ref.startswith("#"):
            return home, ref[1:]
        uri, fragment = _split(home.uri, ref, keyword, path)
        if uri not in self._by_uri:
            raise SchemaError(keyword, path, f"{ref!r} points outside this document; only what stands in it is read")
        return self._by_uri[uri], fragment

    def _point(self, resource: Resource, target: str, ref: str, keyword: str, path: str) -> tuple[Any, str]:
        value, where, home = resource.raw, resource.path, resource
        for token in target.split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, (list, tuple)) and _is_index(key) and int(key) < len(value):
                value = value[int(key)]
            else:
                raise malformed(keyword, path, f"{ref!r} leads nowhere: there is no {key!r}")
            where = pointer(where, key)
            home = self._homes.get(id(value), home)
        if self._homes and isinstance(value, dict) and id(value) not in self._homes:
            self._walk(value, where, home)  # no place for a schema, and used as one all the same
        return value, where

    def _recursive(self, ref: str, home: Resource, path: str) -> tuple[Any, str]:
        if ref != "#":
            raise malformed("$recursiveRef", path, f"expected '#', got {shown(ref)}")
        found = [r for r in self._resources() if r.recursive]
        if not home.recursive or found == [home]:
            return home.raw, home.path
        if self.root in found:
            return self.root.raw, ""
        raise SchemaError("$recursiveRef", path, "several parts have a recursive anchor; only one can be told")

    def _resources(self) -> list[Resource]:
        return list(dict.fromkeys(self._by_uri.values()))

    def _walk(self, raw: Any, path: str, home: Resource) -> None:
        stack = [(raw, path, home)]
        while stack:
            raw, path, home = stack.pop()
            if not isinstance(raw, dict) or id(raw) in self._homes:
                continue
            spend(3, "$id", path)
            home = self._names_of(raw, path, home)
            self._homes[id(raw)] = home
            stack += [(child, pointer(path, *tokens), home) for tokens, child in subschemas(raw)]

    def _names_of(self, raw: dict, path: str, home: Resource) -> Resource:
        """Enter the names that ``raw`` gives itself; the resource that it belongs to."""
        alone = self.draft <= 7 and "$ref" in raw  # then nothing beside it counts
        name = None if alone else raw.get(self.id_keyword)
        if isinstance(name, str):
            uri, fragment = _split(home.uri, name, self.id_keyword, pointer(path, self.id_keyword))
            if self.draft <= 7 and name.startswith("#"):
                _enter(home.anchors, fragment, raw, path, self.id_keyword)
            elif raw is home.raw:
                home.uri = uri
                self._by_uri[uri] = home
            else:
                if uri in self._by_uri and self._by_uri[uri].raw is not raw:
                    here = pointer(path, self.id_keyword)
                    raise malformed(self.id_keyword, here, f"{uri!r} names two different subschemas")
                home = self._by_uri[uri] = Resource(uri, raw, path)
        elif name is not None and path:
            raise malformed(self.id_keyword, pointer(path, self.id_keyword), f"expected a string, got {shown(name)}")
        if self.draft >= 2019:
            self._anchors_of(raw, path, home)
        return home

    def _anchors_of(self, raw: dict, path: str, home: Resource) -> None:
        for keyword in ("$anchor", "$dynamicAnchor"):
            if keyword in raw:
                if not isinstance(raw[keyword], str):
                    raise malformed(keyword, pointer(path, keyword), f"expected a string, got {shown(raw[keyword])}")
                _enter(home.anchors, raw[keyword], raw, path, keyword)
        if "$dynamicAnchor" in raw and self.draft >= 2020:
            home.dynamic[raw["$dynamicAnchor"]] = raw, path
        if raw is home.raw and raw.get("$recursiveAnchor") is True and self.draft == 2019:
            home.recursive = True


def subschemas(raw: dict) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The subschemas that stand directly in ``raw``, with the reference tokens that lead to them."""
    for keyword, value in raw.items():
        if isinstance(value, dict):
            if keyword in _SCHEMA:
                yield (keyword,), value
            elif keyword in _MAP:
                yield from (((keyword, name), child) for name, child in value.items())
        elif isinstance(value, list) and keyword in _LIST:
            yield from (((keyword, i), child) for i, child in enumerate(value))


def _enter(names: dict[str, tuple[Any, str]], name: str, raw: Any, path: str, keyword: str) -> None:
    if name in names and names[name][0] is not raw:
        raise malformed(keyword, pointer(path, keyword), f"{name!r} names two different subschemas")
    names[name] = raw, path


def _split(base: str, ref: str, keyword: str, path: str) -> tuple[str, str]:
    """(absolute URI, fragment) of a reference."""
    try:
        uri, fragment = urldefrag(urljoin(base, ref) if base else ref)
    except ValueError as error:
        raise malformed(keyword, path, f"{ref!r} is no URI reference: {error}") from None
    return uri, fragment


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) < 10 and (key == "0" or key[0] != "0")
