"""``python -m minilab.comparar graba NOMBRE``: measure every system of a comparison that is here and keep the result.

Run it on a machine that does nothing else. ``lista`` shows the names.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import sys
import time
from pathlib import Path

from minilab.comparar import measure_part
from minilab.comparar.archivos import checkout, order_of, write
from minilab.comparar.catalogo import COMPARISONS
from minilab.comparar.tarea import Comparison, Row, Task, Unavailable, middle
from minillm_serve.bench.contention import BUSY_LIMIT, OtherPrograms
from minillm_serve.config import ConfigError
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model

PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37  # linux/prctl.h


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m minilab.comparar", description=(__doc__ or "").splitlines()[0])
    actions = parser.add_subparsers(dest="accion", required=True, metavar="ACCIÓN")
    actions.add_parser("lista", help="las comparaciones que hay, y cuáles se graban")
    record = actions.add_parser("graba", help="mide y escribe labs/medidas/NOMBRE.json")
    record.add_argument("nombre", choices=[n for n, c in COMPARISONS.items() if not c.stored], metavar="NOMBRE")
    record.add_argument("--modelo", default=DEFAULT_MODEL, help="nombre conocido o carpeta (%(default)s)")
    record.add_argument("--veces", type=int, default=3, help="tandas de todos los sistemas, por turnos (%(default)s)")
    record.add_argument("--rapido", action="store_true", help="pocas peticiones: un archivo provisional")
    record.add_argument("--raiz", type=Path, default=checkout(), help="el repositorio del curso")
    return parser


def main(argv: list[str] | None = None) -> int:
    options = arguments().parse_args(argv)
    if options.accion == "lista":
        for name, comparison in COMPARISONS.items():
            systems = ", ".join(part.system for part in comparison.parts)
            print(f"{name}\t{comparison.title}\t{'lo graba otra orden' if comparison.stored else systems}")
        return 0
    if options.veces < 1 or options.raiz is None:
        print("graba: --veces es al menos 1 y hace falta el repositorio (--raiz)", file=sys.stderr)
        return 2
    try:
        task = Task(Path(resolve_model(options.modelo)), options.rapido)
    except ConfigError as error:
        print(f"graba: {error}", file=sys.stderr)
        return 2
    rows, busy = record(COMPARISONS[options.nombre], task, options.veces)
    if not rows:
        print("graba: no se pudo medir ningún sistema", file=sys.stderr)
        return 1
    order = order_of(options.nombre, options.rapido, options.veces, options.modelo)
    path = write(options.raiz, options.nombre, rows, options.rapido, order, busy)
    print(f"escrito {path.relative_to(options.raiz)}: {len(rows)} filas")
    if (busy or 0) > BUSY_LIMIT:
        print(f"aviso: otros programas se llevaron el {busy:.0%} de la CPU; repite en un equipo que no haga nada más")
    return 0


def record(comparison: Comparison, task: Task, passes: int) -> tuple[list[Row], float | None]:
    """Rows of all systems that could be measured, in turns ``passes`` times; and how busy other programs were."""
    taken: dict[str, list[list[Row]]] = {part.system: [] for part in comparison.parts}
    absent: set[str] = set()
    with _OthersButOurs() as others:
        for turn in range(1, passes + 1):
            for part in comparison.parts:
                if part.system in absent:
                    continue
                start = time.monotonic()
                try:
                    taken[part.system].append(measure_part(part, task))
                except Unavailable as error:
                    absent.add(part.system)
                    print(f"{part.system}: se deja fuera: {error}")
                    continue
                print(f"{turn}/{passes} {part.system}: {time.monotonic() - start:.0f} s", flush=True)
    kept = {system: rows for system, rows in taken.items() if rows and system not in absent}
    share = None if others.share is None else round(others.share, 3)
    return [row for rows in kept.values() for row in middle(rows)], share


class _OthersButOurs(OtherPrograms):
    """The engines measured are children of this process: when one has ended, its time is among that of the waited.

    A server's own children may outlive it. This process takes them in (``PR_SET_CHILD_SUBREAPER``): theirs counts too.
    Afterwards it does so no more: whoever records from a longer process keeps its own orphans' fate.
    """

    def __enter__(self) -> OtherPrograms:
        self._at_start, self._adopted = _children(), ctypes.c_int(0)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(self._adopted), 0, 0, 0)
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        for pid in _children() - self._at_start:
            with contextlib.suppress(OSError):  # somebody waited for it
                os.waitpid(pid, os.WNOHANG)
        super().__exit__(*error)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, self._adopted.value, 0, 0, 0)

    def _process_ticks(self, pid: int) -> int:
        waited = os.times()
        ticks = round((waited.children_user + waited.children_system) * os.sysconf("SC_CLK_TCK"))
        return super()._process_ticks(pid) + ticks


def _children() -> set[int]:
    """Process ids of this process's children, ended ones too; none where the system does not tell."""
    files = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in files for pid in file.read_text(encoding="ascii").split()}


if __name__ == "__main__":
    sys.exit(main())
