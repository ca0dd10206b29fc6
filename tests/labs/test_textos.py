"""What readers read is spelled right, uses one name for each thing, and can be followed by everyone."""

from __future__ import annotations

import html.parser
import re
from itertools import pairwise

import pytest

from minilab import construir
from minilab.textos import glosario, ortografia, prosa

SOURCES = construir.sources()
DOCUMENTS = prosa.documents()
ALL = [*SOURCES, *DOCUMENTS]
# Markdown kept apart from code: fences and code spans are blanked, line numbers stay.
FENCES = re.compile(r"^ *(```+|~~~+).*?^ *\1 *$|(?<!`)(`+)(?!`).+?(?<!`)\2(?!`)|<!--.*?-->", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^(#{1,6}) +(?!BEGIN|END)(\S.*)$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)[^)]*\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]*)[^)]*\)")
IMAGE_TAG = re.compile(r"<img\b[^>]*>")
SHORTEST_ALT = 15


def short(path):
    return path.relative_to(prosa.ROOT).as_posix()


def pieces_of(path) -> list[prosa.Piece]:
    return prosa.notebook(path) if path.suffix == ".py" else prosa.page(path)


def markdown_of(path) -> list[prosa.Piece]:
    """The Markdown of a page or of a notebook's cells, without its code."""
    if path.suffix != ".py":
        texts = prosa.page(path)
    else:
        source = path.read_text(encoding="utf-8")
        texts = [
            prosa.Piece(short(path), first, "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines))
            for first, head, lines in prosa.cells(source)
            if "[markdown]" in head
        ]
    return [prosa.Piece(t.file, t.line, FENCES.sub(lambda m: re.sub(r"\S", " ", m[0]), t.text)) for t in texts]


def listed(findings) -> str:
    return "\n" + "\n".join(findings)


# --- the tools themselves ---


def piece(text: str) -> prosa.Piece:
    return prosa.Piece("x.md", 1, text)


@pytest.mark.parametrize(
    "word",
    [
        "verlo",
        "decírselo",
        "guárdala",
        "ábrelo",
        "hazlo",
        "haciéndolo",
        "deténlo",
        "localmente",
        "rápidamente",
        "peticiones",
    ],
)
def test_a_right_word_is_taken(word):
    assert list(ortografia.unknown_words([piece(f"Ahora {word} aquí.")])) == []


@pytest.mark.parametrize(
    "word",
    [
        "petision",
        "guardala",
        "haciendolo",
        "bloqeu",
        "planificacion",
        "numero",
        "mascara",
        "asi",
        "tambien",
        "servidro",
        "rapidamente",
    ],
)
def test_a_wrong_word_is_found_with_its_line(word):
    assert list(ortografia.unknown_words([piece(f"Uno\ndos\ny {word} más")])) == [("x.md:3", word)]


@pytest.mark.parametrize(
    "text",
    [
        "usa `max_tokns` y mira",
        "```python\nprnt(1)\n```",
        "mira https://docs.exmpl.org/abcd y [aquí](otr/archvo.md)",
        "la opción --max-num-seqs y el archivo kernls.py",
        'el prompt «What is the capital of France?» y "Tell me a joke"',
        "en inglés, *continuous batching*",
        "vLLM, PagedAttention, GPU y los SLO",
        '<img alt="una barra" src="xyzw.png"> y $\\alphq$',
    ],
)
def test_what_is_not_spanish_prose_is_skipped(text):
    extra = frozenset({"prompt"})
    assert list(ortografia.unknown_words([piece(text)], extra)) == []


def test_alternative_text_and_link_text_are_prose():
    text = '<img alt="una bara" src="x.png"> y [un enlase](a.md)'
    assert [word for _, word in ortografia.unknown_words([piece(text)])] == ["bara", "enlase"]


def test_strings_docstrings_and_comments_of_code_are_prose(tmp_path):
    source = tmp_path / "L99.py"
    source.write_text(
        "# %% [markdown]\n# # Títlo\n\n# %%\n"
        'def f(x):\n    """Devuelbe algo."""\n    print(f"Hay {x} petisiones en el lote")\n'
        '    return "What is the capital of France?", "ttft_p50"  # un comentaryo\n',
        encoding="utf-8",
    )
    found = list(ortografia.unknown_words(prosa.notebook(source)))
    assert sorted(found) == [
        ("L99.py:2", "Títlo"),
        ("L99.py:6", "Devuelbe"),
        ("L99.py:7", "petisiones"),
        ("L99.py:8", "comentaryo"),
    ]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("el programador decide", "programador"),
        ("la cache KV", "cache"),
        ("guarda en\nalmacenamiento", "almacenamiento"),
        ("mejor rendimiento", "rendimiento"),
        ("una tubería", "tubería"),
        ("esto tenés que verlo", "tenés"),
        ("Ejecute la celda", "Ejecute"),
        ("la fase de\ndecodificación", "fase de decodificación"),
    ],
)
def test_the_linter_finds_a_form_and_says_its_line(text, form):
    [(place, found, better)] = glosario.lint([piece(text)])
    assert found == form and better
    before = text[: text.index(form.split()[0])]
    assert place == f"x.md:{1 + before.count(chr(10))}"


@pytest.mark.parametrize(
    "text", ["la caché KV", "`use_cache`", "que se ejecute la celda", "*KV cache*", "el planificador", "JSON Schema"]
)
def test_the_linter_leaves_the_right_form_alone(text):
    assert list(glosario.lint([piece(text)])) == []


# --- the course's texts ---


@pytest.mark.parametrize("path", ALL, ids=short)
def test_spelling(path):
    found = [f"{place}: {word}" for place, word in ortografia.unknown_words(pieces_of(path))]
    assert found == [], listed(found)


@pytest.mark.parametrize("path", [p for p in ALL if p != glosario.PAGE], ids=short)
def test_one_name_for_each_thing(path):
    found = [f"{place}: {form} → {better}" for place, form, better in glosario.lint(pieces_of(path))]
    assert found == [], listed(found)


@pytest.mark.parametrize("path", prosa.case_modules(), ids=short)
def test_what_a_failed_check_says(path):
    said = prosa.hints(path)
    found = [f"{place}: {word}" for place, word in ortografia.unknown_words(said)]
    found += [f"{place}: {form} → {better}" for place, form, better in glosario.lint(said)]
    assert found == [], listed(found)


def test_the_projects_words_are_sorted_and_each_is_needed():
    lines = [line for line in ortografia.WORDS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert lines == sorted(set(lines), key=lambda word: (word.lower(), word))
    assert ortografia.unneeded_words(prosa.everything()) == []


def test_the_glossarys_page_is_what_the_command_writes():
    assert glosario.PAGE.read_text(encoding="utf-8") == glosario.page(), "run: python -m minilab.textos.glosario"


def test_the_glossary_does_not_contradict_itself():
    terms = glosario.read()["termino"]
    names = [term["es"].lower() for term in terms]
    assert len(names) == len(set(names))
    forms = [form.lower() for entry in [*terms, *glosario.read()["estilo"]] for form in entry["evita"]]
    assert len(forms) == len(set(forms)), {form for form in forms if forms.count(form) > 1}
    assert not set(names) & set(forms)
    assert all(len(term["definicion"]) > 20 and term["definicion"].endswith(".") for term in terms)


@pytest.mark.parametrize("path", ALL, ids=short)
def test_every_image_says_what_it_shows(path):
    found = []
    for text in markdown_of(path):
        for image in IMAGE.finditer(text.text):
            if len(image[1].strip()) < SHORTEST_ALT:
                found.append(f"{text.place(image.start())}: image without a text: {image[2]}")
        for tag in IMAGE_TAG.finditer(text.text):
            alt = re.search(r"""\balt=("([^"]*)"|'([^']*)')""", tag[0])
            if not alt or len(alt[1].strip("\"' ")) < SHORTEST_ALT:
                found.append(f"{text.place(tag.start())}: <img> without alt")
    assert found == [], listed(found)


@pytest.mark.parametrize("path", ALL, ids=short)
def test_nothing_is_left_to_do(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    mark = re.compile(r"\b(TODO|FIXME|XXX|TBD|lorem ipsum)\b")
    assert [f"{short(path)}:{n}" for n, line in enumerate(lines, 1) if mark.search(line)] == []


@pytest.mark.parametrize("path", ALL, ids=short)
def test_headings_go_down_one_step_at_a_time(path):
    headings = [(t.place(h.start()), len(h[1]), h[2]) for t in markdown_of(path) for h in HEADING.finditer(t.text)]
    assert headings, f"{short(path)} has no heading"
    assert [title for _, level, title in headings if level == 1] == [headings[0][2]], f"{short(path)}: one h1, first"
    jumps = [
        f"{place}: «{title}» jumps from level {before} to {level}"
        for (_, before, _), (place, level, title) in pairwise(headings)
        if level > before + 1
    ]
    repeated = [
        f"{place}: «{title}» twice" for place, _, title in headings if [h[2] for h in headings].count(title) > 1
    ]
    assert jumps + repeated == [], listed(jumps + repeated)


@pytest.mark.parametrize("path", ALL, ids=short)
def test_internal_links_lead_somewhere(path):
    base = construir.NOTEBOOK_FOLDER if path.suffix == ".py" else path.parent
    own = {anchor(h[2]) for t in markdown_of(path) for h in HEADING.finditer(t.text)}
    found = []
    for text in markdown_of(path):
        for link in [*LINK.finditer(text.text), *re.finditer(r"(?:href|src)=\"([^\"]+)\"", text.text)]:
            target, _, fragment = link[1].partition("#")
            if re.match(r"(https?|mailto|data):", target):
                continue
            if target and not (base / target).exists():
                found.append(f"{text.place(link.start())}: {link[1]} does not exist")
            elif fragment and not target and fragment.lower() not in own:
                found.append(f"{text.place(link.start())}: no heading for #{fragment}")
    assert found == [], listed(found)


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("path", [*SOURCES, *sorted((construir.LABS / "minilab").glob("*.py"))], ids=short)
def test_colours_stand_out_on_white(path):
    """Of plots and HTML outputs: 3 to 1 for marks, 4.5 to 1 for text. The figures of ``vistas`` have their own test."""
    text = path.read_text(encoding="utf-8")
    found = []
    for colour in re.finditer(r"#[0-9A-Fa-f]{6}\b", text):
        ratio = 1.05 / (luminance(colour[0]) + 0.05)
        is_text = re.search(r"(?<![\w-])color:\s*$", text[: colour.start()])
        if ratio < (4.5 if is_text else 3):
            found.append(f"{short(path)}:{1 + text.count(chr(10), 0, colour.start())}: {colour[0]} {ratio:.1f} to 1")
    for named in re.finditer(r"""\bcolor=["'](?!#)(\w+)["']|style="[^"]*color:\s*(?!#)\w""", text):
        found.append(f"{short(path)}:{1 + text.count(chr(10), 0, named.start())}: a named colour; use minilab.graficas")
    assert found == [], listed(found)


# --- self-assessment ---


class Options(html.parser.HTMLParser):
    """The ``<details>`` of a self-assessment cell: (summary, explanation) of each, and what is still open."""

    def __init__(self):
        super().__init__()
        self.found: list[list[str]] = []
        self.inside: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "details":
            self.found.append(["", ""])
        if tag in ("details", "summary"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag in ("details", "summary"):
            assert self.inside and self.inside.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.inside:
            self.found[-1][self.inside[-1] == "details"] += data


def questions_of(path) -> list[tuple[str, str, list[list[str]]]]:
    """Place, text and options of each question of the notebook's self-assessment."""
    section, questions = False, []
    for text in markdown_of(path):
        body = text.text
        if heading := re.search(r"^## .*Autoevaluación.*$", body, re.MULTILINE):
            section = True
            text = prosa.Piece(text.file, text.line + body.count("\n", 0, heading.end()), body[heading.end() :])
        elif re.search(r"^## ", body, re.MULTILINE):
            section = False
        if section:
            starts = [m.start() for m in re.finditer(r"^\*\*\w+[.)]", text.text, re.MULTILINE)] + [len(text.text)]
            for start, end in pairwise(starts):
                parser = Options()
                parser.feed(text.text[start:end])
                assert parser.inside == [], f"{text.place(start)}: <{parser.inside[-1]}> is not closed"
                questions.append((text.place(start), text.text[start:end], parser.found))
    return questions


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_every_option_of_the_self_assessment_is_explained(path):
    questions, found = questions_of(path), []
    assert 3 <= len(questions) <= 5, f"{short(path)}: {len(questions)} questions (each starts with **A. …**)"
    for place, text, options in questions:
        if "?" not in text.partition("<details>")[0]:
            found.append(f"{place}: no question mark")
        if len(options) < 2:
            found.append(f"{place}: {len(options)} options")
        found += [f"{place}: option without an explanation: {s.strip()}" for s, e in options if len(e.split()) < 4]
        right = sum(bool(re.match(r"\s*(Correcto|Sí\b|Exacto|Verdadero|Bien)", e)) for _, e in options)
        if right != 1:
            found.append(f"{place}: {right} options begin their explanation with «Correcto»")
    assert found == [], listed(found)
