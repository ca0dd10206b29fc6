"""Memory, roofline and latencies follow from the model's shape, the device's data and the student's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from svg_rules import boxes, check_rules

from minilab import vistas
from minilab.vistas.equipo import Techo
from minilab.vistas.latencias import percentil

few = settings(max_examples=15, deadline=None)
REPORTS = Path(__file__).parents[2] / "reports"
DATA = json.loads((Path(vistas.__file__).parent / "gpus.json").read_text(encoding="utf-8"))
DEVICES = tuple(map(vistas.gpu, vistas.gpus()))


# The data


def test_every_gpu_names_its_source_and_the_file_its_date():
    assert len(DATA["fecha"]) == 10 and vistas.fecha_gpus() == DATA["fecha"]
    for entry in DATA["gpus"]:
        assert entry["fuente"].startswith("NVIDIA, ") and "dispersión" not in entry["fuente"]
        assert min(entry["memoria_gb"], entry["ancho_gb_s"], entry["tflops"]) > 0


def test_what_we_measured_is_what_the_reports_say():
    measured = [entry for entry in DATA["gpus"] if "medido" in entry]
    assert {entry["nombre"] for entry in measured} == {"H100 SXM", "H200 SXM"}
    for entry in measured:
        mine = entry["medido"]
        report = json.loads((REPORTS.parent / mine["informe"]).read_text(encoding="utf-8"))
        assert mine["ancho_gb_s"] == round(report["limits"]["copy_gb_s"], 1)
        assert mine["tflops"] == round(report["limits"]["matmul_tflop_s"], 1)
        assert report["date"].startswith(mine["fecha"])
        assert entry["nombre"].split()[0] in report["device"]
        assert mine["ancho_gb_s"] < entry["ancho_gb_s"] and mine["tflops"] < entry["tflops"]


def test_the_shapes_have_the_parameters_that_their_makers_state():
    known = {"SmolLM2 135M": 134_515_008, "Llama 3.2 1B": 1_235_814_400, "Mistral 7B v0.3": 7_248_023_552}
    known |= {"Llama 3.1 8B": 8_030_261_248, "Llama 3.1 70B": 70_553_706_496}
    for name, count in known.items():
        assert vistas.modelo(name).parametros == count
    assert vistas.modelo("SmolLM2 135M").bytes_kv_por_token(32) == 45 * 1024
    assert vistas.modelo("Llama 3.1 8B").bytes_kv_por_token(16) == 131_072


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'GTX'.*H100 SXM"):
        vistas.gpu("GTX")
    with pytest.raises(ValueError, match=r"'GPT'.*SmolLM2 135M"):
        vistas.modelo("GPT")


# Memory


states = st.builds(
    vistas.EstadoVRAM,
    forma=st.sampled_from([vistas.modelo(name) for name in vistas.modelos()]),
    contexto=st.integers(1, 131072),
    peticiones=st.integers(1, 512),
    bits_peso=st.sampled_from([4, 8, 16, 32]),
    bits_kv=st.sampled_from([8, 16, 32]),
    uso=st.floats(0.5, 1),
    gpus=st.just(DEVICES),
)


@few
@given(states)
def test_what_fits_and_how_many_fit_agree(state):
    assert state.total == state.pesos + state.kv + state.activaciones
    for device in state.gpus:
        most = state.peticiones_en(device)
        assert state.cabe(device) == (most >= state.peticiones)
        if most:
            assert replace(state, peticiones=most).cabe(device)
        assert not replace(state, peticiones=most + 1).cabe(device)
    vista = vistas.dibuja_vram(state)
    check_rules(vista)
    assert {row[0]: row[2] for row in vista.tabla.filas if row[2] != "–"} == {
        device.nombre: "sí" if device.nombre in state.caben else "no" for device in DEVICES
    }


@few
@given(states)
def test_the_stacked_bar_is_in_proportion(state):
    drawn = boxes(vistas.dibuja_vram(state))
    widths = [box.right - box.x for words, box in drawn if words.startswith(("pesos:", "caché KV:"))]
    scale = widths[0] / state.pesos
    if min(widths) > 1:
        assert widths[1] == pytest.approx(scale * state.kv, abs=0.1, rel=0.02)


def test_four_bits_bring_a_7b_model_from_14_gb_to_about_4():
    """The layers shrink, scales come on top, embedding and output stay as they are."""
    shape = vistas.modelo("Mistral 7B v0.3")
    assert shape.bytes_pesos(16) / 1e9 == pytest.approx(14.5, abs=0.1)
    assert shape.bytes_pesos(4) / 1e9 == pytest.approx(4.14, abs=0.05)
    assert shape.bytes_pesos(32) == 2 * shape.bytes_pesos(16)


def test_impossible_plans_are_refused():
    shape = vistas.modelo("Llama 3.1 8B")
    with pytest.raises(ValueError, match="uso"):
        vistas.EstadoVRAM(shape, 1, 1, uso=1.5)
    with pytest.raises(ValueError, match="al menos 1"):
        vistas.EstadoVRAM(shape, 0, 1)


# Roofline


@few
@given(
    st.sampled_from([vistas.modelo(name) for name in vistas.modelos()]),
    st.sampled_from([*DEVICES, Techo("mi CPU", 0.2, 20.0)]),
    st.integers(1, 512),
    st.integers(1, 32768),
    st.integers(1, 8192),
    st.sampled_from([4, 8, 16, 32]),
)
def test_no_point_is_above_the_roof_and_a_larger_batch_never_reads_worse(shape, roof, batch, context, prompt, bits):
    state = vistas.EstadoRoofline(roof, shape, batch, context, prompt, bits)
    for point in (state.decode, state.prefill):
        assert point.gflop_s == pytest.approx(min(roof.tflops * 1e3, point.intensidad * roof.gb_s))
        assert state.limita(point) == ("la memoria" if point.intensidad < roof.cresta else "el cálculo")
    more = replace(state, lote=batch + 1)
    assert more.decode.intensidad >= state.decode.intensidad * (1 - 1e-12)
    assert more.tok_s >= state.tok_s * (1 - 1e-12)
    check_rules(vistas.dibuja_roofline(state))


def test_decode_of_one_sequence_reads_all_weights_for_one_token():
    roof, shape = vistas.gpu("H100 SXM"), vistas.modelo("Llama 3.1 8B")
    state = vistas.EstadoRoofline(roof, shape, 1, 1)
    read = shape.bytes_pesos(16) + shape.bytes_kv_por_token(16)
    assert state.tok_s == pytest.approx(roof.gb_s * 1e9 / read)
    assert state.limita(state.decode) == "la memoria" and state.limita(state.prefill) == "el cálculo"


def test_a_measured_point_is_told_with_its_share_of_the_roof():
    point = vistas.Punto("mi kernel", 2.0, 5e3)
    state = vistas.EstadoRoofline(vistas.gpu("H100 SXM"), vistas.modelo("Llama 3.1 8B"), medidos=(point,))
    assert (
        "mi kernel: 2,00 FLOP/byte, 5,00 TFLOP/s medidos, 75\u00a0% del techo"
        in vistas.dibuja_roofline(state).descripcion
    )
    with pytest.raises(ValueError, match="mayores que 0"):
        Techo("nada", 0.0, 1.0)


# Latencies


values = st.lists(st.floats(0, 1e4), min_size=1, max_size=80)


@few
@given(values, st.integers(0, 100))
def test_percentiles_are_numpys_and_buckets_hold_every_value(latencies, p):
    state = vistas.EstadoLatencias("TTFT", tuple(latencies), "ms", p)
    assert state.valor == pytest.approx(float(np.percentile(latencies, p)), rel=1e-9, abs=1e-9)
    assert percentil(latencies, p) == state.valor
    assert sum(size for _, _, size in state.cubos) == len(latencies)
    assert state.por_encima == sum(v > state.valor for v in latencies)
    vista = vistas.dibuja_latencias(state)
    check_rules(vista)
    drawn = [box for words, box in boxes(vista, "de ")]
    assert len(drawn) == sum(size > 0 for _, _, size in state.cubos)


def test_bars_of_the_histogram_are_as_high_as_their_counts():
    vista = vistas.dibuja_latencias(vistas.EstadoLatencias("", (1.0, 1.1, 1.2, 9.0)))
    heights = [box.bottom - box.y for _, box in boxes(vista, "de ")]
    assert heights[0] == pytest.approx(3 * heights[1], abs=0.1)


@pytest.mark.parametrize("bad, words", [((), "no hay valores"), ((1.0, float("nan")), "finitos"), ((-1.0,), "finitos")])
def test_values_that_are_no_latencies_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        vistas.EstadoLatencias("", bad)
    with pytest.raises(ValueError, match="percentil"):
        vistas.EstadoLatencias("", (1.0,), percentil=101)
