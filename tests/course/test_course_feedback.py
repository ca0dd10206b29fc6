"""The feedback page: Spanish, accessible, offline, complete; nothing a student wrote runs, nothing hidden shows."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import minilab_grading
from minilab.pruebas.casos import Result
from minilab_grading import saneado
from minilab_grading.arnes.calificar import NOT_MEASURED, CheckMark, Grading
from minilab_grading.registro import Graded, make_record, write_record
from minilab_grading.retroalimentacion import STYLE, NotaEnLaPagina, page
from minilab_grading.saneado import Headings, clean, markdown, output

TASK = "P_sirve_y_demuestralo"
MAXIMA = {"prueba_percentil": 4.0, "prueba_reloj_real": 8.0}
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
EVIL = [
    "<script>window.pwned = 1</script>",
    "<SCRIPT SRC=https://evil.example/x.js></SCRIPT>",
    "<img src=x onerror=alert(1)>",
    '<img src="https://evil.example/who.png" alt="gato">',
    "![gato](https://evil.example/who.png)",
    "![gato](data:image/svg+xml;base64,PHN2Zz4=)",
    '<iframe src="https://evil.example"></iframe>',
    "<svg onload=alert(1)><use href='https://evil.example/#x'/></svg>",
    "[pulsa](javascript:alert(1))",
    '<a href="jav&#x09;ascript:alert(1)">x</a>',
    '<a href="data:text/html,<script>alert(1)</script>">x</a>',
    "<style>body { background: url(https://evil.example/x) }</style>",
    '<p style="background:url(https://evil.example/x)">x</p>',
    '<form action="https://evil.example"><input name=a><button>x</button></form>',
    '<meta http-equiv="refresh" content="0;url=https://evil.example">',
    '<link rel=stylesheet href="https://evil.example/x.css"><base href="https://evil.example">',
    '<object data="https://evil.example"></object><embed src="https://evil.example">',
    '<video src="https://evil.example" autoplay></video><audio src=x onerror=alert(1)>',
    "<details open ontoggle=alert(1)>x</details>",
    '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
    "</main></body><script>alert(1)</script>",
    "<!-- --!><script>alert(1)</script>",
    '<div id="puntos" class="calificable" onclick=alert(1)>x</div>',
    '<img alt="&lt;script&gt;alert(1)&lt;/script&gt;"><img alt=\'"><script>alert(1)</script>\' src=x>',
    "{{ 7 * 7 }}{% raw %}",
]


class Page(HTMLParser):
    """Tags with their attributes, the text, and what was left open or closed twice."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open, self.wrong = "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag]


def graded_cell(cell: NotebookNode, grade_id: str, **meta) -> NotebookNode:
    kind = {"grade": False, "solution": False, "task": False, "locked": False, "schema_version": 3}
    cell.metadata["nbgrader"] = {**kind, "grade_id": grade_id, **meta}
    return cell


def notebook(*extra: NotebookNode) -> NotebookNode:
    score = {"grade": True, "locked": True, "por_corregir": False}
    return new_notebook(
        cells=[
            new_markdown_cell(
                "# Proyecto P\n\n### Salta un nivel\n\nCon `código`, $a_1$ y\n\n| a | b |\n|---|---|\n| 1 | 2 |"
            ),
            graded_cell(
                new_code_cell("def percentil(v, p):\n    return 'ñ'"),
                "percentil",
                solution=True,
                comment="Bien.\n\nMás.",
            ),
            graded_cell(new_code_cell("comprobar('percentil')"), "prueba_percentil", points=4, score=2.0, **score),
            graded_cell(new_code_cell("comprobar('reloj')"), "prueba_reloj_real", points=8, score=4.0, **score),
            graded_cell(
                new_markdown_cell("Mi respuesta <b>firme</b>."),
                "explica",
                grade=True,
                solution=True,
                points=10,
                score=0.0,
                por_corregir=True,
            ),
            *extra,
        ]
    )


def grading() -> Grading:
    right = Result("lista vacía", True, expected="SECRETO", got="SECRETO", credit=1.0)
    wrong = Result("lista <larga>", False, expected="SECRETO", got="SECRETO", hint="Ordena antes.")
    ramp = Result("razón medida", False, expected="SECRETO", hint="Llena el lote.", note="4,9×", credit=0.5)
    marks = {"prueba_percentil": CheckMark((right, wrong)), "prueba_reloj_real": CheckMark((ramp,), "medido en frío")}
    return Grading("bwrap", marks)


def resources(root: Path, **changes) -> dict:
    data = {"student": "ana", "assignment": TASK, "notebook": TASK, "db_url": f"sqlite:///{root / 'gradebook.db'}"}
    data |= {"score": 5.5, "max_score": 22.0, "late_penalty": 0.5, **changes}
    folder = root / "autograded"
    return {"nbgrader": data, "metadata": {"path": str(folder), "name": TASK}}


