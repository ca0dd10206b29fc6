"""The rungs of the ladder: the command line that starts a program inside an :class:`Enclosure`.

Each gives the program its own network (none), processes, IPC and host name, no capability, no way to gain one, and no
further user namespace. A grader that is root hands the worker another user id; binds come before that change, so that
a Python below a closed folder such as ``/root`` still starts.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from minilab_grading.arnes.recinto import (
    DEVICES,
    PROGRAM,
    SCRATCH,
    SCRATCH_BYTES,
    SCRATCH_FILES,
    TEMPORARY,
    Enclosure,
)

SECCOMP_PROFILES = (Path("/etc/containers/seccomp.json"), Path("/usr/share/containers/seccomp.json"))
NAMESPACE_CALLS = {"clone", "clone3", "unshare", "setns"}
CLONE_NEWUSER = 0x10000000
NO_CAPS = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
LOCKED_FLAGS = (
    {
        os.ST_NOSUID: "nosuid",
        os.ST_NODEV: "nodev",
        os.ST_NOEXEC: "noexec",
        os.ST_NOATIME: "noatime",
        os.ST_NODIRATIME: "nodiratime",
        os.ST_RELATIME: "relatime",
    }
    if hasattr(os, "ST_RELATIME")
    else {}
)
FORBID_USER_NAMESPACES = "echo 0 > /proc/sys/user/max_user_namespaces"


def podman(e: Enclosure, environment: dict[str, str], command: Sequence[str]) -> list[str]:
    """A container without an image: its root is a folder of empty mount points. OSError without its profile."""
    e.make_root()
    argv = ["podman", "run", "--rm", "--interactive", f"--name={e.base.name}", f"--pidfile={e.base / 'pid'}"]
    argv += ["--network=none", "--ipc=private", "--uts=private", "--pid=private", "--hostname=arnes", "--no-hosts"]
    argv += ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"]
    argv += [
        f"--security-opt=seccomp={_seccomp(e)}",
        "--security-opt=label=disable",
        "--log-driver=none",
        "--cgroups=disabled",
        "--pull=never",
    ]
    argv += ["--ulimit=nofile=512:512", "--ulimit=nproc=64:64", "--ulimit=core=0:0", f"--user={e.uid}:{e.uid}"]
    argv += [f"--workdir={SCRATCH}", *(f"--env={k}={v}" for k, v in environment.items())]
    for place in (SCRATCH, TEMPORARY):
        argv.append(f"--tmpfs={place}:rw,nosuid,nodev,size={SCRATCH_BYTES},mode=1777")
    binds = [(t, t) for t in e.trees] + [(e.empty, c) for c in e.covers] + [(e.program, PROGRAM)]
    argv += [f"--volume={source}:{target}:ro" for source, target in binds]
    return [*argv, "--rootfs", str(e.root), *command]


def _seccomp(e: Enclosure) -> Path:
    """Podman's list of system calls, less those that make or enter namespaces (it allows nested containers)."""
    source = next((p for p in SECCOMP_PROFILES if p.exists()), SECCOMP_PROFILES[-1])
    profile = json.loads(source.read_text())
    rules = [{**rule, "names": [n for n in rule["names"] if n not in NAMESPACE_CALLS]} for rule in profile["syscalls"]]
    no_user_namespace = {"index": 0, "value": CLONE_NEWUSER, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    clone = {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [no_user_namespace]}
    # glibc starts threads with clone3 and falls back to clone where the kernel says ENOSYS.
    limited = {**profile, "defaultErrnoRet": errno.ENOSYS, "syscalls": [*(r for r in rules if r["names"]), clone]}
    target = e.base / "seccomp.json"
    target.write_text(json.dumps(limited))
    return target


def bwrap(e: Enclosure, environment: dict[str, str], command: Sequence[str]) -> list[str]:
    """Bubblewrap 0.8 or later (``--disable-userns``); started by the worker's own user where the grader is root."""
    del environment  # inherited
    source = e.root if e.as_root else Path("/")
    argv = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(e.uid)]
    argv += ["--gid", str(e.uid)]
    argv += ["--die-with-parent", "--new-session", "--hostname", "arnes", "--cap-drop", "ALL", "--proc", "/proc"]
    for place in (TEMPORARY, SCRATCH):  # first: a Python may be kept below /tmp
        argv += ["--size", str(SCRATCH_BYTES), "--tmpfs", place]
    for tree in e.trees:
        argv += ["--ro-bind", _inside(source, tree), str(tree)]
    for place, target in e.links:
        argv += ["--symlink", target, str(place)]
    for cover in e.covers:
        argv += ["--ro-bind", str(e.empty), str(cover)]
    for device in DEVICES:
        argv += ["--dev-bind", device, device]
    argv += ["--ro-bind", str(e.program), PROGRAM, "--remount-ro", "/", "--chdir", SCRATCH, "--", *command]
    if not e.as_root:
        return argv
    script = [*_new_root(e), *_binds(e), f"exec {shlex.join([*_become(e.uid), *argv])}"]
    return ["unshare", "--mount", "sh", "-c", "\n".join(script)]


