# %% [markdown] tags=["cubre-B-tarea"]
# # Proyecto P · Sirve y demuéstralo
#
# Vas a servir un modelo de lenguaje a cincuenta clientes a la vez y a demostrar con números qué ganas. Todo ocurre en
# tu equipo: sin GPU y sin red. Donde se habla de una GPU o de vLLM, son medidas ya tomadas y guardadas.
#
# **Al terminar puedes…**
#
# | Resultado de aprendizaje | Puntos | Comprobación |
# |---|---|---|
# | calcular p50 y p95 sin engañarte | 4 | `percentil` |
# | separar throughput y TTFT (tiempo hasta el primer token) | 4 | `resume` |
# | planificar por iteración con memoria paginada | 25 + 8 | `planificador`, `reloj_real` |
# | escribir un cliente concurrente con `openai` | 6 | `cliente` |
# | pedir JSON garantizado y comprobarlo con rigor | 4 + 4 | `cuerpo_json`, `es_valida` |
# | garantizarlo tú, con una máscara de tokens | 18 | `mascara` |
# | servir el mismo trabajo con vLLM | 10 | `orden_vllm` |
# | defender un «≥ 5×» nombrando la base | 2 + 5 + 10 | `prediccion`, `veredicto`, `explica` |
#
# **Criterio de aceptación:** al menos **5 veces** el throughput de la `pipeline` de Hugging Face con los prompts **de
# uno en uno**, y **100 %** de respuestas JSON válidas. Al lado se informa siempre la razón contra la misma `pipeline`
# con todos los prompts en un solo lote. Ese criterio lo cumple el servidor entero y lo juzga tu `veredicto` (sección
# 8). A **tu** planificador se le piden otros dos 5×, cada uno con su base: el de 3.4, con un reloj virtual, y el del
# reloj real.
#
# **Tiempo:** 240 minutos. **Puntos:** 100 (90 automáticos y 10 que lee tu docente).
#
# **Cómo se corrige.** Aquí ves las comprobaciones **públicas**. Al corregir se usan otras que no ves, con otros datos
# para cada persona. Todo lo que necesite una solución va en su celda, o en celdas tuyas con funciones y clases: lo que
# una celda añadida *ejecute* no cuenta.
#
# > El modelo es pequeño (SmolLM2, 135 millones de parámetros) y responde mejor en inglés: por eso los prompts están en
# > inglés. Aquí se estudia el motor, no el ingenio del modelo.

# %% [markdown]
# ## Preparación
#
# Ejecuta la celda y lee qué modelo te toca. Si ves «modelo diminuto», el cuaderno funciona igual, pero las velocidades
# no sirven como medida. Tampoco en modo rápido (`MINILAB_RAPIDO=1`), que lleva menos prompts y respuestas más cortas.

# %% nbgrader={"grade": false, "grade_id": "preparacion", "locked": true, "schema_version": 3, "solution": false, "task": false}
import asyncio
import json
import time
import warnings

warnings.filterwarnings("ignore")

import jsonschema
from IPython.display import display
from openai import AsyncOpenAI, BadRequestError, OpenAI

from minilab.asincrono import corre
from minilab.bitacora import anota
from minilab.comprobar import comprobar
from minilab.cuaderno import prepara
from minilab.graficas import barras, linea_de_tiempo
from minilab.informe import lee_demo
from minilab.referencia import mide_bases
from minilab.servidor import Servidor
from minilab.vistas.cifras import cifra
from minillm_serve import LLM, SamplingParams
from minillm_serve.bench.prompts import GUIDED_MAX_TOKENS, PROMPTS, guided_cases

modelo = prepara("P")
prompts = list(PROMPTS[:12] if modelo.rapido else PROMPTS)
NUEVOS = 16 if modelo.rapido else 64
MUESTRA = 2 if modelo.rapido else 4
CASOS_JSON = 10 if modelo.rapido else 50

print(f"{len(prompts)} prompts, {NUEVOS} tokens nuevos por respuesta, {CASOS_JSON} respuestas JSON.")

# %% [markdown]
# ## 1 · Idea
#
# Una petición pasa por dos fases:
#
# - **Prefill**: el motor lee todo el prompt de una vez y guarda sus claves y valores en la **caché KV**. Es cálculo
#   denso: usa bien el procesador.
# - **Decode**: produce un token por paso y petición. Con una sola petición, cada paso lee **todos** los pesos (y la
#   caché KV) para calcular un solo token: manda el ancho de banda de la memoria.
#
# Si en cada paso avanzan cincuenta peticiones, los pesos se leen una vez y producen cincuenta tokens. De ahí sale casi
# toda la ganancia. El **planificador** decide en cada paso quién avanza: una petición nueva entra sin esperar a que el
# lote termine, y una que acaba deja su sitio. Eso es el *batching continuo*.
#
# Dos medidas, y dos formas de resumir la segunda:
#
# | Nombre | Pregunta que responde | Unidad |
# |---|---|---|
# | throughput | ¿cuántos tokens nuevos produce el sistema entero? | tok/s |
# | TTFT | ¿cuánto espera una persona hasta ver el primer token? | s |
# | p50 del TTFT | ¿qué espera no supera la mitad de las peticiones? | s |
# | p95 del TTFT | ¿qué espera no supera el 95 %? Las demás tienen peor suerte | s |

# %% [markdown]
# ## 2 · Predice
#
# Antes de medir, escribe tu número. ¿Cuántas veces más tokens por segundo esperas del servidor que de la `pipeline`…
#
# - `contra_una_a_una`: …con los prompts de uno en uno?
# - `contra_lote`: …con todos los prompts en un único lote con relleno?
#
# Cualquier número mayor que 0 vale. Lo útil es compararlo después con lo que midas.


# %% nbgrader={"grade": false, "grade_id": "prediccion", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mi_prediccion():
    """Devuelve {"contra_una_a_una": número, "contra_lote": número}."""
    ### BEGIN SOLUTION
    return {"contra_una_a_una": 10.0, "contra_lote": 1.5}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_prediccion", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
comprobar("prediccion")

