# %% [markdown] tags=["cubre-A-vllm"]
# # Lab 9 · Un servidor compatible con OpenAI
#
# Ya tienes un motor que atiende a muchas peticiones a la vez. Le falta la puerta: un **servidor** al que cualquier
# programa pueda hablar por la red, con el mismo idioma que usan vLLM, TGI y la propia OpenAI. Aquí escribes esa puerta:
# mensajes que llegan trozo a trozo, clientes que se van sin avisar, peticiones mal hechas y un tablero de métricas.
#
# **Al terminar puedes…**
#
# | Resultado de aprendizaje | Comprobación |
# |---|---|
# | enviar una respuesta por trozos sin que su texto rompa el envío | `trozo_sse` |
# | convertir octetos en texto sin partir un carácter | `decodificador` |
# | rechazar una petición mala con el código y el campo justos | `valida_peticion` |
# | unir un motor por pasos con muchas corrutinas, y abortar a quien se va | `puente` |
# | publicar contadores e histogramas que Prometheus entiende | `expone_metricas` |
# | montar el servidor y hablarle con el cliente oficial de OpenAI | `crea_app` |
# | reconocer y arreglar un servidor que pone a todos en fila | `chat_arreglado`, `explica` |
#
# **Tiempo:** 130 minutos. **Puntos:** 100 (82 automáticos y 18 que lee tu docente).
#
# > El modelo es pequeño y responde mejor en inglés: por eso los prompts están en inglés. Aquí se estudia el servidor.

# %% [markdown]
# ## Preparación
#
# Ejecuta la celda y lee qué modelo te toca. El motor que carga aquí es el que moverá **tu** servidor. Si dice «modelo
# diminuto», todo funciona igual, pero las velocidades no sirven como medida.

# %% nbgrader={"grade": false, "grade_id": "preparacion", "locked": true, "schema_version": 3, "solution": false, "task": false}
import asyncio
import json
import time
from contextlib import aclosing
from importlib.resources import files
from urllib.request import Request as Pedido
from urllib.request import urlopen

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from IPython.display import display
from openai import APIStatusError, AsyncOpenAI, OpenAI

from minilab.asincrono import corre
from minilab.bancos import servir
from minilab.bancos.motor_por_pasos import EnHilo, MotorReal, PortTaken
from minilab.bancos.servir import MotorDeJuguete, anade_rutas, junta, lee_json, transmision, trozo, trozo_de_uso
from minilab.bitacora import anota
from minilab.comparar import compara
from minilab.comprobar import comprobar
from minilab.cuaderno import prepara
from minilab.graficas import barras, linea_de_tiempo
from minilab.servidor import Servidor
from minilab.vistas.cifras import cifra
from minillm_serve import LLM, SamplingParams
from minillm_serve.bench.prompts import PROMPTS

modelo = prepara("L09")
CLIENTES = 8 if modelo.rapido else 50
NUEVOS = 12 if modelo.rapido else 32
preguntas = list(PROMPTS[:CLIENTES])
llm = LLM(modelo.carpeta, max_model_len=1024, kv_cache_memory_bytes=1 << 28, enable_prefix_caching=False)
print(f"{CLIENTES} clientes, {NUEVOS} tokens nuevos como mucho por respuesta.")

# %% [markdown] tags=["cubre-D-casos"]
# ## 1 · Idea
#
# Un motor se usa de dos maneras:
#
# | Uso | Cómo se pide | Qué importa |
# |---|---|---|
# | **por lotes**, fuera de línea | `LLM(...)`: una lista de prompts, una lista de respuestas | el throughput |
# | **en línea** | un servidor: cada persona llega cuando quiere y lee según sale | además, el TTFT de cada una |
#
# En línea hay un choque. El motor trabaja **por pasos** y cada paso tarda: mientras calcula, no atiende a nadie. El
# servidor tiene que hacer lo contrario: atender siempre. En Python lo hace un **bucle de eventos** (`asyncio`): un solo
# hilo que salta de una **corrutina** (`async def`) a otra cada vez que una espera (`await`). La regla de oro: *nada que
# tarde puede correr en ese hilo*. Si corre, todos esperan.
#
# La solución tiene tres piezas:
#
# ```text
#  cliente A ─┐  corrutina A  ◄── cola A ◄─┐
#  cliente B ─┤  corrutina B  ◄── cola B ◄─┤   bucle:  cumple los encargos   ──►  motor
#  cliente C ─┘  corrutina C  ◄── cola C ◄─┘           un paso, en otro hilo ◄──  (todas juntas)
#                     │                                reparte los tokens
#                     └── encargos: entra, aborta ────────►
# ```
#
# - una **cola** por petición: su corrutina espera ahí sus tokens;
# - un solo **bucle** que mueve el motor: un paso avanza a **todas** las peticiones en curso;
# - **encargos**: nadie toca el motor a mitad de un paso; se apunta y el bucle lo cumple entre dos pasos.

# %% [markdown] tags=["cubre-E-pila"]
# Alrededor del servidor hay más piezas. A este conjunto se le llama la **pila de servicio**:
#
# | Pieza | Qué hace | Aquí |
# |---|---|---|
# | **proxy** (nginx) | cifra, limita la frecuencia, reparte entre réplicas | `minillm_serve/deploy/nginx/` |
# | **servidor** | valida, da formato, transmite, cancela | este lab |
# | **cola** y planificador | deciden quién avanza | labs 2 y 5 |
# | **supervisión** (Prometheus) | recoge métricas y avisa | ejercicio 3.5 |
# | **autoescalado** | enciende y apaga réplicas según las métricas | más adelante |
#
# Un proxy corriente estropea el streaming: guarda la respuesta hasta que está entera. La celda busca en la
# configuración que trae el repositorio las líneas que lo evitan.

# %%
configuracion = files("minillm_serve.deploy").joinpath("nginx/nginx.conf").read_text(encoding="utf-8")
for linea in configuracion.splitlines():
    if any(
        clave in linea for clave in ("proxy_buffering", "proxy_read_timeout", "limit_req zone", "proxy_http_version")
    ):
        print(linea.strip())

# %% [markdown]
# ## 2 · Predice
#
# Antes de construir, escribe dos números mayores que 0:
#
# - `bloqueante`: ocho personas (cuatro en modo rápido) preguntan a la vez a un servidor que llama al motor **dentro**
#   de una corrutina, sin puente. ¿Cuántas veces más tarda en contestar a todas que el mismo motor con tu puente?
# - `contra_serve`: ¿qué parte del throughput de `minillm serve` alcanzará tu servidor de unas decenas de líneas? (`0.5`
#   es la mitad; `1`, lo mismo.)


