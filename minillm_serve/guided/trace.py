"""A text run through a grammar, step by step: what the mask viewer of the lab draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from minillm_serve.guided.automaton.matcher import CompiledGrammar, Matcher


@dataclass(frozen=True)
class Row:
    """One place of a text, and the piece (a token or a byte) that comes there.

    offset: bytes before the piece. piece: None in the last row. token: its id, None for bytes. allowed: how many tokens
    may come here. forced: what must come next. complete: may the text end here? shortest: bytes of the shortest
    completion. accepted: may the piece come? expected: if not, the bytes that can, where the text leaves the grammar.
    """

    offset: int
    piece: str | None
    token: int | None
    allowed: int
    forced: str
    complete: bool
    shortest: int
    readings: tuple[str, ...]
    accepted: bool
    expected: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self)


def trace(grammar: CompiledGrammar, pieces: Iterable[int | bytes]) -> list[Row]:
    """Run token ids, or pieces of text as bytes, through ``grammar`` up to the first that is refused.

    The last row stands behind the text, or at the piece that is refused.
    """
    matcher, rows = grammar.matcher(), []
    for piece in pieces:
        before = matcher.copy()
        accepted = matcher.accept(piece) if isinstance(piece, int) else matcher.accept_bytes(piece)
        rows.append(_row(before, piece, accepted))
        if not accepted:
            return rows
    return [*rows, _row(matcher, None, True)]


def render(rows: Sequence[Row]) -> str:
    """The rows as a table; the first reading of each."""
    lines = [f"{'offset':>6} {'allowed':>7} {'left':>5}  {'piece':<16} {'forced':<24} reading"]
    for row in rows:
        piece = "(end)" if row.piece is None else repr(row.piece)
        left = str(row.shortest) if row.shortest < 1 << 30 else "?"
        reading = row.readings[0] if row.readings else ""
        more = f" (+{len(row.readings) - 1})" if len(row.readings) > 1 else ""
        forced = repr(row.forced) if row.forced else "-"
        lines.append(f"{row.offset:>6} {row.allowed:>7} {left:>5}  {piece:<16} {forced:<24} {reading}{more}")
        if not row.accepted:
            lines.append(f"refused here: {piece}; expected {row.expected or 'the end of the text'}")
    return "\n".join(lines)


def _row(matcher: Matcher, piece: int | bytes | None, accepted: bool) -> Row:
    here = matcher.trace()
    data = matcher.grammar.vocab.token_bytes[piece] if isinstance(piece, int) else piece
    expected = "" if accepted else _expected(matcher, data or b"")
    return Row(
        here.offset,
        None if piece is None else _text(data or b""),
        piece if isinstance(piece, int) else None,
        here.allowed,
        _text(here.forced),
        here.complete,
        here.shortest,
        here.readings,
        accepted,
        expected,
    )


def _expected(matcher: Matcher, data: bytes) -> str:
    """The bytes that can come at the first byte of ``data`` that cannot."""
    twin = matcher.copy()
    for byte in data:
        if not twin.accept_bytes(bytes([byte])):
            break
    choices = [bytes([byte]) for byte in range(256) if twin.copy().accept_bytes(bytes([byte]))]
    shown = " ".join(_text(choice) for choice in choices[:24])
    return shown + (f" ... ({len(choices)} in all)" if len(choices) > 24 else "")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
