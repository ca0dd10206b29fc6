"""The student's objects in this very process, behind the interface that the grader uses on its isolated worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minilab.pruebas.casos import StudentError
from minilab.pruebas.planos import NotPlainValue, to_plain
from minilab.pruebas.tensores import with_tensors


class LocalRemote:
    """:class:`minilab.pruebas.casos.Remote` on a namespace; arguments are copied, as on the way to a worker."""

    def __init__(self, namespace: Mapping[str, Any]):
        self._namespace = namespace
        self._objects: list[Any] = []

    def new(self, cls: str, *args: Any) -> int:
        self._objects.append(_run(self._named(cls), args))
        return len(self._objects) - 1

    def call(self, handle: int, method: str, *args: Any) -> Any:
        return self.run(handle, [(method, args)])[0]

    def run(self, handle: int, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        return [_plain(_method(self._objects[handle], method), args) for method, args in calls]

    def function(self, name: str, *args: Any) -> Any:
        return _plain(self._named(name), args)

    def _named(self, name: str) -> Callable[..., Any]:
        if not callable(found := self._namespace.get(name)):
            raise StudentError("NameError", f"no existe {name}")
        return found


def namespace_of(student: Callable[..., Any]) -> dict[str, Any]:
    """The names that a student's function or class can see, and its own. A Triton kernel has its function in ``fn``."""
    members = (
        [student, *vars(student).values()] if isinstance(student, type) else [student, getattr(student, "fn", None)]
    )
    visible = next((m.__globals__ for m in members if hasattr(m, "__globals__")), {})
    return {**visible, getattr(student, "__name__", ""): student}


def _method(instance: Any, name: str) -> Callable[..., Any]:
    try:
        return getattr(instance, name)
    except Exception as error:
        raise StudentError(type(error).__name__, str(error)) from error


def _run(work: Callable[..., Any], args: Sequence[Any]) -> Any:
    copies = with_tensors(to_plain(list(args)))
    try:
        return work(*copies)
    except (Exception, SystemExit) as error:
        raise StudentError(type(error).__name__, str(error)) from error


def _plain(work: Callable[..., Any], args: Sequence[Any]) -> Any:
    value = _run(work, args)
    try:
        return to_plain(value)
    except NotPlainValue as error:
        raise StudentError("TypeError", str(error)) from error
