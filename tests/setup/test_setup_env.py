"""The set-up script: every way it can stop is one clear sentence, and what is done is not done again."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The script as a module, working on a small copy of the repository's root."""
    spec = importlib.util.spec_from_file_location("setup_env_under_test", ROOT / "minillm_serve" / "setup_env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "clone"
    (root / "minillm_serve").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "minillm_serve/setup_env.py"):
        shutil.copy(ROOT / name, root / name)
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module, "VENV", root / ".venv")
    monkeypatch.setattr(module, "STAMP", root / ".venv" / "minillm-setup.stamp")
    monkeypatch.setattr(module, "LOG", root / ".venv" / "minillm-setup.log")
    monkeypatch.setattr(sys, "argv", ["setup_env.py"])
    return module


def mark_ready(setup_env: types.ModuleType) -> None:
    python = Path(setup_env.venv_python())
    python.parent.mkdir(parents=True)
    python.touch()
    setup_env.STAMP.write_text(setup_env.wanted_stamp())


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 14), (2, 7)])
def test_other_pythons_are_refused(setup_env, monkeypatch, capsys, version):
    monkeypatch.setattr(sys, "version_info", (*version, 0))
    assert setup_env.main() == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Python 3.11, 3.12 or 3.13 is needed" in err
    assert f"is {version[0]}.{version[1]};" in err


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_supported_pythons_pass(setup_env, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", (*version, 0))
    setup_env.check_python()


def test_a_finished_set_up_is_not_repeated(setup_env, monkeypatch):
    mark_ready(setup_env)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("pip was started"))
    assert setup_env.main() == 0


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_input_makes_the_set_up_run_again(setup_env, name):
    mark_ready(setup_env)
    assert setup_env.is_ready()
    with (setup_env.ROOT / name).open("a") as file:
        file.write("# changed\n")
    assert not setup_env.is_ready()


def test_a_moved_clone_is_set_up_again(setup_env, monkeypatch, tmp_path):
    mark_ready(setup_env)
    shutil.copytree(setup_env.ROOT, tmp_path / "moved")
    monkeypatch.setattr(setup_env, "ROOT", tmp_path / "moved")
    assert not setup_env.is_ready()


def test_a_full_disk_is_refused_before_anything_is_made(setup_env, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**10, 10**10, 10**8))
    assert setup_env.main() == 2
    assert "has 0.1 GB free; free some space" in capsys.readouterr().err
    assert not setup_env.VENV.exists()


def test_a_python_without_venv_is_refused(setup_env, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else found(name))
    assert setup_env.main() == 2
    assert "has no venv module; install it" in capsys.readouterr().err


def test_a_folder_that_is_no_environment_is_not_touched(setup_env, capsys):
    setup_env.VENV.mkdir()
    (setup_env.VENV / "thesis.txt").write_text("mine")
    assert setup_env.main() == 2
    assert "is not a virtual environment; move it away" in capsys.readouterr().err
    assert (setup_env.VENV / "thesis.txt").read_text() == "mine"


def test_no_network_is_one_sentence_and_the_log_has_the_rest(setup_env, monkeypatch):
    setup_env.VENV.mkdir()
    monkeypatch.setattr(setup_env, "venv_python", lambda: sys.executable)
    unreachable = ["--index-url", "http://127.0.0.1:9/simple", "--retries", "1", "no-such-package-here==1"]
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(setup_env.SetupError, match="no connection to the package index; run the same command again"):
        setup_env.install(unreachable, show_bar=False)
    assert "no-such-package-here" in setup_env.LOG.read_text()


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("ERROR: OSError: [Errno 28] No space left on device", "the disk is full"),
        ("WARNING: Retrying: NewConnectionError\nERROR: Could not find", "no connection"),
        ("ERROR: No matching distribution found for x\nnotice", "pip failed: ERROR: No matching distribution"),
        ("", "it gave no reason"),
    ],
)
def test_every_pip_failure_is_one_sentence(setup_env, output, sentence):
    explained = setup_env.explain(output)
    assert sentence in explained and "\n" not in explained


def test_an_interrupt_says_that_the_next_run_goes_on(setup_env, monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_env, "make_environment", interrupt)
    assert setup_env.main() == 130
    assert "the next run goes on" in capsys.readouterr().err


def test_an_unfinished_environment_has_no_stamp(setup_env, monkeypatch):
    mark_ready(setup_env)
    (setup_env.VENV / "pyvenv.cfg").touch()
    (setup_env.ROOT / "constraints.txt").write_text("torch==2.13.0\nnumpy==0\n")
    monkeypatch.setattr(setup_env, "create_venv", lambda: None)
    monkeypatch.setattr(setup_env, "install", lambda *_, **__: (_ for _ in ()).throw(setup_env.SetupError("cut")))
    assert setup_env.main() == 2
    assert not setup_env.STAMP.exists()


def test_torch_goes_in_first_and_alone_and_from_where_it_is_told(setup_env, monkeypatch):
    asked: list[list[str]] = []
    monkeypatch.setenv("TORCH_INDEX_URL", "https://wheels.example/cpu")
    monkeypatch.setattr(setup_env, "create_venv", setup_env.VENV.mkdir)
    monkeypatch.setattr(setup_env, "install", lambda arguments, show_bar: asked.append(arguments))
    assert setup_env.main() == 0
    torch = f"torch=={setup_env.pinned('torch')}"
    assert asked == [
        [torch, "--index-url", "https://wheels.example/cpu"],
        ["-c", "constraints.txt", "-e", ".[all]"],
    ]


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
@pytest.mark.parametrize("python", ["/no/such/python", ""])
def test_make_without_a_fitting_python_is_one_sentence(python):
    answer = subprocess.run(["make", "-C", str(ROOT), "env", f"PYTHON={python}"], capture_output=True, text=True)
    sentence = [line for line in answer.stderr.splitlines() if line.startswith("set-up stopped")]
    assert answer.returncode == 2 and len(sentence) == 1
    assert "Python 3.11, 3.12 or 3.13 is needed" in sentence[0]


@needs_make
def test_make_help_lists_the_commands_and_is_the_default():
    listed = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    assert all(f"make {target} " in listed for target in ("demo", "test", "lab", "lint", "clean", "model"))
