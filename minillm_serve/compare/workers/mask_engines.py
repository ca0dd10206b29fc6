"""The engines of guided decoding behind one interface (see masks.py); each is imported in its own environment only.

All are asked for ``", "`` and ``": "`` between properties, and for what JSON Schema says about additional ones. The
peers, and ``minillm-ordered``, take properties in the schema's order only; ``minillm`` takes them in any.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from masks import Refused


class _Matcher:
    """``mask``: [words] of the last :meth:`fill`."""

    def __init__(self, mask: Any, fill: Any, accept: Any):
        self.mask, self.fill, self.accept = mask, fill, accept


class Minillm:
    """This project's engine, as ``compile_json_schema`` works when it is told nothing else."""

    any_order: ClassVar[bool] = True

    def __init__(self, tokenizer: str, tokens: list[bytes | None], eos: list[int]):
        import importlib
        import pkgutil

        import tokenizers

        import minillm_serve
        from minillm_serve import guided

        for module in pkgutil.walk_packages(guided.__path__, "minillm_serve.guided."):
            importlib.import_module(module.name)  # a server has imported them long before its first request
        self._guided = guided
        self._tokenizer = tokenizers.Tokenizer.from_file(tokenizer)
        options = guided.JsonOptions(any_order=self.any_order)
        self._options = {"vocab_size": len(tokens), "eos_token_ids": eos, "options": options}
        matcher = self.compile('{"type": "array", "items": {"type": "string"}}').matcher()  # the vocabulary's sets
        for byte in b'["':
            matcher.fill_mask()
            matcher.accept(tokens.index(bytes([byte])))
        matcher.fill_mask()
        self.info = {"version": minillm_serve.__version__}

    def compile(self, schema: str) -> Any:
        try:
            return self._guided.compile_json_schema(schema, self._tokenizer, **self._options)
        except self._guided.SchemaError as error:
            raise Refused(str(error)) from None

    def matcher(self, compiled: Any) -> _Matcher:
        matcher = compiled.matcher()
        wrapped = _Matcher(None, None, matcher.accept)

        def fill() -> None:
            wrapped.mask = matcher.fill_mask()

        wrapped.fill = fill
        return wrapped


class MinillmOrdered(Minillm):
    """This project's engine, as it serves requests: properties in the schema's order."""

    any_order = False


class Llguidance:
    """guidance-ai/llguidance."""

    def __init__(self, tokenizer: str, tokens: list[bytes | None], eos: list[int]):
        import importlib.metadata

        import llguidance
        import numpy

        self._library, self._numpy = llguidance, numpy
        self._words = (len(tokens) + 31) // 32
        self._tokenizer = llguidance.LLTokenizer(tokenizer, n_vocab=len(tokens), eos_token=eos)
        self.info = {"version": importlib.metadata.version("llguidance")}

    def compile(self, schema: str) -> Any:
        options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        try:
            grammar = self._library.LLMatcher.grammar_from_json_schema(schema, options)
        except ValueError as error:
            raise Refused(str(error)) from None
        matcher = self._library.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise Refused(matcher.get_error())
        return matcher

    def matcher(self, compiled: Any) -> _Matcher:
        matcher = compiled.deep_copy()
        mask = self._numpy.zeros(self._words, self._numpy.uint32)
        pointer, size = mask.ctypes.data, mask.nbytes

        def fill() -> None:
            matcher.unsafe_compute_mask_ptr(pointer, size)
            if matcher.is_error():
                raise RuntimeError(matcher.get_error())

        return _Matcher(mask, fill, matcher.consume_token)


class Xgrammar:
    """mlc-ai/xgrammar, on one thread."""

    def __init__(self, tokenizer: str, tokens: list[bytes | None], eos: list[int]):
        import importlib.metadata

        import xgrammar

        self._library = xgrammar
        self._size = len(tokens)
        info = xgrammar.TokenizerInfo([token or b"" for token in tokens], vocab_size=len(tokens), stop_token_ids=eos)
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.info = {"version": importlib.metadata.version("xgrammar")}

    def compile(self, schema: str) -> Any:
        try:
            return self._compiler.compile_json_schema(schema, any_whitespace=False, strict_mode=False)
        except (RuntimeError, ValueError) as error:
            raise Refused(str(error)) from None

    def matcher(self, compiled: Any) -> _Matcher:
        matcher = self._library.GrammarMatcher(compiled)
        masks = self._library.allocate_token_bitmask(1, self._size)
        return _Matcher(
            masks.numpy().view("uint32")[0],
            lambda: matcher.fill_next_token_bitmask(masks),
            matcher.accept_token,
        )


class Outlines:
    """dottxt-ai/outlines-core: the schema becomes a regular expression, the expression an index over the vocabulary."""

    def __init__(self, tokenizer: str, tokens: list[bytes | None], eos: list[int]):
        import importlib.metadata

        import numpy
        import outlines_core

        self._library, self._numpy = outlines_core, numpy
        self._words = (len(tokens) + 31) // 32
        ids: dict[bytes, list[int]] = {}
        for token, text in enumerate(tokens):
            if text:
                ids.setdefault(text, []).append(token)
        self._vocabulary = outlines_core.Vocabulary(eos[0], ids)
        self.info = {"version": importlib.metadata.version("outlines-core")}

    def compile(self, schema: str) -> Any:
        json.loads(schema)
        try:
            expression = self._library.json_schema.build_regex_from_schema(schema)
            return self._library.Index(expression, self._vocabulary)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise Refused(str(error)) from None

    def matcher(self, compiled: Any) -> _Matcher:
        guide = self._library.Guide(compiled)
        mask = self._numpy.zeros(self._words, self._numpy.uint32)
        pointer, words = mask.ctypes.data, self._words

        def accept(token: int) -> bool:
            guide.advance(token, False)
            return True

        return _Matcher(mask, lambda: guide.write_mask_into(pointer, words, 4), accept)


ENGINES = {
    "minillm": Minillm,
    "minillm-ordered": MinillmOrdered,
    "llguidance": Llguidance,
    "xgrammar": Xgrammar,
    "outlines": Outlines,
}
