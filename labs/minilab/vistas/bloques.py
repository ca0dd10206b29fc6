"""The block table, moment by moment: logical to physical, how many share a block, what is wasted.

The states come from an engine trace (replayed without a model) or from frames written by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minilab.vistas.cifras import cuenta, porcentaje
from minilab.vistas.lienzo import ANCHO, Lienzo, recorta
from minilab.vistas.paleta import BLANCO, DUENOS, GRIS, LIBRE, VACIO, Estilo
from minilab.vistas.vista import Tabla, Vista

COLUMNAS, MAX_BLOQUES, MAX_TABLAS, MAX_LOGICOS = 16, 128, 10, 26
CELDA_W, CELDA_H = 49.0, 40.0


@dataclass(frozen=True)
class EstadoBloques:
    """The KV pool at one moment.

    tablas: (request, its physical blocks in logical order). tokens: (request, tokens with keys and values). guardados:
    blocks that only the prefix cache remembers. orden: every request of the run, so that each keeps its colour.
    """

    paso: int
    num_bloques: int
    tam_bloque: int
    tablas: tuple[tuple[str, tuple[int, ...]], ...]
    tokens: tuple[tuple[str, int], ...]
    guardados: frozenset[int] = frozenset()
    nota: str = ""
    orden: tuple[str, ...] = ()

    @property
    def duenos(self) -> dict[int, tuple[str, ...]]:
        """Block -> the requests whose tables name it."""
        owners: dict[int, tuple[str, ...]] = {}
        for name, table in self.tablas:
            for block in table:
                owners[block] = (*owners.get(block, ()), name)
        return dict(sorted(owners.items()))

    @property
    def referencias(self) -> dict[int, int]:
        """Block -> how many tables name it."""
        return {block: len(owners) for block, owners in self.duenos.items()}

    @property
    def llenos(self) -> dict[int, int]:
        """Block -> slots with a token in it; of several owners the one that filled most counts."""
        tokens, filled = dict(self.tokens), {}
        for name, table in self.tablas:
            for index, block in enumerate(table):
                inside = min(max(tokens.get(name, 0) - index * self.tam_bloque, 0), self.tam_bloque)
                filled[block] = max(filled.get(block, 0), inside)
        return filled

    @property
    def ocupados(self) -> int:
        return len(self.referencias)

    @property
    def compartidos(self) -> int:
        return sum(count > 1 for count in self.referencias.values())

    @property
    def libres(self) -> int:
        """Blocks that hold nothing worth keeping."""
        return self.num_bloques - self.ocupados - len(self.guardados)

    @property
    def huecos_internos(self) -> int:
        """Slots of held blocks without a token: internal fragmentation."""
        return self.ocupados * self.tam_bloque - sum(self.llenos.values())

    @property
    def fragmentacion(self) -> float:
        """Empty share of the held slots, 0 to 1."""
        held = self.ocupados * self.tam_bloque
        return self.huecos_internos / held if held else 0.0


def bloques_de_traza(traza: dict[str, Any], costuras: Any = None) -> list[EstadoBloques]:
    """One state per step of an engine trace (``minillm-trace/2``).

    costuras: the Seams with the student's parts that recorded it. Where the replay departs from the record (another
    block pool handed the blocks out), the tables come from the record itself; what the prefix cache keeps is then
    unknown and left out. Raises TraceError when it is no trace.
    """
    from minillm_serve.engine.replay import ReplayError, replay
    from minillm_serve.engine.trace import read_trace

    traza = read_trace(traza)
    orden = tuple(f"p{rid}" for rid in traza["requests"])
    try:
        moments = [(s.plan.step, s.tables, s.num_cached, s.idle) for s in replay(traza, costuras)]
    except ReplayError:
        moments = list(_recorded(traza))
    size = (traza["num_blocks"], traza["config"]["block_size"])
    return [
        EstadoBloques(
            step,
            *size,
            tuple((f"p{rid}", tuple(table)) for rid, table in sorted(tables.items())),
            tuple((f"p{rid}", cached[rid]) for rid in sorted(tables)),
            frozenset(idle),
            orden=orden,
        )
        for step, tables, cached, idle in moments
    ]


def _recorded(
    traza: dict[str, Any],
) -> Iterable[tuple[int, dict[int, tuple[int, ...]], dict[int, int], frozenset[int]]]:
    """Tables as the plans of a trace grew them: (step, request -> blocks, request -> tokens in them, no idle block)."""
    from minillm_serve.bench.gantt import num_rejected

    tables: dict[int, tuple[int, ...]] = {}
    cached: dict[int, int] = {}
    for step in traza["steps"]:
        for rid in (*step.get("finished", ()), *step.get("preempted", ())):
            tables.pop(rid, None)
            cached.pop(rid, None)
        cached |= {int(rid): hit for rid, (_, hit) in step.get("new_requests", {}).items()}
        for rid, blocks in step.get("new_blocks", {}).items():
            tables[int(rid)] = tables.get(int(rid), ()) + tuple(blocks)
        for rid, count in step["num_tokens"].items():
            cached[int(rid)] = cached.get(int(rid), 0) + count
        yield step["step"], dict(tables), dict(cached), frozenset()
        for rid in step["num_tokens"]:
            cached[int(rid)] -= num_rejected(step, rid)


def bloques_a_mano(fotogramas: Sequence[Mapping[str, Any]], num_bloques: int, tam_bloque: int) -> list[EstadoBloques]:
    """States from frames: ``{"tablas": {name: [blocks]}, "tokens": {name: n}, "guardados": […], "nota": "…"}``.

    ``tokens`` defaults to full blocks. Raises ValueError (in Spanish) for a block that the pool does not have.
    """
    if not fotogramas:
        raise ValueError("no hay fotogramas: da al menos uno")
    orden = tuple(dict.fromkeys(str(name) for frame in fotogramas for name in frame["tablas"]))
    states = []
    for number, frame in enumerate(fotogramas):
        tables = {str(name): tuple(blocks) for name, blocks in frame["tablas"].items()}
        tokens = {str(name): count for name, count in frame.get("tokens", {}).items()}
        kept = frozenset(frame.get("guardados", ()))
        for block in {*kept, *(b for table in tables.values() for b in table)}:
            if not 0 <= block < num_bloques:
                raise ValueError(f"fotograma {number}: el bloque {block} no existe; hay {num_bloques}, desde el 0")
        counts = tuple((name, tokens.get(name, len(table) * tam_bloque)) for name, table in tables.items())
        note = frame.get("nota", "")
        states.append(EstadoBloques(number, num_bloques, tam_bloque, tuple(tables.items()), counts, kept, note, orden))
    return states


def dibuja_bloques(estado: EstadoBloques) -> Vista:
    """Block tables above, the pool below them, and where its slots went."""
    lienzo = Lienzo()
    lienzo.texto(16, 26, f"Memoria por bloques, paso {estado.paso}", talla=17, negrita=True)
    y = lienzo.parrafo(16, 48, estado.nota, ANCHO - 32, 14) + 6 if estado.nota else 54.0
    y = _logical(lienzo, estado, y)
    y = _physical(lienzo, estado, y + 10)
    y = _slots(lienzo, estado, y + 14)
    free = (LIBRE, "libre")
    kept = (VACIO, "guardado: solo lo recuerda la caché de prefijos")
    y = lienzo.leyenda(16, y + 6, [free, kept, (DUENOS[0], "en uso, relleno hasta donde hay tokens")])
    lienzo.caja(16, y, 16, 12, DUENOS[0], grosor=2.5)
    lienzo.texto(38, y + 10.5, "borde grueso y × n: compartido por n peticiones", talla=12)
    return lienzo.vista("Memoria por bloques", _sentence(estado), _table(estado))


def _style(estado: EstadoBloques, name: str) -> Estilo:
    order = estado.orden or tuple(name for name, _ in estado.tablas)
    return DUENOS[order.index(name) % len(DUENOS)]


def _logical(lienzo: Lienzo, estado: EstadoBloques, y: float) -> float:
    """A row per request: its logical blocks in order, each with the physical block it points to."""
    left, width, height = 148.0, 50.0, 30.0
    per_line = int((ANCHO - left - 16) // width)
    lienzo.texto(16, y, "Tablas de bloques: posición lógica → bloque físico", talla=14, negrita=True)
    y += 18
    for index in range(min(per_line, max((len(table) for _, table in estado.tablas), default=0))):
        lienzo.texto(left + (index + 0.5) * width - 2, y, str(index), "middle", 11, GRIS)
    y += 6
    refs, filled, tokens = estado.referencias, estado.llenos, dict(estado.tokens)
    for name, table in estado.tablas[:MAX_TABLAS]:
        lienzo.texto(16, y + 20, recorta(name, 60), negrita=True)
        lienzo.texto(left - 8, y + 20, cuenta(tokens[name], "token"), "end", 11, GRIS)
        for index, block in enumerate(table[:MAX_LOGICOS]):
            x, top = left + index % per_line * width, y + index // per_line * (height + 4)
            style, part = _style(estado, name), filled[block] / estado.tam_bloque
            thick = 2.5 if refs[block] > 1 else 1.0
            tip = f"{name}, posición {index}: bloque {block}, {filled[block]} de {estado.tam_bloque} huecos con token"
            lienzo.parcial(x, top, width - 5, height, part, style, grosor=thick, titulo=tip)
            lienzo.texto(x + (width - 5) / 2, top + 20, f"→{block}", "middle", 13, placa=BLANCO)
        lines = -(-min(len(table), MAX_LOGICOS) // per_line) or 1
        y += lines * (height + 4) + 2
        if len(table) > MAX_LOGICOS:
            lienzo.texto(left, y + 10, f"… y {cuenta(len(table) - MAX_LOGICOS, 'bloque')} más", talla=11, color=GRIS)
            y += 16
    if len(estado.tablas) > MAX_TABLAS:
        lienzo.texto(16, y + 14, f"… y {cuenta(len(estado.tablas) - MAX_TABLAS, 'petición', 'peticiones')} más")
        y += 20
    if not estado.tablas:
        lienzo.texto(16, y + 14, "Ninguna petición tiene bloques.", color=GRIS)
        y += 20
    return y + 10


def _physical(lienzo: Lienzo, estado: EstadoBloques, y: float) -> float:
    """The pool, block by block: number, owner or reference count, and how full it is."""
    owners, filled = estado.duenos, estado.llenos
    used = [b for b in range(estado.num_bloques) if b in owners or b in estado.guardados]
    shown = list(range(estado.num_bloques)) if estado.num_bloques <= MAX_BLOQUES else used[:MAX_BLOQUES]
    words = f"Memoria física: {cuenta(estado.num_bloques, 'bloque')} de {cuenta(estado.tam_bloque, 'token')}"
    lienzo.texto(16, y + 8, words, talla=14, negrita=True)
    y += 18
    for place, block in enumerate(shown):
        x, top = 16 + place % COLUMNAS * CELDA_W + 8, y + place // COLUMNAS * CELDA_H
        _cell(lienzo, x, top, block, owners.get(block, ()), filled.get(block, 0), estado)
    y += -(-len(shown) // COLUMNAS) * CELDA_H
    if hidden := estado.num_bloques - len(shown):
        busy = len(used) - len(set(shown) & set(used))
        more = f"… y {cuenta(hidden, 'bloque')} más sin dibujar: {busy} con contenido, {hidden - busy} libres"
        lienzo.texto(16, y + 12, more, talla=12, color=GRIS)
        y += 18
    return y


def _cell(
    lienzo: Lienzo, x: float, y: float, block: int, owners: tuple[str, ...], tokens: int, estado: EstadoBloques
) -> None:
    w, h = CELDA_W - 5, CELDA_H - 5
    if not owners:
        kept = block in estado.guardados
        tip = f"bloque {block}: {'guardado por la caché de prefijos' if kept else 'libre'}"
        lienzo.caja(x, y, w, h, VACIO if kept else LIBRE, trazo="" if kept else "3 2", titulo=tip)
        lienzo.texto(x + w / 2, y + 23, str(block), "middle", 12, placa=BLANCO)
        return
    shared, style = len(owners) > 1, _style(estado, owners[0])
    tip = f"bloque {block}: {', '.join(owners)}; {tokens} de {estado.tam_bloque} huecos con token"
    part = tokens / estado.tam_bloque
    lienzo.parcial(x, y, w, h, part, style, grosor=2.5 if shared else 1.0, titulo=tip)
    lienzo.texto(x + w / 2, y + 15, str(block), "middle", 12, placa=BLANCO)
    label = f"× {len(owners)}" if shared else recorta(owners[0], w - 6, 11)
    lienzo.texto(x + w / 2, y + 30, label, "middle", 11, negrita=shared, placa=BLANCO)


def _slots(lienzo: Lienzo, estado: EstadoBloques, y: float) -> float:
    """A bar of all the blocks: with tokens, empty but held, kept by the cache, free."""
    total, size = estado.num_bloques, estado.tam_bloque
    parts = [
        ("con token", sum(estado.llenos.values()) / size, Estilo(DUENOS[0].relleno)),
        ("huecos internos", estado.huecos_internos / size, Estilo(DUENOS[5].relleno, "x")),
        ("guardados", float(len(estado.guardados)), VACIO),
        ("libres", float(estado.libres), LIBRE),
    ]
    lienzo.texto(16, y + 8, "Reparto de la memoria, en huecos de un token", talla=14, negrita=True)
    x, width, y = 16.0, ANCHO - 32, y + 18
    for name, blocks, style in parts:
        if blocks > 0:
            tip = f"{name}: {round(blocks * size)} huecos"
            lienzo.caja(x, y, width * blocks / total, 18, style, titulo=tip)
            x += width * blocks / total
    entries = [(style, f"{name}: {round(blocks * size)}") for name, blocks, style in parts]
    return lienzo.leyenda(16, y + 28, entries)


def _sentence(estado: EstadoBloques) -> str:
    return (
        f"Paso {estado.paso}: {cuenta(len(estado.tablas), 'petición', 'peticiones')} en "
        f"{estado.ocupados} de {cuenta(estado.num_bloques, 'bloque')}; {cuenta(estado.compartidos, 'compartido')}, "
        f"{cuenta(len(estado.guardados), 'guardado')} por la caché de prefijos, {cuenta(estado.libres, 'libre')}. "
        f"Fragmentación interna: {estado.huecos_internos} de {estado.ocupados * estado.tam_bloque} huecos vacíos "
        f"({porcentaje(estado.fragmentacion)}). {estado.nota}".strip()
    )


def _table(estado: EstadoBloques) -> Tabla:
    """A row per block that holds something and one for the free ones; then the tables as the requests see them."""
    places: dict[int, list[str]] = {}
    for name, table in estado.tablas:
        for index, block in enumerate(table):
            places.setdefault(block, []).append(f"{name}[{index}]")
    refs, filled, size = estado.referencias, estado.llenos, estado.tam_bloque
    rows = []
    for block in sorted({*refs, *estado.guardados}):
        count = refs.get(block, 0)
        kind = "guardado" if not count else "compartido" if count > 1 else "en uso"
        tokens = filled.get(block, size)
        rows.append((str(block), kind, ", ".join(places.get(block, [])) or "–", str(count), f"{tokens} de {size}"))
    rows.append(("los demás", "libre", "–", "0", f"{cuenta(estado.libres, 'bloque')}, {estado.libres * size} huecos"))
    for name, table in estado.tablas:
        pairs = ", ".join(f"{index}→{block}" for index, block in enumerate(table))
        rows.append((f"petición {name}", "tabla", pairs, "–", cuenta(dict(estado.tokens)[name], "token")))
    kept = len(estado.guardados) * size
    slots = f"{sum(filled.values())} con token, {estado.huecos_internos} huecos internos, {kept} guardados"
    rows.append(("toda la memoria", "suma", "–", "–", slots))
    return Tabla(("bloque", "estado", "petición[posición]", "referencias", "huecos con token"), tuple(rows))
