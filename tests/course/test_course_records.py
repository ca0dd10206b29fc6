"""Records of marks: seeds and signatures, byte equality, tampering found, and grading again from what was kept."""

from __future__ import annotations

import copy
import json
import os
import shutil
import stat
from datetime import UTC, datetime

import nbformat
import pytest
from nbgrader.api import Gradebook

from minilab.pruebas.casos import Case, Result
from minilab_grading import registro
from minilab_grading.arnes.aislamiento import choose_isolation
from minilab_grading.arnes.calificar import CheckMark, Grading
from minilab_grading.casos import cases_of
from minilab_grading.curso import CycleError, intentos
from minilab_grading.curso.carpeta import COURSE_ID
from minilab_grading.curso.paralelo import fingerprint
from minilab_grading.registro import Graded, make_record, read_record, seed_id, seed_of, version, write_record
from minilab_grading.registro.recalificar import regrade
from minilab_grading.registro.verificar import verify

TASK = "P_sirve_y_demuestralo"
MAXIMA = {"prueba_percentil": 4.0, "prueba_reloj_real": 8.0}
MEASURES = {"pares": [[2.5, 0.5], [2.4, 0.5]], "mediana": 4.9, "modo": "reloj contado"}


def grading() -> Grading:
    right = Result("lista vacía", True, expected="SECRETO", got="SECRETO", credit=1.0)
    wrong = Result("lista larga", False, expected="SECRETO", got="SECRETO", hint="Ordena antes.")
    ramp = Result("razón", False, expected="SECRETO", hint="Llena el lote.", note="4,9×", credit=0.5, weight=2.0)
    marks = {
        "prueba_percentil": CheckMark((right, wrong)),
        "prueba_reloj_real": CheckMark((ramp,), "medido en frío", MEASURES),
    }
    return Grading("bwrap", marks)


def graded(**changes) -> Graded:
    fields = {"sha256": "ab" * 32, "fingerprint": "cd" * 32, "notices": ("Se restauró una celda.",), "late_s": 3600}
    return Graded("ana", TASK, TASK, **{**fields, "penalty": 0.4, **changes})


@pytest.fixture
def record(tmp_path):
    return make_record(tmp_path, graded(), grading(), MAXIMA)


# Seeds and the secret.


def test_seeds_depend_on_student_assignment_version_and_course(tmp_path):
    (tmp_path / "otro").mkdir()
    seeds = [
        seed_of(tmp_path, "ana", TASK, "1"),
        seed_of(tmp_path, "ana", TASK, "2"),
        seed_of(tmp_path, "eva", TASK, "1"),
        seed_of(tmp_path, "ana", "otra", "1"),
        seed_of(tmp_path / "otro", "ana", TASK, "1"),
        seed_of(tmp_path, "ana|x", "y", "1"),
        seed_of(tmp_path, "ana", "x|y", "1"),
    ]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == seed_of(tmp_path, "ana", TASK, "1") == seed_of(tmp_path, "ana", TASK)
    with pytest.raises(KeyError, match="hidden cases"):
        seed_of(tmp_path, "ana", "no_existe")


def test_the_public_id_tells_seeds_apart_and_is_not_the_seed(tmp_path):
    seed = seed_of(tmp_path, "ana", TASK)
    public = seed_id(tmp_path, "ana", TASK)
    assert public != seed_id(tmp_path, "eva", TASK) and len(public) == 16
    assert int(public, 16) != seed and f"{seed:016x}" not in public


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_the_secret_is_the_owners_alone_and_a_readable_or_damaged_one_is_refused(tmp_path):
    seed_of(tmp_path, "ana", TASK)
    secret = tmp_path / registro.SECRET_FILE
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [registro.SECRET_FILE], "no temporary copy of the key is left"
    for mode in (0o604, 0o602, 0o620):
        secret.chmod(mode)
        with pytest.raises(CycleError, match="chmod 600"):
            seed_of(tmp_path, "ana", TASK)
    secret.chmod(0o600)
    secret.write_text("corto")
    with pytest.raises(CycleError, match="dañado"):
        seed_of(tmp_path, "ana", TASK)


def test_an_existing_secret_is_never_replaced(tmp_path):
    before = seed_of(tmp_path, "ana", TASK)
    data = (tmp_path / registro.SECRET_FILE).read_bytes()
    registro.make_secret(tmp_path)
    assert (tmp_path / registro.SECRET_FILE).read_bytes() == data and seed_of(tmp_path, "ana", TASK) == before


# What judged.


