# %% [markdown]
# # Proyecto P · Sirve y demuéstralo
#
# Vas a servir un modelo de lenguaje a cincuenta clientes a la vez y a demostrar con números qué ganas. Todo ocurre en
# tu equipo: sin GPU y sin red.
#
# **Al terminar puedes…**
#
# | Resultado de aprendizaje | Comprobación |
# |---|---|
# | calcular p50 y p95 sin engañarte | `percentil` |
# | separar throughput y TTFT (tiempo hasta el primer token) | `resume` |
# | escribir un cliente concurrente con `openai` | `cliente` |
# | pedir JSON garantizado y comprobarlo con rigor | `cuerpo_json`, `es_valida` |
# | defender un «≥ 5×» nombrando la base | `veredicto`, `explica` |
#
# **Criterio de aceptación:** al menos **5 veces** el throughput de la `pipeline` de Hugging Face con los prompts **de
# uno en uno**, y **100 %** de respuestas JSON válidas. Al lado se informa siempre la razón contra la misma `pipeline`
# con todos los prompts en un solo lote.
#
# **Tiempo:** 180 minutos. **Puntos:** 100 (85 automáticos y 15 que lee tu docente).
#
# > El modelo es pequeño (SmolLM2, 135 millones de parámetros) y responde mejor en inglés: por eso los prompts están en
# > inglés. Aquí se estudia el motor, no el ingenio del modelo.

# %% [markdown]
# ## Preparación
#
# Ejecuta la celda y lee qué modelo te toca. Si ves «modelo diminuto», el cuaderno funciona igual, pero las velocidades
# no sirven como medida.

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
from minilab.graficas import barras, linea_de_tiempo
from minilab.informe import lee_demo
from minilab.modelo import elige_modelo
from minilab.referencia import mide_bases
from minilab.servidor import Servidor
from minillm_serve import LLM, SamplingParams
from minillm_serve.bench.prompts import GUIDED_MAX_TOKENS, PROMPTS, guided_cases

modelo = elige_modelo()
prompts = list(PROMPTS[:12] if modelo.rapido else PROMPTS)
NUEVOS = 16 if modelo.rapido else 64
MUESTRA = 2 if modelo.rapido else 4
CASOS_JSON = 10 if modelo.rapido else 50

print(modelo.aviso)
print(f"{len(prompts)} prompts, {NUEVOS} tokens nuevos por respuesta, {CASOS_JSON} respuestas JSON.")

# %% [markdown]
# ## 1 · Idea
#
# Una petición pasa por dos fases:
#
# - **Prefill**: el motor lee todo el prompt de una vez y guarda sus claves y valores en la **caché KV**. Es cálculo
#   denso: usa bien el procesador.
# - **Decode**: produce un token por paso. Cada paso lee **todos** los pesos para calcular un solo token: manda el ancho
#   de banda de la memoria.
#
# Si en cada paso avanzan cincuenta peticiones, los pesos se leen una vez y producen cincuenta tokens. De ahí sale casi
# toda la ganancia. El **planificador** decide en cada paso quién avanza: una petición nueva entra sin esperar a que el
# lote termine, y una que acaba deja su sitio. Eso es el *batching continuo*.
#
# Cuatro medidas, cada una con su pregunta:
#
# | Medida | Pregunta que responde | Unidad |
# |---|---|---|
# | throughput | ¿cuántos tokens nuevos produce el sistema entero? | tok/s |
# | TTFT | ¿cuánto espera una persona hasta ver el primer token? | s |
# | p50 | ¿qué vive la petición típica? | s |
# | p95 | ¿qué viven las peticiones con peor suerte? | s |

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


# %% nbgrader={"grade": true, "grade_id": "prueba_prediccion", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
comprobar("prediccion", mi_prediccion)

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


# %% nbgrader={"grade": true, "grade_id": "prueba_percentil", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("percentil", percentil)

# %% [markdown]
# ### 3.3 Throughput y TTFT
#
# Cada petición medida es un diccionario:
#
# `{"inicio": s, "primer_token": s, "fin": s, "tokens": int}`
#
# Implementa `resume(peticiones)`. Cuidado con el error clásico: **no sumes las velocidades de cada petición**. El
# throughput del sistema es el total de tokens entre el tiempo de reloj, desde el primer `inicio` hasta el último `fin`.
# El TTFT de una petición es `primer_token - inicio`.


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


