"""Set-up of a fresh clone: a virtual environment, pinned packages and, on request, the model.

Run it by path with any Python 3.11 to 3.13; it uses the standard library only and imports nothing of this package:

    python -I minillm_serve/setup_env.py [--model]

A finished step is not repeated: the stamp in the environment is a hash of everything the set-up depends on.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "minillm-setup.stamp"
LOG = VENV / "minillm-setup.log"
OLDEST, NEWEST = (3, 11), (3, 13)
NEEDED_BYTES = 6 * 10**9
PIP = ("-m", "pip", "install", "--disable-pip-version-check", "--retries", "2")
NO_NETWORK = ("NewConnectionError", "ConnectTimeout", "Max retries", "name resolution", "Connection", "timed out")


class SetupError(Exception):
    """The set-up cannot go on; one sentence with the reason and the remedy."""


def main() -> int:
    """Make the environment; returns the exit status (0, or 2 after one sentence on stderr)."""
    parser = argparse.ArgumentParser(description="Set up this clone: virtual environment, packages, model.")
    parser.add_argument("--model", action="store_true", help="also put the real model into the user's cache")
    arguments = parser.parse_args()
    try:
        check_python()
        if not is_ready():
            make_environment()
        if arguments.model and subprocess.run([venv_python(), "-m", "minillm_serve.cli", "model", "get"], cwd=ROOT,
                                              stdout=subprocess.DEVNULL).returncode:  # fmt: skip
            return 2
    except SetupError as error:
        print("set-up stopped: {}".format(error), file=sys.stderr)  # noqa: UP032
        return 2
    except KeyboardInterrupt:
        print("set-up interrupted; the next run goes on where this one stopped", file=sys.stderr)
        return 130
    return 0


def check_python() -> None:
    """Refuse interpreters that the packages are not made for."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        raise SetupError(
            "Python 3.11, 3.12 or 3.13 is needed and {} is {}.{}; "
            "name another with: make PYTHON=/path/to/python3.11".format(sys.executable, *version)
        )


def venv_python() -> str:
    """The environment's interpreter."""
    return str(VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def wanted_stamp() -> str:
    """A hash of what the environment is made from; another value means that it must be brought up to date."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt", "minillm_serve/setup_env.py"):
        digest.update((ROOT / name).read_bytes())
    digest.update(repr((str(ROOT), sys.version_info[:2], sys.platform)).encode())
    return digest.hexdigest()


def is_ready() -> bool:
    """True if the last set-up finished and nothing it depends on has changed since."""
    try:
        return STAMP.read_text().strip() == wanted_stamp() and Path(venv_python()).exists()
    except OSError:
        return False


def make_environment() -> None:
    """Create ``.venv`` and install into it: torch first and alone, so that nothing else chooses another build."""
    began = time.monotonic()
    check_space()
    say(1, "virtual environment in .venv, Python {}.{}".format(*sys.version_info[:2]))
    STAMP.unlink(missing_ok=True)
    create_venv()
    LOG.write_text("")
    say(2, f"torch {pinned('torch')}; {torch_source()}")
    index = os.environ.get("TORCH_INDEX_URL")
    install([f"torch=={pinned('torch')}", *(["--index-url", index] if index else [])], show_bar=True)
    say(3, "the other packages, at the versions in constraints.txt")
    install(["-c", "constraints.txt", "-e", ".[all]"], show_bar=False)
    STAMP.write_text(wanted_stamp() + "\n")
    print(f"[set-up] done in {time.monotonic() - began:.0f} s", flush=True)


def check_space() -> None:
    """Refuse before the first download when the packages cannot fit."""
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES:
        raise SetupError(
            f"the packages need up to {NEEDED_BYTES / 1e9:.0f} GB and the disk that holds {ROOT} has "
            f"{free / 1e9:.1f} GB free; free some space and try again"
        )


def create_venv() -> None:
    """Make the environment, or make it anew if it belongs to another Python or does not start."""
    if Path(sys.prefix).resolve() == VENV.resolve() or venv_version() == sys.version_info[:2]:
        return
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        raise SetupError(
            "this Python has no venv module; install it (Debian, Ubuntu: "
            "sudo apt install python{}.{}-venv) and try again".format(*sys.version_info[:2])
        )
    if VENV.exists() and not (VENV / "pyvenv.cfg").exists() and any(VENV.iterdir()):
        raise SetupError(f"{VENV} exists and is not a virtual environment; move it away and try again")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True)
    if made.returncode:
        raise SetupError(f"making {VENV} failed: {last_line(made.stderr + made.stdout)}")


def venv_version() -> tuple[int, ...] | None:
    """(major, minor) of the environment's interpreter; None if it has none that starts and has pip."""
    try:
        asked = subprocess.run([venv_python(), "-c", "import pip, sys; print(*sys.version_info[:2])"],
                               capture_output=True, text=True)  # fmt: skip
    except OSError:
        return None
    return None if asked.returncode else tuple(map(int, asked.stdout.split()))


def pinned(package: str) -> str:
    """The version of ``package`` in constraints.txt."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        if name == package:
            return version
    raise SetupError(f"constraints.txt has no version of {package}")


def torch_source() -> str:
    """What to expect of the download, which on Linux depends on where it comes from."""
    if os.environ.get("TORCH_INDEX_URL"):
        return "from TORCH_INDEX_URL"
    if sys.platform.startswith("linux"):
        return (
            "on Linux this may bring several GB of CUDA packages; to avoid that, stop and set TORCH_INDEX_URL "
            "to the CPU wheel index given on PyTorch's «Get started» page"
        )
    return "CPU build"


def install(arguments: list[str], show_bar: bool) -> None:
    """``pip install ARGUMENTS``: pip's own progress bar on a terminal, else a short account of its progress."""
    own_bar = show_bar and sys.stdout.isatty()
    pip = subprocess.Popen([venv_python(), *PIP, *arguments], cwd=ROOT, text=True, errors="replace",
                           stdout=None if own_bar else subprocess.PIPE, stderr=subprocess.PIPE if own_bar
                           else subprocess.STDOUT)  # fmt: skip
    try:
        output = follow(pip.stderr if own_bar else pip.stdout, quiet=own_bar)
        status = pip.wait()
    except BaseException:
        pip.kill()
        pip.wait()
        raise
    if status:
        raise SetupError(explain(output))


def follow(stream, quiet: bool) -> str:
    """Copy pip's output to the log and tell its progress in a few lines; returns all of it."""
    lines, packages = [], 0
    with LOG.open("a") as log:
        for line in stream:
            lines.append(line)
            log.write(line)
            if quiet:
                continue
            packages += line.startswith("Collecting ")
            if line.startswith("Collecting ") and packages % 20 == 0:
                print(f"  {packages} packages found", flush=True)
            elif line.startswith("Installing collected packages:"):
                print(f"  installing {line.count(',') + 1} packages", flush=True)
    return "".join(lines)


def explain(output: str) -> str:
    """One sentence for a failed pip run."""
    details = f"(pip's words are in {LOG})"
    if "No space left" in output or "Errno 28" in output:
        return f"the disk is full; free some space and run the same command again {details}"
    if any(sign in output for sign in NO_NETWORK):
        return f"no connection to the package index; run the same command again with network {details}"
    return f"pip failed: {last_line(output)} {details}"


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it gave no reason"])[-1]


def say(step: int, text: str) -> None:
    print(f"[set-up {step}/3] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
