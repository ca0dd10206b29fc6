"""Prefix caches that clients do not share: how long a first token takes must not tell what others have asked.

A client could otherwise find out token by token what is in the cache (CVE-2025-46570; Wu et al. 2025, "I Know What
You Asked").
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from minillm_serve.serve.caller import Caller


class CacheIsolation:
    """Gives every client a salt of its own, which no other can write into its ``cache_salt``."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)  # blocks do not outlive the process, so neither need the salts

    def salt(self, caller: Caller, asked: str | None) -> str:
        """What stands before every prefix of ``caller``; ``asked``: what the request itself says, within that."""
        own = hmac.new(self._secret, caller.client.encode(), hashlib.sha256).hexdigest()
        return own if asked is None else f"{own}:{asked}"