# %% [markdown]
# ## 3 · Construye
#
# ### 3.1 Enciende el motor
#
# `LLM` carga el modelo dentro de este proceso, sin servidor. Sirve para trabajos por lotes: le das una lista y devuelve
# la lista de respuestas.

# %% tags=["corta"]
llm = LLM(model=modelo.carpeta)
charlas = [[{"role": "user", "content": p}] for p in prompts[:3]]
for prompt, salida in zip(prompts, llm.chat(charlas, SamplingParams(max_tokens=NUEVOS, temperature=0.0)), strict=False):
    print(f"▸ {prompt}\n  {salida.outputs[0].text.strip()[:160]}\n")
llm.close()

# %% [markdown]
# ### 3.2 Un percentil honesto
#
# La media esconde las esperas largas. Implementa `percentil(valores, p)` con interpolación lineal:
#
# 1. ordena los valores;
# 2. la posición es `(n − 1) · p / 100`;
# 3. si cae entre dos valores, interpola entre ellos.
#
# Una lista vacía no tiene percentiles: lanza `ValueError`.


# %% nbgrader={"grade": false, "grade_id": "percentil", "locked": false, "schema_version": 3, "solution": true, "task": false}
def percentil(valores, p):
    """Percentil p (de 0 a 100) de una lista de números, con interpolación lineal.

    >>> percentil([1.0, 2.0, 3.0, 4.0], 50)
    2.5
    """
    ### BEGIN SOLUTION
    if not valores:
        raise ValueError("no hay valores")
    orden = sorted(valores)
    posicion = (len(orden) - 1) * p / 100
    abajo = int(posicion)
    arriba = min(abajo + 1, len(orden) - 1)
    return orden[abajo] + (orden[arriba] - orden[abajo]) * (posicion - abajo)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_percentil", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
comprobar("percentil")

# %% [markdown] tags=["cubre-A-demo"]
# ### 3.3 Throughput y TTFT
#
# Cada petición medida es un diccionario:
#
# `{"inicio": s, "primer_token": s, "fin": s, "tokens": int}`
#
# Implementa `resume(peticiones)`. Cuidado con el error clásico: **no sumes las velocidades de cada petición**. El
# throughput del sistema es el total de tokens entre el tiempo de reloj, desde el `inicio` más temprano hasta el `fin`
# más tardío: la lista no tiene por qué venir en orden. El TTFT de una petición es `primer_token - inicio`.


