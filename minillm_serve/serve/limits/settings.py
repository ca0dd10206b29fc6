"""What the server lets one client, or all of them together, take of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite

from minillm_serve.config import ConfigError
from minillm_serve.serve.limits.keys import ApiKey, KeyRing, read_key_file

ISOLATION = ("off", "key")
_WHOLE = (
    "requests_per_minute",
    "tokens_per_minute",
    "max_num_queued_reqs",
    "max_num_queued_tokens",
    "max_connections",
)
_SECONDS = ("queue_timeout", "request_timeout")
_POSITIVE_SECONDS = ("keep_alive_timeout", "header_timeout", "body_timeout", "write_timeout")


@dataclass(frozen=True)
class LimitSettings:
    """Raises :class:`ConfigError`. Every 0 means: no such limit; times are in seconds.

    Who. api_keys, api_key_file (see read_key_file): the clients; with neither, everybody. open_metrics: /metrics needs
    no key. isolate_cache: ``key`` keeps the cached prefixes of different keys apart. allowed_origins: whose web pages
    may call this server from a browser (CORS), a JSON list of origins as in vLLM, ``["*"]`` for all.

    How much. requests_per_minute, tokens_per_minute: of each client, where its key says nothing else.
    max_num_queued_reqs: sequences waiting and running; max_num_queued_tokens: prompt tokens of requests in prefill
    (both as in vLLM, which has no bound by default).

    How long. queue_timeout: until the first step of a request; request_timeout: until its answer is complete.
    header_timeout, body_timeout: until the client has sent them; write_timeout: without it taking anything of the
    answer; keep_alive_timeout: between requests. max_connections: at once, and never more than the open files allow.
    h11_max_incomplete_event_size: bytes of a request's line and headers; h11_max_header_count: headers (vLLM's names).
    """

    api_keys: tuple[ApiKey, ...] = field(default=(), repr=False)
    api_key_file: str | None = None
    open_metrics: bool = False
    isolate_cache: str = "off"
    allowed_origins: str = "[]"
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_num_queued_reqs: int = 2048
    max_num_queued_tokens: int = 0
    queue_timeout: float = 0.0
    request_timeout: float = 0.0
    keep_alive_timeout: float = 75.0
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    write_timeout: float = 60.0
    max_connections: int = 16384
    h11_max_incomplete_event_size: int = 64 * 2**10
    h11_max_header_count: int = 256

    def __post_init__(self) -> None:
        for name in _WHOLE:
            if getattr(self, name) < 0:
                raise _wrong(name, "0 or more", getattr(self, name))
        for name in _SECONDS:
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise _wrong(name, "0 or more seconds", getattr(self, name))
        for name in _POSITIVE_SECONDS:
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise _wrong(name, "more than 0 seconds", getattr(self, name))
        for name, least in (("h11_max_incomplete_event_size", 1024), ("h11_max_header_count", 16)):
            if getattr(self, name) < least:
                raise _wrong(name, f"at least {least}", getattr(self, name))
        if self.isolate_cache not in ISOLATION:
            raise _wrong("isolate_cache", f"one of {', '.join(ISOLATION)}", self.isolate_cache)
        _ = self.keys, self.origins

    @cached_property
    def keys(self) -> KeyRing:
        """Those named and those in the file, which is read once."""
        return KeyRing([*self.api_keys, *(read_key_file(self.api_key_file) if self.api_key_file is not None else ())])

    @property
    def origins(self) -> list[str]:
        """allowed_origins, read."""
        try:
            given = json.loads(self.allowed_origins)
        except ValueError:
            given = None
        if not isinstance(given, list) or not all(isinstance(origin, str) for origin in given):
            raise _wrong("allowed_origins", 'a JSON list of origins such as ["https://example.com"]', "something else")
        return given


def _wrong(name: str, expected: str, got: object) -> ConfigError:
    return ConfigError(f"--{name.replace('_', '-')} must be {expected}, got {got}")
