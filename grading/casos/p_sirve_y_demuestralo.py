"""Hidden cases of the project "Sirve y demuéstralo". Names and hints are shown to students; arguments are not."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from minilab.pruebas.casos import Case, Check, Outcome, Remote
from minilab.pruebas.jueces import body_judge, client_judge, positive_numbers
from minilab.pruebas.publicas.p import PREDICTED
from minilab.pruebas.servidor_simulado import script_of
from minilab_grading.casos.mascara import mask_check
from minilab_grading.casos.planificador import planificador_check
from minilab_grading.casos.reloj_real import real_clock_check
from minilab_grading.casos.trampa import trap_case
from minilab_grading.casos.vllm import vllm_check
from minillm_serve.bench.prompts import GUIDED_MAX_TOKENS

# What the notebook's preparation cell offers to the solution cells, without the engine.
PRELUDE = f"import asyncio\nimport json\nimport time\nGUIDED_MAX_TOKENS = {GUIDED_MAX_TOKENS}\n"
IMPORTS = ("jsonschema",)


def checks(seed: int) -> dict[str, Check]:
    """All checks of the notebook, with cases that depend on ``seed`` alone."""
    rng = Random(seed)
    return {
        "prueba_prediccion": Check("prediccion", "mi_prediccion", ("prediccion",), _prediction()),
        "prueba_percentil": Check("percentil", "percentil", ("percentil",), _percentile(rng)),
        "prueba_resume": Check("resume", "resume", ("percentil", "resume"), _summary(rng)),
        "prueba_cliente": Check("cliente", "lanza_todas", ("cliente",), _client(rng)),
        "prueba_planificador": planificador_check(seed),
        "prueba_reloj_real": real_clock_check(seed),
        "prueba_vllm": vllm_check(seed),
        "prueba_mascara": mask_check(seed),
        "prueba_cuerpo_json": Check("cuerpo_json", "cuerpo_json", ("cuerpo_json",), (*_body(rng), trap_case(seed))),
        "prueba_es_valida": Check("es_valida", "es_valida", ("es_valida",), _validity(rng)),
        "prueba_veredicto": Check("veredicto", "veredicto", ("veredicto",), _verdict(rng)),
    }


def percentile(values: list[float], p: float) -> float:
    """The oracle: linear interpolation between closest ranks."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * p / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] * (1 - (position - below)) + ordered[above] * (position - below)


def _prediction() -> tuple[Case, ...]:
    hint = "Devuelve tus dos números, mayores que 0."
    return (Case(name="predicción escrita", args=(), judge=positive_numbers(PREDICTED), hint=hint),)


def _percentile(rng: Random) -> tuple[Case, ...]:
    lists = {
        "un solo valor": ([rng.uniform(1, 9)], 95),
        "extremo inferior": ([rng.uniform(-9, 9) for _ in range(7)], 0),
        "extremo superior": ([rng.uniform(-9, 9) for _ in range(8)], 100),
        "valores enteros": ([rng.randrange(100) for _ in range(11)], 50),
        "valores repetidos": ([3.0, 3.0, rng.uniform(4, 5), 3.0], 75),
        "lista larga al azar": ([rng.expovariate(1.0) for _ in range(101)], 95),
        "percentil no entero": ([rng.gauss(0, 5) for _ in range(40)], 99.5),
    }
    hint = "Repasa la posición (n − 1)·p/100 y la interpolación; no supongas que la lista llega ordenada."
    cases = [Case(name=n, args=a, expected=percentile(*a), hint=hint) for n, a in lists.items()]
    empty = Case(name="lista vacía", args=([], 95), error="ValueError", hint="Sin datos no hay percentil.")
    return (*cases, empty)


def _summary(rng: Random) -> tuple[Case, ...]:
    def make_requests(count: int, spacing: float) -> list[dict[str, Any]]:
        requests = []
        for i in range(count):
            start = 100 + i * spacing
            first = start + rng.uniform(0.1, 2)
            end = first + rng.uniform(0.5, 4)
            requests.append({"inicio": start, "primer_token": first, "fin": end, "tokens": rng.randrange(1, 80)})
        rng.shuffle(requests)
        return requests

    def expected(requests: list[dict[str, Any]]) -> dict[str, float]:
        elapsed = max(p["fin"] for p in requests) - min(p["inicio"] for p in requests)
        ttft = [p["primer_token"] - p["inicio"] for p in requests]
        tokens = sum(p["tokens"] for p in requests)
        return {"tok_s": tokens / elapsed, "ttft_p50": percentile(ttft, 50), "ttft_p95": percentile(ttft, 95)}

    lists = {
        "cincuenta a la vez": make_requests(50, 0.0),
        "llegadas escalonadas": make_requests(12, 0.7),
        "una sola petición": make_requests(1, 0.0),
        "reloj que no empieza en cero": make_requests(5, 0.1),
    }
    hint = "Tokens totales entre (último fin − primer inicio); TTFT = primer_token − inicio; usa tu percentil."
    return tuple(Case(name=n, args=(p,), expected=expected(p), hint=hint) for n, p in lists.items())


