"""Answers that only look right: objects, patched comparisons, learnt answers, values that are none."""

from __future__ import annotations

import copy

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from zoo.kit import LIGHT, Entry, Kit, grade_id_of, is_check

EQUAL = """
class Igual:
    def __eq__(self, otro):
        return True
    def __hash__(self):
        return 0
    def __len__(self):
        return 4
    def __iter__(self):
        return iter(("ratio", "ratio_lote", "json_pct", "cumple"))
    def __getitem__(self, clave):
        return self
    def __float__(self):
        return 1.0
    __bool__ = __contains__ = lambda self, *_: True
    __ge__ = __gt__ = __le__ = __lt__ = __eq__

"""
SUBCLASSES = {
    "prediccion": """
class Numero(float):
    __gt__ = lambda self, otro: True

def mi_prediccion():
    return {"contra_una_a_una": Numero(9), "contra_lote": Numero(2)}
""",
    "cuerpo_json": """
class Texto(str):
    __eq__ = lambda self, otro: True
    __hash__ = str.__hash__

class Cuerpo(dict):
    get = lambda self, *_: Texto("json_schema")
    __contains__ = lambda self, clave: clave != "guided_json"

def cuerpo_json(pregunta, esquema, max_tokens=512):
    return Cuerpo(messages=[{"role": Texto("user"), "content": Texto(pregunta)}], max_tokens=9)
""",
    "es_valida": """
class Entero(int):
    __eq__ = lambda self, otro: True

def es_valida(texto, esquema, fin):
    return Entero(1)
""",
    "veredicto": """
class Informe(dict):
    keys = lambda self: {"ratio", "ratio_lote", "json_pct", "cumple"}
    __eq__ = lambda self, otro: True

def veredicto(informe):
    return Informe()
""",
}
FORMATTER = """
import json

class Cifra(float):
    __repr__ = __str__ = __format__ = lambda self, *_: "5.0"

json.encoder.FLOAT_REPR = repr = format = lambda *_: "5.0"
json.encoder.c_make_encoder = None

def veredicto(informe):
    return {"ratio": Cifra(), "ratio_lote": Cifra(), "json_pct": Cifra(), "cumple": True}
"""
PATCHED_JSON = """
import json, sys
_antes = json.dumps

def _falsa(valor, *args, **opciones):
    if isinstance(valor, dict) and "n" in valor:
        valor = {"n": valor["n"], "valor": True, "passed": True, "credit": 1.0, "fraction": 1.0, "superado": True}
    return _antes(valor, *args, **opciones)

json.dumps = _falsa

def cuerpo_json(pregunta, esquema, max_tokens=512):
    return {}
"""
PATCHED_JUDGE = """
import builtins, importlib.abc, sys

for modulo in list(sys.modules.values()):
    for nombre in ("equal", "judge_case", "play_case", "to_plain", "missed"):
        if hasattr(modulo, nombre):
            setattr(modulo, nombre, lambda *a, **k: True)

class Importador(importlib.abc.MetaPathFinder):
    def find_spec(self, nombre, ruta, destino=None):
        return None

sys.meta_path.insert(0, Importador())
builtins.type = lambda *a: float
builtins.isinstance = lambda *a: True
builtins.all = builtins.any = lambda *a: True

def veredicto(informe):
    return {"ratio": 9.0, "ratio_lote": 9.0, "json_pct": 100.0, "cumple": True}
"""
ASSERT_REMOVER = """
import ast

class SinAserciones(ast.NodeTransformer):
    def visit_Assert(self, nodo):
        return ast.Pass()

try:
    get_ipython().ast_transformers.append(SinAserciones())
    get_ipython().user_ns["comprobar"] = lambda *a: None
except NameError:
    comprobar = lambda *a: None

def cuerpo_json(pregunta, esquema, max_tokens=512):
    return "sí"
"""
# The public cases, learnt by heart. Anything else is a KeyError.
LEARNT = {
    "percentil": """
def percentil(valores, p):
    return {(3.0, 1.0, 2.0, 50): 2.0, (1.0, 2.0, 3.0, 4.0, 50): 2.5, (10.0, 20.0, 95): 19.5}[(*valores, p)]
""",
    "veredicto": """
def veredicto(informe):
    clave = (informe["baseline_tok_s"], informe["minillm_tok_s"], informe["json_valid"])
    publicos = {(10.0, 60.0, 50): (6.0, 1.5, 100.0, True), (10.0, 60.0, 49): (6.0, 1.5, 98.0, False)}
    ratio, lote, pct, bien = publicos[clave]
    return {"ratio": ratio, "ratio_lote": lote, "json_pct": pct, "cumple": bien}
""",
    "es_valida": """
def es_valida(texto, esquema, fin):
    return {'{"name": "Ana", "age": 3}': True, '{"name": "Ana"}': False}[texto]
""",
}
EXCEPTIONS = {
    "prediccion": "def mi_prediccion():\n    raise BaseException('nadie me espera')\n",
    "cuerpo_json": "def cuerpo_json(pregunta, esquema, max_tokens=9):\n    raise KeyboardInterrupt\n",
    "es_valida": "def es_valida(texto, esquema, fin):\n    raise GeneratorExit\n",
    "veredicto": "def veredicto(informe):\n    return veredicto(informe)\n",
    "percentil": "def percentil(valores, p):\n    raise type('E' * 10**6, (Exception,), {})('m' * 10**7)\n",
}
ODD_VALUES = {
    "prediccion": "def mi_prediccion():\n    return {'contra_una_a_una': float('nan'), 'contra_lote': 10**5000}\n",
    "cuerpo_json": "def cuerpo_json(pregunta, esquema, max_tokens=9):\n    yield {'messages': []}\n",
    "es_valida": "def es_valida(texto, esquema, fin):\n    return 'v' * (20 << 20)\n",
    "veredicto": """
def veredicto(informe):
    valor = {}
    valor["ratio"] = valor
    hondo = []
    for _ in range(10**5):
        hondo = [hondo]
    return valor if informe["json_valid"] == 50 else hondo
""",
    "percentil": "def percentil(valores, p):\n    return '\\ud800' if len(valores) % 2 else {1: 2, None: {3}}\n",
}
REPAIRED = """
import re

def es_valida(texto, esquema, fin):
    trozo = re.search(r"\\{.*?\\}", texto + "}", re.S)
    try:
        jsonschema.validate(json.loads(trozo[0]), esquema)
    except Exception:
        return False
    return True
"""
BEGGED = """
def cuerpo_json(pregunta, esquema, max_tokens=512):
    ruego = f"{pregunta}\\nResponde SOLO con JSON válido según este esquema, por favor: {json.dumps(esquema)}"
    return {"messages": [{"role": "user", "content": ruego}], "max_tokens": max_tokens}
"""
GUIDED = """
def cuerpo_json(pregunta, esquema, max_tokens=512):
    mensajes = [{"role": "user", "content": pregunta}]
    return {"messages": mensajes, "max_tokens": max_tokens, "extra_body": {"guided_json": esquema}}
"""
GENEROUS = "def veredicto(i):\n    return {'ratio': 9.0, 'ratio_lote': 9.0, 'json_pct': 100.0, 'cumple': True}\n"


