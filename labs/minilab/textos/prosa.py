"""What a reader reads: the Spanish text of notebooks and pages, with the file and line of each piece.

Code, addresses, identifiers and English prompts are not prose: they are taken out and leave blanks, so that every
word keeps its line.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

LABS = Path(__file__).resolve().parents[2]
ROOT, GLOSSARY = LABS.parent, LABS / "glosario.toml"
CELL = re.compile(r"^# %%(?P<head>.*)$")
WORD = re.compile(r"[A-Za-zÁÉÍÓÚÜÑáéíóúüñ]+")
NOT_PROSE = tuple(
    re.compile(pattern, flags)
    for pattern, flags in (
        (r"\A---\n.*?\n---\n", re.DOTALL),  # front matter
        (r"^ *(```+|~~~+).*?^ *\1 *$", re.DOTALL | re.MULTILINE),
        (r"<!--.*?-->", re.DOTALL),
        (r"^ *(>>>|\.\.\.) .*$", re.MULTILINE),
        (r"<(pre|code|style|svg)\b.*?</\1>", re.DOTALL),
        (r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL),
        (r"^ {0,3}\[[^\]]+\]: \S+", re.MULTILINE),
        (r"(?<=\])\([^)]*\)", 0),
        (r"\$\$.+?\$\$|\$[^$\n]+\$", re.DOTALL),
        (r"""(?<=[\s<])(?!alt=)[\w-]+=("[^"]*"|'[^']*')(?=[^<]*>)""", 0),  # attributes, but not the alternative text
        (r"</?[a-zA-Z][\w-]*|&#?\w+;|\balt=(?=[\"'])", 0),
        (r"\bhttps?://\S+|\bdoi:\S+|\S+@\S+\.\w+", 0),
        (
            r"\S*[\w)]/[\w./(<*-]\S*|(?<![\w*])/[a-z]\w*|\S*\.\w{1,5}\b(?=[\s),;:.]|$)|(?<!\w)--?[a-z][\w-]*",
            0,
        ),  # paths, files, options
    )
)
NOT_WORDS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?:minillm|minilab|vllm)\b(?:[ -][a-z]+)?|\w*[0-9_]\w*",
        r"\b\w+(?=\()|\"\w+\"(?=\s*:)|\b(?:None|True|False|int|float|bool|str|dict|nan|inf)\b",  # names of code
        r"\b\w*[a-záéíóúñ]\w*[A-Z]\w*\b|\b[A-ZÁÉÍÓÚÑ]{2,}s?\b",  # vLLM, PagedAttention, GPU, SLOs
    )
)
SPANS = re.compile(
    r"«([^«»]*)»|“([^“”]*)”|\"([^\"\n]*)\"|(?<![*\w])\*([^*\s](?:[^*\n]|\n(?![\n*#|-]))*)\*(?!\*)|\*\*([^*]+)\*\*"
)
ENGLISH_SHARE = 0.7


@dataclass(frozen=True)
class Piece:
    """A text as its reader meets it. file: relative to the repository. line: of its first character, from 1.

    one_line: the text's own line ends are not those of the file, so all of it is placed at ``line``.
    """

    file: str
    line: int
    text: str
    one_line: bool = False

    def place(self, offset: int) -> str:
        """``file:line`` of the character at ``offset``."""
        return f"{self.file}:{self.line + (0 if self.one_line else self.text.count(chr(10), 0, offset))}"


@cache
def known(word: str, language: str) -> bool:
    """Whether a dictionary of the language ("es", "en") has the word, in any case."""
    import simplemma

    return simplemma.is_known(word, language) or simplemma.is_known(word.lower(), language)


@cache
def unaccented() -> frozenset[str]:
    """What the Spanish dictionary takes and the course never means: words that lost their accent."""
    return frozenset(tomllib.loads(GLOSSARY.read_text(encoding="utf-8"))["tildes"])


def is_english(text: str) -> bool:
    """Whether most words are English, and more of them than are Spanish."""
    words = [w for w in WORD.findall(text) if not w.isupper() or len(w) == 1]
    english = sum(known(w, "en") for w in words)
    return english >= ENGLISH_SHARE * len(words) and english > sum(known(w, "es") for w in words) if words else False


def blank(text: str) -> str:
    """``text`` with everything that is not Spanish prose replaced by spaces, of the same length."""
    for mask in NOT_PROSE:
        text = mask.sub(_spaces, text)
    text = SPANS.sub(lambda found: _spaces(found) if _foreign(found[0]) else found[0], text)
    for mask in NOT_WORDS:
        text = mask.sub(_spaces, text)
    return text


def _spaces(found: re.Match[str]) -> str:
    return re.sub(r"\S", " ", found[0])


def _foreign(quoted: str) -> bool:
    """A quoted or emphasised span whose words are all English is a prompt or a foreign term."""
    for mask in NOT_WORDS:
        quoted = mask.sub(_spaces, quoted)
    words = WORD.findall(quoted)
    spanish = all(known(w, "es") and w.lower() not in unaccented() for w in words)
    return bool(words) and all(known(w, "en") for w in words) and not spanish