def unshare(e: Enclosure, environment: dict[str, str], command: Sequence[str]) -> list[str]:
    """Namespaces by hand, with the programs of util-linux."""
    del environment  # inherited
    q, root = shlex.quote, e.root
    owner = f",uid={e.uid},gid={e.uid}" if e.as_root else ""
    options = f"nosuid,nodev,size={SCRATCH_BYTES},nr_inodes={SCRATCH_FILES},mode=700{owner}"
    places = [q(_inside(root, place)) for place in (TEMPORARY, SCRATCH)]
    writable = [line for p in places for line in (f"mkdir -p {p}", f"mount -t tmpfs -o {options} memoria {p}")]
    script = [*_new_root(e, writable), *_binds(e)]
    for tree in e.trees:
        flags = ",".join(["remount", "bind", "ro", *_locked(tree)])
        script.append(f"mount -o {flags} {q(_inside(root, tree))}")
    for place, target in e.links:
        script.append(f"ln -s {q(target)} {q(_inside(root, place))}")
    for source, target in [*((e.empty, str(c)) for c in e.covers), (e.program, PROGRAM)]:
        place = q(_inside(root, target))
        flags = ",".join(["remount", "bind", "ro", *_locked(source)])
        script += [f"mount --bind {q(str(source))} {place}", f"mount -o {flags} {place}"]
    script += [f"mount --bind {device} {q(_inside(root, device))}" for device in DEVICES]
    script += [f"mount -t proc -o nosuid,nodev,noexec proc {q(_inside(root, '/proc'))}"]
    script += [f"cd {q(str(root))}", "mkdir anterior", "pivot_root . anterior", "cd /", "umount -l /anterior"]
    script += ["rmdir /anterior", "mount -o remount,bind,ro /", f"cd {SCRATCH}", _drop(e, command)]
    namespaces = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
    user = [] if e.as_root else ["--user", "--map-root-user"]
    return ["setpriv", "--pdeathsig", "KILL", "unshare", *user, *namespaces, "sh", "-c", "\n".join(script)]


def _drop(e: Enclosure, command: Sequence[str]) -> str:
    """The last line of the script: no more user namespaces, no capability, and the worker."""
    last = shlex.join(["setpriv", *NO_CAPS, "--pdeathsig", "KILL", *command])
    if not e.as_root:
        return f"{FORBID_USER_NAMESPACES}\nexec {last}"
    # Only inside a user namespace of its own may the worker's user forbid more of them; where it cannot make one,
    # there is nothing to forbid.
    inner = f"{FORBID_USER_NAMESPACES}\nexec {last}"
    outer = f"unshare --user true && exec unshare --user --map-root-user sh -c {shlex.quote(inner)}\nexec {last}"
    return f"exec {shlex.join([*_become(e.uid), *NO_CAPS, 'sh', '-c', outer])}"


def _become(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def _new_root(e: Enclosure, writable: Sequence[str] = ()) -> list[str]:
    """An empty root with its mount points; ``writable`` goes before them, since a Python may be kept below /tmp."""
    inside = [shlex.quote(_inside(e.root, f)) for f in e.folders]
    files = [shlex.quote(_inside(e.root, f)) for f in e.files]
    root = shlex.quote(str(e.root))
    make = [f"mkdir -p {' '.join(inside)}", f"touch {' '.join(files)}"]
    return ["set -e", "umask 022", f"mount -t tmpfs -o size=1m,mode=755 raiz {root}", *writable, *make]


def _binds(e: Enclosure) -> list[str]:
    return [f"mount --rbind {shlex.quote(str(t))} {shlex.quote(_inside(e.root, t))}" for t in e.trees]


def _inside(root: Path, path: Path | str) -> str:
    return str(root / str(path).lstrip("/"))


def _locked(path: Path) -> list[str]:
    """The flags of the mount that holds ``path``: inside a user namespace none of them may be taken away."""
    flags = os.statvfs(path).f_flag
    return [name for bit, name in LOCKED_FLAGS.items() if flags & bit]