# %% nbgrader={"grade": false, "grade_id": "prediccion", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mi_prediccion():
    """Devuelve {"bloqueante": número, "contra_serve": número}."""
    ### BEGIN SOLUTION
    return {"bloqueante": 3.0, "contra_serve": 0.7}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_prediccion", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
comprobar("prediccion_l09")

# %% [markdown]
# ## 3 · Construye
#
# ### 3.1 Un evento por el cable
#
# La respuesta viaja trozo a trozo con **SSE** (*server-sent events*): texto plano en el que cada evento es una línea
# `data: …` seguida de **una línea en blanco**. La línea en blanco es lo que separa eventos.
#
# Imagina que el modelo escribe un salto de línea y alguien construye el evento pegando el texto tal cual:

# %%
texto_del_modelo = 'una lista:\n\ndata: {"soy": "otro evento"}'
mal_hecho = f"data: {texto_del_modelo}\n\n"
print(mal_hecho)
print("Eventos que lee el cliente:", mal_hecho.count("data: "), "(se envió uno)")

# %% [markdown]
# El texto del modelo se ha colado en el **formato**: quien escribe el prompt podría inventar eventos. La cura es que
# cada evento sea JSON: dentro de una cadena JSON un salto de línea se escribe `\n`, con dos caracteres.
#
# Escribe `trozo_sse(evento)`: recibe un diccionario y devuelve **una** cadena, el evento listo para enviar. Con `None`
# devuelve el final de la transmisión, `data: [DONE]` y su línea en blanco.


# %% nbgrader={"grade": false, "grade_id": "trozo_sse", "locked": false, "schema_version": 3, "solution": true, "task": false}
def trozo_sse(evento):
    """Un evento SSE como cadena; con None, el que cierra la transmisión.

    >>> trozo_sse({"a": 1})
    'data: {"a": 1}\\n\\n'
    """
    ### BEGIN SOLUTION
    dentro = "[DONE]" if evento is None else json.dumps(evento)
    return f"data: {dentro}\n\n"
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_trozo_sse", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
comprobar("trozo_sse")

# %% [markdown]
# ### 3.2 Un carácter, varios octetos
#
# Un token no es un trozo de texto: es un trozo de **octetos** (*bytes*). En UTF-8 la `a` ocupa un octeto, la `ñ` dos y
# un emoji cuatro, y un token puede acabar a mitad de un carácter. Mira qué pasa si cada trozo se convierte por su
# cuenta:

# %%
octetos = "ñandú 🙂".encode()
print(list(octetos))
print("por separado:", octetos[:9].decode("utf-8", "replace") + octetos[9:].decode("utf-8", "replace"))
print("todo junto:  ", octetos.decode())

# %% [markdown]
# El primer octeto de un carácter dice cuántos ocupa; los siguientes empiezan por los bits `10`:
#
# | Primer octeto | Valor | El carácter ocupa |
# |---|---|---|
# | `0xxxxxxx` | menor que `0x80` | 1 |
# | `10xxxxxx` | de `0x80` a `0xBF` | (no es un principio: continúa) |
# | `110xxxxx` | de `0xC0` a `0xDF` | 2 |
# | `1110xxxx` | de `0xE0` a `0xEF` | 3 |
# | `11110xxx` | desde `0xF0` | 4 |
#
# Escribe la clase `Decodificador`, que recibe octetos y entrega **solo caracteres completos**:
#
# - `incompletos()`: cuántos octetos del final de `self.pendiente` son el principio de un carácter sin acabar (0, 1, 2
#   o 3). Mira hacia atrás, como mucho tres octetos, hasta encontrar un primer octeto.
# - `agrega(octetos)`: añade los octetos (bytes, o una lista de números de 0 a 255), devuelve como texto todo lo que ya
#   está completo y se guarda el resto.
# - `termina()`: lo que quedara, con `�` en lugar de lo que no se completó.
#
# Lo que no sea UTF-8 válido se convierte en `�`: `bytes.decode("utf-8", "replace")` lo hace por ti. Un servidor no se
# cae por un octeto raro.


# %% nbgrader={"grade": false, "grade_id": "decodificador", "locked": false, "schema_version": 3, "solution": true, "task": false}
class Decodificador:
    """De octetos a texto, sin partir caracteres. Uno por respuesta."""

    def __init__(self):
        self.pendiente = b""

    def incompletos(self):
        """Octetos del final de self.pendiente que empiezan un carácter sin acabarlo: de 0 a 3."""
        ### BEGIN SOLUTION
        for atras, octeto in enumerate(reversed(self.pendiente[-3:]), start=1):
            if octeto < 0x80:
                return 0
            if octeto >= 0xC0:
                ocupa = 4 if octeto >= 0xF0 else 3 if octeto >= 0xE0 else 2
                return atras if atras < ocupa else 0
        return 0
        ### END SOLUTION

    def agrega(self, octetos):
        """El texto que ya está completo, con estos octetos detrás de los pendientes."""
        ### BEGIN SOLUTION
        self.pendiente += bytes(octetos)
        corte = len(self.pendiente) - self.incompletos()
        completo, self.pendiente = self.pendiente[:corte], self.pendiente[corte:]
        return completo.decode("utf-8", "replace")
        ### END SOLUTION

    def termina(self):
        """Lo que queda al final, con � donde falte algo."""
        ### BEGIN SOLUTION
        resto, self.pendiente = self.pendiente, b""
        return resto.decode("utf-8", "replace")
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_decodificador", "locked": true, "points": 14, "schema_version": 3, "solution": false, "task": false}
comprobar("decodificador")

