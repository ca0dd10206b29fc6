"""Plays that several checks share: functions of the notebook that are called for a result, or for a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minilab.pruebas.casos import Outcome, Remote, StudentError
from minilab.pruebas.planos import equal


def gives(name: str, *pairs: tuple[tuple[Any, ...], Any]) -> Callable[[Remote], Outcome]:
    """The function ``name`` of the notebook, which is not the one that the check is named after."""

    def play(remote: Remote) -> Outcome:
        for args, expected in pairs:
            if not equal(expected, got := remote.function(name, *args)):
                return Outcome(f"{name}{args} = {expected}; salió {got}")
        return Outcome()

    return play


def tells_apart(function: str, good: Sequence[Any], expected: Any, bad: Sequence[Any]) -> Callable[[Remote], Outcome]:
    """``expected`` for the arguments ``good``, ValueError for ``bad``."""

    def play(remote: Remote) -> Outcome:
        if not equal(expected, remote.function(function, *good)):
            return Outcome("con datos correctos el resultado no es el esperado")
        return refuses(remote, function, bad, "estos datos no se pueden medir", "")

    return play


def refuses(remote: Remote, function: str, args: Sequence[Any], reason: str, named: str) -> Outcome:
    """The call must raise ValueError, with ``named`` in its message."""
    try:
        remote.function(function, *args)
    except StudentError as error:
        if error.error != "ValueError":
            return Outcome(f"se esperaba ValueError y llegó {error.error}")
        return Outcome() if named in error.message else Outcome(f"el mensaje del error no nombra el campo {named}")
    return Outcome(f"se esperaba ValueError: {reason}")
