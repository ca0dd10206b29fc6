"""Masks, and other ways to promise JSON: of 18 points, 1.25 for each of seven families, 1.75 for each of three ways to
cut a right document, 2 for the exact set, 1 for obeying the logits and 1 for ending."""

from __future__ import annotations

from zoo.forgeries import BEGGED, REPAIRED
from zoo.kit import LIGHT, NOTHING, Entry

OPEN = """
class Mascara:
    def __init__(self, esquema, vocabulario, fin):
        self.vocabulario = vocabulario
        self.ruego = f"Responde solo con JSON, por favor, según {json.dumps(esquema)}"

    def permitidos(self):
        return list(range(len(self.vocabulario)))

    def acepta(self, id):
        pass
"""
MENDING = """
import re

class Mascara:
    def __init__(self, esquema, vocabulario, fin):
        self.vocabulario, self.fin, self.texto = vocabulario, fin, ""

    def permitidos(self):
        arreglado = re.search(r"\\{.*\\}", self.texto, re.S)
        return [self.fin] if arreglado else sorted({*range(len(self.vocabulario))} - {self.fin})

    def acepta(self, id):
        self.texto += self.vocabulario[id]
"""
LEARNT = """
class Mascara:
    def __init__(self, esquema, vocabulario, fin):
        self.ids = [vocabulario.index(letra) for letra in '{"color":"azul","n":12}' if letra in vocabulario] + [fin]

    def permitidos(self):
        return self.ids[:1]

    def acepta(self, id):
        self.ids = self.ids[1:] or self.ids
"""
ALWAYS_NO = "def es_valida(texto, esquema, fin):\n    return False\n"
LETTER_BY_LETTER = """
class Mascara(Mascara):
    def permitidos(self):
        return [i for i in super().permitidos() if len(self.vocabulario[i]) < 2]
"""

MASKS = (
    Entry(
        id="json_suplicado",
        story="pide el JSON con buenas palabras, y permite todo",
        kind="cheat",
        make=lambda kit: kit.light(cuerpo_json=BEGGED, mascara=OPEN),
        marks={**LIGHT, "prueba_cuerpo_json": 0, "prueba_mascara": 0},
    ),
    Entry(
        id="json_reparado",
        story="recorta y arregla el texto, al escribirlo y al juzgarlo",
        kind="cheat",
        make=lambda kit: kit.light(es_valida=REPAIRED, mascara=MENDING),
        # Of nine faults it mends five; it still tells the empty text and the three that break the schema.
        marks={**LIGHT, "prueba_es_valida": 4 * 4 / 9, "prueba_mascara": 0},
    ),
    Entry(
        id="json_fijo",
        story="escribe siempre el documento del ejemplo público, y da por mala cualquier respuesta",
        kind="cheat",
        make=lambda kit: kit.light(mascara=LEARNT, es_valida=ALWAYS_NO),
        marks={**LIGHT, "prueba_es_valida": 0, "prueba_mascara": 0},
    ),
    Entry(
        id="letra_a_letra",
        story="solo permite tokens de un carácter",
        kind="honest",
        make=lambda kit: kit.fill(mascara=kit.solutions["mascara"] + LETTER_BY_LETTER),
        # Seven families, one cut of three, obeying and ending; forbidding merged tokens costs the rest.
        marks={**NOTHING, "prueba_mascara": 7 * 1.25 + 1.75 + 1 + 1, "explica": 0},
    ),
)
