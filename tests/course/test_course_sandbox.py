"""The sandbox: on every rung that works here honest code runs, and hostile code reaches and outlives nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from minilab.pruebas.casos import Case
from minilab_grading.arnes import aislamiento, recinto
from minilab_grading.arnes.aislamiento import LADDER, Isolation, NoIsolation, broken_promises, choose_isolation
from minilab_grading.arnes.calificar import ROOT, teacher_folders
from minilab_grading.arnes.sesion import LIMITS, Session, WorkerDied

NO_CASE = Case(name="x", args=(), hint="")


@dataclass(frozen=True)
class World:
    """A rung, and a course whose gradebook and submissions nobody may reach."""

    isolation: Isolation
    course: Path

    def run(self, body: str, **limits: float) -> Any:
        """The value of ``f()`` after running ``body``."""
        with Session(self.isolation, **limits) as session:
            loaded = session.load([("celda", body)])
            assert loaded.error is None, loaded
            reply = session.call("f", NO_CASE)
            assert reply.error is None, reply
            return reply.value


@pytest.fixture(scope="module", params=LADDER)
def world(request, tmp_path_factory) -> World:
    course = tmp_path_factory.mktemp("curso")
    (course / "submitted" / "bea").mkdir(parents=True)
    (course / "gradebook.db").write_text("notas")
    (course / "submitted" / "bea" / "P.ipynb").write_text("{}")
    with contextlib.suppress(OSError):
        course.chmod(0o755)
    try:
        return World(choose_isolation([*teacher_folders(), course], only=request.param), course)
    except NoIsolation:
        pytest.skip(f"{request.param} does not work on this machine: {broken_promises(Isolation(request.param))}")


def test_honest_code_runs_and_its_scratch_is_gone_afterwards(world):
    leave = "import os\ndef f():\n    open('rastro', 'w').write('x')\n    return [os.getcwd(), os.listdir()]"
    folder, left = world.run(leave)
    assert left == ["rastro"]
    assert world.run("import os\ndef f():\n    return [os.getcwd(), os.listdir()]") == [folder, []]
    with Session(world.isolation) as session:
        base = session._folder
        assert base.is_dir()
    assert not base.exists()


def test_a_trial_finds_every_promise_kept(world):
    assert broken_promises(world.isolation) == []


def test_no_network(world):
    name = f"\0minilab-{secrets.token_hex(4)}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(name)
        unix.listen()
        code = (
            "import socket\ndef f():\n    reached = []\n"
            f"    for family, place in ((socket.AF_INET, ('127.0.0.1', {tcp.getsockname()[1]})),\n"
            f"                          (socket.AF_INET, ('1.1.1.1', 53)), (socket.AF_UNIX, {name!r})):\n"
            "        try:\n            s = socket.socket(family)\n            s.settimeout(1)\n"
            "            s.connect(place)\n            reached.append(repr(place))\n"
            "        except OSError:\n            pass\n    return reached"
        )
        assert world.run(code) == []


def test_teachers_files_other_students_and_the_repository_are_out_of_sight(world):
    targets = [world.course, world.course / "gradebook.db", world.course / "submitted" / "bea" / "P.ipynb"]
    targets += [ROOT / name for name in ("pyproject.toml", "grading/casos", "labs/fuente", "minillm_serve", ".git")]
    targets += [Path("/etc/shadow"), Path("/home"), Path("/var/tmp")]
    if world.isolation.level != "podman":  # which makes these two of its own
        targets += [Path("/etc/passwd"), Path("/sys/kernel")]
    assert all(t.exists() for t in targets[:7])
    code = f"""
import os
TARGETS = {[str(t) for t in targets]!r}
def f():
    roots = ["", "../../../../../../.."]
    for process in [p for p in os.listdir("/proc") if p.isdigit()] + ["self"]:
        roots += [f"/proc/{{process}}/root", f"/proc/{{process}}/cwd/../.."]
    got = []
    for n, path in enumerate(r + t for r in roots for t in TARGETS):
        os.symlink(path, f"enlace-{{n}}")
        for name in (path, f"enlace-{{n}}"):
            try:
                got += [path] if os.listdir(name) else []
            except NotADirectoryError:
                got += [path] if open(name).read() else []
            except OSError:
                pass
    return got
"""
    assert world.run(code) == []


def test_grader_and_reference_engine_cannot_be_imported(world):
    code = f"""
import importlib, sys
def f():
    sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "labs")!r}]
    found = []
    for name in {recinto.TEACHERS_PACKAGES!r}:
        try:
            found.append(importlib.import_module(name).__name__)
        except ImportError:
            pass
    return found
"""
    assert world.run(code) == []


def test_hidden_folder_inside_the_visible_python_is_covered(world):
    import jsonschema

    code = "import jsonschema\ndef f():\n    return hasattr(jsonschema, 'validate')"
    assert world.run(code) is True
    folder = Path(jsonschema.__file__).parent
    covered = Isolation(world.isolation.level, (folder,))
    assert broken_promises(covered) == []
    look = f"import os\ndef f():\n    return os.listdir({str(folder)!r})"
    assert World(covered, world.course).run(look) == []


def test_nothing_but_the_scratch_can_be_written(world):
    code = f"""
