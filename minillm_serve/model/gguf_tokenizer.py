"""Rebuild a byte-level BPE tokenizer, as the two files Hugging Face tools read, from a GGUF's metadata."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from minillm_serve.model.store import ModelStoreError

CONTROL = 3  # gguf.TokenType.CONTROL
PRE_TOKENIZERS = {
    # Every digit is a token of its own; then GPT-2's split into words, each with its leading space.
    "smollm": lambda: [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
}


def build_tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    """The tokenizer that ``tokenizer.ggml.*`` describes. Raises :class:`ModelStoreError` for kinds not known here."""
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ModelStoreError(f"tokenizer {kind}/{pre} is not supported; supported: gpt2/{'|'.join(PRE_TOKENIZERS)}")
    if metadata.get("tokenizer.ggml.add_bos_token") or metadata.get("tokenizer.ggml.add_space_prefix"):
        raise ModelStoreError("tokenizers that add a BOS token or a leading space are not supported")
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(PRE_TOKENIZERS[pre]())
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
            if kind == CONTROL
        ]
    )
    return tokenizer


def tokenizer_config(metadata: dict[str, Any], context_length: int) -> dict[str, Any]:
    """``tokenizer_config.json``: the named special tokens and the chat template."""
    tokens = metadata["tokenizer.ggml.tokens"]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        "added_tokens_decoder": {
            str(index): {"content": token, "special": True, "normalized": False, "lstrip": False, "rstrip": False,
                         "single_word": False}
            for index, (token, kind) in enumerate(zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True))
            if kind == CONTROL
        },
    }  # fmt: skip
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None:
            config[f"{role}_token"] = tokens[index]
    if template := metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config
