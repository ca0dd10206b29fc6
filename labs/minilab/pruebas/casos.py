"""A check is a list of cases; public and hidden checks share these types and this judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from minilab.pruebas.planos import equal
from minilab.pruebas.servidor_simulado import Script


@dataclass(frozen=True)
class Reply:
    """What came back from one call: a plain value, or the name and message of the exception.

    groups: for client cases, the request bodies in the groups in which they reached the simulated server.
    """

    value: Any = None
    error: str | None = None
    message: str = ""
    groups: tuple[tuple[dict[str, Any], ...], ...] = ()


class StudentError(Exception):
    """The student's code raised: ``error`` is the exception's name, ``message`` its text."""

    def __init__(self, error: str, message: str = ""):
        super().__init__(f"{error}: {message}")
        self.error, self.message = error, message


class Remote(Protocol):
    """The student's namespace, from where it is judged: plain values go in, plain values come back.

    Each method raises :class:`StudentError` for an exception of the student's code.
    """

    def new(self, cls: str, *args: Any) -> int:
        """Make an instance of the student's class; returns its handle."""

    def call(self, handle: int, method: str, *args: Any) -> Any:
        """One method of an instance."""

    def run(self, handle: int, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Several methods of an instance, in order, in one trip; one value each."""

    def function(self, name: str, *args: Any) -> Any:
        """One of the student's functions."""


@dataclass(frozen=True)
class Outcome:
    """What a play found. complaint: None when all is right, else one Spanish sentence.

    note: a figure that the student may see, such as the ratio reached. credit: in [0, 1], the part of the case that
    a complaint leaves; without a complaint the whole case counts.
    """

    complaint: str | None = None
    note: str = ""
    credit: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of the student's function. Exactly one of ``expected``, ``error``, ``judge`` or ``play`` decides.

    name, hint: what the student reads, in Spanish; they must not give the answer away.
    error: name of the exception that must be raised.
    judge: receives the :class:`Reply`, returns None when it is right or one Spanish sentence.
    play: drives a whole exchange with the student's objects from the trusted side.
    scripts: set for client cases: prompt -> script of the simulated server's answer; the function is then called
    as ``await f(client, *args, clock)``.
    weight: its share of the check, relative to the other cases.
    """

    name: str
    args: tuple[Any, ...]
    hint: str
    expected: Any = None
    error: str | None = None
    judge: Callable[[Reply], str | None] | None = None
    play: Callable[[Remote], Outcome] | None = None
    weight: float = 1.0
    scripts: dict[str, Script] | None = None


@dataclass(frozen=True)
class Check:
    """A check: the function it calls, the solution cells (grade ids) that define it, and its cases.

    level: empty for an ordinary check; ``reloj_real`` or ``vllm`` for one that a meter measures outside (its cases
    are then judged by that meter).
    """

    name: str
    function: str
    cells: tuple[str, ...]
    cases: tuple[Case, ...]
    level: str = ""


@dataclass(frozen=True)
class Result:
    """The verdict on one case. credit: in [0, 1], 1 exactly where it passed; note: a figure the student may see."""

    name: str
    passed: bool
    expected: str = ""
    got: str = ""
    hint: str = ""
    note: str = ""
    credit: float = 0.0
    weight: float = 1.0


def shorten(value: Any, limit: int = 160) -> str:
    text = "None" if value is None else json.dumps(value, ensure_ascii=False, default=repr)
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
    if not (passed or reply.error or case.error) and reply.value is None:
        got = "None (¿falta un return?)"
    return Result(
        case.name,
        passed,
        expected,
        got,
        "" if passed else case.hint,
        credit=float(passed),
        weight=case.weight,
    )


def play_case(case: Case, remote: Remote) -> Result:
    """Play a case; an exception of the student's code fails it, anything else is the caller's to handle."""
    assert case.play is not None
    try:
        outcome = case.play(remote)
    except StudentError as error:
        got = f"{error.error}: {error.message}" if error.message else error.error
        return Result(case.name, False, "un resultado sin excepción", got, case.hint, weight=case.weight)
    if outcome.complaint is None:
        return Result(case.name, True, note=outcome.note, credit=1.0, weight=case.weight)
    credit = min(max(outcome.credit, 0.0), 1.0)
    return Result(case.name, False, outcome.complaint, "", case.hint, outcome.note, credit, case.weight)


def missed(case: Case) -> Result:
    """A case that was never reached."""
    return Result(case.name, False, hint=case.hint, weight=case.weight)


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
