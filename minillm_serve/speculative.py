"""Frozen configuration of speculative decoding, read from what vLLM takes as ``--speculative-config``.

Keys and their meanings are vLLM's (0.32). Each is honoured, or refused by name unless its value asks for what happens
anyway.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import inf
from typing import Any, Literal

from minillm_serve.errors import ConfigError

METHODS = ("ngram", "suffix", "draft_model", "eagle")
REJECTION_SAMPLE_METHODS = ("match", "standard", "synthetic")
DRAFT_SAMPLE_METHODS = ("greedy", "probabilistic")
BatchSizes = tuple[tuple[int, int, int], ...]

_TRAINED_HEAD = 'use "eagle" with a head trained for this model (see `minillm distill`)'
_FILLED_IN = "vLLM fills it in by itself"
_AS_THE_TARGET = "the draft model runs as the target does"
_ONE_PROCESS = "one process computes both models here"
_AS_STORED = "the draft model is computed with as its folder has it"
# Method of vLLM's -> what to use instead. Its names of multi-token prediction end in _mtp.
REFUSED_METHODS: dict[str, str] = {
    "ngram_gpu": 'use "ngram": its index grows with the text, so there is nothing to search on the GPU',
    "medusa": _TRAINED_HEAD,
    "mlp_speculator": _TRAINED_HEAD,
    "eagle3": f"heads of that format cannot be read; {_TRAINED_HEAD}",
    "mtp": f"no model here has such layers; {_TRAINED_HEAD}",
    "dflash": _TRAINED_HEAD,
    "dspark": _TRAINED_HEAD,
    "custom_class": 'code that is named in a configuration is not run; use one of "ngram", "suffix", "draft_model"',
    "extract_hidden_states": "it drafts nothing: it writes hidden states to disk, for which there is nothing here",
}
# Key -> (why not, values that ask for nothing else than what happens here).
REFUSED_KEYS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "enforce_eager": ("--enforce-eager holds for the draft model too", (None,)),
    "draft_tensor_parallel_size": (_ONE_PROCESS, (None, 1)),
    "tensor_parallel_size": (f"vLLM refuses it too, for draft_tensor_parallel_size; {_ONE_PROCESS}", (None,)),
    "quantization": (_AS_STORED, (None,)),
    "moe_backend": ("there are no mixtures of experts here", (None,)),
    "attention_backend": (_AS_THE_TARGET, (None, "auto")),
    "kv_cache_dtype": (_AS_THE_TARGET, (None,)),
    "max_model_len": (_AS_THE_TARGET, (None,)),
    "revision": ("models are folders here: say the folder in model", (None,)),
    "code_revision": ("code that comes with a model is never run", (None,)),
    "index_share_for_mtp_iteration": ("there is no method mtp here", (None,)),
    "disable_padded_drafter_batch": ("drafts are never padded to one length here", (False,)),
    "disable_eagle_block_drop": ("no cached block is dropped here", (False,)),
    "use_local_argmax_reduction": (_ONE_PROCESS, (False,)),
    "use_heterogeneous_vocab": ("draft and target must have the same vocabulary", (False,)),
    "parallel_drafting": ("drafts are made one token after the other", (False,)),
    "target_model_config": (_FILLED_IN, (None,)),
    "target_parallel_config": (_FILLED_IN, (None,)),
    "draft_model_config": (_FILLED_IN, (None,)),
    "draft_parallel_config": (_FILLED_IN, (None,)),
    "draft_load_config": (_AS_THE_TARGET, (None,)),
    "enable_adaptive_verification": ('there is no method dspark here; "dynamic" shortens drafts', (False,)),
    "dspark_draft_topk": ("there is no method dspark here", (None,)),
    "disable_by_batch_size": (
        'vLLM has removed it: say [[1, N - 1, K], [N, N, 0]] in "num_speculative_tokens_per_batch_size"', (None,)
    ),
}  # fmt: skip
_NGRAM, _SUFFIX, _MODELS = ("ngram",), ("suffix",), ("draft_model", "eagle")
# Field -> the methods that read it; what is not here concerns them all.
READ_BY: dict[str, tuple[str, ...]] = {
    "model": _MODELS,
    "prompt_lookup_min": _NGRAM,
    "prompt_lookup_max": _NGRAM,
    "suffix_decoding_max_tree_depth": _SUFFIX,
    "suffix_decoding_max_cached_requests": _SUFFIX,
    "suffix_decoding_max_spec_factor": _SUFFIX,
    "suffix_decoding_min_token_prob": _SUFFIX,
    "draft_sample_method": _MODELS,
}


@dataclass(frozen=True, kw_only=True)
class SpeculativeConfig:
    """How tokens are drafted and verified. A configuration can be made again from its own fields.

    Drafting. method: ``ngram`` (prompt lookup), ``suffix`` (counts of all texts), ``draft_model`` (a smaller model) or
    ``eagle`` (a head on the target's hidden states); None: ``ngram`` or ``suffix`` where ``model`` says so, else
    ``draft_model``. model: folder of the draft model or head; with ``eagle``, a known model's name is the head that
    comes with this package. num_speculative_tokens: drafts of one request in one step, at most; None: with ``suffix``
    its tree depth. draft_sample_method: a draft model takes its likeliest token (``greedy``) or draws one
    (``probabilistic``).

    Length. num_speculative_tokens_per_batch_size: ``(first, last, tokens)`` for batches of ``first`` to ``last``
    requests; a gap, and all above, take the tokens of the range before. dynamic: shorten drafts by how many of them
    were accepted lately and by what verifying them costs; None: unless the batch sizes are given.

    n-grams. prompt_lookup_min, prompt_lookup_max: tokens that must have occurred before; both None: 5, one None: as the
    other. Suffixes. suffix_decoding_max_tree_depth: tokens of match and draft together. ..._max_cached_requests:
    answers remembered; 0: only a request's own text is used. ..._max_spec_factor: drafts per matched token.
    ..._min_token_prob: a draft ends where its probability would fall below.

    Verification. rejection_sample_method: ``match`` (the target's own draws decide: the same tokens as without drafts),
    ``standard`` (rejection sampling: the same distribution) or ``synthetic`` (benchmarks: drafts are accepted at the
    rates given, whatever they say). synthetic_acceptance_rates: entry i is the share of drafts whose first i + 1 tokens
    are all accepted. synthetic_acceptance_length: the mean number of tokens a step instead, the drawn one included.
    """

    method: Literal["ngram", "suffix", "draft_model", "eagle"] | None = None
    model: str | None = None
    num_speculative_tokens: int | None = None
    num_speculative_tokens_per_batch_size: BatchSizes | None = None
    dynamic: bool | None = None
    prompt_lookup_min: int | None = None
    prompt_lookup_max: int | None = None
    suffix_decoding_max_tree_depth: int = 24
    suffix_decoding_max_cached_requests: int = 10000
    suffix_decoding_max_spec_factor: float = 1.0
    suffix_decoding_min_token_prob: float = 0.1
    draft_sample_method: Literal["greedy", "probabilistic"] = "greedy"
    rejection_sample_method: Literal["match", "standard", "synthetic"] = "match"
    synthetic_acceptance_rates: tuple[float, ...] | None = None
    synthetic_acceptance_length: float | None = None

    def __post_init__(self) -> None:
        self._resolve_method()
        if self.method == "suffix" and self.num_speculative_tokens is None:
            self._set("num_speculative_tokens", self.suffix_decoding_max_tree_depth)
        if self.num_speculative_tokens is None:
            raise ConfigError(f"speculation with {self.method} needs num_speculative_tokens, such as 4")
        if self.method == "ngram":
            self._resolve_lookup()
        self._check_numbers()
        _one_of("draft_sample_method", self.draft_sample_method, DRAFT_SAMPLE_METHODS)
        if self.rejection_sample_method == "block":
            raise ConfigError('rejection_sample_method "block" is not supported: use "standard", which verifies one '
                              'draft after the other, or "match", which gives the tokens of no drafts')  # fmt: skip
        _one_of("rejection_sample_method", self.rejection_sample_method, REJECTION_SAMPLE_METHODS)
        self._resolve_rates()
        if self.num_speculative_tokens_per_batch_size is not None:
            sizes = _batch_sizes(self.num_speculative_tokens_per_batch_size)
            self._set("num_speculative_tokens_per_batch_size", sizes)
        if self.dynamic is None:
            self._set("dynamic", self.num_speculative_tokens_per_batch_size is None)
        if not isinstance(self.dynamic, bool):
            raise ConfigError(f"dynamic must be true or false, got {self.dynamic!r}")
        for field in fields(self):
            readers = READ_BY.get(field.name)
            if readers and self.method not in readers and getattr(self, field.name) != field.default:
                raise ConfigError(f"{field.name} says nothing to method {self.method}: leave it out "
                                  f"(it is for {' and '.join(readers)})")  # fmt: skip

    def draft_tokens(self, batch_size: int) -> int:
        """Drafts of each request, at most, in a batch of ``batch_size`` requests."""
        tokens = self.num_speculative_tokens
        for first, _, limit in self.num_speculative_tokens_per_batch_size or ():
            if first <= batch_size:
                tokens = min(self.num_speculative_tokens, limit)
        return tokens

    @property
    def conditional_rates(self) -> tuple[float, ...]:
        """Of ``synthetic``: the probability that each draft is accepted, given that those before it were."""
        rates = self.synthetic_acceptance_rates or ()
        return tuple(rate / before if before else 0.0 for before, rate in zip((1.0, *rates), rates, strict=False))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _resolve_method(self) -> None:
        if self.model is not None and not isinstance(self.model, str):
            raise ConfigError(f"model must be the folder of a draft model, got {self.model!r}")
        method, named = self.method, (self.model or "").strip("[]")
        if method is None and self.model is None:
            raise ConfigError(f"speculation needs a method ({', '.join(METHODS)}) or the model that drafts")
        if method is None:
            method = named if named in ("ngram", "suffix") else "draft_model"
        elif method == "[ngram]":
            method = "ngram"
        reason = REFUSED_METHODS.get("mtp" if str(method).endswith("_mtp") else str(method))
        if reason is not None:
            raise ConfigError(f"speculation with {method} is not supported: {reason}")
        _one_of("method", method, METHODS)
        self._set("method", method)
        if named == method:
            self._set("model", None)
        if method in _MODELS and self.model is None:
            raise ConfigError(f"speculation with {method} needs model: the folder of the draft model or head")

    def _resolve_lookup(self) -> None:
        shortest, longest = self.prompt_lookup_min, self.prompt_lookup_max
        default = 5 if shortest is None and longest is None else None
        self._set("prompt_lookup_min", default or longest if shortest is None else shortest)
        self._set("prompt_lookup_max", default or shortest if longest is None else longest)

    def _check_numbers(self) -> None:
        lowest = {
            "num_speculative_tokens": 1,
            "prompt_lookup_min": 1,
            "prompt_lookup_max": 1,
            "suffix_decoding_max_tree_depth": 1,
            "suffix_decoding_max_cached_requests": 0,
        }
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and not (_is_int(value) and value >= least):
                raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.method == "ngram" and self.prompt_lookup_min > self.prompt_lookup_max:
            raise ConfigError(f"prompt_lookup_min ({self.prompt_lookup_min}) must not be above prompt_lookup_max "
                              f"({self.prompt_lookup_max})")  # fmt: skip
        _number("suffix_decoding_max_spec_factor", self.suffix_decoding_max_spec_factor, 0, inf)
        _number("suffix_decoding_min_token_prob", self.suffix_decoding_min_token_prob, 0, 1)

    def _resolve_rates(self) -> None:
        """Bring the two ways to say it to ``synthetic_acceptance_rates``."""
        rates, length = self.synthetic_acceptance_rates, self.synthetic_acceptance_length
        count = self.num_speculative_tokens
        if self.rejection_sample_method != "synthetic":
            if rates is not None or length is not None:
                raise ConfigError("synthetic_acceptance_rates and synthetic_acceptance_length need "
                                  'rejection_sample_method "synthetic"')  # fmt: skip
            return
        if (rates is None) == (length is None):
            raise ConfigError('rejection_sample_method "synthetic" needs synthetic_acceptance_rates or '
                              "synthetic_acceptance_length, one of the two")  # fmt: skip
        if rates is None:
            _number("synthetic_acceptance_length", length, 1, count + 1)
            # Whole tokens first, the fraction after them: of all rates with this mean, those that vary least.
            rates = tuple(min(1.0, max(0.0, length - 1 - index)) for index in range(count))
            self._set("synthetic_acceptance_length", None)
        if not isinstance(rates, Sequence) or isinstance(rates, str) or len(rates) != count:
            raise ConfigError(f"synthetic_acceptance_rates must be a list of num_speculative_tokens = {count} rates, "
                              f"got {rates!r}")  # fmt: skip
        for before, rate in zip((1.0, *rates), rates, strict=False):
            _number("an entry of synthetic_acceptance_rates", rate, 0, 1)
            if rate > before:
                raise ConfigError(f"synthetic_acceptance_rates must not rise: {rate} comes after {before}")
        self._set("synthetic_acceptance_rates", tuple(float(rate) for rate in rates))


def speculative_config(given: SpeculativeConfig | Mapping[str, Any] | str | None) -> SpeculativeConfig | None:
    """The configuration that a mapping or JSON text says; None stays None. Raises ConfigError."""
    if given is None or isinstance(given, SpeculativeConfig):
        return given
    known = [field.name for field in fields(SpeculativeConfig)]
    said = {}
    for key, value in read_keys(given).items():
        if key in known:
            said[key] = value
        elif key not in REFUSED_KEYS:
            raise ConfigError(f"speculative_config has no key {key!r}; it knows {', '.join(known)}")
        elif not any(value is neutral or value == neutral for neutral in REFUSED_KEYS[key][1]):
            raise ConfigError(f"{key} is not supported in speculative_config: {REFUSED_KEYS[key][0]}")
    return SpeculativeConfig(**said)


def read_keys(given: Mapping[str, Any] | str) -> dict[str, Any]:
    """A mapping, or the JSON text of one, with ``_`` for each ``-`` of its keys. Raises ConfigError."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise ConfigError(f"speculative_config is not JSON: {error}") from error
    if not isinstance(given, Mapping):
        raise ConfigError('speculative_config must be a JSON object such as {"method": "ngram", '
                          f'"num_speculative_tokens": 4}}, got {given!r}')  # fmt: skip
    return {str(key).replace("-", "_"): value for key, value in given.items()}


def _batch_sizes(given: Any) -> BatchSizes:
    """Sorted; checked to begin with a batch of one and not to overlap."""
    shape = "num_speculative_tokens_per_batch_size must be a list of [first batch size, last, tokens]"
    if not isinstance(given, list | tuple) or not given:
        raise ConfigError(f"{shape}, got {given!r}")
    for entry in given:
        if not isinstance(entry, list | tuple) or len(entry) != 3 or not all(map(_is_int, entry)):
            raise ConfigError(f"{shape} of whole numbers, got {entry!r}")
        if not 1 <= entry[0] <= entry[1] or entry[2] < 0:
            raise ConfigError(f"{shape} with 1 <= first <= last and tokens >= 0, got {entry!r}")
    ranges = sorted((first, last, tokens) for first, last, tokens in given)
    if ranges[0][0] != 1:
        raise ConfigError(f"{shape} whose first range begins with 1: {ranges[0][0]} is the smallest given")
    for (_, last, _), (first, _, _) in pairwise(ranges):
        if first <= last:
            raise ConfigError(f"{shape} that do not overlap: {first} lies in a range that ends with {last}")
    return tuple(ranges)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(name: str, value: Any, least: float, most: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most or value == inf:
        bounds = f"of at least {least}" if most == inf else f"between {least} and {most}"
        raise ConfigError(f"{name} must be a number {bounds}, got {value!r}")


def _one_of(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}, got {value!r}")
