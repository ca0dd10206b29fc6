"""Comparisons: what is live, what is recorded and what is missing are never taken for one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import minilab.comparar as comparar
from minilab.comparar import __main__ as command
from minilab.comparar import archivos, catalogo, compara
from minilab.comparar.tabla import COLUMNS, Comparativa, Fila, Origen
from minilab.comparar.tarea import Comparison, Part, Task, Unavailable, middle, row
from minilab.modelo import LabModel
from minilab.servidor import Servidor

ROOT = Path(__file__).resolve().parents[2]
LIVE, RECORDED = Origen("vivo", "en vivo, este equipo"), Origen("grabado", "grabado: un archivo", "su equipo")


@pytest.fixture(autouse=True)
def _nothing_asked_for(monkeypatch):
    for name in (*comparar.ADDRESSES.values(), *comparar.SWITCHES.values()):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server(tiny):
    with Servidor(tiny.carpeta) as running:
        yield running


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A clone of the course with nothing measured in it."""
    for folder in ("labs", "reports"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(archivos, "checkout", lambda: tmp_path)
    return tmp_path


def part(system: str, *speeds: float, slow: bool = False) -> Part:
    readings = iter(speeds)
    return Part(
        system, lambda task: [row(system, "caso", f"{system} 1.0", tok_s=next(readings), peticiones=4)], slow=slow
    )


def absent(task: Task):
    raise Unavailable("no está instalado (instálalo)")


def registered(monkeypatch, *parts: Part) -> None:
    monkeypatch.setitem(catalogo.COMPARISONS, "prueba", Comparison("Una prueba", ("peticiones", "tok_s"), parts))


def test_a_ratio_needs_two_figures_that_were_taken_side_by_side():
    rows = (
        Fila("transformers", "una a una", {"tok_s": 10.0}, LIVE),
        Fila("vLLM", "todas a la vez", {"tok_s": 120.0}, RECORDED),
        Fila("transformers", "una a una", {"tok_s": 15.0}, RECORDED),
        Fila("minillm", "todas a la vez", {"tok_s": 80.0}, LIVE),
    )
    table = Comparativa("x", "Título", ("tok_s",), rows)
    assert table.valor("transformers", "una a una", "tok_s") == 10.0
    assert table.valor("transformers", "una a una", "tok_s", "grabado") == 15.0
    assert table.razon(("vLLM", "todas a la vez"), ("transformers", "una a una")) == 8.0
    assert table.razon(("minillm", "todas a la vez"), ("transformers", "una a una")) == 8.0
    assert table.razon(("minillm", "todas a la vez"), ("vLLM", "todas a la vez")) is None
    assert table.valor("TGI", "x", "tok_s") is None


def test_text_and_page_show_the_same_rows_with_their_origins():
    rows = (
        Fila("vLLM", "a < b", {"tok_s": 1234.56, "http": 200}, RECORDED, "vLLM 1.0"),
        Fila("TGI", "", {}, Origen("ausente", "no medido: no hay")),
    )
    table = Comparativa("x", "Título", ("peticiones", "tok_s", "http"), rows)
    text, page = repr(table), table._repr_html_()
    assert "tok/s: 1\u202f234,6" in text and "grabado: un archivo; vLLM 1.0" in text and text.endswith("su equipo")
    assert "<caption>Título</caption>" in page and "a &lt; b" in page and page.count("<tr>") == 3
    assert "peticiones" not in page, "a column that nobody measured is left out"
    assert page.count('scope="row"') == 2 and ">–<" in page


def test_a_note_is_shown_only_beside_what_it_speaks_of():
    own = Fila("tu motor", "", {"tok_s": 3.0}, Origen("tuyo", "medido en este cuaderno"))
    stored = Fila("vLLM", "", {"tok_s": 9.0}, RECORDED)
    missing = Fila("TGI", "", {}, Origen("ausente", "no medido: no hay"))
    for rows, told in (
        ((own, stored), "son de otro momento"), ((stored,), None), ((own, missing), None),
        ((missing,), "no hay ninguna medida"), ((), "no hay ninguna medida"),
    ):  # fmt: skip
        text = repr(Comparativa("x", "Título", ("tok_s",), rows))
        for phrase in ("son de otro momento", "no hay ninguna medida"):
            assert (phrase in text) == (phrase == told), (rows, phrase)


def test_nothing_is_said_of_a_vllm_that_has_no_figure(clone, tiny, monkeypatch):
    registered(monkeypatch, part("minillm", 1.0), Part("vLLM", absent))
    told = catalogo.COMPARISONS["prueba"]
    monkeypatch.setitem(
        catalogo.COMPARISONS, "prueba", Comparison(told.title, told.columns, told.parts, notes=(catalogo.EAGER,))
    )
    assert catalogo.EAGER not in repr(compara("prueba", tiny))


def test_an_unknown_name_lists_the_known_ones(tiny):
    with pytest.raises(KeyError, match="una_contra_cincuenta"):
        compara("nada", tiny)


def test_every_column_of_the_catalogue_has_a_heading():
    for name, comparison in catalogo.COMPARISONS.items():
        assert set(comparison.columns) <= set(COLUMNS), name
        assert comparison.parts or comparison.stored, name


def test_what_is_missing_is_a_row_and_says_what_to_do(clone, tiny, monkeypatch):
    registered(
        monkeypatch, part("minillm", 50.0), Part("transformers", absent), Part("vLLM", absent), Part("TGI", absent)
    )
    table = compara("prueba", tiny)
    told = {r.sistema: r.origen for r in table.filas}
    assert told["minillm"].clase == "vivo"
    assert told["transformers"].texto == "no medido: no está instalado (instálalo)"
    assert "falta labs/medidas/prueba.json" in told["vLLM"].texto
    assert "MINILAB_TGI_URL" in told["TGI"].texto
    assert {o.clase for o in told.values()} == {"vivo", "ausente"}
    assert "no valen como medida" in repr(table) and "MINILAB_VLLM=vivo" in repr(table)


def test_a_damaged_file_and_no_clone_are_sentences_too(clone, tiny, monkeypatch):
    (clone / "reports" / "gpu-h100.json").write_text("{", encoding="utf-8")
    assert "está dañado" in repr(compara("gpu", tiny))
    monkeypatch.setattr(archivos, "checkout", lambda: None)
    assert "no encuentro el repositorio" in repr(compara("gpu", tiny))


def test_recording_takes_turns_keeps_medians_and_is_shown_as_recorded(clone, tiny, monkeypatch, capsys):
    registered(
        monkeypatch, part("vLLM", 30.0, 10.0, 20.0), part("transformers", 5.0, 6.0, 7.0), Part("llama.cpp", absent)
    )
    rows, _ = command.record(catalogo.COMPARISONS["prueba"], Task(Path(tiny.carpeta), True), 3)
    assert [r["valores"]["tok_s"] for r in rows] == [20.0, 6.0] and rows[0]["tandas"] == [30.0, 10.0, 20.0]
    assert "llama.cpp: se deja fuera: no está instalado" in capsys.readouterr().out
    archivos.write(clone, "prueba", rows, True, archivos.order_of("prueba", True, 3), 0.5)
    document = json.loads((clone / "labs" / "medidas" / "prueba.json").read_text(encoding="utf-8"))
    assert set(document) == {"esquema", "medida", "entorno", "orden", "fecha"}
    assert document["orden"] == "python -m minilab.comparar graba prueba --veces 3 --rapido"
    registered(monkeypatch, part("vLLM"), part("transformers", 9.0), Part("llama.cpp", absent))
    table = compara("prueba", tiny)
    assert table.valor("transformers", "caso", "tok_s") == 9.0
    assert table.valor("vLLM", "caso", "tok_s") == 20.0
    assert table.razon(("vLLM", "caso"), ("transformers", "caso")) == 20.0 / 6.0
    text = repr(table)
    assert "grabado: labs/medidas/prueba.json" in text and "Grabación provisional" in text
    assert "Otros programas se llevaban el 50 %" in text and "llama.cpp: no medido: no está en el archivo" in text


def test_the_command_writes_where_it_is_told_and_refuses_nonsense(clone, tiny, monkeypatch, capsys):
    registered(monkeypatch, part("minillm", 1.0, 2.0))
    arguments = ["graba", "prueba", "--modelo", tiny.carpeta, "--raiz", str(clone), "--veces"]
    assert command.main([*arguments, "1"]) == 0 and (clone / "labs/medidas/prueba.json").is_file()
    assert command.main([*arguments, "0"]) == 2 and "--veces" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["graba", "gpu"])
    registered(monkeypatch, Part("vLLM", absent))
    assert command.main([*arguments, "1"]) == 1
    assert command.main(["lista"]) == 0 and "una_contra_cincuenta" in capsys.readouterr().out


