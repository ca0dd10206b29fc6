# %% [markdown] tags=["corta"]
# # Lab 1 · El bucle autorregresivo y la caché KV
#
# Un modelo de lenguaje escribe un token, vuelve a leerlo **todo** y escribe el siguiente. Hecho tal cual, ese bucle repite
# casi todo su trabajo en cada vuelta. La **caché KV** es la memoria que lo evita, y casi todo lo que hace un servidor de
# LLM (lotes, páginas, prefijos compartidos) existe para administrarla. Aquí la escribes tú y mueves con ella el modelo de
# verdad.
#
# No hace falta haber servido nunca un modelo. Sí hace falta saber Python y manejar tensores de PyTorch.
#
# **Al terminar puedes…**
#
# | Resultado de aprendizaje | Comprobación |
# |---|---|
# | contar el trabajo con caché y sin ella: de O(n²) a O(n) | `trabajo` |
# | escribir la atención de un token sobre lo guardado, con GQA | `atencion` |
# | escribir la de muchos tokens a la vez sin mirar al futuro | `atencion_causal` |
# | guardar, devolver y rebobinar claves y valores | `cache_kv` |
# | separar prefill y decode en el bucle que genera | `genera` |
# | calcular cuánta memoria pide la caché de un modelo | `bytes_kv` |
# | decir cuántas peticiones caben en una GPU | `cuantos_caben` |
#
# **Tiempo:** 100 minutos. **Pista corta:** 20 minutos (las celdas con la etiqueta `corta`).
# **Puntos:** 100 (85 automáticos y 15 que lee tu docente).
#
# **La pista corta** es este camino: la preparación, las secciones 1, 2 y 3.1, y de la 3.7 lo que va hasta
# `comprobar("bytes_kv")` y la celda siguiente. Salta lo demás.
#
# > Cada `comprobar(…)` pasa las comprobaciones **públicas**. Al calificar se usan además otras, **ocultas**, con otros
# > datos: pasar las públicas no asegura la nota entera. Cumple también lo que dice el texto.
#
# > El modelo es pequeño (SmolLM2, 135 millones de parámetros) y responde mejor en inglés: por eso los prompts están en
# > inglés. Aquí se estudia el motor, no el ingenio del modelo.

# %% [markdown] tags=["corta"]
# ## Preparación
#
# Ejecuta la celda y lee qué modelo te toca. Si dice «modelo diminuto», todo funciona igual, pero los textos no tienen
# sentido y las velocidades no sirven como medida.

# %% nbgrader={"grade": false, "grade_id": "preparacion", "locked": true, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
from statistics import median
from time import perf_counter

import torch

from minilab.bancos.bucle import ConTuCache, SinCache, carga
from minilab.bitacora import anota
from minilab.comparar import compara
from minilab.comprobar import comprobar
from minilab.cronometro import mide
from minilab.cuaderno import prepara
from minilab.marcas import sirve
from minilab.vistas.cifras import cifra, porcentaje, significativa
from minilab.widgets import ver_qkt, ver_vram
from minillm_serve import LLM, SamplingParams

modelo = prepara("L01")
NUEVOS = 12 if modelo.rapido else 48
VECES = 1 if modelo.rapido else 3
PREGUNTA = "What is the capital of France?"

# %% [markdown] tags=["corta", "cubre-B-kv", "cubre-B-prefill"]
# ## 1 · Idea
#
# ### El bucle
#
# Para este lab, un modelo es una función: recibe una lista de tokens (números que nombran trozos de texto) y devuelve una
# puntuación para cada token que podría venir después. A esas puntuaciones se las llama **logits**. Elegir siempre el de
# mayor puntuación se llama *greedy*. Generar es un bucle:
#
# ```text
#   [The capital of France is]              → Paris
#   [The capital of France is Paris]        → .
#   [The capital of France is Paris .]      → It
# ```
#
# Cada vuelta se alimenta de lo que ella misma escribió: por eso se llama **autorregresivo**. Los tokens que le das tú son
# el **prompt**.
#
# ### Qué hace el modelo con cada token
#
# Cada capa del modelo transforma un vector por token. Dos cosas pasan en ella:
#
# 1. **Multiplicar por los pesos.** A cada token por separado: uno no sabe nada de los demás.
# 2. **Atención.** Es el único sitio donde un token mira a otros. De cada token salen tres vectores:
#
#    - la **consulta** (*query*, q): qué busco;
#    - la **clave** (*key*, k): cómo me encuentran;
#    - el **valor** (*value*, v): qué entrego si me encuentran.
#
#    El token que pregunta compara su consulta con la clave de cada token anterior y con la suya (un producto escalar q·k
#    por cada uno), convierte las comparaciones en pesos que suman 1 (*softmax*) y hace la media de los valores con esos
#    pesos. Cada capa hace esto varias veces a la vez, con vectores distintos: cada una de esas veces es una **cabeza**.
#
# Hay una regla: **nadie mira hacia delante**. El token 2 ve el 0, el 1 y el 2. A eso se le llama atención **causal**.
#
# ### El desperdicio
#
# Apunta quién mira a quién con 3 tokens, y luego con 4. Cada `×` es un producto q·k:
#
# ```text
#              k0 k1 k2                   k0 k1 k2 k3
#          q0  ×                      q0  ×
#          q1  ×  ×                   q1  ×  ×
#          q2  ×  ×  ×                q2  ×  ×  ×
#                                     q3  ×  ×  ×  ×     ← lo único nuevo
# ```
#
# El triángulo de la izquierda está **entero** dentro del de la derecha. Como nadie mira hacia delante, el token 3 no
# cambia nada de los anteriores: sus claves y sus valores son, número por número, los de antes. Calcularlos otra vez es
# tirar el trabajo.
#
# ### La cura
#
# Guarda las claves (K) y los valores (V) de cada token en cada capa: esa memoria es la **caché KV**. Las consultas no se
# guardan: cada una se usa una sola vez. El bucle queda partido en dos fases:
#
# - **Prefill**: el prompt entero pasa por el modelo de una vez y llena la caché.
# - **Decode**: en cada paso pasa **un** token, el último; mira a todos los guardados y deja su fila.
#
# El precio también está en el dibujo: la caché gana una fila por token, en cada capa, y no la suelta mientras la petición
# viva. **Se cambia cálculo por memoria.**

