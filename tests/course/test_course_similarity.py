"""Similarity is a lead: copies in disguise are found, independent work is not, and the template does not count."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import nbformat
import pytest

from minilab_grading import similitud
from minilab_grading.curso import CycleError
from minilab_grading.similitud import REFERENCE, compare, fingerprints, of_course, to_csv, to_html, tokens

TASK = "P_sirve_y_demuestralo"
QUEUE = '''
class Planificador:
    """Cola por orden de llegada."""

    def __init__(self, limites):
        self.limites = limites
        self.esperan, self.activas = [], {}
        self.libres = list(range(limites["num_bloques"]))  # todos

    def llega(self, id, prompt, max_nuevos):
        self.esperan.append({"id": id, "texto": list(prompt), "hechos": 0, "bloques": [], "max": max_nuevos})

    def _reserva(self, peticion, hasta):
        faltan = -(-hasta // self.limites["tam_bloque"]) - len(peticion["bloques"])
        if faltan > len(self.libres):
            return False
        for _ in range(max(0, faltan)):
            peticion["bloques"].append(self.libres.pop())
        return True

    def paso(self):
        lote, tokens = [], self.limites["max_tokens"]
        while self.esperan and len(self.activas) < self.limites["max_peticiones"]:
            nueva = self.esperan.pop(0)
            self.activas[nueva["id"]] = nueva
        for peticion in self.activas.values():
            n = min(tokens, len(peticion["texto"]) - peticion["hechos"])
            if n > 0 and self._reserva(peticion, peticion["hechos"] + n):
                trozo = peticion["texto"][peticion["hechos"] : peticion["hechos"] + n]
                lote.append({"id": peticion["id"], "desde": peticion["hechos"], "tokens": trozo})
                peticion["hechos"] += n
                tokens -= n
        return lote
'''
DISGUISED = '''
import collections

class Planificador:
    # mi propia versión

    def paso(self):
        """Hace un paso del motor."""
        batch: list = []
        budget = self.conf["max_tokens"]
        batch, budget = [], self.conf["max_tokens"]
        while self.waiting and len(self.running) < self.conf["max_peticiones"]:
            fresh = self.waiting.pop(0)
            self.running[fresh["ident"]] = fresh
        for req in self.running.values():
            k = min(budget, len(req["seq"]) - req["pos"])
            if (k > 0) and self._alloc(req, req["pos"] + k):
                chunk = req["seq"][req["pos"]:req["pos"] + k]
                batch.append({"id": req["ident"], "desde": req["pos"], "tokens": chunk})
                req["pos"] += k
                budget -= k
        return batch

    def _alloc(self, req: dict, upto: int) -> bool:
        need = -(-upto // self.conf["tam_bloque"]) - len(req["table"])
        if need > len(self.free):
            return False
        for _i in range(max(0, need)):
            req["table"].append(self.free.pop())
        return True

    def llega(self, id, prompt, max_nuevos):
        self.waiting.append({"ident": id, "seq": list(prompt), "pos": 0, "table": [], "limit": max_nuevos})

    def __init__(self, limites):
        self.conf = limites
        self.waiting, self.running = [], {}
        self.free = list(range(limites["num_bloques"]))
'''
INDEPENDENT = """
from collections import deque
from dataclasses import dataclass, field

@dataclass
class Fila:
    quien: int
    ids: list
    limite: int
    lugar: int = 0
    paginas: list = field(default_factory=list)

