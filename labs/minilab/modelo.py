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
ESPECIALES = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CAPAS, OCULTA, INTERMEDIA, CABEZAS, CABEZAS_KV = 2, 64, 128, 4, 2


@dataclass(frozen=True)
class ModeloDeLab:
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


def elige_modelo() -> ModeloDeLab:
    """The model for this notebook run.

    ``MINILAB_MODELO`` may be ``mini`` (always the tiny one) or a model name or folder. ``MINILAB_RAPIDO=1`` asks for
    fewer and shorter requests. While nbgrader executes a notebook the tiny model is used, so that a grader never waits
    for a benchmark.
    """
    from minillm_serve.config import ConfigError
    from minillm_serve.model.store import DEFAULT_MODEL, resolve_model

    pedido = os.environ.get("MINILAB_MODELO", "")
    if pedido == "mini" or os.environ.get("NBGRADER_EXECUTION"):
        return _diminuto()
    try:
        carpeta = resolve_model(pedido or DEFAULT_MODEL)
    except ConfigError:
        if pedido:
            raise
        return _diminuto()
    return ModeloDeLab(str(carpeta), pedido or DEFAULT_MODEL, real=True, rapido=bool(os.environ.get("MINILAB_RAPIDO")))


def _diminuto() -> ModeloDeLab:
    carpeta = Path(tempfile.mkdtemp(prefix="minilab-")) / "modelo-mini"
    crea_modelo_mini(carpeta)
    return ModeloDeLab(str(carpeta), "modelo-mini", real=False, rapido=True)


def crea_modelo_mini(carpeta: str | Path, semilla: int = 0) -> Path:
    """Write a random 2-layer Llama with a byte tokenizer. Only printable ASCII has a non-zero output row."""
    carpeta = Path(carpeta)
    carpeta.mkdir(parents=True, exist_ok=True)
    bytes_visibles = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulario = {t: i for i, t in enumerate([*ESPECIALES, *bytes_visibles])}
    _escribe_tokenizador(carpeta, vocabulario)
    _escribe_config(carpeta, len(vocabulario))
    imprimibles = [vocabulario[c] for c in bytes_visibles if c == "Ġ" or (c.isascii() and c.isprintable())]
    save_file(_pesos(len(vocabulario), imprimibles, semilla), carpeta / "model.safetensors", {"format": "pt"})
    return carpeta


def _escribe_tokenizador(carpeta: Path, vocabulario: dict[str, int]) -> None:
    tokenizador = Tokenizer(models.BPE(vocab=vocabulario, merges=[]))
    tokenizador.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizador.decoder = decoders.ByteLevel()
    tokenizador.add_special_tokens(list(ESPECIALES))
    tokenizador.save(str(carpeta / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
    }
    (carpeta / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _escribe_config(carpeta: Path, vocab: int) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": OCULTA,
        "intermediate_size": INTERMEDIA,
        "num_hidden_layers": CAPAS,
        "num_attention_heads": CABEZAS,
        "num_key_value_heads": CABEZAS_KV,
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
    (carpeta / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _pesos(vocab: int, imprimibles: list[int], semilla: int) -> dict[str, torch.Tensor]:
    azar = torch.Generator().manual_seed(semilla)
    cabeza = OCULTA // CABEZAS

    def matriz(filas: int, columnas: int) -> torch.Tensor:
        return torch.randn(filas, columnas, generator=azar) * 0.15

    salida = torch.zeros(vocab, OCULTA)
    salida[imprimibles] = matriz(len(imprimibles), OCULTA)
    pesos = {
        "model.embed_tokens.weight": matriz(vocab, OCULTA),
        "model.norm.weight": torch.ones(OCULTA),
        "lm_head.weight": salida,
    }
    for capa in range(CAPAS):
        p = f"model.layers.{capa}."
        pesos[p + "input_layernorm.weight"] = torch.ones(OCULTA)
        pesos[p + "post_attention_layernorm.weight"] = torch.ones(OCULTA)
        for nombre, filas in (("q", CABEZAS), ("k", CABEZAS_KV), ("v", CABEZAS_KV)):
            pesos[f"{p}self_attn.{nombre}_proj.weight"] = matriz(filas * cabeza, OCULTA)
        pesos[p + "self_attn.o_proj.weight"] = matriz(OCULTA, OCULTA)
        pesos[p + "mlp.gate_proj.weight"] = matriz(INTERMEDIA, OCULTA)
        pesos[p + "mlp.up_proj.weight"] = matriz(INTERMEDIA, OCULTA)
        pesos[p + "mlp.down_proj.weight"] = matriz(OCULTA, INTERMEDIA)
    return pesos