def equal_to_all(kit: Kit) -> NotebookNode:
    answers = {"veredicto": "informe", "es_valida": "texto, esquema, fin", "cuerpo_json": "pregunta, esquema"}
    cells = {n: f"{EQUAL}\ndef {n}({a}):\n    return Igual()\n" for n, a in answers.items()}
    return kit.light(**cells)


def edited_checks(kit: Kit) -> NotebookNode:
    """Checks that say yes, and are worth a hundred each, beside an answer that is wrong."""
    notebook = kit.light(veredicto=GENEROUS)
    for cell in notebook.cells:
        if is_check(cell):
            cell.source = "100.0"
            cell.metadata.nbgrader.update(points=100, locked=False)
            cell.metadata.update(deletable=True, editable=True)
    return notebook


def injected_grades(kit: Kit) -> NotebookNode:
    """A check of the student's own worth a thousand points, and a solution cell that claims to be a check."""
    notebook = kit.light()
    check = next(c for c in notebook.cells if grade_id_of(c) == "prueba_percentil")
    for grade_id, points in (("prueba_extra", 1000), ("prueba_percentil", 1000), ("prueba_es_valida", 1000)):
        cell = new_code_cell("1000.0", metadata=copy.deepcopy(check.metadata))
        cell.metadata.nbgrader.update(grade_id=grade_id, points=points)
        notebook.cells.insert(0, cell)
    solution = next(c for c in notebook.cells if grade_id_of(c) == "es_valida")
    solution.metadata.nbgrader.update(grade=True, locked=True, points=500)
    return notebook


def without(*cells: str) -> dict[str, float | None]:
    """The marks of the short cells but for these."""
    return {**LIGHT, **{f"prueba_{c}": 0.0 for c in cells}}


def cheat(id: str, story: str, lost: tuple[str, ...], **cells: str) -> Entry:
    return Entry(id=id, story=story, kind="cheat", make=lambda kit: kit.light(**cells), marks=without(*lost))


FORGERIES = (
    Entry(
        id="igual_a_todo",
        story="un objeto cuyo __eq__ dice que sí",
        kind="cheat",
        make=equal_to_all,
        marks=without("veredicto", "es_valida", "cuerpo_json"),
    ),
    cheat("subclases", "float, str, int y dict disfrazados", tuple(SUBCLASSES), **SUBCLASSES),
    cheat(
        "formateador",
        "números que se escriben como conviene, y un transformador que borra los assert",
        ("veredicto", "cuerpo_json"),
        veredicto=FORMATTER,
        cuerpo_json=ASSERT_REMOVER,
    ),
    # The patched json.dumps is loaded where vLLM's summary is asked for, too, and forges that reply as well.
    cheat(
        "parcheador",
        "cambia json.dumps, el juez que encuentre, y type, isinstance, all",
        ("cuerpo_json", "veredicto", "vllm"),
        cuerpo_json=PATCHED_JSON,
        veredicto=PATCHED_JUDGE,
    ),
    # The summary uses the learnt percentile, so that it goes as well, here and against vLLM.
    cheat(
        "memorizada",
        "las respuestas públicas, de memoria",
        ("percentil", "resume", "es_valida", "veredicto", "vllm"),
        **LEARNT,
    ),
    cheat(
        "excepciones",
        "lanza lo que nadie atrapa, y recursión sin fin",
        ("prediccion", "cuerpo_json", "es_valida", "veredicto", "percentil", "resume", "vllm"),
        **EXCEPTIONS,
    ),
    cheat(
        "valores_raros",
        "NaN, generador, 20 MB, ciclos, medio carácter",
        ("prediccion", "cuerpo_json", "es_valida", "veredicto", "percentil", "resume", "vllm"),
        **ODD_VALUES,
    ),
    cheat("guided_json", "el campo retirado, que nadie obedece", ("cuerpo_json",), cuerpo_json=GUIDED),
    Entry(
        id="pruebas_editadas",
        story="comprobaciones que dicen que sí y valen cien",
        kind="cheat",
        make=edited_checks,
        marks=without("veredicto"),
    ),
    Entry(id="notas_inyectadas", story="celdas de mil puntos propias", kind="cheat", make=injected_grades, marks=LIGHT),
)