# %% nbgrader={"grade": true, "grade_id": "prueba_resume", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false}
comprobar("resume", resume)

# %% [markdown]
# ### 3.4 Levanta el servidor
#
# El mismo motor, detrás de una API compatible con la de OpenAI. En una terminal sería `minillm serve smollm2-135m`;
# aquí lo arranca `Servidor` en un puerto libre y espera a que `/health` responda.

# %% tags=["corta"]
servidor = Servidor(modelo.carpeta, "--served-model-name", modelo.nombre)
with OpenAI(base_url=servidor.url, api_key="sin-clave") as cliente:
    nombre = cliente.models.list().data[0].id
print(f"Listo: {servidor.url} sirve {nombre}")

# %% [markdown]
# ### 3.5 Un cliente que pregunta a la vez
#
# Escribe dos corrutinas:
#
# - `mide_una` envía **una** petición en streaming y anota los tiempos con `reloj()`;
# - `lanza_todas` pone **todas** en vuelo a la vez y devuelve las medidas en el orden de los prompts.
#
# La petición lleva `model`, `messages` (un mensaje `user`), `max_tokens`, `temperature=0`, `stream=True`,
# `stream_options={"include_usage": True}` y `extra_body={"ignore_eos": True}` (así todas las respuestas miden lo mismo).
#
# Dos trampas reales:
#
# - el primer trozo puede traer solo el rol, sin texto: **no** es el primer token;
# - el último trozo trae `usage` y una lista `choices` vacía.


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


# %% nbgrader={"grade": true, "grade_id": "prueba_cliente", "locked": true, "points": 20, "schema_version": 3, "solution": false, "task": false}
comprobar("cliente", lanza_todas)

# %% [markdown]
# Ahora de verdad: la primera tanda es de calentamiento y se descarta; la segunda se mide. `corre` ejecuta una corrutina
# hasta el final.


# %% tags=["corta"]
async def tanda(preguntas):
    async with AsyncOpenAI(base_url=servidor.url, api_key="sin-clave", max_retries=0) as cliente:
        return await lanza_todas(cliente, nombre, preguntas, NUEVOS, time.perf_counter)


corre(tanda(prompts[:2]))
medidas = corre(tanda(prompts))
medido = resume(medidas)
print(f"{len(medidas)} peticiones a la vez: {medido['tok_s']:.1f} tok/s")
print(f"TTFT: p50 {medido['ttft_p50']:.2f} s · p95 {medido['ttft_p95']:.2f} s")

# %% [markdown]
# ## 4 · Mira
#
# Cada barra es una petición: la parte rayada es la espera hasta el primer token y la parte lisa es el decode. Fíjate en
# que todas las partes lisas se solapan: es el lote avanzando junto.

# %%
linea_de_tiempo(medidas, "Peticiones simultáneas")

# %% [markdown]
# ## 5 · Compara
#
# Sin base, «5×» no significa nada. Medimos dos veces la `pipeline` de transformers, con los mismos prompts, los mismos
# tokens nuevos, float32 y selección voraz (*greedy*):
#
# - **una a una**: la base del enunciado;
# - **en lote**: todos los prompts juntos, rellenados hasta el más largo. Es la base exigente.

# %%
bases = mide_bases(modelo.carpeta, prompts, NUEVOS, MUESTRA)
if bases is None:
    print("transformers no está instalado: las bases se leerán del informe de `make demo`.")
else:
    print(f"razón contra una a una: {medido['tok_s'] / bases['una_a_una']:.1f}×")
    print(f"razón contra el lote:   {medido['tok_s'] / bases['en_lote']:.1f}×")
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
# `{"type": "json_schema", "json_schema": {"name": …, "schema": …}}`
#
# Implementa `cuerpo_json(pregunta, esquema)`: devuelve un diccionario con `messages`, `max_tokens` y `response_format`,
# listo para `chat.completions.create(model=…, **cuerpo)`. Da espacio de sobra en `max_tokens`: un JSON cortado no es
# válido. `GUIDED_MAX_TOKENS` basta para los esquemas de esta práctica.