def test_medians_leave_text_and_equal_counts_alone():
    passes = [[row("a", "b", "", tok_s=x, peticiones=4, http=200, valido="sí")] for x in (1.0, 9.0, 2.0)]
    assert middle(passes)[0]["valores"] == {"tok_s": 2.0, "peticiones": 4, "http": 200, "valido": "sí"}


def test_a_slow_part_waits_for_full_mode(clone, tiny, monkeypatch):
    registered(monkeypatch, part("minillm", 1.0, 2.0, slow=True))
    assert [r.origen.clase for r in compara("prueba", tiny).filas] == ["ausente"]
    unhurried = LabModel(tiny.carpeta, "x", real=False, rapido=False)
    assert [r.origen.clase for r in compara("prueba", unhurried).filas] == ["vivo"]


def test_own_rows_come_first_and_unknown_columns_do_no_harm(clone, tiny, monkeypatch):
    registered(monkeypatch, part("minillm", 1.0))
    table = compara(
        "prueba", tiny, tuyas={"tu motor": {"tok_s": 3.0, "otra": 1}, ("tu motor", "otro caso"): {"tok_s": 4.0}}
    )
    assert [(r.sistema, r.caso, r.origen.clase) for r in table.filas[:2]] == [
        ("tu motor", "", "tuyo"), ("tu motor", "otro caso", "tuyo"),
    ]  # fmt: skip
    assert table.valor("tu motor", "", "tok_s") == 3.0 and "otra" not in repr(table)


