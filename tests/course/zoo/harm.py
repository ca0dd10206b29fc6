"""Code that would hurt the machine: run only where a sandbox is, and it may cost no more than its own check.

Each is bounded, so that a sandbox that leaks costs the test and not the machine it runs on.
"""

from __future__ import annotations

from zoo.forgeries import without
from zoo.kit import MARKER, Entry

DEATHS = {
    "prediccion": "import ctypes\n\ndef mi_prediccion():\n    ctypes.string_at(0)\n",
    "cuerpo_json": "import os\n\ndef cuerpo_json(*a):\n    os._exit(0)\n",
    "es_valida": "import sys\n\ndef es_valida(*a):\n    sys.exit(0)\n",
    "veredicto": "import os, signal\n\ndef veredicto(i):\n    os.kill(os.getpid(), signal.SIGKILL)\n",
}
DEAD_ON_ARRIVAL = {
    "prediccion": "import os\nos._exit(0)\n",
    "veredicto": """
import os, signal
if sum(n.isdigit() for n in os.listdir("/proc")) < 20:
    os.kill(1, signal.SIGKILL)
    os.kill(-1, signal.SIGKILL)
os._exit(1)
""",
}
LOOP = "def veredicto(informe):\n    while True:\n        pass\n"
SLEEP = """
import signal, time
for numero in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(numero, signal.SIG_IGN)

def mi_prediccion():
    while True:
        time.sleep(3600)
"""
ONE_HOG = """
def veredicto(informe):
    trozos = []
    for _ in range(100):
        trozos.append(bytearray(b"x" * (64 << 20)))
"""
MANY_HOGS = """
import os, time

def veredicto(informe):
    for _ in range(24):
        if os.fork() == 0:
            trozo = bytearray(b"x" * (160 << 20))
            time.sleep(3600)
    time.sleep(3600)
"""
FORK_BOMB = """
import os, sys

def veredicto(informe):
    for _ in range(600):
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(3600)", "MARCA"])
""".replace("MARCA", MARKER)
THREADS = """
import threading, time

def cuerpo_json(*a):
    for _ in range(5000):
        threading.Thread(target=time.sleep, args=(3600,)).start()
"""
DISK = """
import os

def veredicto(informe):
    for carpeta in (".", os.environ["HOME"], "/tmp", "/dev/shm", "/var/tmp"):
        for numero in range(400):
            try:
                with open(f"{carpeta}/MARCA-{numero}", "wb") as salida:
                    salida.write(b"x" * (1 << 20))
            except OSError:
                break
    raise OSError("no cabe más")
""".replace("MARCA", MARKER)
DAEMON = """
import os, sys, subprocess

def veredicto(informe):
    orden = [sys.executable, "-c", "import time; time.sleep(3600)", "MARCA"]
    for _ in range(3):
        subprocess.Popen(orden, start_new_session=True, stdin=-3, stdout=-3, stderr=-3)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv(orden[0], orden)
            os._exit(0)
    return {}
""".replace("MARCA", MARKER)
LEFTOVERS = """
import atexit, os, signal, threading, time

def _insiste(*_):
    while True:
        print("sigo aquí")
        time.sleep(0.01)

atexit.register(_insiste)
signal.signal(signal.SIGALRM, _insiste)
signal.setitimer(signal.ITIMER_REAL, 0.05)
threading.Thread(target=_insiste).start()

def veredicto(informe):
    return None
"""
PRIVILEGES = """
import ctypes, os, resource, socket, subprocess

def consigue():
    logros = 0
    libc = ctypes.CDLL(None)
    for intento in (
        lambda: os.setuid(0) or os.chroot("/proc/1/root"),
        lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
        lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1)),
        lambda: resource.setrlimit(resource.RLIMIT_NPROC, (10**6, 10**6)),
        lambda: os.nice(-10),
        lambda: socket.sethostname(socket.gethostname()),
        lambda: os.mknod("disco", 0o060666, os.makedev(8, 0)),
        lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 or 1 / 0,
        lambda: libc.umount2(CURSO.encode(), 2) == 0 or 1 / 0,
        lambda: open("/proc/sys/kernel/hostname", "w").write(socket.gethostname()),
        lambda: open("/proc/sysrq-trigger", "w").write("h"),
        lambda: subprocess.run(["mount", "-o", "remount,rw", "/"], check=True, capture_output=True),
    ):
        try:
            intento()
            logros += 1
        except (OSError, ValueError, ArithmeticError, subprocess.SubprocessError):
            continue
    return logros
"""


def harm(id: str, story: str, **cells: str) -> Entry:
    return Entry(
        id=id, story=story, kind="harm", needs_sandbox=True, make=lambda kit: kit.light(**cells), marks=without(*cells)
    )


HARM = (
    harm("muere", "segfault, os._exit, sys.exit, SIGKILL, uno por celda", **DEATHS),
    harm("muere_al_cargar", "mata a cuantos alcanza, al cargar", **DEAD_ON_ARRIVAL),
    harm("no_termina", "un bucle sin fin, y un sueño sordo a las señales", veredicto=LOOP, prediccion=SLEEP),
    harm("memoria_e_hilos", "pide memoria sin fin, e hilos sin fin", veredicto=ONE_HOG, cuerpo_json=THREADS),
    harm("memoria_repartida", "la pide entre muchos hijos", veredicto=MANY_HOGS),
    harm("bomba_de_procesos", "procesos sin fin", veredicto=FORK_BOMB),
    harm("disco", "llena cuanto disco alcanza", veredicto=DISK),
    harm("demonios", "procesos que quieren quedarse", veredicto=DAEMON),
    harm("restos", "alarmas, hilos y salidas que insisten", veredicto=LEFTOVERS),
    Entry(
        id="privilegios",
        story="quiere ser root, quitar límites y montar discos",
        kind="harm",
        needs_sandbox=True,
        make=lambda kit: kit.light(prediccion=kit.only_if("prediccion", PRIVILEGES)),
        marks=without("prediccion"),
    ),
)
