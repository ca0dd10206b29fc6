"""API keys: several, each with a name and perhaps quotas of its own, known to the server only as SHA-256 digests.

The digest is enough for keys that were drawn at random, as they should be: there is no dictionary to try.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minillm_serve.config import ConfigError

ENVIRONMENT = ("MINILLM_API_KEY", "VLLM_API_KEY")
QUOTAS = ("requests_per_minute", "tokens_per_minute")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def digest_of(key: bytes) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key).digest()


@dataclass(frozen=True)
class ApiKey:
    """One client. name: in logs and metrics. requests_per_minute, tokens_per_minute: None for the server's default."""

    name: str
    digest: bytes = field(repr=False)
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @classmethod
    def from_text(cls, key: str) -> ApiKey:
        """A key as given on the command line, named after its digest. Raises ConfigError, which does not show it."""
        if not key.strip():
            raise ConfigError("an API key must not be empty")
        digest = digest_of(key.encode())
        return cls(f"key-{digest.hex()[:8]}", digest)


class KeyRing:
    """All keys of a server. Raises ConfigError for two of the same name or the same key."""

    def __init__(self, keys: Iterable[ApiKey] = ()):
        self.keys = tuple(keys)
        for what, given in (("key", [k.digest for k in self.keys]), ("name", [k.name for k in self.keys])):
            if len(set(given)) < len(given):
                raise ConfigError(f"two API keys have the same {what}")

    def __bool__(self) -> bool:
        return bool(self.keys)

    def find(self, presented: bytes) -> ApiKey | None:
        """The key that was presented. Takes as long whichever it is, and as long for none (CVE-2025-59425)."""
        digest = digest_of(presented)
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def presented_key(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """What ``Authorization: Bearer`` or ``X-Api-Key`` say; None for neither, and for several that contradict."""
    given: set[bytes] = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            given.add(token.strip() if scheme.lower() == b"bearer" else b"")
        elif name == b"x-api-key":
            given.add(value.strip())
    return given.pop() or None if len(given) == 1 else None


def keys_from_environment(environment: Mapping[str, str] = os.environ) -> tuple[ApiKey, ...]:
    """The key in ``MINILLM_API_KEY`` or ``VLLM_API_KEY``, for a server whose command line names none."""
    given = next((environment[name] for name in ENVIRONMENT if environment.get(name)), None)
    return () if given is None else (ApiKey.from_text(given),)


def read_key_file(path: str | Path) -> tuple[ApiKey, ...]:
    """The keys in a file. Raises ConfigError with the entry's number, never with its content.

    JSON: a list of objects with ``name``, ``sha256`` (of the key, in hex) or ``key``, and perhaps the quotas
    ``requests_per_minute`` and ``tokens_per_minute``. Anything else: a line for each, ``name sha256 [quota=number]``
    or ``name key=...``; ``#`` begins a comment.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file {path} cannot be read: {type(error).__name__}") from error
    entries = _json_entries(text) if text.lstrip().startswith(("[", "{")) else _line_entries(text)
    if not entries:
        raise ConfigError(f"--api-key-file {path} holds no key")
    return tuple(_key(entry, number) for number, entry in entries)


def _json_entries(text: str) -> list[tuple[int, Any]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError("--api-key-file is not valid JSON") from error
    if not isinstance(content, list):
        raise ConfigError("--api-key-file must hold a JSON list of objects")
    return list(enumerate(content, start=1))


def _line_entries(text: str) -> list[tuple[int, Any]]:
    entries: list[tuple[int, Any]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if words:
            fields = dict(word.split("=", 1) if "=" in word else ("sha256", word) for word in words[1:])
            entries.append((number, {"name": words[0], **fields}))
    return entries


def _key(entry: Any, number: int) -> ApiKey:
    def wrong(what: str) -> ConfigError:
        return ConfigError(f"--api-key-file, entry {number}: {what}")

    if not isinstance(entry, dict) or not entry.keys() <= {"name", "sha256", "key", *QUOTAS}:
        raise wrong(f"expected name, sha256 or key, and perhaps {' and '.join(QUOTAS)}")
    name, digest, key = entry.get("name"), entry.get("sha256"), entry.get("key")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise wrong("name must be 1 to 64 letters, digits, dots, dashes or underscores")
    if (digest is None) == (key is None):
        raise wrong("expected one of sha256 and key")
    if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise wrong("sha256 must be 64 hexadecimal digits")
    if key is not None and not (isinstance(key, str) and key.strip()):
        raise wrong("key must be a non-empty string")
    quotas = {}
    for quota in QUOTAS:
        value = str(entry.get(quota, ""))
        if value and not (value.isascii() and value.isdigit()):
            raise wrong(f"{quota} must be a whole number, 0 for no limit")
        quotas[quota] = int(value) if value else None
    return ApiKey(name, bytes.fromhex(digest) if digest is not None else digest_of(key.encode()), **quotas)
