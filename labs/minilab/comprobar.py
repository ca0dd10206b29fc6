"""``comprobar("percentil", percentil)``: the public checks, in the student's notebook, with answers in Spanish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minilab.asincrono import corre
from minilab.pruebas.casos import Case, Check, Reply, Result, judge_case, play_case, respond_with
from minilab.pruebas.planos import NotPlainValue, to_plain
from minilab.pruebas.publicas import CHECKS
from minilab.pruebas.remoto import LocalRemote, namespace_of
from minilab.pruebas.servidor_simulado import SimulatedServer


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


def comprobar(name: str, function: Callable[..., Any]) -> CheckPassed:
    """Run the public cases of ``name`` on ``function``, or on a class. Raises :class:`CheckFailed` with what to fix."""
    if name not in CHECKS:
        raise CheckFailed(f"No existe la comprobación «{name}». Las que hay: {', '.join(CHECKS)}.")
    check = CHECKS[name]
    results = [_result(case, function) for case in check.cases]
    if all(r.passed for r in results):
        return CheckPassed(f"✔ {name}: {len(results)} de {len(results)} comprobaciones públicas superadas.")
    raise CheckFailed(_report(check, results))


def _report(check: Check, results: list[Result]) -> str:
    if all("NotImplementedError" in r.got for r in results if not r.passed):
        return f"✘ {check.name}: falta implementar {check.function}. Completa la celda y vuelve a ejecutarla."
    passed = sum(r.passed for r in results)
    lines = [f"✘ {check.name}: {passed} de {len(results)} comprobaciones públicas superadas."]
    for r in results:
        lines.append(f"  {'✔' if r.passed else '✘'} {r.name}" + (f" ({r.note})" if r.note else ""))
        if not r.passed:
            if r.got:
                lines += [f"      esperaba: {r.expected}", f"      obtuve:   {r.got}"]
            else:
                lines.append(f"      ocurrió:  {r.expected}")
            lines.append(f"      pista:    {r.hint}")
    return "\n".join(lines)


def _result(case: Case, function: Callable[..., Any]) -> Result:
    if case.play is not None:
        return play_case(case, LocalRemote(namespace_of(function)))
    return judge_case(case, _call(case, function))


def _call(case: Case, function: Callable[..., Any]) -> Reply:
    groups: list = []
    try:
        if case.scripts is None:
            value = function(*case.args)
        else:
            server = SimulatedServer(respond_with(case, groups))
            value = corre(server.drive(function(server.client, *case.args, server.clock)))
        return Reply(value=to_plain(value), groups=tuple(groups))
    except NotPlainValue as error:
        return Reply(error="TypeError", message=str(error))
    except (Exception, SystemExit) as error:
        return Reply(error=type(error).__name__, message=str(error))