# %% [markdown] tags=["corta"]
# ## 2 · Predice
#
# Escribe tus números antes de calcular nada. Cualquiera mayor que 0 vale.
#
# - `sin_cache`: si le quitas la caché al bucle, ¿cuántas veces más tarda en escribir unos 50 tokens tras un prompt corto?
# - `kib_por_token`: ¿cuántos KiB ocupa en la caché **un** token de SmolLM2? (1 KiB = 1024 bytes.) Aún no tienes la cuenta
#   exacta; tantéala con esto: el modelo tiene 30 capas, en cada una un token es un vector de 576 números, y un número
#   ocupa 4 bytes.


# %% nbgrader={"grade": false, "grade_id": "prediccion", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
def mi_prediccion():
    """Devuelve {"sin_cache": número, "kib_por_token": número}."""
    ### BEGIN SOLUTION
    return {"sin_cache": 5.0, "kib_por_token": 10.0}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_prediccion", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("prediccion_l01")

# %% [markdown] tags=["corta", "cubre-C-kv"]
# ## 3 · Construye
#
# ### 3.1 Cuenta el desperdicio
#
# Antes de curarlo, mídelo con lápiz. Un prompt de `n` tokens y `m` tokens nuevos piden `m` pasos (el último token no
# vuelve a entrar: nadie pregunta qué viene después). Con `n = 3` y `m = 2`:
#
# | Paso | Texto | Sin caché entran | productos q·k | Con caché entran | productos q·k |
# |---|---|---|---|---|---|
# | 1 | 3 tokens | 3 | 1 + 2 + 3 = 6 | 3 | 6 |
# | 2 | 4 tokens | 4 | 1 + 2 + 3 + 4 = 10 | 1 | 4 |
# | **total** | | **7** | **16** | **4** | **10** |
#
# **Tu tarea:** implementa `trabajo(n, m, con_cache)`. Devuelve `{"tokens": …, "productos": …}`: los tokens que pasan por el
# modelo en total y los productos q·k en una sola cabeza de una sola capa. El token de la posición `i` (contando desde 0) hace
# `i + 1` productos.


# %% nbgrader={"grade": false, "grade_id": "trabajo", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
def trabajo(n, m, con_cache):
    """Trabajo de generar m ≥ 1 tokens tras un prompt de n ≥ 1 tokens.

    Devuelve {"tokens": int, "productos": int}, sumado sobre los m pasos.
    """
    ### BEGIN SOLUTION
    tokens = productos = 0
    for paso in range(m):
        longitud = n + paso
        primero = longitud - 1 if con_cache and paso > 0 else 0
        tokens += longitud - primero
        productos += sum(i + 1 for i in range(primero, longitud))
    return {"tokens": tokens, "productos": productos}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_trabajo", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("trabajo")

# %% [markdown] tags=["corta"]
# Ahora crece. Cada fila dobla la respuesta: mira por cuánto se multiplica cada columna.

# %% tags=["corta", "cubre-C-kv"]
print("nuevos │ tokens sin │ tokens con │ productos sin │ productos con")
for m in (32, 64, 128, 256, 512, 1024):
    sin, con = trabajo(32, m, False), trabajo(32, m, True)
    print(f"{m:6} │ {sin['tokens']:10} │ {con['tokens']:10} │ {sin['productos']:13} │ {con['productos']:13}")

# %% [markdown] tags=["corta"]
# En las últimas filas, doblar la respuesta multiplica los tokens que entran por casi **4** sin caché y por casi **2** con
# ella.

# %% [markdown]
# Los apuntes (las presentaciones y guías de las que parte este curso) lo resumen como «de O(n²) a O(n) por token».
# Léelo con cuidado, porque se cuentan dos cosas. **Para escribir un token más** con `n` tokens delante, sin caché
# entran `n` tokens y se hacen del orden de `n²` productos; con caché entra uno y se hacen `n`. **Para la respuesta
# entera** hay que sumar: los tokens pasan de cuadráticos a lineales y los productos, de cúbicos a cuadráticos. La
# atención con caché sigue creciendo: cada token nuevo mira a uno más que el anterior.

# %% [markdown] tags=["corta"]
# Así se ve, paso a paso, con un prompt de 3 tokens y 4 nuevos. Mueve el paso: la leyenda dice qué celdas son nuevas, cuáles
# se repiten y cuáles están guardadas. En el paso 2, las barras son la fila **total** de la tabla de arriba (`n = 3`,
# `m = 2`): 16 productos sin caché y 10 con ella. En el último, lo que da `trabajo(3, 4, …)`.

# %% tags=["corta"]
ver_qkt(["The", "sky", "is"], ["blue", "and", "clear", "."])

