"""Which entries of QKᵀ a step computes, with and without a KV cache: what is new, and what was known already."""

from __future__ import annotations

from dataclasses import dataclass

from minilab.vistas.cifras import cifra, cuenta, escapa
from minilab.vistas.lienzo import ANCHO, Lienzo, recorta
from minilab.vistas.paleta import BLANCO, GRIS, HECHO, NUEVO, REPETIDO, Estilo
from minilab.vistas.vista import Tabla, Vista

MAX_POSICIONES = 24


@dataclass(frozen=True)
class EstadoQKT:
    """Step ``paso`` of a generation, from 1: it gives ``nuevos[paso - 1]``, so as many steps as new tokens.

    Step 1 reads the prompt; step k, the token that step k - 1 gave. The last new token never enters the model.
    """

    prompt: tuple[str, ...]
    nuevos: tuple[str, ...]
    paso: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.paso <= len(self.nuevos):
            raise ValueError(f"los pasos van de 1 a {len(self.nuevos)}, uno por token nuevo; no hay paso {self.paso}")

    @property
    def posiciones(self) -> int:
        """Tokens known in this step: rows and columns of the matrix."""
        return len(self.prompt) + self.paso - 1

    @property
    def productos(self) -> tuple[int, int]:
        """Products q·k of this step, per head and layer: (without cache, with cache)."""
        n = self.posiciones
        whole = n * (n + 1) // 2
        return whole, whole if self.paso == 1 else n

    @property
    def acumulado(self) -> tuple[int, int]:
        """The same, from step 1 to this one."""
        steps = [EstadoQKT(self.prompt, self.nuevos, k + 1).productos for k in range(self.paso)]
        return sum(a for a, _ in steps), sum(b for _, b in steps)

    def celda(self, fila: int, columna: int, cache: bool) -> str:
        """ "nueva", "repetida" (known, computed again), "guardada" (known, not computed) or "futura" (masked)."""
        if columna > fila:
            return "futura"
        if self.paso == 1 or fila == self.posiciones - 1:
            return "nueva"
        return "guardada" if cache else "repetida"


CELDAS = {
    "nueva": (NUEVO, "producto nuevo"),
    "repetida": (REPETIDO, "ya se conocía y se repite"),
    "guardada": (HECHO, "ya se conocía y no se calcula"),
    "futura": (Estilo(BLANCO), "futuro: la máscara causal lo tapa"),
}


def dibuja_qkt(estado: EstadoQKT) -> Vista:
    """The two matrices side by side, and the running totals as bars."""
    n = estado.posiciones
    lienzo = Lienzo()
    name = recorta(f"{_entering(estado)}; sale «{escapa(estado.nuevos[estado.paso - 1])}»", 420, 17)
    lienzo.texto(16, 26, f"Matriz QKᵀ, paso {estado.paso} ({name})", talla=17, negrita=True)
    y = lienzo.leyenda(16, 40, list(CELDAS.values()))
    size = min(30.0, 290.0 / n)
    half = ANCHO / 2
    for left, cache in ((16.0, False), (half + 8, True)):
        _matrix(lienzo, estado, left, y + 8, size, cache)
    y += 92 + size * n
    totals, highest = estado.acumulado, max(estado.acumulado)
    lienzo.texto(16, y, "Productos q·k desde el principio (por cabeza y capa)", talla=14, negrita=True)
    for index, (words, style) in enumerate((("sin caché KV", REPETIDO), ("con caché KV", NUEVO))):
        top = y + 12 + 28 * index
        lienzo.texto(16, top + 15, words)
        lienzo.caja(130, top, 560 * totals[index] / highest, 20, style, titulo=f"{words}: {totals[index]}")
        lienzo.texto(138 + 560 * totals[index] / highest, top + 15, cifra(totals[index]), negrita=True)
    lienzo.alto = y + 68
    return lienzo.vista("Matriz QKᵀ con y sin caché KV", _sentence(estado), _table(estado))


def _matrix(lienzo: Lienzo, estado: EstadoQKT, left: float, top: float, size: float, cache: bool) -> None:
    """Rows are queries, columns keys; a row carries its token's text."""
    n, tokens = estado.posiciones, (*estado.prompt, *estado.nuevos)
    count = cuenta(estado.productos[cache], "producto")
    lienzo.texto(left, top + 8, f"{'Con' if cache else 'Sin'} caché KV: {count}", talla=14, negrita=True)
    labels, top = 92.0, top + 50
    lienzo.texto(left, top - 7, "consulta q", talla=11, color=GRIS)
    lienzo.texto(left + labels, top - 18, "clave k, por posición", talla=11, color=GRIS)
    step = 1 if size >= 20 else 2
    for i in range(n):
        if i % step == 0:
            lienzo.texto(left + labels + (i + 0.5) * size, top - 4, str(i), "middle", 11, GRIS)
        if size >= 13 or i % 2 == 0:
            text = recorta(f"{i} {escapa(tokens[i])}", labels - 10, 11)
            lienzo.texto(left + labels - 6, top + (i + 0.5) * size + 4, text, "end", 11)
        for j in range(n):
            kind = estado.celda(i, j, cache)
            style, words = CELDAS[kind]
            tip = f"q{i} · k{j}: {words}"
            lienzo.caja(left + labels + j * size, top + i * size, size, size, style, grosor=0.7, titulo=tip)


def _entering(estado: EstadoQKT) -> str:
    return "prefill" if estado.paso == 1 else f"decode: entra «{escapa(estado.nuevos[estado.paso - 2])}»"


def _sentence(estado: EstadoQKT) -> str:
    (without, kept), (all_without, all_kept) = estado.productos, estado.acumulado
    repeated = without - kept
    return (
        f"Paso {estado.paso}, {cuenta(estado.posiciones, 'posición', 'posiciones')}: sin caché KV se calculan "
        f"{cuenta(without, 'producto')} q·k, de los que {repeated} ya se conocían; con caché, {kept}. "
        f"Desde el principio: {cifra(all_without)} sin caché y {cifra(all_kept)} con ella."
    )


def _table(estado: EstadoQKT) -> Tabla:
    rows = []
    for step in range(1, estado.paso + 1):
        then = EstadoQKT(estado.prompt, estado.nuevos, step)
        word = "prefill" if step == 1 else escapa(estado.nuevos[step - 2])
        numbers = (then.posiciones, *then.productos, then.productos[0] - then.productos[1], *then.acumulado)
        rows.append((f"{step} ({word})", *map(cifra, numbers)))
    head = ("paso", "posiciones", "sin caché", "con caché", "repetidos", "suma sin caché", "suma con caché")
    return Tabla(head, tuple(rows))
