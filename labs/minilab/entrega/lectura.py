"""Read what a student hands in: any bytes become a clean notebook or one error in Spanish."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

MAX_BYTES = 64 << 20
MAX_TEXT = 8 << 20
MAX_CELLS = 2000
MAX_ATTACHMENTS = 8 << 20
ADDED = "minilab_anadida"
READING = "minilab_lectura"
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
CONFLICT = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
IMAGE = re.compile(r"image/(png|jpeg|gif|webp)")
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
NOT_A_NOTEBOOK = "El archivo no es un cuaderno de Jupyter (.ipynb): entrega el cuaderno, no un PDF, un HTML ni un .py."
MAKERS = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell}
READING_NOTICES = {
    "codificacion": "El archivo no estaba en UTF-8: se leyó como Windows-1252; revisa las tildes y las eñes.",
    "adjuntos": "Había adjuntos que no son imágenes, o pesaban demasiado: se han descartado.",
}


class InvalidSubmission(ValueError):
    """The file cannot be read as a notebook; the message says why and what to do, in Spanish."""


@dataclass(frozen=True)
class Notice:
    """One thing that was found in a submission and what was done about it.

    code: stable ASCII name of the kind. text: one Spanish sentence for the student. grade_id: of the cell concerned,
    "" for the whole file. costs: marks may be lost by it.
    """

    code: str
    text: str
    grade_id: str = ""
    costs: bool = False


def read_submission(data: bytes) -> NotebookNode:
    """A notebook of nbformat 4.5 with nothing but sources, ids, claimed grade ids and images of markdown cells.

    Outputs and all other metadata are dropped. Codes of :data:`READING_NOTICES` are left in the notebook's metadata
    under :data:`READING`, for ``rebuild`` to tell. Raises :class:`InvalidSubmission`, never anything else.
    """
    if len(data) > MAX_BYTES:
        raise InvalidSubmission(
            f"El archivo pesa {len(data) >> 20} MiB y el máximo es {MAX_BYTES >> 20}: "
            "borra las salidas (Editar → Borrar todas las salidas), guarda y entrégalo otra vez."
        )
    text, notices = _decode(data)
    cells = [clean_cell(raw, number, notices) for number, raw in enumerate(_raw_cells(_parse(text)), 1)]
    if sum(len(c.source) for c in cells) > MAX_TEXT:
        raise InvalidSubmission(
            f"Las celdas suman más de {MAX_TEXT >> 20} MiB de texto: quita los datos pegados y léelos de un archivo."
        )
    _drop_heavy_attachments(cells, notices)
    notebook = new_notebook(metadata={READING: sorted(notices)} if notices else {})
    # Set afterwards: the constructor would give new ids to cells that share one.
    notebook.cells, notebook.nbformat_minor = cells, 5
    return notebook


def _decode(data: bytes) -> tuple[str, set[str]]:
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding), set()
    except UnicodeDecodeError:
        if encoding == "utf-16":
            raise InvalidSubmission(
                "El archivo está cortado: empieza como UTF-16 y no termina bien. Guárdalo y entrégalo otra vez."
            ) from None
    try:
        return data.decode("cp1252"), {"codificacion"}
    except UnicodeDecodeError:
        return data.decode("latin-1"), {"codificacion"}


def _parse(text: str) -> dict[str, Any]:
    if not text.strip("\0 \t\r\n\ufeff"):
        raise InvalidSubmission("El archivo está vacío: guarda el cuaderno y entrégalo otra vez.")
    try:
        notebook = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidSubmission("El archivo anida demasiados niveles: no lo escribió Jupyter.") from None
    except InvalidSubmission:
        raise
    except ValueError as error:
        raise InvalidSubmission(_damage(text, error)) from None
    if not isinstance(notebook, dict):
        raise InvalidSubmission(NOT_A_NOTEBOOK)
    return notebook


def _refuse_constant(constant: str) -> NoReturn:
    raise InvalidSubmission(
        f"El archivo contiene {constant}, que no es JSON: ábrelo en Jupyter, guárdalo y entrégalo otra vez."
    )


def _damage(text: str, error: ValueError) -> str:
    if CONFLICT.search(text):
        return (
            "El archivo tiene marcas de conflicto de git (<<<<<<<, >>>>>>>): resuelve el conflicto, comprueba que "
            "Jupyter lo abre y entrégalo otra vez."
        )
    if not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return NOT_A_NOTEBOOK
    if isinstance(error, json.JSONDecodeError):
        if error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated string"):
            return "El archivo está cortado (la subida no terminó): guárdalo y entrégalo otra vez."
        return f"El archivo está dañado en la línea {error.lineno}: ábrelo en Jupyter, guárdalo y entrégalo otra vez."
    return "El archivo contiene un número que no se puede leer: no lo escribió Jupyter."


def _raw_cells(notebook: dict[str, Any]) -> list[Any]:
    """The list of cells of nbformat 4, or of the worksheets of nbformat 3."""
    version = notebook.get("nbformat")
    if type(version) is not int or version not in (3, 4):
        raise InvalidSubmission(
            "El archivo no es un cuaderno que se pueda leer (se esperaba nbformat 3 o 4): ábrelo en Jupyter, guárdalo "
            "y entrégalo otra vez."
        )
    if version == 4:
        cells = notebook.get("cells")
    else:
        sheets = _list(notebook.get("worksheets"), "«worksheets»")
        if not all(isinstance(sheet, dict) for sheet in sheets):
            _wrong("«worksheets»", "una lista de objetos", sheets)
        cells = [cell for sheet in sheets for cell in _list(sheet.get("cells"), "«cells»")]
    cells = _list(cells, "«cells»")
    if len(cells) > MAX_CELLS:
        raise InvalidSubmission(
            f"El cuaderno tiene {len(cells)} celdas y el máximo es {MAX_CELLS}: quita las que sobran."
        )
    return cells


def clean_cell(raw: Any, number: int, notices: set[str]) -> NotebookNode:
    """What :func:`read_submission` keeps of the cell with that number; the outputs are not even looked at.

    nbformat 3 calls the source of a code cell ``input``. Codes of what was left out are added to ``notices``. Raises
    :class:`InvalidSubmission`.
    """
    where = f"la celda {number}"
    if not isinstance(raw, dict):
        _wrong(where, "un objeto", raw)
    kind = raw.get("cell_type")
    source = _source(raw["input"] if kind == "code" and "input" in raw else raw.get("source", ""), where)
    if kind == "heading":
        level = raw.get("level")
        source, kind = f"{'#' * (level if level in range(1, 7) else 1)} {source}", "markdown"
    if not isinstance(kind, str) or kind not in {*MAKERS, "html"}:
        _wrong(f"el tipo de {where}", "code, markdown o raw", kind)
    metadata = raw.get("metadata", {})
    if not isinstance(metadata, dict):
        _wrong(f"los metadatos de {where}", "un objeto", metadata)
    cell = MAKERS.get(kind, new_markdown_cell)(source)
    identifier, claim = raw.get("id"), metadata.get("nbgrader")
    cell.id = (
        identifier
        if isinstance(identifier, str) and re.fullmatch(r"[\w-]{1,64}", identifier, re.A)
        else f"sin-id-{number}"
    )
    if isinstance(claim, dict) and isinstance(claim.get("grade_id"), str):
        cell.metadata.nbgrader = NotebookNode(grade_id=claim["grade_id"])
    if metadata.get(ADDED) is True:
        cell.metadata[ADDED] = True
    if cell.cell_type == "markdown" and raw.get("attachments"):
        cell.attachments = _images(raw["attachments"], notices)
        if not cell.attachments:
            del cell["attachments"]
    return cell


def _source(source: Any, where: str) -> str:
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        _wrong(f"el texto de {where}", "una cadena o una lista de cadenas", source)
    # Lone surrogates are legal in JSON escapes and cannot be written as UTF-8.
    source = source.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return source.replace("\r\n", "\n").replace("\r", "\n")


def _images(attachments: Any, notices: set[str]) -> NotebookNode:
    """Name -> {mime type: base64 text} of the images among the attachments of one cell."""
    kept = NotebookNode()
    bundles = attachments.items() if isinstance(attachments, dict) else [("", attachments)]
    for name, bundle in bundles:
        images = NotebookNode(
            (mime, "".join(data.split()))
            for mime, data in (bundle.items() if isinstance(bundle, dict) else ())
            if IMAGE.fullmatch(mime) and isinstance(data, str) and BASE64.fullmatch(data)
        )
        if images and name.isprintable():
            kept[name] = images
        if not images or len(images) != len(bundle) or not name.isprintable():
            notices.add("adjuntos")
    return kept


def _drop_heavy_attachments(cells: list[NotebookNode], notices: set[str]) -> None:
    left = MAX_ATTACHMENTS
    for cell in cells:
        if "attachments" in cell:
            weight = sum(len(data) for bundle in cell.attachments.values() for data in bundle.values())
            left -= weight
            if left < 0:
                del cell["attachments"]
                left += weight
                notices.add("adjuntos")


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        _wrong(where, "una lista", value)
    return value


def _wrong(where: str, expected: str, got: Any) -> NoReturn:
    names = {dict: "un objeto", list: "una lista", str: "un texto", bool: "un booleano", type(None): "nada"}
    found = names.get(type(got), "un número")
    raise InvalidSubmission(
        f"El cuaderno está mal formado: en {where} se esperaba {expected} y hay {found}. Ábrelo en Jupyter, guárdalo y "
        "entrégalo otra vez."
    )
