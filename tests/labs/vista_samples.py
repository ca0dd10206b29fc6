"""What the tests of the figures draw: traces of the tiny model, a toy mask, a view of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minilab import vistas

SHARED = list(range(30, 51))
STATIC = [("A", 0, 3), ("B", 0, 9), ("C", 0, 5), ("D", 9, 12), ("E", 9, 10)]
CONTINUOUS = [("A", 0, 3), ("B", 0, 9), ("C", 0, 5), ("D", 3, 6), ("E", 5, 6)]
WHOLE = [("A", 0, 2, "prefill"), ("A", 2, 4, "decode"), ("B", 4, 8, "prefill"), ("A", 8, 12, "decode")]
CHUNKED = [("A", 0, 2, "prefill"), ("A", 2, 12, "decode"), ("B", 3, 8, "prefill"), ("B", 8, 14, "decode")]
FRAMES = [
    {"tablas": {"A": [0, 3]}, "tokens": {"A": 7}, "nota": "A entra sola"},
    {"tablas": {"A": [0, 3], "B": [0, 5]}, "tokens": {"A": 7, "B": 6}, "nota": "B comparte el bloque 0"},
    {"tablas": {"B": [0, 5]}, "tokens": {"B": 6}, "guardados": [3], "nota": "A termina; el bloque 3 se recuerda"},
]
DRAFTS = {"A": [(4, 2), (4, 4), (4, 0), (0, 0), (4, 3), (4, 1)], "B": [(4, 4), (4, 4), (2, 2), (4, 1)]}
TEXTS = [None, "{", '{"', "name", '": "', "Ann", "\n", "x y", "zz", "q", "w"]
ANSWER = [1, 3, 5]
LONG = tuple(f"larguísimo{i}" for i in range(18))


class ToyMask:
    """Allows a few tokens at each of four places."""

    def __init__(self) -> None:
        self.place = 0

    def permitidos(self) -> list[int]:
        return [[1, 2], [3], [4, 5, 6], [0]][min(self.place, 3)]

    def acepta(self, token: int) -> None:
        self.place += 1


def chances() -> list[list[float]]:
    """Three rows of probabilities; the likeliest token of the last one is forbidden."""
    rows = []
    for likely in (7, 3, 8):
        weights = [10.0 if token == likely else 1.0 + token / 10 for token in range(len(TEXTS))]
        rows.append([weight / sum(weights) for weight in weights])
    return rows


def record_trace(folder: Path, **settings: Any) -> dict[str, Any]:
    """Four requests with a common prefix in a pool too small for all of them, then one that comes later."""
    from minillm_serve import LLM, SamplingParams

    options = {"num_threads": 1, "block_size": 4, "num_kv_blocks": 20, "max_model_len": 64, **settings}
    with LLM(folder, trace_file="-", **options) as llm:
        params = SamplingParams(temperature=0, max_tokens=14, ignore_eos=True)
        llm.generate([SHARED + [90 + n] * (4 * n + 1) for n in range(4)], params)
        llm.generate([[*SHARED, 7]], params)
        content = json.loads(json.dumps(llm.core.trace.content()))
        llm._trace_file = None
    return content


def views() -> dict[str, Callable[[], vistas.Vista]]:
    """One of every kind, made anew at each call."""
    devices = tuple(map(vistas.gpu, vistas.gpus()))
    llama, smol = vistas.modelo("Llama 3.1 8B"), vistas.modelo("SmolLM2 135M")
    runs = {"estático": STATIC, "continuo": CONTINUOUS}
    parts = {"sin trocear": WHOLE, "troceado": CHUNKED}
    answers = {name: tuple(0.01 * i * i for i in range(size)) for name, size in (("una", 2), ("muchas", 60))}
    mask = lambda: vistas.recorre_mascara(ToyMask(), ANSWER, TEXTS, chances())  # noqa: E731
    return {
        "bloques": lambda: vistas.dibuja_bloques(vistas.bloques_a_mano(FRAMES, 8, 4)[1]),
        "bloques, con guardados": lambda: vistas.dibuja_bloques(vistas.bloques_a_mano(FRAMES, 8, 4)[2]),
        "gantt por lugar": lambda: vistas.dibuja_gantt(
            [vistas.linea_de_filas(rows, name, lugares=3) for name, rows in runs.items()], "lugar"
        ),
        "gantt por petición": lambda: vistas.dibuja_gantt(
            [vistas.linea_de_filas(rows, name, llegadas={"B": 3}) for name, rows in parts.items()]
        ),
        "gantt por lugar, con clases": lambda: vistas.dibuja_gantt([vistas.linea_de_filas(CHUNKED)], "lugar"),
        "qkt": lambda: vistas.dibuja_qkt(vistas.EstadoQKT(("The", "sky", "is"), ("blue", "."), 2)),
        "qkt, grande": lambda: vistas.dibuja_qkt(vistas.EstadoQKT(LONG, ("a",) * 6, 6)),
        "máscara": lambda: vistas.dibuja_mascara(mask()[2]),
        "máscara al final": lambda: vistas.dibuja_mascara(mask()[3]),
        "máscara sin probabilidades": lambda: vistas.dibuja_mascara(
            vistas.recorre_mascara(ToyMask(), ANSWER, TEXTS, estado=lambda m: f"lugar {m.place}")[0]
        ),
        "borradores": lambda: vistas.dibuja_borradores(vistas.borradores_de(DRAFTS, coste=0.1)),
        "borradores, muchos": lambda: vistas.dibuja_borradores(
            vistas.borradores_de([(5, i * i % 6) for i in range(100)])
        ),
        "roofline": lambda: vistas.dibuja_roofline(
            vistas.EstadoRoofline(vistas.gpu("H100 SXM"), llama, 16, medidos=(vistas.Punto("mi kernel", 2.0, 5e3),))
        ),
        "roofline de una CPU": lambda: vistas.dibuja_roofline(
            vistas.EstadoRoofline(vistas.Techo("mi CPU", 0.2, 20.0), smol, bits=32)
        ),
        "vram": lambda: vistas.dibuja_vram(vistas.EstadoVRAM(llama, 8192, 16, gpus=devices)),
        "vram, no cabe": lambda: vistas.dibuja_vram(
            vistas.EstadoVRAM(vistas.modelo("Llama 3.1 70B"), 32768, 64, 4, 8, gpus=devices)
        ),
        "latencias": lambda: vistas.dibuja_latencias(vistas.EstadoLatencias("TTFT", answers["muchas"])),
        "latencias de dos": lambda: vistas.dibuja_latencias(vistas.EstadoLatencias("", answers["una"], "ms", 50)),
    }