def test_recorded_figures_are_those_of_the_files(tiny):
    report = json.loads((ROOT / "reports/gpu-h100.json").read_text(encoding="utf-8"))
    [figure] = [r["tok_s"] for r in report["results"]
                if (r["backend"], r["shape"], r["cell"]) == ("vllm", "llama3-8b", "home50")]  # fmt: skip
    assert compara("gpu", tiny).valor("vLLM", "H100, llama3-8b, 50 peticiones", "tok_s") == figure
    trace = json.loads((ROOT / "grading/trazas/vllm-0.32-cpu.json").read_text(encoding="utf-8"))
    tokens, end = sum(a["uso"] for a in trace["respuestas"]), max(a["fin"] for a in trace["respuestas"])
    rows = archivos.trace_rows("vllm-0.32-cpu", "CPU")
    assert rows[0].valores["tok_s"] == tokens / end and "0.32.0" in rows[0].detalle
    drafts = json.loads((ROOT / "reports/gpu-h100-speculation.json").read_text(encoding="utf-8"))["speculation"]
    assert compara("especulativa_gpu", tiny).valor("minillm", "k = 3, aceptación 0,7", "tok_s") == drafts[0]["tok_s"]


def test_every_measured_file_says_where_it_comes_from():
    files = sorted((ROOT / "labs/medidas").glob("*.json"))
    for name in (n for n, c in catalogo.COMPARISONS.items() if not c.stored):
        assert ROOT / "labs/medidas" / f"{name}.json" in files, name
    for file in files:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document.get("esquema") != archivos.SCHEMA:
            continue  # another command's
        assert document["orden"].startswith(f"python -m minilab.comparar graba {file.stem} "), file
        assert document["fecha"] and document["entorno"]["cpu"] and document["entorno"]["packages"], file
        assert "/" not in json.dumps(document["medida"]).replace("tok/s", "").replace("\\/", ""), "a path of a machine"
        systems = {p.system for p in catalogo.COMPARISONS[file.stem].parts}
        assert {r["sistema"] for r in document["medida"]["filas"]} <= systems


def test_our_server_is_asked_live_where_it_runs(tiny, server):
    table = compara("cincuenta_clientes", tiny, url=server.url)
    live = [r for r in table.filas if r.origen.clase == "vivo"]
    assert [(r.sistema, r.caso, r.valores["peticiones"]) for r in live] == [("minillm", "8 clientes", 8)]
    assert live[0].valores["tok_s"] > 0 and "MINILAB_TGI_URL" in repr(table)


def test_the_retired_field_is_refused_by_our_server(tiny, server):
    table = compara("guided_json", tiny, url=server.url)
    assert table.valor("minillm", "guided_json", "http") == 400
    assert table.valor("minillm", "response_format", "http") == 200
    assert table.valor("minillm", "response_format", "valido") == "sí"


def test_a_server_elsewhere_is_asked_by_its_address(tiny, server, monkeypatch):
    monkeypatch.setenv("MINILAB_VLLM_URL", server.url + "/")
    monkeypatch.setenv("MINILAB_TGI_URL", "http://127.0.0.1:9/v1")
    table = compara("cincuenta_clientes", tiny, url=server.url)
    [there] = [r for r in table.filas if r.sistema == "vLLM" and r.origen.clase == "vivo"]
    assert there.valores["peticiones"] == 8 and there.detalle == f"servidor en {server.url}"
    [tgi] = [r for r in table.filas if r.sistema == "TGI"]
    assert tgi.origen.clase == "ausente" and "no responde" in tgi.origen.texto


def test_the_cache_use_of_a_running_server_is_read_from_its_metrics(tiny, server):
    table = compara("uso_de_cache_kv", tiny, url=server.url)
    assert table.valor("minillm", "8 clientes", "max_uso_pct") >= 0.0
    assert set(next(r for r in table.filas if r.origen.clase == "vivo").valores) == {
        "max_uso_pct", "max_en_curso", "max_en_espera",
    }  # fmt: skip


def test_an_engine_in_its_own_process_is_measured_live(tiny):
    table = compara("cache_de_prefijos", tiny)
    cases = [r.caso for r in table.filas if r.origen.clase == "vivo"]
    assert cases == ["sin caché de prefijos", "con caché de prefijos"]
    assert all(table.valor("minillm", case, "ttft_p95") > 0 for case in cases)


def test_an_engine_that_fails_is_one_sentence(tmp_path):
    broken = LabModel(str(tmp_path), "roto", real=False, rapido=True)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    told = [r.origen.texto for r in compara("con_y_sin_cache", broken).filas if r.origen.clase == "ausente"]
    assert len(told) == 1 and told[0].startswith("no medido: falló") and "\n" not in told[0]
