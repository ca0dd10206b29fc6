"""``minilab revisar entrega.ipynb`` says what grading will do to a notebook; ``minilab reparar`` puts it in order."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from minilab.entrega import (
    UNREADABLE,
    InvalidSubmission,
    best_release,
    read_submission,
    rebuild,
    released_notebooks,
    review_submission,
)


class CommandError(Exception):
    """What cannot be done and what to do instead, in Spanish."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (CommandError, InvalidSubmission) as error:
        print(f"minilab: {error}", file=sys.stderr)
    except OSError as error:
        print(f"minilab: no se puede usar {error.filename}: {error.strerror}", file=sys.stderr)
    return UNREADABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minilab", description="Revisa y repara tu cuaderno antes de entregarlo.")
    commands = parser.add_subparsers(dest="orden", required=True, metavar="ORDEN")
    review = commands.add_parser(
        "revisar",
        help="dice qué pasará con tu cuaderno al calificarlo",
        description="Sale con 0 si se puede entregar, 1 si algo te puede costar puntos y 2 si no se puede leer.",
    )
    review.set_defaults(command=_review)
    repair = commands.add_parser(
        "reparar",
        help="escribe un cuaderno en orden con tus respuestas",
        description="Copia tus respuestas en el cuaderno publicado. Las salidas se pierden: vuelve a ejecutarlo.",
    )
    repair.set_defaults(command=_repair)
    target = repair.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--salida", type=Path, metavar="ARCHIVO", help="dónde escribir el cuaderno reparado")
    target.add_argument("--en-sitio", action="store_true", help="lo escribe encima; el original queda en ARCHIVO.bak")
    for command in (review, repair):
        command.add_argument("cuaderno", type=Path, help="tu archivo .ipynb")
        command.add_argument("--tarea", help="por omisión se reconoce por el nombre o por el contenido")
    return parser


def _review(options: argparse.Namespace) -> int:
    data = options.cuaderno.read_bytes()
    try:
        released = _released(options, data)
    except InvalidSubmission as error:
        print(f"✘ {options.cuaderno.name}: no se puede leer.\n  {error}")
        return UNREADABLE
    report = review_submission(data, released, options.cuaderno.name)
    print(report)
    return report.code


def _repair(options: argparse.Namespace) -> int:
    data = options.cuaderno.read_bytes()
    rebuilt, notices = rebuild(read_submission(data), _released(options, data))
    target = options.cuaderno if options.en_sitio else options.salida
    if options.en_sitio:
        backup = options.cuaderno.with_name(f"{options.cuaderno.name}.bak")
        if backup.exists():
            raise CommandError(f"ya existe {backup}: muévelo antes, para no perder el original.")
        shutil.copy2(options.cuaderno, backup)
    elif target.exists():
        raise CommandError(f"ya existe {target}: elige otro nombre (o usa --en-sitio, que guarda una copia).")
    # Written beside and moved: a full disk never leaves half a notebook.
    draft = target.with_name(f"{target.name}.tmp")
    draft.write_text(nbformat.writes(rebuilt).rstrip("\n") + "\n", encoding="utf-8")
    os.replace(draft, target)
    for notice in notices:
        print(f"  · {notice.text}")
    print(f"✔ Escrito {target}. Ejecútalo entero antes de entregarlo.")
    return 0


def _released(options: argparse.Namespace, data: bytes) -> NotebookNode:
    known = released_notebooks()
    if not known:
        raise CommandError("no encuentro los cuadernos publicados (labs/cuadernos): usa la copia del curso.")
    assignment = options.tarea or best_release(options.cuaderno.name, read_submission(data))
    if assignment not in known:
        wrong = f"no existe la tarea «{assignment}»" if assignment else "no reconozco de qué tarea es este cuaderno"
        raise CommandError(f"{wrong}. Indícala con --tarea; las que hay: {', '.join(known)}.")
    return nbformat.read(known[assignment], as_version=4)


if __name__ == "__main__":
    sys.exit(main())
