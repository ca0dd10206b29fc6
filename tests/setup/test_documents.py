"""README, its translation, Makefile, constraints and pyproject tell the same story."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
READMES = ("README.md", "README.es.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND_LANGUAGES = {"bash", "powershell", "python", "json"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(name: str) -> list[tuple[str, list[str]]]:
    """The code blocks of a document without their comments, which are translated."""
    return [
        (language, [line for raw in body.splitlines() if (line := re.sub(r"\s*#(?!\{).*$", "", raw).rstrip())])
        for language, body in FENCE.findall(read(name))
        if language in COMMAND_LANGUAGES
    ]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))


def requirement_name(requirement: str) -> str:
    return re.split(r"[\[<>=;~! ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_both_readmes_give_the_same_commands():
    english, spanish = (commands(name) for name in READMES)
    assert len(english) >= 5
    assert english == spanish


def test_both_readmes_have_the_same_sections_and_picture():
    def outline(name: str) -> list[int]:
        return [len(marks) for marks in re.findall(r"^(#+) ", re.sub(FENCE, "", read(name)), re.MULTILINE)]

    assert outline("README.md") == outline("README.es.md")
    pictures = [re.findall(r"!\[[^\]]+\]\(([^)]+)\)", read(name)) for name in READMES]
    assert pictures[0] == pictures[1] == ["labs/imagenes/demo.png"]
    assert (ROOT / pictures[0][0]).exists()


@pytest.mark.parametrize("name", READMES)
def test_every_make_target_named_exists(name):
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", read(name), re.MULTILINE))
    assert {"demo", "test", "lab", "help"} <= named <= make_targets()


@pytest.mark.parametrize("name", READMES)
def test_every_file_named_exists(name):
    paths = re.findall(r"`((?:minillm_serve|kernels|labs|grading|slides|tests|\.ci)/[\w./-]*)`", read(name))
    assert len(paths) >= 10
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", READMES)
def test_every_relative_link_leads_somewhere(name):
    links = re.findall(r"(?<!!)\[[^\]]+\]\((?!https?:|#)([^)#]+)", read(name))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_direct_dependency_is_pinned(pyproject):
    lines = [line for line in read("constraints.txt").splitlines() if line and line[0] != "#"]
    ranges = {line for line in lines if "==" not in line}
    assert {requirement_name(line) for line in ranges} == {"triton"}, "only triton has two torch builds to please"
    pins = dict(line.split("==") for line in lines if line not in ranges)
    extras = pyproject["project"]["optional-dependencies"]
    direct = [*pyproject["project"]["dependencies"], *(r for name in extras if name != "all" for r in extras[name])]
    assert {requirement_name(requirement) for requirement in direct} <= {*pins, "triton"}
    assert all(re.fullmatch(r"[\w.]+", version) for version in pins.values()), "a pin with a local version label"


def test_every_pin_runs_on_the_oldest_python_that_set_up_accepts():
    """Debian's own 3.11 is 3.11.2: pip would search for minutes, and fail, where a pin asks for a later 3.11."""
    here = {distribution.name.lower().replace("_", "-"): distribution for distribution in metadata.distributions()}
    lines = [line for line in read("constraints.txt").splitlines() if "==" in line and line[0] != "#"]
    pinned = [line.split("==")[0].lower().replace("_", "-") for line in lines]
    asked = {name: here[name].metadata["Requires-Python"] for name in pinned if name in here}
    assert len(asked) > 100
    assert {name: r for name, r in asked.items() if r and not SpecifierSet(r).contains("3.11.0")} == {}


@pytest.mark.parametrize("name", READMES)
def test_the_readme_installs_the_pinned_torch(name):
    [pinned] = re.findall(r"^torch==(.+)$", read("constraints.txt"), re.MULTILINE)
    assert set(re.findall(r"torch==([\w.]+)", read(name))) == {pinned}


def test_the_extra_called_all_holds_every_other_extra(pyproject):
    extras = pyproject["project"]["optional-dependencies"]
    [everything] = extras["all"]
    named = set(re.search(r"\[(.*)\]", everything).group(1).split(","))
    assert named == set(extras) - {"all"}


def test_the_version_is_the_same_everywhere(pyproject):
    from minillm_serve import __version__

    assert pyproject["project"]["version"] == __version__
    assert f"## {__version__}" in read("CHANGELOG.md")


@pytest.mark.model
def test_the_readmes_python_example_runs_and_prints_the_capital(capsys):
    [source] = [body for language, body in FENCE.findall(read("README.md")) if language == "python"]
    names: dict = {}
    exec(compile(source, "README.md", "exec"), names)
    names["llm"].close()
    assert "Paris" in capsys.readouterr().out