def render(root: Path, nb: NotebookNode, record: bool = True, **changes) -> str:
    handed = Graded("ana", TASK, TASK, "ab" * 32, "cd" * 32, ("Se restauró la celda «x» <b>.",), 93_780, 0.5)
    if record:
        write_record(root / "autograded", make_record(root, handed, grading(), MAXIMA))
    folders = [str(Path(minilab_grading.__file__).parent / "plantillas")]
    exporter = HTMLExporter(template_name="retro_es", extra_template_basedirs=folders)
    exporter.register_preprocessor(NotaEnLaPagina, enabled=True)
    return exporter.from_notebook_node(nb, resources(root, **changes))[0]


@pytest.fixture
def feedback(tmp_path):
    return Page(render(tmp_path, notebook()))


def test_the_page_says_the_marks_and_what_each_check_found(feedback):
    text = re.sub(r"\s+", " ", feedback.text)
    assert "Puntuación: 5,5 de 22; falta por leer: explica." in text
    assert "0,5 puntos menos por entrega tardía (1 d 2 h después del plazo)" in text
    assert "1 de 2 comprobaciones superadas." in text and "Aviso: medido en frío." in text
    assert "✔ Superada lista vacía" in text and "✘ No superada lista <larga>Pista: Ordena antes." in text
    assert "◐ A medias (50 %) razón medida — 4,9×" in text
    assert "por leer (de 10)" in text and "2 de 4" in text and "Se restauró la celda «x» <b>." in text
    assert "Comentario de tu docenteBien.Más." in text
    assert "aislamiento: bubblewrap" in text and re.search(r"semilla: [0-9a-f]{16}; firma: [0-9a-f]{12}\.", text)
    assert "SECRETO" not in text and not re.search(r"\b(Score|Comments?|Student|Hint|Warning)\b", text)


def test_the_page_is_well_formed_spanish_and_accessible(feedback):
    assert not feedback.wrong and not feedback.open
    assert (
        feedback.of("html") == [{"lang": "es"}]
        and feedback.of("title")
        and feedback.of("main")
        and feedback.of("footer")
    )
    assert any(m.get("name") == "viewport" for m in feedback.of("meta"))
    levels = [int(tag[1]) for tag, _ in feedback.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels)), levels
    assert {a.get("scope") for a in feedback.of("th")} == {"col", "row"}
    identifiers = [a["id"] for _, a in feedback.tags if a.get("id")]
    assert len(identifiers) == len(set(identifiers))
    links = [a["href"] for a in feedback.of("a")]
    assert len(links) == 3 and all(link.removeprefix("#") in identifiers for link in links)
    assert all(a.get("alt") for a in feedback.of("img"))


