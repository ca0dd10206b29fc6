"""A model to load, wherever it lies: a Hugging Face folder, or one GGUF file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minillm_serve.config import ConfigError
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.dummy import NoTokenizer
from minillm_serve.model.loader import Checkpoint
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.model.weights import TensorSource


@dataclass(frozen=True)
class ModelSource:
    """What an engine needs of a model; the weights are still where they lie."""

    config: ModelConfig
    tokenizer: Tokenizer
    checkpoint: TensorSource


def open_model(path: str | Path, *, dummy: TensorSource | None = None, tokenizer: bool = True) -> ModelSource:
    """Open what :func:`minillm_serve.model.store.resolve_model` found. Raises :class:`ConfigError`.

    dummy: where weights come from instead of the files; tokenizer: whether one is loaded.
    """
    if Path(path).suffix == ".gguf":
        source = _open_gguf(Path(path), dummy, tokenizer)
    else:
        source = _open_folder(Path(path), dummy, tokenizer)
    if source.tokenizer.vocab_size > source.config.vocab_size:
        raise ConfigError(
            f"{path}: the tokenizer has {source.tokenizer.vocab_size} tokens, the model only {source.config.vocab_size}"
        )
    return source


def _open_folder(folder: Path, dummy: TensorSource | None, tokenizer: bool) -> ModelSource:
    config = ModelConfig.from_folder(folder)
    ends = config.eos_token_ids
    own = Tokenizer.from_folder(folder, ends) if tokenizer else NoTokenizer(ends)
    return ModelSource(config, own, dummy or Checkpoint(folder))


def _open_gguf(path: Path, dummy: TensorSource | None, tokenizer: bool) -> ModelSource:
    from minillm_serve.model.gguf_checkpoint import GGUFCheckpoint
    from minillm_serve.model.gguf_tokenizer import gguf_tokenizer

    checkpoint = GGUFCheckpoint(path)
    config = ModelConfig.from_hf(checkpoint.config)
    ends = config.eos_token_ids
    own = gguf_tokenizer(checkpoint.file.metadata, ends) if tokenizer else NoTokenizer(ends)
    return ModelSource(config, own, dummy or checkpoint)
