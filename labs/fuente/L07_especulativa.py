# %% [markdown] tags=["cubre-B-especulativa"]
# # Lab 7 · Decodificación especulativa sin trampas
#
# Un paso de decode lee **todos** los pesos del modelo para producir **un** token de cada petición. Si alguien adivina
# los tokens siguientes, el modelo puede comprobar varios en un solo paso, por casi el mismo precio: eso es la
# **decodificación especulativa**. Los apuntes prometen «2 o 3 veces más rápido con calidad idéntica». En este lab vas a
# escribir la comprobación, a demostrar cuándo es cierta cada mitad de esa frase y a medir cuándo no lo es.
#
# **Al terminar puedes…**
#
# | Resultado de aprendizaje | Comprobación |
# |---|---|
# | verificar varios borradores de una vez, sin cambiar el texto | `voraz` |
# | proponer borradores sin ningún otro modelo | `busca_ngram` |
# | decir qué queda en la caché KV después de verificar | `rebobina` |
# | verificar con muestreo, sin cambiar ninguna probabilidad | `verifica` |
# | demostrar que la distribución es la misma, o que no lo es | `ley` |
# | predecir cuándo compensa y cuándo hace perder | `ganancia` |
# | escribir pruebas que cazan un verificador equivocado | `caza_errores` |
# | juzgar con tus medidas un «2 o 3 veces» | `explica` |
#
# **Tiempo:** 85 minutos. **Puntos:** 100 (85 automáticos y 15 que lee tu docente).
#
# > Los prompts están en inglés porque el modelo (SmolLM2, 135 millones de parámetros) apenas sabe español. Aquí se
# > estudia el motor, no el ingenio del modelo.

# %% [markdown]
# ## Preparación
#
# Ejecuta la celda y lee qué modelo te toca. Con el modelo diminuto todo funciona, pero sus velocidades y sus textos no
# significan nada.

# %% nbgrader={"grade": false, "grade_id": "preparacion", "locked": true, "schema_version": 3, "solution": false, "task": false}
import contextlib
import io
import random

from IPython.display import display

from minilab.bancos.especulativa import (
    CHARLA,
    COPIA,
    COSTE_CPU,
    Corredor,
    cabeza,
    carrera,
    coste_por_tokens,
    curva_de_ganancia,
    ji_cuadrado,
    traza_de,
    verificador,
    verificador_voraz,
)
from minilab.bitacora import anota
from minilab.comparar import compara
from minilab.comprobar import comprobar
from minilab.cuaderno import prepara
from minilab.piezas import guarda
from minilab.vistas.cifras import cifra
from minilab.widgets import ver_borradores
from minillm_serve import SamplingParams
from minillm_serve.cli import main as minillm

modelo = prepara("L07")
PREGUNTAS = 2 if modelo.rapido else 8
NUEVOS = 24 if modelo.rapido else 64
VECES = 1 if modelo.rapido else 3
print(f"{PREGUNTAS} prompts por carrera, hasta {NUEVOS} tokens nuevos en cada respuesta. Vueltas por carrera: {VECES}.")

# %% [markdown]
# ## 1 · Idea
#
# Lo que hace falta recordar: el modelo lee y escribe **tokens**, trozos de texto numerados. Primero lee el **prompt**
# de una vez o en unos pocos trozos (**prefill**); después escribe la respuesta token a token (**decode**). Cada
# **paso** es una pasada por todo el modelo, y lee todos sus pesos. La **caché KV** guarda lo calculado de cada posición
# del texto para no repetirlo. Varias peticiones que avanzan en el mismo paso forman un **lote**, y comparten esa
# lectura.
#
# ### 1.1 El desperdicio
#
# Muchas respuestas repiten trozos de su prompt: extraer una frase, reescribir un texto, corregir código, volver a
# escribir un JSON. Ejecuta la celda: el modelo copia tres frases, token a token, y en cada paso lee otra vez todos sus
# pesos.

# %%
sin_borradores = traza_de(modelo, COPIA[:1], Corredor(), max_tokens=NUEVOS)
vistos = sin_borradores["requests"]["0"]["prompt_ids"]
parejas = {(a, b): c for a, b, c in zip(vistos, vistos[1:], vistos[2:], strict=False)}
nuevos = [token for paso in sin_borradores["steps"] for token in paso["tokens"].get("0", [])]
seguidos = list(zip(nuevos, nuevos[1:], nuevos[2:], strict=False))
adivinables = sum(parejas.get((a, b)) == c for a, b, c in seguidos)

with Corredor().motor(modelo) as motor:
    pesos = motor.core.runner.model.weights.step_bytes
print(f"{len(nuevos)} tokens nuevos en {len(sin_borradores['steps'])} pasos.")
leidos = pesos * len(sin_borradores["steps"])
print(f"Cada paso lee {cifra(pesos / 1e6, 1)} MB de pesos: {cifra(leidos / 1e9, 2)} GB en total.")
print(f"En {adivinables} de {len(seguidos)} sitios, el token es el que siguió en el prompt a los dos anteriores.")

# %% [markdown]
# ### 1.2 La cura, en papel
#
# Durante el decode, el procesador pasa casi todo el tiempo **leyendo** pesos. Calcular cinco tokens en un paso cuesta
# poco más que calcular uno, pero solo si los cinco se conocen de antemano. Así que se **adivinan**: cada token
# adivinado es un **borrador**, y el modelo los verifica todos en el mismo paso, igual que en el prefill lee de una vez
# todo el prompt: a cada posición solo le deja ver lo anterior, y en cada una dice qué token vendría después.
#
# El texto termina en `on`. Alguien propone tres borradores, y el modelo calcula en un solo paso qué elige él después de
# `on` y después de cada borrador:
#
# | sitio | 0 | 1 | 2 | 3 |
# |---|---|---|---|---|
# | borrador | `the` | `mat` | `and` | |
# | lo que elige el modelo ahí | `the` | `mat` | `.` | `then` |
# | ¿vale? | sí | sí | **no: manda `.`** | no existe |
#
# - `the` y `mat` **se aceptan**: el modelo habría escrito lo mismo.
# - `and` **cae**. En su lugar va `.`, que es lo que el modelo elige detrás de `the mat`: es el **token de corrección**,
#   y no ha costado ningún paso más.
# - `then` se calculó detrás de `and`, que ya no está en el texto: se tira.
# - Si los tres se hubieran aceptado, la elección del sitio 3 sí valdría: sería un **token de regalo**.
#
# Con `k` borradores, un paso da de 1 a `k + 1` tokens, **nunca cero**. Si el modelo elige siempre el token más
# probable, todo lo que sale lo ha elegido él: quien propone solo decide cuántos tokens salen por paso. Cuando el modelo
# sortea hace falta otra regla; llegará en 3.4.
#
# ### 1.3 ¿Quién propone?
#
# | Método | De dónde saca los borradores | Coste de proponer |
# |---|---|---|
# | `ngram` (*prompt lookup*) | del propio texto: qué venía detrás de los últimos `n` tokens (un **n-grama**) | casi nada |
# | `draft_model` | de un modelo más pequeño con el mismo tokenizador | una pasada del pequeño por borrador |
# | `eagle` | de una capa entrenada que lee los estados internos del modelo | una pasada de esa capa por borrador |
#
# El motor trae una capa `eagle` entrenada para SmolLM2: la llamaremos **la capa entrenada**. Con el modelo diminuto no
# hay ninguna, y el modelo se propone borradores a sí mismo.

