"""The report's page: one self-contained HTML file, no script, no request to any other host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { --ink: #1a1a1a; --muted: #595959; --paper: #ffffff; --card: #f5f6f8; --line: #d5d8dd; --accent: #0072B2;
  --good: #00694d; --bad: #a83c00; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --muted: #b3b3b3; --paper: #16181b; --card: #22262b;
  --line: #3d434b; --accent: #6fbdf0; --good: #4fd0a5; --bad: #ff9d66; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1160px; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { max-width: 75ch; margin: .5rem 0; }
.muted { color: var(--muted); } .good { color: var(--good); } .bad { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem; }
.card strong { display: block; font-size: 1.75rem; line-height: 1.25; }
.card span { color: var(--muted); font-size: .9rem; }
.scroll { overflow-x: auto; max-width: 100%; }
figure { margin: 1rem 0; border: 1px solid var(--line); border-radius: 10px; background: #fff; overflow-x: auto; }
figure svg { display: block; min-width: 440px; max-width: 800px; margin: 0 auto; }
figure.wide svg { min-width: 820px; max-width: none; }
figcaption { color: #595959; font-size: .9rem; padding: .2rem 1rem .8rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)); gap: 1rem; }
table { border-collapse: collapse; font-size: .92rem; margin: .6rem 0; }
th, td { text-align: left; padding: .3rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
pre, code { font: .88rem/1.45 ui-monospace, "Cascadia Code", Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem; margin: .4rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
a { color: var(--accent); }
"""


def document(title: str, body: Iterable[str]) -> str:
    """The whole page around ``body``; ``title`` is escaped."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(identifier: str, title: str, *content: str) -> str:
    inner = "\n".join(content)
    return f'<section id="{identifier}">\n<h2>{escape(title)}</h2>\n{inner}\n</section>'


def paragraph(content: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(content)}</p>' if kind else f"<p>{escape(content)}</p>"


def card(value: str, label: str, kind: str = "") -> str:
    return f'<div class="card"><strong class="{kind}">{escape(value)}</strong><span>{escape(label)}</span></div>'


def picture(drawing: str, caption: str, kind: str = "") -> str:
    """A figure around an SVG string (already safe) and its caption. It can be scrolled, so it takes the focus."""
    return f'<figure class="{kind}" tabindex="0">{drawing}<figcaption>{escape(caption)}</figcaption></figure>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """A table of escaped cells; columns whose index is in ``numeric`` are right-aligned."""

    def cells(tag: str, values: Sequence[str], scope: str = "") -> str:
        marks = [' class="number"' if i in numeric else "" for i in range(len(values))]
        return "".join(f"<{tag}{scope}{m}>{escape(v)}</{tag}>" for v, m in zip(values, marks, strict=True))

    heading = cells("th", head, ' scope="col"')
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table></div>'


def details(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def code(content: str) -> str:
    return f"<pre><code>{escape(content)}</code></pre>"
