"""Rebuild a tokenizer from a GGUF's metadata: byte-level BPE (there called ``gpt2``) or SentencePiece (``llama``).

The file names how text is cut before merging (``pre``) but does not say what the name means: names not known here are
refused, because a wrong cut gives other tokens without any error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from minillm_serve.model.loader import CheckpointError
from minillm_serve.model.tokenizer import Tokenizer

UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # gguf.TokenType
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def _words(digits: int) -> list[Any]:
    """Words with one sign or space before them, and numbers of at most ``digits`` digits."""
    pattern = Regex(WORDS % digits)
    return [
        pre_tokenizers.Split(pattern, "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


PRE_TOKENIZERS = {
    "gpt-2": lambda: [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    # Every digit is a token of its own; then GPT-2's split into words, each with its leading space.
    "smollm": lambda: [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "qwen2": lambda: _words(1),
    "llama-bpe": lambda: _words(3),
}


def gguf_tokenizer(metadata: dict[str, Any], eos_token_ids: Iterable[int]) -> Tokenizer:
    """The engine's tokenizer of a GGUF file. Raises :class:`CheckpointError` for kinds not known here."""
    named = named_tokens(metadata)
    eos = {*eos_token_ids, *(id for role, id in _roles(metadata) if role == "eos")}
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise CheckpointError("tokenizer.chat_template must be text")
    return Tokenizer(build_tokenizer(metadata), eos, template, {f"{role}_token": named.get(role) for role in ROLES})


def build_tokenizer(metadata: dict[str, Any]) -> tokenizers.Tokenizer:
    """What ``tokenizer.json`` would hold. Raises :class:`CheckpointError` for kinds not known here."""
    tokens, kinds = _tokens(metadata)
    model = metadata.get("tokenizer.ggml.model")
    if model == "gpt2":
        tokenizer = _byte_level(metadata, tokens)
    elif model == "llama":
        tokenizer = _sentencepiece(metadata, tokens, kinds)
    else:
        raise CheckpointError(f"GGUF tokenizer {model!r} is not supported; supported: gpt2, llama")
    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        own = [token for token, its_kind in zip(tokens, kinds, strict=True) if its_kind == kind]
        add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
        add([AddedToken(token, special=special, normalized=False) for token in own])
    if _adds_bos(metadata):
        bos = named_tokens(metadata).get("bos")
        if bos is None:
            raise CheckpointError("the GGUF's tokenizer adds a BOS token (add_bos_token) and names none")
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, metadata["tokenizer.ggml.bos_token_id"])]
        )
    return tokenizer


def _byte_level(metadata: dict[str, Any], tokens: list[str]) -> tokenizers.Tokenizer:
    pre = metadata.get("tokenizer.ggml.pre")
    if pre not in PRE_TOKENIZERS:
        raise CheckpointError(f"tokenizer gpt2/{pre} is not supported; supported: gpt2/{'|'.join(PRE_TOKENIZERS)}")
    if metadata.get("tokenizer.ggml.add_space_prefix"):
        raise CheckpointError("byte-level tokenizers that add a leading space are not supported")
    merges = metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list) or not all(isinstance(merge, str) and " " in merge for merge in merges):
        raise CheckpointError("tokenizer.ggml.merges must list pairs of tokens")
    try:
        model = BPE(
            _vocabulary(tokens), [tuple(merge.split(" ", 1)) for merge in merges], ignore_merges=pre == "llama-bpe"
        )
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"the GGUF's merges do not fit its tokens: {error}") from error
    tokenizer = tokenizers.Tokenizer(model)
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(PRE_TOKENIZERS[pre]())
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(metadata: dict[str, Any], tokens: list[str], kinds: list[int]) -> tokenizers.Tokenizer:
    """SentencePiece's BPE: of all neighbours the pair whose union has the best score is joined first."""
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise CheckpointError("tokenizer.ggml.scores must hold one number for each token")
    vocabulary = _vocabulary(tokens)
    merged = {token: scores[id] for token, id in vocabulary.items() if kinds[id] not in (UNKNOWN, CONTROL, BYTE)}
    unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == UNKNOWN), None)
    model = BPE(vocabulary, _merges(merged), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    space = metadata.get("tokenizer.ggml.add_space_prefix", True)
    steps = [normalizers.Prepend("▁")] if space else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    undo = [decoders.Strip(content=" ", left=1)] if space else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *undo])
    return tokenizer


def _merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every way to put a token together from two others, best union first (ties: the shorter left part)."""
    pairs = [
        (-score, cut, token)
        for token, score in scores.items()
        for cut in range(1, len(token))
        if token[:cut] in scores and token[cut:] in scores
    ]
    return [(token[:cut], token[cut:]) for _, cut, token in sorted(pairs)]


def tokenizer_config(metadata: dict[str, Any], context_length: int) -> dict[str, Any]:
    """``tokenizer_config.json``: the named special tokens and the chat template."""
    tokens, kinds = _tokens(metadata)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        "added_tokens_decoder": {
            str(index): {"content": token, "special": True, "normalized": False, "lstrip": False, "rstrip": False,
                         "single_word": False}
            for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == CONTROL
        },
    }  # fmt: skip
    config |= {f"{role}_token": token for role, token in named_tokens(metadata).items()}
    if template := metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config


def named_tokens(metadata: dict[str, Any]) -> dict[str, str]:
    """The text of the tokens that have a role: ``bos``, ``eos``, ``unk``, ``pad``, where the file names them."""
    tokens, _ = _tokens(metadata)
    return {role: tokens[index] for role, index in _roles(metadata)}


def _roles(metadata: dict[str, Any]) -> list[tuple[str, int]]:
    tokens, _ = _tokens(metadata)
    roles = [(role, metadata.get(f"tokenizer.ggml.{key}_token_id")) for role, key in ROLES.items()]
    found = [(role, index) for role, index in roles if index is not None]
    for role, index in found:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(tokens):
            raise CheckpointError(f"the GGUF's {role} token is number {index!r} of {len(tokens)}")
    return found


def _tokens(metadata: dict[str, Any]) -> tuple[list[str], list[int]]:
    """Every token and its kind."""
    tokens, kinds = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], str):
        raise CheckpointError("the GGUF has no vocabulary (tokenizer.ggml.tokens)")
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        raise CheckpointError("tokenizer.ggml.token_type must hold one number for each token")
    return tokens, kinds


def _vocabulary(tokens: list[str]) -> dict[str, int]:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise CheckpointError("two tokens of the GGUF's vocabulary are equal")
    return vocabulary


def _adds_bos(metadata: dict[str, Any]) -> bool:
    """Files that do not say mean what llama.cpp assumes for their kind."""
    if metadata.get("tokenizer.ggml.add_eos_token"):
        raise CheckpointError("tokenizers that add an EOS token to each prompt are not supported")
    assumed = metadata.get("tokenizer.ggml.model") == "llama" or metadata.get("tokenizer.ggml.pre") == "llama-bpe"
    return bool(metadata.get("tokenizer.ggml.add_bos_token", assumed))
