"""The public checks of lab 1: what a student may see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minilab.pruebas.atencion_en_listas import attend, attend_causal
from minilab.pruebas.casos import Case, Check, Outcome, Remote, Reply, StudentError
from minilab.pruebas.jueces import far_from, near, positive_numbers
from minilab.pruebas.tensores import Tensor

Step = tuple[Any, ...]
DRIVEN = ("atencion", "atencion_causal", "cache_kv", "genera")

# Two query heads share one key head; then four share two.
ONE_GROUP = (
    [[1.0, 0.0], [0.0, 2.0]],
    [[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]],
    [[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]],
)
TWO_GROUPS = (
    [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]],
    [[[2.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 0.0]]],
    [[[1.0, 0.0], [10.0, 0.0]], [[0.0, 1.0], [0.0, 10.0]]],
)
ALONE = ([[3.0, -1.0]], [[[0.5, 0.5]]], [[[7.0, 8.0]]])


def tensors(*values: Any) -> tuple[Any, ...]:
    return tuple(Tensor(v) for v in values)


def attention_case(name: str, inputs: Sequence[Any], hint: str) -> Case:
    """q, keys and values as nested lists; the oracle is in plain Python."""
    return Case(name=name, args=tensors(*inputs), judge=near(attend(*inputs)), hint=hint)


def causal_case(name: str, inputs: Sequence[Any], hint: str) -> Case:
    """``atencion_causal`` on nested lists; what it gives must be a tensor, not a list of tensors."""
    judge, sent = near(attend_causal(*inputs)), tensors(*inputs)

    def play(remote: Remote) -> Outcome:
        made = remote.new("atencion_causal", *sent)  # kept where it is made: only a tensor has tolist there
        try:
            got = remote.call(made, "tolist")
        except StudentError:
            return Outcome("se esperaba un tensor [T, H, D] y llegó otra cosa: si es una lista, únela con torch.stack")
        complaint = judge(Reply(value=got))
        return Outcome(complaint and f"se esperaba {complaint}")

    return Case(name=name, args=(), play=play, hint=hint)


def cache_play(layers: int, steps: Sequence[Step]) -> Callable[[Remote], Outcome]:
    """Drive a ``CacheKV``: ("agrega", k, v) puts the same tokens, shifted by 1 per layer, into every layer in order;
    ("rebobina", n); ("largo",) does nothing. The length is asked for after each. What each call must give is kept here
    beside it."""

    def play(remote: Remote) -> Outcome:
        cache, held = remote.new("CacheKV", layers), [([], []) for _ in range(layers)]
        for step in steps:
            if step[0] == "agrega":
                if complaint := _append(remote, cache, held, *step[1:]):
                    return Outcome(complaint)
            elif step[0] == "rebobina":
                remote.call(cache, "rebobina", step[1])
                held = [tuple(side[: len(side) - step[1]] for side in layer) for layer in held]
            length = remote.call(cache, "largo")
            if type(length) is not int or length != len(held[-1][0]):
                return Outcome(f"tras {_told(step)}, se esperaba largo() = {len(held[-1][0])} y salió {length}")
        return Outcome()

    return play


def _append(remote: Remote, cache: int, held: list, k: Any, v: Any) -> str | None:
    for layer, (keys, values) in enumerate(held):
        mine_k, mine_v = _shifted(k, layer), _shifted(v, layer)
        held[layer] = keys + mine_k, values + mine_v
        got = remote.call(cache, "agrega", layer, *tensors(mine_k, mine_v))
        if not isinstance(got, list) or len(got) != 2:
            return "se esperaba que agrega devolviera dos tensores: todas las claves y todos los valores de la capa"
        for name, expected, side in zip(("las claves", "los valores"), held[layer], got, strict=True):
            if complaint := far_from(expected, side):
                return f"{name} de la capa {layer}, tras agregar {len(k)} tokens: se esperaba {complaint}"
    return None


def _shifted(values: Any, by: int) -> Any:
    return [_shifted(inner, by) for inner in values] if isinstance(values, list) else values + by


def _told(step: Step) -> str:
    return f"agregar {len(step[1])} tokens" if step[0] == "agrega" else f"{step[0]}({', '.join(map(str, step[1:]))})"


def half_way(layers: int, steps: Sequence[tuple[Any, Any]]) -> Callable[[Remote], Outcome]:
    """``largo()`` after each layer of each step: the tokens of the step count when the last layer holds them."""

    def play(remote: Remote) -> Outcome:
        cache, whole = remote.new("CacheKV", layers), 0
        for k, v in steps:
            for layer in range(layers):
                remote.call(cache, "agrega", layer, *tensors(k, v))
                whole += len(k) if layer == layers - 1 else 0
                length = remote.call(cache, "largo")
                if type(length) is not int or length != whole:
                    told = f"con {len(k)} tokens nuevos en las capas 0 a {layer}, de {layers} capas"
                    return Outcome(f"{told}, se esperaba largo() = {whole} y salió {length}")
        return Outcome()

    return play


def rewind_refused(layers: int, k: Any, v: Any, wrong: int) -> Callable[[Remote], Outcome]:
    """After appending k and v, rewinding by ``wrong`` must raise ValueError and change nothing."""
    appended = cache_play(layers, [("agrega", k, v)])

    def play(remote: Remote) -> Outcome:
        if (first := appended(remote)).complaint is not None:
            return first
        cache = remote.new("CacheKV", 1)
        remote.call(cache, "agrega", 0, *tensors(k, v))
        return _refuses_rewind(remote, cache, wrong, len(k))

    return play


def _refuses_rewind(remote: Remote, cache: int, wrong: int, length: int) -> Outcome:
    try:
        remote.call(cache, "rebobina", wrong)
    except StudentError as error:
        if error.error != "ValueError":
            return Outcome(f"se esperaba ValueError en rebobina({wrong}) y llegó {error.error}")
        left = remote.call(cache, "largo")
        return Outcome() if left == length else Outcome(f"rebobina({wrong}) falló, pero dejó {left} tokens de {length}")
    return Outcome(f"se esperaba ValueError en rebobina({wrong}) con {length} tokens guardados, y no llegó")


def loop_play(
    script: str, answers: Sequence[int], prompt: Sequence[int], new: int, end: int | None
) -> Callable[[Remote], Outcome]:
    """``genera`` over a model of class ``script`` that says ``answers`` whatever it is asked, and notes each call."""
    expected, calls = [], [[list(prompt), list(range(len(prompt)))]]
    for i in range(new):
        if answers[i] == end:
            break
        expected.append(answers[i])
        if i + 1 < new:
            calls.append([[answers[i]], [len(prompt) + i]])
    if new == 0:
        calls = []

    def play(remote: Remote) -> Outcome:
        [got] = remote.run(remote.new(script, list(answers)), [("prueba", (list(prompt), new, end))])
        if got["tokens"] != expected:
            return Outcome(f"se esperaban los tokens {expected} y salieron {got['tokens']}")
        if strange := [kind for kind in got["tipos"] if kind != "int"]:
            return Outcome(f"se esperaban enteros de Python (int) en la lista y llegó un {strange[0]}")
        if len(got["llamadas"]) != len(calls):
            return Outcome(f"se esperaban {len(calls)} llamadas al modelo y hubo {len(got['llamadas'])}")
        for i, (wanted, seen) in enumerate(zip(calls, got["llamadas"], strict=True)):
            if wanted != seen:
                asked = f"se esperaba modelo(ids={wanted[0]}, posiciones={wanted[1]})"
                return Outcome(
                    f"llamada {i + 1} de {len(calls)}: {asked} y llegó modelo(ids={seen[0]}, posiciones={seen[1]})"
                )
        return Outcome()

    return play


def work(n: int, m: int, cached: bool) -> dict[str, int]:
    """The oracle, step by step: tokens that go through the model and q·k products of one head of one layer."""
    tokens = pairs = 0
    for step in range(m):
        length = n + step
        asked = 1 if cached and step else length
        tokens += asked
        pairs += sum(range(length - asked + 1, length + 1))
    return {"tokens": tokens, "productos": pairs}


GQA = "La cabeza de consulta h lee el grupo h // (H / G): repite cada cabeza de claves, no la lista entera."
ATTENTION = (
    attention_case(
        "un solo token guardado",
        ALONE,
        "Con un token, el softmax da 1: sale su valor, tal cual, y con la forma de q, [H, D].",
    ),
    attention_case(
        "dos cabezas y un grupo",
        ONE_GROUP,
        "Divide q·k entre √D (la raíz, no D); el softmax recorre los tokens guardados, no las cabezas.",
    ),
    attention_case("cuatro cabezas y dos grupos", TWO_GROUPS, GQA),
)
THREE = (
    [[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]],
    [[[1.0, 0.0]], [[0.0, 1.0]], [[2.0, 2.0]]],
    [[[1.0, 0.0]], [[0.0, 1.0]], [[5.0, 5.0]]],
)
CAUSAL = (
    causal_case("prefill de tres tokens", THREE, "El token i ve del 0 al i, él incluido: nunca los de después."),
    causal_case(
        "dos nuevos tras uno guardado",
        (THREE[0][1:], *THREE[1:]),
        "Antes de los T nuevos hay S − T guardados: el nuevo i ve S − T + i + 1 tokens.",
    ),
)
K2, V2 = [[[1.0, 2.0]], [[3.0, 4.0]]], [[[-1.0, 0.0]], [[0.0, -1.0]]]
K1, V1 = [[[5.0, 6.0]]], [[[7.0, 8.0]]]
REFUSE = "Comprueba n antes de tocar nada: si es negativo o mayor que largo(), lanza ValueError."
CACHE = (
    Case(
        name="recién creada",
        args=(),
        play=cache_play(2, [("largo",), ("rebobina", 0), ("agrega", K1, V1)]),
        hint="Vacía, largo() es 0 y rebobina(0) no hace nada. Ninguno de los dos puede suponer que ya hay tensores.",
    ),
    Case(
        name="dos capas: prefill y un token",
        args=(),
        play=cache_play(2, [("agrega", K2, V2), ("agrega", K1, V1)]),
        hint="Cada capa guarda lo suyo; agrega pone lo nuevo al final y devuelve todo lo de esa capa.",
    ),
    Case(
        name="rebobinar 1 y seguir",
        args=(),
        play=cache_play(2, [("agrega", K2, V2), ("rebobina", 1), ("agrega", K1, V1)]),
        hint="rebobina(n) quita los n últimos tokens, de las claves y de los valores, en todas las capas.",
    ),
    Case(
        name="rebobinar 0 no quita nada",
        args=(),
        play=cache_play(1, [("agrega", K2, V2), ("rebobina", 0), ("agrega", K1, V1)]),
        hint="Cuidado: x[:-0] es x[:0], un tensor vacío. Calcula cuántos quedan.",
    ),
    Case(
        name="rebobinar de más",
        args=(),
        play=rewind_refused(1, K2, V2, 3),
        hint=REFUSE,
    ),
    Case(name="rebobinar un número negativo", args=(), play=rewind_refused(1, K2, V2, -1), hint=REFUSE),
    Case(
        name="largo() a mitad de un paso",
        args=(),
        play=half_way(2, [(K2, V2), (K1, V1)]),
        hint="largo() mira la última capa, no la primera: cuenta los tokens que ya pasaron por todo el modelo.",
    ),
)
LOOP = (
    Case(
        name="prompt de tres, cuatro nuevos",
        args=(),
        play=loop_play("Guion", [4, 2, 7, 1], [5, 6, 9], 4, None),
        hint="Llamada 1: el prompt entero, desde la posición 0. Después, solo el token nuevo, en su posición, y "
        "ninguna llamada tras el último. Cada token se guarda con int(…).",
    ),
    Case(
        name="se acaba antes",
        args=(),
        play=loop_play("Guion", [4, 2, 7, 1], [5], 4, 7),
        hint="Si sale el token fin, para: ni se devuelve ni se vuelve a llamar al modelo.",
    ),
    Case(
        name="el token 0 no es el final",
        args=(),
        play=loop_play("Guion", [3, 0, 5], [8, 1], 3, None),
        hint="El 0 es un token como otro: compáralo con fin; `if not token` lo confunde con «nada».",
    ),
    Case(
        name="el 0 puede ser el fin",
        args=(),
        play=loop_play("Guion", [3, 0, 5], [8, 1], 3, 0),
        hint="Con fin=0, `if fin` es falso: compara siempre token == fin.",
    ),
)
BYTES = (
    Case(name="un token de SmolLM2", args=(30, 3, 64, 1, 4), expected=46080, hint="Se guardan claves y valores: × 2."),
    Case(
        name="Llama 3 8B, 8192 tokens",
        args=(32, 8, 128, 8192, 2),
        expected=2**30,
        hint="Un 2 por claves y valores, y los cinco argumentos: ninguno se queda fuera.",
    ),
)
FIT = (
    Case(
        name="sobra sitio",
        args=(1000, 400, 90),
        expected=6,
        hint="Primero se restan los pesos; y no hay media petición.",
    ),
    Case(name="no caben ni los pesos", args=(100, 400, 90), expected=0, hint="Nunca es negativo."),
)
WORK = (
    Case(
        name="sin caché: 3 de prompt y 2 nuevos",
        args=(3, 2, False),
        expected=work(3, 2, False),
        hint="Dos pasos: el primero calcula 3 tokens; el segundo, los 4 otra vez. El token i hace i + 1 productos.",
    ),
    Case(
        name="con caché: 3 de prompt y 2 nuevos",
        args=(3, 2, True),
        expected=work(3, 2, True),
        hint="El segundo paso calcula solo un token, pero ese mira a los 4 que hay.",
    ),
)
PREDICTION = Case(
    name="dos números",
    args=(),
    judge=positive_numbers(("sin_cache", "kib_por_token")),
    hint="Escribe los dos números que esperas.",
)

CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check("prediccion_l01", "mi_prediccion", ("prediccion",), (PREDICTION,)),
        Check("atencion", "atencion", ("atencion",), ATTENTION),
        Check("atencion_causal", "atencion_causal", ("atencion", "atencion_causal"), CAUSAL),
        Check("cache_kv", "CacheKV", ("cache_kv",), CACHE),
        Check("genera", "genera", DRIVEN, LOOP),
        Check("bytes_kv", "bytes_kv", ("bytes_kv",), BYTES),
        Check("cuantos_caben", "cuantos_caben", ("cuantos_caben",), FIT),
        Check("trabajo", "trabajo", ("trabajo",), WORK),
    )
}