import os, sys
def f():
    written = []
    places = ["/", "/usr", "/usr/lib", "/etc", "/dev", "/dev/shm", "/proc", "/run", "/arnes", "/var/tmp"]
    places += ["/arnes/programa", {str(world.course)!r}]
    places += [sys.prefix + "/lib", sys.prefix + "/bin", sys.base_prefix + "/lib"]
    for place in places:
        try:
            open(os.path.join(place, "prueba"), "w").close()
            written.append(place)
        except OSError:
            pass
    for path in ("/dev/tty", "/proc/sys/kernel/hostname", "/proc/sys/user/max_user_namespaces", "/proc/sysrq-trigger"):
        try:
            os.close(os.open(path, os.O_WRONLY))
            written.append(path)
        except OSError:
            pass
    open("prueba", "w").close()
    return written
"""
    in_memory = {"/dev", "/dev/shm", "/run"} if world.isolation.level == "podman" else set()
    assert set(world.run(code)) <= in_memory


def test_sees_and_signals_no_process_but_its_own(world):
    code = f"""
import os
def f():
    seen = [int(p) for p in os.listdir("/proc") if p.isdigit()]
    try:
        os.kill({os.getpid()}, 9)
        killed = True
    except OSError:
        killed = {os.getpid()} in seen
    return [len(seen), killed, [open(f"/proc/{{p}}/cmdline").read().count("pytest") for p in seen]]
"""
    count, killed, graders = world.run(code)
    assert count <= 4 and not killed and not any(graders)


def test_no_privilege_and_no_way_to_one(world):
    code = f"""
import ctypes, os, resource, subprocess
LIMITS = {list(LIMITS)!r}
LIBC = ctypes.CDLL(None, use_errno=True)
def f():
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    caps = sum(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    raised = []
    for name in LIMITS:
        soft, hard = resource.getrlimit(getattr(resource, name))
        try:
            resource.setrlimit(getattr(resource, name), (soft + 1, hard + 1))
            raised.append(name)
        except (ValueError, OSError):
            pass
    calls = [LIBC.unshare(0x10000000), LIBC.unshare(0x20000), LIBC.umount2(b"/usr", 2), LIBC.chroot(b"/tmp")]
    calls += [LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None), LIBC.setgroups(0, None), LIBC.setuid(12345)]
    return [caps, int(status["NoNewPrivs"]), raised, calls]
