"""Jinja for chat templates: Hugging Face's dialect, in Jinja's sandbox, with a meter that ends what takes too much.

The meter counts rounds of loops, calls and characters written, and looks at the clock each time; numbers that make
something huge in one operation are refused. One long operation on one large value is beyond it: templates that come
with requests run in a process of their own (:mod:`minillm_serve.model.template_process`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_INT_BITS = 4096
MAX_WIDTH = 1_000  # of indentation, padding and the like
MAX_FORMAT_CHARS = 100
_SIZED = (str, bytes, list, tuple)
_WIDE_FORMAT = re.compile(r"\*|[0-9]{4}")
_WIDTH_FILTERS = ("batch", "center", "indent", "slice", "truncate", "wordwrap")
_FORMATS = ("format", "format_map", "strftime")


@dataclass(frozen=True)
class Limits:
    """What rendering one conversation may take. max_chars: of the result. max_steps: rounds, calls and operations."""

    seconds: float = 2.0
    max_chars: int = 8 * 2**20
    max_steps: int = 2_000_000


class TemplateLimitError(TemplateError):
    """The template takes more than its limits allow."""


class Meter:
    """What one rendering has left."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._steps = limits.max_steps
        self._chars = 32 * limits.max_chars  # texts on the way to the result count as well
        self._end = time.monotonic() + limits.seconds

    def spend(self, chars: int = 0) -> None:
        """One step that makes ``chars`` characters or items. Raises :class:`TemplateLimitError`."""
        self._steps -= 1
        self._chars -= chars
        if self._steps < 0:
            raise TemplateLimitError(f"it takes more than {self._limits.max_steps} steps")
        if self._chars < 0:
            raise TemplateLimitError(f"it makes more than {self._limits.max_chars} characters")
        if time.monotonic() > self._end:
            raise TemplateLimitError(f"it takes longer than {self._limits.seconds:g} seconds")


_meter: ContextVar[Meter] = ContextVar("template_meter")


@contextmanager
def metered(limits: Limits) -> Iterator[Meter]:
    """Within the block, templates that this thread renders spend from one meter."""
    meter = Meter(limits)
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The dialect of Hugging Face's chat templates. Use it within :func:`metered`."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag])
        self.filters |= {name: _with_small_numbers(self.filters[name]) for name in _WIDTH_FILTERS}
        self.filters |= {"tojson": _tojson, "format": _format, _ROUNDS: _Rounds}
        self.globals = {
            "range": self.globals["range"],
            "dict": lambda *args, **kwargs: dict(*args, **kwargs),
            "namespace": _Namespace,
            "cycler": self.globals["cycler"],
            "joiner": self.globals["joiner"],
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def _generate(self, source: nodes.Template, *args: Any, **more: Any) -> str:
        return super()._generate(_CountRounds().visit(source), *args, **more)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Each call is a step; so are the rounds of a recursive loop, which begin with a call of ``loop``."""
        _meter.get().spend()
        if isinstance(__obj, LoopContext) and args:
            args = (_Rounds(args[0]), *args[1:])
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)  # Jinja wraps str.format
        if isinstance(owner, (str, bytes, int)):
            _check_numbers((*args, *kwargs.values()))
            if getattr(__obj, "__name__", "") in _FORMATS and isinstance(owner, str):
                _check_format(owner)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuses a result that would be huge before it is made."""
        _meter.get().spend(_size_of_result(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """No method of a number makes a better prompt, and some make a very long one."""
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, (int, float)) and callable(value))


class GenerationTag(Extension):
    """``{% generation %}`` marks the assistant's words for training; here its body is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's name and type)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Jinja's hook."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_ROUNDS = "_rounds"


class _CountRounds(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _ROUNDS, [], [], None, None, lineno=node.lineno)
        return node


class _Rounds:
    """An iterable whose every item is a step."""

    def __init__(self, items: Iterable[Any]):
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        spend = _meter.get().spend
        for item in self._items:
            spend()
            yield item

    def __len__(self) -> int:
        return len(self._items)  # type: ignore[arg-type]  (TypeError tells Jinja that the length is not known)


class _Namespace(Namespace):
    """Without names that lead into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # as Jinja's: a name may be "self"
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            _check_name(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError(f"a namespace has no place for {str(name)[:40]!r}")


def _size_of_result(operator: str, left: Any, right: Any) -> int:
    """Characters or items, about. Raises :class:`TemplateLimitError` where a number would be astronomical."""
    if operator == "%" and isinstance(left, str):
        _check_format(left)
    if operator == "+" and isinstance(left, _SIZED) and isinstance(right, _SIZED):
        return len(left) + len(right)
    if operator == "*":
        for many, count in ((left, right), (right, left)):
            if isinstance(many, _SIZED) and isinstance(count, int):
                return len(many) * max(count, 0)
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() + right.bit_length()
        if operator == "**" and right > 0:
            bits = left.bit_length() * right
        if bits > MAX_INT_BITS:
            raise TemplateLimitError("it reckons with numbers that are too large")
    return 0


def _check_numbers(values: Iterable[Any]) -> None:
    if any(isinstance(value, int) and value > MAX_WIDTH for value in values):
        raise TemplateLimitError(f"it pads, indents or repeats by more than {MAX_WIDTH}")


def _check_format(form: str) -> None:
    if _WIDE_FORMAT.search(form):
        raise TemplateLimitError("it formats with a width that is too large or not known")


def _with_small_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # keeps the marks by which Jinja knows that a filter wants its environment
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _check_numbers((*args, *kwargs.values()))
        return function(*args, **kwargs)

    return bounded


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Hugging Face's: without Jinja's escapes for HTML."""
    _check_numbers([indent])
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    _meter.get().spend(len(text))
    return text


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    _check_format(str(value))
    return str(value) % (kwargs or args)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    if len(form) > MAX_FORMAT_CHARS:
        raise TemplateLimitError("it formats a date at great length")
    return datetime.now().strftime(form)
