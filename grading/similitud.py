"""Shared code between submissions: a lead («indicio») for a conversation, never a penalty.

Winnowed fingerprints (Schleimer, Wilkerson and Aiken 2003, "Winnowing: local algorithms for document fingerprinting")
of the solution cells. A cell is normalised first: comments, docstrings, annotations and layout are dropped; names and
literals become a mark of their kind, but for keywords, built-ins and the methods of built-in types. What the released
stub holds is subtracted. Code that does not parse is read token by token, so that it still meets the code it came from.
"""

from __future__ import annotations

import ast
import builtins
import csv
import hashlib
import io
import keyword
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median

import jinja2
import nbformat

from minilab_grading.arnes.celdas import added_definitions, sources_of
from minilab_grading.curso import CycleError
from minilab_grading.curso.carpeta import write_atomic
from minilab_grading.exportar import guarded

K_TOKENS, WINDOW = 10, 5
THRESHOLD, SHARED_MIN = 0.6, 8
REFERENCE = "solución de referencia"
TEMPLATES = Path(__file__).with_name("plantillas")

TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*)
    | (?P<text>[rbfuRBFU]{0,2}(?:'{3}.*?(?:'{3}|\Z) | "{3}.*?(?:"{3}|\Z) | '(?:\\.|[^'\\\n])*' | "(?:\\.|[^"\\\n])*"))
    | (?P<name>[^\W\d]\w*)
    | (?P<number>\d[\w.]*)
    | (?P<operator>\*\*=?|//=?|<<=?|>>=?|->|:=|[-+*/%&|^=!<>@]=?|[^\w\s])""",
    re.VERBOSE | re.DOTALL,
)
METHODS = {name for kind in (str, bytes, int, float, list, dict, set, tuple) for name in dir(kind)}
KEPT = frozenset(keyword.kwlist) | {n for n in dir(builtins) if n.islower()} | {m for m in METHODS if m[0] != "_"}

Cells = Mapping[str, str]


@dataclass(frozen=True)
class Pair:
    """Two submissions. fraction: of the smaller one's fingerprints. shared: how many. cells: (cell, fraction), of the
    first one's cells, in the second one's whole code, the most alike first."""

    first: str
    second: str
    fraction: float
    shared: int
    cells: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Similarity:
    """pairs: those that reach the threshold, the most alike first. usual: the median fraction of all pairs of students.

    notes: Spanish, what was left out and why.
    """

    pairs: tuple[Pair, ...]
    usual: float
    compared: int
    notes: tuple[str, ...]


def tokens(source: str) -> list[str]:
    """The normalised tokens of a piece of Python, whether or not it parses."""
    found = []
    for match in TOKEN.finditer(_essential(source)):
        kind, text = match.lastgroup, match.group()
        if kind == "name":
            found.append(text if text in KEPT else "N")
        elif kind == "operator":
            found.append(text)
        elif kind != "comment":
            found.append("T" if kind == "text" else "0")
    return found


def fingerprints(source: str, k: int = K_TOKENS, window: int = WINDOW) -> set[int]:
    """Winnowed hashes of the k-grams of tokens: any shared run of ``k + window - 1`` tokens gives a shared one."""
    words = tokens(source)
    grams = [_hash(words[i : i + k]) for i in range(len(words) - k + 1)]
    return {min(grams[i : i + window]) for i in range(max(1, len(grams) - window + 1))} if grams else set()


