"""Dequantise a GGUF file, once, into a Hugging Face folder of bfloat16 safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from minillm_serve.config import ConfigError
from minillm_serve.model.atomic import need_space, write_synced
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.gguf_checkpoint import GGUFCheckpoint
from minillm_serve.model.gguf_config import ROPE_DIVISORS
from minillm_serve.model.gguf_tokenizer import build_tokenizer, tokenizer_config
from minillm_serve.model.store import SOURCE_FILE, ModelStoreError
from minillm_serve.model.weights import load_weights


def convert_gguf(gguf_path: Path, folder: Path, origin: dict[str, str], say: Callable[[str], None]) -> None:
    """Write ``folder`` (which exists and is empty) from ``gguf_path``.

    ``origin`` goes into the provenance record and must hold the honest ``name`` of the weights. Nothing is cleaned up
    on failure: the caller converts into a staging folder. Raises :class:`ModelStoreError`; ``OSError`` on disk errors.
    """
    try:
        checkpoint = GGUFCheckpoint(gguf_path)
        files = _small_files(checkpoint)
        infos = checkpoint.file.tensors.values()
        parameters = sum(info.size for info in infos)
        need_space(folder, 2 * parameters + sum(map(len, files.values())), "the converted model")
        tensors = read_all(checkpoint, say)
    except ModelStoreError:
        raise
    except ConfigError as error:
        raise ModelStoreError(str(error)) from error
    files["model.safetensors"] = save(tensors, metadata={"format": "pt"})
    records = {name: write_synced(folder / name, data) for name, data in files.items()}
    source = {
        **origin,
        "quantization": sorted({info.kind.name for info in infos}),
        "parameters": parameters,
        "converted_with": {"minillm-serve": version("minillm-serve"), "gguf": version("gguf")},
        "files": records,
    }
    write_synced(folder / SOURCE_FILE, _json(source))


def _small_files(checkpoint: GGUFCheckpoint) -> dict[str, bytes]:
    config, metadata = checkpoint.config, checkpoint.file.metadata
    if ROPE_DIVISORS in checkpoint.file.tensors:
        raise ModelStoreError("GGUF files with scaled rotary embeddings cannot be converted: load the file itself")
    return {
        "config.json": _json(config),
        "generation_config.json": _json({key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}),
        "tokenizer.json": build_tokenizer(metadata).to_str().encode(),
        "tokenizer_config.json": _json(tokenizer_config(metadata, config["max_position_embeddings"])),
    }


def read_all(checkpoint: GGUFCheckpoint, say: Callable[[str], None]) -> dict[str, Tensor]:
    """Exactly the tensors that the model would read, each checked as if it were loaded, in bfloat16."""
    kept: dict[str, Tensor] = {}
    total = len(checkpoint.names())

    class Keep:
        """A checkpoint that remembers what was read; a linear method that makes nothing of it."""

        def names(self) -> list[str]:
            return checkpoint.names()

        def read(self, name: str, shape: Sequence[int]) -> Tensor:
            kept[name] = checkpoint.read(name, shape).to(torch.bfloat16)
            if len(kept) % 68 == 0 or len(kept) == total:
                say(f"  {len(kept)}/{total} tensors")
            return kept[name]

        def make(self, weight: Tensor, bias: Tensor | None) -> None:
            return None

    load_weights(Keep(), ModelConfig.from_hf(checkpoint.config), Keep(), torch.bfloat16)
    return kept


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
