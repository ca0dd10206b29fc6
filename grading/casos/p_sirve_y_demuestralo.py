"""Hidden cases of the project "Sirve y demuéstralo". Names and hints are shown to students; arguments are not."""

from __future__ import annotations

from random import Random
from typing import Any

from minilab.casos import Caso, Prueba
from minilab.jueces import juez_de_cliente, juez_de_cuerpo, juez_de_prediccion
from minilab.servidor_simulado import guion_de
from minillm_serve.bench.prompts import GUIDED_MAX_TOKENS

# What the notebook's preparation cell offers to the solution cells, without the engine.
PRELUDIO = f"import asyncio\nimport json\nimport time\nGUIDED_MAX_TOKENS = {GUIDED_MAX_TOKENS}\n"
IMPORTES = ("jsonschema",)


def pruebas(semilla: int) -> dict[str, Prueba]:
    """All checks of the notebook, with cases that depend on ``semilla`` alone."""
    azar = Random(semilla)
    return {
        "prueba_prediccion": Prueba("prediccion", "mi_prediccion", ("prediccion",), _prediccion()),
        "prueba_percentil": Prueba("percentil", "percentil", ("percentil",), _percentil(azar)),
        "prueba_resume": Prueba("resume", "resume", ("percentil", "resume"), _resume(azar)),
        "prueba_cliente": Prueba("cliente", "lanza_todas", ("cliente",), _cliente(azar)),
        "prueba_cuerpo_json": Prueba("cuerpo_json", "cuerpo_json", ("cuerpo_json",), _cuerpo(azar)),
        "prueba_es_valida": Prueba("es_valida", "es_valida", ("es_valida",), _valida(azar)),
        "prueba_veredicto": Prueba("veredicto", "veredicto", ("veredicto",), _veredicto(azar)),
    }


def percentil(valores: list[float], p: float) -> float:
    """The oracle: linear interpolation between closest ranks."""
    orden = sorted(valores)
    posicion = (len(orden) - 1) * p / 100
    abajo = int(posicion)
    arriba = min(abajo + 1, len(orden) - 1)
    return orden[abajo] * (1 - (posicion - abajo)) + orden[arriba] * (posicion - abajo)


def _prediccion() -> tuple[Caso, ...]:
    pista = "Devuelve tus dos números, mayores que 0."
    return (Caso(nombre="predicción escrita", args=(), juez=juez_de_prediccion, pista=pista),)


def _percentil(azar: Random) -> tuple[Caso, ...]:
    listas = {
        "un solo valor": ([azar.uniform(1, 9)], 95),
        "extremo inferior": ([azar.uniform(-9, 9) for _ in range(7)], 0),
        "extremo superior": ([azar.uniform(-9, 9) for _ in range(8)], 100),
        "valores enteros": ([azar.randrange(100) for _ in range(11)], 50),
        "valores repetidos": ([3.0, 3.0, azar.uniform(4, 5), 3.0], 75),
        "lista larga al azar": ([azar.expovariate(1.0) for _ in range(101)], 95),
        "percentil no entero": ([azar.gauss(0, 5) for _ in range(40)], 99.5),
    }
    pista = "Repasa la posición (n − 1)·p/100 y la interpolación; no supongas que la lista llega ordenada."
    casos = [Caso(nombre=n, args=a, espera=percentil(*a), pista=pista) for n, a in listas.items()]
    vacia = Caso(nombre="lista vacía", args=([], 95), error="ValueError", pista="Sin datos no hay percentil.")
    return (*casos, vacia)


def _resume(azar: Random) -> tuple[Caso, ...]:
    def peticiones(cuantas: int, separacion: float) -> list[dict[str, Any]]:
        lista = []
        for i in range(cuantas):
            inicio = 100 + i * separacion
            primero = inicio + azar.uniform(0.1, 2)
            fin = primero + azar.uniform(0.5, 4)
            lista.append({"inicio": inicio, "primer_token": primero, "fin": fin, "tokens": azar.randrange(1, 80)})
        azar.shuffle(lista)
        return lista

    def esperado(lista: list[dict[str, Any]]) -> dict[str, float]:
        reloj = max(p["fin"] for p in lista) - min(p["inicio"] for p in lista)
        ttft = [p["primer_token"] - p["inicio"] for p in lista]
        tokens = sum(p["tokens"] for p in lista)
        return {"tok_s": tokens / reloj, "ttft_p50": percentil(ttft, 50), "ttft_p95": percentil(ttft, 95)}

    listas = {
        "cincuenta a la vez": peticiones(50, 0.0),
        "llegadas escalonadas": peticiones(12, 0.7),
        "una sola petición": peticiones(1, 0.0),
        "reloj que no empieza en cero": peticiones(5, 0.1),
    }
    pista = "Tokens totales entre (último fin − primer inicio); TTFT = primer_token − inicio; usa tu percentil."
    return tuple(Caso(nombre=n, args=(p,), espera=esperado(p), pista=pista) for n, p in listas.items())


