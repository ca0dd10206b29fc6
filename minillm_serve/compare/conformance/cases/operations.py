"""What is not generation: models, version, health, prefix-cache usage, unknown paths and wrong methods."""

from __future__ import annotations

from minillm_serve.compare.conformance.case import KEY, Case
from minillm_serve.compare.conformance.cases.making import CHAT, COMPLETIONS, chat, completion, get

LONG = "Once upon a time there was a small engine that served many readers at once. " * 8


def cases() -> list[Case]:
    """GET requests, then pairs that read the prefix cache."""
    return [
        get("operations/models", "/v1/models"),
        get("operations/models-slash", "/v1/models/"),
        get("operations/model", "/v1/models/smollm2"),
        get("operations/model-unknown", "/v1/models/gpt-4"),
        get("operations/version", "/version"),
        get("operations/health", "/health"),
        get("operations/ping", "/ping"),
        Case("operations/ping-post", "/ping"),
        get("operations/unknown-route", "/v1/nothing"),
        Case("operations/unknown-route-post", "/v1/nothing", {}),
        get("operations/root", "/"),
        get("operations/get-chat", CHAT),
        get("operations/get-completions", COMPLETIONS),
        Case("operations/put-completions", COMPLETIONS, {}, method="PUT"),
        Case("operations/delete-model", "/v1/models/smollm2", method="DELETE"),
        Case("operations/post-models", "/v1/models", {}),
        Case("operations/post-health", "/health", {}),
        Case("operations/head-health", "/health", method="HEAD"),
        Case("operations/options-chat", CHAT, method="OPTIONS"),
        Case("operations/chat-with-slash", CHAT + "/", chat("a").body),
        get("operations/favicon", "/favicon.ico"),
        *_keys(),
        completion("cache/first", LONG, cache_salt="cache-cases", max_tokens=1),
        completion("cache/second", LONG, cache_salt="cache-cases", max_tokens=1, after="completions/cache/first"),
        completion("cache/other-salt", LONG, cache_salt="other", max_tokens=1, after="completions/cache/second"),
        completion("cache/longer", LONG + "It was", cache_salt="cache-cases", max_tokens=1,
                   after="completions/cache/other-salt"),
    ]  # fmt: skip


def _keys() -> list[Case]:
    """Who may ask what without a key, or with a wrong one."""
    wrong = {
        "no-key": "",
        "wrong-key": "Bearer something-else",
        "empty-key": "Bearer ",
        "other-scheme": f"Basic {KEY}",
        "scheme-in-small-letters": f"bearer {KEY}",
        "key-in-capitals": f"Bearer {KEY.upper()}",
        "longer-key": f"Bearer {KEY}x",
    }
    body = completion("a", max_tokens=1).body
    made = []
    for name, value in wrong.items():
        headers = (("Authorization", value),)
        made += [
            Case(f"keys/completions-{name}", COMPLETIONS, body, headers=headers),
            get(f"keys/models-{name}", "/v1/models", headers=headers),
        ]
    nobody = (("Authorization", ""),)
    return [
        *made,
        get("keys/health", "/health", headers=nobody),
        get("keys/version", "/version", headers=nobody),
        Case("keys/tokenize", "/tokenize", {"prompt": "a"}, headers=nobody),
        get("keys/unknown-route", "/v1/nothing", headers=nobody),
        Case("keys/wrong-method", CHAT, method="DELETE", headers=nobody),
        Case("keys/bad-json", COMPLETIONS, raw="{", headers=nobody),
        Case("keys/preflight", CHAT, method="OPTIONS", headers=nobody),
    ]
