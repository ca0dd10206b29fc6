"""IPython's own syntax in a cell that plain Python will run: each such line becomes ``pass`` and a comment."""

from __future__ import annotations

import re
from tokenize import TokenError

MAX_PASSES = 10
MAX_CHARACTERS = 50_000
CANDIDATE = re.compile(r"^[ \t]*[%!?]|=[ \t]*[%!]|\?[ \t]*$", re.MULTILINE)


def without_magics(source: str) -> tuple[str, list[int]]:
    """The source as plain Python and the numbers (from 1) of the lines that were turned off.

    A line is turned off only where IPython would treat it as a magic, a shell command or a question: ``%`` inside a
    string or an expression stays, and so does a text beyond :data:`MAX_CHARACTERS`. Lines keep their numbers, and an
    emptied block keeps a ``pass``.
    """
    if len(source) > MAX_CHARACTERS or not CANDIDATE.search(source):
        return source, []
    lines, off = source.split("\n"), []
    # A shell line can stop the tokenizer, so what follows it is found in the next pass.
    for _ in range(MAX_PASSES):
        found = _special_lines(lines)
        if not found:
            break
        for number in found:
            indent = lines[number][: len(lines[number]) - len(lines[number].lstrip())]
            lines[number] = f"{indent}pass  # {lines[number].strip()}"
        off += [number + 1 for number in found]
    return "\n".join(lines), sorted(off)


def _special_lines(lines: list[str]) -> list[int]:
    from IPython.core.inputtransformer2 import (
        EscapedCommand,
        HelpEnd,
        MagicAssign,
        SystemAssign,
        find_end_of_continued_line,
        make_tokens_by_line,
    )

    text = [f"{line}\n" for line in lines]
    found: list[int] = []
    try:
        logical_lines = make_tokens_by_line(text)
    except (SyntaxError, TokenError):
        return []
    for tokens in logical_lines:
        for kind in (MagicAssign, SystemAssign, EscapedCommand, HelpEnd):
            command = kind.find([tokens])
            if command is None:
                continue
            start = command.start_line
            if kind is EscapedCommand and lines[start].lstrip()[:1] not in "%!?":
                continue
            found += range(start, min(find_end_of_continued_line(text, start), len(lines) - 1) + 1)
            break
    return found
