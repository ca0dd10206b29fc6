"""FLAGS.md, made from the table of flags: ``minillm serve --flags-table > minillm_serve/serve/FLAGS.md``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from minillm_serve.config import CHOICES
from minillm_serve.serve.flags import GROUPS, Flag
from minillm_serve.serve.foreign_flags import FOREIGN

HEAD = """# Flags of `minillm serve`

Written by `minillm serve --flags-table` from `serve/flags.py`; a test keeps it current. Names are vLLM's wherever vLLM
(0.32) has the flag; what it has as an environment variable only is in capitals. A switch takes `--no-` before its name
to turn it off. TGI's names are those of `text-generation-launcher` 3.3.
"""
FOREIGN_HEAD = """
## Flags of vLLM and TGI that are not here

Typing one of these gives its reason instead of a usage message. A value in the last column asks for nothing else than
what happens anyway, and is accepted.

| flag | why not | accepted |
|---|---|---|
"""


class PrintTable(argparse.Action):
    """Print FLAGS.md and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(flags_table(), end="")
        parser.exit()


def flags_table() -> str:
    """The whole of FLAGS.md."""
    groups = "".join(_group(title, owner, flags) for title, owner, flags in GROUPS)
    foreign = "".join(_row(f"`{name}`", why, ", ".join(map(_value, ok))) for name, (why, ok) in FOREIGN.items())
    return HEAD + groups + FOREIGN_HEAD + foreign


def _group(title: str, owner: type, flags: Sequence[Flag]) -> str:
    defaults = {field.name: field.default for field in fields(owner)}
    head = f"\n## {title.capitalize()}\n\n| flag | what | default | vLLM | TGI |\n|---|---|---|---|---|\n"
    return head + "".join(_flag_row(flag, defaults) for flag in flags)


def _flag_row(flag: Flag, defaults: Mapping[str, Any]) -> str:
    choices = CHOICES.get(flag.field)
    what = flag.what + (f" ({', '.join(str(choice) for choice in choices if choice)})" if choices else "")
    vllm = "the same" if flag.vllm == flag.name else _code(flag.vllm)
    tgi = "the same" if flag.tgi == flag.name else _code(flag.tgi)
    return _row(f"`{flag.name}`", what, _default(defaults[flag.field]), vllm, tgi)


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value is None or value in ("", (), []) else f"`{value}`"


def _value(text: str) -> str:
    return f"`{text}`" if text else "as it is"


def _code(name: str | None) -> str:
    return f"`{name}`" if name else ""


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
