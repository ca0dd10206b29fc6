"""What each command of ``minilab-grading`` does, in Spanish, and its exit code: 0 well, 1 look at it, 2 not done."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat

from minilab import construir
from minilab_grading import entregas, exportar, similitud
from minilab_grading.arnes.calificar import Meter
from minilab_grading.arnes.celdas import sources_of
from minilab_grading.ciclo import Course
from minilab_grading.curso import CycleError
from minilab_grading.curso.calificacion import Options, Summary
from minilab_grading.curso.carpeta import FILE, ROSTER, create, write_atomic
from minilab_grading.medidores import MeterError, close_meters, meters
from minilab_grading.registro import FILE as RECORD
from minilab_grading.registro import make_secret
from minilab_grading.registro.recalificar import regrade
from minilab_grading.registro.verificar import verify

WELL, LOOK = 0, 1


def nuevo(root: Path, options: argparse.Namespace) -> int:
    written = create(root)
    make_secret(root)
    print(
        f"curso: {root.resolve()}" + (f" ({', '.join(written)})" if written else " (ya existía; no se ha tocado nada)")
    )
    print(f"Ahora: revisa {FILE}, rellena {ROSTER} y publica con «minilab-grading generar TAREA --curso {root}».")
    return WELL


def generar(root: Path, options: argparse.Namespace) -> int:
    print(f"publicado: {Course(root).generate(options.tarea)}")
    package = root / "release" / f"{options.tarea}.zip"
    write_atomic(package, entregas.release_zip(root, options.tarea))
    print(f"para repartir: {package}")
    return WELL


def recibir(root: Path, options: argparse.Namespace) -> int:
    """Keep every entry: attempts by student, the rest in ``.rechazadas/`` with its reason on the screen."""
    course, roster = Course(root), entregas.Roster.read(root / ROSTER)
    received = entregas.receive(options.entregas, options.tarea, roster, options.horas)
    good = [r for r in received if not r.problem]
    new = [r for r in good if course.add(options.tarea, r.student, r.notebook, r.when, r.origin)]
    refused = [r for r in received if r.problem]
    print(f"recibidas: {len(good)} entregas de {len({r.student for r in good})} personas; nuevas: {len(new)}")
    for r in refused:
        if r.notebook:
            name = f"{hashlib.sha256(r.notebook).hexdigest()[:16]}.ipynb"
            write_atomic(root / "intentos" / options.tarea / ".rechazadas" / name, r.notebook)
        print(f"  sin recibir: {r.origin}: {r.problem}")
    if not good:
        raise CycleError(f"No hay entregas en {options.entregas}: se esperaba un archivo alumno.ipynb por persona.")
    return LOOK if refused else WELL


def calificar(root: Path, options: argparse.Namespace) -> int:
    if options.ejecutar:
        print("Atención: se ejecutará código de estudiantes en tu proceso (--ejecutar).", file=sys.stderr)
    course = Course(root, options.ejecutar, options.sin_aislar, say=lambda text: print(f"  {text}", flush=True))
    with _meters(root, options.medir, options.vllm) as chosen:
        choice = Options(
            processes=options.procesos,
            meters=chosen,
            again=options.otra_vez,
            unlimited=options.sin_limite,
            limit_s=options.limite,
        )
        summary = course.grade(options.tarea, getattr(options, "solo", "*"), choice)
    _tell(summary)
    notas(root, options)
    return LOOK if summary.problems else WELL


@contextlib.contextmanager
def _meters(root: Path, clock: str, vllm: str) -> Iterator[Mapping[str, Meter]]:
    """The meters of these modes, and their processes ended afterwards. A machine that cannot measure is an error."""
    try:
        chosen = meters(clock, vllm, course=root)
    except MeterError as error:
        raise CycleError(f"{error}. Sin esa medida, de momento: --medir no, --medir contado o --vllm no.") from None
    try:
        yield chosen
    finally:
        close_meters(chosen)


def _tell(summary: Summary) -> None:
    print(f"calificados: {len(summary.graded)} intentos; cambian: {len(summary.changed)} notas")
    for attempt, until in summary.waiting:
        print(
            f"  {attempt.student}: en espera hasta {until:%Y-%m-%d %H:%M} UTC (entregó {attempt.when:%Y-%m-%d %H:%M})"
        )
    for student, problem in summary.problems:
        print(f"  {student}: {problem}")


def retroalimentar(root: Path, options: argparse.Namespace) -> int:
    students = Course(root).give_feedback(options.tarea, getattr(options, "solo", "*"))
    package = root / "feedback" / f"{options.tarea}.zip"
    write_atomic(package, entregas.feedback_zip(root, options.tarea, options.zip, entregas.Roster.read(root / ROSTER)))
    print(f"retroalimentación: {len(students)} páginas en {root / 'feedback'}; para repartir: {package}")
    return WELL


def exportar_notas(root: Path, options: argparse.Namespace) -> int:
    target = options.salida or root / "notas" / f"{options.tarea}-{options.formato}.csv"
    print(f"notas: {exportar.export(root, options.tarea, options.formato, target)}")
    return WELL


def notas(root: Path, options: argparse.Namespace) -> int:
    """One line for each person: automatic, read by a person, taken for being late, total."""
    with Course(root).gradebook() as gradebook:
        marks = exportar.read_marks(gradebook, options.tarea, exportar.people_of(root))
    width = max([6, *(len(m.person.id) for m in marks)])
    print(f"{'alumno':{width}}  automáticos  leídos  retraso   total   de")
    for m in marks:
        total = max(0.0, m.automatic + m.manual - m.penalty)
        state = f"  {m.status}" + (f": {', '.join(m.pending)}" if m.pending else "") if m.score is None else ""
        row = f"{m.automatic:11.2f}  {m.manual:6.2f}  {-m.penalty or 0:7.2f}  {total:6.2f}  {m.maximum:3g}"
        print(f"{m.person.id:{width}}  {row}{state}")
    return WELL


def similares(root: Path, options: argparse.Namespace) -> int:
    """Compare the notebooks that stand in ``submitted/``."""
    name = options.tarea
    files = {p.parents[1].name: p for p in (root / "submitted").glob(f"*/{name}/{name}.ipynb")}
    if not files:
        raise CycleError(f"No hay entregas calificadas de {name}: usa antes «calificar {name}».")
    submissions = {student: sources_of(nbformat.read(path, 4)) for student, path in files.items()}
    reference = sources_of(construir.instructor(construir.SOURCE_FOLDER / f"{name}.py"))
    released = sources_of(nbformat.read(Course(root).released(name), 4))
    found = similitud.compare(submissions, reference, released)
    page, table = root / "notas" / f"{name}-similitud.html", root / "notas" / f"{name}-similitud.csv"
    write_atomic(page, similitud.to_html(found, f"Similitud · {name}").encode())
    write_atomic(table, similitud.to_csv(found).encode())
    print(f"similitud: {len(found.pairs)} parejas que mirar (son indicios, no pruebas): {page}")
    return WELL


def verificar(root: Path, options: argparse.Namespace) -> int:
    report = verify(options.rutas or root / "autograded", root.resolve())
    print(report.text())
    return WELL if report.sound else LOOK


def recalificar(root: Path, options: argparse.Namespace) -> int:
    records = sorted((root / "autograded").glob(f"{options.solo}/{options.tarea}/{RECORD}"))
    if not records:
        raise CycleError(f"No hay notas de {options.tarea} que repetir: usa antes «calificar {options.tarea}».")
    equal = True
    with _meters(root, "contado", "traza") as judges:
        for path in records:
            try:
                result = regrade(path, root.resolve(), judges, options.sin_aislar)
            except (CycleError, MeterError) as error:
                print(f"{path.parents[1].name}: {error}")
                equal = False
            else:
                print(result.text())
                equal = equal and result.equal
    return WELL if equal else LOOK


def ciclo(root: Path, options: argparse.Namespace) -> int:
    """All the steps in order; what one of them wants looked at does not stop the next."""
    steps = (generar, recibir, calificar, retroalimentar, exportar_notas)
    return max([step(root, options) for step in steps])


COMMANDS = {
    "nuevo": nuevo,
    "generar": generar,
    "recibir": recibir,
    "calificar": calificar,
    "retroalimentar": retroalimentar,
    "exportar": exportar_notas,
    "notas": notas,
    "similitud": similares,
    "verificar": verificar,
    "recalificar": recalificar,
    "ciclo": ciclo,
}
