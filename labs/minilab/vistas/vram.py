"""Does it fit? Weights, keys and values, and activations against the memory of real GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minilab.vistas.cifras import GIB, cifra, cuenta, gib, porcentaje
from minilab.vistas.equipo import FormaModelo, Techo
from minilab.vistas.lienzo import ANCHO, Lienzo
from minilab.vistas.paleta import ACTIVACIONES, BLANCO, GRIS, KV, PESOS, VACIO, Estilo
from minilab.vistas.vista import Tabla, Vista
from minillm_serve.bench.svg import nice_ceiling, ticks

IZQUIERDA = 200.0


@dataclass(frozen=True)
class EstadoVRAM:
    """``peticiones`` sequences of ``contexto`` tokens at once. uso: share of the memory that the server may take.

    lote_tokens: tokens that one step computes at most; activations grow with it. All sizes in bytes.
    """

    forma: FormaModelo
    contexto: int
    peticiones: int
    bits_peso: int = 16
    bits_kv: int = 16
    lote_tokens: int = 2048
    uso: float = 0.92
    gpus: tuple[Techo, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.uso <= 1:
            raise ValueError(f"uso va de 0 a 1, no {self.uso}")
        if min(self.contexto, self.peticiones, self.lote_tokens) < 1:
            raise ValueError("contexto, peticiones y lote_tokens deben ser al menos 1")

    @property
    def pesos(self) -> float:
        return self.forma.bytes_pesos(self.bits_peso)

    @property
    def kv(self) -> float:
        return self.peticiones * self.contexto * self.forma.bytes_kv_por_token(self.bits_kv)

    @property
    def activaciones(self) -> float:
        """An estimate: the widest layer's tensors of one step in bf16, and a row of fp32 logits per request."""
        shape = self.forma
        wide = 2 * shape.oculta + (shape.cabezas + 2 * shape.cabezas_kv) * shape.dim_cabeza + 2 * shape.intermedia
        return self.lote_tokens * wide * 2 + self.peticiones * shape.vocabulario * 4

    @property
    def total(self) -> float:
        return self.pesos + self.kv + self.activaciones

    def disponible(self, techo: Techo) -> float:
        return techo.memoria_gb * 1e9 * self.uso

    def cabe(self, techo: Techo) -> bool:
        return self.total <= self.disponible(techo)

    @property
    def caben(self) -> tuple[str, ...]:
        """Names of the GPUs in which everything fits."""
        return tuple(techo.nombre for techo in self.gpus if self.cabe(techo))

    def peticiones_en(self, techo: Techo) -> int:
        """How many sequences of this length fit beside the weights and the activations."""
        per_request = self.contexto * self.forma.bytes_kv_por_token(self.bits_kv) + self.forma.vocabulario * 4
        fixed = self.pesos + self.activaciones - self.peticiones * self.forma.vocabulario * 4
        return max(0, int((self.disponible(techo) - fixed) // per_request))


def dibuja_vram(estado: EstadoVRAM) -> Vista:
    """What is needed as one stacked bar, and under it what each GPU offers, on the same scale."""
    lienzo = Lienzo()
    lienzo.texto(16, 26, f"Memoria de GPU para {estado.forma.nombre}", talla=17, negrita=True)
    setting = (
        f"{cuenta(estado.peticiones, 'petición', 'peticiones')} de {cuenta(estado.contexto, 'token')}, pesos de "
        f"{estado.bits_peso} bits, KV de {estado.bits_kv} bits, pasos de hasta {cuenta(estado.lote_tokens, 'token')}"
    )
    lienzo.texto(16, 48, setting, color=GRIS)
    parts = _parts(estado)
    lienzo.leyenda(16, 62, [(style, f"{name}: {gib(size)}") for name, size, style in parts])
    largest = max([estado.total, *(techo.memoria_gb * 1e9 for techo in estado.gpus)])
    end = nice_ceiling(largest / GIB) * GIB
    left, width, y = IZQUIERDA, ANCHO - IZQUIERDA - 24, 96.0

    def x(size: float) -> float:
        return left + width * size / end

    lienzo.texto(16, y + 20, "necesita", negrita=True)
    at = 0.0
    for name, size, style in parts:
        lienzo.caja(x(at), y, max(x(at + size) - x(at), 0.5), 30, style, titulo=f"{name}: {gib(size)}")
        at += size
    y += 44
    for techo in estado.gpus:
        y = _gpu(lienzo, estado, techo, y, x)
    bottom = y + 4
    lienzo.linea(x(estado.total), 90, x(estado.total), bottom, grosor=2.5, color=PESOS.relleno, trazo="6 4")
    marks = [(m * GIB / end, cifra(m)) for m in ticks(end / GIB, 10)]
    lienzo.eje_x(left, bottom, width, marks, "GiB")
    note = (
        f"Rayado claro: lo que el servidor no usa ({porcentaje(1 - estado.uso)} reservado). Línea: lo que hace falta."
    )
    lienzo.parrafo(16, bottom + 52, note, ANCHO - 32, 12, GRIS)
    return lienzo.vista(f"Memoria de GPU para {estado.forma.nombre}", _sentence(estado), _table(estado))


def _parts(estado: EstadoVRAM) -> tuple[tuple[str, float, Estilo], ...]:
    return (
        ("pesos", estado.pesos, PESOS),
        ("caché KV", estado.kv, KV),
        ("activaciones (estimadas)", estado.activaciones, ACTIVACIONES),
    )


def _gpu(lienzo: Lienzo, estado: EstadoVRAM, techo: Techo, y: float, x: Callable[[float], float]) -> float:
    """One GPU: what the server may take, what it leaves, and the verdict in words."""
    usable, whole = estado.disponible(techo), techo.memoria_gb * 1e9
    lienzo.texto(16, y + 15, techo.nombre, talla=12)
    lienzo.texto(IZQUIERDA - 10, y + 15, "✓ cabe" if estado.cabe(techo) else "✗ no cabe", "end", 12, negrita=True)
    tip = f"{techo.nombre}: {gib(usable)} utilizables de {gib(whole)}"
    lienzo.caja(x(0), y, x(whole) - x(0), 20, VACIO, titulo=tip)
    lienzo.caja(x(0), y, x(usable) - x(0), 20, Estilo(BLANCO), titulo=tip)
    return y + 26


def _sentence(estado: EstadoVRAM) -> str:
    fits = ", ".join(estado.caben) if estado.caben else "ninguna"
    load = f"{cuenta(estado.peticiones, 'petición', 'peticiones')} de {cuenta(estado.contexto, 'token')}"
    return (
        f"{estado.forma.nombre} con {load} y pasos de hasta {cifra(estado.lote_tokens)}: pesos {gib(estado.pesos)} "
        f"({estado.bits_peso} bits), caché KV {gib(estado.kv)} ({estado.bits_kv} bits), activaciones "
        f"{gib(estado.activaciones)} (estimadas); en total {gib(estado.total)}. "
        f"GPU en las que cabe con {porcentaje(estado.uso)} de uso: {fits}."
    )


def _table(estado: EstadoVRAM) -> Tabla:
    rows = [(name, gib(size), "–", "–", "–") for name, size, _ in _parts(estado)]
    rows.append(("total", gib(estado.total), "–", "–", "–"))
    for techo in estado.gpus:
        most = cuenta(estado.peticiones_en(techo), "petición", "peticiones")
        cells = (gib(estado.disponible(techo)), "sí" if estado.cabe(techo) else "no", most, techo.fuente)
        rows.append((techo.nombre, *cells))
    return Tabla(("parte o GPU", "memoria (GPU: utilizable)", "cabe", "caben como mucho", "fuente"), tuple(rows))