# %% [markdown]
# ### 3.3 Decir que no, y decir por qué
#
# Un servidor pasa media vida diciendo que no. Hacerlo bien ahorra horas: un **código** que el programa entiende y un
# **mensaje** y un **campo** que entiende la persona. El cuerpo de un error, en el idioma de OpenAI:
#
# ```json
# {"error": {"message": "…", "type": "BadRequestError", "param": "max_tokens", "code": 400}}
# ```
#
# Escribe tres funciones:
#
# 1. `error_openai(estado, mensaje, parametro=None)` devuelve ese cuerpo. El `type` sale de `TIPOS`; para un estado que
#    no esté, `"APIError"`.
# 2. `valida_peticion(peticion, modelo)` devuelve `None` si la petición vale y, si no, `(estado, mensaje, parametro)` de
#    **la primera** regla que incumple, en este orden:
#
#    | Regla | Si falla |
#    |---|---|
#    | es un diccionario | 400, parámetro `None` |
#    | `model` es una cadena | 400 `model` |
#    | `model` es el que se sirve | 404 `model` |
#    | `messages` es una lista no vacía de mensajes (`es_mensaje`) | 400 `messages` |
#    | `max_tokens`, si está, es un entero mayor que 0 | 400 `max_tokens` |
#    | `temperature`, si está, es un número entre 0 y 2, los dos incluidos | 400 `temperature` |
#    | ningún campo de `NO_SABEMOS` está | 400, ese campo |
#
#    En las tres últimas, un campo con valor `None` (el `null` de JSON) cuenta como si no estuviera. Y `True` no es un
#    número, aunque en Python sea un `int`.
#
# 3. `valida_longitud(entrada, maximo, contexto)`: `None` si `entrada` tokens de prompt y `maximo` de respuesta caben en
#    `contexto`. Si el prompt ya no deja sitio para un token, `(400, mensaje, "messages")`; si lo que no cabe es la
#    respuesta, `(400, mensaje, "max_tokens")`.
#
# El mensaje lo escribes tú, y no puede estar vacío: que diga qué esperabas (`ESPERABA` te ayuda con cuatro campos).
#
# ¿Por qué la última regla de la tabla? Un servidor que **ignora** un campo que no conoce contesta 200 y deja creer que
# lo obedeció. Es la trampa de `guided_json` en vLLM: si no sabes hacerlo, dilo.

