"""The share of the CPU that other programs took, from a made-up ``/proc``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minillm_serve.bench import contention
from minillm_serve.bench.contention import OtherPrograms

pytestmark = pytest.mark.skipif(not hasattr(os, "sysconf"), reason="the share is read from Linux /proc")
CORES = contention.available_cores()
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class FakeProc:
    """A ``/proc`` whose clock, machine and processes move when told to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.now = folder, 100.0
        monkeypatch.setattr(contention.time, "monotonic", lambda: self.now)

    def write(self, machine: int, own: dict[int, int], cores: int = CORES) -> None:
        """Busy ticks of the machine, and of each process (half user, half system)."""
        lines = [f"cpu  {machine - 5} 1 1 999 0 1 1 1 0 0", *(f"cpu{i} 0 0 0 0" for i in range(cores)), "intr 1"]
        (self.folder / "stat").write_text("\n".join(lines), encoding="ascii")
        for pid, ticks in own.items():
            (self.folder / str(pid)).mkdir(exist_ok=True)
            fields = f"{pid} (a (strange) name) S " + "0 " * 10 + f"{ticks - ticks // 2} {ticks // 2} 0 0"
            (self.folder / str(pid) / "stat").write_text(fields, encoding="ascii")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    return FakeProc(tmp_path, monkeypatch)


def test_what_is_not_ours_is_the_others(proc: FakeProc) -> None:
    me, server = os.getpid(), os.getpid() + 1
    proc.write(machine=1000, own={me: 10, server: 50})
    with OtherPrograms([server], proc.folder) as others:
        proc.now += 2.0
        total = 2 * CORES * TICKS
        proc.write(machine=1000 + total, own={me: 10 + total // 4, server: 50 + total // 2})
    assert others.share == pytest.approx(0.25, abs=0.01)


def test_rounding_never_gives_a_negative_share(proc: FakeProc) -> None:
    proc.write(machine=1000, own={os.getpid(): 10})
    with OtherPrograms((), proc.folder) as others:
        proc.now += 1.0
        proc.write(machine=1010, own={os.getpid(): 30})
    assert others.share == 0.0


def test_a_machine_with_cores_we_may_not_use_tells_nothing(proc: FakeProc) -> None:
    proc.write(machine=1000, own={os.getpid(): 10}, cores=CORES + 1)
    with OtherPrograms((), proc.folder) as others:
        proc.now += 1.0
    assert others.share is None


def test_no_proc_or_a_vanished_process_is_unknown_not_an_error(proc: FakeProc) -> None:
    with OtherPrograms((), proc.folder / "nowhere") as others:
        proc.now += 1.0
    assert others.share is None
    proc.write(machine=1000, own={os.getpid(): 10})
    with OtherPrograms([os.getpid() + 7], proc.folder) as others:
        proc.now += 1.0
    assert others.share is None
