# %% [markdown] tags=["corta", "cubre-B-objetivo"]
# # Lab 2 · Del lote estático al batching continuo
#
# Un paso de decode lee todos los pesos del modelo. Si en ese paso avanza una sola petición, esa lectura produce un token;
# si avanzan treinta, produce treinta. Así que conviene llevar muchas juntas: un **lote**. Pero las respuestas no miden lo
# mismo, y un lote que espera a la más larga desperdicia casi todo lo que ganó. Aquí mides ese desperdicio, escribes la pieza
# que lo evita y la pones a mover el modelo de verdad.
#
# Necesitas saber qué son el prefill, el decode y la caché KV (Lab 1). No hace falta haber servido nunca un modelo.
#
# **Al terminar puedes…**
#
# | Resultado de aprendizaje | Comprobación |
# |---|---|
# | medir cuánto sitio desperdicia un lote estático | `lugares_vacios` |
# | dibujar qué hace cada petición en un lote estático y en uno continuo | `estatico`, `continuo` |
# | decir qué significa una razón como «10×», y contra qué | `razones` |
# | decidir en cada paso quién avanza, con memoria por bloques | `planificador_continuo` |
# | ordenar la cola sin que nadie espere sin fin | `politica` |
#
# **Tiempo:** 85 minutos. **Pista corta:** 20 minutos (las celdas con la etiqueta `corta`).
# **Puntos:** 100 (85 automáticos y 15 que lee tu docente).
#
# > El modelo es pequeño (SmolLM2, 135 millones de parámetros) y responde mejor en inglés: por eso los prompts están en
# > inglés. Aquí se estudia el motor, no el ingenio del modelo.

# %% [markdown] tags=["corta"]
# ## Preparación
#
# Ejecuta la celda y lee qué modelo te toca. Si dice «modelo diminuto», todo funciona igual, pero los textos no tienen
# sentido y las velocidades no sirven como medida.

# %% nbgrader={"grade": false, "grade_id": "preparacion", "locked": true, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
import asyncio
import time
from functools import partial

from minilab.asincrono import corre
from minilab.bancos.lotes import COSTES, Banco, EnLotes, curva, espera_media, esperas, reloj_virtual
from minilab.bitacora import anota
from minilab.comparar import compara
from minilab.comprobar import comprobar
from minilab.cuaderno import prepara
from minilab.marcas import sirve
from minilab.motor import lado_a_lado, traza
from minilab.piezas import guarda
from minilab.vistas.cifras import cifra, cuenta
from minilab.widgets import ver_gantt
from minillm_serve import LLM, SamplingParams
from minillm_serve.bench.prompts import PROMPTS

modelo = prepara("L02")
PETICIONES = 6 if modelo.rapido else 16
NUEVOS = 8 if modelo.rapido else 32
MUESTRA = 2 if modelo.rapido else 4
preguntas = list(PROMPTS[:PETICIONES])
# Tokens de dieciséis respuestas: casi todas cortas y alguna larga, como en un chat.
LARGOS = [6, 60, 8, 5, 12, 40, 7, 9, 5, 10, 64, 6, 8, 4, 11, 7]

# %% [markdown] tags=["corta", "cubre-B-batching", "cubre-D-batching"]
# ## 1 · Idea
#
# ### El lote
#
# Un **lote** son las peticiones que avanzan juntas en un paso. El motor tiene un número fijo de **lugares** (en vLLM y en
# nuestro motor la opción se llama `max_num_seqs`): como mucho tantas peticiones a la vez. En cada paso, cada petición del
# lote gana un token.
#
# ### El desperdicio
#
# Tres peticiones y dos lugares. A responde con 3 tokens, B con 9 y C con 3. Un **lote estático** toma las dos primeras, las
# lleva hasta el final y solo entonces toma las siguientes:
#
# ```text
#   paso        0  1  2  3  4  5  6  7  8  9 10 11
#   lugar 0     A  A  A  ·  ·  ·  ·  ·  ·  C  C  C
#   lugar 1     B  B  B  B  B  B  B  B  B  ·  ·  ·
# ```
#
# A acabó en el paso 2, pero su lugar queda vacío hasta el 9. Cada punto es un **lugar vacío** durante un paso: los pesos se
# leen igual, y ahí no se calcula nada. Son 9 de 24. Y la persona que pidió C espera nueve pasos a que B termine.
#
# ### La cura
#
# El **batching continuo** decide el lote otra vez **en cada paso**: quien acaba se va y quien espera entra.
#
# ```text
#   paso        0  1  2  3  4  5  6  7  8
#   lugar 0     A  A  A  C  C  C  ·  ·  ·
#   lugar 1     B  B  B  B  B  B  B  B  B
# ```
#
# Nueve pasos en lugar de doce, 3 lugares vacíos en lugar de 9, y C empieza en el paso 3. No hay ningún modelo nuevo ni
# ninguna operación más rápida: solo cambia **quién decide y cuándo**. La pieza que decide se llama **planificador**.
#
# El mismo dibujo, con el visor que usarás en todo el lab. Mueve «hasta» para verlo avanzar.

# %% tags=["corta"]
ver_gantt(
    {"estático": [("A", 0, 3), ("B", 0, 9), ("C", 9, 12)], "continuo": [("A", 0, 3), ("B", 0, 9), ("C", 3, 6)]},
    lugares=2,
    por="lugar",
)