def test_the_version_covers_what_judges_and_changes_with_it(tmp_path, monkeypatch):
    modules = version._closure()
    cases = f"minilab_grading.casos.{TASK.lower()}"
    judging = {"minilab.pruebas.casos", "minilab.pruebas.planos", "minilab_grading.arnes.trabajador", cases}
    assert judging <= modules.keys() and not {"minilab.graficas", "minilab_grading.exportar"} & modules.keys()
    before = version.harness_version()
    other = tmp_path / "planos.py"
    other.write_bytes(modules["minilab.pruebas.planos"].read_bytes() + b"\n")
    monkeypatch.setattr(version, "_closure", lambda: {**modules, "minilab.pruebas.planos": other})
    version.harness_version.cache_clear()
    assert version.harness_version() != before
    monkeypatch.undo()
    version.harness_version.cache_clear()
    assert version.harness_version() == before


# The record.


def test_a_record_holds_the_verdicts_and_neither_answers_nor_dates(tmp_path, record):
    percentile, clock = record["pruebas"]
    assert (percentile["puntos"], clock["puntos"]) == (2.0, 4.0)
    assert record["puntos_automaticos"] == 6.0 and record["maximo_automatico"] == 12.0
    assert clock["medidas"] == MEASURES and clock["casos"][0]["nota"] == "4,9×"
    assert percentile["casos"][1]["pista"] == "Ordena antes." and percentile["casos"][0]["pista"] == ""
    assert record["aislamiento"] == "bwrap" and {"torch", "transformers"} <= record["entorno"].keys()
    text = registro.to_bytes(record).decode()
    assert "SECRETO" not in text and str(datetime.now(UTC).year) not in text.replace(record["firma"], "")
    assert str(seed_of(tmp_path, "ana", TASK)) not in text
    unmeasured = replaced(grading(), "prueba_reloj_real", CheckMark((Result("razón", False),), "todavía no"))
    assert "torch" not in make_record(tmp_path, graded(), unmeasured, MAXIMA)["entorno"]


def replaced(original: Grading, name: str, mark: CheckMark) -> Grading:
    return Grading(original.isolation, {**original.checks, name: mark})


def test_the_same_grading_gives_the_same_bytes_also_after_a_round_trip(tmp_path, record):
    again = Grading.from_plain(json.loads(json.dumps(grading().to_plain())))
    other = make_record(tmp_path, graded(), again, MAXIMA)
    path = write_record(tmp_path, record)
    assert path.read_bytes() == registro.to_bytes(other)
    assert (
        read_record(path) == record and path.read_bytes().endswith(b"}\n") and "lista vacía" in path.read_text("utf-8")
    )


def test_text_that_is_no_unicode_is_still_written_and_read(tmp_path):
    odd = make_record(tmp_path, graded(notices=("mitad \udc80",)), grading(), MAXIMA)
    path = write_record(tmp_path, odd)
    assert read_record(path)["avisos"] == ["mitad \udc80"] and registro.is_signed(tmp_path, read_record(path))


def test_a_check_without_verdict_or_with_no_number_is_an_error(tmp_path):
    with pytest.raises(KeyError, match="prueba_nueva"):
        make_record(tmp_path, graded(), grading(), {**MAXIMA, "prueba_nueva": 5.0})
    broken = replaced(grading(), "prueba_percentil", CheckMark((Result("x", False, credit=float("nan")),)))
    with pytest.raises(ValueError):
        make_record(tmp_path, graded(), broken, MAXIMA)
    beyond = replaced(grading(), "prueba_percentil", CheckMark((Result("x", True, credit=7.0),)))
    assert make_record(tmp_path, graded(), beyond, MAXIMA)["pruebas"][0]["puntos"] == 4.0


def test_what_is_no_record_is_refused_in_spanish(tmp_path):
    for data in (b"", b"[]", b'{"esquema": "minilab-nota/1"}', b"\xff\xfe", b"[" * 100_000):
        (tmp_path / "nota.json").write_bytes(data)
        with pytest.raises(CycleError, match="Vuelve a calificar"):
            read_record(tmp_path / "nota.json")


# Verification.