def _cliente(azar: Random) -> tuple[Caso, ...]:
    pistas = {
        "cincuenta a la vez": (50, "Todas en vuelo a la vez, sin esperar entre envíos ni limitar la concurrencia."),
        "acaban en otro orden": (7, "Devuelve las medidas en el orden de los prompts, no en el de llegada."),
        "una sola": (1, "El trozo del rol no es el primer token; tokens sale del trozo de usage."),
    }
    casos = []
    for nombre, (cuantos, pista) in pistas.items():
        modelo, tope = f"modelo-{azar.randrange(10**6)}", azar.randrange(8, 64)
        guiones = {f"Question {azar.randrange(10**9)} about {_palabra(azar)}?": _guion(azar) for _ in range(cuantos)}
        juez = juez_de_cliente(modelo, list(guiones), tope, guiones)
        casos.append(Caso(nombre=nombre, args=(modelo, list(guiones), tope), guiones=guiones, juez=juez, pista=pista))
    return tuple(casos)


def _guion(azar: Random) -> list[dict[str, Any]]:
    palabras = [" " + _palabra(azar) for _ in range(azar.randrange(1, 12))]
    return guion_de(palabras, azar.uniform(0.1, 3), azar.uniform(0.01, 0.2))


def _palabra(azar: Random) -> str:
    return "".join(azar.choice("abcdefghijklmnñoprstuváé") for _ in range(azar.randrange(3, 9)))


def _esquema(azar: Random) -> dict[str, Any]:
    clave, otra = _palabra(azar), _palabra(azar) + "_2"
    return {
        "type": "object",
        "properties": {
            clave: {"enum": [_palabra(azar), _palabra(azar)]},
            otra: {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": azar.randrange(2, 6)},
        },
        "required": [clave, otra],
        "additionalProperties": False,
    }


def _cuerpo(azar: Random) -> tuple[Caso, ...]:
    casos = []
    for nombre in ("esquema con lista", "otro esquema", "pregunta larga"):
        pregunta = " ".join(_palabra(azar) for _ in range(40 if nombre == "pregunta larga" else 5))
        esquema = _esquema(azar)
        pista = "response_format con type json_schema, un name y el esquema recibido, sin tocarlo."
        casos.append(Caso(nombre=nombre, args=(pregunta, esquema), juez=juez_de_cuerpo(pregunta, esquema), pista=pista))
    return tuple(casos)


def _valida(azar: Random) -> tuple[Caso, ...]:
    esquema = {
        "type": "object",
        "properties": {"n": {"type": "number"}, "tag": {"enum": ["a", "ñ"]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    numero = azar.randrange(1000)
    textos = {
        "objeto mínimo": (f'{{"n": {numero}}}', "stop", True),
        "con saltos de línea": (f'{{\n  "n": {numero},\n  "tag": "ñ"\n}}', "stop", True),
        "cortada por el límite": (f'{{"n": {numero}}}', "length", False),
        "a medias": (f'{{"n": {numero}', "stop", False),
        "vacía": ("", "stop", False),
        "valla de código": (f'```json\n{{"n": {numero}}}\n```', "stop", False),
        "dos objetos": (f'{{"n": {numero}}} {{"n": 1}}', "stop", False),
        "constante que no es JSON": ('{"n": NaN}', "stop", False),
        "tipo equivocado": (f'{{"n": "{numero}"}}', "stop", False),
        "propiedad de más": (f'{{"n": {numero}, "x": 1}}', "stop", False),
        "falta una propiedad": ('{"tag": "a"}', "stop", False),
    }
    pista = "Los tres requisitos a la vez: terminó sola, todo el texto es JSON estricto y cumple el esquema."
    return tuple(Caso(nombre=n, args=(t, esquema, fin), espera=v, pista=pista) for n, (t, fin, v) in textos.items())


def _veredicto(azar: Random) -> tuple[Caso, ...]:
    def caso(nombre: str, una: float, lote: float, nuestro: float, validos: int, pista: str) -> Caso:
        informe = {
            "baseline_tok_s": una,
            "baseline_batch_tok_s": lote,
            "minillm_tok_s": nuestro,
            "ratio": azar.uniform(50, 99),
            "ratio_batch": azar.uniform(50, 99),
            "json_total": 50,
            "json_valid": validos,
        }
        espera = {
            "ratio": nuestro / una,
            "ratio_lote": nuestro / lote,
            "json_pct": 100 * validos / 50,
            "cumple": nuestro / una >= 5 and validos == 50,
        }
        return Caso(nombre=nombre, args=(informe,), espera=espera, pista=pista)

    base = azar.uniform(5, 30)
    umbral = "El criterio es razón ≥ 5 contra una a una; 5 exacto cumple."
    return (
        caso("holgado", base, base * 9, base * azar.uniform(6, 20), 50, "Calcula las razones con las velocidades."),
        caso("justo en el umbral", 8.0, 30.0, 40.0, 50, umbral),
        caso("por debajo", base, base * 2, base * 4.9, 50, umbral),
        caso("JSON incompleto", base, base * 2, base * 9, azar.randrange(40, 50), "100 % quiere decir todos."),
        caso("más lento que el lote", base, base * 12, base * 6, 50, "La razón contra el lote puede ser menor que 1."),
    )
