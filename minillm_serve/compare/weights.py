"""How large a model is, read from the headers of its weight files alone: for GB/s and GFLOP/s."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from minillm_serve.config import ConfigError

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
EMBEDDING, OUTPUT = "embed_tokens.weight", "lm_head.weight"
MAX_HEADER = 100 << 20


@dataclass(frozen=True)
class ModelSize:
    """parameters: all. streamed: those that every decode step reads whole: an embedding table that is not also the
    output matrix is left out, since a token reads one row of it. output: those of the output matrix."""

    parameters: int
    streamed: int
    output: int

    def flop(self, prompt_tokens: int, new_tokens: int) -> int:
        """One multiply and one add for each weight that a token needs: a prompt needs no output matrix. Attention over
        the context, small here, is not counted; prompt tokens found in a prefix cache are, as if they were computed."""
        return 2 * (self.streamed - self.output) * (prompt_tokens + new_tokens) + 2 * self.output * new_tokens

    def step_bytes(self, dtype: str) -> int:
        """Bytes of weights that one decode step reads."""
        return self.streamed * BYTES[dtype]


def model_size(folder: Path) -> ModelSize:
    """Size of a model folder, from its safetensors headers. Raises :class:`ConfigError` where it has none."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        shapes |= {name: entry["shape"] for name, entry in read_header(path).items() if name != "__metadata__"}
    if not shapes:
        raise ConfigError(f"{folder} holds no .safetensors file, whose header tells the model's size")
    total = sum(prod(shape) for shape in shapes.values())
    untied = any(name.endswith(OUTPUT) for name in shapes)
    embedding = sum(prod(shape) for name, shape in shapes.items() if name.endswith(EMBEDDING))
    return ModelSize(total, total - embedding if untied else total, embedding)


def read_header(path: Path) -> dict[str, dict]:
    """The JSON header of a safetensors file: eight bytes of length, then the text."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= MAX_HEADER:
            raise ConfigError(f"{path} is not a safetensors file: its header would have {length} bytes")
        return json.loads(file.read(length))