class Planificador:
    def __init__(self, limites):
        self.cuantas = limites["max_peticiones"]
        self.presupuesto = limites["max_tokens"]
        self.pagina = limites["tam_bloque"]
        self.monton = set(range(limites["num_bloques"]))
        self.cola = deque()
        self.vivas = deque(maxlen=None)

    def llega(self, id, prompt, max_nuevos):
        self.cola.append(Fila(id, [*prompt], max_nuevos))

    def paso(self):
        for _ in range(self.cuantas - len(self.vivas)):
            if not self.cola: break
            self.vivas.append(self.cola.popleft())
        return [pieza for pieza in self._piezas() if pieza["tokens"]]

    def _piezas(self):
        queda = self.presupuesto
        for fila in sorted(self.vivas, key=lambda f: f.lugar):
            quiero = fila.ids[fila.lugar:][:queda]
            fin = fila.lugar + len(quiero)
            while len(fila.paginas) * self.pagina < fin and self.monton:
                fila.paginas.append(self.monton.pop())
            if len(fila.paginas) * self.pagina < fin:
                quiero = []
            yield dict(id=fila.quien, desde=fila.lugar, tokens=quiero, bloques=fila.paginas[:])
            fila.lugar += len(quiero)
            queda -= len(quiero)
"""
STUB = "def percentil(valores, p):\n    # TU CÓDIGO AQUÍ\n    raise NotImplementedError('Falta implementar')"


def pairs(similarity) -> set[tuple[str, str]]:
    return {(p.first, p.second) for p in similarity.pairs}


def test_renaming_comments_annotations_and_reordering_do_not_hide_a_copy():
    found = compare({"ana": {"planificador": QUEUE}, "eva": {"planificador": DISGUISED}, "leo": {"x": INDEPENDENT}})
    assert pairs(found) == {("ana", "eva")}
    (pair,) = found.pairs
    assert pair.fraction > 0.8 and pair.cells[0][0] == "planificador"


def test_names_literals_and_layout_are_no_tokens_of_their_own():
    one = 'def f(a, b):\n    """Doc."""\n    x = a.foo(1) + len("s")  # nota\n    return x'
    other = (
        "def t(uno: int, dos: int) -> int:\n    suma: int = (uno.bar(25)\n        + len('texto'))\n    return (suma)"
    )
    assert tokens(one) == tokens(other)
    assert tokens("f(a) + b") != tokens("f(a) - b") and tokens("a.append(b)") != tokens("a.extend(b)")


def test_a_shared_run_is_always_found_wherever_it_stands():
    shared = "\n".join(f"    total = total * {i} + valores[{i}] - p // (p + {i})" for i in range(3))
    one = f"def f(valores, p):\n{shared}\n    return total"
    other = f"import os\nclass A:\n  def g(self, x, y):\n    for i in range(9):\n      print(i)\n{shared}"
    assert fingerprints(one) & fingerprints(other)
    other = f"def g(valores, p):\n    if p:\n        return sorted(valores)\n{shared}\n    return {{}}"
    assert len(fingerprints(one) & fingerprints(other)) >= len(tokens(shared)) // 5 - 2


def test_code_that_does_not_parse_still_meets_its_origin():
    broken = QUEUE.replace("return lote", "return lote)").replace("peticion", "q")
    with pytest.raises(SyntaxError):
        compile(broken, "x", "exec")
    found = compare({"ana": {"planificador": QUEUE}, "eva": {"planificador": broken}})
    assert pairs(found) == {("ana", "eva")} and found.pairs[0].fraction > 0.7


@pytest.mark.parametrize(
    "source", ["", "'''", "f'{", "\\", "(" * 5000, "\x00", "if x:\n\ty\n  z", "%time f()", "é = 'ñ\n"]
)
def test_any_text_gives_tokens(source):
    assert isinstance(fingerprints(source), set) and isinstance(tokens(source), list)


def test_what_the_stub_brought_does_not_count_and_unanswered_cells_are_noted():
    stub = (
        f"{STUB}\n\ndef _ayuda(x):\n    for i in range(10):\n        print(i, x, [j for j in range(i)])\n    return 0\n"
    )
    blank = {"ana": {"percentil": stub}, "eva": {"percentil": stub}}
    assert pairs(compare(blank, threshold=0.1, shared_min=1)) == {("ana", "eva")}
    found = compare(blank, released={"percentil": stub}, threshold=0.1, shared_min=1)
    assert not found.pairs and any("ana, eva" in note for note in found.notes)


def test_tiny_cells_are_left_out_with_a_note():
    tiny = "def mi_prediccion():\n    return 3"
    found = compare({"ana": {"prediccion": tiny, "p": QUEUE}, "eva": {"prediccion": tiny, "p": INDEPENDENT}})
    assert not found.pairs and any("prediccion" in note and "cortas" in note for note in found.notes)


def test_the_reference_solution_is_compared_too(solutions):
    cells = {k: v for k, v in solutions.items() if k != "explica"}
    renamed = {
        k: re.sub(r"\b(orden|posicion|abajo|arriba|reloj|ttft|flujo|trozo)\b", r"\1_2", v) for k, v in cells.items()
    }
    found = compare({"ana": renamed, "leo": {"planificador": INDEPENDENT}}, reference=cells)
    assert pairs(found) == {("ana", REFERENCE)} and found.pairs[0].fraction == 1.0


def test_a_copy_that_moved_to_another_cell_is_found():
    found = compare({"ana": {"planificador": QUEUE, "mascara": "x = 1"}, "eva": {"mascara": DISGUISED}})
    assert pairs(found) == {("ana", "eva")}


def test_two_hundred_students_cost_one_fingerprinting_each_and_one_intersection_a_pair(monkeypatch):
    read = []
    real = similitud.fingerprints
    monkeypatch.setattr(similitud, "fingerprints", lambda source: read.append(1) or real(source))
    cohort = {
        f"a{i:03}": {"p": f"{QUEUE}\n\ndef extra_{i}(x):\n    return {'+'.join(['x'] * (i + 1))}"} for i in range(200)
    }
    cohort["a199"] = {"p": INDEPENDENT}
    found = compare(cohort)
    assert len(read) == 200 and found.compared == 200 * 199 // 2
    assert len(found.pairs) == 199 * 198 // 2 and found.usual > 0.9


def test_only_a_fraction_is_a_threshold():
    for threshold in (0, -1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="umbral"):
            compare({}, threshold=threshold)
    assert compare({}).pairs == () and compare({"ana": {}}).compared == 0


class Page(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_the_page_is_spanish_calls_it_a_lead_and_escapes_names():
    evil = "<script>alert(1)</script>"
    found = compare({evil: {evil: QUEUE}, "=eva": {"p": DISGUISED}})
    page = Page(to_html(found, "Tarea <1>"))
    assert ("html", {"lang": "es"}) in page.tags and "script" not in {tag for tag, _ in page.tags}
    assert evil in page.text and "indicio" in page.text and "Tarea <1>" in page.text
    assert {a.get("scope") for tag, a in page.tags if tag == "th"} == {"col", "row"}
    assert not [a for _, a in page.tags if "src" in a or "href" in a]
    header, row = csv.reader(io.StringIO(to_csv(found)))
    assert header[0] == "primera" and {row[0], row[1]} == {evil, "'=eva"} and float(row[2]) > 0.8
    assert "Ninguna pareja" in to_html(compare({}), "T")


def test_a_course_folder_is_compared_with_its_release_and_reference(tmp_path, submission, solved, released, solutions):
    def save(folder, notebook):
        path = tmp_path / folder / TASK / f"{TASK}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)

    with pytest.raises(CycleError, match="No hay entregas"):
        of_course(tmp_path, TASK)
    save("release", released)
    save("source", solved)
    save("submitted/ana", submission({"cliente": QUEUE}))
    save("submitted/eva", submission({"cliente": DISGUISED}))
    save("submitted/leo", submission({}))
    found, page, rows = of_course(tmp_path, TASK)
    assert pairs(found) == {("ana", "eva")} and found.compared == 6
    assert "leo" in page.read_text("utf-8") and rows.read_bytes().startswith(b"\xef\xbb\xbf")
    with pytest.raises(CycleError, match="umbral"):
        of_course(tmp_path, TASK, threshold=2)
