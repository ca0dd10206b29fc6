"""The zoo: each made-up submission gets the marks that were written down for it, and the machine is as it was."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from zoo import ENTRIES, FULL, MARKER, Entry, Kit, Link
from zoo.kit import ASSIGNMENT

from minilab_grading.arnes.aislamiento import choose_isolation
from minilab_grading.ciclo import Course

ROOT = Path(__file__).resolve().parents[2]
PUBLIC_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")
SANDBOXED = choose_isolation([], allow_none=True).level != "ninguno"
LIMIT_S = 900


class Listener:
    """A port of this machine and an abstract socket of the same number; ``visits`` is what was heard on them."""

    def __init__(self) -> None:
        self.visits: list[str] = []
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port = self._sockets[0].getsockname()[1]
        if sys.platform == "linux":
            local = socket.socket(socket.AF_UNIX)
            local.bind(f"\0zoo-{self.port}")
            local.listen()
            self._sockets.append(local)
        for one in self._sockets:
            threading.Thread(target=self._listen, args=(one,), daemon=True).start()

    def _listen(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor, _ = one.accept()
                self.visits.append(one.family.name)
                visitor.close()

    def close(self) -> None:
        for one in self._sockets:
            one.close()


@dataclass(frozen=True)
class Run:
    """What the cycle left. untouchable: file -> its hash before; scratch: the grader's temporary folder."""

    course: Course
    output: str
    code: int
    marks: dict[str, dict[str, float | None]]
    untouchable: dict[Path, str]
    scratch: Path
    listener: Listener

    def page(self, entry: Entry) -> str:
        return (self.course.root / "feedback" / entry.id / ASSIGNMENT / f"{ASSIGNMENT}.html").read_text("utf-8")


def chosen() -> list[Entry]:
    return [e for e in ENTRIES if SANDBOXED or not e.needs_sandbox]


