"""Hidden cases of lab 1. Names and hints are shown to students; arguments are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from minilab.pruebas.atencion_en_listas import SmallNet, numbers
from minilab.pruebas.casos import Case, Check, Outcome, Remote
from minilab.pruebas.jueces import far_from
from minilab.pruebas.publicas.l01 import (
    DRIVEN,
    PREDICTION,
    Step,
    attention_case,
    cache_play,
    causal_case,
    half_way,
    loop_play,
    rewind_refused,
    work,
)
from minilab.pruebas.tensores import Tensor

# A model that follows a script, and a small real one over the student's attention and cache.
PRELUDE = """
class GuionDeQuienCorrige:
    def __init__(self, respuestas):
        self.respuestas, self.llamadas = respuestas, []

    def __call__(self, ids, posiciones):
        import torch

        self.llamadas.append([[int(i) for i in ids], [int(p) for p in posiciones]])
        logits = torch.full((max(self.respuestas) + 3,), -9.0)
        logits[self.respuestas[(len(self.llamadas) - 1) % len(self.respuestas)]] = -2.0
        return logits

    def prueba(self, prompt, nuevos, fin):
        tokens = genera(self, prompt, nuevos) if fin is None else genera(self, prompt, nuevos, fin)
        tipos = [type(t).__name__ for t in tokens]
        return {"tokens": [int(t) for t in tokens], "tipos": tipos, "llamadas": self.llamadas}


class RedDeQuienCorrige:
    def __init__(self, pesos, capas, cabezas, cabezas_kv):
        self.pesos, self.forma, self.cache = pesos, (cabezas, cabezas_kv), CacheKV(capas)
        self.capas = capas

    def __call__(self, ids, posiciones):
        import torch

        w, (cabezas, cabezas_kv), n = self.pesos, self.forma, len(ids)
        x = w["token"][torch.tensor(list(ids))] + w["posicion"][torch.tensor(list(posiciones))]
        for capa in range(self.capas):
            q = (x @ w[f"q{capa}"]).view(n, cabezas, -1)
            k, v = ((x @ w[f"{letra}{capa}"]).view(n, cabezas_kv, -1) for letra in "kv")
            x = x + atencion_causal(q, *self.cache.agrega(capa, k, v)).reshape(n, -1) @ w[f"o{capa}"]
        self.logits = x[-1] @ w["salida"]
        return self.logits

    def prueba(self, prompt, nuevos):
        return {"tokens": [int(t) for t in genera(self, prompt, nuevos)], "logits": self.logits}

    def corrige(self, quita, ids):
        self.cache.rebobina(quita)
        desde = self.cache.largo()
        return self(ids, list(range(desde, desde + len(ids))))