# %% [markdown] tags=["corta"]
# ## 2 · Predice
#
# Escribe tus números antes de calcular nada. Cualquiera mayor que 0 vale.
#
# - `vacios_pct`: dieciséis respuestas como las de `LARGOS` (mira la preparación: casi todas de menos de 12 tokens, alguna
#   de 60) pasan por un lote estático de 8 lugares. ¿Qué tanto por ciento de los lugares·paso queda vacío?
# - `a_la_vez`: ¿cuántas veces más tokens por segundo da **tu equipo** si las peticiones llegan todas a la vez que si llegan
#   de una en una? (Son 16; en modo rápido, 6.)


# %% nbgrader={"grade": false, "grade_id": "prediccion", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
def mi_prediccion():
    """Devuelve {"vacios_pct": número, "a_la_vez": número}."""
    ### BEGIN SOLUTION
    return {"vacios_pct": 40.0, "a_la_vez": 16.0}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_prediccion", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("prediccion_l02")

# %% [markdown] tags=["corta"]
# ## 3 · Construye
#
# ### 3.1 Los lugares vacíos
#
# Cuenta en el dibujo. El primer lote dura 9 pasos, lo que su petición más larga: `2 · 9` lugares·paso, de los que A y B usan
# `3 + 9`. El segundo dura 3 y solo C lo usa: `2 · 3` menos `3`. En total, `6 + 3 = 9` vacíos. El lugar que nadie pidió
# también está vacío.
#
# **Tu tarea:** implementa `lugares_vacios(largos, lugares)`. `largos[i]` son los tokens de la respuesta `i` (1 o más); los
# lotes se forman en ese orden, de `lugares` en `lugares`. Devuelve un entero. Sin peticiones, 0.


# %% nbgrader={"grade": false, "grade_id": "lugares_vacios", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
def lugares_vacios(largos, lugares):
    """Lugares·paso que un lote estático deja vacíos.

    >>> lugares_vacios([3, 9, 3], 2)
    9
    """
    ### BEGIN SOLUTION
    vacios = 0
    for primero in range(0, len(largos), lugares):
        lote = largos[primero : primero + lugares]
        vacios += lugares * max(lote) - sum(lote)
    return vacios
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_lugares_vacios", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("lugares_vacios")


# %% tags=["corta"]
def vacios_pct(largos, lugares):
    vacios = lugares_vacios(largos, lugares)
    return 100 * vacios / (vacios + sum(largos))


medido = vacios_pct(LARGOS, 8)
print(f"LARGOS en 8 lugares: {medido:.0f} % de lugares vacíos; tú esperabas {mi_prediccion()['vacios_pct']:.0f} %")
anota("L02", "lugares vacíos del lote estático", mi_prediccion()["vacios_pct"], medido, "%", modelo.nombre)
for lugares in (1, 2, 4, 16):
    print(f"  con {cuenta(lugares, 'lugar', 'lugares')}: {vacios_pct(LARGOS, lugares):.0f} %")
print(f"  con 8 lugares y las respuestas ordenadas por largo: {vacios_pct(sorted(LARGOS), 8):.0f} %")

# %% [markdown] tags=["corta", "cubre-D-casos"]
# Con más lugares suele haber **más** desperdicio: es más fácil que en el lote caiga una larga. Ordenar por largo ayuda, y
# hay un caso en el que se hace: el trabajo **fuera de línea** (resumir mil documentos esta noche), donde todo está desde el
# principio. **En línea** (un chat) no se puede: las peticiones llegan cuando llegan y nadie sabe cuánto medirá una respuesta
# hasta que termina.

# %% [markdown]
# ### 3.2 El lote estático, paso a paso
#
# Un plan se escribe con una **fila** por petición: `[petición, inicio, fin]`. La petición `i` ocupa un lugar desde el paso
# `inicio` hasta el paso `fin`, sin incluirlo. El ejemplo de arriba es `[[0, 0, 3], [1, 0, 9], [2, 9, 12]]`.
#
# **Tu tarea:** implementa `estatico(largos, lugares)`. Devuelve la lista de filas en el orden de las peticiones. Un lote
# empieza en el paso en que acaba el anterior entero.


# %% nbgrader={"grade": false, "grade_id": "estatico", "locked": false, "schema_version": 3, "solution": true, "task": false}
def estatico(largos, lugares):
    """Filas [petición, inicio, fin] de un lote estático.

    >>> estatico([3, 9, 3], 2)
    [[0, 0, 3], [1, 0, 9], [2, 9, 12]]
    """
    ### BEGIN SOLUTION
    filas, inicio = [], 0
    for primero in range(0, len(largos), lugares):
        lote = largos[primero : primero + lugares]
        for i, largo in enumerate(lote):
            filas.append([primero + i, inicio, inicio + largo])
        inicio += max(lote)
    return filas
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_estatico", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("estatico")

# %% [markdown]
# ### 3.3 El lote continuo, paso a paso
#
# Ahora las peticiones pueden llegar en pasos distintos: `llegadas[i]` es el paso en que llega la `i`, y la lista no baja
# nunca. La regla cabe en una frase: **la primera de la cola entra en el primer paso en que ya ha llegado y hay un lugar
# libre**. Nadie se cuela.
#
# ```text
#   largos 3 9 3 2, llegadas 0 0 0 8, dos lugares
#   paso        0  1  2  3  4  5  6  7  8  9
#   lugar 0     0  0  0  2  2  2  ·  ·  3  3
#   lugar 1     1  1  1  1  1  1  1  1  1
# ```
#
# **Tu tarea:** implementa `continuo(largos, lugares, llegadas)`. Devuelve las filas en el orden de las peticiones. Una pista:
# basta con recordar, de cada lugar, el paso en que queda libre.