# %% [markdown]
# ## 2 · Predice
#
# ¿Cuántas veces más tokens por segundo esperas que **sin borradores**…
#
# - `copia`: …con n-gramas, en prompts que piden copiar, de uno en uno?
# - `charla`: …con la capa entrenada, en preguntas normales, de una en una?
# - `lote_lleno`: …con la misma capa y siempre 6 borradores, con 16 peticiones a la vez?
#
# Menos de 1 es perder. Cualquier número mayor que 0 vale: lo útil es compararlo después con lo que midas.


# %% nbgrader={"grade": false, "grade_id": "prediccion", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mi_prediccion():
    """Devuelve {"copia": número, "charla": número, "lote_lleno": número}."""
    ### BEGIN SOLUTION
    return {"copia": 2.5, "charla": 1.5, "lote_lleno": 0.8}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_prediccion", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
comprobar("prediccion_l07")

# %% [markdown]
# ## 3 · Construye
#
# ### 3.1 Verificación voraz
#
# Con selección voraz (*greedy*), el modelo siempre elige el token más probable, así que verificar es comparar.
# Implementa en la celda `verifica_voraz(borrador, elegidos)`:
#
# - `borrador`: lista de `k` tokens, los propuestos;
# - `elegidos`: lista de `k + 1` tokens; `elegidos[i]` es lo que elige el modelo detrás de los `i` primeros borradores;
# - devuelve los borradores que se aceptan (hasta el primero que no coincide) y **un** elegido más: el de corrección, o
#   el de regalo si se aceptan todos.
#
# Comprobación: `voraz`.


# %% nbgrader={"grade": false, "grade_id": "voraz", "locked": false, "schema_version": 3, "solution": true, "task": false}
def verifica_voraz(borrador, elegidos):
    """Los borradores que se aceptan y un elegido más: de 1 a k + 1 tokens.

    >>> verifica_voraz([7, 8, 9], [7, 8, 5, 6])
    [7, 8, 5]
    """
    ### BEGIN SOLUTION
    valen = 0
    while valen < len(borrador) and borrador[valen] == elegidos[valen]:
        valen += 1
    return [*borrador[:valen], elegidos[valen]]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_voraz", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("voraz")

# %% [markdown]
# **Enchúfalo.** El motor tiene un sitio para tu verificador, `spec.verify`. Le llegan los borradores, las
# probabilidades del modelo en cada sitio y números al azar; `verificador_voraz` lo traduce a las dos listas de tu
# función. Los borradores los pone aquí el motor, con n-gramas.
#
# Un `Corredor` es una manera de servir: qué configuración especulativa usa (ninguna, si no se dice) y con qué piezas
# tuyas. En una `carrera`, los corredores contestan por turnos a los mismos prompts, y la tabla los compara con el
# primero. Con una sola vuelta las velocidades son solo orientativas; los tokens, no. (Salvo que se le diga otra cosa,
# el motor decide antes de cada paso cuántos borradores pide, y pueden ser cero. Cómo lo decide se ve en 3.6.)