# %% [markdown]
# ### 3.2 La atención de un token
#
# Empieza por el decode: **una** consulta que mira a `S` tokens guardados. Con números que caben en papel: una cabeza,
# vectores de 2 números (`D = 2`), dos tokens guardados.
#
# ```text
#   q  = [2, 0]
#   k0 = [1, 0]   v0 = [10,  0]        q·k0 = 2     2 / √2 = 1,41      softmax → 0,80
#   k1 = [0, 1]   v1 = [ 0, 10]        q·k1 = 0     0 / √2 = 0         softmax → 0,20
#
#   salida = 0,80 · v0 + 0,20 · v1 = [8, 2]
# ```
#
# Se divide entre √D para que el softmax no se vaya a los extremos cuando los vectores son largos.
#
# El modelo hace esto con `H` consultas a la vez, una por **cabeza**: cada una busca otra cosa. Y aquí está el truco que
# ahorra memoria, **GQA** (*grouped-query attention*): hay `H` cabezas de consulta pero solo `G` de claves y valores, y
# `H / G` consultas **comparten** cada una de esas `G`. SmolLM2 tiene H = 9 y G = 3: de tres en tres.
#
# ```text
#   consultas  0 1 2   3 4 5   6 7 8
#   grupo        0       1       2        la cabeza h lee el grupo h // (H / G)
# ```
#
# La caché guarda `G` cabezas, no `H`: aquí, la tercera parte.
#
# **Tu tarea:** implementa `atencion(q, claves, valores)`.
#
# - `q`: forma `[H, D]`. `claves` y `valores`: forma `[S, G, D]`, con `S` tokens guardados.
# - Devuelve `[H, D]`.
#
# Una manera: repite cada cabeza de claves `H // G` veces **seguidas** (`repeat_interleave` en la dimensión 1) y ya tienes
# `[S, H, D]`; después, `torch.einsum("hd,shd->hs", …)` da los productos de cada cabeza con cada token.


# %% nbgrader={"grade": false, "grade_id": "atencion", "locked": false, "schema_version": 3, "solution": true, "task": false}
def atencion(q, claves, valores):
    """La atención de un token: q [H, D] sobre claves y valores [S, G, D] → [H, D]. H es múltiplo de G."""
    ### BEGIN SOLUTION
    comparten = q.shape[0] // claves.shape[1]
    k = claves.repeat_interleave(comparten, dim=1)
    v = valores.repeat_interleave(comparten, dim=1)
    puntos = torch.einsum("hd,shd->hs", q, k) / q.shape[1] ** 0.5
    return torch.einsum("hs,shd->hd", torch.softmax(puntos, dim=1), v)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_atencion", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false}
comprobar("atencion")

# %% [markdown]
# ### 3.3 La atención de muchos tokens
#
# En el prefill entran muchos tokens a la vez y cada uno debe ver solo lo suyo. Con la caché delante hay que llevar la
# cuenta: si en total hay `S` tokens y los **últimos** `T` son los que preguntan, antes de ellos hay `S − T`.
#
# ```text
#   S = 5 en total, T = 2 preguntan          k0 k1 k2 k3 k4
#                                    q de 3   ×  ×  ×  ×         ve S − T + 0 + 1 = 4
#                                    q de 4   ×  ×  ×  ×  ×      ve S − T + 1 + 1 = 5
# ```
#
# No hace falta ninguna máscara: lo que un token no debe ver, **no se le da**.
#
# **Tu tarea:** implementa `atencion_causal(q, claves, valores)` con tu `atencion`.
#
# - `q`: `[T, H, D]`. `claves` y `valores`: `[S, G, D]`, con `S ≥ T`; las consultas son de los últimos `T` tokens.
# - Devuelve **un tensor** `[T, H, D]`, no una lista: `torch.stack(filas)` une una lista de tensores iguales.
#
# > Un bucle de Python sobre los tokens es a propósito lo más simple, no lo más rápido: un motor hace el prefill con una
# > sola multiplicación de matrices y una máscara. Eso llega en el Lab 4.


# %% nbgrader={"grade": false, "grade_id": "atencion_causal", "locked": false, "schema_version": 3, "solution": true, "task": false}
def atencion_causal(q, claves, valores):
    """q [T, H, D] de los últimos T tokens, sobre claves y valores [S, G, D] → [T, H, D]; nadie mira hacia delante."""
    ### BEGIN SOLUTION
    antes = claves.shape[0] - q.shape[0]
    filas = []
    for i in range(q.shape[0]):
        ve = antes + i + 1
        filas.append(atencion(q[i], claves[:ve], valores[:ve]))
    return torch.stack(filas)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_atencion_causal", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("atencion_causal")

# %% [markdown]
# ### 3.4 La caché
#
# Una caché por petición. Cada capa guarda sus claves y sus valores, un par de tensores `[S, G, D]` que crecen por el final:
#
# ```text
#   capa 0   K [S, G, D]   V [S, G, D]
#   capa 1   K [S, G, D]   V [S, G, D]
#   …
# ```
#
# Un paso recorre las capas en orden, y en cada una llama a `agrega` con lo de los tokens nuevos.
#
# ¿Y **rebobinar**? A veces hay que olvidar los últimos tokens: alguien corrige su texto, o unos tokens propuestos no se
# aceptan (Lab 7). Basta con cortar por el final: como nadie miró hacia delante, lo que queda sigue siendo válido.
#
# **Tu tarea:** completa los tres métodos de `CacheKV`.
#
# | Método | Qué hace |
# |---|---|
# | `agrega(capa, k, v)` | pone `k` y `v` (`[T, G, D]`) al final de lo de esa capa y devuelve **todo** lo de la capa: `(K, V)` |
# | `rebobina(n)` | quita los `n` **últimos** tokens en todas las capas; si `n` es negativo o mayor que `largo()`, lanza `ValueError` sin tocar nada |
# | `largo()` | cuántos tokens hay guardados en la última capa: los que ya pasaron por todo el modelo |
#
# Una caché recién creada está vacía: `largo()` es 0, `rebobina(0)` no hace nada y cualquier otro `rebobina` lanza
# `ValueError`. A mitad de un paso unas capas ya tienen los tokens nuevos y otras no: por eso `largo()` mira la última.
# `rebobina` solo se llama entre pasos, cuando todas las capas guardan los mismos tokens.
#
# Pegar dos tensores por el final es `torch.cat((a, b))`. La trampa de Python está en `rebobina(0)`: `x[:-0]` es `x[:0]`,
# y eso no es «no quitar nada».
#
# > `torch.cat` copia la caché entera en cada paso. Se entiende, y en producción no se hace: el Lab 3 la guarda en bloques
# > que no se mueven.