"""
IMPORTS = ("torch",)
SCRIPT, NET = "GuionDeQuienCorrige", "RedDeQuienCorrige"


def checks(seed: int) -> dict[str, Check]:
    """All checks of the notebook, with cases that depend on ``seed`` alone."""
    rng = Random(seed)
    return {
        "prueba_prediccion": Check("prediccion_l01", "mi_prediccion", ("prediccion",), (PREDICTION,)),
        "prueba_atencion": Check("atencion", "atencion", ("atencion",), _attention(rng)),
        "prueba_atencion_causal": Check(
            "atencion_causal", "atencion_causal", ("atencion", "atencion_causal"), _causal(rng)
        ),
        "prueba_cache_kv": Check("cache_kv", "CacheKV", ("cache_kv",), _cache(rng)),
        "prueba_genera": Check("genera", "genera", DRIVEN, (*_loop(rng), *_whole(rng))),
        "prueba_bytes_kv": Check("bytes_kv", "bytes_kv", ("bytes_kv",), _bytes(rng)),
        "prueba_cuantos_caben": Check("cuantos_caben", "cuantos_caben", ("cuantos_caben",), _fit(rng)),
        "prueba_trabajo": Check("trabajo", "trabajo", ("trabajo",), _work(rng)),
    }


def _inputs(rng: Random, asked: int, held: int, heads: int, groups: int, dim: int) -> tuple[Any, Any, Any]:
    """Queries (one alone where ``asked`` is 0), keys and values."""
    queries = numbers(rng, heads, dim) if asked == 0 else numbers(rng, asked, heads, dim)
    return queries, numbers(rng, held, groups, dim), numbers(rng, held, groups, dim)


def _attention(rng: Random) -> tuple[Case, ...]:
    scale = "Divide q·k entre √D; el softmax recorre los tokens guardados."
    group = "La cabeza de consulta h lee el grupo h // (H / G)."
    shapes = {
        "una cabeza": (rng.randrange(2, 9), 1, 1, rng.randrange(2, 6), scale),
        "sin compartir (H = G)": (rng.randrange(2, 9), 3, 3, 4, "Con H = G, cada cabeza lee la suya; " + scale),
        "todas comparten (G = 1)": (rng.randrange(2, 9), rng.randrange(3, 6), 1, 3, group + " Con G = 1, todas el 0."),
        "GQA de 6 y 2": (rng.randrange(3, 9), 6, 2, 4, group),
        "GQA de 9 y 3, como SmolLM2": (rng.randrange(3, 9), 9, 3, 5, group),
        "caché larga": (60, 4, 2, 4, "Todos los tokens guardados cuentan, sean los que sean; " + scale),
    }
    cases = [attention_case(name, _inputs(rng, 0, s, h, g, d), hint) for name, (s, h, g, d, hint) in shapes.items()]
    queries, keys, values = _inputs(rng, 0, 5, 2, 1, 3)
    large = ([[x * 300 for x in row] for row in queries], keys, values)
    cases.append(attention_case("puntuaciones enormes", large, "Usa torch.softmax: exp() a mano desborda."))
    return tuple(cases)


def _causal(rng: Random) -> tuple[Case, ...]:
    hint = "La consulta i ve los S − T guardados antes y los nuevos hasta ella misma."
    shapes = {
        "prefill": (6, 6, 4, 2, 3),
        "un token de decode": (1, rng.randrange(4, 12), 4, 2, 3),
        "un prompt de un token": (1, 1, 2, 1, 4),
        "trozo tras una caché corta": (5, 5 + rng.randrange(1, 4), 6, 3, 2),
        "trozo corto tras una caché larga": (2, 20, 6, 2, 4),
    }
    return tuple(causal_case(n, _inputs(rng, *shape), hint) for n, shape in shapes.items())


def _cache(rng: Random) -> tuple[Case, ...]:
    groups, dim = rng.randrange(1, 4), rng.randrange(1, 5)

    def more(count: int) -> Step:
        return "agrega", numbers(rng, count, groups, dim), numbers(rng, count, groups, dim)

    grow = "agrega pone lo nuevo al final de su capa y devuelve todo lo que hay en ella."
    back = "rebobina(n) quita los n últimos en todas las capas, y después se sigue desde ahí."
    scripts = {
        "prefill y muchos pasos": (3, [more(5), *(more(1) for _ in range(6))], grow),
        "prefill en dos trozos": (2, [more(4), more(3), more(1)], grow),
        "rebobinar 0": (2, [more(3), ("rebobina", 0), more(1)], back),
        "rebobinar una parte": (2, [more(4), more(1), more(1), ("rebobina", 3), more(2)], back),
        "rebobinar todo y empezar": (2, [more(4), ("rebobina", 4), more(2), more(1)], back),
        "rebobinar dos veces": (1, [more(6), ("rebobina", 2), ("rebobina", 1), more(1)], back),
        "vacía": (3, [("largo",), ("rebobina", 0), more(2), more(1)], "Sin nada, largo() es 0 y se rebobina 0."),
        "al azar": (rng.randrange(1, 4), _random_steps(rng, more), back),
    }
    cases = [Case(name=n, args=(), play=cache_play(layers, s), hint=hint) for n, (layers, s, hint) in scripts.items()]
    for name, wrong in (("rebobinar de más", 4), ("rebobinar un número negativo", -1)):
        play = rewind_refused(rng.randrange(1, 3), *more(3)[1:], wrong)
        hint = "Si n es negativo o mayor que largo(), lanza ValueError sin tocar nada."
        cases.append(Case(name=name, args=(), play=play, hint=hint))
    half = half_way(rng.randrange(3, 5), [more(count)[1:] for count in (4, 1, 2)])
    hint = "largo() cuenta lo que hay en la última capa: a mitad de un paso, aún no ha crecido."
    return (*cases, Case(name="a mitad de un paso", args=(), play=half, hint=hint))


def _random_steps(rng: Random, more: Callable[[int], Step]) -> list[Step]:
    steps, length = [more(3)], 3
    for _ in range(8):
        if rng.random() < 0.4:
            steps.append(("rebobina", gone := rng.randrange(length + 1)))
            length -= gone
        else:
            steps.append(more(count := rng.randrange(1, 4)))
            length += count
    return steps


def _loop(rng: Random) -> tuple[Case, ...]:
    def ids(count: int) -> list[int]:
        return [rng.randrange(3, 50) for _ in range(count)]

    calls = "El prompt una vez; después cada token nuevo solo, con su posición, y ninguna llamada de más."
    stop = "Si sale el token fin, para: ni se devuelve ni se vuelve a llamar al modelo."
    zero = "El 0 es un token como otro, y puede ser el fin: compara token == fin."
    answers = ids(9)
    shapes = {
        "prompt largo": (ids(12), ids(30), 12, None, calls),
        "prompt de un token": (ids(5), ids(1), 5, None, calls),
        "un solo token nuevo": (ids(3), ids(4), 1, None, "Con un token basta el prefill: nadie pregunta qué sigue."),
        "ninguno": (ids(3), ids(4), 0, None, "Con nuevos = 0 no se llama al modelo y sale una lista vacía."),
        "el fin es el primero": ([2, 7, 8], ids(3), 3, 2, stop),
        "el fin llega a la mitad": ([*answers[:4], 2, *answers[5:]], ids(6), 9, 2, stop),
        "el fin no llega": (ids(6), ids(6), 6, 1, "Si el fin no sale, se escriben todos los pedidos."),
        "el token 0 es un token": ([0, 4, 0, 5], ids(3), 4, None, zero),
        "el 0 puede ser el fin": ([4, 0, 5], ids(3), 3, 0, zero),
    }
    return tuple(
        Case(name=name, args=(), play=loop_play(SCRIPT, *shape), hint=hint) for name, (*shape, hint) in shapes.items()
    )


def _whole(rng: Random) -> tuple[Case, ...]:
    hint = "Por separado pueden estar bien: mira qué claves, en qué orden y con qué posición llega cada token."
    cases = []
    for name, layers, heads, groups in (("una capa", 1, 2, 1), ("tres capas con GQA", 3, 4, 2)):
        net, prompt = _decided(rng, layers, heads, groups, rng.randrange(3, 7), 6)
        cases.append(Case(name=name, args=(), play=_same_as_uncached(net, prompt, 6), hint=hint))
    net, prompt = _decided(rng, 2, 4, 2, 4, 5)
    other = [rng.randrange(11) for _ in range(2)]
    back = "Tras rebobinar, la siguiente posición es largo(), y lo quitado no puede influir."
    cases.append(
        Case(name="rebobinar y escribir otra cosa", args=(), play=_corrected(net, prompt, 5, 3, other), hint=back)
    )
    return tuple(cases)


def _decided(rng: Random, layers: int, heads: int, groups: int, length: int, new: int) -> tuple[SmallNet, list[int]]:
    """A net and a prompt whose ``new`` tokens are the same whatever the rounding."""
    while True:
        net = SmallNet(rng, layers, heads, groups, dim=3, vocab=11, positions=24)
        prompt = [rng.randrange(11) for _ in range(length)]
        if net.greedy(prompt, new)[1] > 0.02:
            return net, prompt


def _new_net(remote: Remote, net: SmallNet) -> int:
    weights = {name: Tensor(matrix) for name, matrix in net.weights.items()}
    return remote.new(NET, weights, net.layers, net.heads, net.kv_heads)


def _same_as_uncached(net: SmallNet, prompt: Sequence[int], new: int) -> Callable[[Remote], Outcome]:
    tokens, _ = net.greedy(prompt, new)
    logits = net.logits([*prompt, *tokens[:-1]])

    def play(remote: Remote) -> Outcome:
        [got] = remote.run(_new_net(remote, net), [("prueba", (list(prompt), new))])
        if got["tokens"] != tokens:
            return Outcome(
                f"se esperaban los tokens {tokens}, los de calcularlo todo sin caché, y salieron {got['tokens']}"
            )
        complaint = far_from(logits, got["logits"], 1e-3, 1e-3)
        return Outcome(complaint and f"los últimos logits no son los de sin caché: se esperaba {complaint}")

    return play


def _corrected(
    net: SmallNet, prompt: Sequence[int], new: int, gone: int, other: Sequence[int]
) -> Callable[[Remote], Outcome]:
    """The last token drawn was not fed: the cache holds the prompt and ``new - 1`` tokens before the rewind."""
    kept = [*prompt, *net.greedy(prompt, new)[0][:-1]][: len(prompt) + new - 1 - gone]
    logits = net.logits([*kept, *other])

    def play(remote: Remote) -> Outcome:
        handle = _new_net(remote, net)
        _, got = remote.run(handle, [("prueba", (list(prompt), new)), ("corrige", (gone, list(other)))])
        complaint = far_from(logits, got, 1e-3, 1e-3)
        return Outcome(
            complaint and f"tras rebobinar {gone}, los logits no son los de sin caché: se esperaba {complaint}"
        )

    return play


def _bytes(rng: Random) -> tuple[Case, ...]:
    hint = "Un 2 por claves y valores, y los cinco argumentos: ninguno se queda fuera."
    shapes = {
        "una capa y un token": (1, 1, rng.randrange(2, 200), 1, 1),
        "forma al azar": (rng.randrange(2, 90), rng.randrange(1, 17), 128, rng.randrange(2, 9000), 2),
        "contexto largo": (rng.randrange(20, 90), 8, 128, 131072, 2),
        "caché en int8": (rng.randrange(20, 90), rng.randrange(1, 17), 64, rng.randrange(2, 900), 1),
        "ningún token": (30, 3, 64, 0, 4),
    }
    return tuple(
        Case(name=name, args=args, expected=2 * args[0] * args[1] * args[2] * args[3] * args[4], hint=hint)
        for name, args in shapes.items()
    )


def _fit(rng: Random) -> tuple[Case, ...]:
    each, weights = rng.randrange(10**6, 10**9), rng.randrange(10**8, 10**10)
    count = rng.randrange(2, 300)
    whole = "Lo que queda tras los pesos, entre lo de una petición, y se redondea hacia abajo."
    none = "Si los pesos no dejan sitio, caben 0: nunca un número negativo."
    memories = {
        "caben justas": (weights + count * each, whole),
        "falta un byte": (weights + count * each - 1, whole),
        "sobra casi una": (weights + count * each + each - 1, whole),
        "solo los pesos": (weights, none),
        "falta sitio para los pesos": (weights - rng.randrange(2, 10**6) * 7, none),
        "faltan muchas": (weights // 2 - 5 * each if weights > 10 * each else 0, none),
    }
    return tuple(
        Case(name=n, args=(m, weights, each), expected=fit, hint=hint, weight=1.0 if fit else 0.2)
        for n, (m, hint) in memories.items()
        for fit in [max(0, (m - weights) // each)]
    )


def _work(rng: Random) -> tuple[Case, ...]:
    hints = {
        False: "Hay m pasos y en cada uno entra el texto entero; el token i hace i + 1 productos.",
        True: "Hay m pasos: en el primero entra el prompt; en los demás, un token, que mira a todos y a sí mismo.",
    }
    shapes = {
        "un solo token nuevo": (rng.randrange(2, 60), 1),
        "prompt de un token": (1, rng.randrange(2, 40)),
        "al azar": (rng.randrange(2, 60), rng.randrange(2, 40)),
        "respuesta larga": (rng.randrange(5, 20), 300),
    }
    return tuple(
        Case(
            name=f"{name}, {'con' if cached else 'sin'} caché",
            args=(*nm, cached),
            expected=work(*nm, cached),
            hint=hints[cached],
        )
        for name, nm in shapes.items()
        for cached in (False, True)
    )
