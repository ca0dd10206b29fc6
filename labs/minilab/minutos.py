"""``python -m minilab.minutos`` sets each lab's published minutes beside an estimate; ``--mide`` measures the machine.

Estimate = machine (the solved notebook in full mode, from ``labs/medidas/tiempos.json``, which ``--mide`` writes) +
reading + writing (lines of solutions, words of answers). The paces are assumptions: nobody has been timed.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from minilab import construir

FILE = construir.LABS / "medidas" / "tiempos.json"
READ_PER_MINUTE = 180  # words of technical text
MINUTES_PER_LINE = 1.0  # a line of a solution: thinking, trying and correcting included
WRITE_PER_MINUTE = 15  # words of a written answer
FACTOR = 2.0  # how far from the whole estimate a published figure may lie
TIME = re.compile(r"\*\*Tiempo:\*\* (\d+) minutos")
SHORT_TIME = re.compile(r"\*\*Pista corta:\*\* (\d+) minutos")


@dataclass(frozen=True)
class Estimate:
    """Minutes of one lab. machine: of its full run, None where it was not measured; published: what the lab says."""

    lab: str
    published: int
    machine: float | None
    reading: float
    writing: float

    @property
    def floor(self) -> float:
        """What nobody can go below: the machine and reading."""
        return (self.machine or 0.0) + self.reading


def lab_of(source: Path) -> str:
    return source.stem.split("_")[0]


def published(notebook: NotebookNode, pattern: re.Pattern[str] = TIME) -> int | None:
    """The minutes that the notebook's first page promises, or None where it names none."""
    found = pattern.search("\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"))
    return int(found[1]) if found else None


def estimate(source: Path, measured: dict) -> Estimate:
    """measured: what :func:`load` returns. Raises ValueError for a notebook that names no minutes."""
    notebook, lab = construir.instructor(source), lab_of(source)
    if (minutes := published(notebook)) is None:
        raise ValueError(f"{source.name}: falta la línea «**Tiempo:** NN minutos.»")
    texts = [c for c in notebook.cells if c.cell_type == "markdown"]
    answers = [c for c in texts if c.metadata.get("nbgrader", {}).get("solution")]
    lines = sum(_student_lines(c.source) for c in notebook.cells if c.cell_type == "code")
    seconds = measured.get("laboratorios", {}).get(lab, {}).get("completo")
    return Estimate(
        lab,
        minutes,
        None if seconds is None else seconds / 60,
        sum(len(c.source.split()) for c in texts if c not in answers) / READ_PER_MINUTE,
        lines * MINUTES_PER_LINE + sum(len(c.source.split()) for c in answers) / WRITE_PER_MINUTE,
    )


def _student_lines(code: str) -> int:
    """Lines between solution marks that are neither empty nor a comment."""
    blocks = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", code, re.DOTALL)
    lines = "\n".join(blocks).split("\n")
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


def load(path: Path = FILE) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def fingerprint(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()[:12]


def run_seconds(source: Path, mode: str) -> float:
    """Execute the solved notebook in a folder of its own; seconds, kernel start included."""
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory(prefix="minilab-") as folder:
        client = NotebookClient(construir.instructor(source), timeout=3600, resources={"metadata": {"path": folder}})
        start = time.perf_counter()
        client.execute(env={**os.environ, "MINILAB_RAPIDO": "1" if mode == "rapido" else ""})
        return time.perf_counter() - start


def measure(sources: Sequence[Path], path: Path = FILE) -> None:
    """Run each notebook in both modes and write the seconds, with the machine beside them."""
    from minilab.modelo import elige_modelo
    from minillm_serve.bench.environment import describe_environment

    labs = dict(load(path).get("laboratorios", {}))
    environment = describe_environment(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1), "float32")
    head = {"orden": "python -m minilab.minutos --mide", "fecha": datetime.date.today().isoformat()}
    head |= {"modelo": elige_modelo().nombre, "entorno": environment}
    path.parent.mkdir(parents=True, exist_ok=True)
    for source in sources:
        seconds = {mode: round(run_seconds(source, mode), 1) for mode in ("rapido", "completo")}
        labs[lab_of(source)] = {**seconds, "fuente": fingerprint(source)}
        data = {**head, "laboratorios": dict(sorted(labs.items()))}
        path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print(f"{lab_of(source)}: {seconds['rapido']} s (rápido), {seconds['completo']} s (completo)")


def table(sources: Sequence[Path], measured: dict) -> str:
    """The estimates beside the published minutes, as Markdown."""
    rows = ["| lab | publicado | máquina | leer | escribir | estimado |", "|---|---|---|---|---|---|"]
    for source in sources:
        e = estimate(source, measured)
        old = measured.get("laboratorios", {}).get(e.lab, {}).get("fuente") not in (None, fingerprint(source))
        machine = "–" if e.machine is None else f"{e.machine:.1f}{' (otra versión)' if old else ''}"
        minutes = (f"{e.reading:.0f}", f"{e.writing:.0f}", f"{e.floor + e.writing:.0f}")
        rows.append(f"| {' | '.join((e.lab, str(e.published), machine, *minutes))} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minilab.minutos", description=__doc__.splitlines()[0])
    parser.add_argument("labs", nargs="*", metavar="LAB", help="L00, P…; por omisión, todos")
    parser.add_argument("--mide", action="store_true", help="ejecuta los cuadernos resueltos y guarda los segundos")
    options = parser.parse_args(arguments)
    chosen = [source for source in construir.sources() if not options.labs or lab_of(source) in options.labs]
    if options.mide:
        measure(chosen)
    print(table(chosen, load()))
    pace = f"{READ_PER_MINUTE} palabras leídas y {WRITE_PER_MINUTE} escritas por minuto"
    print(f"\nSupuestos: {pace}; {MINUTES_PER_LINE:g} minuto por línea de solución. Aún no se ha cronometrado a nadie.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
