"""What ``minillm bench gpu`` runs: two model shapes and three workloads, token for token those of our vLLM figures.

home50: 50 prompts of 128 tokens, 128 new each. mix256: 256 prompts of 100 to 1,024 tokens, 100 to 1,024 new each
(133,966 in all), the workload that nano-vllm's bench.py made common. single: one prompt of 128 tokens, 256 new.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPERATURE = 0.6
MAX_MODEL_LEN = 4096
MAX_NUM_SEQS = 256
GPU_MEMORY_UTILIZATION = 0.88

_COMMON: dict[str, Any] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "dtype": "bfloat16",
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama3-8b": _COMMON | {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 128256, "max_position_embeddings": 8192, "rope_theta": 5e5, "tie_word_embeddings": False,
        "mlp_bias": False,
    },
    "qwen3-0.6b": _COMMON | {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 151936, "max_position_embeddings": 40960, "rope_theta": 1e6, "tie_word_embeddings": True,
    },
    "tiny": _COMMON | {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": 10240, "max_position_embeddings": 4096, "rope_theta": 1e4, "tie_word_embeddings": True,
        "mlp_bias": False,
    },
}  # fmt: skip
MEASURED_SHAPES = ("llama3-8b", "qwen3-0.6b")  # ``tiny`` is for tests on a CPU
CELLS = ("home50", "mix256", "single")


@dataclass(frozen=True)
class Cell:
    """prompts: token ids, all handed over at once; new: how many tokens each gets, exactly."""

    name: str
    prompts: tuple[tuple[int, ...], ...]
    new: tuple[int, ...]


def make_cell(name: str, scale: float = 1.0) -> Cell:
    """One of CELLS. scale below 1 keeps that share of the prompts and of their lengths (for tests)."""
    if name == "mix256":
        rng = random.Random(0)
        prompts = [[rng.randint(0, 10000) for _ in range(rng.randint(100, 1024))] for _ in range(256)]
        new = [rng.randint(100, 1024) for _ in range(256)]
    else:
        rng = random.Random(0)
        count, each = {"home50": (50, 128), "single": (1, 256)}[name]
        prompts = [[rng.randint(10, 10000) for _ in range(128)] for _ in range(count)]
        new = [each] * count
    kept = max(1, round(len(prompts) * scale))
    return Cell(
        name,
        tuple(tuple(prompt[: max(1, round(len(prompt) * scale))]) for prompt in prompts[:kept]),
        tuple(max(2, round(count * scale)) for count in new[:kept]),
    )


def write_shape(name: str, folder: Path) -> Path:
    """A model folder that holds nothing but the shape's config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SHAPES[name]), encoding="utf-8")
    return folder