# %% nbgrader={"grade": false, "grade_id": "cache_kv", "locked": false, "schema_version": 3, "solution": true, "task": false}
class CacheKV:
    """Las claves y los valores de una petición. claves[capa] y valores[capa]: None o un tensor [S, G, D]."""

    def __init__(self, capas):
        self.claves = [None] * capas
        self.valores = [None] * capas

    def agrega(self, capa, k, v):
        """Guarda k y v [T, G, D] al final de la capa; devuelve todas sus claves y todos sus valores, [S, G, D]."""
        ### BEGIN SOLUTION
        for guardado, nuevo in ((self.claves, k), (self.valores, v)):
            guardado[capa] = nuevo if guardado[capa] is None else torch.cat((guardado[capa], nuevo))
        return self.claves[capa], self.valores[capa]
        ### END SOLUTION

    def rebobina(self, n):
        """Quita los n últimos tokens de todas las capas."""
        ### BEGIN SOLUTION
        if not 0 <= n <= self.largo():
            raise ValueError(f"no se pueden quitar {n} tokens de {self.largo()}")
        quedan = self.largo() - n
        for guardado in (self.claves, self.valores):
            for capa, tensor in enumerate(guardado):
                guardado[capa] = None if tensor is None else tensor[:quedan]
        ### END SOLUTION

    def largo(self):
        """Tokens guardados en la última capa."""
        ### BEGIN SOLUTION
        return 0 if self.claves[-1] is None else self.claves[-1].shape[0]
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_cache_kv", "locked": true, "points": 20, "schema_version": 3, "solution": false, "task": false}
comprobar("cache_kv")

# %% [markdown] tags=["cubre-B-prefill"]
# ### 3.5 El bucle que genera
#
# Ya están las piezas. El modelo se usa así: `logits = modelo(ids, posiciones)`.
#
# - `ids`: los tokens que entran **ahora**. Lo anterior ya está en la caché, que el modelo lleva dentro.
# - `posiciones`: el lugar de cada uno en el texto, contando desde 0. El modelo no adivina el orden: si le dices que el
#   token nuevo es el 0, creerá que empieza el texto.
# - `logits`: tensor `[vocabulario]` con la puntuación de cada token que podría venir **después del último** de `ids`.
#
# Con un prompt `[5, 6, 9]` y tres tokens nuevos, las tres llamadas son exactamente estas:
#
# ```text
#   modelo([5, 6, 9], [0, 1, 2])  → 4      prefill: el prompt entero, una vez
#   modelo([4],       [3])        → 2      decode: solo el nuevo, en su posición
#   modelo([2],       [4])        → 7      y se acabó: nadie pregunta qué sigue al 7
# ```
#
# **Tu tarea:** implementa `genera(modelo, prompt, nuevos, fin=None)`. Devuelve la lista de tokens nuevos (enteros de Python:
# `int(logits.argmax())`), como mucho `nuevos`. Si sale el token `fin`, termina ahí: ni se devuelve ni se vuelve a llamar al
# modelo. Ojo: el token 0 es un token como cualquier otro, y también puede ser el `fin`.
#
# `Guion` es un modelo de mentira que sirve para comprobarlo: dice lo que pone su guion, y apunta cómo lo llamaste y de qué
# tipo es lo que devuelves. No lo cambies.


# %% nbgrader={"grade": false, "grade_id": "genera", "locked": false, "schema_version": 3, "solution": true, "task": false}
class Guion:
    """Un modelo de mentira: responde lo que dice su guion y apunta los ids y las posiciones de cada llamada."""

    def __init__(self, respuestas):
        self.respuestas, self.llamadas = respuestas, []

    def __call__(self, ids, posiciones):
        turno = len(self.llamadas) % len(self.respuestas)
        self.llamadas.append([list(ids), list(posiciones)])
        logits = torch.zeros(max(self.respuestas) + 1)
        logits[self.respuestas[turno]] = 1.0
        return logits

    def prueba(self, prompt, nuevos, fin):
        tokens = genera(self, prompt, nuevos, fin)
        return {"tokens": tokens, "tipos": [type(t).__name__ for t in tokens], "llamadas": self.llamadas}


def genera(modelo, prompt, nuevos, fin=None):
    """Generación greedy: el prompt una vez (prefill) y después un token por paso (decode)."""
    ### BEGIN SOLUTION
    ids, posicion, salida = list(prompt), 0, []
    while len(salida) < nuevos:
        logits = modelo(ids, list(range(posicion, posicion + len(ids))))
        posicion += len(ids)
        token = int(logits.argmax())
        if token == fin:
            break
        salida.append(token)
        ids = [token]
    return salida
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_genera", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false}
comprobar("genera")

# %% [markdown]
# ### 3.6 Tu caché mueve el modelo de verdad
#
# `carga` abre el modelo del motor (los mismos pesos, la misma aritmética) y `ConTuCache` lo ejecuta con **tu** caché y **tu**
# atención: cada capa llama a tu `agrega` y a tu `atencion_causal`. `SinCache` es lo mismo sin memoria entre pasos: cada
# llamada vuelve a meter el texto entero. Tu `genera` mueve los dos. Al lado, el motor del curso.
#
# Dos llamadas que verás: `apply_chat_template` pone la pregunta en el formato de conversación con el que se entrenó el
# modelo y la convierte en tokens; `reset_prefix_cache` borra lo que el motor recuerda de prompts anteriores (Lab 5), para
# que cada medida empiece igual.
#
# Para medir lo mismo, los tres escriben el mismo número de tokens aunque el modelo marque antes el **fin de texto**. La
# respuesta se muestra hasta esa marca: lo que viene después no significa nada.

# %%
red = carga(modelo)
capas = red.config.num_layers
llm = LLM(model=modelo.carpeta)
prompt = llm.tokenizer.apply_chat_template([{"role": "user", "content": PREGUNTA}])
voraz = SamplingParams(temperature=0.0, max_tokens=NUEVOS, ignore_eos=True)


