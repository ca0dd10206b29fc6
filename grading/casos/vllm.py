"""Hidden cases of the check against vLLM: the command that starts it, and the client that measures it.

The cases of the command are complete here. The others get their arguments from the meter, which holds the answers of
a real vLLM: recorded in a trace, or taken live.
"""

from __future__ import annotations

from random import Random

from minilab.pruebas.casos import Case, Check
from minilab.pruebas.orden import order_judge

CLIENT = "cincuenta peticiones a la vez contra vLLM"
SUMMARY = "resumen de lo medido en vLLM"
RATIO = "cinco veces la pipeline"
JSON = "veinte respuestas JSON de vLLM"
CELLS = ("percentil", "resume", "cliente", "orden_vllm", "cuerpo_json")


def vllm_check(seed: int) -> Check:
    """Level ``vllm``. ``JSON`` is judged only where a vLLM is there to ask."""
    return Check("vllm", "orden_vllm", CELLS, (*_orders(Random(seed)), *_MEASURED), level="vllm")


def _orders(rng: Random) -> tuple[Case, ...]:
    hint = "vllm serve MODELO con --host, --port y --max-model-len; mira cada opción en vllm serve --help."
    variations = {
        "orden para un modelo local": (f"/modelos/m{rng.randrange(10**6)}", 50, 1024),
        "orden para muchas peticiones": (f"grupo/modelo-{rng.randrange(10**6)}", rng.randrange(300, 2000), 2048),
        "orden para un contexto largo": (f"grupo/modelo-{rng.randrange(10**6)}", 8, 1024 * rng.randrange(5, 31)),
    }
    cases = []
    for name, (model, requests, context) in variations.items():
        args = (model, rng.randrange(1024, 65536), requests, context)
        cases.append(Case(name=name, args=args, judge=order_judge(*args), hint=hint))
    return tuple(cases)


_MEASURED = (
    Case(name=CLIENT, args=(), weight=3, hint="Todas en vuelo a la vez, con stream_options y ignore_eos."),
    Case(name=SUMMARY, args=(), weight=1, hint="Tokens totales entre (último fin − primer inicio)."),
    Case(name=RATIO, args=(), weight=3, hint="La razón compara tokens por segundo de todo el sistema."),
    Case(name=JSON, args=(), weight=2, hint="response_format con json_schema y sitio de sobra en max_tokens."),
)
