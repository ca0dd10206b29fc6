"""One line in the log for each HTTP request, and, if wanted, one for each prompt that enters the engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from starlette.types import Scope

from minillm_serve.engine.group import RequestGroup
from minillm_serve.request import RequestOutput
from minillm_serve.serve.caller import Account, Caller
from minillm_serve.serve.observe.http import caller_in
from minillm_serve.serve.observe.logs import FIELDS

access = logging.getLogger("minillm.access")
requests = logging.getLogger("minillm.requests")
MAX_PATH_CHARS = 200
MAX_PARAMS_CHARS = 2000


def log_access(scope: Scope, handler: str, status: int, seconds: float) -> None:
    """The line of a finished HTTP request. Prompts and keys are never in it. See Told."""
    if not access.isEnabledFor(logging.INFO):
        return
    path = scope["path"][:MAX_PATH_CHARS]
    told: dict[str, Any] = {"method": scope["method"], "path": path, "status": status, "duration_s": round(seconds, 6)}
    if (caller := caller_in(scope)) is not None:
        told |= {"request_id": caller.request_id, "client": caller.client, **_account(caller.account)}
        if (trace_id := caller.trace.trace_id if caller.trace else caller.account.trace_id) is not None:
            told["trace_id"] = trace_id
    access.info("request", extra={FIELDS: told})


def _account(account: Account) -> dict[str, Any]:
    if not account.endings:
        return {}
    return {
        "prompt_tokens": account.prompt_tokens,
        "completion_tokens": account.completion_tokens,
        "finish_reason": ",".join(sorted(account.endings)),
    }


class Accountant:
    """Observer that sums up what each HTTP request had the engine do."""

    def watch(self, caller: Caller, group: RequestGroup) -> _Entry:
        """See Observer."""
        return _Entry(caller.account, group)


class _Entry:
    def __init__(self, account: Account, group: RequestGroup):
        self._account = account
        self._group = group

    def update(self, output: RequestOutput) -> None:
        """See Watch."""

    def end(self, reason: str) -> None:
        """See Watch."""
        account = self._account
        account.prompt_tokens += len(self._group.prompt_token_ids)
        account.completion_tokens += sum(sample.num_tokens for sample in self._group.samples)
        account.endings.add(str(reason))


class RequestLog:
    """Observer for ``--enable-log-requests``: parameters at level info, the prompt at debug, as in vLLM.

    decode: token ids to text. max_log_len: so many characters and ids of a prompt are shown; None: all.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], max_log_len: int | None):
        self._decode = decode
        self._max_log_len = max_log_len

    def watch(self, caller: Caller, group: RequestGroup) -> _Logged:
        """See Observer."""
        ids = group.prompt_token_ids
        told = {"request_id": caller.request_id, "client": caller.client, "params": _described(group)}
        told["prompt_tokens"] = len(ids)
        if requests.isEnabledFor(logging.DEBUG):
            shown = ids[: self._max_log_len]
            told |= {"prompt": self._decode(shown)[: self._max_log_len], "prompt_token_ids": list(shown)}
        requests.info("received", extra={FIELDS: told})
        return _Logged(caller, group)


def _described(group: RequestGroup) -> str:
    """What was asked for, as far as it is not the default, at most MAX_PARAMS_CHARS of it."""
    params = group.pooling or group.params
    changed = [
        f"{field.name}={value!r}" for field in fields(params) if (value := getattr(params, field.name)) != field.default
    ]
    text = ", ".join(changed)
    return text if len(text) <= MAX_PARAMS_CHARS else f"{text[:MAX_PARAMS_CHARS]}…"


class _Logged:
    def __init__(self, caller: Caller, group: RequestGroup):
        self._caller = caller
        self._group = group

    def update(self, output: RequestOutput) -> None:
        """See Watch."""

    def end(self, reason: str) -> None:
        """See Watch."""
        tokens = [sample.num_tokens for sample in self._group.samples]
        told = {"request_id": self._caller.request_id, "finish_reason": str(reason), "completion_tokens": tokens}
        requests.info("finished", extra={FIELDS: told})