# %% nbgrader={"grade": false, "grade_id": "cuerpo_json", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cuerpo_json(pregunta, esquema, max_tokens=512):
    """Argumentos de una petición cuya respuesta cumple el esquema por construcción."""
    ### BEGIN SOLUTION
    return {
        "messages": [{"role": "user", "content": pregunta}],
        "max_tokens": max_tokens,
        "response_format": {"type": "json_schema", "json_schema": {"name": "respuesta", "schema": esquema}},
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_cuerpo_json", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false}
comprobar("cuerpo_json", cuerpo_json)

# %% [markdown]
# ### 6.2 El juez
#
# Implementa `es_valida(texto, esquema, fin)`, donde `fin` es el `finish_reason` de la respuesta. Es verdadera solo si:
#
# - la respuesta terminó sola (`fin == "stop"`), no por llegar al límite;
# - **todo** el texto es JSON estricto. `NaN` e `Infinity` no son JSON, aunque `json.loads` los acepte: mira su argumento
#   `parse_constant`;
# - el dato cumple el esquema según `jsonschema`.
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


# %% nbgrader={"grade": true, "grade_id": "prueba_es_valida", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("es_valida", es_valida)


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

# %% [markdown]
# ## 7 · Rompe
#
# ### 7.1 El campo que ya no existe
#
# Muchas guías piden JSON con `extra_body={"guided_json": esquema}`. vLLM retiró ese campo en la versión 0.12: desde
# entonces lo **ignora sin avisar**, responde 200 y el texto sale libre. Nuestro servidor prefiere decirlo.

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

# %% [markdown]
# ### 7.2 El cliente que espera
#
# El mismo servidor, los mismos prompts, pero el cliente envía cada petición cuando termina la anterior. El motor nunca
# tiene más de una que atender.


# %%
async def de_una_en_una(preguntas):
    async with AsyncOpenAI(base_url=servidor.url, api_key="sin-clave", max_retries=0) as cliente:
        return [await mide_una(cliente, nombre, p, NUEVOS, time.perf_counter) for p in preguntas]


lento = resume(corre(de_una_en_una(prompts[:MUESTRA])))
print(f"de una en una: {lento['tok_s']:.1f} tok/s · a la vez: {medido['tok_s']:.1f} tok/s")
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
# Calcula tú las razones: no copies campos ya calculados. `cumple` exige razón ≥ 5 contra una a una **y** 100 % de JSON.


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


# %% nbgrader={"grade": true, "grade_id": "prueba_veredicto", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("veredicto", veredicto)

# %%
informe = lee_demo()
origen = "reports/demo.json"
if informe is None and bases is not None:
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
    print(f"Según {origen}:")
    print(f"{final['ratio']:.1f}× contra una a una · {final['ratio_lote']:.1f}× contra el lote")
    print(f"{final['json_pct']:.0f} % de JSON válido · {'cumple' if final['cumple'] else 'no cumple'} el criterio")
    if origen != "reports/demo.json" and not modelo.real:
        print("Aviso: con el modelo diminuto estas cifras no demuestran nada; repite con el modelo real.")
    anota("P", "razón contra una a una", mi_prediccion()["contra_una_a_una"], final["ratio"], "×", modelo.nombre)
    anota("P", "razón contra el lote", mi_prediccion()["contra_lote"], final["ratio_lote"], "×", modelo.nombre)

# %% [markdown]
# Las dos últimas filas de `bitacora.csv` guardan tu predicción junto a la medida.

# %% [markdown]
# ## 9 · Explica
#
# Responde en la celda siguiente con tus números delante (15 puntos, los lee tu docente):
#
# 1. ¿En qué se equivocó tu predicción y por qué? (5)
# 2. ¿Por qué la razón contra el lote es mucho menor que la razón contra una a una? (5)
# 3. Una persona te dice «mi servidor es 20× más rápido que Hugging Face». ¿Qué tres datos le pides? (5)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explica", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false}
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
# **B. Tu p95 de TTFT empeora al subir de 10 a 50 peticiones y el throughput mejora. ¿Está roto el servidor?**
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