# %% nbgrader={"grade": false, "grade_id": "resume", "locked": false, "schema_version": 3, "solution": true, "task": false}
def resume(peticiones):
    """Devuelve {"tok_s": tokens por segundo, "ttft_p50": s, "ttft_p95": s}. Usa tu función percentil."""
    ### BEGIN SOLUTION
    reloj = max(p["fin"] for p in peticiones) - min(p["inicio"] for p in peticiones)
    ttft = [p["primer_token"] - p["inicio"] for p in peticiones]
    return {
        "tok_s": sum(p["tokens"] for p in peticiones) / reloj,
        "ttft_p50": percentil(ttft, 50),
        "ttft_p95": percentil(ttft, 95),
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_resume", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
comprobar("resume")

# %% [markdown]
# ### 3.4 El planificador, tuyo
#
# Escribe la pieza que decide en cada paso quién avanza. El modelo **no está en tu proceso**: tú dices qué se calcula y
# en qué bloques de memoria; quien corrige tiene el modelo y el reloj, y te devuelve los tokens. Así nadie puede
# inventarse ni la respuesta ni la velocidad.
#
# En cada turno, quien corrige llama a `llega` tantas veces como peticiones hayan llegado (ninguna, una o muchas),
# después a `paso` y, si el lote no está vacío, a `recibe`, aunque la lista de salidas lo esté:
#
# | Método | Recibe o devuelve |
# |---|---|
# | `llega(id, prompt, max_nuevos)` | una petición nueva; `prompt` es una lista de ids de token, y dará `max_nuevos` como mucho |
# | `paso()` | el lote: `[{"id": 7, "desde": 12, "tokens": [5, 9], "bloques": [3, 8]}]`; `[]` si no hay nada que hacer |
# | `recibe(salidas)` | `[{"id": 7, "token": 41, "fin": False}]`; con `fin` la petición ha terminado, y ese token es el último |
#
# Los tokens **conocidos** de una petición son su prompt y los que ya recibiste. Cada elemento del lote calcula unos
# cuantos: `tokens` son los conocidos que ocupan las posiciones `desde`, `desde + 1`… (todos los que faltan, o un
# trozo), y `bloques` es la tabla de la petición **desde la posición 0**: la posición `p` vive en `bloques[p //
# tam_bloque]`. En el ejemplo, con `tam_bloque` 8, se calculan las posiciones 12 y 13, que viven en el bloque 8; las
# ocho primeras están en el 3. Cuando un elemento llega al último token conocido, el modelo da el siguiente, y lo oyes
# en `recibe`.
#
# Un prompt puede ser más largo que el `max_tokens` del lote: se calcula por trozos, en varios pasos. Quién termina lo
# decide el modelo (da su token final, o se cumple `max_nuevos`): espera siempre a `fin`.
#
# Las reglas, que se comprueban en cada paso:
#
# - como mucho `max_peticiones` elementos y `max_tokens` tokens por lote; una petición aparece una sola vez;
# - lo anterior a `desde` ya está calculado en esos bloques: si otra petición los ha pisado, no vale;
# - nadie escribe en un bloque que otra petición del lote usa. **Compartir** un bloque lleno con el mismo prefijo sí
#   vale, y ahorra memoria y cálculo: una petición puede empezar con `desde > 0`;
# - se empieza por orden de llegada: si la primera de la cola no cabe, las demás esperan detrás. Si a una activa le
#   falta sitio, se desaloja a la última que entró: pierde sus bloques, conserva los tokens que ya dio y más tarde sus
#   claves y valores se calculan otra vez desde 0 (o desde donde acabe un prefijo compartido). Toda petición cabe sola
#   en la memoria; el último token que da no llega a ocupar sitio.
#
# **El criterio:** al menos 5 veces el throughput de atender las peticiones **de una en una** (el prompt en un paso,
# después un token por paso, sin compartir nada), en cinco cargas distintas (cortas, largas, mezcladas, a ráfagas y
# muchas con el mismo prefijo en una memoria pequeña), con el mismo texto. Además: al terminar todas, una petición que
# necesita todos los bloques los encuentra libres, y nadie ve a más de `max_peticiones` llegadas después recibir antes
# su primer token. Por debajo de 5× los puntos bajan poco a poco, hasta cero en 1×.
#
# El reloj es **virtual**: un paso cuesta `a + b · tokens nuevos + c · tokens leídos` (los leídos son las posiciones
# anteriores a `desde`, sumadas elemento a elemento), con lo que cuesta Llama 3 8B en una GPU H100: a = 5,19 ms,
# b = 20,6 µs y c = 0,043 µs. Tu Python no cuenta aquí. Después tu mismo planificador mueve el modelo real con un reloj
# de verdad, que sí lo cuenta.
#
# El esqueleto es una ayuda: se comprueban `llega`, `paso` y `recibe`, y lo de dentro puedes organizarlo de otro modo.
# En él, `p` es lo que tú guardes de una petición (un diccionario, o una clase pequeña en la misma celda); `prefijo_de`
# va del bloque a los tokens que guarda contando desde el principio del texto, y `bloque_de` es el camino contrario. Un
# bloque libre conserva lo que guardaba hasta que alguien lo toma: toma primero el que lleva más tiempo libre.


# %% nbgrader={"grade": false, "grade_id": "planificador", "locked": false, "schema_version": 3, "solution": true, "task": false}
class Bloques:
    """El reparto de la memoria: qué bloques están libres, cuántas peticiones usan cada uno y qué prefijo guardan."""

    def __init__(self, cuantos, tam):
        self.tam = tam
        self.libres = list(range(cuantos))
        self.usos = [0] * cuantos
        self.prefijo_de = {}
        self.bloque_de = {}

    def toma(self, cuantos):
        """Quita de los libres ese número de bloques y los devuelve; lo que guardaban deja de valer."""
        ### BEGIN SOLUTION
        tomados, self.libres = self.libres[:cuantos], self.libres[cuantos:]
        for bloque in tomados:
            self.usos[bloque] = 1
            self.bloque_de.pop(self.prefijo_de.pop(bloque, None), None)
        return tomados
        ### END SOLUTION

    def suelta(self, bloques):
        """Una petición deja sus bloques; el que ya no usa nadie vuelve a los libres con lo que guarda."""
        ### BEGIN SOLUTION
        for bloque in reversed(bloques):
            self.usos[bloque] -= 1
            if self.usos[bloque] == 0:
                self.libres.append(bloque)
        ### END SOLUTION

    def anota(self, tokens, bloques):
        """Apunta qué prefijo guarda cada bloque lleno; tokens son los ya calculados."""
        ### BEGIN SOLUTION
        for i in range(len(tokens) // self.tam):
            prefijo = tuple(tokens[: (i + 1) * self.tam])
            if bloques[i] not in self.prefijo_de and prefijo not in self.bloque_de:
                self.prefijo_de[bloques[i]] = prefijo
                self.bloque_de[prefijo] = bloques[i]
        ### END SOLUTION

    def busca(self, tokens):
        """Los bloques que ya guardan el principio de tokens; siempre deja al menos un token por calcular."""
        ### BEGIN SOLUTION
        hallados = []
        for fin in range(self.tam, len(tokens), self.tam):
            bloque = self.bloque_de.get(tuple(tokens[:fin]))
            if bloque is None:
                break
            hallados.append(bloque)
        return hallados
        ### END SOLUTION

    def comparte(self, bloques):
        """Suma una petición a esos bloques."""
        ### BEGIN SOLUTION
        for bloque in bloques:
            if self.usos[bloque] == 0:
                self.libres.remove(bloque)
            self.usos[bloque] += 1
        ### END SOLUTION


class Planificador:
    """Batching continuo con memoria por bloques: en cada paso decide quién avanza y con qué bloques."""

    def __init__(self, limites):
        """limites: max_peticiones, max_tokens, num_bloques y tam_bloque."""
        self.limites = limites
        self.bloques = Bloques(limites["num_bloques"], limites["tam_bloque"])
        self.espera = []
        self.activas = []
        self.lote = []

    def llega(self, id, prompt, max_nuevos):
        """Una petición nueva se pone a la cola."""
        ### BEGIN SOLUTION
        self.espera.append({"id": id, "tokens": list(prompt), "hechos": 0, "bloques": []})
        ### END SOLUTION

    def paso(self):
        """El lote de este paso: primero siguen las activas, por antigüedad; después entran las que esperan."""
        ### BEGIN SOLUTION
        self.lote, libre = [], self.limites["max_tokens"]
        for p in list(self.activas):
            libre -= self.avanza(p, libre)
        while libre > 0 and self.espera and len(self.activas) < self.limites["max_peticiones"]:
            if not self.admite(self.espera[0]):
                break
            self.activas.append(self.espera.pop(0))
            libre -= self.avanza(self.activas[-1], libre)
        return self.lote
        ### END SOLUTION

    def admite(self, p):
        """Si cabe entera (con un token más si hay otras activas), comparte los bloques de su prefijo y devuelve True."""
        ### BEGIN SOLUTION
        comunes = self.bloques.busca(p["tokens"])
        faltan = self.cuantos(len(p["tokens"]) + (1 if self.activas else 0)) - len(comunes)
        if faltan > len(self.bloques.libres) - sum(self.bloques.usos[b] == 0 for b in comunes):
            return False
        self.bloques.comparte(comunes)
        p["bloques"], p["hechos"] = comunes, len(comunes) * self.bloques.tam
        return True
        ### END SOLUTION

    def avanza(self, p, libre):
        """Pone p en el lote con los tokens que quepan; devuelve cuántos (0 si no le toca o la han desalojado)."""
        ### BEGIN SOLUTION
        tokens = p["tokens"][p["hechos"] : p["hechos"] + libre]
        if not tokens or p not in self.activas or not self.hace_sitio(p, p["hechos"] + len(tokens)):
            return 0
        self.lote.append({"id": p["id"], "desde": p["hechos"], "tokens": tokens, "bloques": list(p["bloques"])})
        return len(tokens)
        ### END SOLUTION

    def hace_sitio(self, p, longitud):
        """Da bloques a p; si faltan, desaloja a la última que entró. False si la desalojada es p."""
        ### BEGIN SOLUTION
        faltan = self.cuantos(longitud) - len(p["bloques"])
        while faltan > len(self.bloques.libres):
            ultima = self.activas[-1]
            self.desaloja(ultima)
            if ultima is p:
                return False
        p["bloques"] += self.bloques.toma(max(0, faltan))
        return True
        ### END SOLUTION

    def desaloja(self, p):
        """p deja sus bloques, no sus tokens, y vuelve la primera a la cola: se calculará de nuevo."""
        ### BEGIN SOLUTION
        self.activas.remove(p)
        self.bloques.suelta(p["bloques"])
        p["bloques"], p["hechos"] = [], 0
        self.espera.insert(0, p)
        ### END SOLUTION

    def recibe(self, salidas):
        """Apunta lo que el paso calculó y el token nuevo de cada petición; las que terminan dejan sus bloques."""
        ### BEGIN SOLUTION
        hechos = {e["id"]: e["desde"] + len(e["tokens"]) for e in self.lote}
        nuevos = {s["id"]: s for s in salidas}
        for p in [p for p in self.activas if p["id"] in hechos]:
            p["hechos"] = hechos[p["id"]]
            self.bloques.anota(p["tokens"][: p["hechos"]], p["bloques"])
            if salida := nuevos.get(p["id"]):
                p["tokens"].append(salida["token"])
                if salida["fin"]:
                    self.activas.remove(p)
                    self.bloques.suelta(p["bloques"])
        ### END SOLUTION

    def cuantos(self, longitud):
        """Bloques que ocupan longitud posiciones."""
        return -(-longitud // self.limites["tam_bloque"])


# %% nbgrader={"grade": true, "grade_id": "prueba_planificador", "locked": true, "points": 25, "schema_version": 3, "solution": false, "task": false}
comprobar("planificador")

# %% [markdown]
# El mismo planificador, con el **reloj real**: al corregir mueve SmolLM2 en la CPU, alternado con la `pipeline` una a
# una, nueve veces cada uno (hasta quince, mientras no quede claro si llega). El tiempo va de la primera llamada al
# último token, con tu Python dentro. Se puntúa la mediana de las razones, en línea recta entre tres puntos: 1× no vale
# nada, 3× vale el 60 % y desde 5× cuentan todos los puntos. Aquí lo ensayas con reloj virtual: la nota sale al
# corregir.

# %% nbgrader={"grade": true, "grade_id": "prueba_reloj_real", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
comprobar("reloj_real")

# %% [markdown]
# ### 3.5 Levanta el servidor
#
# El mismo motor, detrás de una API compatible con la de OpenAI. En una terminal sería `minillm serve smollm2-135m`;
# aquí lo arranca `Servidor` en un puerto libre y espera a que `/health` responda.

# %% tags=["corta"]
servidor = Servidor(modelo.carpeta, "--served-model-name", modelo.nombre)
with OpenAI(base_url=servidor.url, api_key="sin-clave") as cliente:
    nombre = cliente.models.list().data[0].id
print(f"Listo: {servidor.url} sirve {nombre}")

# %% [markdown]
# ### 3.6 Un cliente que pregunta a la vez
#
# Escribe dos corrutinas:
#
# - `mide_una` envía **una** petición en streaming y anota los tiempos con `reloj()`;
# - `lanza_todas` pone **todas** en vuelo a la vez y devuelve las medidas en el orden de los prompts.
#
# La petición lleva `model`, `messages` (un mensaje `user`), `max_tokens`, `temperature=0`, `stream=True`,
# `stream_options={"include_usage": True}` y `extra_body={"ignore_eos": True}` (así todas las respuestas miden lo
# mismo).
#
# Dos trampas reales:
#
# - el primer trozo puede traer solo el rol, sin texto (`None` o `""`): **no** es el primer token;
# - el último trozo trae `usage` y una lista `choices` vacía.
#
# `inicio` se toma justo antes de pedir, `primer_token` al llegar el primer texto y `fin` cuando el flujo se agota.


# %% nbgrader={"grade": false, "grade_id": "cliente", "locked": false, "schema_version": 3, "solution": true, "task": false}
async def mide_una(cliente, modelo, prompt, max_tokens, reloj):
    """Devuelve {"inicio", "primer_token", "fin", "tokens", "texto"}; tokens sale de usage.completion_tokens."""
    ### BEGIN SOLUTION
    m = {"inicio": reloj(), "primer_token": None, "fin": None, "tokens": 0, "texto": ""}
    flujo = await cliente.chat.completions.create(
        model=modelo, messages=[{"role": "user", "content": prompt}], max_tokens=max_tokens, temperature=0,
        stream=True, stream_options={"include_usage": True}, extra_body={"ignore_eos": True},
    )  # fmt: skip
    async for trozo in flujo:
        if trozo.choices and trozo.choices[0].delta.content:
            m["primer_token"] = reloj() if m["primer_token"] is None else m["primer_token"]
            m["texto"] += trozo.choices[0].delta.content
        if trozo.usage:
            m["tokens"] = trozo.usage.completion_tokens
    return {**m, "fin": reloj()}
    ### END SOLUTION


async def lanza_todas(cliente, modelo, prompts, max_tokens, reloj):
    """Mide todos los prompts a la vez; la lista de medidas sigue el orden de los prompts."""
    ### BEGIN SOLUTION
    return list(await asyncio.gather(*(mide_una(cliente, modelo, p, max_tokens, reloj) for p in prompts)))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_cliente", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
comprobar("cliente")

# %% [markdown]
# Ahora de verdad: la primera tanda es de calentamiento y se descarta; la segunda se mide. `corre` ejecuta una corrutina
# hasta el final.


# %% tags=["corta", "cubre-A-demo"]
async def tanda(preguntas):
    async with AsyncOpenAI(base_url=servidor.url, api_key="sin-clave", max_retries=0) as cliente:
        return await lanza_todas(cliente, nombre, preguntas, NUEVOS, time.perf_counter)


corre(tanda(prompts[:2]))
medidas = corre(tanda(prompts))
medido = resume(medidas)
print(f"{len(medidas)} peticiones a la vez: {cifra(medido['tok_s'], 1)} tok/s")
print(f"TTFT: p50 {cifra(medido['ttft_p50'], 2)} s · p95 {cifra(medido['ttft_p95'], 2)} s")

# %% [markdown]
# ## 4 · Mira
#
# Cada barra es una petición: la parte rayada es la espera hasta el primer token y la parte lisa es el decode. Fíjate en
# que las partes lisas se solapan: es el lote avanzando junto.

# %%
linea_de_tiempo(medidas, "Peticiones simultáneas")

# %% [markdown] tags=["errata-9"]
# ## 5 · Compara
#
# Sin base, «5×» no significa nada. Medimos la `pipeline` de transformers de dos maneras, con los mismos tokens nuevos
# por respuesta y, como el servidor, en float32, con selección voraz (*greedy*) y sin contar el calentamiento:
#
# - **una a una**: la base del enunciado. Se mide con `MUESTRA` prompts repartidos por la lista: de uno en uno, los
#   tok/s apenas dependen de cuántos sean, y todos tardarían demasiado;
# - **en lote**: todos los prompts juntos, rellenados hasta el más largo. Es la base exigente.

# %%
bases = mide_bases(modelo.carpeta, prompts, NUEVOS, MUESTRA)
if bases is None:
    print("transformers no está instalado: las bases se leerán del informe de `make demo`.")
else:
    print(f"razón contra una a una: {cifra(medido['tok_s'] / bases['una_a_una'], 1)}×")
    print(f"razón contra el lote:   {cifra(medido['tok_s'] / bases['en_lote'], 1)}×")
    velocidades = {"pipeline, una a una": bases["una_a_una"], "pipeline, en lote": bases["en_lote"]}
    display(barras({**velocidades, "servidor": medido["tok_s"]}, "tok/s", "Tokens nuevos por segundo"))

# %% [markdown]
# ## 6 · JSON garantizado
#
# ### 6.1 La petición
#
# Pedir «responde en JSON, por favor» no garantiza nada. La garantía la da el motor: en cada paso anula los tokens que
# harían inválido el texto. Se pide con `response_format`:
#
# `{"type": "json_schema", "json_schema": {"name": "un_nombre", "schema": esquema}}`
#
# Implementa `cuerpo_json(pregunta, esquema)`: devuelve un diccionario con `messages`, `max_tokens` y `response_format`,
# y ninguna clave más, listo para `chat.completions.create(model=…, **cuerpo)`. Da espacio de sobra en `max_tokens`: un
# JSON cortado no es válido. `GUIDED_MAX_TOKENS` basta para los esquemas de esta práctica.


# %% nbgrader={"grade": false, "grade_id": "cuerpo_json", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cuerpo_json(pregunta, esquema, max_tokens=512):
    """Argumentos de una petición cuya respuesta cumple el esquema por construcción, si no la corta max_tokens."""
    ### BEGIN SOLUTION
    return {
        "messages": [{"role": "user", "content": pregunta}],
        "max_tokens": max_tokens,
        "response_format": {"type": "json_schema", "json_schema": {"name": "respuesta", "schema": esquema}},
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_cuerpo_json", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
comprobar("cuerpo_json")

# %% [markdown] tags=["errata-14"]
# ### 6.2 El juez
#
# Implementa `es_valida(texto, esquema, fin)`, donde `fin` es el `finish_reason` de la respuesta. Es verdadera solo si:
#
# - la respuesta terminó sola (`fin == "stop"`), no por llegar al límite;
# - **todo** el texto es JSON estricto. `NaN` e `Infinity` no son JSON, aunque `json.loads` los acepte: mira su
#   argumento `parse_constant`;
# - el dato cumple el esquema según `jsonschema`.
#
# Cualquier otra cosa es `False`, nunca una excepción.
#
# No recortes ni repares el texto: eso mide tu reparador, no al motor.


# %% nbgrader={"grade": false, "grade_id": "es_valida", "locked": false, "schema_version": 3, "solution": true, "task": false}
def es_valida(texto, esquema, fin):
    """True si la respuesta es JSON estricto, completo y conforme al esquema; False en otro caso."""

    ### BEGIN SOLUTION
    def rechaza(constante):
        raise ValueError(f"{constante} no es JSON")

    if fin != "stop":
        return False
    try:
        jsonschema.validate(json.loads(texto, parse_constant=rechaza), esquema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_es_valida", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
comprobar("es_valida")


# %%
async def tanda_json(casos):
    async with AsyncOpenAI(base_url=servidor.url, api_key="sin-clave", max_retries=0) as cliente:
        crea = cliente.chat.completions.create
        return await asyncio.gather(
            *(crea(model=nombre, temperature=0, **cuerpo_json(c.prompt, c.schema, GUIDED_MAX_TOKENS)) for c in casos)
        )


casos = guided_cases(CASOS_JSON)
respuestas = [r.choices[0] for r in corre(tanda_json(casos))]
json_validos = sum(
    es_valida(r.message.content, c.schema, r.finish_reason) for r, c in zip(respuestas, casos, strict=True)
)
print(f"JSON válidos: {json_validos} de {len(casos)}")
print("Ejemplo:", respuestas[0].message.content)

# %% [markdown]
# Válido no es lo mismo que correcto: el esquema garantiza la forma, no que los datos sean ciertos.
#
# ### 6.3 La máscara, tuya
#
# ¿Cómo lo garantiza el motor? Antes de elegir cada token, tacha los que no pueden continuar el texto. Escribe esa
# pieza:
#
# | Método | Qué hace |
# |---|---|
# | `Mascara(esquema, vocabulario, fin)` | `vocabulario[i]` es el texto del token `i`; `fin` es el token que termina |
# | `permitidos()` | lista ordenada de los ids que pueden venir ahora; `fin`, solo si el texto ya está completo |
# | `acepta(id)` | el token elegido |
#
# Un token puede traer **varios caracteres** (`{"`, `":`, `true`): está permitido si todos ellos, en orden, son
# posibles. `fin` es el único token sin texto, y a `acepta` solo llegan ids permitidos que no son `fin`. Todo carácter
# que haga falta existe como token suelto: siempre hay salida.
#
# El texto es exactamente el de `json.dumps(valor, ensure_ascii=False, separators=(",", ":"))`, con las propiedades en
# el orden del esquema. Los esquemas usan:
#
# | Forma | Detalles |
# |---|---|
# | `object` | `properties` y `required`; las demás son optativas; sin propiedades de más |
# | `array` | `items`; de `minItems` (0 si falta) a `maxItems` elementos; el máximo está siempre |
# | `string` | de `minLength` (0 si falta) a `maxLength` caracteres (está siempre), contados con `len`; sin comillas, barras invertidas ni caracteres por debajo del espacio dentro |
# | `integer` | `minimum` 0 y `maximum` 9, 99 o 999; sin ceros a la izquierda |
# | `boolean`, `null`, `enum`, `const` | el valor tal como lo escribe `json.dumps` |
# | `anyOf`, `$ref` a `#/$defs/…` | sin recursión; `$defs` está en la raíz del esquema |
#
# La idea está en `valor(esquema, defs, despues)`: los pasos que escriben un valor **y siguen en** `despues`. El estado
# inicial es `valor` con `{FINAL}` como `despues`, y el texto está completo cuando `FINAL` está en el estado. Construye
# cada `resto` y cada `otra` **una sola vez**, de atrás hacia delante, y guárdalo en una variable: dos `Paso` iguales
# construidos por separado son distintos, y una función recursiva que los construya en cada visita tarda el doble por
# cada propiedad optativa.
#
# **El criterio es 100 %.** Quien corrige elige los tokens con probabilidades **hostiles**: al azar, o buscando siempre
# lo que rompe el texto o no lo acaba nunca. Pedirlo con buenas palabras, reintentar o reparar el texto no sirve;
# prohibir de más tampoco: todo documento correcto debe poder escribirse, lo corten como lo corten los tokens.


# %% nbgrader={"grade": false, "grade_id": "mascara", "locked": false, "schema_version": 3, "solution": true, "task": false}
class TextoLibre:
    """Lo que cabe dentro de una cadena: ni comillas, ni barras invertidas, ni caracteres de control."""

    def __contains__(self, letra):
        return letra >= " " and letra not in '"\\'


class Paso:
    """Unas letras que pueden venir ahora, y el conjunto de pasos que hay después de cualquiera de ellas."""

    def __init__(self, letras, despues):
        self.letras, self.despues = letras, despues


FINAL = Paso("", frozenset())  # nada más puede venir: el texto está completo
FIJOS = {"boolean": [True, False], "null": [None]}


def escribe(texto, despues):
    """Los pasos que escriben `texto`, letra a letra, y siguen en `despues`. Se construyen de atrás hacia delante."""
    for letra in reversed(texto):
        despues = frozenset([Paso(letra, despues)])
    return despues


def literal(dato, despues):
    """Un dato ya conocido, tal como lo escribe json.dumps."""
    return escribe(json.dumps(dato, ensure_ascii=False, separators=(",", ":")), despues)


def alternativas(caminos):
    """Todos los caminos a la vez: el texto decidirá cuál era."""
    return frozenset().union(*caminos)


def valor(esquema, defs, despues):
    """Los pasos que escriben cualquier valor del esquema y siguen en `despues`."""
    if "$ref" in esquema:
        return valor(defs[esquema["$ref"].removeprefix("#/$defs/")], defs, despues)
    if "anyOf" in esquema:
        return alternativas(valor(forma, defs, despues) for forma in esquema["anyOf"])
    if "const" in esquema:
        return literal(esquema["const"], despues)
    tipo = esquema.get("type")
    if "enum" in esquema or tipo in FIJOS:
        return alternativas(literal(dato, despues) for dato in esquema.get("enum") or FIJOS[tipo])
    if tipo in ("object", "array"):
        return objeto(esquema, defs, despues) if tipo == "object" else lista(esquema, defs, despues)
    return cadena(esquema, despues) if tipo == "string" else entero(esquema, despues)


def cadena(esquema, despues):
    """De minLength a maxLength caracteres entre comillas. `resto`: lo que puede venir tras `escritos` caracteres."""
    ### BEGIN SOLUTION
    cierra = resto = escribe('"', despues)
    for escritos in reversed(range(esquema["maxLength"])):
        resto = frozenset([Paso(TextoLibre(), resto)])
        if escritos >= esquema.get("minLength", 0):
            resto |= cierra
    return escribe('"', resto)
    ### END SOLUTION


def entero(esquema, despues):
    """De 0 a 9, 99 o 999: un cero solo, o una cifra que no es cero y las que aún quepan."""
    ### BEGIN SOLUTION
    resto = despues
    for _ in range(len(str(esquema["maximum"])) - 1):
        resto = despues | {Paso("0123456789", resto)}
    return frozenset([Paso("0", despues), Paso("123456789", resto)])
    ### END SOLUTION


def lista(esquema, defs, despues):
    """De minItems a maxItems elementos. `resto`: lo que puede venir cuando ya hay `escritos`."""
    ### BEGIN SOLUTION
    cierra = resto = escribe("]", despues)
    for escritos in reversed(range(esquema["maxItems"])):
        elemento = valor(esquema["items"], defs, resto)
        resto = elemento if escritos == 0 else escribe(",", elemento)
        if escritos >= esquema.get("minItems", 0):
            resto |= cierra
    return escribe("[", resto)
    ### END SOLUTION


def objeto(esquema, defs, despues):
    """Las propiedades en su orden. `primera`: aún no se ha escrito ninguna; `otra`: ya hay alguna, y va una coma."""
    ### BEGIN SOLUTION
    primera = otra = escribe("}", despues)
    for nombre, forma in reversed(esquema["properties"].items()):
        contenido = literal(nombre, escribe(":", valor(forma, defs, otra)))
        con_coma = escribe(",", contenido)
        if nombre in esquema.get("required", []):
            primera, otra = contenido, con_coma
        else:
            primera, otra = primera | contenido, otra | con_coma
    return escribe("{", primera)
    ### END SOLUTION


def avanza(estado, texto):
    """El estado después de `texto`: la unión de lo que sigue a cada paso que lo admite. Vacío si no puede venir."""
    ### BEGIN SOLUTION
    for letra in texto:
        estado = alternativas(paso.despues for paso in estado if letra in paso.letras)
    return estado
    ### END SOLUTION


class Mascara:
    """Qué tokens pueden venir. El estado es un conjunto de pasos; la lista de cada estado se calcula una sola vez."""

    def __init__(self, esquema, vocabulario, fin):
        ### BEGIN SOLUTION
        self.vocabulario, self.fin = vocabulario, fin
        self.estado = valor(esquema, esquema.get("$defs", {}), frozenset([FINAL]))
        self.iniciales = {texto[0] for texto in vocabulario if texto}
        self.listas = {}
        ### END SOLUTION

    def permitidos(self):
        """Lista ordenada de ids; `fin`, solo si el texto ya está completo."""
        ### BEGIN SOLUTION
        if self.estado not in self.listas:
            self.listas[self.estado] = self.calcula()
        return self.listas[self.estado]

    def calcula(self):
        """Un token vale si todos sus caracteres, en orden, avanzan; el primero descarta a casi todos."""
        vivas = {letra for letra in self.iniciales if avanza(self.estado, letra)}
        ids = [i for i, t in enumerate(self.vocabulario) if t and t[0] in vivas and avanza(self.estado, t)]
        return sorted([*ids, self.fin]) if FINAL in self.estado else ids
        ### END SOLUTION

    def acepta(self, id):
        """El token elegido."""
        ### BEGIN SOLUTION
        self.estado = avanza(self.estado, self.vocabulario[id])
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_mascara", "locked": true, "points": 18, "schema_version": 3, "solution": false, "task": false}
comprobar("mascara")

# %% [markdown] tags=["errata-2"]
# ## 7 · Rompe
#
# ### 7.1 El campo que ya no existe
#
# Muchas guías piden JSON con `extra_body={"guided_json": esquema}`. vLLM retiró ese campo en la versión 0.12: desde
# entonces lo **ignora sin avisar al cliente**, responde 200 y el texto sale libre. Nuestro servidor prefiere decirlo.

# %%
with OpenAI(base_url=servidor.url, api_key="sin-clave", max_retries=0) as cliente:
    try:
        cliente.chat.completions.create(
            model=nombre,
            messages=[{"role": "user", "content": casos[0].prompt}],
            max_tokens=8,
            extra_body={"guided_json": casos[0].schema},
        )
        print("El servidor aceptó guided_json: revisa cómo lo arrancaste.")
    except BadRequestError as error:
        print(f"HTTP {error.status_code}: {error.body['message']}")

# %% [markdown] tags=["cubre-B-error-uno"]
# ### 7.2 El cliente que espera
#
# El mismo servidor y los `MUESTRA` primeros prompts, pero el cliente envía cada petición cuando termina la anterior. El
# motor nunca tiene más de una que atender.


# %%
async def de_una_en_una(preguntas):
    async with AsyncOpenAI(base_url=servidor.url, api_key="sin-clave", max_retries=0) as cliente:
        return [await mide_una(cliente, nombre, p, NUEVOS, time.perf_counter) for p in preguntas]


lento = resume(corre(de_una_en_una(prompts[:MUESTRA])))
print(f"de una en una: {cifra(lento['tok_s'], 1)} tok/s · a la vez: {cifra(medido['tok_s'], 1)} tok/s")
servidor.para()

# %% [markdown]
# ## 8 · El informe
#
# `make demo` repite este experimento con más cuidado y escribe `reports/demo.json`, con el entorno al lado de cada
# número. Implementa `veredicto(informe)` a partir de estas claves:
#
# | Clave | Significado |
# |---|---|
# | `baseline_tok_s` | `pipeline`, una a una |
# | `baseline_batch_tok_s` | `pipeline`, en lote |
# | `minillm_tok_s` | nuestro servidor |
# | `json_total`, `json_valid` | respuestas JSON pedidas y válidas |
#
# Calcula tú las razones: no copies campos ya calculados. `cumple` exige razón ≥ 5 contra una a una, sin redondear,
# **y** 100 % de JSON. Si no se pidió ningún JSON, `json_pct` es 0 y no cumple: nada no demuestra nada.


# %% nbgrader={"grade": false, "grade_id": "veredicto", "locked": false, "schema_version": 3, "solution": true, "task": false}
def veredicto(informe):
    """Devuelve {"ratio": x, "ratio_lote": x, "json_pct": de 0 a 100, "cumple": bool}."""
    ### BEGIN SOLUTION
    ratio = informe["minillm_tok_s"] / informe["baseline_tok_s"]
    todos = informe["json_total"] > 0 and informe["json_valid"] == informe["json_total"]
    return {
        "ratio": ratio,
        "ratio_lote": informe["minillm_tok_s"] / informe["baseline_batch_tok_s"],
        "json_pct": 100 * informe["json_valid"] / informe["json_total"] if informe["json_total"] else 0.0,
        "cumple": ratio >= 5 and todos,
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_veredicto", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
comprobar("veredicto")

# %%
informe = lee_demo()
origen, con_modelo = "reports/demo.json", informe and informe.get("weights", {}).get("model", "el de make demo")
if informe is None and bases is not None:
    con_modelo = modelo.nombre
    origen = "las medidas de este cuaderno (no encontré reports/demo.json: ejecuta `make demo`)"
    informe = {
        "baseline_tok_s": bases["una_a_una"],
        "baseline_batch_tok_s": bases["en_lote"],
        "minillm_tok_s": medido["tok_s"],
        "json_total": len(casos),
        "json_valid": json_validos,
    }
if informe is None:
    print("No hay informe ni bases medidas: ejecuta `make demo` en una terminal y repite esta celda.")
else:
    final = veredicto(informe)
    print(f"Según {origen}, con {con_modelo}:")
    print(f"{cifra(final['ratio'], 2)}× contra una a una · {cifra(final['ratio_lote'], 2)}× contra el lote")
    print(f"{informe['json_valid']} de {informe['json_total']} JSON válidos ({cifra(final['json_pct'], 1)} %)")
    print(f"{'Cumple' if final['cumple'] else 'No cumple'} el criterio")
    if origen != "reports/demo.json" and not modelo.real:
        print("Aviso: con el modelo diminuto estas cifras no demuestran nada; repite con el modelo real.")
    anota("P", "razón contra una a una", mi_prediccion()["contra_una_a_una"], final["ratio"], "×", con_modelo)
    anota("P", "razón contra el lote", mi_prediccion()["contra_lote"], final["ratio_lote"], "×", con_modelo)

# %% [markdown]
# Si la celda encontró medidas, las dos últimas filas de `bitacora.csv` guardan tu predicción junto a ellas.

# %% [markdown] tags=["errata-1"]
# ### 8.1 Lo mismo, con vLLM
#
# El mismo trabajo lo hace el servidor que usarás en producción. Escribe la orden que lo arranca, como lista de
# argumentos: `orden_vllm(modelo, puerto, peticiones, contexto)`. Usa la forma actual, `vllm serve MODELO …`: las guías
# viejas escriben `python -m vllm.entrypoints.openai.api_server`, y aquí no vale. Las opciones que necesitas, cada una y
# su valor en cadenas separadas:
#
# | Opción | Para qué |
# |---|---|
# | `--host` | dónde escucha; `127.0.0.1` es solo este equipo. Sin ella, escucha en todas las redes |
# | `--port` | el puerto |
# | `--max-num-seqs` | cuántas peticiones avanzan a la vez; las demás esperan turno |
# | `--max-model-len` | tokens de cada petición como mucho: prompt más respuesta |
#
# Al corregir, tu cliente y tu `resume` se usan contra vLLM: un servidor vivo si quien corrige tiene uno, y si no, una
# **traza grabada** de vLLM de verdad, con su equipo, su fecha y sus versiones. La nota dice cuál de las dos fue.


# %% nbgrader={"grade": false, "grade_id": "orden_vllm", "locked": false, "schema_version": 3, "solution": true, "task": false}
def orden_vllm(modelo, puerto, peticiones, contexto):
    """La orden que sirve el modelo con vLLM, como lista de cadenas: ["vllm", "serve", modelo, "--opción", "valor", …].

    Debe escuchar solo en este equipo y en ese puerto, atender `peticiones` a la vez y admitir `contexto` tokens
    (prompt más respuesta) en cada una.
    """
    ### BEGIN SOLUTION
    opciones = {
        "--host": "127.0.0.1",
        "--port": puerto,
        "--max-num-seqs": peticiones,
        "--max-model-len": contexto,
    }
    orden = ["vllm", "serve", modelo]
    for opcion, valor in opciones.items():
        orden += [opcion, str(valor)]
    return orden
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_vllm", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("orden_vllm")

# %% [markdown]
# ## 9 · Explica
#
# Responde en la celda siguiente con tus números delante (10 puntos, los lee tu docente):
#
# 1. ¿En qué se equivocó tu predicción y por qué? (3)
# 2. ¿Por qué la razón contra el lote es mucho menor que la razón contra una a una? Si a ti no te salió así (pasa con el
#    modelo diminuto y en modo rápido), di también por qué. (4)
# 3. Una persona te dice «mi servidor es 20× más rápido que Hugging Face». ¿Qué tres datos le pides, y qué cambiaría
#    cada uno? (3)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explica", "locked": false, "points": 10, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
#
# 1. Respuesta abierta. Se valora que compare el número escrito con el medido y nombre una causa concreta: los pesos se
#    leen una vez por paso para todo el lote, los hilos disponibles o el modelo usado.
# 2. El lote con relleno también lee los pesos una vez por paso para todas las peticiones: comparte la ventaja
#    principal. Lo que aún pierde es el relleno, esperar a la más larga y no admitir a nadie hasta que acaba.
# 3. La base (una a una o en lote, con qué precisión y cuántos hilos), la carga (cuántas peticiones a la vez, longitudes
#    de prompt y de respuesta) y el equipo con las versiones. También vale pedir el TTFT junto al throughput.
#
# ### END SOLUTION

# %% [markdown]
# ## 10 · Autoevaluación
#
# Piensa tu respuesta y abre cada opción.
#
# **A. Con una sola petición en curso, ¿cuánto ayuda el batching continuo?**
#
# <details><summary>Mucho: siempre multiplica el throughput</summary>No. Sin compañeras de lote, cada paso lee todos los
# pesos para un solo token. Lo viste en 7.2.</details>
# <details><summary>Casi nada</summary>Correcto. La ganancia sale de compartir cada lectura de los pesos entre muchas
# peticiones.</details>
#
# **B. Si el p95 de TTFT empeora al subir de 10 a 50 peticiones y el throughput mejora, ¿está roto el servidor?**
#
# <details><summary>Sí: un buen servidor mejora ambas medidas</summary>No. Más peticiones comparten el mismo cálculo: el
# sistema produce más y cada persona espera algo más. Es un compromiso que se decide con un objetivo de servicio
# (SLO).</details>
# <details><summary>No: es el compromiso esperado</summary>Correcto. Se fija un límite de TTFT y se busca el mayor
# throughput que lo respeta.</details>
#
# **C. Recibes HTTP 200 y un JSON correcto usando `guided_json` con un vLLM actual. ¿Hay garantía?**
#
# <details><summary>Sí: el servidor aceptó el esquema</summary>No. El campo se ignora; el modelo acertó por su cuenta y
# otra vez puede fallar.</details>
# <details><summary>No: fue suerte</summary>Correcto. Usa <code>response_format</code> y comprueba cada
# respuesta.</details>
