"""Honest work, whole and in part, noisy and slow: it gets what it earned."""

from __future__ import annotations

from random import Random

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from zoo.kit import FULL, LIGHT, NOTHING, Entry, Kit, grade_id_of, is_check

# Right where the position is whole or the neighbours are equal: five of the eight hidden cases. `round` sends the
# empty list to index -1, which is an IndexError, not the ValueError asked for.
NEAREST = "def percentil(valores, p):\n    v = sorted(valores)\n    return v[round((len(v) - 1) * p / 100)]\n"
WITH_HELPER = """
def percentil(valores, p):
    orden = en_orden(valores)
    posicion = (len(orden) - 1) * p / 100
    abajo = int(posicion)
    return mezcla(orden[abajo], orden[min(abajo + 1, len(orden) - 1)], posicion - abajo)
"""
HELPERS = """import math

def en_orden(valores):
    if not valores:
        raise ValueError("no hay valores")
    return sorted(valores)

def mezcla(a, b, parte):
    return a if math.isclose(parte, 0) else a + (b - a) * parte

print(percentil([1, 2], 50))
1 / 0
"""
SERIAL_CLIENT = """
async def lanza_todas(cliente, modelo, prompts, max_tokens, reloj):
    return [await mide_una(cliente, modelo, p, max_tokens, reloj) for p in prompts]
"""
SLOW = "\nimport time\n_rapida_{0} = {0}\n\ndef {0}(*args):\n    time.sleep(0.05)\n    return _rapida_{0}(*args)\n"
TALKATIVE = """
import sys
_callada = veredicto

def veredicto(informe):
    for salida in (sys.stdout, sys.stderr):
        for _ in range(25):
            print("x" * (1 << 20), file=salida)
    return _callada(informe)
"""
WARNING = "\nimport sys, warnings\nwarnings.warn('aviso mío')\nprint('ruido', file=sys.stderr)\n"
MAGIC = "%matplotlib inline\n!pip install numpy\n"


def nearest_rank(kit: Kit) -> NotebookNode:
    return kit.fill(percentil=NEAREST, resume=kit.solutions["resume"])


def one_at_a_time(kit: Kit) -> NotebookNode:
    return kit.light(cliente=kit.solutions["cliente"] + SERIAL_CLIENT)


def slow(kit: Kit) -> NotebookNode:
    return kit.light(**{c: kit.solutions[c] + SLOW.format(c) for c in ("percentil", "resume", "veredicto")})


def noisy(kit: Kit) -> NotebookNode:
    """Warnings when a cell runs, 50 MB printed by each call of another, and an old warning saved in every check."""
    notebook = kit.light(
        percentil=WARNING + kit.solutions["percentil"], veredicto=kit.solutions["veredicto"] + TALKATIVE
    )
    for cell in notebook.cells:
        if is_check(cell):
            cell.outputs = [new_output("stream", name="stderr", text="UserWarning: NNPACK no está\n")]
    return notebook


def huge_output(kit: Kit) -> NotebookNode:
    """Plots, as a notebook keeps them: text that hardly packs."""
    notebook = kit.light()
    cell = next(c for c in notebook.cells if c.cell_type == "code")
    cell.outputs = [new_output("stream", name="stdout", text=Random(0).randbytes(25 << 20).hex())]
    return notebook


def with_added_cell(kit: Kit) -> NotebookNode:
    """Helpers in a cell of the student's, whose experiments would fail if they were run."""
    notebook = kit.light(percentil=WITH_HELPER)
    notebook.cells.append(new_code_cell(HELPERS))
    return notebook


def moved_cells(kit: Kit) -> NotebookNode:
    notebook = kit.light()
    notebook.cells.reverse()
    return notebook


def with_magics(kit: Kit) -> NotebookNode:
    return kit.light(
        resume=MAGIC + kit.solutions["resume"],
        veredicto=kit.solutions["veredicto"] + "\n%timeit 1 + 1\n",
        explica=next(c.source for c in kit.released.cells if grade_id_of(c) == "explica"),
    )


def syntax_error(kit: Kit) -> NotebookNode:
    """One bracket is missing; only the checks that need that cell notice."""
    return kit.light(
        percentil=kit.solutions["percentil"].replace("def percentil(valores, p):", "def percentil(valores:")
    )


HONEST = (
    Entry(id="completa", story="todo resuelto", kind="honest", make=Kit.solved, marks=FULL),
    Entry(
        id="en_blanco", story="lo publicado, sin tocar", kind="honest", make=Kit.fill, marks={**NOTHING, "explica": 0}
    ),
    Entry(
        id="solo_percentil",
        story="solo percentil; lo demás, sin tocar",
        kind="honest",
        make=lambda kit: kit.fill(percentil=kit.solutions["percentil"]),
        marks={**NOTHING, "prueba_percentil": 4},
    ),
    Entry(
        id="rango_cercano",
        story="un percentil que no interpola, y un resumen que lo usa",
        kind="honest",
        make=nearest_rank,
        # 5 of 8 cases; of the summaries, only the single request does not need interpolation.
        marks={**NOTHING, "prueba_percentil": 2.5, "prueba_resume": 1},
    ),
    Entry(
        id="de_una_en_una",
        story="el cliente espera cada respuesta antes de enviar la siguiente",
        kind="honest",
        make=one_at_a_time,
        # One case in three has a single prompt.
        marks={**LIGHT, "prueba_cliente": 2},
    ),
    Entry(id="lenta", story="duerme un poco en cada llamada", kind="honest", make=slow, marks=LIGHT),
    Entry(id="ruidosa", story="avisos por stderr y 50 MB por llamada", kind="honest", make=noisy, marks=LIGHT),
    Entry(id="salida_enorme", story="50 MB de salida guardados", kind="honest", make=huge_output, marks=LIGHT),
    Entry(
        id="celda_anadida", story="funciones propias en una celda más", kind="honest", make=with_added_cell, marks=LIGHT
    ),
    Entry(id="celdas_movidas", story="el cuaderno del revés", kind="honest", make=moved_cells, marks=LIGHT),
    Entry(
        id="con_magias",
        story="líneas con % y ! en sus soluciones, y la explicación sin escribir",
        kind="honest",
        make=with_magics,
        marks={**LIGHT, "explica": 0},
    ),
    Entry(
        id="sintaxis",
        story="un paréntesis sin cerrar en percentil",
        kind="honest",
        make=syntax_error,
        marks={**LIGHT, "prueba_percentil": 0, "prueba_resume": 0, "prueba_vllm": 0},
    ),
)
