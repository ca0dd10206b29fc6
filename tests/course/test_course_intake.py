"""Zips and folders as Moodle, Canvas and people make them: every entry is somebody's, or refused with its reason."""

from __future__ import annotations

import io
import os
import stat
import warnings
import zipfile
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilab_grading.entregas import IntakeError, Roster, Student, abrir, feedback_zip, receive, release_zip
from minilab_grading.entregas.alumnos import is_safe, safe_id

TASK = "P_sirve_y_demuestralo"
ROSTER = Roster(
    (
        Student("ana", "Ana María", "Núñez Gil", "ana@ejemplo.es", "501", "9001"),
        Student("luis", "Luis", "Peña", "luis@ejemplo.es", "502", "9002"),
        Student("zoe", "Zoé", "Peña", "zoe@ejemplo.es"),
    )
)
MOODLE = "Ana María Núñez Gil_501_assignsubmission_file_"


def pack(path, files, date=(2026, 12, 18, 10, 0, 0)):
    """A zip of (name, bytes or ZipInfo-changing function) pairs, in order, duplicates included."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in files:
            info = zipfile.ZipInfo(name, date)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.filename = name
            archive.writestr(info, data)
    return path


def nested(*files, **options):
    buffer = io.BytesIO()
    pack(buffer, files, **options)
    return buffer.getvalue()


def attempts(received):
    return [(r.student, r.notebook) for r in received if not r.problem]


def problems(received):
    return {r.origin: r.problem for r in received if r.problem}


@pytest.mark.parametrize(
    "files",
    [
        [("ana.ipynb", b"1"), ("luis.ipynb", b"2")],
        [("entregas/ana.ipynb", b"1"), ("entregas/luis.ipynb", b"2")],
        [(f"ana/{TASK}.ipynb", b"1"), (f"luis/{TASK}.ipynb", b"2")],
        [(f"ana/{TASK} (1).ipynb", b"1"), ("luis/final.ipynb", b"2")],
        [(f"submitted/ana/{TASK}/{TASK}.ipynb", b"1"), (f"submitted/luis/{TASK}/{TASK}.ipynb", b"2")],
        [(f"{MOODLE}/cuaderno.ipynb", b"1"), (f"Luis Peña_777_assignsubmission_file_/{TASK}.ipynb", b"2")],
        [(f"{MOODLE}{TASK}.ipynb", b"1"), ("Luis Peña_502_assignsubmission_file_x.ipynb", b"2")],
        [("nunezgilanamaria_LATE_9001_33_P.ipynb", b"1"), ("penaluis_9002_34_mi_cuaderno-2.ipynb", b"2")],
        [("ana.zip", nested(("trabajo/x.ipynb", b"1"))), ("luis.zip", nested((f"{TASK}.ipynb", b"2")))],
        [(f"{MOODLE}/todo.zip", nested((f"{TASK}.ipynb", b"1"))), ("luis@ejemplo.es.ipynb", b"2")],
        [
            ("__MACOSX/._ana.ipynb", b"x"),
            ("ana.ipynb", b"1"),
            ("a/.ipynb_checkpoints/z.ipynb", b"x"),
            ("Luis Peña.ipynb", b"2"),
        ],
    ],
)
@pytest.mark.parametrize("as_folder", [False, True])
def test_every_known_layout_finds_its_student(files, as_folder, tmp_path):
    path = pack(tmp_path / "todo.zip", files)
    if as_folder:
        path = tmp_path / "todo"
        with zipfile.ZipFile(tmp_path / "todo.zip") as archive:
            archive.extractall(path)
    received = receive(path, TASK, ROSTER)
    assert attempts(received) == [("ana", b"1"), ("luis", b"2")] and not problems(received)


def test_zip_of_one_person_is_theirs_by_its_own_name(tmp_path):
    assert attempts(receive(pack(tmp_path / "ana.zip", [(f"{TASK}.ipynb", b"1")]), TASK, ROSTER)) == [("ana", b"1")]


def test_name_declared_as_nothing_but_written_in_utf8_is_understood(tmp_path):
    path = pack(tmp_path / "mac.zip", [("Luis Peña.ipynb", b"2")])
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place + 1] &= ~0x08
    path.write_bytes(data)
    assert attempts(receive(path, TASK, ROSTER)) == [("luis", b"2")]


def test_nothing_is_lost_unknown_people_and_other_files_are_listed_with_a_reason(tmp_path):
    files = [
        ("ana.ipynb", b"1"),
        ("eva.ipynb", b"2"),
        ("Luis Peña_502_assignsubmission_file_/informe.pdf", b"%PDF"),
        ("Zoé Peña_502_assignsubmission_file_/x.ipynb", b"3"),
        ("Peña.ipynb", b"4"),
    ]
    received = receive(pack(tmp_path / "z.zip", files), TASK, ROSTER)
    assert attempts(received) == [("ana", b"1")] and len(received) == len(files)
    told = problems(received)
    assert "«eva» no está en alumnos.csv" in told["eva.ipynb"] and "no está" in told["Peña.ipynb"]
    assert "es de «luis» y el nombre, de «zoe»" in told["Zoé Peña_502_assignsubmission_file_/x.ipynb"]
    assert "no es un cuaderno" in told["Luis Peña_502_assignsubmission_file_/informe.pdf"]
    by_origin = {r.origin: r for r in received}
    assert by_origin["Luis Peña_502_assignsubmission_file_/informe.pdf"].student == "luis"
    assert by_origin["eva.ipynb"].notebook == b"2"


def test_one_notebook_counts_in_a_folder_and_resubmissions_are_attempts(tmp_path):
    files = [
        (f"ana/{TASK}.ipynb", b"1"),
        ("ana/borrador.ipynb", b"x"),
        ("luis/a.ipynb", b"x"),
        ("luis/b.ipynb", b"y"),
        ("penazoe_7_8_a.ipynb", b"3"),
        ("penazoe_LATE_7_9_a-1.ipynb", b"4"),
    ]
    received = receive(pack(tmp_path / "z.zip", files), TASK, ROSTER)
    assert attempts(received) == [("ana", b"1"), ("zoe", b"3"), ("zoe", b"4")]
    assert problems(received) == {
        "ana/borrador.ipynb": f"no es {TASK}.ipynb",
        "luis/a.ipynb": f"hay varios cuadernos y no se sabe cuál es {TASK}.ipynb",
        "luis/b.ipynb": f"hay varios cuadernos y no se sabe cuál es {TASK}.ipynb",
    }


@pytest.mark.parametrize("roster", [None, Roster()])
def test_without_roster_ids_come_from_names_and_a_collision_is_refused(roster, tmp_path):
    files = [("José Ñu.ipynb", b"1"), ("eva.ipynb", b"2"), ("Eva/final.ipynb", b"3"), ("日本.ipynb", b"4")]
    received = receive(pack(tmp_path / "z.zip", files), TASK, roster)
    assert attempts(received) == [("Jose_Nu", b"1")]
    told = problems(received)
    assert "mismo id" in told["eva.ipynb"] and "mismo id" in told["Eva/final.ipynb"] and "id" in told["日本.ipynb"]


def link(info):
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16


def device(info):
    info.create_system, info.external_attr = 3, (stat.S_IFCHR | 0o666) << 16


def test_evil_entries_are_refused_one_by_one_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(abrir, "RATIO_FROM", 1 << 16)
    monkeypatch.setattr(abrir, "MAX_BYTES", 1 << 20)
    evil = {
        "../fuera.ipynb": (b"x", "sale de su carpeta"),
        "a/../../fuera.ipynb": (b"x", "sale de su carpeta"),
        "..\\fuera2.ipynb": (b"x", "sale de su carpeta"),
        "/etc/abs.ipynb": (b"x", "absoluta"),
        "C:\\abs.ipynb": (b"x", "absoluta"),
        "con\ntrol.ipynb": (b"x", "caracteres de control"),
        "der\u202eipynb.ipynb": (b"x", "caracteres de control"),
        "ANA.ipynb": (b"x", "solo cambian las mayúsculas"),
        "bomba.ipynb": (b"\0" * 300_000, "se expande demasiado"),
        "enorme.ipynb": (os.urandom((1 << 20) + 1), "el máximo es"),
        "dentro.zip": (nested(("../z.ipynb", b"x")), "sale de su carpeta"),
        "rota.zip": (b"PK no", "dañado"),
    }
    path = tmp_path / "malo.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [
            ("luis.ipynb", b"2"),
            *((name, data) for name, (data, _) in evil.items()),
            ("ana.ipynb", b"1"),
        ]:
            info = zipfile.ZipInfo("x", (2026, 1, 1, 0, 0, 0))
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
        for name, change in (("enlace.ipynb", link), ("aparato.ipynb", device)):
            info = zipfile.ZipInfo(name)
            change(info)
            archive.writestr(info, b"/etc/passwd")
    received = receive(path, TASK, ROSTER)
    told = " | ".join(r.problem for r in received)
    for _, reason in evil.values():
        assert reason in told
    assert "enlace simbólico" in told and "no es un archivo normal" in told
    assert [r.problem for r in received if not r.notebook and not r.problem] == []
    # Which of two names that differ in case alone comes first is the sorted order: ANA before ana.
    assert len(attempts(received)) == 2 and {s for s, _ in attempts(received)} == {"ana", "luis"}
    assert len(received) == len(evil) + 4
    assert all(r.origin.isprintable() for r in received)
    assert [p.name for p in tmp_path.iterdir()] == ["malo.zip"]


def test_total_is_bounded_over_nested_zips_too(tmp_path, monkeypatch):
    budget = abrir.Budget(1000)
    file = tmp_path / "z.zip"
    pack(file, [("a.ipynb", os.urandom(600)), ("b.ipynb", os.urandom(600)), ("c.ipynb", os.urandom(300))])
    found = {e.path: e.problem for e in abrir.entries_of(file, lambda name: True, budget)}
    assert found["a.ipynb"] == found["c.ipynb"] == "" and "desempaquetado" in found["b.ipynb"]


def test_lying_sizes_bad_sums_passwords_and_odd_compressions_are_refused(tmp_path):
    path = pack(tmp_path / "z.zip", [("ana.ipynb", b"hola " * 50), ("luis.ipynb", b"2")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 16] ^= 0xFF
    path.write_bytes(data)
    received = receive(path, TASK, ROSTER)
    assert attempts(received) == [("luis", b"2")] and problems(received) == {"ana.ipynb": "está dañada"}
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "contraseña" in problems(receive(path, TASK, ROSTER))["ana.ipynb"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("ana.ipynb", b"1")
    assert "compresión" in problems(receive(path, TASK, ROSTER))["ana.ipynb"]


def test_links_and_pipes_on_disk_are_never_followed(tmp_path):
    secret = tmp_path / "secreto.ipynb"
    secret.write_bytes(b"secreto")
    folder = tmp_path / "entregas"
    folder.mkdir()
    (folder / "ana.ipynb").write_bytes(b"1")
    (folder / "luis.ipynb").symlink_to(secret)
    (folder / "zoe").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "tubo.ipynb")
    received = receive(folder, TASK, ROSTER)
    assert attempts(received) == [("ana", b"1")]
    assert problems(received) == {
        "luis.ipynb": "es un enlace simbólico",
        "zoe": "es un enlace simbólico",
        "tubo.ipynb": "no es un archivo normal",
    }
    assert all(r.notebook != b"secreto" for r in received)


@settings(max_examples=200, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8), cut=st.integers(0, 400))
def test_any_damaged_zip_is_read_or_refused(flips, cut, tmp_path_factory):
    data = bytearray(nested(("ana.ipynb", b"hola"), ("luis.zip", nested((f"{TASK}.ipynb", b"2")))))
    for place, value in flips:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "danado.zip"
    path.write_bytes(data[: len(data) - cut if cut < 100 else len(data)])
    try:
        received = receive(path, TASK, ROSTER)
    except IntakeError:
        return
    assert all(r.problem or r.student in {"ana", "luis"} for r in received)


@given(st.text(max_size=40))
def test_an_id_made_from_any_name_is_safe_or_refused(name):
    made = safe_id(name)
    assert not is_safe(made) or (made.isascii() and "/" not in made and made not in (".", "..") and made[0] not in ".-")
    assert safe_id(made) == made


def test_times_come_from_the_entry_or_from_a_list_always_in_utc(tmp_path):
    inner = nested((f"{TASK}.ipynb", b"2"), date=(2020, 1, 1, 0, 0, 0))
    path = pack(tmp_path / "z.zip", [("ana.ipynb", b"1"), ("luis.zip", inner)])
    assert [r.when for r in receive(path, TASK, ROSTER)] == [datetime(2026, 12, 18, 10, tzinfo=UTC)] * 2
    times = tmp_path / "momentos.csv"
    times.write_text("id,momento\nana,2026-12-18T23:59:59+01:00\nluis,2026-12-19T00:00:00\n", encoding="utf-8-sig")
    ana, luis = receive(path, TASK, ROSTER, times)
    assert (ana.when, luis.when) == (datetime(2026, 12, 18, 22, 59, 59, tzinfo=UTC), datetime(2026, 12, 19, tzinfo=UTC))
    assert luis.when.utcoffset() == timedelta(0)
    for text, message in (
        ("id,momento\nana,ayer\n", "fila 2"),
        ("id\nana\n", "fila 2"),
        ("id,momento\nana,2026-01-01\nana,2026-01-02\n", "repetido"),
        ("id,momento\neva,2026-01-01\n", "eva"),
    ):
        times.write_text(text, encoding="utf-8")
        with pytest.raises(IntakeError, match=message):
            receive(path, TASK, ROSTER, times)
    undated = pack(tmp_path / "sin.zip", [("ana.ipynb", b"1")], date=(1980, 1, 1, 0, 0, 0))
    os.utime(undated, (1_800_000_000, 1_800_000_000))
    assert receive(undated, TASK, ROSTER)[0].when == datetime.fromtimestamp(1_800_000_000, UTC)


def test_what_is_no_zip_or_folder_is_an_error_that_says_so(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"hola")
    with pytest.raises(IntakeError, match="ni un zip"):
        receive(tmp_path / "x.zip", TASK)
    with pytest.raises(IntakeError, match="No existe"):
        receive(tmp_path / "nada.zip", TASK)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_roster_is_read_as_spreadsheets_write_it(encoding, delimiter, tmp_path):
    text = 'id,nombre,apellidos,correo,moodle_id,canvas_id\r\nana,Ana,"Núñez",a@b.es,501,\r\n\r\nluis,Luis,Peña,,,9\r\n'
    path = tmp_path / "alumnos.csv"
    path.write_bytes(text.replace(",", delimiter).encode(encoding))
    assert Roster.read(path).students == (
        Student("ana", "Ana", "Núñez", "a@b.es", "501", ""),
        Student("luis", "Luis", "Peña", "", "", "9"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nombre\nAna\n", "la primera fila debe ser"),
        ("", "la primera fila debe ser"),
        ("id,edad\nana,3\n", "edad"),
        ("id,id\nana,3\n", "la primera fila"),
        ("id,nombre\nana\n", "fila 2: tiene menos"),
        ("id,nombre\nana,b,c\n", "fila 2: tiene más"),
        ("id,nombre\n,Ana\nluis,L\nluis,M\n", "fila 2: falta el id; fila 4: id «luis» ya está en la fila 3"),
        ("id\nAna\nana\n", "fila 3: id «ana» ya está en la fila 2"),
        ("id\n../ana\n", "fila 2: el id «../ana»"),
        ("id\n.ana\n", "fila 2"),
        ("id\nñu\n", "fila 2"),
        ("id\nCON\n", "fila 2"),
        ("id,moodle_id\nana,=1+1\n", "moodle_id debe ser un número"),
        ("id,moodle_id\nana,5\nluis,5\n", "moodle_id «5» ya está en la fila 2"),
    ],
)
def test_bad_roster_is_refused_with_its_rows(text, message, tmp_path):
    path = tmp_path / "alumnos.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(IntakeError) as caught:
        Roster.read(path)
    assert message in str(caught.value)


def test_roster_in_another_encoding_or_missing_is_an_error(tmp_path):
    path = tmp_path / "alumnos.csv"
    path.write_bytes("id,nombre\nana,Peña\n".encode("latin-1"))
    with pytest.raises(IntakeError, match="UTF-8"):
        Roster.read(path)
    with pytest.raises(IntakeError, match="No se puede leer"):
        Roster.read(tmp_path / "otra.csv")


@pytest.fixture
def course(tmp_path):
    for student in ("luis", "ana"):
        page = tmp_path / "feedback" / student / TASK / f"{TASK}.html"
        page.parent.mkdir(parents=True)
        page.write_text(f"<p>{student}</p>")
    release = tmp_path / "release" / TASK
    (release / "imagenes").mkdir(parents=True)
    (release / f"{TASK}.ipynb").write_text("{}")
    (release / "imagenes" / "a.png").write_bytes(b"png")
    (release / ".ipynb_checkpoints").mkdir()
    (release / ".ipynb_checkpoints" / "x.ipynb").write_text("{}")
    return tmp_path


def names(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def test_zips_out_hold_what_they_should_and_are_the_same_bytes_each_time(course):
    plain = feedback_zip(course, TASK)
    assert names(plain) == ["ana.html", "luis.html"]
    for_moodle = feedback_zip(course, TASK, "moodle", ROSTER)
    assert names(for_moodle) == [f"{MOODLE}/{TASK}.html", f"Luis Peña_502_assignsubmission_file_/{TASK}.html"]
    released = release_zip(course, TASK)
    assert names(released) == [f"{TASK}/LEEME.txt", f"{TASK}/{TASK}.ipynb", f"{TASK}/imagenes/a.png"]
    with zipfile.ZipFile(io.BytesIO(released)) as archive:
        assert f"minilab revisar {TASK}.ipynb" in archive.read(f"{TASK}/LEEME.txt").decode()
    for file in course.rglob("*.*"):
        os.utime(file, (1, 1))
    assert (plain, for_moodle, released) == (
        feedback_zip(course, TASK), feedback_zip(course, TASK, "moodle", ROSTER), release_zip(course, TASK),
    )  # fmt: skip


def test_zips_out_say_what_is_missing(course):
    with pytest.raises(IntakeError, match="de: ana, luis"):
        feedback_zip(course, TASK, "moodle")
    with pytest.raises(IntakeError, match="formato «raro»"):
        feedback_zip(course, TASK, "raro")
    with pytest.raises(IntakeError, match="No hay retroalimentación"):
        feedback_zip(course, "Z")
    with pytest.raises(IntakeError, match="no está publicada"):
        release_zip(course, "Z")