"""
    assert world.run(code) == [0, 1, [], [-1] * 7]


def test_environment_holds_nothing_of_the_graders(world, monkeypatch):
    monkeypatch.setenv("SECRETO_DEL_DOCENTE", "1")
    seen = world.run("import os\ndef f():\n    return dict(os.environ)")
    own = {"PATH", "HOME", "LANG", "USER", "TMPDIR", "PWD", "OLDPWD", "TERM", "HOSTNAME", "container", "SHLVL", "_"}
    assert {n for n in seen if not n.startswith(("PYTHON", "OMP", "LC_"))} <= own
    assert seen["HOME"] == recinto.SCRATCH


HARM = {
    "fork bomb": (
        "import os, time\ndef f():\n    while True:\n        try:\n            os.fork()\n"
        "        except OSError:\n            time.sleep(0.01)",
        "no respondió|memoria",
    ),
    "memory of many processes": (
        "import os, time\ndef f():\n    for _ in range(12):\n        if not os.fork():\n            break\n"
        "    x = bytearray(200 << 20)\n    x[::4096] = b'x' * len(x[::4096])\n    time.sleep(60)",
        "memoria",
    ),
    "shared memory": (
        "import mmap, time\ndef f():\n    m = mmap.mmap(-1, 1800 << 20)\n"
        "    while m.tell() < len(m):\n        m.write(b'x' * (1 << 20))\n    time.sleep(60)",
        "memoria",
    ),
    "many files": (
        "import itertools\ndef f():\n    for i in itertools.count():\n        try:\n"
        "            open(f'archivo-{i}', 'w').close()\n        except OSError:\n            pass",
        "archivos|no respondió",
    ),
    "infinite loop": ("def f():\n    while True:\n        pass", "no respondió"),
    "sleep": ("import time\ndef f():\n    time.sleep(600)", "no respondió"),
    "endless reply": (
        "import os\ndef f():\n    while True:\n        for d in range(3, 9):\n            try:\n"
        "                os.write(d, b'x' * 60000)\n            except OSError:\n                pass",
        "demasiado grande",
    ),
    "suicide": ("import ctypes\ndef f():\n    ctypes.string_at(0)", "terminó"),
    "kills all it can": (
        "import os\ndef f():\n    try:\n        os.kill(-1, 9)\n    finally:\n        os._exit(0)",
        "terminó",
    ),
}


@pytest.mark.parametrize("name", HARM)
def test_harm_ends_with_the_worker(world, name):
    body, message = HARM[name]
    with Session(world.isolation, call_s=60.0 if message == "memoria" else 2.0) as session:
        session.load([("celda", body)])
        with pytest.raises(WorkerDied, match=message):
            session.call("f", NO_CASE)
        with pytest.raises(WorkerDied, match=message):
            session.call("f", NO_CASE)
    assert world.run("def f():\n    return 1") == 1


def test_children_that_answer_too_do_not_pass_for_another_call(world):
    code = "import os\ndef f():\n    os.fork()\n    return os.getpid()\ndef g():\n    return 'g'"
    with Session(world.isolation, call_s=3.0) as session:
        session.load([("celda", code)])
        assert type(session.call("f", NO_CASE).value) is int
        with pytest.raises(WorkerDied, match=r"fuera de turno|no respondió"):
            while True:
                assert session.call("g", NO_CASE).value == "g"


REFUSED = {
    "memory of one process": ("def f():\n    return len(bytearray(1 << 34))", "MemoryError"),
    "one big file": ("def f():\n    with open('a', 'wb') as o:\n        o.write(b'x' * (8 << 20))", "OSError"),
    "full disk": (
        "def f():\n    for n in range(400):\n        with open(f'a{n}', 'wb') as o:\n"
        "            o.write(b'x' * (1 << 19))",
        "OSError",
    ),
    "open files": ("def f():\n    return len([open('/dev/null') for _ in range(5000)])", "OSError"),
    "exit": ("import sys\ndef f():\n    sys.exit(0)", "SystemExit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_excess_is_an_error_of_that_call_alone(world, name):
    body, error = REFUSED[name]
    with Session(world.isolation) as session:
        session.load([("celda", body + "\ndef g():\n    return 7")])
        assert session.call("f", NO_CASE).error == error
        assert session.call("g", NO_CASE).value == 7


def test_a_library_may_map_more_than_the_worker_may_write(world):
    """As torch with CUDA does: gigabytes of its files are mapped, and few are held."""
    code = (
        "import mmap\ndef f():\n"
        "    kept = mmap.mmap(-1, 4 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ)\n"
        "    try:\n        bytearray(3 << 30)\n"
        "    except MemoryError:\n        return len(kept)"
    )
    with Session(world.isolation) as session:
        session.load([("celda", code)])
        assert session.call("f", NO_CASE).value == 4 << 30


def test_what_is_printed_is_thrown_away(world):
    code = "import sys\ndef f():\n    print('x' * (8 << 20))\n    print('y' * (8 << 20), file=sys.stderr)\n    return 1"
    assert world.run(code) == 1


def test_no_process_outlives_the_session(world):
    token = secrets.token_hex(8)
    child = f"[sys.executable, '-c', 'import time; time.sleep(300)', {token!r}]"
    code = f"import subprocess, sys\ndef f():\n    subprocess.Popen({child}, start_new_session=True)\n    return 1"
    with Session(world.isolation) as session:
        session.load([("celda", code)])
        assert session.call("f", NO_CASE).value == 1
        assert eventually(lambda: running_with(token))  # its name shows once it has been started
    assert eventually(lambda: not running_with(token))


def running_with(token: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if token in (process / "cmdline").read_text(errors="replace"):
                found.append(process.name)
    return found


def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_strongest_rung_that_works_is_taken(monkeypatch):
    for working in (["podman", "bwrap", "unshare"], ["bwrap", "unshare"], ["unshare"]):
        monkeypatch.setattr(aislamiento, "_works", lambda isolation, working=working: isolation.level in working)
        assert choose_isolation([]).level == working[0]
    assert choose_isolation([], only="unshare").level == "unshare"


def test_grading_without_isolation_is_refused_unless_allowed(monkeypatch):
    monkeypatch.setattr(aislamiento, "_works", lambda isolation: False)
    with pytest.raises(NoIsolation, match="--sin-aislar"):
        choose_isolation([])
    with pytest.raises(NoIsolation, match="bwrap"):
        choose_isolation([], allow_none=True, only="bwrap")
    with pytest.raises(NoIsolation, match="«docker»"):
        choose_isolation([], only="docker")
    assert choose_isolation([], allow_none=True).level == "ninguno"


def test_rung_that_breaks_a_promise_is_not_taken(monkeypatch):
    def leaky(room, environment, command):
        return [sys.executable, "-I", str(room.program / "prueba.py"), command[-1]]

    monkeypatch.setitem(LADDER, "bwrap", leaky)
    monkeypatch.setattr(aislamiento.shutil, "which", lambda *args, **kwargs: "/bin/true")
    assert {"red", "procesos"} <= set(broken_promises(Isolation("bwrap")))
    with pytest.raises(NoIsolation):
        aislamiento._works.cache_clear()
        choose_isolation([], only="bwrap")
    aislamiento._works.cache_clear()
