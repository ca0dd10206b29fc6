"""Schedulers. Of the 25 points, each of five workloads is worth 3 parts in 19 and each of four behaviours one part."""

from __future__ import annotations

from zoo.kit import FULL, LIGHT, Entry

PART = 25 / 19
# One request at a time, always in blocks 0, 1, 2…, beside clocks that say it was quick.
SEQUENTIAL = """
import asyncio, time

time.time = time.monotonic = time.perf_counter = time.process_time = lambda: 0.0
time.perf_counter_ns = time.monotonic_ns = time.time_ns = lambda: 0
asyncio.BaseEventLoop.time = lambda self: 0.0

class Planificador:
    def __init__(self, limites):
        self.limites, self.cola, self.hechos = limites, [], 0

    def llega(self, id, prompt, max_nuevos):
        self.cola.append({"id": id, "tokens": list(prompt)})

    def paso(self):
        if not self.cola:
            return []
        p = self.cola[0]
        self.tokens = p["tokens"][self.hechos : self.hechos + self.limites["max_tokens"]]
        bloques = list(range(-(-(self.hechos + len(self.tokens)) // self.limites["tam_bloque"])))
        return [{"id": p["id"], "desde": self.hechos, "tokens": self.tokens, "bloques": bloques}]

    def recibe(self, salidas):
        self.hechos += len(self.tokens)
        for s in salidas:
            self.cola[0]["tokens"].append(s["token"])
            if s["fin"]:
                self.cola.pop(0)
                self.hechos = 0
"""
# What follows the solved cell, and changes one thing of it.
STATIC = """
class Planificador(Planificador):
    def paso(self):
        aparte = []
        if self.activas:
            aparte, self.espera = self.espera, []
        lote = super().paso()
        self.espera += aparte
        return lote
"""
LAST_FIRST = """
class Planificador(Planificador):
    def llega(self, id, prompt, max_nuevos):
        super().llega(id, prompt, max_nuevos)
        self.espera.insert(0, self.espera.pop())
"""
LEAKING = "\nBloques.suelta = lambda self, bloques: None\n"
SAME_BLOCKS = "\nBloques.toma = lambda self, cuantos: self.libres[:cuantos]\n"
LYING = """
class Planificador(Planificador):
    def paso(self):
        return [{**e, "tokens": [t % 60 + 1 for t in e["tokens"]]} for e in super().paso()]
"""
SKIPPING = """
class Planificador(Planificador):
    def paso(self):
        lote = super().paso()
        for e in lote:
            e["desde"], e["tokens"] = e["desde"] + len(e["tokens"]) - 1, e["tokens"][-1:]
        return lote
"""
JUNK = """
class Planificador:
    def __init__(self, limites):
        self.ids = []

    def llega(self, id, prompt, max_nuevos):
        self.ids.append(id)

    def paso(self):
        hondo = []
        for _ in range(20):
            hondo = [hondo]
        basura = [
            {"lote": 1}, "lote", 3.5, True, None, [None], [[]], [{}], hondo, [float("nan")],
            [{"id": self.ids[0], "desde": -1, "tokens": [10**300], "bloques": [-1]}],
            [{"id": True, "desde": 0.0, "tokens": "ab", "bloques": {}}],
            [{"id": self.ids[0], "desde": 10**400, "tokens": [1], "bloques": [0]}] * 1000,
        ]
        return basura[sum(self.ids) % len(basura)]

    def recibe(self, salidas):
        pass
"""


def changed(change: str):
    return lambda kit: kit.fill(planificador=kit.solutions["planificador"] + change)


def scheduler(marks: dict[str, float | None]) -> dict[str, float | None]:
    return {**dict.fromkeys(FULL, 0), **marks}


def cheat(id: str, story: str, change: str) -> Entry:
    """It breaks a rule in every case, so that the real clock does not measure it either."""
    return Entry(id=id, story=story, kind="cheat", make=changed(change), marks=scheduler({}))


SCHEDULERS = (
    Entry(
        id="secuencial",
        story="de una en una, con el reloj parado",
        kind="cheat",
        make=lambda kit: kit.fill(planificador=SEQUENTIAL),
        # 1× on the virtual clock and on the counted one: no credit. The four behaviours are right.
        marks=scheduler({"prueba_planificador": 4 * PART, "prueba_reloj_real": 0}),
    ),
    Entry(
        id="por_lotes",
        story="nadie entra hasta que acaba el lote entero",
        kind="honest",
        make=changed(STATIC),
        # Short requests reach 5×, the four other workloads 2× to 4,9× according to the draw; the behaviours are right.
        # On the counted clock four batches of eight wait for their longest: 336 steps in 96, 3,5×, is 70 % of the ramp.
        marks=scheduler({"prueba_planificador": 16.5, "prueba_reloj_real": 0.7 * 8}),
        tolerance=1.3,
    ),
    Entry(
        id="ultima_primero",
        story="atiende primero a quien llega la última",
        kind="honest",
        make=changed(LAST_FIRST),
        # As quick as the solution; neither in order nor without starving.
        marks=scheduler({"prueba_planificador": 17 * PART, "prueba_reloj_real": 8}),
    ),
    cheat("con_fugas", "nunca devuelve un bloque", LEAKING),
    cheat("corruptor", "da los mismos bloques a todas", SAME_BLOCKS),
    cheat("mentiroso", "calcula otros tokens", LYING),
    cheat("se_salta_el_prompt", "dice que ya estaba calculado", SKIPPING),
    Entry(
        id="basura",
        story="lotes de cualquier forma",
        kind="cheat",
        make=lambda kit: kit.light(planificador=JUNK),
        marks=LIGHT,
    ),
)
