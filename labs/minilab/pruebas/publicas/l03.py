"""The public checks of lab 3: what a student may see."""

from __future__ import annotations

from minilab.pruebas import paginas
from minilab.pruebas.casos import Case, Check
from minilab.pruebas.jueces import positive_numbers

DIRECTION_HINT = "Bloque lógico pos // tam, hueco pos % tam; el físico lo dice la tabla, y ocupa tam casillas."
NO_BLOCK_HINT = "Comprueba primero que 0 ≤ pos < bloques de la tabla · tam; Python acepta índices negativos."
WASTE_HINT = "Vacío entre reservado. La paginada reserva bloques enteros: redondea hacia arriba."
EXTERNAL_HINT = "Cuenta las casillas libres seguidas, quédate con el hueco mayor y compáralo con todas las libres."
POOL_HINT = "Un bloque está libre exactamente cuando su cuenta es 0. Mira cuál fue la operación que lo estropeó."
ATOMIC_HINT = "Revisa la lista entera antes de cambiar la primera cuenta."
TOY_HINT = "Pide bloque si la tabla se acaba o si el bloque es de varios; copia, suelta el viejo y cambia la tabla."
VICTIM_HINT = "De la última en llegar a la más antigua, que no sale nunca; un bloque compartido aún tiene dueño."
AUDIT_HINT = "Dueños de un bloque: las tablas que lo nombran y la caché. Compáralos con la cuenta y con los libres."

# The last one frees nothing of its own, and the one before it more than what is missing.
ALL_SHARED = [
    {"id": 21, "llegada": 1, "bloques": [0, 1]},
    {"id": 22, "llegada": 2, "bloques": [0, 2, 3]},
    {"id": 23, "llegada": 3, "bloques": [0, 1]},
]
SKY = [("nueva", "A"), *(("pon", "A", i, w) for i, w in enumerate(("the", "sky", "is", "very", "blue")))]
FORK = [*SKY, ("bifurca", "A", "B"), ("pon", "A", 5, "and"), ("pon", "B", 5, "but"), ("termina", "A"), ("termina", "B")]
FULL = [("nueva", "A"), *(("pon", "A", i, w) for i, w in enumerate("wxyz")), ("bifurca", "A", "B")]
THREE = [
    {"id": 11, "llegada": 1, "bloques": [0, 1, 2]},
    {"id": 12, "llegada": 2, "bloques": [0, 3]},
    {"id": 13, "llegada": 3, "bloques": [0, 4]},
]

