"""``comprobar("percentil")``: the public checks, in the student's notebook, with answers in Spanish."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minilab.asincrono import corre
from minilab.pruebas.aparte import OutOfProcess, run_apart
from minilab.pruebas.casos import Case, Check, Reply, Result, judge_case, missed, play_case, respond_with
from minilab.pruebas.planos import NotPlainValue, to_plain
from minilab.pruebas.publicas import CHECKS
from minilab.pruebas.remoto import LocalRemote, namespace_of
from minilab.pruebas.servidor_simulado import SimulatedServer
from minilab.pruebas.tensores import with_tensors

LIMIT_S = 60.0


class CheckFailed(Exception):
    """A public check that did not pass. IPython shows the message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass(frozen=True)
class CheckPassed:
    """What a check that passed shows."""

    message: str

    def __repr__(self) -> str:
        return self.message


def comprobar(name: str, function: Callable[..., Any] | None = None) -> CheckPassed:
    """Run the public cases of ``name`` on the notebook's function or class of the name that the check asks for.

    They run in a process of their own: what they change is gone, and what never ends is ended after 60 s. function:
    use this one instead. Raises :class:`CheckFailed` with what to fix.
    """
    if name not in CHECKS:
        raise CheckFailed(f"No existe la comprobación «{name}». Las que hay: {', '.join(CHECKS)}.")
    check = CHECKS[name]
    if function is None:
        function = _named(check, sys._getframe(1).f_globals)
    namespace = namespace_of(function)
    results: list[Result] = []
    try:
        for case in check.cases:
            results.append(run_apart(lambda case=case: _result(case, function, namespace), LIMIT_S))
    except OutOfProcess as error:
        stopped = check.cases[len(results)]
        results.append(Result(stopped.name, False, str(error), hint=stopped.hint))
        results += [missed(case) for case in check.cases[len(results) :]]
    if all(r.passed for r in results):
        return CheckPassed(f"✔ {name}: {len(results)} de {len(results)} comprobaciones públicas superadas.")
    raise CheckFailed(_report(check, results))


def _named(check: Check, names: Mapping[str, Any]) -> Callable[..., Any]:
    if callable(found := names.get(check.function)):
        return found
    raise CheckFailed(
        f"✘ {check.name}: no encuentro {check.function}. Ejecuta antes la celda que lo define, sin cambiarle el nombre."
    )


def _report(check: Check, results: list[Result]) -> str:
    if all("NotImplementedError" in r.got for r in results if not r.passed):
        missing = f"falta implementar {check.function} u otra parte de su celda"
        return f"✘ {check.name}: {missing}. Complétala y vuelve a ejecutarla."
    passed = sum(r.passed for r in results)
    lines = [f"✘ {check.name}: {passed} de {len(results)} comprobaciones públicas superadas."]
    for r in results:
        lines.append(f"  {'✔' if r.passed else '✘'} {r.name}" + (f" ({r.note})" if r.note else ""))
        if not r.passed:
            if r.got:
                lines += [f"      esperaba: {r.expected}", f"      obtuve:   {r.got}"]
            elif r.expected:
                lines.append(f"      ocurrió:  {r.expected}")
            else:
                lines.append("      ocurrió:  no se llegó a probar")
            lines.append(f"      pista:    {r.hint}")
    return "\n".join(lines)


def _result(case: Case, function: Callable[..., Any], namespace: Mapping[str, Any]) -> Result:
    if case.play is not None:
        return play_case(case, LocalRemote(namespace))
    return judge_case(case, _call(case, function))


def _call(case: Case, function: Callable[..., Any]) -> Reply:
    groups: list = []
    args = with_tensors(to_plain(list(case.args)))
    try:
        if case.scripts is None:
            value = function(*args)
        else:
            server = SimulatedServer(respond_with(case, groups))
            value = corre(server.drive(function(server.client, *args, server.clock)))
        return Reply(value=to_plain(value), groups=tuple(groups))
    except NotPlainValue as error:
        return Reply(error="TypeError", message=str(error))
    except (Exception, SystemExit) as error:
        return Reply(error=type(error).__name__, message=str(error))