def _client(rng: Random) -> tuple[Case, ...]:
    hints = {
        "cincuenta a la vez": (50, "Todas en vuelo a la vez, sin esperar entre envíos ni limitar la concurrencia."),
        "acaban en otro orden": (7, "Devuelve las medidas en el orden de los prompts, no en el de llegada."),
        "una sola": (1, "El trozo del rol no es el primer token; tokens sale del trozo de usage."),
    }
    cases = []
    for name, (count, hint) in hints.items():
        model, limit = f"modelo-{rng.randrange(10**6)}", rng.randrange(8, 64)
        scripts = {f"Question {rng.randrange(10**9)} about {_word(rng)}?": _script(rng) for _ in range(count)}
        judge = client_judge(model, list(scripts), limit, scripts)
        cases.append(Case(name=name, args=(model, list(scripts), limit), scripts=scripts, judge=judge, hint=hint))
    return tuple(cases)


def _script(rng: Random) -> list[dict[str, Any]]:
    words = [" " + _word(rng) for _ in range(rng.randrange(1, 12))]
    return script_of(words, rng.uniform(0.1, 3), rng.uniform(0.01, 0.2))


def _word(rng: Random) -> str:
    return "".join(rng.choice("abcdefghijklmnñoprstuváé") for _ in range(rng.randrange(3, 9)))


def _schema(rng: Random) -> dict[str, Any]:
    key, other = _word(rng), _word(rng) + "_2"
    return {
        "type": "object",
        "properties": {
            key: {"enum": [_word(rng), _word(rng)]},
            other: {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": rng.randrange(2, 6)},
        },
        "required": [key, other],
        "additionalProperties": False,
    }


def _body(rng: Random) -> tuple[Case, ...]:
    cases = []
    for name in ("esquema con lista", "otro esquema", "pregunta larga"):
        question = " ".join(_word(rng) for _ in range(40 if name == "pregunta larga" else 5))
        schema = _schema(rng)
        hint = "response_format con type json_schema, un name y el esquema recibido, sin tocarlo."
        cases.append(Case(name=name, args=(question, schema), judge=body_judge(question, schema), hint=hint))
    return tuple(cases)


def _validity(rng: Random) -> tuple[Case, ...]:
    """Each fault beside a sound twin: a verdict that never changes is right about none of the pairs."""
    schema = {
        "type": "object",
        "properties": {"n": {"type": "number"}, "tag": {"enum": ["a", "ñ"]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    number = rng.randrange(1000)
    twins = (f'{{"n": {number}}}', f'{{\n  "n": {number},\n  "tag": "ñ"\n}}')
    faults = {
        "cortada por el límite": (twins[0], "length"),
        "a medias": (f'{{"n": {number}', "stop"),
        "vacía": ("", "stop"),
        "valla de código": (f"```json\n{twins[0]}\n```", "stop"),
        "dos objetos": (f'{twins[0]} {{"n": 1}}', "stop"),
        "constante que no es JSON": ('{"n": NaN}', "stop"),
        "tipo equivocado": (f'{{"n": "{number}"}}', "stop"),
        "propiedad de más": (f'{{"n": {number}, "x": 1}}', "stop"),
        "falta una propiedad": ('{"tag": "a"}', "stop"),
    }
    hint = "Los tres requisitos a la vez: terminó sola, todo el texto es JSON estricto y cumple el esquema."
    return tuple(
        Case(name=name, args=(text,), play=_tells_apart(twins[i % 2], text, finish, schema), hint=hint)
        for i, (name, (text, finish)) in enumerate(faults.items())
    )


def _tells_apart(sound: str, text: str, finish: str, schema: dict[str, Any]) -> Callable[[Remote], Outcome]:
    def play(remote: Remote) -> Outcome:
        if remote.function("es_valida", sound, schema, "stop") is not True:
            return Outcome("True para una respuesta válida")
        if remote.function("es_valida", text, schema, finish) is not False:
            return Outcome("False para una respuesta con este defecto")
        return Outcome()

    return play


def _verdict(rng: Random) -> tuple[Case, ...]:
    def case(name: str, one_by_one: float, batch: float, ours: float, valid: int, hint: str) -> Case:
        report = {
            "baseline_tok_s": one_by_one,
            "baseline_batch_tok_s": batch,
            "minillm_tok_s": ours,
            "ratio": rng.uniform(50, 99),
            "ratio_batch": rng.uniform(50, 99),
            "json_total": 50,
            "json_valid": valid,
        }
        expected = {
            "ratio": ours / one_by_one,
            "ratio_lote": ours / batch,
            "json_pct": 100 * valid / 50,
            "cumple": ours / one_by_one >= 5 and valid == 50,
        }
        return Case(name=name, args=(report,), expected=expected, hint=hint)

    base = rng.uniform(5, 30)
    threshold = "El criterio es razón ≥ 5 contra una a una; 5 exacto cumple."
    return (
        case("holgado", base, base * 9, base * rng.uniform(6, 20), 50, "Calcula las razones con las velocidades."),
        case("justo en el umbral", 8.0, 30.0, 40.0, 50, threshold),
        case("por debajo", base, base * 2, base * 4.9, 50, threshold),
        case("JSON incompleto", base, base * 2, base * 9, rng.randrange(40, 50), "100 % quiere decir todos."),
        case("más lento que el lote", base, base * 12, base * 6, 50, "La razón contra el lote puede ser menor que 1."),
    )
