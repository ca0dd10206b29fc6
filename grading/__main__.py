"""``minilab-grading``: the commands of whoever teaches. Each one says what to do next; all of them: ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from minilab_grading.curso import CycleError

DESCRIPTION = "Publica tareas, recibe entregas, califícalas aisladas, y devuelve notas y retroalimentación."
HELP = {
    "nuevo": "crea la carpeta de un curso, con sus ajustes explicados",
    "generar": "publica una tarea: source/, release/ y el zip para repartir",
    "recibir": "guarda las entregas de un zip o de una carpeta (también de Moodle o de Canvas)",
    "calificar": "califica lo nuevo, elige el mejor intento de cada persona y pone al día el libro de notas",
    "retroalimentar": "escribe una página por entrega y un zip para repartirlas",
    "exportar": "escribe las notas para una hoja de cálculo, Moodle o Canvas",
    "notas": "muestra la tabla de notas",
    "similitud": "busca parejas de entregas que se parecen: un indicio para conversar, nunca una penalización",
    "verificar": "comprueba que nadie ha tocado los registros, las entregas ni el libro de notas",
    "recalificar": "califica otra vez con las mismas semillas y medidas, y compara byte a byte",
    "ciclo": "todo seguido: publicar, recibir, calificar, retroalimentar y exportar",
    "ensayo": "el ciclo entero con entregas inventadas, en un curso aparte",
}
CREATING = ("nuevo", "ciclo", "generar")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when all went well, 1 when something needs a person's eyes, 2 when it could not be done.

    141, as the shell has it, where whoever read the output has had enough («| head»): what was left is not done.
    """
    options = _parser().parse_args(arguments)
    # nbgrader and its libraries take seconds to load: --help and usage errors do not need them.
    from minilab_grading.curso.ensayo import ensayo
    from minilab_grading.curso.ordenes import COMMANDS

    try:
        code = ensayo(options) if options.orden == "ensayo" else COMMANDS[options.orden](_root(options), options)
        sys.stdout.flush()
        return code
    except CycleError as error:
        print(f"minilab-grading: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minilab-grading: interrumpido; repite la orden y seguirá donde estaba.", file=sys.stderr)
        return 2
    except BrokenPipeError:  # Python flushes once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _root(options: argparse.Namespace) -> Path:
    """The course folder: ``--curso``, ``MINILAB_CURSO`` or the current folder; only some commands make a new one."""
    given = options.curso or (Path(os.environ["MINILAB_CURSO"]) if "MINILAB_CURSO" in os.environ else None)
    root = given or Path.cwd()
    if (given and options.orden in CREATING) or (root / "curso.toml").is_file():
        return root
    raise CycleError(
        f"En {root} no hay un curso. Créalo con «minilab-grading nuevo CARPETA» y di cuál es con --curso CARPETA, "
        "o entra en esa carpeta."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minilab-grading", description=DESCRIPTION)
    steps = parser.add_subparsers(dest="orden", required=True, metavar="ORDEN", title="órdenes")
    commands = {name: steps.add_parser(name, help=text, description=text) for name, text in HELP.items()}
    commands["nuevo"].add_argument("curso", type=Path, metavar="CARPETA", help="dónde se crea")
    for name, command in commands.items():
        if name not in ("nuevo", "verificar", "ensayo"):
            command.add_argument("tarea", metavar="TAREA", help="por ejemplo P_sirve_y_demuestralo")
        if name not in ("nuevo", "ensayo"):
            command.add_argument("--curso", type=Path, metavar="CARPETA", help="por omisión, la carpeta actual")
        if name in ("recibir", "ciclo"):
            command.add_argument("entregas", type=Path, metavar="ENTREGAS", help="zip o carpeta")
            command.add_argument("--horas", type=Path, metavar="CSV", help="cuándo entregó cada persona: alumno,hora")
        if name in ("calificar", "retroalimentar", "recalificar"):
            command.add_argument("--solo", metavar="ALUMNO", default="*", help="solo esta persona")
        if name in ("calificar", "recalificar", "ciclo", "ensayo"):
            command.add_argument("--sin-aislar", action="store_true", help="acepta calificar sin aislamiento")
        if name in ("calificar", "ciclo", "ensayo"):
            _grading_options(command, "contado" if name == "ensayo" else "real")
        if name in ("retroalimentar", "ciclo"):
            command.add_argument("--zip", choices=("plano", "moodle"), default="plano", help="cómo se ordena el zip")
        if name in ("exportar", "ciclo"):
            _export_options(command)
    commands["verificar"].add_argument(
        "rutas", nargs="*", type=Path, metavar="RUTA", help="por omisión, todas las notas"
    )
    _rehearsal_options(commands["ensayo"])
    return parser


def _grading_options(command: argparse.ArgumentParser, clock: str) -> None:
    processes = os.cpu_count() or 1
    command.add_argument("--procesos", type=_positive, default=processes, metavar="N", help="entregas a la vez")
    command.add_argument("--limite", type=_positive, default=600, metavar="SEGUNDOS", help="máximo por entrega")
    command.add_argument(
        "--medir",
        choices=("real", "contado", "no"),
        default=clock,
        help="el reloj de reloj_real: el del equipo, un coste contado, o no medir todavía (por omisión: %(default)s)",
    )
    command.add_argument(
        "--vllm",
        choices=("traza", "vivo", "no"),
        default="traza",
        help="una traza grabada, un vLLM que se arranca aquí, o no medir todavía (por omisión: %(default)s)",
    )
    command.add_argument("--otra-vez", action="store_true", help="también lo que ya tiene un resultado")
    command.add_argument("--sin-limite", action="store_true", help="no hagas esperar a los intentos de más de un día")
    command.add_argument(
        "--ejecutar",
        action="store_true",
        help="ejecuta además los cuadernos en tu proceso, para ver sus salidas: solo si te fías de quien los escribió",
    )


def _export_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--formato", choices=("csv", "moodle", "canvas"), default="csv")
    command.add_argument("--salida", type=Path, metavar="ARCHIVO", help="por omisión, notas/ en la carpeta del curso")


def _rehearsal_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("tarea", metavar="TAREA", nargs="?", default="P_sirve_y_demuestralo")
    command.add_argument("--alumnos", type=_positive, default=10, metavar="N", help="cuántas entregas inventar")
    command.add_argument(
        "--en", type=Path, metavar="CARPETA", help="carpeta nueva; por omisión, una temporal que se queda"
    )


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"hace falta un entero mayor que 0, y es «{text}»")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
