"""Numbers as a Spanish reader writes them: decimal comma, a thin space between thousands."""

from __future__ import annotations

from math import floor, log10

GIB = 1024**3


def cifra(valor: float, decimales: int = 0) -> str:
    """1234.5 with one decimal is «1 234,5», with a narrow no-break space that keeps the number in one line."""
    return f"{valor:,.{decimales}f}".replace(",", "\u202f").replace(".", ",")


def significativa(valor: float) -> str:
    """Three significant digits, no exponent: for values of unknown size."""
    size = abs(valor)
    if size == 0:
        return "0"
    return cifra(valor, min(9, max(0, 2 - floor(log10(size)))))


def porcentaje(parte: float, decimales: int = 0) -> str:
    return f"{cifra(100 * parte, decimales)}\u00a0%"  # a line never breaks between them


def gib(tamano: float) -> str:
    """Bytes as GiB."""
    return f"{cifra(tamano / GIB, 1 if tamano < 1000 * GIB else 0)} GiB"


def cuenta(numero: int, singular: str, plural: str = "") -> str:
    """«1 bloque», «3 bloques»."""
    return f"{cifra(numero)} {singular if numero == 1 else plural or singular + 's'}"


def escapa(texto: str) -> str:
    """A token's text with what cannot be seen made visible: space as ␣, line feed as ↵, other controls as \\xNN."""
    shown = texto.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)