CHECKS = {
    "prediccion_l03": Check(
        "prediccion_l03",
        "mi_prediccion",
        ("prediccion",),
        (
            Case(
                name="predicción escrita",
                args=(),
                judge=positive_numbers(("a_la_vez", "aciertos")),
                hint="Devuelve tus dos números, mayores que 0.",
            ),
        ),
    ),
    "direccion": Check(
        "direccion",
        "direccion",
        ("direccion",),
        (
            Case(name="el ejemplo del texto", args=(6, [5, 2], 4), expected=10, hint=DIRECTION_HINT),
            Case(name="primera casilla", args=(0, [3, 0, 1], 16), expected=48, hint=DIRECTION_HINT),
            Case(name="más allá de la tabla", args=(8, [5, 2], 4), error="ValueError", hint=NO_BLOCK_HINT),
            Case(name="posición negativa", args=(-1, [5, 2], 4), error="ValueError", hint=NO_BLOCK_HINT),
        ),
    ),
    "fragmentacion": Check(
        "fragmentacion",
        "fragmentacion",
        ("fragmentacion",),
        (
            Case(
                name="el ejemplo del texto",
                args=([5, 7], 4, 12),
                expected={"contigua": 0.5, "paginada": 0.25},
                hint=WASTE_HINT,
            ),
            Case(
                name="bloques justos",
                args=([8, 4, 0], 4, 8),
                expected={"contigua": 0.5, "paginada": 0.0},
                hint=WASTE_HINT,
            ),
            Case(
                name="una casi vacía y otra llena",
                args=([1, 8], 4, 12),
                expected={"contigua": 0.625, "paginada": 0.25},
                hint="Suma primero lo de todas y divide una vez: la media de las partes de cada una es otro número.",
            ),
            Case(
                name="ninguna petición",
                args=([], 16, 256),
                expected={"contigua": 0.0, "paginada": 0.0},
                hint=WASTE_HINT,
            ),
            Case(name="fragmentación externa", args=(), play=paginas.external_play("AA..B."), hint=EXTERNAL_HINT),
            Case(name="un solo hueco, al final", args=(), play=paginas.external_play("ABC..."), hint=EXTERNAL_HINT),
        ),
    ),
    "reparto": Check(
        "reparto",
        "Bloques",
        ("reparto",),
        (
            Case(name="dar y soltar", args=(), play=paginas.drives(4, paginas.gives_and_takes), hint=POOL_HINT),
            Case(name="no hay bastantes", args=(), play=paginas.drives(3, paginas.too_few), hint=POOL_HINT),
            Case(name="compartir", args=(), play=paginas.drives(4, paginas.shares), hint=POOL_HINT),
            Case(name="soltar dos veces", args=(), play=paginas.drives(4, paginas.frees_twice), hint=ATOMIC_HINT),
            Case(
                name="una tupla",
                args=(),
                play=paginas.returns_a_tuple,
                hint="El motor escribe tabla + allocate(n): con una lista, eso es un TypeError.",
            ),
        ),
    ),
    "copia": Check(
        "copia",
        "escribe",
        ("reparto", "copia"),
        (
            Case(name="escribir sin compartir", args=(), play=paginas.toy_play(6, 4, SKY), hint=TOY_HINT),
            Case(name="bifurcar, escribir y acabar", args=(), play=paginas.toy_play(6, 4, FORK), hint=TOY_HINT),
            Case(
                name="sin memoria para copiar",
                args=(),
                play=paginas.toy_play(2, 2, [*FULL, ("pon", "A", 1, "v"), ("pon", "B", 4, "v")]),
                hint="Pide el bloque antes de tocar nada; sin bloque, devuelve False y deja todo como estaba.",
            ),
        ),
    ),
    "desalojo": Check(
        "desalojo",
        "victimas",
        ("desalojo",),
        (
            Case(name="el ejemplo del texto", args=(THREE, 2), expected=[13, 12], hint=VICTIM_HINT),
            Case(name="basta con una", args=(THREE, 1), expected=[13], hint=VICTIM_HINT),
            Case(name="ni con todas", args=(THREE, 3), expected=None, hint=VICTIM_HINT),
            Case(
                name="la última no libera nada",
                args=(ALL_SHARED, 1),
                expected=[23, 22],
                hint="No te saltes a nadie, y para en cuanto los libres son `faltan` o más.",
            ),
            Case(name="no falta nada", args=(THREE, 0), expected=[], hint=VICTIM_HINT),
        ),
    ),
    "auditoria": Check(
        "auditoria",
        "audita",
        ("auditoria",),
        (
            Case(
                name="todo cuadra",
                args=([2, 1, 1, 0], 1, [[0, 1], [0]], [2]),
                expected={"mal_contados": [], "perdidos": 0},
                hint=AUDIT_HINT,
            ),
            Case(
                name="una fuga",
                args=([1, 0, 0, 0], 1, [[0]], []),
                expected={"mal_contados": [], "perdidos": 2},
                hint=AUDIT_HINT,
            ),
            Case(
                name="libre y con dueño",
                args=([1, 0, 1, 0], 3, [[0, 1], [0]], [2]),
                expected={"mal_contados": [0, 1], "perdidos": -2},
                hint=AUDIT_HINT,
            ),
        ),
    ),
}