def page(path: Path) -> list[Piece]:
    """A Markdown page, as one piece."""
    return [Piece(_name(path), 1, path.read_text(encoding="utf-8"))]


def notebook(path: Path) -> list[Piece]:
    """The Markdown cells, and the strings, docstrings and comments of the code cells, of a py:percent source."""
    pieces, names = [], identifiers(path)
    for first, head, lines in cells(path.read_text(encoding="utf-8")):
        if "[markdown]" in head:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
            pieces.append(Piece(_name(path), first, text))
        else:
            pieces += _spoken(path, first, "\n".join(lines), names)
    return pieces


def cells(source: str) -> Iterator[tuple[int, str, list[str]]]:
    """Each cell of a py:percent text: line number of its first line, what follows ``# %%``, and its lines."""
    first, head, lines = 1, None, []
    for number, line in enumerate(source.split("\n"), 1):
        if found := CELL.match(line):
            if head is not None:
                yield first, head, lines
            first, head, lines = number + 1, found["head"], []
        else:
            lines.append(line)
    if head is not None:
        yield first, head, lines


def _spoken(path: Path, first: int, code: str, names: frozenset[str]) -> list[Piece]:
    """Comments, and strings that hold a sentence; English ones and the notebook's own identifiers are left out."""
    pieces = []
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT and not re.match(r"#+ *(fmt|noqa|type|isort|BEGIN|END)", token.string):
            pieces.append(Piece(_name(path), first + token.start[0] - 1, token.string.lstrip("#")))
    lines = code.split("\n")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _says_something(node.value):
            pieces.append(_located(path, first, lines, node))

    def blanked(word: re.Match[str]) -> str:
        return _spaces(word) if word[0] in names and not known(word[0], "es") else word[0]

    pieces = [replace(piece, text=WORD.sub(blanked, piece.text)) for piece in pieces]
    return [piece for piece in pieces if not is_english(blank(piece.text))]


@cache
def identifiers(path: Path) -> frozenset[str]:
    """Every identifier in the code of a py:percent source."""
    blocks = cells(path.read_text(encoding="utf-8"))
    trees = [ast.parse("\n".join(lines)) for _, head, lines in blocks if "[markdown]" not in head]
    return frozenset(name for tree in trees for node in ast.walk(tree) for name in _names(node))


def _names(node: ast.AST) -> Iterator[str]:
    """The identifiers of a node: variables, parameters, functions, attributes and keys in quotes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        yield node.value
    for field in ("id", "arg", "name", "attr"):
        if isinstance(value := getattr(node, field, None), str) and value.isidentifier():
            yield value


def _located(path: Path, first: int, lines: list[str], node: ast.Constant) -> Piece:
    """A string at its line; one part of a long literal is where its first word is written."""
    start, end = node.lineno, node.end_lineno or node.lineno
    if end - start == node.value.count("\n"):
        return Piece(_name(path), first + start - 1, node.value)
    opening = WORD.search(node.value)
    spoken = (n for n in range(start, end + 1) if opening and opening[0] in lines[n - 1])
    return Piece(_name(path), first + next(spoken, start) - 1, node.value, one_line=True)


def _says_something(text: str) -> bool:
    return (len(WORD.findall(text)) > 1 and " " in text.strip()) or bool(re.search("[áéíóúñ¿¡]", text))


def _name(path: Path) -> str:
    return path.resolve().relative_to(ROOT).as_posix() if path.resolve().is_relative_to(ROOT) else path.name


def documents() -> list[Path]:
    """Every Spanish page that a reader of the course meets."""
    return sorted([*LABS.glob("*.md"), *LABS.glob("docentes/*.md"), ROOT / "README.es.md", ROOT / "grading/GUIA.md"])


def everything() -> list[Piece]:
    """All the prose of the course, notebooks first."""
    from minilab.construir import sources

    readers = [(sources(), notebook), (documents(), page), (case_modules(), hints)]
    return [piece for paths, read in readers for path in paths for piece in read(path)]


def hints(path: Path) -> list[Piece]:
    """The names and hints of a module's cases: what a check says when it fails.

    They are plain text: an English word, or an identifier of the notebook, is a name of the code.
    """
    lab = re.match(r"l\d\d", path.stem)
    sources = (LABS / "fuente").glob(f"{lab[0].upper() if lab else 'P'}_*.py")
    code, names = path.read_text(encoding="utf-8"), frozenset().union(*map(identifiers, sources))
    calls = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Case"]
    values = [k.value for call in calls for k in call.keywords if k.arg in ("name", "hint")]
    strings = [n for v in values for n in ast.walk(v) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    pieces = [_located(path, 1, code.split("\n"), node) for node in strings]

    def blanked(word: re.Match[str]) -> str:
        foreign = not known(word[0], "es") and (word[0] in names or known(word[0], "en"))
        return _spaces(word) if foreign or (word[0] in names and word[0][0].isupper()) else word[0]

    return [replace(piece, text=WORD.sub(blanked, piece.text)) for piece in pieces]


def case_modules() -> list[Path]:
    return sorted([*LABS.glob("minilab/pruebas/publicas/*.py"), *ROOT.glob("grading/casos/*.py")])
