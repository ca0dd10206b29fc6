"""Build the decks of this folder to HTML: ``python slides/construir.py [deck.md …]`` writes ``slides/build/``.

Figures in a deck are written ``{{ key }}`` and come from ``reports/demo.json``, so no deck holds a number that nobody
measured; without a report they read "sin medir". Needs Node; the first run installs marp-cli with ``npm ci``.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPORT = HERE.parent / "reports" / "demo.json"
FIGURE = re.compile(r"\{\{ *([\w.]+) *\}\}")
IMAGE = re.compile(r"!\[w:(\d+) ([^\]]+)\]\((imagenes/[\w.-]+\.svg)\)")
NOT_MEASURED = "sin medir"


class DeckError(RuntimeError):
    """A deck that cannot be built; says why and what to do."""


def decks() -> list[Path]:
    return sorted(p for p in HERE.glob("*.md") if p.read_text(encoding="utf-8").startswith("---\nmarp: true"))


def fill(markdown: str, report: dict[str, Any] | None) -> str:
    """Replace each ``{{ key }}`` by the report's value, in Spanish notation. DeckError for a key it does not have."""

    def value(match: re.Match[str]) -> str:
        if report is None:
            return NOT_MEASURED
        found: Any = report
        for part in match[1].split("."):
            if not isinstance(found, dict) or part not in found:
                raise DeckError(f"{REPORT.name} has no {match[1]!r}; run make demo again")
            found = found[part]
        return f"{found:.1f}".replace(".", ",") if isinstance(found, float) else str(found)

    return FIGURE.sub(value, markdown)


def embed(markdown: str) -> str:
    """Put each local SVG ``![w:WIDTH alt](imagenes/x.svg)`` inside the page, so that the built deck is one file."""

    def data(match: re.Match[str]) -> str:
        width, alt, path = match.groups()
        encoded = base64.b64encode((HERE / path).read_bytes()).decode()
        return f'<img width="{width}" alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{encoded}">'

    return IMAGE.sub(data, markdown)


def read_report(path: Path = REPORT) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def marp() -> list[str]:
    """The marp-cli command, installed on first use from the lock file."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise DeckError("building the decks needs Node 20 or newer with npm; install it and run this again")
    program = HERE / "node_modules" / "@marp-team" / "marp-cli" / "marp-cli.js"
    if not program.is_file():
        done = subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=HERE, capture_output=True, text=True)
        if done.returncode:
            raise DeckError(f"npm ci failed (is there a network?): {done.stderr.strip()[-400:]}")
    return [node, str(program), "--theme-set", str(HERE / "temas"), "--html"]


def build(deck: Path, folder: Path) -> Path:
    """Write ``folder/<deck>.html``; the filled Markdown stays beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    source, page = folder / deck.name, folder / f"{deck.stem}.html"
    source.write_text(embed(fill(deck.read_text(encoding="utf-8"), read_report())), encoding="utf-8")
    command = [*marp(), "--no-stdin", "--output", str(page), str(source)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if done.returncode or not page.is_file():
        raise DeckError(f"marp-cli failed on {deck.name}: {done.stderr.strip()[-400:]}")
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("decks", nargs="*", type=Path, help="decks to build (default: all)")
    parser.add_argument("--output", type=Path, default=HERE / "build", help="folder (default: slides/build)")
    options = parser.parse_args(arguments)
    try:
        for deck in options.decks or decks():
            print(f"built: {build(deck, options.output)}")
    except DeckError as error:
        print(f"slides: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
