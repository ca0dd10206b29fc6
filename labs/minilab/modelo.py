"""Which model a notebook runs: the real one when it is on this machine, a tiny random one otherwise."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS = 2, 64, 128, 4, 2


@dataclass(frozen=True)
class LabModel:
    """carpeta: a Hugging Face folder. rapido: fewer and shorter requests (always so with the tiny model)."""

    carpeta: str
    nombre: str
    real: bool
    rapido: bool

    @property
    def aviso(self) -> str:
        """One Spanish sentence that says honestly which weights are used."""
        if self.real:
            return f"Modelo real: {self.nombre}, en {self.carpeta}."
        return (
            "Modelo diminuto de pesos aleatorios: el motor y el servidor son los de verdad, el texto no tiene sentido "
            "y sus velocidades no valen como medida. Para el modelo real ejecuta `minillm model get`."
        )


def elige_modelo() -> LabModel:
    """The model for this notebook run.

    ``MINILAB_MODELO`` may be ``mini`` (always the tiny one) or a model name or folder. ``MINILAB_RAPIDO=1`` asks for
    fewer and shorter requests. While nbgrader executes a notebook the tiny model is used, so that a grader never waits
    for a benchmark.
    """
    from minillm_serve.config import ConfigError
    from minillm_serve.model.store import DEFAULT_MODEL, resolve_model

    requested = os.environ.get("MINILAB_MODELO", "")
    if requested == "mini" or os.environ.get("NBGRADER_EXECUTION"):
        return _tiny()
    try:
        folder = resolve_model(requested or DEFAULT_MODEL)
    except ConfigError:
        if requested:
            raise
        return _tiny()
    return LabModel(str(folder), requested or DEFAULT_MODEL, real=True, rapido=bool(os.environ.get("MINILAB_RAPIDO")))


def _tiny() -> LabModel:
    folder = Path(tempfile.mkdtemp(prefix="minilab-")) / "modelo-mini"
    make_tiny_model(folder)
    return LabModel(str(folder), "modelo-mini", real=False, rapido=True)


def make_tiny_model(folder: str | Path, seed: int = 0) -> Path:
    """Write a random 2-layer Llama with a byte tokenizer. Only printable ASCII has a non-zero output row."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    visible_bytes = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate([*SPECIALS, *visible_bytes])}
    _write_tokenizer(folder, vocabulary)
    _write_config(folder, len(vocabulary))
    printable = [vocabulary[c] for c in visible_bytes if c == "Ġ" or (c.isascii() and c.isprintable())]
    save_file(_weights(len(vocabulary), printable, seed), folder / "model.safetensors", {"format": "pt"})
    return folder


def _write_tokenizer(folder: Path, vocabulary: dict[str, int]) -> None:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _write_config(folder: Path, vocab: int) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _weights(vocab: int, printable: list[int], seed: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    head_dim = HIDDEN // HEADS

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=rng) * 0.15

    output = torch.zeros(vocab, HIDDEN)
    output[printable] = matrix(len(printable), HIDDEN)
    weights = {
        "model.embed_tokens.weight": matrix(vocab, HIDDEN),
        "model.norm.weight": torch.ones(HIDDEN),
        "lm_head.weight": output,
    }
    for layer in range(LAYERS):
        p = f"model.layers.{layer}."
        weights[p + "input_layernorm.weight"] = torch.ones(HIDDEN)
        weights[p + "post_attention_layernorm.weight"] = torch.ones(HIDDEN)
        for name, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            weights[f"{p}self_attn.{name}_proj.weight"] = matrix(rows * head_dim, HIDDEN)
        weights[p + "self_attn.o_proj.weight"] = matrix(HIDDEN, HIDDEN)
        weights[p + "mlp.gate_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
        weights[p + "mlp.up_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
        weights[p + "mlp.down_proj.weight"] = matrix(HIDDEN, INTERMEDIATE)
    return weights
