"""Tiny random models in Hugging Face format, made on the spot: the models of the unit tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
EOS_TOKEN_ID = SPECIAL_TOKENS.index("<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = (
    "Once upon a time there was a small engine that answered many questions at once. "
    "The scheduler gives every request its share of the token budget, and the cache keeps what was computed. "
    "What is the capital of France? The capital of France is Paris. Count to ten: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10. ",
    '{"name": "Ada", "age": 36, "tags": ["math", "engine"], "ok": true, "next": null} '
    '{"city":"Lima","population":10.5,"country":{"code":"PE","open":false}} [{"id": 1}, {"id": 2}] ',
    "¿Dónde está la caché? Un niño pequeño comió ñandú; 日本語 и русский 🙂 → ≤ €. ",
)
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": SPECIAL_TOKENS.index("<|im_start|>"),
    "eos_token_id": EOS_TOKEN_ID,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 7},
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 3, "sliding_window": 5,
        "use_sliding_window": True, "max_window_layers": 1, "tie_word_embeddings": True,
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 24, "rope_theta": 1e6},
    "smollm3": {
        "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "num_hidden_layers": 3, "sliding_window": 6,
        "use_sliding_window": True, "no_rope_layer_interval": 2, "tie_word_embeddings": True,
    },
    "gemma": {
        "architectures": ["GemmaForCausalLM"], "model_type": "gemma", "hidden_act": "gelu_pytorch_tanh",
        "num_key_value_heads": 1, "head_dim": 32, "tie_word_embeddings": True,
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh",
        "head_dim": 32, "query_pre_attn_scalar": 20, "sliding_window": 6, "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "rope_theta": 1e6,
        "rope_local_base_freq": 1e4, "tie_word_embeddings": True,
    },
}  # fmt: skip


def build_tiny_model(folder: Path, *, seed: int = 0, **overrides: Any) -> Path:
    """Write config, tokenizer and random float32 weights into ``folder`` and return it.

    overrides: keys of Hugging Face's ``config.json``, such as ``hidden_size=72, num_attention_heads=9,
    num_key_value_heads=3, tie_word_embeddings=True, attention_bias=True`` or ``**FAMILIES["qwen3"]``. Same seed and
    overrides: same bytes.
    """
    config = CONFIG | overrides
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    generation = {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"]}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    train_tokenizer(config["vocab_size"]).save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    save_file(random_weights(config, seed), str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def train_tokenizer(vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer: every byte string has an encoding, many tokens end inside a UTF-8 character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        max_token_length=12,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"vocab_size {vocab_size} cannot be trained here, got {tokenizer.get_vocab_size()} tokens")
    return tokenizer


def random_weights(config: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Weights large enough that each token changes the next choice: greedy text wanders instead of repeating."""
    generator = torch.Generator().manual_seed(seed)
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    family = config["model_type"]
    gemma = family.startswith("gemma")

    def matrix(rows: int, columns: int, gain: float = 1.5) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * (gain / columns**0.5)

    def norm(size: int = hidden) -> torch.Tensor:
        return (0.0 if gemma else 1.0) + 0.2 * torch.randn(size, generator=generator)

    def bias(size: int) -> torch.Tensor:
        return 0.3 * torch.randn(size, generator=generator)

    weights = {"model.embed_tokens.weight": 0.5 * torch.randn(vocab, hidden, generator=generator)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        rows = {"q_proj": heads * head_dim, "k_proj": kv_heads * head_dim, "v_proj": kv_heads * head_dim}
        for name, count in rows.items():
            weights[f"{prefix}self_attn.{name}.weight"] = matrix(count, hidden)
        weights[f"{prefix}self_attn.o_proj.weight"] = matrix(hidden, heads * head_dim, gain=3.0)
        if config["attention_bias"] or family == "qwen2":
            for name, count in (rows if family == "qwen2" else {**rows, "o_proj": hidden}).items():
                weights[f"{prefix}self_attn.{name}.bias"] = bias(count)
        weights[f"{prefix}mlp.gate_proj.weight"] = matrix(inner, hidden)
        weights[f"{prefix}mlp.up_proj.weight"] = matrix(inner, hidden)
        weights[f"{prefix}mlp.down_proj.weight"] = matrix(hidden, inner, gain=3.0)
        weights[f"{prefix}input_layernorm.weight"] = norm()
        weights[f"{prefix}post_attention_layernorm.weight"] = norm()
        if family in ("qwen3", "gemma3_text"):
            weights[f"{prefix}self_attn.q_norm.weight"] = norm(head_dim)
            weights[f"{prefix}self_attn.k_norm.weight"] = norm(head_dim)
        if family == "gemma3_text":
            weights[f"{prefix}pre_feedforward_layernorm.weight"] = norm()
            weights[f"{prefix}post_feedforward_layernorm.weight"] = norm()
        if config["mlp_bias"]:
            for name, count in {"gate_proj": inner, "up_proj": inner, "down_proj": hidden}.items():
                weights[f"{prefix}mlp.{name}.bias"] = bias(count)
    weights["model.norm.weight"] = norm()
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = matrix(vocab, hidden, gain=4.0)
    return weights
