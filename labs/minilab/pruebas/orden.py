"""The judge of a ``vllm serve`` command line (vLLM 0.32), in public and hidden cases and before one is really started.

A student's command runs only if every flag is on a list of flags that cannot reveal, fetch or run anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from minilab.pruebas.casos import Reply

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
MULTIPLES = {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}
# Kinds: «si» is on or off (with --no- too), «entero» above 0, «parte» in (0, 1], «json», or the words accepted.
FLAGS: dict[str, str | tuple[str, ...]] = {
    "port": "entero",
    "host": LOCAL_HOSTS,
    "max-num-seqs": "entero",
    "max-model-len": "longitud",
    "max-num-batched-tokens": "entero",
    "served-model-name": "modelo",
    "dtype": ("auto", "bfloat16", "float", "float16", "float32", "half"),
    "gpu-memory-utilization": "parte",
    "kv-cache-memory-bytes": "longitud",
    "block-size": "entero",
    "seed": "semilla",
    "generation-config": ("auto", "vllm"),
    "scheduling-policy": ("fcfs", "priority"),
    "structured-outputs-config": "json",
    "uvicorn-log-level": ("critical", "debug", "error", "info", "trace", "warning"),
    "enforce-eager": "si",
    "enable-prefix-caching": "si",
    "enable-chunked-prefill": "si",
    "async-scheduling": "si",
    "disable-log-stats": "solo",
    "enable-log-requests": "si",
}
ALONE = ("si", "solo")
RETIRED = {
    "guided-decoding-backend": "--structured-outputs-config (y casi nunca hace falta)",
    "disable-log-requests": "nada: las peticiones ya no se anotan si no lo pides",
    "swap-space": "nada: V1 no lleva bloques al disco",
    "use-v2-block-manager": "nada: hay un solo gestor de bloques",
    "num-scheduler-steps": "nada: el planificador de V1 no lo necesita",
    "speculative-model": "--speculative-config",
    "max-seq-len-to-capture": "nada",
    "worker-use-ray": "--distributed-executor-backend",
    "device": "nada: vLLM reconoce el equipo",
    "task": "--runner",
}
SECRETS = ("api-key", "hf-token")


def order_judge(model: str, port: int, requests: int, context: int) -> Callable[[Reply], str | None]:
    """Judge of ``orden_vllm(model, port, requests, context)``: None, or what was expected, in Spanish."""
    return lambda reply: order_complaint(reply.value, model, port, requests, context)


def order_complaint(argv: Any, model: str, port: int, requests: int, context: int) -> str | None:
    """What keeps ``argv`` from serving ``model`` on ``port`` to ``requests`` at once with ``context`` tokens each."""
    if not isinstance(argv, list) or not argv or not all(isinstance(part, str) for part in argv):
        return "una lista de cadenas, un elemento por cada parte de la orden"
    if any(part != part.strip() or not part for part in argv) or "vllm serve" in argv[0]:
        return "cada parte en su propio elemento, sin espacios alrededor: no hay ningún intérprete que la separe"
    if "vllm.entrypoints.openai.api_server" in argv:
        return "la orden vigente, vllm serve MODELO, no el módulo api_server"
    if argv[:2] != ["vllm", "serve"]:
        return "una orden que empiece por vllm serve"
    if argv[2:3] != [model]:
        return "el modelo recibido justo detrás de vllm serve"
    flags, complaint = _flags(argv[3:])
    return complaint or _values_complaint(flags, model) or _needs_complaint(flags, port, requests, context)


def _flags(parts: list[str]) -> tuple[dict[str, str], str | None]:
    """Flag -> its value ("" for one that stands alone), and the first complaint."""
    flags: dict[str, str] = {}
    rest = list(parts)
    while rest:
        part = rest.pop(0)
        if not part.startswith("--"):
            return flags, f"opciones que empiecen por --; {part[:40]!r} no pertenece a ninguna"
        name, equals, value = part[2:].partition("=")
        name = name.replace("_", "-")
        positive = name.removeprefix("no-") if FLAGS.get(name.removeprefix("no-")) == "si" else name
        if complaint := _name_complaint(positive, flags):
            return flags, complaint
        if FLAGS[positive] not in ALONE:
            if not equals and (not rest or rest[0].startswith("--")):
                return flags, f"un valor para --{name}"
            value = value if equals else rest.pop(0)
        elif equals:
            return flags, f"--{name} sin valor: se pone o se quita"
        flags[positive] = value
    return flags, None


def _name_complaint(name: str, seen: dict[str, str]) -> str | None:
    if name in seen:
        return f"--{name} una sola vez"
    if name in RETIRED:
        return f"opciones vigentes: --{name} se retiró; hoy se usa {RETIRED[name]}"
    if name in SECRETS:
        return f"ningún secreto en la orden: --{name} lo vería cualquiera en la lista de procesos"
    if name == "model":
        return "el modelo detrás de vllm serve, no en --model"
    if name not in FLAGS:
        return f"solo opciones que hagan falta; --{name[:40]} no está entre las admitidas"
    return None


def _values_complaint(flags: dict[str, str], model: str) -> str | None:
    for name, value in flags.items():
        kind = FLAGS[name]
        if isinstance(kind, tuple):
            if value not in kind:
                return f"--{name} con uno de estos valores: {', '.join(kind)}"
        elif not _CHECKS[kind](value, model):
            return f"--{name} con {_WORDS[kind]}; llegó {value[:40]!r}"
    return None


def _needs_complaint(flags: dict[str, str], port: int, requests: int, context: int) -> str | None:
    if flags.get("port") != str(port):
        return f"--port {port}"
    if "host" not in flags:
        return "--host 127.0.0.1: sin él vLLM escucha en todas las redes del equipo"
    if "max-num-seqs" in flags and int(flags["max-num-seqs"]) < requests:
        return f"--max-num-seqs de al menos {requests}: si no, las demás peticiones esperan turno"
    if "max-model-len" not in flags or _length(flags["max-model-len"]) < context:
        return f"--max-model-len de al menos {context}: prompt y respuesta de cada petición"
    if _length(flags.get("max-num-batched-tokens", "1G")) < requests:
        return f"--max-num-batched-tokens de al menos {requests}: un token por petición y paso"
    return None


def _length(text: str) -> int:
    """vLLM's human-readable integers: 4096, 4k (thousands), 4K (1024s), 25.6k. ValueError for anything else."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([kKmMgG]?)", text)
    if not found or ("." in found[1] and not found[2]):
        raise ValueError(text)
    return int(float(found[1]) * MULTIPLES[found[2]])


def _is_length(text: str, _model: str) -> bool:
    try:
        return _length(text) > 0
    except ValueError:
        return False


def _is_json(text: str, _model: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


_CHECKS: dict[str, Callable[[str, str], bool]] = {
    "entero": lambda text, _: re.fullmatch(r"[1-9][0-9]{0,11}", text) is not None,
    "semilla": lambda text, _: re.fullmatch(r"[0-9]{1,18}", text) is not None,
    "parte": lambda text, _: re.fullmatch(r"0?\.[0-9]{1,6}|1(\.0{1,6})?", text) is not None and float(text) > 0,
    "longitud": _is_length,
    "json": _is_json,
    "modelo": lambda text, model: text == model,
    "si": lambda text, _: True,
    "solo": lambda text, _: True,
}
_WORDS = {
    "entero": "un entero mayor que 0",
    "semilla": "un entero",
    "parte": "una fracción entre 0 y 1",
    "longitud": "un número de tokens como 4096 o 4K",
    "json": "un objeto JSON",
    "modelo": "el mismo nombre del modelo",
}