def compare(
    submissions: Mapping[str, Cells],
    reference: Cells | None = None,
    released: Cells | None = None,
    threshold: float = THRESHOLD,
    shared_min: int = SHARED_MIN,
) -> Similarity:
    """Compare every pair of students, and each with the reference solution.

    submissions: student -> cell's grade id -> source. released: the stubs, subtracted. threshold: fraction from which a
    pair is listed, with at least ``shared_min`` shared fingerprints. ValueError for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"el umbral debe estar entre 0 y 1, y es {threshold}")
    template = {p for source in (released or {}).values() for p in fingerprints(source)}
    everyone = {**submissions, **({REFERENCE: reference} if reference else {})}
    prints = {who: {c: fingerprints(s) - template for c, s in cells.items()} for who, cells in everyone.items()}
    whole = {who: set().union(*cells.values()) for who, cells in prints.items()}
    found, fractions, compared = [], [], 0
    for one, other in combinations(sorted(submissions), 2):
        compared += 1
        fraction, shared = _overlap(whole[one], whole[other])
        fractions.append(fraction)
        if fraction >= threshold and shared >= shared_min:
            found.append(_pair(one, other, fraction, shared, prints, whole))
    for who in sorted(submissions) if reference else ():
        compared += 1
        fraction, shared = _overlap(whole[who], whole[REFERENCE])
        if fraction >= threshold and shared >= shared_min:
            found.append(_pair(who, REFERENCE, fraction, shared, prints, whole))
    found.sort(key=lambda p: (-p.fraction, -p.shared, p.first, p.second))
    notes = tuple(_notes(submissions, whole))
    return Similarity(tuple(found), median(fractions) if fractions else 0.0, compared, notes)


def of_course(root: Path, assignment: str, threshold: float = THRESHOLD) -> tuple[Similarity, Path, Path]:
    """Compare what stands in ``submitted/`` and write the page and the CSV into ``notas/``. Returns both paths.

    Raises :class:`CycleError` where nothing was handed in or the threshold is no fraction.
    """
    found = {p.parents[1].name: p for p in (root / "submitted").glob(f"*/{assignment}/{assignment}.ipynb")}
    if not found:
        raise CycleError(f"No hay entregas de {assignment} que comparar: usa antes «recibir» y «calificar».")
    try:
        submissions = {student: _cells(path) for student, path in found.items()}
        reference, released = (_cells(root / f / assignment / f"{assignment}.ipynb") for f in ("source", "release"))
        similarity = compare(submissions, reference, released, threshold)
    except ValueError as error:
        raise CycleError(f"No se pueden comparar las entregas de {assignment}: {error}.") from error
    page, rows = (root / "notas" / f"{assignment}-similitud.{kind}" for kind in ("html", "csv"))
    write_atomic(page, to_html(similarity, assignment).encode("utf-8", "replace"))
    write_atomic(rows, to_csv(similarity).encode("utf-8-sig", "replace"))
    return similarity, page, rows


def to_csv(similarity: Similarity) -> str:
    """One row for each pair: students, fraction, fingerprints shared, cells."""
    output = io.StringIO()
    writer = csv.writer(output)
    writer.writerow(["primera", "segunda", "fraccion_compartida", "huellas_compartidas", "celdas"])
    for p in similarity.pairs:
        cells = "; ".join(f"{name} {fraction:.0%}" for name, fraction in p.cells)
        writer.writerow([guarded(p.first), guarded(p.second), f"{p.fraction:.3f}", p.shared, guarded(cells)])
    return output.getvalue()


def to_html(similarity: Similarity, title: str) -> str:
    """A page in Spanish that loads nothing; every name is escaped."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("similitud.html.j2").render(similitud=similarity, titulo=title)


def _cells(path: Path) -> dict[str, str]:
    """Solution cells by grade id, and what the student defined beside them. Nothing where there is no file."""
    if not path.is_file():
        return {}
    notebook = nbformat.read(path, 4)
    own = added_definitions(notebook)
    return sources_of(notebook) | ({"celdas añadidas": own} if own else {})


def _essential(source: str) -> str:
    """The source as the parser understands it, without docstrings and annotations; as it is where it does not parse."""
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):
            tree = ast.parse(source)
        for node in ast.walk(tree):
            _strip(node)
        return ast.unparse(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return source


def _strip(node: ast.AST) -> None:
    if isinstance(node, ast.arg):
        node.annotation = None
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node.returns = None
    body = getattr(node, "body", None)
    if isinstance(body, list):
        node.body = [_plain(n) for n in body if not _is_idle(n)] or [ast.Pass()]


def _is_idle(node: ast.stmt) -> bool:
    """A docstring, another constant that stands alone, a ``pass``, or an annotation without value."""
    bare = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return bare or isinstance(node, ast.Pass) or (isinstance(node, ast.AnnAssign) and node.value is None)


def _plain(node: ast.stmt) -> ast.stmt:
    if isinstance(node, ast.AnnAssign):
        return ast.copy_location(ast.Assign([node.target], node.value), node)
    return node


def _hash(words: list[str]) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest(), "big")


def _overlap(one: set[int], other: set[int]) -> tuple[float, int]:
    shared = len(one & other)
    smaller = min(len(one), len(other))
    return (shared / smaller if smaller else 0.0), shared


def _pair(
    one: str,
    other: str,
    fraction: float,
    shared: int,
    prints: Mapping[str, Mapping[str, set[int]]],
    whole: Mapping[str, set[int]],
) -> Pair:
    cells = [(name, len(cell & whole[other]) / len(cell)) for name, cell in prints[one].items() if cell]
    alike = sorted((c for c in cells if c[1] > 0), key=lambda c: (-c[1], c[0]))
    return Pair(one, other, fraction, shared, tuple(alike))


def _notes(submissions: Mapping[str, Cells], whole: Mapping[str, set[int]]) -> list[str]:
    notes = []
    names = sorted({name for cells in submissions.values() for name in cells})
    small = [n for n in names if all(len(tokens(c[n])) < K_TOKENS for c in submissions.values() if n in c)]
    if small:
        notes.append(f"Celdas demasiado cortas para comparar (menos de {K_TOKENS} tokens): {', '.join(small)}.")
    if empty := sorted(who for who in submissions if not whole[who]):
        notes.append(f"Sin código propio que comparar: {', '.join(empty)}.")
    return notes
