"""What a token mask does to one step: the automaton's state, what may come, what probability goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minilab.vistas.cifras import cifra, cuenta, escapa, porcentaje
from minilab.vistas.lienzo import ANCHO, Lienzo, recorta
from minilab.vistas.paleta import BLANCO, GRIS, PERMITIDO, PROHIBIDO, TINTA
from minilab.vistas.vista import Tabla, Vista

MAX_CANDIDATOS = 16


@dataclass(frozen=True)
class Candidato:
    """A token that could come. probabilidad: before the mask, None where nobody knows it."""

    token: int
    texto: str
    probabilidad: float | None
    permitido: bool


@dataclass(frozen=True)
class EstadoMascara:
    """One step of a constrained text. texto: what stands before it; elegido: what came then (None at the end).

    estado: the automaton's state in words. vocabulario: its size, 0 where unknown. quitada: probability of the
    forbidden tokens, None where nobody knows it. token: id of what came.
    """

    paso: int
    texto: str
    estado: str
    permitidos: int
    vocabulario: int
    elegido: str | None
    candidatos: tuple[Candidato, ...] = ()
    quitada: float | None = None
    token: int | None = None

    def es_elegido(self, candidato: Candidato) -> bool:
        """By id where it is known: two tokens may look alike."""
        return candidato.token == self.token if self.token is not None else candidato.texto == self.elegido

    def despues(self, candidato: Candidato) -> float | None:
        """Its probability after the mask: 0, or its share of what is left."""
        if candidato.probabilidad is None or self.quitada is None:
            return None
        left = 1 - self.quitada
        return candidato.probabilidad / left if candidato.permitido and left > 0 else 0.0


def recorre_mascara(
    mascara: Any,
    ids: Sequence[int],
    textos: Sequence[str | None],
    probabilidades: Any = None,
    estado: Callable[[Any], str] | None = None,
    candidatos: int = 10,
) -> list[EstadoMascara]:
    """Run a fresh ``Mascara`` (``permitidos()``, ``acepta(id)``) through the token ids: a state before each, one after.

    probabilidades: a row of the vocabulary's size per token, the softmax before the mask. Raises ValueError, in
    Spanish, where a row does not fit or sums to something else than 1, or where the mask forbids a token that comes.
    """
    rows = None if probabilidades is None else [_row(row, len(textos)) for row in probabilidades]
    if rows is not None and len(rows) < len(ids):
        raise ValueError(f"hay {len(ids)} tokens y solo {len(rows)} filas de probabilidades")
    states: list[EstadoMascara] = []
    text = ""
    for step in range(len(ids) + 1):
        chosen = int(ids[step]) if step < len(ids) else None
        allowed = {int(token) for token in mascara.permitidos()}
        row = rows[step] if rows is not None and step < len(rows) else None
        removed = None if row is None else max(0.0, 1 - sum(row[token] for token in allowed))
        listed = _candidates(allowed, textos, row, chosen, min(candidatos, MAX_CANDIDATOS))
        name = estado(mascara) if estado is not None else "permite terminar" if _ends(allowed, textos) else "a medias"
        word = None if chosen is None else _text(textos, chosen)
        states.append(EstadoMascara(step, text, str(name), len(allowed), len(textos), word, listed, removed, chosen))
        if chosen is not None:
            if chosen not in allowed:
                raise ValueError(f"la máscara no permite el token {chosen} ({word!r}) en el paso {step}")
            mascara.acepta(chosen)
            text += textos[chosen] or ""
    return states


def mascara_de_gramatica(filas: Sequence[Any], vocabulario: int = 0) -> list[EstadoMascara]:
    """From the rows of :func:`minillm_serve.guided.trace.trace`: our own grammar, without probabilities."""
    text, states = "", []
    for step, row in enumerate(filas):
        reading = row.readings[0] if row.readings else "sin lectura"
        more = f"; obligado: «{escapa(row.forced)}»" if row.forced else ""
        ends = "; puede terminar aquí" if row.complete else ""
        refused = "" if row.accepted else f"; rechaza «{escapa(row.piece or '')}», esperaba {row.expected}"
        state = f"{reading}{more}{ends}{refused}"
        states.append(EstadoMascara(step, text, state, row.allowed, vocabulario, row.piece))
        text += row.piece or ""
    return states


def _row(row: Any, size: int) -> list[float]:
    values = [float(p) for p in (row.tolist() if hasattr(row, "tolist") else row)]
    if len(values) != size:
        raise ValueError(f"una fila de probabilidades tiene {len(values)} valores y el vocabulario {size} tokens")
    if not abs(sum(values) - 1) < 1e-2:
        raise ValueError(f"una fila de probabilidades suma {sum(values):.3f}, no 1: aplica softmax antes de la máscara")
    return values


def _text(textos: Sequence[str | None], token: int) -> str:
    return textos[token] if textos[token] is not None else f"⟨especial:{token}⟩"


def _ends(allowed: set[int], textos: Sequence[str | None]) -> bool:
    return any(textos[token] is None for token in allowed)


def _candidates(
    allowed: set[int], textos: Sequence[str | None], row: list[float] | None, chosen: int | None, count: int
) -> tuple[Candidato, ...]:
    """The likeliest tokens, half of them allowed ones if there are; without probabilities the first allowed ones."""
    if row is None:
        picked = sorted(allowed)[:count]
    else:
        by_chance = sorted(range(len(textos)), key=lambda token: (-row[token], token))
        good = [token for token in by_chance if token in allowed][: max(1, count // 2)]
        rest = [token for token in by_chance if token not in good]
        picked = good + rest[: count - len(good)]
        picked.sort(key=lambda token: (-row[token], token))
    if chosen is not None and chosen not in picked:
        picked = [*picked[: count - 1], chosen]
    return tuple(Candidato(t, _text(textos, t), None if row is None else row[t], t in allowed) for t in picked)


def dibuja_mascara(estado: EstadoMascara) -> Vista:
    """The text so far, the state, how many tokens may come, the candidates before and after the mask."""
    lienzo = Lienzo()
    lienzo.texto(16, 26, f"Máscara de tokens, paso {estado.paso}", talla=17, negrita=True)
    y = lienzo.parrafo(16, 52, f"Texto: {escapa(estado.texto)[-240:] or '(vacío)'}▏", ANCHO - 32, 14)
    y = lienzo.parrafo(16, y + 2, f"Estado del autómata: {estado.estado}", ANCHO - 32, 14)
    y = lienzo.leyenda(16, y - 2, [(PERMITIDO, "permitido"), (PROHIBIDO, "prohibido")]) + 12
    y = _allowed_bar(lienzo, estado, y)
    if estado.quitada is not None:
        y = _removed_bar(lienzo, estado, y)
    if estado.candidatos:
        y = _candidate_rows(lienzo, estado, y + 8)
    return lienzo.vista("Máscara de tokens", _sentence(estado), _table(estado))


def _allowed_bar(lienzo: Lienzo, estado: EstadoMascara, y: float) -> float:
    words = f"Tokens permitidos: {cifra(estado.permitidos)}"
    if not estado.vocabulario:
        lienzo.texto(16, y + 4, words, talla=14, negrita=True)
        return y + 26
    lienzo.texto(16, y + 4, f"{words} de {cifra(estado.vocabulario)}", talla=14, negrita=True)
    _split(lienzo, y + 12, estado.permitidos / estado.vocabulario)
    return y + 56


def _removed_bar(lienzo: Lienzo, estado: EstadoMascara, y: float) -> float:
    removed = estado.quitada or 0.0
    words = f"Probabilidad que quita la máscara: {porcentaje(removed, 1)}"
    lienzo.texto(16, y + 4, words, talla=14, negrita=True)
    _split(lienzo, y + 12, 1 - removed)
    return y + 56


def _split(lienzo: Lienzo, y: float, part: float) -> None:
    """A bar of allowed and forbidden."""
    width = ANCHO - 32
    if part < 1:
        lienzo.caja(16 + width * part, y, width * (1 - part), 18, PROHIBIDO, titulo="prohibido")
    if part > 0:
        lienzo.caja(16, y, max(width * part, 1.0), 18, PERMITIDO, titulo="permitido")


def _candidate_rows(lienzo: Lienzo, estado: EstadoMascara, y: float) -> float:
    known = estado.candidatos[0].probabilidad is not None
    title = "Candidatos: probabilidad antes y después de la máscara" if known else "Candidatos permitidos"
    lienzo.texto(16, y, title, talla=14, negrita=True)
    y += 12
    if known:
        lienzo.texto(600, y + 8, "antes", "end", 11, GRIS)
        lienzo.texto(680, y + 8, "después", "end", 11, GRIS)
        y += 14
    highest = max((c.probabilidad or 0.0 for c in estado.candidatos), default=0.0) or 1.0
    for candidate in estado.candidatos:
        style = PERMITIDO if candidate.permitido else PROHIBIDO
        verdict = "permitido" if candidate.permitido else "prohibido"
        shown = recorta(f"«{escapa(candidate.texto)}»", 150, 13)
        lienzo.texto(16, y + 15, shown)
        if known:
            part = (candidate.probabilidad or 0.0) / highest
            lienzo.caja(180, y + 3, max(340 * part, 1.0), 15, style, titulo=f"{candidate.texto}: {verdict}")
            lienzo.texto(600, y + 15, porcentaje(candidate.probabilidad or 0.0, 1), "end", 12)
            after = estado.despues(candidate)
            lienzo.texto(680, y + 15, porcentaje(after or 0.0, 1), "end", 12)
        else:
            lienzo.caja(180, y + 3, 15, 15, style, titulo=f"{candidate.texto}: {verdict}")
            lienzo.texto(206, y + 15, verdict, talla=12)
        if estado.es_elegido(candidate):
            lienzo.texto(700, y + 15, "← elegido", talla=13, color=TINTA, negrita=True, placa=BLANCO)
        y += 23
    return y


def _sentence(estado: EstadoMascara) -> str:
    of_all = f" de {cifra(estado.vocabulario)}" if estado.vocabulario else ""
    words = f"Paso {estado.paso}: {cuenta(estado.permitidos, 'token permitido', 'tokens permitidos')}{of_all}."
    if estado.quitada is not None:
        words += f" La máscara quita {porcentaje(estado.quitada, 1)} de la probabilidad."
    if estado.elegido is not None:
        words += f" Se elige «{escapa(estado.elegido)}»."
    return f"{words} Estado del autómata: {estado.estado}."


def _table(estado: EstadoMascara) -> Tabla:
    rows = []
    for candidate in estado.candidatos:
        before, after = candidate.probabilidad, estado.despues(candidate)
        cells = [f"«{escapa(candidate.texto)}»", str(candidate.token), "sí" if candidate.permitido else "no"]
        cells += ["–" if p is None else porcentaje(p, 1) for p in (before, after)]
        rows.append((*cells, "sí" if estado.es_elegido(candidate) else "no"))
    total = cifra(estado.permitidos) + (f" de {cifra(estado.vocabulario)}" if estado.vocabulario else "")
    left = "–" if estado.quitada is None else porcentaje(1 - estado.quitada, 1)
    rows.append(("todos los permitidos", "–", total, left, "–" if estado.quitada is None else porcentaje(1.0, 1), "–"))
    return Tabla(("token", "id", "permitido", "antes", "después", "elegido"), tuple(rows))
