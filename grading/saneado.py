"""What a student wrote, as HTML that is safe to open: no script, no frame, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from html import unescape
from typing import Any

import bleach
import mistune
from bleach.html5lib_shim import Filter
from markupsafe import Markup
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

TEXT_MAX = 20_000
MARKDOWN_MAX = 100_000
TAG_NAMES = """
a abbr b blockquote br caption code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li mark ol p pre q s samp
small span strong sub summary sup table tbody td tfoot th thead tr u ul var
"""
TAGS = frozenset(TAG_NAMES.split())
HEADINGS = frozenset(f"h{n}" for n in range(1, 7))
ATTRIBUTES = {
    "abbr": {"title"},
    "details": {"open"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
}
SAFE_LINK = re.compile(r"(?:https?://|mailto:|#)", re.IGNORECASE)
SAFE_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*")
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
HIDDEN_CONTENT = re.compile(r"<(script|style|template|noscript)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
FORMATTER = HtmlFormatter(style="xcode", nowrap=True)
CODE_CSS = FORMATTER.get_style_defs(".codigo")


class Headings:
    """Levels of the headings of one page, whose own cells are at level 3: deeper only one at a time."""

    def __init__(self):
        self.last = 2

    def next(self, level: int) -> int:
        """The level for a heading that its author put at ``level``, from 1."""
        self.last = min(level + 2, self.last + 1, 6)
        return self.last

    def section(self) -> None:
        """A heading of the page at level 3 was just written."""
        self.last = 3


class _Tidy(Filter):
    """After the allow-list: headings at their level in the page, scopes for table headers, descriptions for pictures.

    A picture that is not in the page itself becomes its description: loading it would tell who reads and when.
    """

    def __init__(self, source: Any, headings: Headings):
        super().__init__(source)
        self._headings, self._open = headings, []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for token in super().__iter__():
            name = token.get("name", "")
            if name in HEADINGS:
                if token["type"] == "StartTag":
                    self._open.append(self._headings.next(int(name[1])))
                token["name"] = f"h{self._open[-1] if token['type'] == 'StartTag' else self._open.pop()}"
            elif name == "th" and token["type"] == "StartTag":
                token["data"].setdefault((None, "scope"), "col")
            elif name == "img":
                token = self._picture(token)
            yield token

    def _picture(self, token: dict[str, Any]) -> dict[str, Any]:
        alt = token["data"].get((None, "alt")) or "sin descripción"
        if (None, "src") not in token["data"]:
            return {"type": "Characters", "data": f"[imagen que no está en el cuaderno: {unescape(alt)}]"}
        token["data"][(None, "alt")] = alt
        return token


def clean(html: str, headings: Headings) -> Markup:
    """The tags and attributes of the allow-list; the text of the others, and nothing of scripts and styles."""
    html = HIDDEN_CONTENT.sub("", html)
    cleaner = bleach.Cleaner(
        TAGS,
        attributes=_allowed,
        protocols={"http", "https", "mailto", "data"},
        strip=True,
        filters=[partial(_Tidy, headings=headings)],
    )
    try:
        return Markup(cleaner.clean(html))
    except RecursionError:
        return plain(html)


def _allowed(tag: str, name: str, value: str) -> bool:
    if tag == "a":
        return name == "href" and bool(SAFE_LINK.match(value))
    if tag == "img":
        return name == "alt" or (name == "src" and bool(SAFE_IMAGE.fullmatch(value)))
    return name in ATTRIBUTES.get(tag, ())


def markdown(source: str, headings: Headings) -> Markup:
    """A Markdown cell. One too long to be prose, or that the reader cannot take, is shown as it was written."""
    if len(source) > MARKDOWN_MAX:
        return plain(source)
    render = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "math"])
    try:
        return clean(str(render(source)), headings)
    except RecursionError:
        return plain(source)


def code(source: str) -> Markup:
    """Highlighted Python."""
    return Markup('<pre class="codigo">{}</pre>').format(Markup(highlight(_cut(source), PythonLexer(), FORMATTER)))


def plain(text: str) -> Markup:
    return Markup("<pre>{}</pre>").format(_cut(strip_ansi(text)))


def plain_paragraphs(text: str) -> Markup:
    """Text of a person who teaches: paragraphs and line breaks, no markup."""
    paragraphs = [Markup("<br>").join(p.split("\n")) for p in re.split(r"\n\s*\n", _cut(text.strip()))]
    return Markup("").join(Markup("<p>{}</p>").format(p) for p in paragraphs)


def output(cell_output: NotebookNode, headings: Headings) -> Markup:
    """One output of a cell; of several representations, the picture, then the page, then the text."""
    kind = cell_output.output_type
    if kind == "stream":
        return plain(cell_output.text)
    if kind == "error":
        return plain("\n".join(cell_output.get("traceback", [])) or cell_output.get("ename", ""))
    data = cell_output.get("data", {})
    for mime in ("image/png", "image/jpeg"):
        picture = data.get(mime)
        if isinstance(picture, str) and BASE64.fullmatch(picture):
            alt = cell_output.get("metadata", {}).get("alt") or "Figura que produjo esta celda"
            return Markup('<img src="data:{};base64,{}" alt="{}">').format(mime, picture.replace("\n", ""), alt)
    if isinstance(data.get("text/html"), str) and len(data["text/html"]) <= MARKDOWN_MAX:
        return clean(data["text/html"], headings)
    return plain(str(data.get("text/plain", "")))


def _cut(text: str) -> str:
    if len(text) <= TEXT_MAX:
        return text
    return f"{text[:TEXT_MAX]}\n… (recortado: {len(text)} caracteres)"