def paths_of(value, where=()):
    """Every leaf of a plain value, by its path."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [p for k, v in items for p in paths_of(v, (*where, k))]
    return [where]


def changed(value):
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}x"


def test_every_field_changed_by_one_is_found(tmp_path, record):
    paths = paths_of(record)
    assert len(paths) > 40
    for where in paths:
        forged = copy.deepcopy(record)
        target = forged
        for key in where[:-1]:
            target = target[key]
        target[where[-1]] = changed(target[where[-1]])
        path = write_record(tmp_path / "x", forged)
        assert not verify(path, tmp_path).sound, where
        for extra in (dict(forged), dict(record)):
            extra["otro"] = 1
            assert not verify(write_record(tmp_path / "x", extra), tmp_path).sound
    for key in record:
        assert not verify(write_record(tmp_path / "x", {k: v for k, v in record.items() if k != key}), tmp_path).sound
    assert verify(write_record(tmp_path / "x", record), tmp_path).sound


def test_another_courses_signature_and_a_reformatted_file_are_found(tmp_path, record):
    (tmp_path / "otro").mkdir()
    foreign = registro.sign(tmp_path / "otro", record)
    assert "firma" in verify(write_record(tmp_path / "x", foreign), tmp_path).text()
    path = write_record(tmp_path / "x", record)
    path.write_text(json.dumps(record), encoding="utf-8")
    assert "se tocó" in verify(path, tmp_path).text()
    path.write_bytes(registro.to_bytes(record).replace(b"{\n", b'{\n "alumno": "eva",\n', 1))
    assert not verify(path, tmp_path).sound, "a key written twice"


def test_points_that_do_not_add_up_are_found_even_under_a_good_signature(tmp_path, record):
    def problems(change) -> str:
        wrong = copy.deepcopy(record)
        change(wrong)
        return verify(write_record(tmp_path / "x", registro.sign(tmp_path, wrong)), tmp_path).text()

    assert "sus casos dan 2" in problems(lambda r: r["pruebas"][0].update(puntos=3.0))
    assert "fuera de 0 a 4" in problems(lambda r: r["pruebas"][0].update(puntos=5.0))
    assert "suman 6 y dice 7" in problems(lambda r: r.update(puntos_automaticos=7.0))
    assert "penalización" in problems(lambda r: r["retraso"].update(penalizacion=100.0))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory, solved, released):
    """A course with one graded submission: gradebook, release, attempt, autograded notebook and record."""
    root = tmp_path_factory.mktemp("curso")
    notebook = nbformat.writes(solved)
    attempt = intentos.add(root, TASK, "ana", notebook.encode(), datetime(2026, 3, 1, tzinfo=UTC))
    folder = root / "autograded" / "ana" / TASK
    for path, text in ((folder, notebook), (root / "release" / TASK, nbformat.writes(released))):
        path.mkdir(parents=True)
        (path / f"{TASK}.ipynb").write_text(text, encoding="utf-8")
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}", COURSE_ID) as gradebook, gradebook.db.no_autoflush:
        gradebook.add_assignment(TASK)
        gradebook.add_notebook(TASK, TASK)
        for name, maximum in MAXIMA.items():
            gradebook.add_grade_cell(name, TASK, TASK, max_score=maximum, cell_type="code")
        gradebook.add_student("ana")
        submission = gradebook.add_submission(TASK, "ana")
        for grade in submission.notebooks[0].grades:
            grade.auto_score = {"prueba_percentil": 2.0, "prueba_reloj_real": 4.0}[grade.name]
        gradebook.db.commit()
    made = make_record(root, graded(sha256=attempt.sha256, fingerprint=fingerprint(solved)), grading(), MAXIMA)
    write_record(folder, made)
    return root


@pytest.fixture
def course(made_once, tmp_path):
    root = shutil.copytree(made_once, tmp_path / "curso")
    return root, root / "autograded" / "ana" / TASK


def test_a_record_that_agrees_with_everything_around_it_is_sound(course):
    root, folder = course
    report = verify(root / "autograded", root)
    assert report.sound and "1 notas, 0 con problemas" in report.text()
    assert verify([folder / "nota.json"], root).sound
    with pytest.raises(CycleError, match="minilab-grading calificar"):
        verify(root / "release", root)


def test_a_changed_gradebook_submission_notebook_or_place_is_found(course):
    root, folder = course

    def complaints() -> str:
        return verify(root / "autograded", root).text()

    with Gradebook(f"sqlite:///{root / 'gradebook.db'}", COURSE_ID) as gradebook:
        grade = gradebook.find_grade("prueba_percentil", TASK, TASK, "ana")
        grade.auto_score = 4.0
        gradebook.db.commit()
    assert "prueba_percentil: el libro de notas dice 4 y la nota 2" in complaints()
    kept = next((root / "intentos").rglob(intentos.BYTES))
    kept.write_bytes(kept.read_bytes() + b" ")
    assert "ninguna entrega guardada" in complaints()
    notebook = folder / f"{TASK}.ipynb"
    notebook.write_text(notebook.read_text("utf-8").replace("def percentil(", "def percentil( "), encoding="utf-8")
    assert "no es el que se calificó" in complaints()
    folder.parent.rename(root / "autograded" / "eva")
    assert "es de ana" in complaints() and "carpeta de eva" in complaints()
    (root / "gradebook.db").unlink()
    Gradebook(f"sqlite:///{root / 'gradebook.db'}", COURSE_ID).close()
    assert "el libro de notas no tiene esta entrega" in complaints()


# Grading again.


class Recorded:
    """A meter that may only judge what was recorded."""

    def measure(self, job):
        assert job.measures is not None, "a re-grade measures nothing"
        ratio = min(job.measures["mediana"] / 5, 1.0)
        result = Result("razón", ratio == 1.0, hint="Llena el lote.", note=f"{job.measures['mediana']}×", credit=ratio)
        return CheckMark((result,), measures=job.measures)


@pytest.fixture
def measured_course(tmp_path, solved, released, monkeypatch):
    """A course graded for real, with one check of the lab turned into a measured one."""
    from minilab_grading.arnes import calificar
    from minilab_grading.curso import paralelo
    from minilab_grading.curso.calificacion import maxima_of
    from minilab_grading.registro import recalificar

    def cases(name, seed):
        prelude, imports, checks = cases_of(name, seed)
        quick = {"prueba_percentil": checks["prueba_percentil"]}
        case = Case(name="razón", args=(), hint="", expected=None)
        timed = type(checks["prueba_percentil"])("reloj", "percentil", ("percentil",), (case,), "reloj_real")
        return prelude, imports, {**quick, "prueba_veredicto": timed}

    for module in (calificar, paralelo, recalificar):
        monkeypatch.setattr(module, "cases_of", cases)
    root = tmp_path / "curso"
    path = root / "release" / TASK / f"{TASK}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(nbformat.writes(released), encoding="utf-8")
    maxima = {k: v for k, v in maxima_of(path).items() if k in ("prueba_percentil", "prueba_veredicto")}
    monkeypatch.setattr(recalificar, "maxima_of", lambda released: maxima)

    attempt = intentos.add(root, TASK, "ana", nbformat.writes(solved).encode(), datetime(2026, 3, 1, tzinfo=UTC))
    seed = seed_of(root, "ana", TASK)
    verdict = paralelo.grade_attempt(
        paralelo.Job(attempt.folder, path, TASK, seed, "", root, choose_isolation([root], True), True)
    )
    rebuilt = nbformat.read(attempt.folder / intentos.REBUILT, 4)
    timed = replaced(verdict.grading, "prueba_veredicto", CheckMark((Result("x", False),), measures={"mediana": 4.5}))
    full = calificar.grade_timed(rebuilt, TASK, seed, timed, {"reloj_real": Recorded()}, [root], True)
    handed = Graded("ana", TASK, TASK, attempt.sha256, verdict.fingerprint, verdict.notices)
    return root, write_record(root / "autograded" / "ana" / TASK, make_record(root, handed, full, maxima))


def test_regrading_with_the_recorded_measures_is_byte_equal(measured_course):
    root, path = measured_course
    again = regrade(path, root, {"reloj_real": Recorded()}, allow_unisolated=True)
    assert again.equal and not again.differences and "igual, byte por byte" in again.text()
    assert again.new["pruebas"][1]["casos"][0]["credito"] == 0.9
    assert registro.to_bytes(again.new) == path.read_bytes()


def test_regrading_says_what_differs_and_what_explains_it(measured_course, monkeypatch):
    root, path = measured_course
    old = read_record(path)
    other = copy.deepcopy(old)
    other["arnes"]["sha256"] = "0" * 64
    other["pruebas"][0]["puntos"] -= 1
    other["entorno"]["cpu"] = "otra"
    write_record(path.parent, registro.sign(root, other))
    again = regrade(path, root, {"reloj_real": Recorded()}, allow_unisolated=True)
    text = again.text()
    assert not again.equal and "pruebas[prueba_percentil].puntos" in text
    assert "cambió el calificador" in text and "otro equipo" in text and "aísla de otro modo" not in text
    other = copy.deepcopy(old)
    other["pruebas"][0]["puntos"] -= 1
    write_record(path.parent, registro.sign(root, other))
    assert "nada de lo registrado lo explica" in regrade(path, root, {"reloj_real": Recorded()}, True).text()


def test_regrading_refuses_what_it_cannot_compare(measured_course):
    root, path = measured_course
    with pytest.raises(CycleError, match="medidores de: reloj_real"):
        regrade(path, root, allow_unisolated=True)
    next((root / "intentos").rglob(intentos.BYTES)).write_bytes(b"{}")
    with pytest.raises(CycleError, match="No se conserva la entrega"):
        regrade(path, root, {"reloj_real": Recorded()}, allow_unisolated=True)
    record = read_record(path)
    write_record(path.parent, {**record, "puntos_automaticos": 99.0})
    with pytest.raises(CycleError, match="firma"):
        regrade(path, root, {"reloj_real": Recorded()}, allow_unisolated=True)