# %% nbgrader={"grade": false, "grade_id": "errores", "locked": false, "schema_version": 3, "solution": true, "task": false}
TIPOS = {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError", 500: "InternalServerError"}
NO_SABEMOS = ("response_format", "guided_json", "tools")
ESPERABA = {
    "model": "el nombre de un modelo que se sirva aquí",
    "messages": "una lista de mensajes con role y content",
    "max_tokens": "un entero mayor que 0",
    "temperature": "un número entre 0 y 2",
}


def es_mensaje(mensaje):
    """Un mensaje de chat que este servidor entiende."""
    roles = ("system", "user", "assistant")
    return isinstance(mensaje, dict) and mensaje.get("role") in roles and isinstance(mensaje.get("content"), str)


def error_openai(estado, mensaje, parametro=None):
    """El cuerpo de un error: {"error": {"message", "type", "param", "code"}}."""
    ### BEGIN SOLUTION
    tipo = TIPOS.get(estado, "APIError")
    return {"error": {"message": mensaje, "type": tipo, "param": parametro, "code": estado}}
    ### END SOLUTION


def valida_peticion(peticion, modelo):
    """None si vale; si no, (estado, mensaje, parámetro) de la primera regla que incumple."""
    ### BEGIN SOLUTION
    if not isinstance(peticion, dict):
        return 400, "el cuerpo debe ser un objeto JSON", None
    mensajes, maximo, calor = (peticion.get(c) for c in ("messages", "max_tokens", "temperature"))
    reglas = [
        (isinstance(peticion.get("model"), str), 400, "model"),
        (peticion.get("model") == modelo, 404, "model"),
        (isinstance(mensajes, list) and mensajes and all(map(es_mensaje, mensajes)), 400, "messages"),
        (maximo is None or (type(maximo) is int and maximo > 0), 400, "max_tokens"),
        (calor is None or (type(calor) in (int, float) and 0 <= calor <= 2), 400, "temperature"),
        *((peticion.get(campo) is None, 400, campo) for campo in NO_SABEMOS),
    ]
    for vale, estado, campo in reglas:
        if not vale:
            return estado, f"{campo}: esperaba {ESPERABA.get(campo, 'no recibirlo: no sé obedecerlo')}", campo
    ### END SOLUTION


def valida_longitud(entrada, maximo, contexto):
    """None si caben; si no, (400, mensaje, parámetro): "messages" o "max_tokens"."""
    ### BEGIN SOLUTION
    if entrada >= contexto:
        return 400, f"el prompt tiene {entrada} tokens y el contexto es de {contexto}", "messages"
    if entrada + maximo > contexto:
        return 400, f"{entrada} tokens de prompt y {maximo} de respuesta no caben en {contexto}", "max_tokens"
    return None
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_valida_peticion", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
comprobar("valida_peticion")

# %% [markdown]
# ### 3.4 El puente
#
# El motor tiene cuatro llamadas, y ninguna es asíncrona:
#
# | Llamada | Qué hace |
# |---|---|
# | `entra(id, prompt, max_tokens)` | una petición se pone a la cola; `id` es un número que eliges tú |
# | `paso()` | **tarda**; devuelve `[(id, octetos, fin), …]` de las que avanzaron |
# | `pendientes()` | cuántas peticiones no han acabado |
# | `aborta(id)` | una petición se va antes de acabar y libera su sitio |
#
# Este motor de juguete las tiene. Su respuesta es el prompt con adornos, y cada paso da tres octetos de ella:

# %%
juguete = MotorDeJuguete(plazas=2)
juguete.entra(1, "hi", 3)
juguete.entra(2, "ñu", 4)
while juguete.pendientes():
    print(juguete.paso())
print("quejas:", set(juguete.quejas))

# %% [markdown]
# La queja es la regla de oro: `paso()` corrió en el mismo hilo en que se creó el motor, el del bucle de eventos.
#
# Completa los tres métodos de `Puente`. `encarga` ya está: apunta una función sin argumentos, como
# `lambda: self.motor.aborta(id)`, y despierta al bucle.
#
# - `bucle()`: para siempre: cumple **todos** los encargos (`self.encargos.pop(0)()` saca el primero y lo llama); si el
#   motor no tiene nada pendiente, duerme hasta que alguien encargue algo (`self.despierta.clear()` y
#   `await self.despierta.wait()`); si tiene, da un paso **en otro hilo**, `await asyncio.to_thread(self.motor.paso)`, y
#   reparte lo que devuelve.
# - `reparte(salidas)`: deja `(octetos, fin)` en la cola de cada petición, con `put_nowait`. Quien ya se fue no tiene
#   cola.
# - `genera(prompt, max_tokens)`: un **generador asíncrono** (`async def` con `yield`; se recorre con `async for`). Toma
#   un número nuevo (`self.ultimo` es el último que se dio), abre su cola (`asyncio.Queue()`, en `self.colas`),
#   **encarga** la entrada y va entregando los octetos hasta el último. Pase lo que pase (`try … finally`), al salir
#   quita su cola; y si la respuesta no había acabado, **encarga** que se aborte. El `prompt` llega al motor sin tocar.
#
# Guarda el número en una variable tuya: cuando el encargo se cumpla, `self.ultimo` será ya el de otra petición.
#
# ¿Por qué `finally`? Cuando un cliente cuelga, Python cierra el generador justo donde estaba: en el `await` o en el
# `yield`. Sin él, el motor seguiría generando para nadie.


# %% nbgrader={"grade": false, "grade_id": "puente", "locked": false, "schema_version": 3, "solution": true, "task": false}
class Puente:
    """Une un motor por pasos con muchas corrutinas: una cola por petición y un solo bucle que mueve el motor."""

    def __init__(self, motor):
        self.motor = motor
        self.colas = {}
        self.encargos = []
        self.despierta = asyncio.Event()
        self.ultimo = 0

    def encarga(self, encargo):
        """Apunta una función sin argumentos; el bucle la llamará entre dos pasos."""
        self.encargos.append(encargo)
        self.despierta.set()

    async def bucle(self):
        """Mueve el motor mientras viva el servidor."""
        ### BEGIN SOLUTION
        while True:
            while self.encargos:
                self.encargos.pop(0)()
            if self.motor.pendientes():
                self.reparte(await asyncio.to_thread(self.motor.paso))
            else:
                self.despierta.clear()
                await self.despierta.wait()
        ### END SOLUTION

    def reparte(self, salidas):
        """Cada (id, octetos, fin), a la cola de esa petición."""
        ### BEGIN SOLUTION
        for id, octetos, fin in salidas:
            if id in self.colas:
                self.colas[id].put_nowait((octetos, fin))
        ### END SOLUTION

    async def genera(self, prompt, max_tokens):
        """Los octetos de una respuesta, según salen. Si quien la lee se va, la petición se aborta."""
        ### BEGIN SOLUTION
        self.ultimo += 1
        id, fin = self.ultimo, False
        cola = self.colas[id] = asyncio.Queue()
        self.encarga(lambda: self.motor.entra(id, prompt, max_tokens))
        try:
            while not fin:
                octetos, fin = await cola.get()
                yield octetos
        finally:
            del self.colas[id]
            if not fin:
                self.encarga(lambda: self.motor.aborta(id))
        ### END SOLUTION


# %% [markdown]
# La comprobación ensaya tu puente con el motor de juguete: clientes que llegan a mitad de un paso, que se van, que
# llegan cuando todo estaba en calma. La celda siguiente es el enlace con ese ensayo.


# %% nbgrader={"grade": false, "grade_id": "ensayos", "locked": true, "schema_version": 3, "solution": false, "task": false}
def ensayo_puente(guion):
    return servir.ensaya_puente(Puente, guion)


def ensayo_chat(guion):
    return servir.ensaya_chat(chat_arreglado, Puente, guion)


def ensayo_app(guion):
    return servir.ensaya_app(crea_app, Puente, guion)


# %% nbgrader={"grade": true, "grade_id": "prueba_puente", "locked": true, "points": 18, "schema_version": 3, "solution": false, "task": false}
comprobar("puente")

# %% [markdown]
# ### 3.5 El tablero
#
# **Prometheus** pregunta cada pocos segundos a `/metrics` y guarda lo que lee. El formato es texto:
#
# ```text
# # HELP aula:time_to_first_token_seconds TTFT en segundos.
# # TYPE aula:time_to_first_token_seconds histogram
# aula:time_to_first_token_seconds_bucket{model_name="m",le="0.1"} 2
# aula:time_to_first_token_seconds_bucket{model_name="m",le="0.5"} 3
# aula:time_to_first_token_seconds_bucket{model_name="m",le="+Inf"} 4
# aula:time_to_first_token_seconds_sum{model_name="m"} 2.25
# aula:time_to_first_token_seconds_count{model_name="m"} 4
# ```
#
# Son tres clases de métrica. Un **contador** (`counter`) solo crece. Un **indicador** (`gauge`) sube y baja. Un
# **histograma** cuenta cuántas observaciones son **menores o iguales** que cada límite (`le`): los cubos se
# **acumulan**, cada uno incluye a los anteriores, y el último, `+Inf`, las cuenta todas. Así se pueden sumar los de
# varias réplicas y sacar un p95 aproximado. Guardar percentiles ya hechos no serviría: no se pueden sumar.
#
# Escribe `expone_metricas(metricas)`, que devuelve el texto entero (acaba en salto de línea). Cada métrica es un
# diccionario con `nombre`, `tipo`, `ayuda`, `etiquetas` (un diccionario) y, según el tipo, `valor`, o bien `limites`
# (en orden) y `observaciones`. Las tres clases llevan sus líneas `# HELP` y `# TYPE`. Escribe también estas dos, que
# te ayudan:
#
# - `muestra(nombre, etiquetas, valor)`: una línea; `nombre{clave="valor",otra="valor"} 3`, y sin llaves si no hay
#   etiquetas. En el valor de una etiqueta, `\`, `"` y el salto de línea se escriben `\\`, `\"` y `\n`.
# - `cubos(metrica)`: la lista de líneas de un histograma, en el orden del ejemplo. `le` es la última etiqueta.


# %% nbgrader={"grade": false, "grade_id": "metricas", "locked": false, "schema_version": 3, "solution": true, "task": false}
def muestra(nombre, etiquetas, valor):
    """Una línea: nombre{clave="valor",…} valor."""

    ### BEGIN SOLUTION
    def escapa(texto):
        return str(texto).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    pares = ",".join(f'{clave}="{escapa(texto)}"' for clave, texto in etiquetas.items())
    return f"{nombre}{{{pares}}} {valor}" if pares else f"{nombre} {valor}"
    ### END SOLUTION


def cubos(metrica):
    """La lista de líneas de un histograma: _bucket por límite y +Inf, _sum y _count."""
    ### BEGIN SOLUTION
    nombre, etiquetas, vistas = metrica["nombre"], metrica["etiquetas"], metrica["observaciones"]
    lineas = [
        muestra(f"{nombre}_bucket", {**etiquetas, "le": limite}, sum(vista <= limite for vista in vistas))
        for limite in metrica["limites"]
    ]
    lineas.append(muestra(f"{nombre}_bucket", {**etiquetas, "le": "+Inf"}, len(vistas)))
    lineas.append(muestra(f"{nombre}_sum", etiquetas, sum(vistas)))
    lineas.append(muestra(f"{nombre}_count", etiquetas, len(vistas)))
    return lineas
    ### END SOLUTION


def expone_metricas(metricas):
    """El texto de /metrics."""
    ### BEGIN SOLUTION
    lineas = []
    for m in metricas:
        lineas += [f"# HELP {m['nombre']} {m['ayuda']}", f"# TYPE {m['nombre']} {m['tipo']}"]
        lineas += cubos(m) if m["tipo"] == "histogram" else [muestra(m["nombre"], m["etiquetas"], m["valor"])]
    return "\n".join(lineas) + "\n"
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_expone_metricas", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
comprobar("expone_metricas")

# %% [markdown] tags=["cubre-C-fastapi"]
# ### 3.6 La puerta
#
# **FastAPI** convierte funciones en rutas de un servidor web. Junta tus piezas. Tienes hechas:
#
# - `trozo(peticion, texto)`, el diccionario de un evento, y `trozo(peticion, texto, fin)`, el del último;
# - `trozo_de_uso(peticion, entrada, salida)`: el evento que cuenta los tokens;
# - `junta(peticion, eventos)`: la respuesta entera de quien no pidió streaming;
# - `a_sse(eventos)`: pasa cada evento por tu `trozo_sse`;
# - `transmision(generador)`: la respuesta que lo envía según sale, y que lo cierra si el cliente se va;
# - `lee_json(octetos)`: el cuerpo, o `None` si no es JSON;
# - `anade_rutas(app, …)`: `/health`, `/v1/models` y `/metrics`.
#
# Escribe:
#
# - `eventos_de_chat(puente, peticion)`, un generador asíncrono. Recorre `puente.genera(mensajes, maximo)`: `mensajes`
#   es la lista entera de la petición, y `maximo`, su `max_tokens`; si no está o es `None`, 16. Cada trozo de octetos
#   pasa por el `Decodificador` de esta respuesta, uno **nuevo**, y da un `trozo` con su texto. Después, un último
#   `trozo` con lo que dé `termina()` y el motivo del final: `"length"` si salieron `maximo` trozos, `"stop"` si
#   salieron menos. Y, al final, un `trozo_de_uso` con los tokens del prompt, `puente.motor.cuenta(mensajes)`, y los
#   trozos que salieron.
# - `contesta(puente, modelo, contexto, cuerpo)`: lee el JSON; valida la petición **y después** la longitud, con esa
#   misma cuenta; con un error, devuelve `JSONResponse(error_openai(…), estado)`; si pide `stream`,
#   `transmision(a_sse(eventos))`; si no, `JSONResponse(junta(peticion, […todos los eventos…]))`.
#
# Un generador dentro de otro se recorre con `aclosing`: si el cliente se va, se cierran los dos. Así lo hace `a_sse`:
#
# ```python
# async with aclosing(generador):
#     async for x in generador: ...
# ```
#
# `crea_app` está escrita: es la que convierte `contesta` en una ruta.


# %% nbgrader={"grade": false, "grade_id": "app", "locked": false, "schema_version": 3, "solution": true, "task": false}
async def eventos_de_chat(puente, peticion):
    """Los eventos de una respuesta: sus trozos, el final y el uso."""
    ### BEGIN SOLUTION
    mensajes, maximo = peticion["messages"], peticion.get("max_tokens") or 16
    texto, salida = Decodificador(), 0
    async with aclosing(puente.genera(mensajes, maximo)) as flujo:
        async for octetos in flujo:
            salida += 1
            yield trozo(peticion, texto.agrega(octetos))
    yield trozo(peticion, texto.termina(), "length" if salida == maximo else "stop")
    yield trozo_de_uso(peticion, puente.motor.cuenta(mensajes), salida)
    ### END SOLUTION


async def a_sse(eventos):
    """Cada evento como SSE, y el cierre."""
    async with aclosing(eventos):
        async for evento in eventos:
            yield trozo_sse(evento)
    yield trozo_sse(None)


async def contesta(puente, modelo, contexto, cuerpo):
    """La respuesta HTTP a los octetos del cuerpo de un POST: un error, una transmisión o un JSON."""
    ### BEGIN SOLUTION
    peticion = lee_json(cuerpo)
    error = valida_peticion(peticion, modelo)
    if not error:
        entrada = puente.motor.cuenta(peticion["messages"])
        error = valida_longitud(entrada, peticion.get("max_tokens") or 16, contexto)
    if error:
        return JSONResponse(error_openai(*error), error[0])
    eventos = eventos_de_chat(puente, peticion)
    if peticion.get("stream"):
        return transmision(a_sse(eventos))
    return JSONResponse(junta(peticion, [evento async for evento in eventos]))
    ### END SOLUTION


def crea_app(puente, modelo, contexto):
    """El servidor: POST /v1/chat/completions y las rutas de siempre."""
    app = FastAPI()
    anade_rutas(app, modelo, lambda: expone_metricas(puente.motor.medidas()))

    @app.post("/v1/chat/completions")
    async def chat(pedido: Request):
        return await contesta(puente, modelo, contexto, await pedido.body())

    return app


# %% nbgrader={"grade": true, "grade_id": "prueba_crea_app", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
comprobar("crea_app")

# %% [markdown] tags=["cubre-B-ej1", "cubre-B-objetivo"]
# ## 4 · Mira
#
# Enciende **tu** servidor con el motor de verdad: `MotorReal` da las mismas cuatro llamadas que el juguete. Y háblale
# con el cliente oficial de OpenAI, el mismo que hablaría con la nube: solo cambia `base_url`.


# %%
def monta():
    puente = Puente(MotorReal(llm))
    return puente, crea_app(puente, modelo.nombre, puente.motor.contexto)


mio = EnHilo(monta)
with OpenAI(base_url=mio.url, api_key="sin-clave", max_retries=0) as cliente:
    print("modelos:", [tarjeta.id for tarjeta in cliente.models.list()])
    flujo = cliente.chat.completions.create(
        model=modelo.nombre,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=NUEVOS,
        stream=True,
    )
    print("trozos:", [evento.choices[0].delta.content for evento in flujo if evento.choices])


# %% [markdown]
# Ahora, muchos clientes a la vez. Cada uno apunta cuándo preguntó, cuándo vio su primer texto y cuándo acabó. La barra
# rayada es la espera (TTFT); la lisa, el decode.


# %%
async def un_cliente(cliente, nombre, pregunta):
    medida = {"inicio": time.perf_counter(), "primer_token": None, "tokens": 0}
    flujo = await cliente.chat.completions.create(
        model=nombre,
        messages=[{"role": "user", "content": pregunta}],
        max_tokens=NUEVOS,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    async for evento in flujo:
        if evento.choices and medida["primer_token"] is None:
            medida["primer_token"] = time.perf_counter()
        if evento.usage:
            medida["tokens"] = evento.usage.completion_tokens
    medida["fin"] = time.perf_counter()
    return medida


async def todos(url, nombre, lista):
    async with AsyncOpenAI(base_url=url, api_key="sin-clave", max_retries=0) as cliente:
        return await asyncio.gather(*(un_cliente(cliente, nombre, pregunta) for pregunta in lista))


def resumen(medidas):
    reloj = max(m["fin"] for m in medidas) - min(m["inicio"] for m in medidas)
    esperas = sorted(m["primer_token"] - m["inicio"] for m in medidas)
    p50, p95 = (esperas[round((len(esperas) - 1) * p)] for p in (0.5, 0.95))
    return {
        "peticiones": len(medidas),
        "tok_s": sum(m["tokens"] for m in medidas) / reloj,
        "ttft_p50": p50,
        "ttft_p95": p95,
    }


corre(todos(mio.url, modelo.nombre, preguntas[:2]))
medidas_mias = corre(todos(mio.url, modelo.nombre, preguntas))
linea_de_tiempo(medidas_mias, f"{len(medidas_mias)} clientes en mi servidor")

# %% [markdown]
# Las barras se solapan: en cada paso avanzan todas. Si tu servidor las pusiera en fila, verías una escalera. Y esto es
# lo que leería Prometheus ahora mismo:

# %%
metricas = urlopen(mio.url.replace("/v1", "/metrics")).read().decode()
print(metricas)

# %% [markdown] tags=["cubre-A-tgi"]
# ## 5 · Compara
#
# **TGI** (*Text Generation Inference*, de Hugging Face) reparte este mismo trabajo entre dos lenguajes: un **router**
# en Rust y el modelo en Python. Es un diseño que conviene conocer; hoy está archivado y no se recomienda para empezar.
#
# | TGI | Qué hace | Tu pieza |
# |---|---|---|
# | router: validación | rechaza lo que no cabe antes de gastar un paso | `valida_peticion`, `valida_longitud` |
# | router: cola y lotes | decide quién entra en cada paso | `encarga`, el planificador |
# | router: streaming | SSE en dos idiomas: `/generate_stream` y *Messages API* (la de OpenAI) | `trozo_sse`, `crea_app` |
# | router: `/metrics` | contadores e histogramas para Prometheus | `expone_metricas` |
# | servidor de Python | el modelo, repartido entre GPU (paralelismo de tensores); caché de prefijos; varios motores | `motor.paso()` |
#
# `minillm serve` habla también el idioma propio de TGI, bajo `/tgi`. La celda lo prueba y mide después los dos
# servidores **por turnos**, con los mismos clientes. Ninguno usa la caché de prefijos: las preguntas se repiten en cada
# vuelta, y con ella se mediría otra cosa. La primera vuelta calienta y no cuenta.

# %%
VUELTAS = 2 if modelo.rapido else 5
opciones = ("--max-model-len", "1024", "--no-enable-prefix-caching")
with Servidor(modelo.carpeta, *opciones) as servidor:
    with OpenAI(base_url=servidor.url, api_key="sin-clave", max_retries=0) as cliente:
        nombre = cliente.models.list().data[0].id
    cuerpo = json.dumps({"inputs": "The capital of France is", "parameters": {"max_new_tokens": 4}}).encode()
    pedido = Pedido(servidor.url.replace("/v1", "/tgi/generate"), cuerpo, {"content-type": "application/json"})
    print("TGI:", json.load(urlopen(pedido)))
    puertas = {"tu servidor": (mio.url, modelo.nombre), "minillm serve, tus clientes": (servidor.url, nombre)}
    medidas = {quien: [] for quien in puertas}
    for vuelta in range(VUELTAS + 1):
        for quien, (url, servido) in puertas.items():
            medida = resumen(corre(todos(url, servido, preguntas)))
            if vuelta:
                medidas[quien].append(medida)
    tuyas = {quien: sorted(lista, key=lambda m: m["tok_s"])[len(lista) // 2] for quien, lista in medidas.items()}
    display(compara("cincuenta_clientes", modelo, tuyas=tuyas, url=servidor.url))
velocidades = {quien: medida["tok_s"] for quien, medida in tuyas.items()}
display(barras(velocidades, "tok/s", "Los mismos clientes, dos servidores"))
contra_serve = velocidades["tu servidor"] / velocidades["minillm serve, tus clientes"]
anota("L09", "mi servidor entre minillm serve", mi_prediccion()["contra_serve"], contra_serve, "×", modelo.nombre)
print(f"Tu servidor: {cifra(contra_serve, 2)}× el throughput de minillm serve (mediana de {VUELTAS} vueltas).")
print(f"Habías predicho {cifra(mi_prediccion()['contra_serve'], 2)}.")

# %% [markdown]
# Puede salir menos o más de 1, y parte de la diferencia es del experimento: tu servidor y tus clientes se reparten un
# solo intérprete de Python; `minillm serve` es otro proceso, que se disputa los núcleos con los clientes. Su puente está
# en `minillm_serve/engine/async_engine.py`: es como el tuyo, con un solo aviso al bucle de eventos por paso y buzones
# con límite para quien lee despacio.
#
# ## 6 · Rompe
#
# ### 6.1 El cliente que cuelga
#
# Un cliente pide una respuesta larga y cierra la ventana tras el primer trozo. Mira en `/metrics` cuántas peticiones
# siguen en curso antes y después.


# %%
def en_curso():
    lineas = urlopen(mio.url.replace("/v1", "/metrics")).read().decode().splitlines()
    return next(linea.rpartition(" ")[2] for linea in lineas if linea.startswith("aula:num_requests_running"))


with OpenAI(base_url=mio.url, api_key="sin-clave", max_retries=0) as cliente:
    flujo = cliente.chat.completions.create(
        model=modelo.nombre, messages=[{"role": "user", "content": PROMPTS[20]}], max_tokens=400, stream=True
    )
    next(iter(flujo))
    print("en curso, con el cliente leyendo:", en_curso())
    flujo.close()
limite = time.monotonic() + 20
while en_curso() != "0" and time.monotonic() < limite:
    time.sleep(0.05)
print("en curso, después de colgar:     ", en_curso())

# %% [markdown]
# Si el segundo número no bajara, cada persona que cierra una pestaña te costaría cientos de tokens que nadie lee.
#
# ### 6.2 Peticiones mal hechas
#
# El cliente oficial convierte cada código en una excepción. Comprueba que el mensaje dice qué campo arreglar.

# %%
pregunta = [{"role": "user", "content": "Hi"}]
malas = {
    "max_tokens con texto": {"model": modelo.nombre, "messages": pregunta, "extra_body": {"max_tokens": "many"}},
    "un modelo que no está": {"model": "gpt-imaginario", "messages": pregunta},
    "no cabe": {"model": modelo.nombre, "messages": pregunta, "max_tokens": 100_000},
    "guided_json": {"model": modelo.nombre, "messages": pregunta, "extra_body": {"guided_json": {"type": "object"}}},
}
with OpenAI(base_url=mio.url, api_key="sin-clave", max_retries=0) as cliente:
    for caso, argumentos in malas.items():
        try:
            cliente.chat.completions.create(**argumentos)
            print(f"{caso}: ¡200! La petición se aceptó.")
        except APIStatusError as error:
            print(f"{caso}: HTTP {error.status_code}, campo {error.body['param']!r}: {error.body['message']}")

# %% [markdown]
# ### 6.3 Un emoji partido
#
# El modelo pequeño escribe pocos emojis, así que el juguete lo hace por él: sus tokens cortan cada tres octetos. La
# primera línea es la de un servidor que convierte cada token por su cuenta; la segunda, la tuya.

# %%
piezas = [servir.respuesta_de_juguete("olé 🙂")[i : i + 3] for i in range(0, 42, 3)]
mi_texto = Decodificador()
print("por separado:", "".join(pieza.decode("utf-8", "replace") for pieza in piezas))
print("el tuyo:     ", "".join(mi_texto.agrega(pieza) for pieza in piezas) + mi_texto.termina())

# %% [markdown]
# ### 6.4 El puerto ocupado
#
# Dos servidores no pueden escuchar en el mismo puerto. Es el fallo más común al arrancar: un servidor anterior sigue
# vivo.

# %%
try:
    EnHilo(monta, puerto=mio.puerto)
except PortTaken as error:
    print(error)
mio.para()

# %% [markdown] tags=["errata-7"]
# ### 6.5 Errata 7: el servidor que pone a todos en fila
#
# Muchos apuntes enseñan a servir un modelo con un `main.py` así:
#
# ```python
# @app.post("/chat")
# async def chat(peticion: Peticion):
#     salida = modelo.generate([peticion.mensaje], parametros)
#     return {"respuesta": salida[0].outputs[0].text}
# ```
#
# Funciona con una persona. Con varias, `modelo.generate` **bloquea el bucle de eventos**: hasta que termina con una, la
# siguiente no existe para el servidor. No hay batching continuo entre usuarios, y ni siquiera `/health` contesta: el
# proxy creerá que el servidor ha muerto.
#
# Míralo. Un **latido** intenta despertar cada 10 ms; el mayor retraso dice cuánto estuvo parado el bucle. En el dibujo,
# la barra rayada es lo que cada persona espera a que su corrutina empiece.

# %%
MENSAJES = preguntas[: 4 if modelo.rapido else 8]


async def chat_apuntes(mensaje):
    charla = [[{"role": "user", "content": mensaje}]]
    return llm.chat(charla, SamplingParams(max_tokens=NUEVOS, temperature=0.0))[0].outputs[0].text


async def con_latido(trabajo):
    """(segundos en total, mayor parada del bucle de eventos, una medida por persona)."""
    parada, medidas = 0.0, []

    async def latido():
        nonlocal parada
        while True:
            antes = time.perf_counter()
            await asyncio.sleep(0.01)
            parada = max(parada, time.perf_counter() - antes - 0.01)

    async def persona(mensaje):
        inicio = time.perf_counter()
        await trabajo(mensaje)
        fin = time.perf_counter()
        medidas.append({"inicio": comienzo, "primer_token": inicio, "fin": fin})

    comienzo, latiendo = time.perf_counter(), asyncio.create_task(latido())
    await asyncio.sleep(0.02)
    await asyncio.gather(*map(persona, MENSAJES))
    total = time.perf_counter() - comienzo
    await asyncio.sleep(0.02)
    latiendo.cancel()
    return total, parada, medidas


en_fila, parada_en_fila, medidas_en_fila = corre(con_latido(chat_apuntes))
display(linea_de_tiempo(medidas_en_fila, "main.py de los apuntes"))
print(f"{len(MENSAJES)} personas en {cifra(en_fila, 2)} s; el bucle, parado hasta {cifra(parada_en_fila, 2)} s.")

# %% [markdown]
# Arréglalo: escribe `chat_arreglado(puente, mensaje, max_tokens)`, una corrutina que devuelve el texto **entero** de la
# respuesta a ese mensaje, con tu puente y sin bloquear. `mensaje` es el texto de una persona; al puente, como en 3.6,
# le llega una **lista** de mensajes. Los octetos se juntan antes de convertirlos en texto; si el último carácter quedó a
# medias, va un `�` en su lugar.


# %% nbgrader={"grade": false, "grade_id": "chat_arreglado", "locked": false, "schema_version": 3, "solution": true, "task": false}
async def chat_arreglado(puente, mensaje, max_tokens):
    """El texto de la respuesta; mientras llega, el bucle de eventos sigue libre."""
    ### BEGIN SOLUTION
    mensajes = [{"role": "user", "content": mensaje}]
    octetos = [trozo async for trozo in puente.genera(mensajes, max_tokens)]
    return b"".join(octetos).decode("utf-8", "replace")
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_chat_arreglado", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
comprobar("chat_arreglado")


# %%
async def con_puente():
    puente = Puente(MotorReal(llm))
    bucle = asyncio.create_task(puente.bucle())
    trabajo = asyncio.create_task(con_latido(lambda mensaje: chat_arreglado(puente, mensaje, NUEVOS)))
    await asyncio.wait({bucle, trabajo}, return_when=asyncio.FIRST_COMPLETED)
    if bucle.done():  # nadie mueve ya el motor: mejor el error que esperar para siempre
        bucle.result()
    bucle.cancel()
    return await trabajo


a_la_vez, parada_a_la_vez, _ = corre(con_puente())
print(f"{len(MENSAJES)} personas en {cifra(a_la_vez, 2)} s; el bucle, parado hasta {cifra(parada_a_la_vez, 2)} s.")
veces = en_fila / a_la_vez
anota("L09", "main.py bloqueante entre arreglado", mi_prediccion()["bloqueante"], veces, "×", modelo.nombre)
print(f"El de los apuntes tarda {cifra(veces, 1)} veces más.")
print(f"Habías predicho {cifra(mi_prediccion()['bloqueante'], 1)}.")

# %% [markdown]
# ¿Y quitar el `async`? Con `def chat(…)`, FastAPI llama a la función en otro hilo y el bucle queda libre, pero el motor
# recibe llamadas de varios hilos a la vez, y no está hecho para eso. Con un cerrojo vuelve la fila. El puente es lo que
# junta a todos en el mismo paso.
#
# El `Dockerfile` que suele acompañar a ese `main.py` tiene otros dos fallos:
#
# - parte de `python:3.11-slim`, que no trae CUDA: en una GPU, usa la imagen oficial de vLLM, con una versión **fija**
#   (no `latest`), y no necesitas `main.py`: el servidor ya está hecho;
# - la ruta del modelo acaba en `-q4`, como los archivos GGUF de llama.cpp; vLLM espera una carpeta de Hugging Face.

# %% [markdown] tags=["errata-1", "cubre-C-vllm-opciones"]
# ### 6.6 Errata 1: la orden que ya no se escribe así
#
# Los mismos apuntes arrancan vLLM con `python -m vllm.entrypoints.openai.api_server --model M`. Hoy esa orden avisa de
# que está en desuso. La actual es `vllm serve M`, con el modelo **sin** `--model`, y estas opciones siguen valiendo:
#
# | Opción | Qué fija | Cuidado |
# |---|---|---|
# | `--dtype` | tipo de los pesos | `bfloat16` en una GPU moderna, `float32` en una CPU |
# | `--max-model-len` | tokens de prompt y respuesta juntos | reserva de memoria, y límite que verá `valida_longitud` |
# | `--gpu-memory-utilization` | parte de la GPU que puede tomar | por defecto 0,92; de **toda** la memoria, no de la libre |
# | `--port` | puerto | el del apartado 6.4 |
#
# `minillm serve` acepta las mismas. Traduce tú la orden antes de abrir la respuesta:
#
# `python -m vllm.entrypoints.openai.api_server --model meta-llama/Llama-3.1-8B-Instruct --dtype bfloat16
# --max-model-len 4096`
#
# <details><summary>La orden de hoy</summary>
# <code>vllm serve meta-llama/Llama-3.1-8B-Instruct --dtype bfloat16 --max-model-len 4096</code></details>

# %% [markdown]
# ## 7 · Explica
#
# Responde con tus números delante (18 puntos, los lee tu docente):
#
# 1. Cuenta paso a paso qué ocurre desde que una persona cierra la pestaña hasta que su sitio en el motor queda libre.
#    Nombra tus funciones. (6)
# 2. `main.py` tardó varias veces más y el bucle estuvo parado. ¿Por qué sustituir la llamada por
#    `await asyncio.to_thread(modelo.generate, …)` libera el bucle y, aun así, no recupera el batching continuo? (6)
# 3. Tu servidor frente a `minillm serve`: ¿qué dice tu medida y qué parte puede deberse al experimento? Di dos cosas
#    que le faltan a tu servidor para producción y en qué pieza de la pila pondrías cada una. (6)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explica", "locked": false, "points": 18, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
#
# 1. El servidor web nota la desconexión y cancela la respuesta: se cierra `a_sse`, y con ella `eventos_de_chat`
#    (`aclosing`) y `genera`. El `finally` de `genera` quita la cola y, como no había acabado, encarga `aborta`. El
#    bucle lo cumple entre dos pasos: el motor suelta los bloques de la petición y su plaza. En el paso siguiente puede
#    entrar otra.
# 2. El hilo deja libre el bucle de eventos, pero cada llamada a `generate` sigue siendo un trabajo aparte: lleva su
#    petición hasta el final. Dos hilos no comparten un paso, así que los pesos se leen una vez por persona y no una vez
#    para todas; además el motor no admite dos hilos a la vez y habría que ponerle un cerrojo, que es otra fila.
# 3. Se valora que cite su razón y reconozca que clientes y servidor comparten proceso e intérprete. Faltan, por
#    ejemplo: límite de frecuencia y TLS (proxy), cola acotada con 429 (servidor), claves (proxy o servidor), límites a
#    lectores lentos (servidor), alertas (supervisión), varias réplicas (autoescalado).
#
# ### END SOLUTION

# %% [markdown]
# ## 8 · Autoevaluación
#
# Piensa tu respuesta y abre cada opción.
#
# **A. El texto de una respuesta contiene dos saltos de línea seguidos. ¿Qué impide que parta el evento SSE?**
#
# <details><summary>Nada: hay que quitar los saltos antes de enviar</summary>No: cambiarías la respuesta. El JSON ya los
# escribe como dos caracteres, y el formato no los ve.</details>
# <details><summary>Que va dentro de una cadena JSON</summary>Correcto. Ahí un salto de línea es <code>\n</code>, sin salto
# de verdad.</details>
# <details><summary>Que <code>transmision</code> los escapa</summary>No: envía tal cual lo que le des. Escapar es
# cosa de <code>trozo_sse</code>.</details>
#
# **B. Llegan los octetos `F0 9F 99` y nada más por ahora. ¿Qué debe entregar `agrega`?**
#
# <details><summary><code>�</code></summary>Todavía no: puede ser un emoji al que le falta un octeto. Solo
# <code>termina</code> puede darlo por perdido.</details>
# <details><summary>La cadena vacía</summary>Correcto: <code>F0</code> anuncia cuatro octetos y van tres.</details>
# <details><summary>Un error 500</summary>No: un octeto pendiente es lo normal en mitad de una respuesta.</details>
#
# **C. `/metrics` da 40 en el cubo `le="0.5"` y 30 en el cubo `le="1"`. ¿Qué ocurre?**
#
# <details><summary>Que la mayoría fue rápida</summary>No puede ser: quien tardó 0,5 s o menos también tardó 1 s o
# menos.</details>
# <details><summary>Que los cubos no están acumulados</summary>Correcto: cada cubo cuenta también a los anteriores, así
# que nunca puede bajar.</details>
#
# **D. Un cliente manda un campo que tu servidor no conoce. ¿Qué es peor?**
#
# <details><summary>Contestar 400</summary>Molesta, pero se ve enseguida y el mensaje dice qué quitar.</details>
# <details><summary>Contestar 200 e ignorarlo</summary>Correcto: quien lo mandó cree que se obedeció. Así se perdieron
# los JSON de <code>guided_json</code>.</details>
