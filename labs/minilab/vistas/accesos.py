"""Who touches what: the elements of each tensor, marked with the program of the kernel that reads or writes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minilab.vistas.lienzo import Lienzo, recorta
from minilab.vistas.paleta import BLANCO, DUENOS, GRIS, Estilo
from minilab.vistas.vista import Tabla, Vista

COLUMNAS, FILAS = 32, 12
"""As many elements of a tensor as are drawn; the table speaks of all."""


@dataclass(frozen=True)
class Memoria:
    """A dense tensor, as rows of its last dimension."""

    nombre: str
    filas: int
    columnas: int


@dataclass(frozen=True)
class Acceso:
    """One load or store: the program's place in the grid, and the elements, from 0, that its mask let through."""

    programa: tuple[int, ...]
    memoria: str
    escribe: bool
    elementos: frozenset[int]


@dataclass(frozen=True)
class EstadoAccesos:
    """fuera: addresses in none of the tensors. elegido: 0 for all programs, k for the k-th of ``programas``."""

    memorias: tuple[Memoria, ...]
    accesos: tuple[Acceso, ...]
    fuera: int = 0
    elegido: int = 0

    @property
    def programas(self) -> tuple[tuple[int, ...], ...]:
        """The programs that touched something, in the order in which they ran."""
        return tuple(dict.fromkeys(a.programa for a in self.accesos))

    def solo(self, elegido: int) -> EstadoAccesos:
        """The same record, looking at one program (0: at all)."""
        if not 0 <= elegido <= len(self.programas):
            raise ValueError(f"hay {len(self.programas)} programas; no existe el {elegido}")
        return replace(self, elegido=elegido)

    def quienes(self, memoria: str) -> dict[int, set[int]]:
        """Element -> the programs (counted from 1) that touch it, of those looked at."""
        found: dict[int, set[int]] = {}
        for access in self.accesos:
            number = self.programas.index(access.programa) + 1
            if access.memoria == memoria and self.elegido in (0, number):
                for element in access.elementos:
                    found.setdefault(element, set()).add(number)
        return found

    def tocados(self, memoria: str, programa: int, escribe: bool) -> int:
        """How many elements of a tensor one program reads, or writes."""
        return len(self._elements(memoria, programa, escribe))

    def saltos(self, memoria: str, programa: int) -> int:
        """Runs of consecutive elements that one program touches: 1 where it goes straight on."""
        places = sorted(self._elements(memoria, programa, False) | self._elements(memoria, programa, True))
        return sum(i == 0 or places[i - 1] + 1 != place for i, place in enumerate(places))

    def _elements(self, memoria: str, programa: int, escribe: bool) -> set[int]:
        wanted = self.programas[programa - 1]
        mine = (a for a in self.accesos if (a.programa, a.memoria, a.escribe) == (wanted, memoria, escribe))
        return {element for access in mine for element in access.elementos}


def dibuja_accesos(estado: EstadoAccesos) -> Vista:
    """A grid for each tensor, a row for each of its rows; a box carries the number of its program."""
    lienzo = Lienzo()
    title = "Qué memoria toca cada programa"
    if estado.elegido:
        title += f": el {estado.elegido}"
    lienzo.texto(16, 26, title, talla=17, negrita=True)
    y = 44.0
    for memoria in estado.memorias:
        y = _grid(lienzo, memoria, estado.quienes(memoria.nombre), y)
    entries = [(_style(n), f"programa {n}") for n in range(1, min(len(estado.programas), len(DUENOS)) + 1)]
    lienzo.leyenda(16, y + 6, [*entries, (Estilo(BLANCO), "nadie"), (VARIOS, "varios programas (*)")])
    return lienzo.vista(title, _sentence(estado), _table(estado))


VARIOS = Estilo("#BDBDBD", "x")


def _style(program: int) -> Estilo:
    return DUENOS[(program - 1) % (len(DUENOS) - 1)]


def _grid(lienzo: Lienzo, memoria: Memoria, who: dict[int, set[int]], y: float) -> float:
    rows, columns = min(memoria.filas, FILAS), min(memoria.columnas, COLUMNAS)
    shown = "" if (rows, columns) == (memoria.filas, memoria.columnas) else f", se dibujan {rows} × {columns}"
    lienzo.texto(16, y + 14, f"{memoria.nombre}: {memoria.filas} × {memoria.columnas}{shown}", negrita=True)
    y += 22
    for row in range(rows):
        lienzo.texto(64, y + 15, recorta(f"fila {row}", 50, 11), "end", 11, GRIS)
        for column in range(columns):
            programs = who.get(row * memoria.columnas + column, set())
            style = VARIOS if len(programs) > 1 else _style(next(iter(programs))) if programs else Estilo(BLANCO)
            x = 72 + 23.5 * column
            lienzo.caja(x, y, 22, 20, style, trazo="" if programs else "3 2")
            if programs:
                words = "*" if len(programs) > 1 else str(next(iter(programs)))
                lienzo.texto(x + 11, y + 14, words, "middle", 11, style.tinta, placa=style.relleno)
        y += 23
    return y + 10


def _sentence(estado: EstadoAccesos) -> str:
    words = f"{len(estado.programas)} programas."
    for memoria in estado.memorias:
        who = estado.quienes(memoria.nombre)
        shared = sum(len(programs) > 1 for programs in who.values())
        words += f" {memoria.nombre}: {len(who)} de {memoria.filas * memoria.columnas} elementos tocados"
        words += f", {shared} por varios programas." if shared else "."
    return words + (f" {estado.fuera} direcciones fuera de estos tensores." if estado.fuera else "")


def _table(estado: EstadoAccesos) -> Tabla:
    rows = []
    for number, place in enumerate(estado.programas, 1):
        if estado.elegido in (0, number):
            for memoria in estado.memorias:
                reads, writes = (estado.tocados(memoria.nombre, number, w) for w in (False, True))
                if reads or writes:
                    runs = str(estado.saltos(memoria.nombre, number))
                    rows.append((f"{number} {place}", memoria.nombre, str(reads), str(writes), runs))
    return Tabla(("programa", "tensor", "lee", "escribe", "tramos seguidos"), tuple(rows))
