"""What a user may ask for: sampling parameters, checked when they are made, with the field at fault named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any


class RequestError(ValueError):
    """The request cannot be served as asked: says what was wrong, what was expected and which field it was.

    ``param`` is the dotted path of the offending field (``None`` when no single field is to blame).
    The HTTP server answers it with 400; nothing of the request has been scheduled.
    """

    def __init__(self, message: str, param: str | None = None):
        super().__init__(message)
        self.param = param


MAX_STOP_STRINGS = 4
MAX_WORD_CHARS = 4096  # of a stop string or a bad word: every token's text is compared with their beginnings
MAX_SEQUENCES = 16_384  # vLLM's VLLM_MAX_N_SEQUENCES: one request must not fill the queue by itself
WHOLE_VOCABULARY = -1
MAX_LOGPROB_TOKEN_IDS = 128
WHITESPACE_POLICIES = ("json", "compact", "spaced", "flexible")
MAX_WHITESPACE = 64
CONSTRAINT_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "json": ((dict, bool, str), "a JSON Schema: an object, a boolean or JSON text"),
    "regex": ((str,), "a string"),
    "choice": ((list, tuple), "a list of strings with at least one of them"),
    "grammar": ((str,), "a string"),
    "json_object": ((bool,), "true or false"),
    "structural_tag": ((dict, str), "an object or JSON text"),
}
CONSTRAINT_KINDS = tuple(CONSTRAINT_TYPES)


@dataclass(frozen=True, kw_only=True)
class StructuredOutputsParams:
    """Constraint on the generated text; exactly one of the first six is given (vLLM's field names and meanings).

    json: a JSON Schema, as a dict, a boolean or JSON text. regex: the whole text matches it (ECMA 262). choice: the
    text is one of these. grammar: EBNF (GBNF or Lark). json_object: any JSON object. structural_tag: free text with
    constrained parts between tags, as a dict or JSON text.

    whitespace, max_whitespace, any_order, lenient: how JSON is spelled out and how strictly the schema is read (see
    :mod:`minillm_serve.guided.options`). always_closes: the text is complete within max_tokens, whatever the model
    says; None: what the engine is configured for.

    Raises :class:`RequestError` naming ``structured_outputs.FIELD``.
    """

    json: dict[str, Any] | bool | str | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: dict[str, Any] | str | None = None
    whitespace: str = "json"
    max_whitespace: int = 16
    any_order: bool = False
    lenient: bool = False
    always_closes: bool | None = None

    def __post_init__(self) -> None:
        given = self._given()
        if len(given) != 1:
            found = f"got {', '.join(given)}" if given else "got none of them"
            raise RequestError(
                f"exactly one of {', '.join(CONSTRAINT_KINDS)} must be given, {found}", "structured_outputs"
            )
        self._check_constraint(given[0])
        if self.whitespace not in WHITESPACE_POLICIES:
            self._refuse("whitespace", f"one of {', '.join(WHITESPACE_POLICIES)}")
        _check_int("structured_outputs.max_whitespace", self.max_whitespace, low=0, high=MAX_WHITESPACE)
        for name in ("any_order", "lenient", "always_closes"):
            if not isinstance(value := getattr(self, name), bool) and not (value is None and name == "always_closes"):
                self._refuse(name, "true or false")

    def _given(self) -> list[str]:
        names = [name for name in CONSTRAINT_KINDS if getattr(self, name) is not None]
        return [name for name in names if name != "json_object" or self.json_object is not False]

    def _check_constraint(self, kind: str) -> None:
        value = getattr(self, kind)
        types, expected = CONSTRAINT_TYPES[kind]
        if not isinstance(value, types):
            self._refuse(kind, expected)
        if kind == "choice":
            if not value or not all(isinstance(text, str) for text in value):
                self._refuse(kind, expected)
            object.__setattr__(self, "choice", tuple(value))

    def _refuse(self, name: str, expected: str) -> None:
        value = getattr(self, name)
        got = repr(value[:40]) if isinstance(value, str) else f"a value of type {type(value).__name__}"
        raise RequestError(f"{name} must be {expected}, got {got}", f"structured_outputs.{name}")

    @property
    def kind(self) -> str:
        """Which constraint is given: one of CONSTRAINT_KINDS."""
        return self._given()[0]

    def key(self) -> str:
        """Canonical text: constraints with the same key are the same grammar. Raises :class:`RequestError`.

        Worked out once: do not change the schema's dict afterwards.
        """
        return self._key

    @cached_property
    def _key(self) -> str:
        value = getattr(self, self.kind)
        options = [self.whitespace, self.max_whitespace, self.any_order, self.lenient]
        try:
            return json.dumps([self.kind, value, options], ensure_ascii=False)
        except (RecursionError, TypeError, ValueError) as error:
            raise RequestError(f"{self.kind} is not JSON: {error}", f"structured_outputs.{self.kind}") from error


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to pick each next token and when to stop; field names and meanings follow vLLM.

    How many. n: completions of one prompt. best_of: sequences generated, of which the n with the highest cumulative
    log-probability are returned (None: n). Greedy ones would all be the same: temperature 0 wants n = 1.

    Which token. temperature 0 is greedy. top_k 0 or -1 keeps every token. top_p in (0, 1], the nucleus. min_p in
    [0, 1], relative to the likeliest token (Nguyen et al. 2024, arXiv:2407.01082). typical_p in (0, 1], 1 is off
    (Meister et al. 2022, arXiv:2202.00666). presence_penalty and frequency_penalty in [-2, 2] look at generated
    tokens; repetition_penalty > 0 (Keskar et al. 2019, arXiv:1909.05858), 1 is off, looks at the prompt too.
    logit_bias: token id -> [-100, 100] added to its logit (ids may be strings of digits, as JSON has them).
    allowed_token_ids: no other token is ever drawn. bad_words: texts that must not be generated; bad_words_ids: the
    same as token sequences (the engine adds those of bad_words when it admits the request). structured_outputs: the
    text must satisfy a constraint; where bad_words or min_tokens would leave none of the tokens that it allows, they
    give way. seed makes the output a function of the request alone, whatever else is in the batch.

    When to stop. max_tokens None means "until the context is full". min_tokens: before so many, EOS and
    stop_token_ids cannot be drawn and stop strings do not count. ignore_eos: EOS is a token like any other.
    ``stop`` strings end the text, and appear in it only with include_stop_str_in_output.

    What is told. logprobs, prompt_logprobs: None for none, k for the token that stands there plus the k likeliest,
    -1 for the whole vocabulary. logprob_token_ids: name these tokens beside it, not the likeliest ones.
    skip_special_tokens: leave them out of the text.

    Raises :class:`RequestError` on any value outside its range.
    """

    n: int = 1
    best_of: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: tuple[int, ...] | None = None
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    skip_special_tokens: bool = True
    structured_outputs: StructuredOutputsParams | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            self._set("stop", (self.stop,))
        for name in ("stop", "stop_token_ids", "bad_words", "bad_words_ids"):
            self._set(name, _as_tuple(name, getattr(self, name)))
        self._check_numbers()
        self._check_stops()
        self._check_tokens()
        self._check_together()

    def _check_numbers(self) -> None:
        _check_int("n", self.n, low=1, high=MAX_SEQUENCES)
        _check_int("best_of", self.best_of, low=1, high=MAX_SEQUENCES, optional=True)
        _check_number("presence_penalty", self.presence_penalty, low=-2.0, high=2.0)
        _check_number("frequency_penalty", self.frequency_penalty, low=-2.0, high=2.0)
        _check_number("repetition_penalty", self.repetition_penalty, low=0.0, open_low=True)
        _check_number("temperature", self.temperature, low=0.0, high=2.0)
        _check_number("top_p", self.top_p, low=0.0, high=1.0, open_low=True)
        _check_number("min_p", self.min_p, low=0.0, high=1.0)
        _check_number("typical_p", self.typical_p, low=0.0, high=1.0, open_low=True)
        _check_int("top_k", self.top_k, low=-1)
        _check_int("seed", self.seed, low=-(2**63), high=2**63 - 1, optional=True)
        _check_int("max_tokens", self.max_tokens, low=1, optional=True)
        _check_int("min_tokens", self.min_tokens, low=0)
        _check_int("logprobs", self.logprobs, low=WHOLE_VOCABULARY, optional=True)
        _check_int("prompt_logprobs", self.prompt_logprobs, low=WHOLE_VOCABULARY, optional=True)

    def _check_stops(self) -> None:
        if len(self.stop) > MAX_STOP_STRINGS:
            raise RequestError(f"at most {MAX_STOP_STRINGS} stop strings are allowed, got {len(self.stop)}", "stop")
        for text in self.stop:
            if not isinstance(text, str) or not text:
                raise RequestError("each stop string must be a non-empty string", "stop")
            _check_length("stop", text)
        for token in self.stop_token_ids:
            _check_int("stop_token_ids", token, low=0)
        for name in ("include_stop_str_in_output", "ignore_eos", "skip_special_tokens"):
            if not isinstance(getattr(self, name), bool):
                raise RequestError(f"{name} must be true or false, got {getattr(self, name)!r}", name)

    def _check_tokens(self) -> None:
        if self.logit_bias is not None:
            self._set("logit_bias", _logit_bias(self.logit_bias))
        if self.allowed_token_ids is not None:
            self._set("allowed_token_ids", _as_tuple("allowed_token_ids", self.allowed_token_ids))
            if not self.allowed_token_ids:
                raise RequestError("allowed_token_ids must name at least one token", "allowed_token_ids")
            for token in self.allowed_token_ids:
                _check_int("allowed_token_ids", token, low=0)
        self._check_described()
        for text in self.bad_words:
            if not isinstance(text, str) or not text.strip():
                raise RequestError(f"each bad word must be a non-blank string, got {text!r:.80}", "bad_words")
            _check_length("bad_words", text)
        for sequence in self.bad_words_ids:
            if not isinstance(sequence, (list, tuple)) or not sequence:
                raise RequestError("each of bad_words_ids must be a non-empty list of token ids", "bad_words_ids")
            for token in sequence:
                _check_int("bad_words_ids", token, low=0)
        self._set("bad_words_ids", tuple(map(tuple, self.bad_words_ids)))

    def _check_described(self) -> None:
        name = "logprob_token_ids"
        if self.logprob_token_ids is None:
            return
        self._set(name, _as_tuple(name, self.logprob_token_ids))
        if self.logprobs is None:
            raise RequestError(f"{name} needs logprobs", name)
        if not 0 < len(self.logprob_token_ids) <= MAX_LOGPROB_TOKEN_IDS:
            raise RequestError(
                f"{name} must name 1 to {MAX_LOGPROB_TOKEN_IDS} tokens, got {len(self.logprob_token_ids)}", name
            )
        for token in self.logprob_token_ids:
            _check_int(name, token, low=0)

    def _check_together(self) -> None:
        if self.best_of is not None and self.best_of < self.n:
            raise RequestError(f"best_of must be at least n = {self.n}, got {self.best_of}", "best_of")
        if self.greedy and self.num_sequences > 1:
            name = "n" if self.n > 1 else "best_of"
            raise RequestError(f"{name} must be 1 when temperature is 0, got {getattr(self, name)}", name)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(
                f"min_tokens must be at most max_tokens = {self.max_tokens}, got {self.min_tokens}", "min_tokens"
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def num_sequences(self) -> int:
        """Sequences to generate for one prompt."""
        return self.n if self.best_of is None else self.best_of


POOLING_TASKS = ("embed", "likelihood")


@dataclass(frozen=True, kw_only=True)
class PoolingParams:
    """What to make of a prompt alone: nothing is generated (vLLM's name and fields; the task ``likelihood`` is ours).

    task ``embed``: the mean of the prompt's hidden states after the last norm, one vector. use_activation: divide it by
    its length, so that a dot product is a cosine (None: yes). dimensions must be None: the first numbers of such a
    vector mean nothing by themselves, only a model trained for that (Kusupati et al. 2022, arXiv:2205.13147) has
    shorter vectors inside its long ones. task ``likelihood``: the log-probability of each prompt token.
    Raises :class:`RequestError`.
    """

    task: str = "embed"
    use_activation: bool | None = None
    dimensions: int | None = None

    def __post_init__(self) -> None:
        if self.task not in POOLING_TASKS:
            raise RequestError(f"task must be one of {', '.join(POOLING_TASKS)}, got {self.task!r}", "task")
        if self.use_activation is not None and not isinstance(self.use_activation, bool):
            raise RequestError(f"use_activation must be true or false, got {self.use_activation!r}", "use_activation")
        if self.dimensions is not None:
            raise RequestError(
                "this model was not trained for shorter vectors (matryoshka representations): leave dimensions out",
                "dimensions",
            )


def _as_tuple(name: str, value: Any) -> tuple[Any, ...]:
    if value is not None and not isinstance(value, (list, tuple)):
        raise RequestError(f"{name} must be a list, got {value!r}", name)
    return tuple(value or ())


def _logit_bias(value: Any) -> dict[int, float]:
    """Keys as ints, values as floats, in a dict that nobody else holds."""
    if not isinstance(value, Mapping):
        raise RequestError(f"logit_bias must map token ids to numbers, got {value!r}", "logit_bias")
    bias: dict[int, float] = {}
    for key, amount in value.items():
        token = int(key) if isinstance(key, str) and key.isascii() and key.isdigit() else key
        _check_int("logit_bias", token, low=0)
        _check_number("logit_bias", amount, low=-100.0, high=100.0)
        bias[token] = float(amount)
    return bias


def _check_length(name: str, text: str) -> None:
    if len(text) > MAX_WORD_CHARS:
        raise RequestError(f"{name}: at most {MAX_WORD_CHARS} characters each, got {len(text)}", name)


def _check_int(name: str, value: Any, low: int, high: int | None = None, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} must be an integer, got {value!r}", name)
    if value < low or (high is not None and value > high):
        limit = f"at least {low}" if high is None else f"between {low} and {high}"
        raise RequestError(f"{name} must be {limit}, got {value}", name)


def _check_number(name: str, value: Any, low: float, high: float | None = None, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise RequestError(f"{name} must be a finite number, got {value!r}", name)
    too_low = value <= low if open_low else value < low
    if too_low or (high is not None and value > high):
        if high is not None:
            limit = f"in {'(' if open_low else '['}{low:g}, {high:g}]"
        else:
            limit = f"{'greater than' if open_low else 'at least'} {low:g}"
        raise RequestError(f"{name} must be {limit}, got {value:g}", name)
