"""A student's decode kernel compiled for a GPU, in a process of its own: the notebook's Triton is the interpreter."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilab.vistas.cifras import cifra

LIMIT_S = 300
MEASURE = """

def _mide():
    import json

    cabezas, grupos, dim, tam, secuencias, contexto = 32, 8, 128, 16, 64, 1024
    torch.manual_seed(0)
    bloques = secuencias * contexto // tam
    k, v = (torch.randn(bloques, tam, grupos, dim, device="cuda") for _ in "kv")
    q = torch.randn(secuencias, cabezas, dim, device="cuda")
    tablas = torch.randperm(bloques, device="cuda").reshape(secuencias, -1).to(torch.int32)
    largos = torch.full((secuencias,), contexto, dtype=torch.int32, device="cuda")

    def tuya():
        return decode_paginado(q, k, v, tablas, largos, dim**-0.5)

    seguidas = [x[tablas.long()].flatten(1, 2).transpose(1, 2).contiguous() for x in (k, v)]

    juntas = q.unflatten(1, (grupos, -1))  # SDPA would copy keys and values for each head that shares them

    def sdpa():
        return torch.nn.functional.scaled_dot_product_attention(juntas, *seguidas)

    error = (tuya() - sdpa().flatten(1, 2)).abs().max().item()
    us = {nombre: 1000 * triton.testing.do_bench(f) for nombre, f in (("tuya", tuya), ("sdpa", sdpa))}
    leidos = 2 * k.numel() * k.element_size()
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "error": error, "bytes": leidos, **us}))


_mide()
"""


@dataclass(frozen=True)
class EnGPU:
    """Microseconds of the kernel and of torch's attention over the same keys and values, laid end to end for it; GB/s
    count each key and value once.
    """

    gpu: str
    tuya_us: float
    sdpa_us: float
    gb_s: float
    error: float

    def __repr__(self) -> str:
        return (
            f"{self.gpu}, 64 secuencias de 1024 tokens en 32 bits: tu kernel {self.tuya_us:.0f} µs "
            f"({self.gb_s:.0f} GB/s), SDPA con las claves seguidas {self.sdpa_us:.0f} µs; mayor diferencia "
            f"{cifra(1e6 * self.error, 2)} millonésimas"
        )


@dataclass(frozen=True)
class SinMedir:
    """Said where nothing could be measured."""

    motivo: str

    def __repr__(self) -> str:
        return f"No medido en una GPU: {self.motivo}."


def en_gpu(*piezas: Callable[..., Any]) -> EnGPU | SinMedir:
    """Compile the kernels and ``decode_paginado`` (from their sources) for this machine's NVIDIA GPU, and time them.

    Where that cannot be done, says why in Spanish instead of raising.
    """
    if shutil.which("nvidia-smi") is None:
        return SinMedir("este equipo no tiene GPU de NVIDIA; todo lo demás funciona igual")
    with tempfile.TemporaryDirectory(prefix="minilab-") as folder:
        file = Path(folder) / "kernels.py"
        file.write_text(program(*piezas), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        try:
            done = subprocess.run(
                [sys.executable, str(file)], env=environment, capture_output=True, text=True, timeout=LIMIT_S
            )
        except subprocess.TimeoutExpired:
            return SinMedir(f"no acabó en {LIMIT_S} s")
    if done.returncode:
        return SinMedir((done.stderr.strip().splitlines() or ["el proceso terminó antes de tiempo"])[-1][:200])
    found = json.loads(done.stdout.splitlines()[-1])
    rate = found["bytes"] / found["tuya"] / 1000
    return EnGPU(found["gpu"], found["tuya"], found["sdpa"], rate, found["error"])


def program(*piezas: Callable[..., Any]) -> str:
    """The file that is run: imports, the sources of kernels (theirs stand in ``fn``) and functions, the measurement."""
    sources = [inspect.getsource(getattr(pieza, "fn", pieza)) for pieza in piezas]
    return "\n\n".join(["import torch\nimport triton\nimport triton.language as tl", *sources]) + MEASURE