def con_tu_cache():
    return genera(ConTuCache(red, CacheKV(capas), atencion_causal), prompt, NUEVOS)


def sin_cache():
    return genera(SinCache(red, lambda: CacheKV(capas), atencion_causal), prompt, NUEVOS)


def con_el_motor():
    llm.reset_prefix_cache()
    return list(llm.generate([prompt], voraz)[0].outputs[0].token_ids)


tokens = {"sin caché": sin_cache(), "con tu caché": con_tu_cache(), "el motor": con_el_motor()}
escrito = tokens["con tu caché"]
fin = next((i for i, token in enumerate(escrito) if token in llm.tokenizer.eos_token_ids), len(escrito))
print(f"«{PREGUNTA}» → «{llm.tokenizer.decode(escrito[:fin]).strip()}» ({fin} de {len(escrito)} tokens)")
iguales = tokens["con tu caché"] == tokens["el motor"] == tokens["sin caché"]
print("Los tres dan los mismos tokens." if iguales else "¡Los tokens NO coinciden! Revisa las secciones 3.2 a 3.5.")

# %% [markdown]
# Los mismos tokens: la caché no es una aproximación. Y ahora el reloj.

# %%
tiempos = {
    "sin caché": mide(sin_cache, veces=VECES, calienta=0),
    "con tu caché": mide(con_tu_cache, veces=VECES, calienta=1),
    "el motor": mide(con_el_motor, veces=VECES, calienta=1),
}
for nombre, medida in tiempos.items():
    print(f"{nombre:>12}: {significativa(NUEVOS / medida.mediana):>6} tok/s   {medida}")
razon = tiempos["sin caché"].mediana / tiempos["con tu caché"].mediana
con, sin = trabajo(len(prompt), NUEVOS, True), trabajo(len(prompt), NUEVOS, False)
print(f"Quitar la caché multiplica el tiempo por {significativa(razon)}.")
print(f"Por el modelo pasan {significativa(sin['tokens'] / con['tokens'])} veces más tokens.")
anota("L01", "tiempo sin caché contra con ella", mi_prediccion()["sin_cache"], razon, "×", modelo.nombre)

# %% [markdown]
# Los dos números no coinciden, y esta medida no dice por qué: mezcla dos causas. Una es tu código. Tu `atencion_causal`
# recorre los tokens con un bucle de Python, y sin caché lo recorre entero en cada paso. Mira cuánto pesa:

# %%
dentro = 0.0


def cronometrada(q, claves, valores):
    global dentro
    inicio = perf_counter()
    salida = atencion_causal(q, claves, valores)
    dentro += perf_counter() - inicio
    return salida


posiciones = list(range(len(prompt)))
paso = mide(lambda: ConTuCache(red, CacheKV(capas), cronometrada)(prompt, posiciones), veces=3, calienta=0)
print(f"De un paso con {len(prompt)} tokens, el {porcentaje(dentro / sum(paso.segundos))} se va en tu atencion_causal.")

# %% [markdown]
# La otra causa es de la máquina: un paso con cuarenta tokens **no** tarda cuarenta veces lo que uno con un token, aunque no
# haya ningún bucle. En 3.8 verás por qué, y en la sección 5 la medirás sola, con el motor. El motor usa tu misma idea; lo
# que gana además son **núcleos compilados**: funciones en código de máquina que hacen toda la operación de una vez (Lab 4).
#
# > En modo rápido se escriben pocos tokens y se mide una sola vez: los tiempos bailan. Repite la celda antes de sacar
# > conclusiones.

# %% [markdown] tags=["corta"]
# ### 3.7 ¿Cuánto ocupa?
#
# Cada capa tiene `H` cabezas de consulta, pero solo `G` de claves y valores: `H / G` consultas comparten cada una (se llama
# GQA, y es la sección 3.2). Cada clave y cada valor son `D` números. Así que de cada token se guardan, en cada capa, `G`
# claves y `G` valores de `D` números. Nada más. Para un modelo de juguete con 2 capas, `G = 1`, `D = 4` y números de 2
# bytes, un token ocupa `2 · 2 · 1 · 4 · 2 = 32` bytes: el primer 2 es «clave y valor».
#
# **Tu tarea:** implementa `bytes_kv(capas, cabezas_kv, dim, tokens, bytes_por_numero)`, donde `cabezas_kv` es `G` y `dim`
# es `D`. Fíjate en lo que **no** aparece: las cabezas de consulta.


# %% nbgrader={"grade": false, "grade_id": "bytes_kv", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
def bytes_kv(capas, cabezas_kv, dim, tokens, bytes_por_numero):
    """Bytes que ocupan en la caché KV `tokens` tokens de una petición."""
    ### BEGIN SOLUTION
    return 2 * capas * cabezas_kv * dim * tokens * bytes_por_numero
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_bytes_kv", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("bytes_kv")

# %% tags=["corta", "cubre-B-kv"]
por_token = bytes_kv(30, 3, 64, 1, 4)  # SmolLM2-135M: 30 capas, G = 3, D = 64, float32
print(f"SmolLM2-135M en float32: {cifra(por_token / 1024)} KiB por token")
anota(
    "L01",
    "KiB de caché por token de SmolLM2",
    mi_prediccion()["kib_por_token"],
    por_token / 1024,
    "KiB",
    "smollm2-135m",
)
grande = {"G = 8, como es": 8, "sin GQA (G = H = 32)": 32}
for nombre, cabezas in grande.items():
    gib = bytes_kv(32, cabezas, 128, 8192, 2) / 2**30  # Llama 3 8B: 32 capas, D = 128, bfloat16
    print(f"Llama 3 8B, una petición de 8192 tokens, {nombre}: {cifra(gib)} GiB")