def test_the_page_allows_itself_its_own_style_and_nothing_else(tmp_path):
    text = render(tmp_path, notebook())
    (policy,) = (m["content"] for m in Page(text).of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy and "script" not in policy
    assert (
        not re.search(r"\b(?:src|href)=[\"']?(?:https?:)?//", text) and "@import" not in style and "url(" not in style
    )


def harmless(text: str) -> None:
    found = Page(text)
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"script", "iframe", "object", "embed", "form", "input", "link", "base", "svg", "video", "audio"}
    assert tags <= saneado.TAGS | {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "section",
        "h1",
    } | {
        "h2",
        "footer",
    }
    for _, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], attributes
        for name in ("src", "href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "https://", "data:image/png;base64,")), value
            assert name == "href" or not value.startswith("https:")


@pytest.mark.parametrize("evil", EVIL)
def test_nothing_a_student_wrote_runs_or_calls_home(tmp_path, evil):
    html = new_output("display_data", data={"text/html": evil, "text/plain": evil, "application/javascript": evil})
    picture = new_output("display_data", data={"image/png": evil, "image/svg+xml": evil, "text/plain": "figura"})
    stream = new_output("stream", name="stdout", text=evil)
    error = new_output("error", ename="E", evalue=evil, traceback=[evil])
    raw = new_markdown_cell(evil)
    raw.cell_type = "raw"
    code = new_code_cell(evil, outputs=[html, picture, stream, error], metadata={"tags": [evil.replace(",", "")]})
    answer = graded_cell(new_markdown_cell(evil), "otra", grade=True, solution=True, points=1, score=1, comment=evil)
    text = render(tmp_path, notebook(new_markdown_cell(evil), code, answer, raw))
    harmless(text)
    found = Page(text)
    assert not found.wrong and not found.open, "what a student wrote closes nothing of the page's own"
    assert not [a for a in found.of("div") + found.of("p") if a.get("id")]


def test_markup_that_helps_is_kept():
    source = "**fuerte** [enlace](https://x.org) <details><summary>a</summary>b</details>\n\n- uno\n\n~~no~~ `c`"
    html = markdown(source, Headings())
    for part in (
        "<strong>fuerte</strong>",
        '<a href="https://x.org">',
        "<summary>a</summary>",
        "<li>uno",
        "<del>no</del>",
    ):
        assert part in html
    pixel = "data:image/png;base64,iVBORw0KGgo="
    assert markdown(f"![]({pixel})", Headings()) == f'<p><img src="{pixel}" alt="sin descripción"></p>\n'
    assert "imagen que no está en el cuaderno: un gato &amp; más" in markdown("![un gato & más](x.png)", Headings())
    shown = output(new_output("display_data", data={"image/png": "iVBORw0KGgo=\n", "text/plain": "x"}), Headings())
    assert shown == '<img src="data:image/png;base64,iVBORw0KGgo=" alt="Figura que produjo esta celda">'
    assert clean("a<script>b</script>c<style>d", Headings()) == "ac"


@pytest.mark.parametrize(
    "source", ["<b>" * 5000, ">" * 5000, "[" * 5000, "* " * 3000, "<div>" * 3000, "$" * 999, "`" * 4001]
)
def test_text_made_to_break_a_reader_does_not(source):
    assert isinstance(str(markdown(source, Headings())), str)


def test_huge_cells_are_folded_and_cut(tmp_path):
    long = new_code_cell("\n".join(f"x{i} = {i}" for i in range(300)))
    flood = new_code_cell("1", outputs=[new_output("stream", name="stdout", text="y" * 50_000)])
    text = render(tmp_path, notebook(long, flood, new_markdown_cell("z" * 200_000)))
    assert "<summary>Ver código (300 líneas)</summary>" in text and "recortado: 50000 caracteres" in text
    assert len(text) < 200_000


def test_without_an_authentic_record_the_page_has_the_marks_alone(tmp_path):
    text = Page(render(tmp_path, notebook(), record=False)).text
    assert "Puntuación: 5,5 de 22" in text.replace("\n", " ") and text.count("no está disponible") == 2
    path = tmp_path / "autograded" / "nota.json"
    render(tmp_path, notebook())
    path.write_text(path.read_text("utf-8").replace("4,9×", "9,9×"), encoding="utf-8")
    assert "9,9×" not in Page(render(tmp_path, notebook(), record=False)).text
    shutil.copytree(tmp_path, tmp_path / "otro")
    render(tmp_path, notebook())
    assert "lista vacía" not in Page(render(tmp_path, notebook(), record=False, student="eva")).text


def test_a_check_that_waits_for_its_measure_is_not_shown_as_a_zero(tmp_path):
    waiting = CheckMark((Result("razón medida", False, hint="Llena el lote."),), NOT_MEASURED)
    marks = {**grading().checks, "prueba_reloj_real": waiting}
    handed = Graded("ana", TASK, TASK, "ab" * 32, "cd" * 32)
    write_record(tmp_path / "autograded", make_record(tmp_path, handed, Grading("bwrap", marks), MAXIMA))
    text = re.sub(r"\s+", " ", Page(render(tmp_path, notebook(), record=False)).text)
    assert "sin medir (de 8)" in text and "falta por leer: explica; falta por medir: reloj real." in text


def test_a_negative_total_is_shown_as_zero_and_work_in_time_says_nothing_of_lateness(tmp_path):
    assert "Puntuación: 0 de 22" in re.sub(r"\s+", " ", Page(render(tmp_path, notebook(), score=-3.0)).text)
    data = resources(tmp_path, late_penalty=0)["nbgrader"]
    assert page(notebook(), data, None)["retraso"] == "" and "tardía" not in render(
        tmp_path, notebook(), late_penalty=0
    )


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_text_colour_reaches_aa_on_every_background_it_may_stand_on():
    css = STYLE.read_text("utf-8")
    colours = set(re.findall(r"(?<![-\w])color: (#[0-9a-f]{3,6})", css))
    backgrounds = set(re.findall(r"background: (#[0-9a-f]{3,6})", css))
    assert len(colours) >= 6 and len(backgrounds) >= 4
    assert not [(c, b) for c in colours for b in backgrounds if contrast(c, b) < 4.5]
    code = set(re.findall(r"color: (#[0-9A-Fa-f]{3,6})", re.sub(r"background-color: #\w+", "", saneado.CODE_CSS)))
    assert len(code) > 5 and not [c for c in code if contrast(c, "#f6f8fa") < 4.5]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("width", [1280, 380])
def test_a_browser_shows_it_whole_and_runs_nothing(tmp_path, width):
    hostile = [new_markdown_cell(e) for e in EVIL]
    wide = new_code_cell("x = '" + "ñ" * 400 + "'", outputs=[new_output("stream", name="stdout", text="w" * 500)])
    text = render(tmp_path, notebook(*hostile, wide))
    probe = (
        "<script>document.title = JSON.stringify({width: document.documentElement.scrollWidth, view: innerWidth, "
        "pwned: !!window.pwned})</script></body>"
    )
    file = tmp_path / "pagina.html"
    policy = re.search(r'<meta [^>]*"Content-Security-Policy"[^>]*>', text).group()
    file.write_text(text.replace("</body>", probe).replace(policy, ""), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    home = ["--user-data-dir=" + str(tmp_path / "perfil"), "--virtual-time-budget=3000"]
    shown = subprocess.run([*command, *home, file.as_uri()], capture_output=True, text=True, timeout=120).stdout
    title = re.search(r"<title>(.*?)</title>", shown).group(1)
    measured = dict(re.findall(r'"(\w+)":(\w+)', title))
    assert measured["pwned"] == "false" and int(measured["width"]) <= int(measured["view"]), title