# %%
NGRAMAS = {"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_min": 1, "prompt_lookup_max": 3}
enchufado = carrera(
    modelo,
    COPIA[: PREGUNTAS // 2],
    {"sin borradores": Corredor(), "tu verificador": Corredor(NGRAMAS, verificador_voraz(verifica_voraz))},
    max_tokens=NUEVOS,
    veces=1,
)
display(enchufado)
assert enchufado.iguales("tu verificador"), "verificar no puede cambiar el texto: revisa verifica_voraz"
print("El texto es el mismo, token a token.")

# %% [markdown]
# ### 3.2 Borradores sin otro modelo
#
# La forma más barata de adivinar: si los últimos tokens ya salieron antes en el texto (prompt o respuesta), propón lo
# que venía detrás. Implementa `busca_ngram(tokens, n, k)`:
#
# 1. toma los `n` últimos tokens y busca la aparición **anterior más reciente** de esa misma secuencia;
# 2. si no la hay, prueba con los `n − 1` últimos, y así hasta 1;
# 3. devuelve los tokens que venían detrás de la aparición, `k` como mucho (menos si el texto se acaba); `[]` si nada
#    aparece.
#
# Los últimos tokens no son una aparición de sí mismos: la aparición tiene que empezar antes. Sí puede solaparse con
# ellos: en `[5, 5, 5]`, con `n = 2`, la secuencia `5, 5` aparece antes, desde el principio, y detrás viene `5`. Si `n`
# es mayor que el texto, empieza por lo más largo que quepa. Comprobación: `busca_ngram`.


# %% nbgrader={"grade": false, "grade_id": "busca_ngram", "locked": false, "schema_version": 3, "solution": true, "task": false}
def busca_ngram(tokens, n, k):
    """Hasta k borradores: lo que siguió a la última aparición anterior de los n últimos tokens (o menos de n).

    >>> busca_ngram([1, 2, 3, 4, 5, 1, 2], 2, 3)
    [3, 4, 5]
    """
    ### BEGIN SOLUTION
    for largo in range(min(n, len(tokens) - 1), 0, -1):
        for inicio in range(len(tokens) - largo - 1, -1, -1):
            if tokens[inicio : inicio + largo] == tokens[-largo:]:
                return tokens[inicio + largo : inicio + largo + k]
    return []
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_busca_ngram", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
comprobar("busca_ngram")

# %% [markdown]
# Ahora todo es tuyo: quién propone y quién verifica. Contesta a dos prompts, uno que copia y una pregunta normal.
# Guardamos la **traza** del motor (qué calculó en cada paso) para las cuentas y los dibujos que vienen. Tu función
# recibe como `n` el `prompt_lookup_max` de la configuración y como `k`, como mucho, `num_speculative_tokens`. Con
# `"dynamic": False` el motor pide borradores en todos los pasos, compense o no.

# %%
TODO_TUYO = Corredor({**NGRAMAS, "dynamic": False}, verificador_voraz(verifica_voraz), busca_ngram)
traza = traza_de(modelo, [COPIA[0], CHARLA[1]], TODO_TUYO, max_tokens=NUEVOS)
ahora = [paso["tokens"]["0"] for paso in traza["steps"] if "0" in paso["tokens"]]
print(f"El texto que copia: {sum(map(len, ahora))} tokens en {len(ahora)} pasos; sin borradores, {len(nuevos)} pasos.")
print("¿Mismo texto?", "sí" if [token for paso in ahora for token in paso][: len(nuevos)] == nuevos else "NO")

# %% [markdown]
# ### 3.3 Rebobinar
#
# El paso que verifica `k` borradores escribe en la caché KV las claves y los valores de `k + 1` posiciones: la del
# último token conocido, que aún no estaba calculado, y las de los borradores. Si un borrador cae, sus posiciones
# guardan datos de un texto que no existe. No hace falta borrarlas: basta con **rebobinar** la cuenta, y el paso
# siguiente escribirá encima.
#
# Implementa `rebobina(largo, k, salida, fin, tam_bloque)`, donde `largo` es el número de tokens conocidos antes del
# paso (con `largo − 1` posiciones calculadas), `salida` es lo que devolvió el verificador y `fin` es el token que
# termina el texto. Devuelve un diccionario:
#
# | Clave | Qué es |
# |---|---|
# | `nuevos` | los tokens que se añaden: `salida` cortada en el **primer** `fin`, con él incluido |
# | `kv` | posiciones que valen después: las de todos los tokens conocidos menos el último, que no cuenta: casi siempre está por calcular |
# | `sobran` | posiciones escritas que no valen: las escritas en total (`largo + k`) menos `kv` |
# | `bloques` | bloques con alguna posición que vale |
# | `llenos` | bloques con **todas** sus posiciones válidas |
#
# La memoria se reparte en **bloques** de `tam_bloque` posiciones. Solo los llenos se pueden prestar a otra petición que
# empiece igual (la **caché de prefijos**): prestar uno con restos de un borrador le daría un texto que nadie escribió.
#
# Ejemplo con `largo = 10`, `k = 4`, bloques de 4 y dos borradores aceptados más la corrección: se escribieron 14
# posiciones; ahora se conocen 13 tokens; valen 12 posiciones y sobran 2. Comprobación: `rebobina`.


# %% nbgrader={"grade": false, "grade_id": "rebobina", "locked": false, "schema_version": 3, "solution": true, "task": false}
def rebobina(largo, k, salida, fin, tam_bloque):
    """Las cuentas después de verificar: {"nuevos", "kv", "sobran", "bloques", "llenos"}."""
    ### BEGIN SOLUTION
    nuevos = salida[: salida.index(fin) + 1] if fin in salida else salida
    kv = largo + len(nuevos) - 1
    return {
        "nuevos": nuevos,
        "kv": kv,
        "sobran": largo + k - kv,
        "bloques": -(-kv // tam_bloque),
        "llenos": kv // tam_bloque,
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_rebobina", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("rebobina")

# %% [markdown]
# ¿Hace el motor tus mismas cuentas? En cada paso de la traza, `num_tokens` dice cuántas posiciones calculó: deben ser
# las que faltaban según tu `kv` más los borradores.

# %%
comprobados = tirados = 0
for id_, peticion in traza["requests"].items():
    largo, fin = peticion["prompt_tokens"], peticion["eos_token_ids"][0]
    kv = 0
    for paso in traza["steps"]:
        if id_ in paso.get("new_requests", {}):
            kv = paso["new_requests"][id_][1]  # lo que ya estaba en la caché de prefijos
        if id_ in paso["num_tokens"] and id_ not in paso["tokens"]:
            kv += paso["num_tokens"][id_]  # un trozo del prompt: todavía no hay token nuevo
        if id_ in paso["tokens"]:
            borradores = paso.get("drafts", {}).get(id_, [])
            assert kv + paso["num_tokens"][id_] == largo + len(borradores), "el motor cuenta otra cosa: revisa rebobina"
            cuenta = rebobina(largo, len(borradores), paso["tokens"][id_], fin, 16)
            kv, largo = cuenta["kv"], largo + len(cuenta["nuevos"])
            comprobados, tirados = comprobados + 1, tirados + cuenta["sobran"]
print(f"{comprobados} pasos comprobados, todos cuadran. Se calcularon {tirados} posiciones que hubo que tirar.")

# %% [markdown]
# ### 3.4 Verificación con muestreo
#
# Con temperatura mayor que 0, el modelo no elige: **sortea** según una distribución `p`, una probabilidad por token (ya
# con la temperatura aplicada, y con `top_p`, que descarta los tokens menos probables). Quien propone también puede
# sortear, de la suya, `q`. ¿Qué regla acepta borradores y deja la distribución **exactamente** en `p`? (Leviathan et
# al., 2023; Chen et al., 2023.)
#
# Tres tokens posibles, un borrador:
#
# | token | 0 | 1 | 2 |
# |---|---|---|---|
# | `q`, quien propone | 0,2 | 0,7 | 0,1 |
# | `p`, el modelo | 0,6 | 0,3 | 0,1 |
# | se acepta con probabilidad `min(1, p/q)` | 1 | 3/7 | 1 |
# | residuo `max(p − q, 0)` | 0,4 | 0 | 0 |
#
# El token 1 se propone demasiado (0,7 en vez de 0,3): se acepta solo 3 de cada 7 veces, y así sale 0,7 · 3/7 = 0,3. Lo
# que se rechaza (0,4) se sortea de nuevo **con el residuo**: lo que a `p` le falta. El token 0 sale 0,2 + 0,4 = 0,6.
# Cuadra. La llamaremos **la regla exacta**; en el motor, y en vLLM, se llama `standard`.
#
# Implementa dos funciones. Los números al azar te llegan en los argumentos: así tu respuesta se puede repetir.
#
# **`sortea(pesos, u)`**: el primer índice cuya suma acumulada es **mayor** que `u · sum(pesos)`. Los pesos pueden no
# sumar 1. Un índice de peso 0 no sale nunca, ni en la punta: si el redondeo agota la lista, vale el último de peso
# mayor que 0.
#
# **`verifica(borradores, q, p, uniformes)`**, con listas de Python:
#
# - `borradores`: `k` tokens;
# - `q`: `k` filas de probabilidades, o `None` si los borradores no se sortearon (n-gramas): entonces toda la
#   probabilidad de cada fila está en su borrador;
# - `p`: `k + 1` filas; la última es la del token de regalo;
# - `uniformes`: `k + 1` parejas `[u_acepta, u_sortea]` de números al azar, de 0 a 1 sin llegar a 1; la pareja `i` es
#   para el sitio `i`.
#
# El borrador `d` del sitio `i` se acepta si `u_acepta · q(d) < p(d)`; escrito así no se divide por cero. El primero que
# no se acepta se cambia por `sortea(residuo, u_sortea)`, y ahí se termina. Si el residuo es todo ceros (solo pasa por
# redondeo, o con un borrador que ni `p` ni `q` darían), sortea con `p`. Si se aceptan todos, añade un sorteo de la
# última fila. Comprobación: `verifica`.


# %% nbgrader={"grade": false, "grade_id": "verifica", "locked": false, "schema_version": 3, "solution": true, "task": false}
def sortea(pesos, u):
    """Un índice, según los pesos: el primero cuya suma acumulada es mayor que u · sum(pesos); nunca uno de peso 0."""
    ### BEGIN SOLUTION
    meta, suma, elegido = u * sum(pesos), 0.0, None
    for token, peso in enumerate(pesos):
        if peso > 0:
            suma, elegido = suma + peso, token
            if suma > meta:
                break
    return elegido
    ### END SOLUTION


def verifica(borradores, q, p, uniformes):
    """Los borradores que se aceptan y un token más: la distribución de lo que sale es p."""
    ### BEGIN SOLUTION
    for i, d in enumerate(borradores):
        fila_q = [float(t == d) for t in range(len(p[i]))] if q is None else q[i]
        u_acepta, u_sortea = uniformes[i]
        if u_acepta * fila_q[d] >= p[i][d]:
            residuo = [max(b - a, 0.0) for a, b in zip(fila_q, p[i], strict=True)]
            return [*borradores[:i], sortea(residuo if any(residuo) else p[i], u_sortea)]
    return [*borradores, sortea(p[-1], uniformes[-1][1])]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_verifica", "locked": true, "points": 20, "schema_version": 3, "solution": false, "task": false}
comprobar("verifica")

# %% [markdown]
# **Enchúfalo con temperatura.** Los borradores los sortea la capa entrenada, que dice su `q`. Los números al azar
# dependen de la semilla y del sitio, así que tu verificador y el del motor, con la misma regla (`standard`), deben dar
# **los mismos tokens**. La última línea los compara con el texto sin borradores: suele ser otro texto, de la **misma
# distribución**. (Nuestro motor usa por defecto otra regla, `match`: sortea con el mismo ruido que sin borradores y
# acepta el borrador si coincide, así que da además el mismo texto.)

# %%
SORTEADA = cabeza(modelo, 4, draft_sample_method="probabilistic", rejection_sample_method="standard", dynamic=False)
sorteada = carrera(
    modelo,
    CHARLA[:1],
    {
        "sin borradores": Corredor(),
        "motor, regla match": Corredor(cabeza(modelo, 4, dynamic=False)),
        "motor, regla standard": Corredor(SORTEADA),
        "tu verificador": Corredor(SORTEADA, verificador(verifica)),
    },
    params=SamplingParams(max_tokens=NUEVOS, temperature=0.8, top_p=0.95, seed=7),
    veces=1,
)
sin = "sin borradores"
print(f"Tu verificador juzgó {sorteada.cifras['tu verificador']['draft_tokens']} borradores sorteados.")
for uno, otro in (("tu verificador", "motor, regla standard"), ("motor, regla match", sin), ("tu verificador", sin)):
    iguales = sorteada.respuestas[uno] == sorteada.respuestas[otro]
    print(f"{uno} / {otro}: tokens {'idénticos' if iguales else 'distintos'}")

# %% [markdown]
# ### 3.5 La demostración
#
# Que dos textos se parezcan no demuestra nada. La distribución de lo que sale se puede **calcular**. Una regla que
# elige el sustituto sin mirar qué borrador cayó se describe con dos listas: `acepta[x]`, la probabilidad de aceptar `x`
# si se propone, y `resto[x]`, la probabilidad de que `x` sea el sustituto cuando se rechaza. Un token sale por dos
# caminos: se propone y se acepta, o **se rechaza cualquiera** y lo da el sustituto.
#
# Implementa `ley(q, acepta, resto)`: la lista con la probabilidad de que salga cada token. Comprobación: `ley`.


# %% nbgrader={"grade": false, "grade_id": "ley", "locked": false, "schema_version": 3, "solution": true, "task": false}
def ley(q, acepta, resto):
    """La distribución exacta del token que sale: una probabilidad por token."""
    ### BEGIN SOLUTION
    rechazo = sum(propone * (1 - si) for propone, si in zip(q, acepta, strict=True))
    return [propone * si + rechazo * r for propone, si, r in zip(q, acepta, resto, strict=True)]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_ley", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
comprobar("ley")

# %% [markdown]
# Con la regla exacta debe salir `p`, **sea cual sea** `q`. En papel son dos líneas. Aceptado, `x` sale con probabilidad
# `q(x) · min(1, p(x)/q(x)) = min(q(x), p(x))`. Lo que se rechaza en total es lo que le falta a la suma de esos mínimos
# para llegar a 1, justo lo que suma el residuo: el sustituto añade `max(p(x) − q(x), 0)`. Y `min(q, p) + max(p − q, 0)
# = p`. Vale en cada sitio, dado lo que ya se aceptó, y por eso vale para el texto entero. La celda lo calcula con cien
# parejas al azar.


# %%
def al_azar(azar, cuantos=6):
    pesos_ = [azar.random() ** 3 for _ in range(cuantos)]
    return [peso / sum(pesos_) for peso in pesos_]


def regla_exacta(q, p):
    """acepta = min(1, p/q) y resto = el residuo, repartido para que sume 1."""
    residuo = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]
    return [min(1.0, a / b) for a, b in zip(p, q, strict=True)], [r / sum(residuo) for r in residuo]


azar = random.Random(2023)
peor = 0.0
for _ in range(100):
    q_, p_ = al_azar(azar), al_azar(azar)
    sale = ley(q_, *regla_exacta(q_, p_))
    peor = max(peor, *(abs(a - b) for a, b in zip(sale, p_, strict=True)))
print(f"La mayor diferencia con p en cien parejas: {peor:.1e} (redondeo de los números de 64 bits).")

# %% [markdown]
# ### 3.6 ¿Cuándo compensa?
#
# Sea `α` la probabilidad de que un borrador se acepte **si los anteriores se aceptaron**. Con `k` borradores, el paso
# da un token seguro, otro con probabilidad `α`, otro con `α²`… En total `1 + α + α² + … + α^k`, que es `(1 − α^(k+1)) /
# (1 − α)` cuando `α` no es 1.
#
# Lo que cuesta: un paso del modelo que calcula `T` tokens tarda `t(T) = 1 + pendiente · max(0, T − libres)`, en pasos
# de un token. Los primeros `libres` salen gratis, porque manda la lectura de los pesos; después, cada token añade
# cálculo. Con `n` peticiones en el lote y `k` borradores de cada una, `T = n · (k + 1)`. Proponer cuesta además `c`
# pasos de un token por cada uno de los `k` borradores: una pasada de quien propone sirve a todo el lote.
#
# Implementa tres funciones:
#
# - `tokens_por_paso(alfa, k)`; con `alfa = 1` son `k + 1`;
# - `ganancia(alfa, k, c, n, libres, pendiente)`: cuántas veces más tokens por segundo que sin borradores, es decir, los
#   tokens por paso, por el tiempo del paso sin borradores `t(n)`, entre el tiempo con ellos `t(n · (k + 1)) + k · c`;
# - `mejor_k(alfa, c, n, libres, pendiente, maximo)`: el `k` de 0 a `maximo` con más ganancia; de dos iguales, el menor.
#   Un 0 dice «no especules».
#
# Comprobación: `ganancia`.


# %% nbgrader={"grade": false, "grade_id": "ganancia", "locked": false, "schema_version": 3, "solution": true, "task": false}
def tokens_por_paso(alfa, k):
    """Tokens que da un paso con k borradores, de media."""
    ### BEGIN SOLUTION
    return sum(alfa**i for i in range(k + 1))
    ### END SOLUTION


def tiempo_de_paso(tokens, libres, pendiente):
    """Lo que tarda un paso que calcula esos tokens, en pasos de un token."""
    return 1 + pendiente * max(0, tokens - libres)


def ganancia(alfa, k, c, n, libres, pendiente):
    """Veces la velocidad sin borradores: n peticiones, k borradores de cada una, c pasos por borrador."""
    ### BEGIN SOLUTION
    sin = tiempo_de_paso(n, libres, pendiente)
    con = tiempo_de_paso(n * (k + 1), libres, pendiente) + k * c
    return tokens_por_paso(alfa, k) * sin / con
    ### END SOLUTION


def mejor_k(alfa, c, n, libres, pendiente, maximo):
    """El k de 0 a maximo con más ganancia; el menor si empatan."""
    ### BEGIN SOLUTION
    return max(range(maximo + 1), key=lambda k: ganancia(alfa, k, c, n, libres, pendiente))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_ganancia", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
comprobar("ganancia")

# %% [markdown]
# El motor hace esta misma cuenta antes de cada paso para decidir cuántos borradores pide (`dynamic`), con el `α` que
# estima de lo que se aceptó en los pasos anteriores. Sus constantes para una CPU de dos núcleos están en
# `minillm_serve/spec/length.py`. Con ellas, con lo que cuesta la capa entrenada y con tu `mejor_k`:

# %%
libres, pendiente = COSTE_CPU.free, COSTE_CPU.slope
with Corredor(cabeza(modelo)).motor(modelo) as motor:
    c_capa = motor.core.runner.speculation.lengths.draft_cost
print(f"El motor en CPU: {cifra(libres, 1)} tokens gratis por paso; cada uno más cuesta {cifra(pendiente, 2)} pasos.")
print(f"Un borrador de la capa: c = {cifra(c_capa, 3)} pasos (los bytes que lee, entre los que lee un paso).")
print("Borradores que convienen:")
for n in (1, 4, 16):
    mejores = {alfa: mejor_k(alfa, c_capa, n, libres, pendiente, 8) for alfa in (0.3, 0.6, 0.9)}
    print(f"  {n:2d} a la vez: " + " · ".join(f"α = {cifra(a, 1)}: k = {k}" for a, k in mejores.items()))

# %% [markdown]
# ## 4 · Mira
#
# ### 4.1 Tus borradores
#
# Cada columna es un paso de **tu** traza: borradores aceptados, el token que puso el modelo y borradores que cayeron.

# %%
ver_borradores(traza)

# %% [markdown]
# ### 4.2 Lo que cuesta verificar
#
# ¿De verdad es casi gratis? Aquí se piden unas veces más borradores y otras menos, y la tabla dice cuánto duró el paso
# según los tokens que calculó, y cuántas veces lo que el paso más corto de la tabla. Al lado, lo mismo según `t(T)`,
# con las constantes del motor, que se midieron en otra CPU. Si los dos números se separan, la curva que viene no es la
# de tu equipo.


# %%
def de_largo_variable(tokens, n, k):
    return busca_ngram(tokens, n, 1 + len(tokens) % k)


variable = Corredor(TODO_TUYO.especula, TODO_TUYO.verifica, de_largo_variable)
costes = coste_por_tokens(traza_de(modelo, COPIA[: PREGUNTAS // 2], variable, max_tokens=2 * NUEVOS))
menos = min(costes)
for tokens, (segundos, veces) in costes.items():
    medido = cifra(segundos / costes[menos][0], 2)
    teoria = cifra(tiempo_de_paso(tokens, libres, pendiente) / tiempo_de_paso(menos, libres, pendiente), 2)
    print(
        f"T = {tokens}: {cifra(1000 * segundos, 1)} ms de mediana en {veces} pasos; {medido}× medido, {teoria}× según t(T)"
    )

# %% [markdown]
# ### 4.3 La curva
#
# En horizontal, `α`; cada curva, un `k`. La línea negra es «igual que sin borradores»: por debajo se pierde. A la
# izquierda, una petición sola; a la derecha, un lote de dieciséis, con **tu** `ganancia` y las constantes del motor.

# %%
curva_de_ganancia(ganancia, c_capa, (1, 3, 6), (1, 16), COSTE_CPU)

# %% [markdown]
# ## 5 · Compara
#
# ### 5.1 Copiar
#
# «2 o 3 veces»: vamos a medirlo. Primero, los prompts que piden copiar, de uno en uno. (La búsqueda del motor se parece
# a la tuya; pero si detrás de la aparición no quedan `k` tokens, sigue copiando de los borradores que acaba de
# proponer.)

# %%
copia = carrera(
    modelo,
    COPIA[:PREGUNTAS],
    {
        "sin borradores": Corredor(),
        "n-gramas del motor": Corredor(NGRAMAS),
        "todo tuyo": Corredor(NGRAMAS, verificador_voraz(verifica_voraz), busca_ngram),
    },
    max_tokens=NUEVOS,
    veces=VECES,
)
display(copia)

# %% [markdown]
# ### 5.2 Charlar
#
# En una pregunta normal la respuesta no está en el prompt: los n-gramas aciertan poco. La capa entrenada acierta más,
# pero proponer cuesta.

# %%
charla = carrera(
    modelo,
    CHARLA[:PREGUNTAS],
    {
        "sin borradores": Corredor(),
        "n-gramas del motor": Corredor(NGRAMAS),
        "capa entrenada": Corredor(cabeza(modelo)),
        "capa, tu verificador": Corredor(cabeza(modelo), verificador_voraz(verifica_voraz)),
    },
    max_tokens=NUEVOS,
    veces=VECES,
)
display(charla)

# %% [markdown]
# La columna «aceptados» cuenta borradores aceptados entre propuestos, y **no es** `α`: si cae el primero de seis, los
# otros cinco cuentan como caídos sin que nadie los mirara. La celda calcula `α` bien (aceptados entre los que se
# llegaron a mirar) y compara tu `ganancia` con lo medido. La fórmula promete más, y conviene saber qué supone: el mismo
# `α` en todos los sitios, siempre `k` borradores (si nada se repite, los n-gramas no proponen), las constantes de otra
# máquina, y ni rastro del prefill ni de lo que el motor hace entre dos pasos.

# %%
for nombre, medida, k, c in (
    ("n-gramas, copiar", copia, 5, 0.0),
    ("capa entrenada, charlar", charla, 6, c_capa),
):
    corredor = "n-gramas del motor" if medida is copia else "capa entrenada"
    alfa = medida.alfa(corredor)
    if alfa is None:
        print(f"{nombre}: no se propuso ningún borrador (no compensaba).")
        continue
    teoria = max(ganancia(alfa, j, c, 1, libres, pendiente) for j in range(k + 1))
    medido = cifra(medida.ganancia(corredor), 2)
    print(f"{nombre}: α = {cifra(alfa, 2)}; con el mejor k, tu fórmula dice {cifra(teoria, 2)}×; medido, {medido}×")

# %% [markdown]
# ### 5.3 Otros sistemas
#
# transformers también tiene n-gramas (`prompt_lookup_num_tokens`), y vLLM, los mismos métodos que ves aquí, con las
# mismas claves (`dynamic` es solo de nuestro motor). Cada fila dice de dónde sale: medida ahora, o grabada con su fecha
# y su equipo.

# %%
mias = {"tok_s": copia.cifras["todo tuyo"]["tok_s"]}
compara("especulativa", modelo, tuyas={("tu motor", "con borrador"): mias})

# %% [markdown]
# En una GPU, con un modelo de 8 000 millones de parámetros, la aceptación se simuló: cada borrador que se llega a mirar
# vale con probabilidad 0,7 (ese es su `α`), diga lo que diga, y el texto que sale no sirve. Así se ve qué da el
# mecanismo con ese `α`, y no lo bien que adivina nadie.

# %%
compara("especulativa_gpu", modelo)

# %% [markdown] tags=["cubre-C-especulativa"]
# ## 6 · Rompe
#
# ### 6.1 El seudocódigo de los apuntes
#
# Los apuntes resumen la técnica así: el modelo pequeño propone `n` tokens; el grande los mira todos a la vez; donde
# coinciden se aceptan, y donde difieren se usa el del grande. Traducido a código es la función de abajo. El «modelo
# grande» es de juguete: una fórmula que da el token siguiente de una lista de números, para que veas todo el texto de
# un vistazo.


# %%
def grande(texto):
    """El modelo de juguete: el token que sigue a ese texto, siempre el mismo."""
    return (3 * texto[-1] + len(texto)) % 11


def pequeno(texto, n):
    """Propone n tokens; se equivoca cuando el bueno es múltiplo de 4."""
    propuesta = []
    for _ in range(n):
        bueno = grande([*texto, *propuesta])
        propuesta.append(1 if bueno % 4 == 0 else bueno)
    return propuesta


def elige(texto, borrador):
    """Lo que elige el grande detrás de cada principio del borrador: k + 1 tokens en un paso."""
    return [grande([*texto, *borrador[:i]]) for i in range(len(borrador) + 1)]


def como_en_los_apuntes(borrador, elegidos):
    return elegidos[: len(borrador)]  # donde coinciden son iguales; donde difieren, el del grande


def genera(verifica_asi, cuantos, n=4):
    texto, pasos = [1], 0
    while len(texto) < cuantos:
        borrador = pequeno(texto, n)
        texto, pasos = texto + verifica_asi(borrador, elige(texto, borrador)), pasos + 1
    return texto[:cuantos], pasos


solo = [1]
while len(solo) < 24:
    solo.append(grande(solo))
print("el grande, solo:    ", solo, f"({len(solo) - 1} pasos)")
for nombre, verifica_asi in (("los apuntes:        ", como_en_los_apuntes), ("tu verifica_voraz:  ", verifica_voraz)):
    texto, pasos = genera(verifica_asi, 24)
    print(nombre, texto, f"({pasos} pasos; {'el mismo' if texto == solo else 'OTRO'} texto)")

# %% [markdown]
# Los apuntes prometen el mismo texto y no lo dan. Busca **tú** por qué, con pruebas. Una prueba dice qué debe salir de
# un ejemplo:
#
# `{"borrador": [7, 8], "elegidos": [7, 5, 6], "esperado": [7, 5]}`
#
# Implementa `mis_pruebas()`: una lista de **1 a 6** pruebas, con hasta 8 borradores cada una y siempre un elegido más
# que borradores. Se ejecutan contra varios verificadores equivocados: el de los apuntes, uno que no da el token de
# regalo y otros que no verás. Cada uno debe fallar en alguna de tus pruebas; el correcto, en ninguna. Piensa en qué
# puede hacer mal alguien cuando falla el primero, uno de en medio o ninguno, cuando algo vuelve a coincidir **después**
# de un fallo y cuando no hay borradores. Comprobación: `caza_errores`.


# %% nbgrader={"grade": false, "grade_id": "caza_errores", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mis_pruebas():
    """De 1 a 6 pruebas: [{"borrador": […], "elegidos": […], "esperado": […]}]."""
    ### BEGIN SOLUTION
    return [
        {"borrador": [1, 2], "elegidos": [1, 2, 3], "esperado": [1, 2, 3]},
        {"borrador": [1, 2, 3], "elegidos": [9, 2, 3, 4], "esperado": [9]},
        {"borrador": [1, 2, 3], "elegidos": [1, 9, 3, 4], "esperado": [1, 9]},
        {"borrador": [], "elegidos": [5], "esperado": [5]},
    ]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_caza_errores", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
comprobar("caza_errores")

# %% [markdown]
# ¿Ya tienes tu explicación? Compárala con esta.
#
# <details><summary>Qué hace mal el seudocódigo</summary>Dos fallos. <strong>No se detiene en el primer borrador que cae</strong>:
# sigue usando elecciones que se calcularon detrás de un texto que ya no existe, y por eso el texto es otro. Y
# <strong>no da el token de regalo</strong>: eso no cambia el texto, pero tira un token que ya estaba
# calculado.</details>

# %% [markdown] tags=["errata-13"]
# ### 6.2 Errata: «con calidad idéntica»
#
# Los apuntes dicen que la decodificación especulativa da calidad idéntica. Es cierto **si la regla deja la
# distribución en `p`**, como la exacta o `match`, y no basta con que parezca razonable. Esta variante lo parece, y es
# más corta: acepta el borrador si al modelo le gusta al menos tanto como a quien propone (`p ≥ q`); si no, sortea otro
# token de `p`.


# %%
def verifica_apresurada(borradores, q, p, uniformes):
    for i, d in enumerate(borradores):
        if p[i][d] < q[i][d]:
            return [*borradores[:i], sortea(p[i], uniformes[i][1])]
    return [*borradores, sortea(p[-1], uniformes[-1][1])]


q, p = [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]
leyes = {
    "q, quien propone": q,
    "p, el modelo": p,
    "sale, regla exacta": ley(q, *regla_exacta(q, p)),
    "sale, regla apresurada": ley(q, [float(a >= b) for a, b in zip(p, q, strict=True)], p),
}
for nombre, distribucion in leyes.items():
    print(f"{nombre:24}", "  ".join(cifra(x, 3) for x in distribucion))

# %% [markdown]
# El cálculo ya la condena. Y si nadie te da la fórmula, la delata la **prueba χ²**: compara cuántas veces salió cada
# token con cuántas debía salir. Su p-valor (que nada tiene que ver con nuestra `p`) es la probabilidad de ver una
# diferencia así o mayor **si la distribución fuera la buena**: si es diminuto, no cabe creerlo; si no lo es, no se ha
# encontrado nada en su contra.


# %%
def tira(regla, veces, azar):
    salidas = [0] * len(p)
    for _ in range(veces):
        borrador = azar.choices(range(len(q)), q)
        uniformes = [[azar.random(), azar.random()] for _ in range(2)]
        salidas[regla(borrador, [q], [p, p], uniformes)[0]] += 1
    return salidas


TIRADAS = 20_000
for nombre, regla in (("tu verifica", verifica), ("regla apresurada", verifica_apresurada)):
    cuentas = tira(regla, TIRADAS, random.Random(13))
    print(f"{nombre}: {cuentas} de {TIRADAS}; {ji_cuadrado(cuentas, p)}")

# %% [markdown]
# ¿Y con selección voraz? «Idéntica» quiere decir los mismos tokens **hasta donde llega la aritmética**. Sumar los
# mismos números en otro orden redondea distinto, y si dos tokens casi empatan puede salir el otro. Nuestro motor en
# CPU, en float32, suma siempre en el mismo orden, calcule un token o cinco: por eso en las carreras de arriba podíamos
# exigirle los mismos tokens. Con números de 16 bits y las rutinas de cálculo de una GPU no suele ser así, y vLLM avisa
# de que pueden cambiar.

# %% [markdown] tags=["errata-4", "cubre-B-faq-especulativa"]
# ### 6.3 Errata: las opciones que ya no existen
#
# Los apuntes piden la decodificación especulativa con dos opciones sueltas. vLLM las retiró: la versión 0.32,
# por ejemplo, responde «unrecognized arguments» y no arranca. Nuestro servidor las rechaza y dice qué escribir.

# %%
with contextlib.redirect_stderr(io.StringIO()) as respuesta, contextlib.suppress(SystemExit):
    minillm(["serve", modelo.nombre, "--speculative-model", "X", "--num-speculative-tokens", "5"])
print(f"Con las opciones de los apuntes:\n\n  {respuesta.getvalue()}")
print("Hoy, en vLLM y aquí, es un objeto JSON en una sola opción. Con nuestros nombres de modelo:\n")
for claves in (
    '{"method": "draft_model", "model": "X", "num_speculative_tokens": 5}',
    '{"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 3}',
    '{"method": "eagle", "model": "smollm2-135m", "num_speculative_tokens": 6}',
):
    print(f"  minillm serve smollm2-135m --speculative-config '{claves}'")

# %% [markdown]
# ### 6.4 El lote lleno
#
# Con dieciséis peticiones a la vez, los pesos ya se comparten: cada paso produce dieciséis tokens y ya pasa de
# los que salen gratis. Verificar borradores que caen alarga entonces el paso para nada. Se mide con siempre 6
# borradores y con la longitud que decide el motor (`dynamic`), que puede ser cero.

# %%
lleno = carrera(
    modelo,
    CHARLA[:16],
    {
        "sin borradores": Corredor(),
        "siempre 6 borradores": Corredor(cabeza(modelo, dynamic=False)),
        "los que compensan": Corredor(cabeza(modelo)),
    },
    max_tokens=NUEVOS // 2,
    a_la_vez=16,
    veces=VECES,
)
display(lleno)
alfa = lleno.alfa("siempre 6 borradores")
k16 = mejor_k(alfa, c_capa, 16, libres, pendiente, 6)
print(f"Con α = {cifra(alfa, 2)} y 16 a la vez, tu mejor_k dice {k16} borradores.")

# %% [markdown]
# Tus predicciones, junto a lo medido, quedan en `bitacora.csv`. Y tu verificador queda guardado: los labs siguientes
# podrán usarlo.

# %%
esperado = mi_prediccion()
medido = {
    "copia": copia.ganancia("n-gramas del motor"),
    "charla": charla.ganancia("capa entrenada"),
    "lote_lleno": lleno.ganancia("siempre 6 borradores"),
}
for clave, veces in medido.items():
    anota("L07", f"ganancia, {clave}", esperado[clave], veces, "×", modelo.nombre)
    print(f"{clave}: esperabas {cifra(esperado[clave], 2)}×, mediste {cifra(veces, 2)}×")

mi_verificador = verificador(verifica)
guarda("spec.verify", "mi_verificador")

# %% [markdown]
# ## 7 · Explica
#
# Responde en la celda siguiente con tus números delante (15 puntos, los lee tu docente). Si te tocó el modelo diminuto,
# o una carrera no llegó a proponer nada, usa las filas grabadas de 5.3 y las cuentas de 3.6, y dilo.
#
# 1. ¿Cuál de tus tres predicciones se alejó más de lo medido? Explica por qué con `α`, los tokens por paso y lo que
#    cuesta el paso. (5)
# 2. Alguien promete «2 o 3 veces más rápido con calidad idéntica». ¿En cuáles de tus carreras fue cierto, en cuáles no,
#    y qué le preguntarías antes de creerlo? (5)
# 3. Una persona de tu equipo quiere la regla apresurada de 6.2 «porque los textos se ven igual de bien». Explícale con
#    tus números qué tokens salen de más y cuáles de menos, y por qué, con esa manera de aceptar, el sustituto no se
#    puede sortear de `p`. (5)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explica", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
#
# 1. Respuesta abierta. Se valora que compare el número escrito con el medido y nombre la causa: cuántos borradores se
#    aceptaron (α, tokens por paso), lo que costó proponerlos (nada con n-gramas, una pasada de la capa por borrador) y
#    lo que costó verificarlos (casi nada con una petición, mucho con dieciséis).
# 2. Suele ser cierto con n-gramas en los prompts que copian, a medias con la capa entrenada en una charla y falso con
#    el lote lleno, donde se pierde. «Calidad idéntica» se cumple en todas, porque la regla es exacta: los tokens
#    voraces son los mismos. Preguntas: qué carga (¿copia o charla?, ¿cuántas peticiones a la vez?), qué base, qué
#    método y cuántos borradores, qué tasa de aceptación y con qué regla se acepta.
# 3. En 6.2 el token 1, el que quien propone prefiere (p < q), sale 0,21 en vez de 0,3; los otros salen de más: 0,62 en
#    vez de 0,6 y 0,17 en vez de 0,1. Un token con p < q no se acepta nunca, y el sorteo de p solo le devuelve una
#    parte. A los demás los borradores aceptados ya les dieron q, y el sustituto debe aportar solo lo que les falta,
#    max(p − q, 0): al sortear de p se cuenta dos veces. La prueba χ² lo ve con veinte mil tiradas; leyendo textos no lo
#    ve nadie.
#
# ### END SOLUTION

# %% [markdown]
# ## 8 · Autoevaluación
#
# Piensa tu respuesta y abre cada opción.
#
# **A. Con α = 0,8 y k = 4, ¿cuántos tokens da un paso de media?**
#
# <details><summary>4,2: un token y cuatro borradores al 80 %</summary>No. El cuarto borrador solo cuenta si los tres anteriores
# se aceptaron: vale 0,8⁴, no 0,8.</details>
# <details><summary>3,36</summary>Correcto. 1 + 0,8 + 0,64 + 0,512 + 0,41 = 3,36.</details>
# <details><summary>5</summary>No. Cinco es el máximo, con α = 1.</details>
#
# **B. Un borrador con q(d) = 0,7 y p(d) = 0,3 se rechaza. ¿De dónde sale su sustituto?**
#
# <details><summary>De p, porque es la distribución del modelo</summary>No. Al aceptarse, d ya sale
# 0,7 · 3/7 = 0,3, todo lo que p le da. Si además pudiera salir como sustituto, saldría de más.</details>
# <details><summary>De max(p − q, 0), repartido para que sume 1</summary>Correcto. Es justo lo que a p le falta después de lo que
# aportan los borradores aceptados.</details>
# <details><summary>Es el token más probable de p</summary>No. Eso mezcla muestreo con selección voraz: los tokens probables
# saldrían de más.</details>
#
# **C. Un servidor en CPU con 64 peticiones en marcha activa «siempre 6 borradores» y da menos tokens por segundo. ¿Por
# qué?**
#
# <details><summary>Porque la tasa de aceptación baja cuando hay muchas peticiones</summary>No. La aceptación depende del texto y
# de quien propone, no del lote.</details>
# <details><summary>Porque el lote ya usaba todo el cálculo, y los borradores que caen lo gastan en balde</summary>Correcto. La
# lectura de los pesos ya se repartía entre 64; calcular siete tokens de cada una, en vez de uno, alarga el
# paso.</details>
# <details><summary>Porque la caché KV se llena de borradores</summary>No. Ocupan unas posiciones por petición, y el paso siguiente
# escribe encima.</details>
#
# **D. Un borrador cae a mitad de un bloque de la caché KV. ¿Qué hace el motor con sus claves y valores?**
#
# <details><summary>Las borra antes de seguir</summary>No hace falta: nadie mira más allá de la cuenta de posiciones
# válidas.</details>
# <details><summary>Nada: rebobina la cuenta y el paso siguiente escribe encima</summary>Correcto. Y mientras tanto no anuncia ese
# bloque en la caché de prefijos, porque no está lleno de texto verdadero.</details>
# <details><summary>Devuelve el bloque y pide otro</summary>No. El principio del bloque guarda tokens que sí valen.</details>
#
# **E. Con temperatura y la regla exacta, ¿el texto es el mismo que sin borradores?**
#
# <details><summary>Sí, token a token</summary>No con la regla de Leviathan: usa otros números al azar. Lo sería con una regla que
# reutiliza el mismo ruido, como <code>match</code> en nuestro motor.</details>
# <details><summary>No tiene por qué: suele ser otro texto, con la misma distribución</summary>Correcto. Por eso se comprueba con una prueba χ² y no
# comparando dos respuestas.</details>
