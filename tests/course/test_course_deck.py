"""Decks: one idea a slide, notes with minutes on each, nothing that shows Deckset syntax, and marp-cli builds them."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

SLIDES = Path(__file__).resolve().parents[2] / "slides"
_spec = importlib.util.spec_from_file_location("slides_construir", SLIDES / "construir.py")
construir = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(construir)

DIRECTIVE = re.compile(r"^\s*_?\w+:\s")
MINUTES = re.compile(r"\[(\d+) min\]")


class Slide:
    """Text, notes and class of one slide."""

    def __init__(self, markdown: str):
        comments = re.findall(r"<!--(.*?)-->", markdown, re.S)
        self.notes = [c.strip() for c in comments if not DIRECTIVE.match(c)]
        self.classes = re.findall(r"<!--\s*_class:\s*(\w+)", markdown)
        self.text = re.sub(r"<!--.*?-->", "", markdown, flags=re.S).strip()
        self.code = re.findall(r"^```\w*\n(.*?)^```", self.text, re.S | re.M)
        self.minutes = sum(int(m) for note in self.notes for m in MINUTES.findall(note))


def read(deck: Path) -> tuple[str, list[Slide]]:
    _, front, body = deck.read_text(encoding="utf-8").split("---\n", 2)
    return front, [Slide(d) for d in re.split(r"^---$", body, flags=re.M)]


DECKS = construir.decks()


@pytest.fixture(params=DECKS, ids=lambda d: d.stem)
def deck(request):
    return request.param


def test_there_is_a_deck():
    assert [d.name for d in DECKS] == ["modulo3.md"]


def test_front_matter_sets_language_theme_and_title(deck):
    front, _ = read(deck)
    for line in ("marp: true", "lang: es", "theme: aula", "title: ", "description: "):
        assert line in front


def test_each_slide_has_one_title_and_notes_with_minutes(deck):
    for number, d in enumerate(read(deck)[1], 1):
        without_code = re.sub(r"^```.*?^```", "", d.text, flags=re.S | re.M)
        assert len(re.findall(r"^##? ", without_code, re.M)) == 1, number
        assert len(d.notes) == 1 and d.minutes > 0, f"slide {number} needs notes that start with [N min]"
        assert len(d.notes[0]) > 60, number


def test_slides_stay_short(deck):
    for number, d in enumerate(read(deck)[1], 1):
        assert sum(len(c.splitlines()) for c in d.code) <= 12, number
        prose = re.sub(r"^```.*?^```|!\[.*?\]\(.*?\)|<p class=.pie.>.*?</p>|\|", "", d.text, flags=re.S | re.M)
        assert len(prose.split()) <= 85, (number, len(prose.split()))


def test_no_deckset_notes_nor_unfinished_text(deck):
    text = deck.read_text(encoding="utf-8")
    assert not re.search(r"^\^", text, re.M) and "TODO" not in text
    assert not re.search(r"https?://(?!localhost)", text), "decks load nothing from the network"


def test_images_exist_and_have_alternative_text(deck):
    images = re.findall(r"!\[(.*?)\]\((.*?)\)", deck.read_text(encoding="utf-8"))
    assert images
    for alt, path in images:
        assert (SLIDES / path).is_file() and len(re.sub(r"^w:\d+ ", "", alt)) > 40


def test_minutes_add_up_to_the_class():
    _, slides = read(SLIDES / "modulo3.md")
    lecture = sum(d.minutes for d in slides if "demo" not in d.classes)
    demo = sum(d.minutes for d in slides if "demo" in d.classes)
    assert (lecture, demo) == (20, 10)


def test_kv_cache_figures_follow_from_the_model_shape():
    from minillm_serve.model.config import ModelConfig

    smollm = ModelConfig.from_hf(
        {
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
        }
    )
    text = (SLIDES / "modulo3.md").read_text(encoding="utf-8")
    per_token = 2 * smollm.num_layers * smollm.num_kv_heads * smollm.head_dim * 4
    assert per_token == 46_080 and "46\\,080" in text and f"{per_token // 1024} KiB por token" in text
    assert f"{50 * 1000 * per_token / 2**30:.1f} GiB".replace(".", ",") in text


def test_figures_come_from_the_report_or_say_that_nobody_measured():
    report = {"baseline_tok_s": 14.96, "environment": {"cores": 2}}
    assert construir.fill("{{ baseline_tok_s }} y {{ environment.cores }}", report) == "15,0 y 2"
    assert construir.fill("{{ baseline_tok_s }}", None) == "sin medir"
    with pytest.raises(construir.DeckError, match="make demo"):
        construir.fill("{{ otra.clave }}", report)


def test_lock_file_names_no_registry():
    lock = (SLIDES / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock and "@marp-team/marp-cli" in lock


def test_marp_builds_the_deck_to_html(deck, tmp_path):
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not installed: the decks cannot be built here")
    try:
        construir.marp()
    except construir.DeckError as error:
        pytest.skip(f"marp-cli cannot be installed here: {error}")
    page = construir.build(deck, tmp_path).read_text(encoding="utf-8")
    assert '<html lang="es"' in page and "<title>Módulo 3" in page
    assert page.count("<section") == len(read(deck)[1])
    assert "Di qué se llevan hoy" in page, "speaker notes travel with the page"
    assert "{{" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)