# %% [markdown]
# Compara: los pesos de un modelo de 8 mil millones de parámetros en bfloat16 (2 bytes por número) ocupan unos 16 mil
# millones de bytes, **una vez para todas** las peticiones. La caché se paga **por petición**: por eso es ella, y no el
# modelo, quien decide a cuántas personas atiendes a la vez.
#
# **Tu tarea:** implementa `cuantos_caben(memoria, pesos, por_peticion)`, todo en bytes enteros: cuántas peticiones enteras
# caben en lo que dejan los pesos. Nunca es negativo.


# %% nbgrader={"grade": false, "grade_id": "cuantos_caben", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cuantos_caben(memoria, pesos, por_peticion):
    """Peticiones que caben a la vez en la memoria que dejan los pesos."""
    ### BEGIN SOLUTION
    return max(0, (memoria - pesos) // por_peticion)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_cuantos_caben", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
comprobar("cuantos_caben")

# %%
pesos_8b = 16_000_000_000
for gb in (24, 80):
    for contexto in (2048, 8192, 32768):
        caben = cuantos_caben(gb * 10**9, pesos_8b, bytes_kv(32, 8, 128, contexto, 2))
        print(f"Llama 3 8B, GPU de {gb} GB, {contexto:5} tokens por petición: caben {caben} a la vez")

# %% [markdown] tags=["cubre-A-metricas", "cubre-B-prefill"]
# ### 3.8 El prefill calcula, el decode lee
#
# ¿Por qué un paso con 40 tokens no tarda 40 veces más que uno con 1? Porque para hacer un paso hay dos gastos distintos:
#
# - **leer los pesos** de la memoria: todos, una vez por paso, entren los tokens que entren;
# - **multiplicar**: unas 2 operaciones por peso y por token.
#
# La **intensidad** es cuántas operaciones (FLOP) se hacen por byte leído. Con pesos de 4 bytes y `n` tokens en el paso es
# `2 · n / 4`: con un token, media operación por byte. Cada máquina tiene su punto de equilibrio: las operaciones que sabe
# hacer en el tiempo de leer un byte. Por debajo, el procesador espera a la memoria; por encima, la memoria espera al
# procesador. Se mide aquí mismo, con una multiplicación grande y una copia grande:

# %%
lado, millones = (512, 8) if modelo.rapido else (1536, 16)
a, grande = torch.randn(lado, lado), torch.randn(millones * 2**20)
destino = torch.empty_like(grande)
gflop_s = 2 * lado**3 / mide(lambda: a @ a).mediana / 1e9
gb_s = 2 * 4 * grande.numel() / mide(lambda: destino.copy_(grande)).mediana / 1e9
equilibrio = gflop_s / gb_s
velocidades = f"{significativa(gflop_s)} GFLOP/s y {significativa(gb_s)} GB/s"
print(f"este equipo: {velocidades} → equilibrio en {significativa(equilibrio)} FLOP por byte")
for n in (1, 8, 64, 512):
    intensidad = 2 * n / 4
    quien = "manda el ancho de banda de la memoria" if intensidad < equilibrio else "manda el cálculo"
    print(f"{n:4} tokens en el paso: {cifra(intensidad, 1):>6} FLOP por byte → {quien}")

# %% [markdown]
# Un paso de decode de una sola petición es la fila de `n = 1`: **manda el ancho de banda**. Un prefill son muchos tokens en
# un paso: **manda el cálculo**. Compruébalo con el motor: cuánto tarda **por token** cada fase.

# %%
largo = " ".join(f"Item {i} is a short line of text." for i in range(8 if modelo.rapido else 20))
sirve(llm, [largo], 2)
medida = sirve(llm, [largo], NUEVOS)[0]
entran = len(llm.tokenizer.apply_chat_template([{"role": "user", "content": largo}]))
prefill_ms = 1000 * (medida["tiempos"][0] - medida["inicio"]) / entran
decode_ms = 1000 * (medida["fin"] - medida["tiempos"][0]) / (NUEVOS - 1)
por_fase = f"{significativa(prefill_ms)} ms por token · decode: {significativa(decode_ms)} ms por token"
print(f"prefill de {entran} tokens: {por_fase}")
print(f"un token de decode cuesta {significativa(decode_ms / prefill_ms)} veces lo que uno de prefill")

# %% [markdown]
# De aquí sale la idea del lab siguiente: si un paso de decode lee todos los pesos para **un** token, que los lea para los
# tokens de **muchas** peticiones a la vez.
#
# ## 4 · Mira
#
# La matriz de tu propia generación: los tokens de un prompt corto y los que escribió **tu** bucle. Mueve el paso. Hay un
# paso por token nuevo, como en `trabajo`: el último no vuelve a entrar.

# %%
frase = list(llm.tokenizer.encode("The sky is blue because"))[:12]
escritos = genera(ConTuCache(red, CacheKV(capas), atencion_causal), frase, 6)
textos = [llm.tokenizer.decode([t]) or "·" for t in frase + escritos]
ver_qkt(textos[: len(frase)], textos[len(frase) :])

# %% [markdown]
# Y la memoria de una GPU: pesos más caché. Sube las peticiones y el contexto hasta que deje de caber, y después baja los
# bits de la caché o de los pesos.
#
# Aquí caben menos que en tu `cuantos_caben`, porque la figura cuenta como un servidor: deja libre el 8 % de la GPU, suma
# las **activaciones** (los vectores intermedios de un paso) y escribe GiB (2³⁰ bytes) donde tú usaste GB (10⁹ bytes).

# %%
ver_vram("Llama 3.1 8B", contexto=8192, peticiones=8)

# %% [markdown]
# ## 5 · Compara
#
# transformers trae la misma caché y permite apagarla: `use_cache=False`. Se mide aquí, en vivo, con el mismo modelo. En
# modo completo tarda cerca de un minuto en un equipo de dos núcleos, y más en uno lento.
#
# Compara cada fila «sin caché KV» con la fila «con caché KV» de los mismos tokens. Con caché, los tok/s apenas cambian con
# el largo; sin ella, la respuesta larga se paga más cara **por token**. Debajo de la tabla tienes cada razón.

# %%
tabla = compara("con_y_sin_cache", modelo)
tabla

# %%
for n in sorted({fila.valores["nuevos"] for fila in tabla.filas if "nuevos" in fila.valores}):
    casos = [("transformers", f"{caso} caché KV, {n} tokens") for caso in ("sin", "con")]
    if razon := tabla.razon(*casos, clave="segundos"):
        print(f"{n:3} tokens nuevos: sin caché tarda {significativa(razon)} veces lo que con ella")

# %% [markdown]
# Nuestro motor también puede trabajar sin caché (`attention_backend="none"`): mismos núcleos, mismo **planificador** (la
# parte que decide qué entra en cada paso, Lab 2), sin memoria entre pasos. Es la comparación más limpia: solo cambia eso, y
# no hay ningún bucle tuyo de por medio.

# %%
a_secas = LLM(model=modelo.carpeta, attention_backend="none")
motores, segundos = {"sin caché": a_secas, "con caché": llm}, {"sin caché": [], "con caché": []}
for motor in motores.values():
    sirve(motor, [PREGUNTA], 2)
for _ in range(VECES):
    for nombre, motor in motores.items():
        medida = sirve(motor, [PREGUNTA], NUEVOS)[0]
        segundos[nombre].append(medida["fin"] - medida["inicio"])
for nombre, medidos in segundos.items():
    print(f"minillm {nombre}: {significativa(NUEVOS / median(medidos))} tok/s")
razon = median(segundos["sin caché"]) / median(segundos["con caché"])
sin, con = (trabajo(len(prompt), NUEVOS, con_cache)["tokens"] for con_cache in (False, True))
print(f"Sin caché tarda {significativa(razon)} veces lo que con ella.")
print(f"Por el modelo pasan {significativa(sin / con)} veces más tokens.")
del a_secas

# %% [markdown]
# ## 6 · Rompe
#
# ### 6.1 Un rebobinado que se queda corto
#
# Alguien ha escrito «My dog is white. My cat is black. The color of my dog is white», borra las tres últimas palabras y pone
# «cat is». Lo que sigue debería ser «black». Si `rebobina(3)` quita solo dos, en la caché queda un «dog» que ya no está en
# el texto. No hay ninguna excepción: el modelo responde… a otro texto.


# %%
TIENE, BORRA, ESCRIBE = (
    list(llm.tokenizer.encode(texto))
    for texto in ("My dog is white. My cat is black. The color of my", " dog is white", " cat is")
)


class CacheCorta(CacheKV):
    """La misma caché, con un error de uno al rebobinar."""

    def rebobina(self, n):
        super().rebobina(max(0, n - 1))


def sigue(pasos, ids, posicion, cuantos=5):
    """Escribe `cuantos` tokens. Devuelve los logits del primero y el texto."""
    vistos, escritos = [], []
    for _ in range(cuantos):
        vistos.append(pasos(ids, list(range(posicion, posicion + len(ids)))))
        posicion += len(ids)
        ids = [int(vistos[-1].argmax())]
        escritos += ids
    return vistos[0], llm.tokenizer.decode(escritos)


def corrige(cache, posicion=None):
    """Lee TIENE y BORRA, olvida BORRA y sigue con ESCRIBE, desde `posicion` o desde donde quede la caché."""
    pasos = ConTuCache(red, cache, atencion_causal)
    pasos(TIENE + BORRA, list(range(len(TIENE + BORRA))))
    cache.rebobina(len(BORRA))
    return sigue(pasos, ESCRIBE, cache.largo() if posicion is None else posicion)


correcto, texto = sigue(ConTuCache(red, CacheKV(capas), atencion_causal), TIENE + ESCRIBE, 0)
print(f"{'sin haber borrado nada':>22}: sigue «{texto}»")
for nombre, cache in (("bien rebobinada", CacheKV(capas)), ("con un token de más", CacheCorta(capas))):
    logits, texto = corrige(cache)
    aparte = significativa((logits - correcto).abs().max().item())
    print(f"{nombre:>22}: sigue «{texto}»; los logits se apartan {aparte} de los correctos")

# %% [markdown]
# Bien rebobinada, la diferencia es cero o el redondeo de sumar en otro orden, y sale el mismo texto. Con un token de más,
# el modelo lee «my dog cat is» y contesta por el perro.
#
# ### 6.2 La posición que no retrocede
#
# El mismo rebobinado, esta vez bien hecho, pero el bucle sigue contando posiciones desde donde iba en vez de desde donde ha
# quedado la caché. Las claves y los valores son los correctos; lo que está mal es la **distancia** a la que el modelo cree
# que están.

# %%
queda = len(TIENE)
for posicion in (queda, queda + 1, queda + len(BORRA), queda + 10):
    logits, texto = corrige(CacheKV(capas), posicion)
    aparte = significativa((logits - correcto).abs().max().item())
    print(f"quedan {queda} tokens y el nuevo dice ser el {posicion}: sigue «{texto}»; se aparta {aparte}")

# %% [markdown]
# Con uno de más puede no notarse en el texto; los logits ya son otros. Con los tres que no retrocedieron, la respuesta deja
# de servir.
#
# La regla: tras rebobinar, **la posición siguiente es `largo()`**. Tu `genera` lleva su propia cuenta y acierta, porque
# nadie rebobina mientras escribe: si la caché solo crece, esa cuenta y `largo()` son el mismo número. En cuanto algo
# rebobina, dejan de serlo, y la que vale es la de la caché.
#
# ### 6.3 La caché que crece hasta que no cabe
#
# Un servidor con 64 MiB para la caché admite peticiones sin hacer cuentas. Cada una escribe 256 tokens. Se simula con tu
# `bytes_kv` (SmolLM2 en float32), paso a paso, hasta que no queda sitio.

# %%
PRESUPUESTO, LARGO = 64 * 2**20, 256
for admitidas in (4, 5, 6, 8):
    for paso in range(1, LARGO + 1):
        if admitidas * bytes_kv(30, 3, 64, paso, 4) > PRESUPUESTO:
            print(f"{admitidas} peticiones: sin memoria en el token {paso} de {LARGO}. Todo lo calculado se pierde.")
            break
    else:
        print(f"{admitidas} peticiones: acaban.")
print("tu cuenta:", cuantos_caben(PRESUPUESTO, 0, bytes_kv(30, 3, 64, LARGO, 4)), "peticiones")

# %% [markdown]
# El error no aparece al admitir, sino **a mitad de la respuesta**, y cuantas más peticiones admites, antes llega. La cuenta
# prudente reserva el máximo de cada una y desperdicia memoria si las respuestas son cortas. Salir de ese dilema es el Lab 3.

# %% [markdown]
# ## 7 · Explica
#
# Responde en la celda siguiente con tus números delante (15 puntos, los lee tu docente):
#
# 1. ¿Por qué la caché guarda claves y valores, pero no consultas, y por qué no hay que volver a calcularlos nunca? (4)
# 2. En la última celda de la sección 5, sin caché el motor pasa muchas más veces tokens por el modelo que veces tarda. ¿Por
#    qué no coinciden? Usa la intensidad (3.8). Si mediste en modo rápido, repite antes la celda: sus tiempos bailan. (4)
# 3. ¿En qué se equivocaron tus dos predicciones y por qué? (3)
# 4. Te piden servir el doble de contexto en la misma GPU. Di dos cosas que cambiarías y qué se paga por cada una. (4)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explica", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
#
# 1. La consulta de un token solo se usa en el paso en que ese token entra; sus claves y valores los miran todos los que
#    vienen después (2). No cambian porque la atención es causal: nada de lo que llega después influye en los anteriores (2).
# 2. Un paso lee todos los pesos entren los tokens que entren (2). Con caché cada paso lleva un token, muy por debajo del
#    equilibrio: paga la lectura entera por uno solo. Sin caché, la misma lectura se reparte entre decenas de tokens, y los
#    que caben por debajo del equilibrio casi no añaden tiempo; por eso el tiempo crece menos que los tokens (2). Vale
#    añadir el coste fijo de cada paso. Quien se apoye en 3.6 debe contar también el bucle de Python de `atencion_causal`.
# 3. Respuesta abierta. Se valora que compare los números escritos con los medidos (1) y nombre una causa concreta de cada
#    error (2): olvidar la V o las capas; contar los 576 números (9 cabezas) en vez de G · D = 3 · 64; suponer que el
#    tiempo es proporcional a los tokens, o no contar con el bucle de Python.
# 4. Dos de estas, con su precio (2 cada una): menos peticiones a la vez (throughput); caché en 8 bits (precisión); pesos
#    cuantizados (precisión); un modelo con menos cabezas KV o menos capas (calidad); otra GPU (coste); repartir la caché en
#    bloques y no reservar el máximo (hay que saber desalojar).
#
# ### END SOLUTION

# %% [markdown]
# ## 8 · Autoevaluación
#
# Piensa tu respuesta y abre cada opción.
#
# **A. Con caché, ¿el token 1000 de una respuesta cuesta lo mismo que el 10?**
#
# <details><summary>Sí: entra un token en cada paso</summary>No del todo. Las multiplicaciones por los pesos cuestan lo
# mismo, pero la atención mira a mil tokens en vez de a diez.</details>
# <details><summary>No: la atención crece con lo guardado</summary>Correcto. Y hay que leer toda la caché en cada
# paso.</details>
# <details><summary>No: hay que recalcular los anteriores</summary>No. Eso es justo lo que la caché evita.</details>
#
# **B. Un modelo tiene 32 cabezas de consulta y 8 de claves. ¿Cuánto ahorra GQA en la caché?**
#
# <details><summary>La deja en la cuarta parte</summary>Correcto. Se guardan 8 cabezas en lugar de 32.</details>
# <details><summary>Nada: hay que repetir las claves para las 32</summary>No. Se repiten al calcular, o se leen cuatro veces;
# en la memoria hay una copia.</details>
# <details><summary>La deja en la octava parte</summary>No. 8 es el número de cabezas KV; el ahorro es 32 / 8.</details>
#
# **C. ¿En qué fase manda el ancho de banda de la memoria?**
#
# <details><summary>En el prefill: lee todo el prompt</summary>No. El prompt son pocos números; con muchos tokens en el paso,
# cada peso leído se usa muchas veces y manda el cálculo.</details>
# <details><summary>En el decode de una sola petición</summary>Correcto. Se leen todos los pesos para un solo
# token.</details>
# <details><summary>En las dos por igual</summary>No. Lo mediste en 3.8: por token, el decode cuesta mucho más.</details>
#
# **D. Tras rebobinar 3 tokens de 12, ¿qué posición lleva el siguiente?**
#
# <details><summary>12</summary>No. Ese lugar deja un hueco de tres: el modelo creería que hay texto que no ve.</details>
# <details><summary>9</summary>Correcto. Hay 9 guardados, de la posición 0 a la 8.</details>
# <details><summary>10</summary>No. Es el error de contar desde 1: quedaría un hueco de uno.</details>
#
# **E. Te quedas sin memoria con 40 peticiones a la vez y los pesos caben de sobra. ¿Qué ha crecido?**
#
# <details><summary>Los pesos</summary>No. Son los mismos para todas las peticiones.</details>
# <details><summary>La caché KV</summary>Correcto. Una por petición, y una fila más por token y capa.</details>
# <details><summary>Los logits</summary>No. Es un vector por petición y paso, y no se guarda.</details>
