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

DIRECTIVA = re.compile(r"^\s*_?\w+:\s")
MINUTOS = re.compile(r"\[(\d+) min\]")


class Diapositiva:
    """Text, notes and class of one slide."""

    def __init__(self, markdown: str):
        comentarios = re.findall(r"<!--(.*?)-->", markdown, re.S)
        self.notas = [c.strip() for c in comentarios if not DIRECTIVA.match(c)]
        self.clases = re.findall(r"<!--\s*_class:\s*(\w+)", markdown)
        self.texto = re.sub(r"<!--.*?-->", "", markdown, flags=re.S).strip()
        self.codigo = re.findall(r"^```\w*\n(.*?)^```", self.texto, re.S | re.M)
        self.minutos = sum(int(m) for nota in self.notas for m in MINUTOS.findall(nota))


def lee(deck: Path) -> tuple[str, list[Diapositiva]]:
    _, frente, cuerpo = deck.read_text(encoding="utf-8").split("---\n", 2)
    return frente, [Diapositiva(d) for d in re.split(r"^---$", cuerpo, flags=re.M)]


DECKS = construir.decks()


@pytest.fixture(params=DECKS, ids=lambda d: d.stem)
def deck(request):
    return request.param


def test_there_is_a_deck():
    assert [d.name for d in DECKS] == ["modulo3.md"]


def test_front_matter_sets_language_theme_and_title(deck):
    frente, _ = lee(deck)
    for linea in ("marp: true", "lang: es", "theme: aula", "title: ", "description: "):
        assert linea in frente


def test_each_slide_has_one_title_and_notes_with_minutes(deck):
    for numero, d in enumerate(lee(deck)[1], 1):
        sin_codigo = re.sub(r"^```.*?^```", "", d.texto, flags=re.S | re.M)
        assert len(re.findall(r"^##? ", sin_codigo, re.M)) == 1, numero
        assert len(d.notas) == 1 and d.minutos > 0, f"slide {numero} needs notes that start with [N min]"
        assert len(d.notas[0]) > 60, numero


def test_slides_stay_short(deck):
    for numero, d in enumerate(lee(deck)[1], 1):
        assert sum(len(c.splitlines()) for c in d.codigo) <= 12, numero
        prosa = re.sub(r"^```.*?^```|!\[.*?\]\(.*?\)|<p class=.pie.>.*?</p>|\|", "", d.texto, flags=re.S | re.M)
        assert len(prosa.split()) <= 85, (numero, len(prosa.split()))


def test_no_deckset_notes_nor_unfinished_text(deck):
    texto = deck.read_text(encoding="utf-8")
    assert not re.search(r"^\^", texto, re.M) and "TODO" not in texto
    assert not re.search(r"https?://(?!localhost)", texto), "decks load nothing from the network"


def test_images_exist_and_have_alternative_text(deck):
    imagenes = re.findall(r"!\[(.*?)\]\((.*?)\)", deck.read_text(encoding="utf-8"))
    assert imagenes
    for alt, ruta in imagenes:
        assert (SLIDES / ruta).is_file() and len(re.sub(r"^w:\d+ ", "", alt)) > 40


def test_minutes_add_up_to_the_class():
    _, diapositivas = lee(SLIDES / "modulo3.md")
    clase = sum(d.minutos for d in diapositivas if "demo" not in d.clases)
    demo = sum(d.minutos for d in diapositivas if "demo" in d.clases)
    assert (clase, demo) == (20, 10)


def test_kv_cache_figures_follow_from_the_model_shape():
    from minillm_serve.config import ModelConfig

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
    texto = (SLIDES / "modulo3.md").read_text(encoding="utf-8")
    por_token = 2 * smollm.num_layers * smollm.num_kv_heads * smollm.head_dim * 4
    assert por_token == 46_080 and "46\\,080" in texto and f"{por_token // 1024} KiB por token" in texto
    assert f"{50 * 1000 * por_token / 2**30:.1f} GiB".replace(".", ",") in texto


def test_figures_come_from_the_report_or_say_that_nobody_measured():
    informe = {"baseline_tok_s": 14.96, "environment": {"cores": 2}}
    assert construir.fill("{{ baseline_tok_s }} y {{ environment.cores }}", informe) == "15,0 y 2"
    assert construir.fill("{{ baseline_tok_s }}", None) == "sin medir"
    with pytest.raises(construir.DeckError, match="make demo"):
        construir.fill("{{ otra.clave }}", informe)


def test_lock_file_names_no_registry():
    cerradura = (SLIDES / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in cerradura and "@marp-team/marp-cli" in cerradura


def test_marp_builds_the_deck_to_html(deck, tmp_path):
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not installed: the decks cannot be built here")
    try:
        construir.marp()
    except construir.DeckError as error:
        pytest.skip(f"marp-cli cannot be installed here: {error}")
    pagina = construir.build(deck, tmp_path).read_text(encoding="utf-8")
    assert '<html lang="es"' in pagina and "<title>Módulo 3" in pagina
    assert pagina.count("<section") == len(lee(deck)[1])
    assert "Di qué se llevan hoy" in pagina, "speaker notes travel with the page"
    assert "{{" not in re.sub(r"<script.*?</script>", "", pagina, flags=re.S)
