"""nginx and prometheus without root: from PATH, else from the system's packages; a clear refusal elsewhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from minillm_serve.cli import main
from minillm_serve.compare import tools
from minillm_serve.compare.environments import SetupFailed, folder_of
from minillm_serve.compare.tools import missing_tools, set_up_tools, tool_path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="apt is of POSIX systems")

# Stands for apt-get: knows the packages only after an update, offers a library that is missing and one that is data.
APT_GET = """#!/bin/sh
echo "apt-get $*" >> {log}
case "$*" in
*update*) touch {log}.lists ;;
*--simulate*)
    [ -e {log}.lists ] || {{ echo "E: Unable to locate package prometheus" >&2; exit 100; }}
    printf 'Inst libmissing1 (1 Debian)\\nInst libold2 [1] (2 Debian)\\nInst libjs-data (1 Debian)\\n'
    printf 'Inst nginx-common (1 Debian)\\nInst prometheus (2 Debian)\\nInst nginx (1 Debian)\\nConf nginx (1)\\n' ;;
*download*) for name in "$@"; do case $name in nginx|prometheus|lib*) : > "$name.deb" ;; esac; done ;;
esac
"""
DPKG_DEB = """#!/bin/sh
mkdir -p "$3/usr/sbin" "$3/usr/bin" "$3/usr/lib/x86_64-linux-gnu"
for program in sbin/nginx bin/prometheus bin/promtool; do
    printf '#!/bin/sh\\necho "$0 says $* with $LD_LIBRARY_PATH"\\n' > "$3/usr/$program"
    chmod +x "$3/usr/$program"
done
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a PATH on which there is only what the test puts into the folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "mkdir", "chmod", "touch", "printf"):
        folder.joinpath(name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(tools, "need_space", lambda *_: None)
    return folder


def write(folder: Path, **programs: str) -> None:
    for name, text in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)


def test_a_program_on_the_path_is_taken_as_it_is(commands: Path):
    write(commands, nginx="#!/bin/sh\n")
    assert tool_path("nginx") == commands / "nginx"
    assert missing_tools() == ["prometheus", "promtool"]


def test_without_apt_the_refusal_says_what_to_do(commands: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["compare", "setup", "tools"]) == 2
    error = capsys.readouterr().err
    assert "apt-get or dpkg-deb" in error and "on PATH" in error and error.count("\n") == 1


def test_packages_are_unpacked_with_the_libraries_that_are_missing(commands: Path, tmp_path: Path):
    log = tmp_path / "apt.log"
    write(commands, apt_get=APT_GET.format(log=log), dpkg_deb=DPKG_DEB)
    said: list[str] = []
    set_up_tools(said.append)
    simulated, updated, again, downloaded = log.read_text().splitlines()
    private = f"Dir::State::lists={folder_of('tools')}"
    assert private not in simulated and all(private in line for line in (updated, again, downloaded))
    assert downloaded.endswith("download nginx prometheus libmissing1"), "no data, no upgrades, nothing of the system"
    assert missing_tools() == []
    answer = subprocess.run([tool_path("promtool"), "check", "a b"], capture_output=True, text=True).stdout
    assert "says check a b with" in answer and "x86_64-linux-gnu" in answer
    set_up_tools(said.append)
    assert len(log.read_text().splitlines()) == 4, "what is there is not fetched again"


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({"apt_get": "#!/bin/sh\necho 'E: no network' >&2\nexit 100\n"}, "could not be fetched: E: no network"),
        ({"dpkg_deb": "#!/bin/sh\nexit 2\n"}, "could not be unpacked: it gave no reason"),
        ({"dpkg_deb": DPKG_DEB + "printf '#!/bin/sh\\nexit 127\\n' > \"$3/usr/bin/promtool\"\n"}, "does not start"),
    ],
    ids=["no network", "no package", "no program"],
)
def test_what_could_not_be_finished_counts_as_absent(
    commands: Path, tmp_path: Path, broken: dict[str, str], expected: str
):
    good = {"apt_get": APT_GET.format(log=tmp_path / "apt.log"), "dpkg_deb": DPKG_DEB}
    write(commands, **(good | broken))
    with pytest.raises(SetupFailed, match=expected):
        set_up_tools(lambda _: None)
    assert missing_tools() == ["nginx", "prometheus", "promtool"]
    write(commands, **good)
    set_up_tools(lambda _: None)
    assert missing_tools() == []
