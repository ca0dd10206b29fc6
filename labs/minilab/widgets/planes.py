"""Viewers with quantities to turn: the roofline, the memory planner, the latency histogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minilab.vistas import equipo
from minilab.vistas.equipo import FormaModelo, Techo
from minilab.vistas.latencias import EstadoLatencias, dibuja_latencias
from minilab.vistas.roofline import EstadoRoofline, Punto, dibuja_roofline
from minilab.vistas.vram import EstadoVRAM, dibuja_vram
from minilab.widgets.panel import Panel, desliza, elige_de, elige_valor

LOTES = tuple(2**i for i in range(10))
CONTEXTOS = tuple(2**i for i in range(7, 18))
BITS = ((4, "4 bits"), (8, "8 bits"), (16, "16 bits"), (32, "32 bits"))


def ver_roofline(
    gpu: str | Techo = "H100 SXM",
    modelo: str | FormaModelo = "Llama 3.1 8B",
    *,
    contexto: int = 512,
    prompt: int = 512,
    bits: int = 16,
    medidos: Sequence[Punto] = (),
) -> Panel:
    """Where prefill and decode stand under the roof of a device, as the batch grows. medidos: points of your own."""
    shape, points = equipo.modelo(modelo), tuple(medidos)
    roof = equipo.gpu(gpu) if isinstance(gpu, str) else gpu
    controls: dict[str, Any] = {
        "lote": elige_valor("lote", 1, LOTES),
        "contexto": elige_valor("contexto", contexto, CONTEXTOS),
    }
    if isinstance(gpu, str):
        controls["gpu"] = elige_de("GPU", gpu, equipo.gpus())

    def state(lote: int, contexto: int, gpu: str = "") -> EstadoRoofline:
        return EstadoRoofline(equipo.gpu(gpu) if gpu else roof, shape, lote, contexto, prompt, bits, points)

    return Panel(state, dibuja_roofline, controls)


def ver_vram(
    modelo: str | FormaModelo = "Llama 3.1 8B",
    *,
    contexto: int = 8192,
    peticiones: int = 8,
    bits_peso: int = 16,
    bits_kv: int = 16,
    uso: float = 0.92,
    gpus: Sequence[str] | None = None,
) -> Panel:
    """Which GPUs hold the weights, the KV cache and the activations. uso: share of the memory the server may take."""
    devices = tuple(equipo.gpu(name) for name in (equipo.gpus() if gpus is None else gpus))
    shape = equipo.modelo(modelo)
    controls: dict[str, Any] = {
        "contexto": elige_valor("contexto", contexto, CONTEXTOS),
        "peticiones": elige_valor("peticiones", peticiones, LOTES),
        "bits_peso": elige_de("pesos", bits_peso, [(words, bits) for bits, words in BITS]),
        "bits_kv": elige_de("caché KV", bits_kv, [(words, bits) for bits, words in BITS[1:]]),
    }
    if isinstance(modelo, str):
        controls = {"modelo": elige_de("modelo", modelo, equipo.modelos()), **controls}

    def state(contexto: int, peticiones: int, bits_peso: int, bits_kv: int, modelo: str = "") -> EstadoVRAM:
        form = equipo.modelo(modelo) if modelo else shape
        return EstadoVRAM(form, contexto, peticiones, bits_peso, bits_kv, uso=uso, gpus=devices)

    return Panel(state, dibuja_vram, controls)


def ver_latencias(
    valores: Sequence[float] | Mapping[str, Sequence[float]],
    *,
    unidad: str = "s",
    percentil: int = 95,
    titulo: str = "",
) -> Panel:
    """A histogram with a percentile line to move. valores: a list, or a dict name -> list to choose from."""
    series = {titulo: valores} if not isinstance(valores, Mapping) else valores
    states = {str(name): tuple(float(v) for v in values) for name, values in series.items()}
    first = next(iter(states))
    controls: dict[str, Any] = {"percentil": desliza("percentil", percentil, 0, 100)}
    if len(states) > 1:
        controls["serie"] = elige_de("serie", first, list(states))

    def state(percentil: int, serie: str = first) -> EstadoLatencias:
        name = serie if titulo in ("", serie) else f"{serie} · {titulo}"
        return EstadoLatencias(name, states[serie], unidad, percentil)

    return Panel(state, dibuja_latencias, controls, "percentil")