@pytest.fixture(scope="module")
def run(tmp_path_factory, released, solutions) -> Iterator[Run]:
    """The whole zoo, once: zip → attempts → graded in the sandbox → meters → gradebook → pages and export."""
    folder = tmp_path_factory.mktemp("zoo")
    scratch = Path(tempfile.mkdtemp(prefix="zoo-"))
    course, listener = Course(folder / "curso"), Listener()
    kit = Kit(released, solutions, course.root, ROOT, listener.port)
    write_roster(course.root / "alumnos.csv")
    untouchable = canaries(course, folder)
    pack(kit, folder / "entregas.zip")
    command = [sys.executable, "-m", "minilab_grading", "ciclo", ASSIGNMENT, str(folder / "entregas.zip")]
    options = ["--curso", str(course.root), "--procesos", "3", "--medir", "contado", "--vllm", "traza"]
    try:
        done = subprocess.run(
            [*command, *options, *([] if SANDBOXED else ["--sin-aislar"])],
            env={**os.environ, "TMPDIR": str(scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=LIMIT_S,
        )
        assert (course.root / "gradebook.db").is_file(), done.stdout[-4000:]
        marks = course.marks(ASSIGNMENT)
        yield Run(course, done.stdout, done.returncode, marks, untouchable, scratch, listener)
    finally:
        listener.close()
        shutil.rmtree(scratch, ignore_errors=True)


def write_roster(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as output:
        rows = csv.writer(output)
        rows.writerow(("id", "nombre", "apellidos", "correo", "moodle_id", "canvas_id"))
        for number, entry in enumerate(ENTRIES, 1):
            rows.writerow((entry.id, entry.name, entry.kind, f"{entry.id}@example.org", 1000 + number, 2000 + number))


def canaries(course: Course, folder: Path) -> dict[Path, str]:
    """What no submission may change, with its hash: settings, roster, secret, release, and another course beside."""
    course.generate(ASSIGNMENT)
    (course.root / "secreto.txt").write_text("5ec2e70" * 9 + "0", encoding="ascii")
    (course.root / "secreto.txt").chmod(0o600)
    other = folder / "otro_curso"
    other.mkdir()
    shutil.copy(course.root / "gradebook.db", other / "gradebook.db")
    fixed = [course.root / name for name in ("curso.toml", "alumnos.csv", "secreto.txt", "nbgrader_config.py")]
    fixed += [p for part in ("source", "release") for p in (course.root / part).rglob("*.ipynb")]
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in (*fixed, other / "gradebook.db")}


def pack(kit: Kit, path: Path) -> None:
    """One zip with everybody's files, with the names and the links as they are.

    Attempts are graded by date: those that wait for a limit come first, while the others keep the processors busy.
    """
    order = sorted(chosen(), key=lambda e: e.kind != "harm")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as output:
        for minute, entry in enumerate(order):
            for name, content in entry.files(kit).items():
                info = zipfile.ZipInfo(name, (2026, 11, 20, 8 + minute // 60, minute % 60, 0))
                info.create_system, info.compress_type = 3, zipfile.ZIP_DEFLATED
                linked = isinstance(content, Link)
                info.external_attr = (stat.S_IFLNK | 0o777 if linked else stat.S_IFREG | 0o644) << 16
                output.writestr(info, content.target if linked else content)


def test_the_zoo_is_large_and_of_every_kind():
    assert len(ENTRIES) == len({e.id for e in ENTRIES}) >= 34
    assert {e.kind for e in ENTRIES} == {"honest", "cheat", "damage", "harm"}
    assert all(e.marks.keys() == FULL.keys() and e.story for e in ENTRIES)
    assert sum(v for v in FULL.values() if v is not None) == 90


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.id)
def test_marks_are_those_written_down(run, entry):
    if not SANDBOXED and entry.needs_sandbox:
        pytest.skip("this machine has no sandbox: code that would hurt it, or look around, is not run")
    assert run.marks[entry.id] == pytest.approx(entry.marks, abs=entry.tolerance), entry.story


@pytest.mark.parametrize("entry", chosen(), ids=lambda e: e.id)
def test_everybody_gets_a_page_that_runs_nothing(run, entry):
    page = run.page(entry)
    assert '<html lang="es">' in page and all(text in page for text in entry.page)
    assert not [text for text in entry.not_on_page if text in page]


def test_only_who_was_handed_in_has_marks(run):
    assert run.marks.keys() == {e.id for e in chosen()}


def test_names_that_lead_out_of_the_zip_are_refused_and_told(run):
    assert not list(run.course.root.parent.rglob(f"{MARKER}*"))
    for name in ("../../gradebook.db", f"../{MARKER}.ipynb", "enlazada.ipynb", "carpeta_enlazada", "bomba.ipynb"):
        assert name in run.output


def test_course_holds_what_it_held(run):
    now = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in run.untouchable}
    assert now == run.untouchable


def test_gradebook_has_the_points_of_the_release(run):
    with run.course.gradebook() as gradebook:
        for submission in gradebook.assignment_submissions(ASSIGNMENT):
            assert (submission.max_score, submission.score <= 90) == (100, True), submission.student.id


def test_nothing_is_left_on_the_machine(run):
    assert list(run.scratch.iterdir()) == []
    assert [p for folder in PUBLIC_FOLDERS for p in Path(folder).glob(f"{MARKER}*")] == []
    assert running(MARKER) == running(str(run.scratch)) == []


def running(text: str) -> list[str]:
    """Command lines of processes that contain ``text``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if text in line]


def test_nobody_reached_the_network(run):
    assert run.listener.visits == []


def test_exported_names_are_no_formulas(run):
    files = list((run.course.root / "notas").glob("*.csv"))
    assert files
    for file in files:
        with file.open(encoding="utf-8-sig", newline="") as rows:
            cells = [cell for row in csv.reader(rows) for cell in row]
        assert any("HYPERLINK" in cell for cell in cells)
        assert not [
            cell for cell in cells if cell.lstrip(" '\"")[:1] in "=+@" and "HYPERLINK" in cell and cell[0] != "'"
        ]


def test_every_record_verifies(run):
    command = [sys.executable, "-m", "minilab_grading", "verificar", "--curso", str(run.course.root)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
