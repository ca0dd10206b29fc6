"""Every attempt ever received, as it came, with the verdicts it got: ``intentos/TAREA/ALUMNO/FECHA-SHA/``."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from minilab_grading.arnes.calificar import NOT_MEASURED, Grading
from minilab_grading.curso.carpeta import check_name, write_atomic

BYTES, DATA, REBUILT = "entrega.ipynb", "intento.json", "reconstruida.ipynb"


@dataclass(frozen=True)
class Attempt:
    """when: aware, in UTC. origin: the name it came under, for whoever looks for it."""

    folder: Path
    assignment: str
    student: str
    sha256: str
    when: datetime
    origin: str

    @property
    def data(self) -> bytes:
        return (self.folder / BYTES).read_bytes()


@dataclass(frozen=True)
class Verdict:
    """What grading an attempt gave, kept beside it under the key of submission, seed and version.

    fingerprint: hash of the sources that were graded. written: answered cells that a person reads. problem: why there
    was nothing to grade. provisional: the grader failed or ran out of time, so the next run tries again.
    """

    key: str
    fingerprint: str
    grading: Grading
    notices: tuple[str, ...] = ()
    written: int = 0
    problem: str = ""
    provisional: bool = False

    @property
    def pending(self) -> set[str]:
        """Grade ids that no meter has measured yet."""
        return {name for name, mark in self.grading.checks.items() if mark.notice == NOT_MEASURED}

    def points(self, maxima: dict[str, float], assume: set[str] = frozenset()) -> float:
        """Automatic points; the checks in ``assume`` count in full."""
        return sum(
            points if name in assume else bounded(self.grading.checks[name].fraction, points)
            for name, points in maxima.items()
        )


def bounded(fraction: float, maximum: float) -> float:
    """Points of a check, in [0, maximum], to the cent. ValueError for what is no number."""
    points = round(maximum * fraction, 2)
    if points != points:
        raise ValueError("a verdict that is not a number")
    return min(max(points, 0.0), maximum)


def add(root: Path, assignment: str, student: str, data: bytes, when: datetime, origin: str = "") -> Attempt | None:
    """Keep an attempt; None where this student already handed in the same bytes (the earliest date stays)."""
    sha256 = hashlib.sha256(data).hexdigest()
    home = root / "intentos" / check_name(assignment) / check_name(student)
    if any(home.glob(f"*-{sha256[:16]}")):
        return None
    when = when.astimezone(UTC).replace(microsecond=0)
    attempt = Attempt(home / f"{when:%Y%m%dT%H%M%SZ}-{sha256[:16]}", assignment, student, sha256, when, origin)
    home.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".nuevo-", dir=home))
    try:
        (temporary / BYTES).write_bytes(data)
        plain = {"alumno": student, "tarea": assignment, "sha256": sha256, "hora": when.isoformat(), "origen": origin}
        (temporary / DATA).write_text(json.dumps(plain, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        temporary.rename(attempt.folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return attempt


def attempts(root: Path, assignment: str, student: str = "*") -> list[Attempt]:
    """Kept attempts, the earliest first."""
    found = []
    for path in (root / "intentos" / assignment).glob(f"{student}/[!.]*/{DATA}"):
        plain = json.loads(path.read_text(encoding="utf-8"))
        when = datetime.fromisoformat(plain["hora"])
        found.append(Attempt(path.parent, assignment, plain["alumno"], plain["sha256"], when, plain["origen"]))
    return sorted(found, key=lambda a: (a.when, a.folder.name))


def turns(times: Sequence[datetime], per_day: int) -> list[datetime]:
    """When each attempt of one student may be graded, so that no 24 h hold more than ``per_day`` (0: no limit)."""
    result: list[datetime] = []
    for i, when in enumerate(times):
        bounds = [when]
        if per_day and i >= per_day:
            bounds.append(result[i - per_day] + timedelta(days=1))
        result.append(max(bounds))
    return result


def verdict_path(folder: Path, key: str) -> Path:
    return folder / f"resultado-{key[:16]}.json"


def read_verdict(folder: Path, key: str) -> Verdict | None:
    try:
        plain: dict[str, Any] = json.loads(verdict_path(folder, key).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    plain["grading"] = Grading.from_plain(plain["grading"])
    plain["notices"] = tuple(plain["notices"])
    return Verdict(**plain)


def latest_verdict(folder: Path) -> Verdict | None:
    """The newest verdict of whatever version of harness and cases, of those that are final."""
    for path in sorted(folder.glob("resultado-*.json"), key=lambda p: p.stat().st_mtime_ns, reverse=True):
        verdict = read_verdict(folder, path.stem.removeprefix("resultado-"))
        if not verdict.provisional:
            return verdict
    return None


def with_measured(new: Grading, earlier: Grading, names: Collection[str] | None = None) -> Grading:
    """``new`` with the checks that only ``earlier`` measured; names: those that may be taken, None for all."""
    taken = {
        n
        for n, mark in new.checks.items()
        if mark.notice == NOT_MEASURED and n in earlier.checks and (names is None or n in names)
    }
    return replace(new, checks={n: earlier.checks[n] if n in taken else m for n, m in new.checks.items()})


def write_verdict(folder: Path, verdict: Verdict) -> None:
    plain = asdict(replace(verdict, grading=None))
    plain["grading"] = verdict.grading.to_plain()
    write_atomic(verdict_path(folder, verdict.key), (json.dumps(plain, ensure_ascii=False, indent=1) + "\n").encode())
