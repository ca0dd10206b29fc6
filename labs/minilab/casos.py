"""A check is a list of cases; public and hidden checks share these types and this judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minilab.planos import equal
from minilab.servidor_simulado import Script


@dataclass(frozen=True)
class Reply:
    """What came back from one call: a plain value, or the name and message of the exception.

    groups: for client cases, the request bodies in the groups in which they reached the simulated server.
    """

    value: Any = None
    error: str | None = None
    message: str = ""
    groups: tuple[tuple[dict[str, Any], ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of the student's function. Exactly one of ``expected``, ``error`` or ``judge`` decides.

    name, hint: what the student reads, in Spanish; they must not give the answer away.
    error: name of the exception that must be raised.
    judge: receives the :class:`Reply`, returns None when it is right or one Spanish sentence.
    scripts: set for client cases: prompt -> script of the simulated server's answer; the function is then called
    as ``await f(client, *args, clock)``.
    """

    name: str
    args: tuple[Any, ...]
    hint: str
    expected: Any = None
    error: str | None = None
    judge: Callable[[Reply], str | None] | None = None
    scripts: dict[str, Script] | None = None


@dataclass(frozen=True)
class Check:
    """A check: the function it calls, the solution cells (grade ids) that define it, and its cases."""

    name: str
    function: str
    cells: tuple[str, ...]
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Result:
    name: str
    passed: bool
    expected: str = ""
    got: str = ""
    hint: str = ""


def shorten(value: Any, limit: int = 160) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def judge_case(case: Case, reply: Reply) -> Result:
    """Compare plain values in the caller's process; nothing of the student runs here."""
    expected = f"una excepción {case.error}" if case.error else shorten(case.expected)
    got = f"{reply.error}: {reply.message}" if reply.error else shorten(reply.value)
    if case.error:
        passed = reply.error == case.error
    elif reply.error:
        passed = False
        expected = "un resultado sin excepción" if case.judge else expected
    elif case.judge:
        complaint = case.judge(reply)
        passed = complaint is None
        expected = complaint or ""
    else:
        passed = equal(case.expected, reply.value)
    return Result(case.name, passed, expected, got, "" if passed else case.hint)


def respond_with(case: Case, groups: list) -> Callable[[list[dict[str, Any]]], list[Script]]:
    """The server side of a client case: looks each prompt up, and records the group in ``groups``."""

    def respond(bodies: list[dict[str, Any]]) -> list[Script]:
        groups.append(tuple(bodies))
        scripts = case.scripts or {}
        return [scripts.get(prompt_of(body), [{"t": 0.1, "uso": 0}]) for body in bodies]

    return respond


def prompt_of(body: dict[str, Any]) -> str:
    """The text of the last message of a chat request, or an empty string."""
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else {}
    content = last.get("content") if isinstance(last, dict) else None
    return content if isinstance(content, str) else ""
