"""The harness: honest code gets its exact mark, a forged answer gets none, and nothing leaks into the worker."""

from __future__ import annotations

import os

import pytest

from minilab.casos import Caso
from minilab_grading.arnes.aislamiento import FUERTE, SinAislamiento, elige_aislamiento
from minilab_grading.arnes.calificar import calificar_prueba, carpetas_del_docente, fuentes_de
from minilab_grading.arnes.sesion import Sesion, TrabajadorCaido
from minilab_grading.casos import casos_de

TAREA = "P_sirve_y_demuestralo"
SEMILLA = 20261121


@pytest.fixture(scope="module")
def aislamiento():
    return elige_aislamiento(carpetas_del_docente(), permitir_ninguno=True)


@pytest.fixture
def fraccion(aislamiento, soluciones):
    """Fraction of the hidden cases of one check passed by the reference with one cell replaced."""

    def evalua(prueba: str, celda: str, codigo: str) -> float:
        preludio, importes, pruebas = casos_de(TAREA, SEMILLA)
        fuentes = {**soluciones, celda: codigo}
        return calificar_prueba(pruebas[prueba], fuentes, preludio, importes, aislamiento).fraccion

    return evalua


@pytest.mark.parametrize("semilla", [0, SEMILLA])
def test_reference_passes_every_hidden_case_for_any_seed(aislamiento, soluciones, semilla):
    preludio, importes, pruebas = casos_de(TAREA, semilla)
    notas = {k: calificar_prueba(p, soluciones, preludio, importes, aislamiento) for k, p in pruebas.items()}
    assert {k: n.fraccion for k, n in notas.items()} == dict.fromkeys(pruebas, 1.0), notas


def test_hidden_cases_depend_on_the_seed_alone():
    iguales = [casos_de(TAREA, 7)[2]["prueba_percentil"].casos for _ in range(2)]
    assert iguales[0] == iguales[1] != casos_de(TAREA, 8)[2]["prueba_percentil"].casos


FALSIFICACIONES = {
    "objeto que se declara igual a todo": (
        "class T:\n    def __eq__(s, o):\n        return True\ndef percentil(v, p):\n    return T()"
    ),
    "float disfrazado": (
        "class T(float):\n    def __eq__(s, o):\n        return True\ndef percentil(v, p):\n    return T(1)"
    ),
    "sale del proceso": "import os\ndef percentil(v, p):\n    os._exit(0)",
    "escribe en el canal": (
        "import os\ndef percentil(v, p):\n    [os.write(f, b'{\"valor\": 1}\\n') for f in range(3, 9)]\n    return 0"
    ),
    "respuesta enorme": "def percentil(v, p):\n    return 'x' * 2_000_000",
    "no se ejecuta": "def percentil(v, p:\n    return 1",
    "memoria sin fin": "def percentil(v, p):\n    return len(bytearray(1 << 34))",
    "sube el límite": (
        "import resource\ndef percentil(v, p):\n    if not v:\n        return None\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
        "    return len(bytearray(1 << 33))"
    ),
}


@pytest.mark.parametrize("nombre", FALSIFICACIONES)
def test_forgery_scores_nothing(fraccion, nombre):
    assert fraccion("prueba_percentil", "percentil", FALSIFICACIONES[nombre]) == 0


def test_partial_answer_gets_partial_credit(fraccion):
    sin_interpolar = "def percentil(v, p):\n    v = sorted(v)\n    return v[round((len(v) - 1) * p / 100)]"
    assert 0 < fraccion("prueba_percentil", "percentil", sin_interpolar) < 1


def test_sequential_client_fails_the_concurrent_cases_only(fraccion, soluciones):
    codigo = soluciones["cliente"].replace("asyncio.gather(*(", "_serie(*(")
    serie = "async def _serie(*cs):\n    return [await c for c in cs]\n"
    assert fraccion("prueba_cliente", "cliente", serie + codigo) == pytest.approx(1 / 3)


def test_infinite_loop_is_cut_off(aislamiento):
    with Sesion(aislamiento, llamada_s=2.0) as sesion, pytest.raises(TrabajadorCaido, match="no respondió"):
        sesion.carga([("celda", "while True:\n    pass")])


def test_reply_to_another_call_is_refused(aislamiento):
    escribe = 'os.write(f, b\'{"n": "1"}\\n\')'
    codigo = f"import os\nfor f in range(3, 9):\n    try:\n        {escribe}\n    except OSError:\n        pass"
    with Sesion(aislamiento) as sesion, pytest.raises(TrabajadorCaido, match="fuera de turno"):
        sesion.carga([("celda", codigo)])


def _ejecuta(aislamiento, cuerpo: str):
    with Sesion(aislamiento) as sesion:
        assert sesion.carga([("celda", cuerpo)]).error is None
        return sesion.llama("f", Caso(nombre="x", args=(), pista=""))


def test_worker_sees_none_of_the_graders_environment(aislamiento, monkeypatch):
    monkeypatch.setenv("SECRETO_DEL_DOCENTE", "1")
    visto = _ejecuta(aislamiento, "import os\ndef f():\n    return dict(os.environ)").valor
    assert "SECRETO_DEL_DOCENTE" not in visto and visto["HOME"] != os.environ.get("HOME")


def test_worker_reaches_no_network(aislamiento):
    if aislamiento.nivel == "ninguno":
        pytest.skip("this machine allows no namespaces")
    codigo = "import socket\ndef f():\n    return socket.create_connection(('127.0.0.1', 9), 1)"
    assert _ejecuta(aislamiento, codigo).mensaje.startswith("[Errno 101]")


def test_gradebook_and_hidden_cases_are_invisible_and_the_cover_stays(tmp_path):
    (tmp_path / "gradebook.db").write_text("notas")
    aislamiento = elige_aislamiento([*carpetas_del_docente(), tmp_path], permitir_ninguno=True)
    if aislamiento.nivel != FUERTE:
        pytest.skip("this machine allows no mount namespaces")
    carpetas = [str(c) for c in (tmp_path, *carpetas_del_docente()) if c.is_dir()]
    codigo = (
        "import os, subprocess\ndef f():\n"
        f"    carpetas = {carpetas!r}\n"
        "    for c in carpetas:\n        subprocess.run(['umount', c], stderr=subprocess.DEVNULL)\n"
        "    return [os.listdir(c) for c in carpetas] + [len(os.listdir('/proc')) > 0]"
    )
    assert _ejecuta(aislamiento, codigo).valor == [[] for _ in carpetas] + [True]


def test_grading_without_isolation_is_refused_unless_allowed(monkeypatch):
    import minilab_grading.arnes.aislamiento as modulo

    monkeypatch.setattr(modulo, "_funciona", lambda orden: False)
    with pytest.raises(SinAislamiento, match="--sin-aislar"):
        modulo.elige_aislamiento([])
    assert modulo.elige_aislamiento([], permitir_ninguno=True).nivel == "ninguno"


def test_first_of_two_copies_of_a_cell_counts(entrega):
    cuaderno = entrega({"percentil": "primera"})
    copia = next(c for c in cuaderno.cells if c.id == "percentil").copy()
    copia.source = "segunda"
    cuaderno.cells.append(copia)
    assert fuentes_de(cuaderno)["percentil"] == "primera"