# %% nbgrader={"grade": false, "grade_id": "continuo", "locked": false, "schema_version": 3, "solution": true, "task": false}
def continuo(largos, lugares, llegadas):
    """Filas [petición, inicio, fin] de un lote continuo.

    >>> continuo([3, 9, 3, 2], 2, [0, 0, 0, 8])
    [[0, 0, 3], [1, 0, 9], [2, 3, 6], [3, 8, 10]]
    """
    ### BEGIN SOLUTION
    libre, filas = [0] * lugares, []
    for i, largo in enumerate(largos):
        lugar = libre.index(min(libre))
        inicio = max(libre[lugar], llegadas[i])
        libre[lugar] = inicio + largo
        filas.append([i, inicio, libre[lugar]])
    return filas
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_continuo", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("continuo")

# %%
planes = {"estático": estatico(LARGOS, 4), "continuo": continuo(LARGOS, 4, [0] * len(LARGOS))}
for nombre, filas in planes.items():
    pasos = max(fin for _, _, fin in filas)
    print(f"{nombre:>8}: {pasos} pasos, {100 - 100 * sum(LARGOS) / (4 * pasos):.0f} % de lugares vacíos")
ver_gantt(planes, lugares=4, por="lugar")

# %% [markdown] tags=["cubre-B-ganancia"]
# ### 3.4 ¿Diez veces más rápido que qué?
#
# Los pasos no son segundos. Un paso con más peticiones tarda algo más, porque calcula más tokens, pero la parte grande, leer
# los pesos, se paga una vez:
#
# ```text
#   segundos de un paso = a + b · peticiones en ese paso
# ```
#
# Con `a = 1` y `b = 0,1`, cuatro peticiones de 2 tokens tardan 4 · 2 · 1,1 = 8,8 s de una en una y 2 · 1,4 = 2,8 s juntas:
# 3,14 veces menos, no 4. Una **razón** siempre divide dos tiempos (o dos velocidades) del **mismo** trabajo, y cambia del
# todo según cuál sea el de abajo, la **base**.
#
# **Tu tarea:** dos funciones.
#
# - `segundos(filas, a, b)`: lo que tarda un plan. Un paso sin nadie no cuesta nada.
# - `razones(largos, lugares, a, b)`: con todas las peticiones presentes desde el paso 0, devuelve
#
#   | Clave | Divide |
#   |---|---|
#   | `estatico` | el tiempo de una en una entre el del lote estático |
#   | `continuo` | el tiempo de una en una entre el del lote continuo |
#   | `continuo_contra_estatico` | el tiempo del lote estático entre el del continuo |
#
#   De una en una es un lote estático de un lugar. Siempre hay alguna petición.


# %% nbgrader={"grade": false, "grade_id": "razones", "locked": false, "schema_version": 3, "solution": true, "task": false}
def segundos(filas, a, b):
    """Segundos de un plan: a por cada paso con alguien, y b por cada petición en cada paso."""
    ### BEGIN SOLUTION
    con_alguien = {paso for _, inicio, fin in filas for paso in range(inicio, fin)}
    return a * len(con_alguien) + b * sum(fin - inicio for _, inicio, fin in filas)
    ### END SOLUTION


