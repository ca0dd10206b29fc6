"""The feedback page's content: marks from the gradebook, verdicts from ``nota.json``, and the notebook made safe.

List :class:`NotaEnLaPagina` in ``GenerateFeedback.preprocessors`` after the one that reads the gradebook; the template
``retro_es`` shows what it leaves in ``resources["pagina"]``.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from markupsafe import Markup
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.preprocessors import NbGraderPreprocessor

from minilab_grading import saneado
from minilab_grading.arnes.calificar import NOT_MEASURED
from minilab_grading.curso import CycleError
from minilab_grading.exportar import spanish
from minilab_grading.registro import FILE, Record, is_signed, read_record

STYLE = Path(__file__).with_name("plantillas") / "retro_es" / "estilo.css"
FOLD_LINES = 40
UNREAD, UNMEASURED = "por leer", "sin medir"
LEVEL_WORDS = {
    "podman": "contenedor sin privilegios (podman)",
    "bwrap": "bubblewrap",
    "unshare": "espacios de nombres (unshare)",
    "ninguno": "sin aislar",
}
Resources = dict[str, Any]
Block = dict[str, Any]


class NotaEnLaPagina(NbGraderPreprocessor):
    """Builds the page from the graded notebook, its scores and the record beside it."""

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        data = resources["nbgrader"]
        root = Path(data["db_url"].removeprefix("sqlite:///")).parent
        record = self._record(Path(resources["metadata"]["path"]) / FILE, root, data)
        resources["pagina"] = page(nb, data, record)
        return nb, resources

    def _record(self, path: Path, root: Path, data: dict[str, Any]) -> Record | None:
        """The record of this very submission; without an authentic one the page has the marks alone."""
        try:
            record = read_record(path)
        except CycleError as error:
            self.log.warning("%s: %s", data["student"], error)
            return None
        if is_signed(root, record) and (record["alumno"], record["tarea"]) == (data["student"], data["assignment"]):
            return record
        self.log.warning("%s: la firma de %s no corresponde; la página sale sin el detalle", data["student"], FILE)
        return None


def page(nb: NotebookNode, data: dict[str, Any], record: Record | None) -> dict[str, Any]:
    """What the template shows. data: nbgrader's resources, with score, maximum and penalty."""
    checks = {c["id"]: c for c in record["pruebas"]} if record else {}
    headings = saneado.Headings()
    blocks = [block for cell in nb.cells if (block := _block(cell, checks, headings))]
    graded = [b for b in blocks if "maximo" in b]
    css = STYLE.read_text(encoding="utf-8") + saneado.CODE_CSS
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return {
        "alumno": data["student"],
        "cuaderno": data["notebook"],
        "puntos": spanish(max(0.0, data["score"])),
        "maximo": spanish(data["max_score"]),
        "penalizacion": spanish(data["late_penalty"]) if data["late_penalty"] else "",
        "retraso": _lateness(record["retraso"]["segundos"]) if record else "",
        "por_leer": [b["nombre"] for b in graded if b["espera"] == UNREAD],
        "sin_medir": [b["nombre"] for b in graded if b["espera"] == UNMEASURED],
        "avisos": record["avisos"] if record else [],
        "filas": graded,
        "bloques": blocks,
        "pie": _footer(record) if record else None,
        "css": Markup(css),
        "csp": f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    }


def _block(cell: NotebookNode, checks: dict[str, Any], headings: saneado.Headings) -> Block | None:
    if not cell.source.strip() and not utils.is_grade(cell):
        return None
    meta = cell.metadata.get("nbgrader", {})
    if utils.is_grade(cell) or utils.is_solution(cell) or utils.is_task(cell):
        headings.section()
        return _graded(cell, meta, checks, headings)
    return {"tipo": "celda", **_content(cell, headings)}


def _graded(cell: NotebookNode, meta: dict[str, Any], checks: dict[str, Any], headings: saneado.Headings) -> Block:
    grade_id = meta["grade_id"]
    block: Block = {"id": grade_id, "nombre": grade_id.removeprefix("prueba_").replace("_", " ")}
    if meta.get("comment"):
        block["comentario"] = saneado.plain_paragraphs(meta["comment"])
    if utils.is_grade(cell) or utils.is_task(cell):
        unmeasured = checks.get(grade_id, {}).get("aviso") == NOT_MEASURED
        waiting = UNREAD if meta.get("por_corregir") else UNMEASURED if unmeasured else ""
        block |= {"maximo": spanish(meta["points"]), "puntos": spanish(meta["score"] or 0.0), "espera": waiting}
    if utils.is_grade(cell) and not utils.is_solution(cell):
        return block | {"tipo": "prueba", "prueba": _check(checks.get(grade_id))}
    return block | {"tipo": "escrita" if "maximo" in block else "codigo", **_content(cell, headings)}


def _check(check: dict[str, Any] | None) -> dict[str, Any] | None:
    if check is None:
        return None
    cases = [
        {
            "nombre": c["nombre"],
            "estado": "superada" if c["superado"] else "a medias" if c["credito"] > 0 else "no superada",
            "parte": "" if c["superado"] or not c["credito"] else f"{100 * c['credito']:.0f}\N{NO-BREAK SPACE}%",
            "nota": c["nota"],
            "pista": c["pista"],
        }
        for c in check["casos"]
    ]
    return {"aviso": check["aviso"], "casos": cases, "superadas": sum(c["superado"] for c in check["casos"])}


def _content(cell: NotebookNode, headings: saneado.Headings) -> Block:
    lines = cell.source.count("\n") + 1
    if cell.cell_type == "code":
        html, what = saneado.code(cell.source), "código"
    elif cell.cell_type == "markdown":
        html, what = saneado.markdown(cell.source, headings), "texto"
    else:
        html, what = saneado.plain(cell.source), "texto"
    fold = f"Ver {what} ({lines} líneas)" if lines > FOLD_LINES else ""
    return {"html": html, "plegado": fold, "salidas": [saneado.output(o, headings) for o in cell.get("outputs", [])]}


def _footer(record: Record) -> dict[str, str]:
    level = record["aislamiento"]
    return {
        "version": f"{record['arnes']['version']} (casos {record['arnes']['version_casos']})",
        "semilla": record["semilla_id"],
        "aislamiento": LEVEL_WORDS.get(level, level),
        "firma": record["firma"][:12],
    }


def _lateness(seconds: int) -> str:
    """«2 d 3 h», «5 min»: the two largest units that are not 0; nothing for work in time."""
    units = {"d": seconds // 86400, "h": seconds // 3600 % 24, "min": seconds // 60 % 60, "s": seconds % 60}
    return " ".join([f"{n} {unit}" for unit, n in units.items() if n][:2])
