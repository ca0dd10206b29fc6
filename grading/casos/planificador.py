"""Hidden cases of tier 0: the student's scheduler on the virtual clock, with workloads and a model drawn by seed."""

from __future__ import annotations

from random import Random

from minilab.pruebas.casos import Case, Check
from minilab.reloj import cargas
from minilab.reloj.partidas import fast, in_order, nobody_starves, served

THROUGHPUT_WEIGHT = 3.0
HINTS = {
    "cortas": "En cada paso deben avanzar juntas tantas peticiones como permita max_peticiones.",
    "largas": "Reparte max_tokens: primero un token de cada activa, después trozos de los prompts que esperan.",
    "mezcladas": "Cuando una petición termina, otra ocupa su sitio en el paso siguiente; no esperes al lote entero.",
    "a ráfagas": "Quien llega entra en el paso siguiente si cabe, aunque haya un lote en marcha.",
    "prefijo común": "Varias peticiones empiezan igual: comparte los bloques llenos que ya guardan ese principio.",
}


def planificador_check(rng_seed: int) -> Check:
    """The check, with cases that depend on ``rng_seed`` alone."""
    rng = Random(rng_seed)
    throughput = tuple(
        Case(name=f"throughput: {w.name}", args=(), play=fast(w), hint=HINTS[w.name], weight=THROUGHPUT_WEIGHT)
        for w in cargas.workloads(rng)
    )
    return Check("planificador", "Planificador", ("planificador",), throughput + _behaviour(rng))


def _behaviour(rng: Random) -> tuple[Case, ...]:
    return (
        Case(
            name="sin fugas",
            args=(),
            play=served(cargas.wave_and_giant(rng)),
            hint="Quien termina devuelve todos sus bloques, y una petición que los necesita todos debe poder entrar.",
        ),
        Case(
            name="nadie espera sin fin",
            args=(),
            play=nobody_starves(cargas.steady_stream(rng)),
            hint="Atiende la cola por el principio, aunque no dejen de llegar peticiones.",
        ),
        Case(
            name="orden de llegada",
            args=(),
            play=in_order(cargas.unequal_queue(rng)),
            hint="Si la primera de la cola no cabe, las demás esperan detrás de ella.",
        ),
        Case(
            name="poca memoria",
            args=(),
            play=served(cargas.small_memory(rng)),
            hint="Si faltan bloques, desaloja a la última que entró y calcúlala otra vez desde 0 cuando haya sitio.",
        ),
    )