def razones(largos, lugares, a, b):
    """Las tres razones, en un diccionario."""
    ### BEGIN SOLUTION
    una_a_una = segundos(estatico(largos, 1), a, b)
    en_lotes = segundos(estatico(largos, lugares), a, b)
    continuas = segundos(continuo(largos, lugares, [0] * len(largos)), a, b)
    return {
        "estatico": una_a_una / en_lotes,
        "continuo": una_a_una / continuas,
        "continuo_contra_estatico": en_lotes / continuas,
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_razones", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("razones")

# %%
a, b = COSTES.step_s, COSTES.token_s  # Llama 3 8B en una H100: ajuste de los pasos medidos en reports/gpu-h100.json
print(f"un paso cuesta {cifra(1000 * a, 2)} ms, y cada petición {cifra(1000 * b, 3)} ms más")
for lugares in (1, 4, 8, 16):
    r = razones(LARGOS, lugares, a, b)
    print(
        f"{cuenta(lugares, 'lugar', 'lugares'):>10}: estático {cifra(r['estatico'], 1):>4}×, continuo {cifra(r['continuo'], 1):>4}× (contra una a una); "
        f"continuo contra estático {cifra(r['continuo_contra_estatico'], 1)}×"
    )

# %% [markdown]
# El mismo planificador, la misma máquina y el mismo trabajo dan cifras muy distintas según la base. Y mira la última fila:
# con tantos lugares como peticiones, nadie espera un lugar y el lote estático es tan bueno como el continuo. La diferencia
# aparece cuando **hay cola**.
#
# ### 3.5 Tu planificador continuo
#
# Hasta aquí, planes en papel. En un motor nadie conoce los largos: hay que decidir sobre la marcha. Escribe la pieza que lo
# hace. Tu planificador **no toca el modelo**: dice qué se calcula y dónde se guarda, y le llegan los tokens.
#
# Cada turno son tres llamadas:
#
# | Método | Recibe o devuelve |
# |---|---|
# | `llega(id, prompt, max_nuevos)` | una petición nueva; `prompt` es una lista de tokens |
# | `paso()` | el lote: `[{"id": 7, "desde": 12, "tokens": [5, 9], "bloques": [3, 8]}]`; `[]` si no hay nada que hacer |
# | `recibe(salidas)` | `[{"id": 7, "token": 41, "fin": False}]`, una por elemento del lote; con `fin` la petición ha acabado |
#
# Un elemento del lote dice: «de la petición 7, calcula los tokens 5 y 9, que van en las posiciones 12 y 13, y guárdalos en sus
# bloques». La primera vez van **todos** los tokens del prompt (`desde` es 0): es el prefill. Después, solo el último que
# recibió: es el decode.
#
# La caché KV está partida en bloques de `tam_bloque` tokens. En este lab la reparte `Memoria`, que ya está escrita, de la
# manera más simple: al entrar, una petición **reserva** todo lo que podría llegar a ocupar, y lo devuelve al acabar. ¿Cuánto
# es? `len(prompt) + max_nuevos - 1` tokens: el último que sale no vuelve a entrar. Es prudente y desperdicia; el Lab 3 lo hace
# mejor.
#
# **Tu tarea:** completa los tres métodos de `PlanificadorContinuo`.
#
# - `llega`: pon la petición al final de la cola `self.espera`. Guarda de ella lo que vayas a necesitar.
# - `paso`: primero **entran** las que puedan, en orden de llegada; después devuelve un elemento por cada petición activa.
#   Una puede entrar si hay lugar (`max_peticiones`), si su prompt cabe en lo que queda del paso (`max_tokens`, contando un
#   token por cada una que ya estaba activa) y si `Memoria` tiene bloques. Si la primera no puede, **las demás esperan detrás**.
# - `recibe`: apunta el token de cada una. Las que acaban salen de `self.activas` y devuelven sus bloques.
#
# En este lab ningún prompt pasa de `max_tokens`: cabe entero en un paso.


# %% nbgrader={"grade": false, "grade_id": "planificador_continuo", "locked": false, "schema_version": 3, "solution": true, "task": false}
class Memoria:
    """Los bloques libres de la caché KV. Ya está escrita."""

    def __init__(self, cuantos, tam):
        self.tam, self.libres = tam, list(range(cuantos))

    def caben(self, tokens):
        """True si hay bloques libres para ese número de tokens."""
        return -(-tokens // self.tam) <= len(self.libres)

    def reserva(self, tokens):
        """Quita de los libres los bloques que ocupan esos tokens y los devuelve; pregunta antes si caben."""
        cuantos = -(-tokens // self.tam)
        dados, self.libres = self.libres[:cuantos], self.libres[cuantos:]
        return dados

    def devuelve(self, bloques):
        """Esos bloques vuelven a estar libres."""
        self.libres += bloques


class PlanificadorContinuo:
    """Decide en cada paso qué peticiones avanzan."""

    def __init__(self, limites):
        """limites: un diccionario con max_peticiones, max_tokens, num_bloques y tam_bloque."""
        self.limites = limites
        self.memoria = Memoria(limites["num_bloques"], limites["tam_bloque"])
        self.espera = []
        self.activas = []

    def llega(self, id, prompt, max_nuevos):
        """Una petición nueva se pone a la cola."""
        ### BEGIN SOLUTION
        maximo = len(prompt) + max_nuevos - 1
        self.espera.append({"id": id, "desde": 0, "tokens": list(prompt), "maximo": maximo})
        ### END SOLUTION

    def paso(self):
        """El lote de este paso: entran las que pueden y avanzan todas las activas."""
        ### BEGIN SOLUTION
        quedan = self.limites["max_tokens"] - len(self.activas)
        while self.espera and len(self.activas) < self.limites["max_peticiones"]:
            p = self.espera[0]
            if len(p["tokens"]) > quedan or not self.memoria.caben(p["maximo"]):
                break
            p["bloques"] = self.memoria.reserva(p["maximo"])
            quedan -= len(p["tokens"])
            self.activas.append(self.espera.pop(0))
        return [{clave: p[clave] for clave in ("id", "desde", "tokens", "bloques")} for p in self.activas]
        ### END SOLUTION

    def recibe(self, salidas):
        """Apunta el token de cada petición del lote; las que acaban dejan su lugar y sus bloques."""
        ### BEGIN SOLUTION
        nuevas = {salida["id"]: salida for salida in salidas}
        for p in list(self.activas):
            p["desde"] += len(p["tokens"])
            p["tokens"] = [nuevas[p["id"]]["token"]]
            if nuevas[p["id"]]["fin"]:
                self.activas.remove(p)
                self.memoria.devuelve(p["bloques"])
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_planificador_continuo", "locked": true, "points": 25, "schema_version": 3, "solution": false, "task": false}
comprobar("planificador_continuo")

# %% [markdown]
# ¿Cuánto gana? Con un **reloj virtual** no hay ruido: cada paso cuesta lo que costaría en la GPU de 3.4, y la base es atender
# una petición cada vez. La columna «en lotes» es **tu** planificador, pero solo se le entregan peticiones cuando el lote
# anterior terminó entero: así un lote continuo se vuelve estático.

# %%
continuas = reloj_virtual(PlanificadorContinuo)
en_lotes = reloj_virtual(partial(EnLotes, PlanificadorContinuo))
for carga in continuas:
    continua, lotes = cifra(continuas[carga], 1), cifra(en_lotes[carga], 1)
    print(f"{carga:>10}: continuo {continua:>5}×   en lotes {lotes:>5}×   (base: una cada vez)")

# %% [markdown]
# Con respuestas de largo parecido («cortas») casi empatan. Con largos mezclados, no.
#
# Y ahora el modelo de verdad. `Banco` carga SmolLM2 y ejecuta cada lote que pide **tu** planificador, con tus bloques. De una
# en una es el mismo planificador con un solo lugar: mismas operaciones, mismo modelo; solo cambia el lote. Al lado, el motor
# del curso, que además trae núcleos compilados.

# %%
voraz = SamplingParams(temperature=0.0, max_tokens=NUEVOS, ignore_eos=True)
banco = Banco(modelo)
una = banco.corre(PlanificadorContinuo, preguntas[:MUESTRA], NUEVOS, lugares=1)
todas = banco.corre(PlanificadorContinuo, preguntas, NUEVOS, lugares=PETICIONES)
llm = LLM(model=modelo.carpeta)
llm.generate(banco.ids(preguntas[:1]), voraz)  # calienta
antes = time.perf_counter()
salidas = llm.generate(banco.ids(preguntas), voraz)
motor_tok_s = PETICIONES * NUEVOS / (time.perf_counter() - antes)
iguales = sum(tuple(s.outputs[0].token_ids) == t for s, t in zip(salidas, todas.tokens, strict=True))
razon = cifra(todas.tok_s / una.tok_s, 1)
print(f"tu planificador, de una en una: {cifra(una.tok_s, 1)} tok/s")
print(f"tu planificador, {PETICIONES} a la vez: {cifra(todas.tok_s, 1)} tok/s, {razon}× de una en una")
print(f"el motor del curso, {PETICIONES} a la vez: {cifra(motor_tok_s, 1)} tok/s")
print(f"Respuestas con los mismos tokens que el motor: {iguales} de {PETICIONES}")
print(f"«{preguntas[0]}» → {banco.texto(todas.tokens[0]).strip()[:70]!r}")

# %% [markdown]
# ### 3.6 La cola: quién entra primero
#
# Entrar por orden de llegada es justo, pero no siempre es lo mejor: un prompt corto que llega detrás de uno larguísimo espera
# todo el prefill ajeno. Si entra primero **el más corto**, la espera media baja. Tiene una trampa: si no dejan de llegar
# cortos, el largo no entra nunca. Eso se llama **inanición**. La cura es **envejecer**: cuanto más lleva alguien esperando,
# más delante va.
#
# En nuestro motor la cola se ordena por un número, el **rango**, que se pide una sola vez, cuando la petición llega. La de
# menor rango entra antes; a igual rango, la que llegó antes. Parece que un rango fijo no puede envejecer, pero sí: basta con
# que el paso de llegada forme parte de él. Compara dos peticiones:
#
# ```text
#   rango = llegada + castigo(tokens del prompt)
#
#   larga:  llegó en el paso   0, castigo 200  →  200
#   corta:  llegó en el paso 100, castigo   5  →  105   entra antes
#   corta:  llegó en el paso 250, castigo   5  →  255   ya no la adelanta
# ```
#
# **Tu tarea:** implementa `rank(peticion)` de `Politica`. Usa `peticion.arrival_step` (los pasos que llevaba el motor cuando
# llegó) y `peticion.num_prompt_tokens` (de 1 a `MAX_PROMPT`). Debe cumplir tres cosas:
#
# 1. entre dos que llegan en el mismo paso, va delante la del prompt más corto;
# 2. **nadie adelanta** a otra que llegó `ESPERA` pasos antes o más, midan lo que midan;
# 3. una de 16 tokens o menos adelanta a una de 1024 o más que llegó hasta 100 pasos antes.
#
# La función `rangos` solo sirve para comprobarlo: no la cambies.


# %% nbgrader={"grade": false, "grade_id": "politica", "locked": false, "schema_version": 3, "solution": true, "task": false}
from types import SimpleNamespace

ESPERA, MAX_PROMPT = 256, 2048


class Politica:
    """El orden de la cola: primero las cortas, sin que ninguna espere sin fin."""

    def rank(self, peticion):
        """Un número por petición; la de menor rango entra antes."""
        ### BEGIN SOLUTION
        return peticion.arrival_step + ESPERA * peticion.num_prompt_tokens / MAX_PROMPT
        ### END SOLUTION


def rangos(peticiones, clase=Politica):
    """El rango de cada petición, escrita como {"arrival_step": paso, "num_prompt_tokens": tokens}."""
    politica = clase()
    return [politica.rank(SimpleNamespace(**p)) for p in peticiones]


# %% nbgrader={"grade": true, "grade_id": "prueba_politica", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false}
comprobar("politica")

# %% [markdown]
# Enchúfala en el motor de verdad. `lado_a_lado` lo ejecuta con tu política y con la suya (por orden de llegada), por turnos.
# Dos prompts largos llegan por delante de varios cortos y solo hay dos lugares.

# %%
PALABRAS = 60 if modelo.rapido else 240
largo = " ".join(" ".join(PROMPTS).split()[:PALABRAS])
cola = [f"Summarize this list of questions: {largo}", f"Translate this list of questions: {largo}", *preguntas[:6]]
OPCIONES = {"max_tokens": 4 if modelo.rapido else 16, "max_num_seqs": 2, "enable_prefix_caching": False}
con_politica = lado_a_lado(modelo, cola, {"sched.policy": Politica}, veces=1 if modelo.rapido else 3, **OPCIONES)
por_llegada = traza(modelo, cola, **OPCIONES)
print(f"espera media hasta el primer token, por orden de llegada: {cifra(espera_media(por_llegada), 2)} s")
print(f"espera media hasta el primer token, con tu política: {cifra(espera_media(con_politica.traza), 2)} s")
guarda("sched.policy", "Politica")
con_politica

# %% [markdown]
# El throughput casi no cambia: el trabajo es el mismo. Lo que cambia es **quién espera**. Los largos esperan más: siempre hay
# alguien que paga. (En modo rápido los largos no lo son tanto y cada cosa se mide una vez: con otros programas en marcha, el
# ruido puede dar la vuelta a los números.)
#
# ## 4 · Mira
#
# Tu planificador moviendo el modelo, con tres lugares y respuestas de distinto largo. Arriba, continuo; debajo, el mismo,
# alimentado por lotes.

# %%
TRES = [max(2, n * NUEVOS // 60) for n in LARGOS[:PETICIONES]]
mias = {
    "continuo": banco.corre(PlanificadorContinuo, preguntas, TRES, lugares=3),
    "en lotes": banco.corre(partial(EnLotes, PlanificadorContinuo), preguntas, TRES, lugares=3),
}
for nombre, carrera in mias.items():
    print(f"{nombre:>8}: {carrera.pasos} pasos, {cifra(carrera.tok_s, 1)} tok/s")
ver_gantt({nombre: list(carrera.filas) for nombre, carrera in mias.items()}, lugares=3, por="lugar")

# %% [markdown] tags=["corta", "cubre-A-receta"]
# Lo mismo en el motor del curso, que sabe hacer las dos cosas (`batching="static"` y `"continuous"`), con tiempos de verdad.
# Mira los lugares vacíos y, sobre todo, cuándo recibe cada petición su primer token. Con *streaming* cada token se envía en
# cuanto sale: batching continuo y streaming juntos son la primera línea de la receta de los apuntes. (Los pasos son exactos;
# los segundos se miden una vez, y otros programas en marcha los mueven.) El **TTFT** es lo que tarda el primer token de una
# petición, y la **ITL**, lo que pasa entre dos de sus tokens. Un **hueco de decode** es una ITL mucho mayor que las demás: en
# ese paso entró alguien, y su prefill retrasó a quien ya escribía.

# %% tags=["corta"]
LARGOS_REALES = [SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True) for n in (2, 12, 3, 2, 10, 2)]
seis = list(PROMPTS[:6])
trazas = {
    "estático": traza(modelo, seis, params=LARGOS_REALES, max_num_seqs=2, batching="static"),
    "continuo": traza(modelo, seis, params=LARGOS_REALES, max_num_seqs=2),
}
for nombre, t in trazas.items():
    print(f"{nombre:>8}: {len(t['steps'])} pasos, espera media hasta el primer token {cifra(espera_media(t), 2)} s")
ver_gantt(trazas, lugares=2, por="lugar")

# %% [markdown]
# ¿Cuántos lugares conviene tener? Mide el throughput con tu planificador y 1, 2, 4… lugares, siempre con las mismas
# peticiones.

# %%
por_lugares, pasos = {}, {}
for n in [2**i for i in range(6) if 2**i <= PETICIONES]:
    carrera = banco.corre(PlanificadorContinuo, preguntas, NUEVOS, lugares=n)
    por_lugares[n], pasos[n] = carrera.tok_s, carrera.pasos
ideal = {n: por_lugares[1] * pasos[1] / pasos[n] for n in pasos}
curva(
    {"tu planificador": por_lugares, "si un paso costara siempre lo mismo": ideal},
    "lugares",
    "tok/s",
    "Throughput según los lugares del lote",
)

# %% [markdown]
# La curva sube y se dobla. Con pocos lugares, un paso tarda casi lo mismo lleve las peticiones que lleve: manda leer los pesos.
# Cuando el cálculo de todos esos tokens pesa más que la lectura, cada lugar nuevo aporta menos. En una GPU ese punto llega
# mucho más tarde (Lab 1, 3.8), y casi siempre la memoria de la caché KV se acaba antes.

# %% [markdown] tags=["corta", "cubre-B-ej2"]
# ## 5 · Compara
#
# El experimento de los apuntes: cien peticiones, de una en una y todas a la vez, en varios sistemas. Las filas en vivo usan
# menos peticiones si estás en modo rápido; las grabadas dicen cuándo y dónde se grabaron. El lote de transformers es
# **estático y con relleno**: las respuestas cortas se alargan hasta la más larga del lote.

# %% tags=["corta"]
cien = compara("una_contra_cien", modelo)
cien

# %% [markdown] tags=["errata-15", "cubre-B-ganancia"]
# **Errata 15.** Los apuntes dicen: «con una sola petición, vLLM rinde como Hugging Face», y «vLLM da de 5 a 20 veces» la
# `pipeline`. Ya puedes comprobar las dos frases, con su base delante. Las dos cifras de cada línea salen del mismo origen.

# %%
frases = {
    "minillm, una a una, contra transformers, una a una": (("minillm", "una a una"), ("transformers", "una a una")),
    "vLLM, una a una, contra transformers, una a una": (("vLLM", "una a una"), ("transformers", "una a una")),
    "vLLM, todas a la vez, contra transformers, una a una": (("vLLM", "todas a la vez"), ("transformers", "una a una")),
    "vLLM, todas a la vez, contra transformers en lote": (
        ("vLLM", "todas a la vez"),
        ("transformers", "lote con relleno"),
    ),
}
for frase, (sistema, base) in frases.items():
    razon = cien.razon(sistema, base, "tok_s")
    print(f"{frase}: " + ("no hay las dos medidas" if razon is None else f"{cifra(razon, 1)}×"))

# %% [markdown]
# Una petición sola no tiene compañeras de lote: la diferencia entre dos sistemas no viene del batching, sino de cuánto tarda
# cada uno en dar un paso. Y «5 a 20» es cierto o falso según la base y la máquina.
#
# Ahora el mando que decide los lugares: `batch_size` en transformers, `--max-num-seqs` en vLLM, ranuras en llama.cpp (la
# tabla los llama «plazas»).

# %%
compara("barrido_max_num_seqs", modelo)

# %% [markdown] tags=["corta", "cubre-B-error-uno"]
# ## 6 · Rompe
#
# ### 6.1 El cliente que espera
#
# El servidor más rápido del mundo no puede hacer lotes si nadie le da con qué. Este cliente pide, espera la respuesta entera
# y pide la siguiente. Es el error «throughput bajo» de los apuntes, y es muy frecuente.

# %% tags=["corta"]
motor = LLM(model=modelo.carpeta)
sirve(motor, preguntas[:1], 2)
velocidad = {}
for nombre, a_la_vez in (("de una en una", False), ("todas a la vez", True)):
    medidas = sirve(motor, preguntas if a_la_vez else preguntas[:MUESTRA], NUEVOS, a_la_vez=a_la_vez)
    reloj = max(m["fin"] for m in medidas) - min(m["inicio"] for m in medidas)
    velocidad[nombre] = sum(m["tokens"] for m in medidas) / reloj
    print(f"{nombre:>15}: {cifra(velocidad[nombre], 1):>7} tok/s")
razon = velocidad["todas a la vez"] / velocidad["de una en una"]
anota("L02", "a la vez contra una a una", mi_prediccion()["a_la_vez"], razon, "×", modelo.nombre)
print(f"razón: {cifra(razon, 1)}×; tú esperabas {cifra(mi_prediccion()['a_la_vez'], 1)}×")

# %% [markdown]
# ### 6.2 El servidor que parece concurrente
#
# Aquí las peticiones sí se lanzan todas a la vez, con `asyncio`. Pero la función que las atiende llama al motor y **no suelta
# el bucle de eventos** hasta que vuelve: las demás ni empiezan. El lote vuelve a ser de una. Muchos servidores de ejemplo
# tienen este error; el Lab 9 lo busca y lo arregla.


# %%
async def atiende(pregunta):
    return motor.chat([{"role": "user", "content": pregunta}], voraz)  # bloquea: nadie más avanza


async def todas_a_la_vez():
    return await asyncio.gather(*(atiende(p) for p in preguntas[:MUESTRA]))


antes = time.perf_counter()
corre(todas_a_la_vez())
bloqueado = MUESTRA * NUEVOS / (time.perf_counter() - antes)
print(f"asyncio que bloquea: {cifra(bloqueado, 1)} tok/s · de una en una: {cifra(velocidad['de una en una'], 1)} tok/s")

# %% [markdown]
# ### 6.3 Una política que mata de hambre
#
# «El más corto primero», sin envejecer, en la cola de tu política: llega una petición de 2000 tokens y después, sin parar, una
# corta por paso. En este simulador una petición ocupa su lugar un paso por cada 32 tokens de prompt: una corta (64), dos. Con
# dos lugares, las cortas bastan para llenarlos.


# %%
class MasCortaPrimero:
    def rank(self, peticion):
        return peticion.num_prompt_tokens


LLEGAN = [(0, 64), (0, 64), (0, 2000), *((paso, 64) for paso in range(1, 600))]
for nombre, clase in (("sin envejecer", MasCortaPrimero), ("tu política", Politica)):
    espera = esperas(partial(rangos, clase=clase), LLEGAN, lugares=2)[2]
    print(f"{nombre:>13}: la larga " + ("no entró en 599 pasos" if espera is None else f"esperó {espera} pasos"))

# %% [markdown] tags=["errata-9", "cubre-C-batching"]
# ### 6.4 Errata: 50, 300 y 500 tokens por segundo
#
# Los apuntes dan tres cifras: 50 tok/s sin lote, 300 con lote estático de 8 y 500 con batching continuo. Léelas como razones:
# `300 / 50` y `500 / 300`. No dicen el modelo, ni la máquina, ni las longitudes. ¿Importa? Prueba la **misma** máquina con
# cuatro cargas, 8 lugares y tu función `razones`:

# %%
CARGAS = {
    "todas iguales": [32] * 32,
    "de 16 a 48": [16 + i % 33 for i in range(0, 320, 10)],
    "una larga de cada ocho": [120 if i % 8 == 0 else 8 for i in range(32)],
    "una sola petición": [32],
}
print(f"{'carga':>22} │ estático contra una a una │ continuo contra estático")
for nombre, largos in CARGAS.items():
    r = razones(largos, 8, a, b)
    print(f"{nombre:>22} │ {cifra(r['estatico'], 1):>24}× │ {cifra(r['continuo_contra_estatico'], 1):>23}×")
print(f"{'los apuntes':>22} │ {cifra(300 / 50, 1):>24}× │ {cifra(500 / 300, 1):>23}×")

# %% [markdown]
# El segundo número va de 1 a varias veces **sin cambiar ni el motor ni la máquina**: lo decide cuánto se parecen las
# longitudes. Las cifras de los apuntes no son falsas ni ciertas; les falta la carga. Por eso una razón se escribe entera: de
# qué, contra qué, con qué carga y en qué equipo.

# %% [markdown]
# ## 7 · Explica
#
# Responde en la celda siguiente con tus números delante (15 puntos, los lee tu docente):
#
# 1. ¿Por qué el lote continuo no deja lugares vacíos mientras hay cola, y el estático sí? ¿Por qué aparecen al final también en
#    el continuo? Usa los dos planes de 3.3. (4)
# 2. Tu curva de throughput según los lugares se separa de la recta. ¿Por qué? ¿Qué pasaría en una GPU? (4)
# 3. Compara tus dos predicciones con lo medido y da una causa de cada diferencia. (3)
# 4. Alguien cambia la cola a «el más corto primero» y enseña que la espera media bajó a la mitad. ¿Qué más le pides medir y
#    por qué? (4)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explica", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
#
# 1. En el estático un lote dura lo que su petición más larga; con más lugares es más probable que haya una larga, y todos los
#    demás lugares la esperan (2). En el continuo un lugar que queda libre se ocupa en el paso siguiente: solo hay lugares
#    vacíos cuando no queda cola (2).
# 2. Un paso cuesta una parte fija, leer los pesos, y otra que crece con los tokens (2). Al subir los lugares la parte que crece
#    acaba mandando y cada lugar aporta menos (1). En una GPU el cálculo es mucho más rápido frente a la memoria: la curva se
#    dobla más tarde, o se acaba antes la memoria de la caché KV (1).
# 3. Respuesta abierta: que compare los dos pares de números (1) y dé una causa concreta de cada uno (2): pensar en la media y
#    no en la más larga del lote; suponer que un paso cuesta siempre lo mismo.
# 4. La cola de la espera: p95 y máximo, y la de los prompts largos por separado (2), porque la media baja aunque unas pocas
#    no entren nunca (1). Y la carga: con pocas peticiones no hay cola y la política no cambia nada (1).
#
# ### END SOLUTION

# %% [markdown] tags=["corta"]
# ## 8 · Autoevaluación
#
# Piensa tu respuesta y abre cada opción.
#
# **A. Ocho lugares, ocho peticiones que llegan a la vez y respuestas de 32 tokens exactos. ¿Cuánto gana el lote continuo al
# estático?**
#
# <details><summary>Ocho veces</summary>No. Ocho veces (o algo menos) es lo que gana cualquiera de los dos a ir de una en
# una: cambiaste la base.</details>
# <details><summary>Nada</summary>Correcto. Nadie acaba antes que los demás y no hay cola: los dos planes son el mismo.</details>
# <details><summary>Depende de la GPU</summary>No. La GPU cambia los segundos de cada paso, pero los pasos son los mismos en
# los dos planes.</details>
#
# **B. ¿Qué hace el planificador continuo cuando una petición recibe su último token?**
#
# <details><summary>Deja libres su lugar y sus bloques, y en el paso siguiente puede entrar otra</summary>Correcto. Esa es toda
# la idea: se decide en cada paso.</details>
# <details><summary>Rellena su lugar hasta que acaben las demás</summary>No. Eso es el lote con relleno: calcula tokens que
# nadie pidió.</details>
# <details><summary>Vuelve a formar el lote desde cero</summary>No. Las demás siguen donde iban, con su caché KV: nadie
# recalcula nada.</details>
#
# **C. La primera de la cola no cabe en la memoria y la segunda sí. ¿Por qué tu planificador no deja pasar a la segunda?**
#
# <details><summary>Porque no sabría dónde guardar sus bloques</summary>No. Los bloques de la segunda caben: eso dice la
# pregunta.</details>
# <details><summary>Porque daría otro texto</summary>No. El texto de una petición no depende de quién la acompaña.</details>
# <details><summary>Porque si siempre pasa alguien pequeño, la grande puede no entrar nunca</summary>Correcto. Es la misma
# inanición de 6.3, esta vez por memoria.</details>
#
# **D. «Con batching continuo vamos 10 veces más rápido.» ¿Qué falta?**
#
# <details><summary>Nada: es una medida</summary>No. Sin la base no se sabe si son 10 veces más que ir de una en una o que un
# buen lote estático.</details>
# <details><summary>La base, la carga y el equipo</summary>Correcto. En 6.4 la misma máquina da cifras muy distintas con solo
# cambiar las longitudes.</details>
# <details><summary>Repetirla cien veces</summary>No. Repetir quita ruido, pero cien repeticiones sin base siguen sin decir
# nada.</details>
