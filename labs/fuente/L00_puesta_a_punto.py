# %% [markdown] tags=["corta", "cubre-A-objetivo"]
# # Lab 0 · Puesta a punto y primera medida honesta
#
# Un servidor de LLM recibe un texto y devuelve otro, pieza a pieza. En este curso vas a construir uno por dentro. Antes
# de hacer nada más rápido hay que saber **qué se mide, desde cuándo y contra qué**: casi todas las cifras que circulan
# sobre este tema fallan en una de las tres cosas.
#
# El objetivo de un servidor tiene tres caras, que tiran en direcciones distintas: **latencia baja** (que cada persona
# espere poco), **throughput alto** (que el sistema entero produzca mucho) y **coste que se pueda prever**.
#
# **Al terminar puedes…**
#
# | Resultado de aprendizaje | Comprobación |
# |---|---|
# | calcular p50 y p95 y decir qué esconde la media | `percentil` |
# | separar TTFT, ITL y TPOT de una petición | `medidas_de` |
# | calcular el throughput de muchas peticiones a la vez | `throughput` |
# | cronometrar con calentamiento, repeticiones y espera | `mide_funcion` |
# | dar una razón que nombra su base, o negarte a darla | `razon_honesta` |
# | decir contra qué base es cierta una ganancia anunciada | `bases_que_cumplen` |
#
# **Tiempo:** 65 minutos. **Pista corta:** 15 minutos (las celdas con la etiqueta `corta`).
# **Puntos:** 100 (85 automáticos y 15 que lee tu docente).
#
# > El modelo es pequeño (SmolLM2, 135 millones de parámetros) y responde mejor en inglés: por eso los prompts están en
# > inglés. Aquí se estudia el motor, no el ingenio del modelo.

# %% [markdown] tags=["corta"]
# ## Preparación
#
# Ejecuta la celda y lee qué modelo te toca. Si dice «modelo diminuto», todo funciona igual, pero las velocidades no
# sirven como medida.

# %% nbgrader={"grade": false, "grade_id": "preparacion", "locked": true, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
import time

from IPython.display import display

from minilab.bitacora import anota
from minilab.comparar import compara
from minilab.comprobar import comprobar
from minilab.cuaderno import prepara
from minilab.graficas import barras
from minilab.marcas import sirve
from minilab.referencia import mide_bases
from minilab.widgets import ver_latencias
from minillm_serve import LLM
from minillm_serve.bench.prompts import PROMPTS

modelo = prepara("L00")
preguntas = list(PROMPTS[: 6 if modelo.rapido else 12])
NUEVOS = 12 if modelo.rapido else 32
MUESTRA = 2 if modelo.rapido else 4
print(f"{len(preguntas)} prompts, {NUEVOS} tokens nuevos por respuesta.")

# %% [markdown] tags=["corta", "cubre-A-metricas"]
# ## 1 · Idea
#
# El modelo no lee letras: lee **tokens**, trozos de texto numerados. El texto que le das es el **prompt**. La respuesta
# sale de uno en uno: el modelo calcula un token, lo añade al texto y vuelve a empezar. Por eso una respuesta no llega de
# golpe. Así se ve desde fuera una petición de cuatro tokens:
#
# ```text
#  segundos   0,0            0,5    0,6    0,7              1,2
#             │ petición      │ The  │ sky  │ is             │ blue
#             └──── TTFT ────┘└ ITL ┘└ ITL ┘└───── ITL ─────┘
#               0,5             0,1    0,1        0,5
# ```
#
# De ese dibujo salen todas las medidas del curso:
#
# | Medida | Pregunta que responde | Aquí |
# |---|---|---|
# | **TTFT** (*time to first token*) | ¿cuánto espero hasta ver algo? | 0,5 s |
# | **ITL** (*inter-token latency*) | ¿cuánto pasa entre un token y el siguiente? | 0,1 · 0,1 · 0,5 s |
# | **TPOT** (*time per output token*) | ¿y de media, una vez que ha empezado? | 0,7 / 3 = 0,233 s |
# | latencia total | ¿cuándo acaba? | 1,2 s |
# | **throughput** (TPS, tokens por segundo) | ¿cuánto produce el sistema **entero**? | 4 / 1,2 = 3,3 tok/s |
#
# Las cuatro primeras hablan de **una persona**; el throughput habla de **la máquina**. Atender a muchas personas a la vez
# suele subir el throughput y empeorar la espera de cada una: por eso nunca se da una cifra sin la otra.
#
# Con muchas peticiones hay muchos TTFT. Para resumirlos se usan **percentiles**: p50 (la mediana) es lo que vive la
# petición típica; p95 es lo que vive una de cada veinte, la de peor suerte. A ese extremo se le llama la **cola** de la
# latencia.
#
# ¿Y el coste? Si la máquina cuesta un precio por hora, mil tokens cuestan `precio / 3600 / throughput · 1000`: el coste
# por token es el throughput visto desde la factura.

# %% [markdown] tags=["corta"]
# ## 2 · Predice
#
# Antes de medir, escribe tus números. Cualquiera mayor que 0 vale: lo útil es compararlos después.
#
# - `lote`: ¿cuántas veces más throughput da nuestro motor si le mandas todos los prompts **a la vez** que si esperas a
#   que termine uno para mandar el siguiente?
# - `frio`: la **primera** petición a un motor que aún no está cargado, ¿cuántas veces tarda lo que las siguientes?


# %% nbgrader={"grade": false, "grade_id": "prediccion", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
def mi_prediccion():
    """Devuelve {"lote": número, "frio": número}."""
    ### BEGIN SOLUTION
    return {"lote": 4.0, "frio": 2.0}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_prediccion", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("prediccion_l00")

# %% [markdown] tags=["corta"]
# ## 3 · Construye
#
# ### 3.1 Un percentil
#
# Cinco personas esperan 1, 1, 1, 1 y 11 segundos. La media es 3 s: nadie ha esperado eso. La mediana es 1 s: cuatro de
# cinco lo firman. La quinta solo se ve en la cola.
#
# **Tu tarea:** implementa `percentil(valores, p)`, con `p` de 0 a 100:
#
# 1. ordena los valores;
# 2. la posición es `(n − 1) · p / 100`, contando desde 0;
# 3. si cae entre dos valores, avanza de uno a otro en proporción (interpolación lineal).
#
# En papel: `percentil([10, 20], 95)` → posición `1 · 0,95 = 0,95` → 95 % del camino de 10 a 20 → `19,5`. Una lista vacía
# no tiene percentiles: lanza `ValueError`.


# %% nbgrader={"grade": false, "grade_id": "percentil", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
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


# %% nbgrader={"grade": true, "grade_id": "prueba_percentil", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("percentil")

# %% [markdown] tags=["corta"]
# ### 3.2 Una petición por dentro
#
# Para medir una petición basta con anotar dos cosas con el mismo reloj: cuándo se pidió (`inicio`) y cuándo llegó cada
# token (`tiempos`, una lista de segundos).
#
# **Tu tarea:** implementa `medidas_de(inicio, tiempos)`. Devuelve un diccionario:
#
# | Clave | Valor |
# |---|---|
# | `ttft` | primer token − inicio |
# | `itl` | lista de huecos entre tokens seguidos: `n − 1` números |
# | `tpot` | media de esos huecos; `None` si no hay ninguno |
# | `total` | último token − inicio |
#
# Tres cosas que pasan de verdad:
#
# - los instantes pueden llegar **desordenados** (los anotan varios hilos): ordénalos;
# - un token **anterior** al inicio quiere decir que los dos relojes no son el mismo: eso no se arregla, se rechaza con
#   `ValueError`;
# - si no llegó ningún token, también `ValueError`.
#
# El error clásico es dividir el total entre los tokens: mezcla la espera del principio con el ritmo.


# %% nbgrader={"grade": false, "grade_id": "medidas_de", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
def medidas_de(inicio, tiempos):
    """TTFT, ITL, TPOT y latencia total de una petición, en segundos.

    inicio: instante en que se pidió. tiempos: instante de cada token nuevo, en cualquier orden.
    Devuelve {"ttft": s, "itl": [s, …], "tpot": s o None, "total": s}. Lanza ValueError si no hay tokens o si alguno es
    anterior al inicio.
    """
    ### BEGIN SOLUTION
    orden = sorted(tiempos)
    if not orden or orden[0] < inicio:
        raise ValueError("no hay tokens, o los relojes no coinciden")
    itl = [orden[i + 1] - orden[i] for i in range(len(orden) - 1)]
    return {
        "ttft": orden[0] - inicio,
        "itl": itl,
        "tpot": sum(itl) / len(itl) if itl else None,
        "total": orden[-1] - inicio,
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_medidas_de", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("medidas_de")

# %% [markdown] tags=["corta"]
# Ahora de verdad. `LLM` carga el modelo en este proceso; `sirve` le manda prompts y anota con un reloj el instante de
# cada token. La primera pasada calienta y se tira; la segunda se mide.

# %% tags=["corta"]
llm = LLM(model=modelo.carpeta)
sirve(llm, preguntas[:1], 4)
peticion = sirve(llm, preguntas[:1], NUEVOS)[0]
medidas = medidas_de(peticion["inicio"], peticion["tiempos"])
print(f"«{preguntas[0]}» → {peticion['tokens']} tokens")
print(f"TTFT {1000 * medidas['ttft']:.1f} ms · TPOT {1000 * medidas['tpot']:.1f} ms · total {medidas['total']:.2f} s")
print("los cinco primeros huecos:", " · ".join(f"{1000 * hueco:.1f} ms" for hueco in medidas["itl"][:5]))

# %% [markdown] tags=["corta"]
# ### 3.3 Muchas a la vez: el throughput
#
# Dos peticiones empiezan en el segundo 0. Una acaba en el 2 con 30 tokens; la otra, en el 4 con 50:
#
# ```text
#   A  ├──────────┤            30 tokens en 2 s → 15,0 tok/s
#   B  ├─────────────────────┤ 50 tokens en 4 s → 12,5 tok/s
#      0          2          4
# ```
#
# ¿Throughput del sistema? **No es** 15 + 12,5 = 27,5: a partir del segundo 2 la primera ya no produce nada. Son 80 tokens
# en 4 segundos de reloj: 20 tok/s.
#
# **Tu tarea:** implementa `throughput(peticiones)`: todos los tokens entre el tiempo que pasa desde el **primer**
# `inicio` hasta el **último** `fin`. Sin peticiones, o si no pasa el tiempo, lanza `ValueError`.


# %% nbgrader={"grade": false, "grade_id": "throughput", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
def throughput(peticiones):
    """Tokens por segundo del sistema entero.

    peticiones: lista de {"inicio": s, "fin": s, "tokens": int}, en cualquier orden y con el mismo reloj.
    """
    ### BEGIN SOLUTION
    if not peticiones:
        raise ValueError("no hay peticiones")
    reloj = max(p["fin"] for p in peticiones) - min(p["inicio"] for p in peticiones)
    if reloj <= 0:
        raise ValueError("no pasa el tiempo")
    return sum(p["tokens"] for p in peticiones) / reloj
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_throughput", "locked": true, "points": 13, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("throughput")

# %% [markdown] tags=["corta"]
# El mismo motor y los mismos prompts, de dos maneras: cada prompt cuando acaba el anterior, o todos a la vez.

# %% tags=["corta"]
una_a_una = sirve(llm, preguntas, NUEVOS, a_la_vez=False)
a_la_vez = sirve(llm, preguntas, NUEVOS)
velocidad = {"una a una": throughput(una_a_una), "todas a la vez": throughput(a_la_vez)}
for manera, peticiones in (("una a una", una_a_una), ("todas a la vez", a_la_vez)):
    tpot = [medidas_de(p["inicio"], p["tiempos"])["tpot"] for p in peticiones]
    print(f"{manera:>15}: {velocidad[manera]:7.1f} tok/s · TPOT p50 {1000 * percentil(tpot, 50):.1f} ms")

# %% [markdown] tags=["corta"]
# Fíjate en las dos columnas: con todas a la vez la máquina produce más y cada persona ve llegar sus tokens más despacio.
# Por qué ocurre es el tema del Lab 2. La bitácora guarda tu predicción junto a lo medido:

# %% tags=["corta"]
anota(
    "L00",
    "todas a la vez contra una a una",
    mi_prediccion()["lote"],
    velocidad["todas a la vez"] / velocidad["una a una"],
    "×",
    modelo.nombre,
)

# %% [markdown]
# ### 3.4 Un cronómetro que no se engaña
#
# Cronometrar parece fácil: leer el reloj, llamar a la función, leer el reloj. Hay tres maneras de que salga mal:
#
# 1. **Sin calentar.** La primera llamada carga bibliotecas, reserva memoria y compila. Se hace antes y se tira.
# 2. **Una sola vez.** Otro programa pasaba por ahí. Se repite, se da la **mediana** y se enseñan mínimo y máximo.
# 3. **Sin esperar.** En una GPU la llamada vuelve **antes** de que el trabajo acabe: solo lo encarga. Hay que esperar al
#    dispositivo (`torch.cuda.synchronize()`) antes de leer el reloj **al final**… y también **al principio**, o la primera
#    lectura paga lo que el calentamiento dejó a medias.
#
# **Tu tarea:** implementa `mide_funcion`. El reloj y la espera llegan como argumentos (`reloj()` devuelve segundos;
# `sincroniza()` espera al dispositivo, o es `None` si no hay nada que esperar). Así se puede probar con una máquina de
# mentira, `Banco`, que tiene su propio reloj y trabaja después de que la llamada vuelva. Léelo: no hay que tocarlo.
#
# Puedes usar tu `percentil` para la mediana. Si `veces` es menor que 1 o `calienta` es negativo, lanza `ValueError`.


# %% nbgrader={"grade": false, "grade_id": "mide_funcion", "locked": false, "schema_version": 3, "solution": true, "task": false}
class Banco:
    """Una máquina de mentira: cada llamada tarda 1 ms en encargar un trabajo que el dispositivo hace después."""

    def __init__(self, duraciones):
        self.duraciones, self.llamadas = duraciones, 0
        self.ahora = self.libre = 1000.0

    def funcion(self):
        self.ahora += 0.001
        self.libre = max(self.libre, self.ahora) + self.duraciones[self.llamadas]
        self.llamadas += 1

    def reloj(self):
        return self.ahora

    def sincroniza(self):
        self.ahora = max(self.ahora, self.libre)

    def mide(self, veces, calienta):
        medida = mide_funcion(self.funcion, veces, calienta, self.reloj, self.sincroniza)
        return {**medida, "llamadas": self.llamadas}

    def mide_sin_esperar(self, veces, calienta):
        return {**mide_funcion(self.funcion, veces, calienta, self.reloj, None), "llamadas": self.llamadas}


def mide_funcion(funcion, veces=5, calienta=1, reloj=time.perf_counter, sincroniza=None):
    """Cronometra funcion(): `calienta` llamadas que no cuentan y `veces` lecturas.

    Devuelve {"mediana": s, "minimo": s, "maximo": s, "lecturas": [s, …]}, con las lecturas en su orden.
    """
    ### BEGIN SOLUTION
    if veces < 1 or calienta < 0:
        raise ValueError("veces debe ser 1 o más y calienta 0 o más")
    espera = sincroniza or (lambda: None)
    for _ in range(calienta):
        funcion()
    lecturas = []
    for _ in range(veces):
        espera()
        antes = reloj()
        funcion()
        espera()
        lecturas.append(reloj() - antes)
    extremos = {"minimo": min(lecturas), "maximo": max(lecturas)}
    return {"mediana": percentil(lecturas, 50), **extremos, "lecturas": lecturas}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_mide_funcion", "locked": true, "points": 17, "schema_version": 3, "solution": false, "task": false}
comprobar("mide_funcion")

# %% [markdown]
# Los labs siguientes usan `minilab.cronometro.mide`, que hace lo mismo.
#
# ### 3.5 Una razón que nombra su base
#
# «5×» no significa nada hasta que se dice **contra qué**. Y dos medidas solo se pueden dividir si hicieron el mismo
# trabajo: mismo modelo, misma precisión, mismo equipo, mismos prompts y mismos tokens nuevos. Cada medida es un
# diccionario:
#
# `{"sistema", "modo", "modelo", "dtype", "equipo", "prompts", "nuevos", "tok_s"}`
#
# **Tu tarea:** implementa `razon_honesta(base, medida)`:
#
# - si algún campo de `IGUALES` falta en una de las dos o difiere, lanza `ValueError` con el nombre del campo en el mensaje.
#   Que falte en **las dos** no es que coincida;
# - si no, devuelve `{"razon": número, "frase": texto}`. La razón es `tok_s` de la medida entre `tok_s` de la base. La frase
#   lleva la razón con un decimal y nombra el `sistema` y el `modo` de la base: `"7.5× contra transformers, una a una"`.


# %% nbgrader={"grade": false, "grade_id": "razon_honesta", "locked": false, "schema_version": 3, "solution": true, "task": false}
IGUALES = ("modelo", "dtype", "equipo", "prompts", "nuevos")


def razon_honesta(base, medida):
    """{"razon": número, "frase": texto que nombra la base}, o ValueError si las dos medidas no son comparables."""
    ### BEGIN SOLUTION
    for campo in IGUALES:
        if campo not in base or campo not in medida or base[campo] != medida[campo]:
            raise ValueError(f"no se pueden comparar: {campo} falta o difiere")
    razon = medida["tok_s"] / base["tok_s"]
    return {"razon": razon, "frase": f"{razon:.1f}× contra {base['sistema']}, {base['modo']}"}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_razon_honesta", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false}
comprobar("razon_honesta")

# %% [markdown]
# ## 4 · Mira
#
# ¿Cuándo se separan p50 y p95? Cuando hay **cola**. Este motor solo atiende a dos peticiones a la vez: el resto espera su
# turno. Mueve el percentil de 50 a 95 en la serie «TTFT» y después en «ITL».

# %%
estrecho = LLM(model=modelo.carpeta, max_num_seqs=2)
sirve(estrecho, preguntas[:1], 4)
en_cola = [medidas_de(p["inicio"], p["tiempos"]) for p in sirve(estrecho, preguntas, NUEVOS)]
del estrecho
ttft = [m["ttft"] for m in en_cola]
itl = [hueco for m in en_cola for hueco in m["itl"]]
print(f"TTFT: media {sum(ttft) / len(ttft):.2f} s · p50 {percentil(ttft, 50):.2f} s · p95 {percentil(ttft, 95):.2f} s")
ver_latencias({"TTFT": ttft, "ITL": itl}, unidad="s", percentil=95, titulo="Con sitio para dos peticiones a la vez")

# %% [markdown]
# La ITL apenas cambia: quien ya está dentro va a su ritmo. El TTFT lo paga quien espera fuera. Una sola cifra («la
# latencia») habría mezclado las dos cosas.

# %% [markdown] tags=["cubre-B-ganancia"]
# ## 5 · Compara
#
# La base que usan los apuntes es la `pipeline` de transformers. La medimos de dos maneras, con los mismos prompts, los
# mismos tokens nuevos, float32 y *greedy* (siempre el token más probable): **una a una** y **en lote**, todos los prompts
# juntos y rellenados hasta el más largo.

# %%
comun = {
    "modelo": modelo.nombre,
    "dtype": "float32",
    "equipo": "este",
    "prompts": len(preguntas),
    "nuevos": NUEVOS,
}
medidas_tok_s = {
    ("minillm", "una a una"): velocidad["una a una"],
    ("minillm", "todas a la vez"): velocidad["todas a la vez"],
}
bases = mide_bases(modelo.carpeta, preguntas, NUEVOS, MUESTRA)
if bases is None:
    print("transformers no está instalado: sin base no hay razón.")
else:
    medidas_tok_s["transformers", "una a una"] = bases["una_a_una"]
    medidas_tok_s["transformers", "en lote"] = bases["en_lote"]
fichas = {quien: {"sistema": quien[0], "modo": quien[1], **comun, "tok_s": v} for quien, v in medidas_tok_s.items()}
nuestra = fichas["minillm", "todas a la vez"]
for quien, ficha in fichas.items():
    if quien[0] == "transformers":
        print("minillm, todas a la vez:", razon_honesta(ficha, nuestra)["frase"])
display(barras({", ".join(quien): v for quien, v in medidas_tok_s.items()}, "tok/s", "Tokens nuevos por segundo"))

# %% [markdown]
# La misma máquina, el mismo motor y el mismo minuto dan **dos razones muy distintas**. Ninguna es mentira: cada una
# nombra su base.
#
# Y el coste. Pon el precio por hora de tu máquina: la cuenta es la misma para todas.

# %% tags=["cubre-A-metricas"]
PRECIO_HORA = 1.0  # € por hora: escribe el de tu máquina
for quien, v in medidas_tok_s.items():
    coste = PRECIO_HORA / 3600 / v * 1000
    print(f"{', '.join(quien):>28}: {coste:.5f} € por mil tokens, si nunca está parada")

# %% [markdown] tags=["cubre-D-hardware", "cubre-E-motores"]
# ¿Y vLLM? Es un motor de producción muy usado. Si no está instalado aquí, se enseña una medida **grabada**, con su
# máquina y su fecha.

# %%
gpu = compara("gpu", modelo)
gpu

# %% [markdown]
# ¿Se pueden dividir esas cifras por las nuestras? Pregúntaselo a tu función:

# %%
ajena = {**nuestra, "sistema": "vLLM", "equipo": "H100", "modelo": "llama3-8b", "dtype": "bfloat16"}
try:
    print(razon_honesta(nuestra, ajena)["frase"])
except ValueError as error:
    print(f"No: {error}.")

# %% [markdown]
# ## 6 · Rompe
#
# ### 6.1 La primera medida, en frío
#
# Este motor se carga cuando le llega la primera petición, como en muchos servicios que se apagan si nadie los usa. Lo
# cronometramos **sin** calentamiento. Mira la primera lectura y piensa qué media habría salido.


# %%
def perezoso():
    motores = []

    def responde():
        if not motores:
            motores.append(LLM(model=modelo.carpeta))
        sirve(motores[0], preguntas[:1], 4)

    return mide_funcion(responde, veces=4, calienta=0)


frio = perezoso()
resto = percentil(frio["lecturas"][1:], 50)
print("lecturas:", " · ".join(f"{1000 * lectura:.0f} ms" for lectura in frio["lecturas"]))
media = sum(frio["lecturas"]) / len(frio["lecturas"])
print(f"la primera tarda {frio['lecturas'][0] / resto:.1f} veces lo que la mediana de las demás")
print(f"media de las cuatro: {1000 * media:.0f} ms, que no es lo que tarda ninguna")
anota("L00", "primera petición en frío", mi_prediccion()["frio"], frio["lecturas"][0] / resto, "×", modelo.nombre)

# %% [markdown]
# ### 6.2 Sumar velocidades
#
# ¿Qué habría dicho alguien que suma la velocidad de cada petición? Con la cola de la sección 4 el engaño crece: quien
# acaba pronto cuenta como si siguiera produciendo.

# %%
escalonadas = [{"inicio": 0.0, "fin": 1.0, "tokens": 20}, {"inicio": 0.0, "fin": 10.0, "tokens": 20}]
suma = sum(p["tokens"] / (p["fin"] - p["inicio"]) for p in escalonadas)
print(f"suma de velocidades: {suma:.1f} tok/s · throughput: {throughput(escalonadas):.1f} tok/s")
suma = sum(p["tokens"] / (p["fin"] - p["inicio"]) for p in una_a_una)
print(f"una a una, de verdad: suma {suma:.1f} tok/s · throughput {throughput(una_a_una):.1f} tok/s")

# %% [markdown] tags=["errata-9", "cubre-B-ganancia", "cubre-D-hardware", "cubre-E-motores"]
# La suma convierte «uno detrás de otro» en «todos a la vez»: un servidor que atiende de uno en uno parecería tan bueno
# como uno que atiende a todos.
#
# ### 6.3 Errata: cuatro ganancias para lo mismo
#
# Los apuntes de partida anuncian la ganancia de vLLM cuatro veces, y no coinciden:
#
# | Apunte | Dice | Contra |
# |---|---|---|
# | clase 151 | de 5 a 20 veces | la `pipeline` de Hugging Face |
# | notas de vLLM y Ray | de 2 a 10 veces | transformers, sin decir cómo |
# | wiki de serving | de 2 a 4 veces | «implementaciones ingenuas» |
# | notas de despliegue | 50, 300 y 500 tok/s | sin batching, lote estático y batching continuo |
#
# No hay que elegir cuál es la buena: hay que preguntar **contra qué base** es cierta cada una.
#
# **Tu tarea:** implementa `bases_que_cumplen(velocidades, sistema, minimo, maximo)`. `velocidades` es un diccionario
# nombre → tok/s. Devuelve la lista **ordenada alfabéticamente** de los **otros** nombres contra los que la razón de
# `sistema` cae entre `minimo` y `maximo`, ambos incluidos.


# %% nbgrader={"grade": false, "grade_id": "bases_que_cumplen", "locked": false, "schema_version": 3, "solution": true, "task": false}
def bases_que_cumplen(velocidades, sistema, minimo, maximo):
    """Los nombres contra los que «de minimo a maximo veces más rápido» es cierto para `sistema`."""
    ### BEGIN SOLUTION
    suya = velocidades[sistema]
    return sorted(b for b, tok_s in velocidades.items() if b != sistema and minimo <= suya / tok_s <= maximo)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_bases", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("bases_que_cumplen")

# %% [markdown]
# Aplícala a lo que acabas de medir. Las cifras «50, 300 y 500» son, en realidad, tres razones: 500/50 = 10 contra no
# agrupar nada y 500/300 ≈ 1,7 contra un lote estático.

# %%
anuncios = {
    "clase 151: de 5 a 20 veces": (5, 20),
    "notas de vLLM y Ray: de 2 a 10 veces": (2, 10),
    "wiki: de 2 a 4 veces": (2, 4),
    "despliegue: de 1,7 a 10 veces": (500 / 300, 500 / 50),
}
tuyas = {", ".join(quien): v for quien, v in medidas_tok_s.items()}
for anuncio, (minimo, maximo) in anuncios.items():
    ciertas = bases_que_cumplen(tuyas, "minillm, todas a la vez", minimo, maximo)
    print(f"{anuncio:38} cierta contra: {' | '.join(ciertas) or 'ninguna de estas bases'}")

H100 = {
    "vLLM, 50 a la vez": gpu.valor("vLLM", "H100, llama3-8b, 50 peticiones", "tok_s"),
    "vLLM, una sola": gpu.valor("vLLM", "H100, llama3-8b, una petición", "tok_s"),
    "transformers, una a una": gpu.valor("transformers", "H100, llama3-8b, 50 peticiones, una a una", "tok_s"),
}
if None in H100.values():
    print("No encuentro las medidas grabadas de GPU.")
else:
    for base in ("vLLM, una sola", "transformers, una a una"):
        razon = H100["vLLM, 50 a la vez"] / H100[base]
        print(f"H100, llama3-8b (grabado): vLLM con 50 a la vez da {razon:.1f}× contra {base}")

# %% [markdown] tags=["errata-15"]
# El mismo motor hace cierta o falsa cada frase según la base. La forma corregida es la tuya: razón, base, modo, carga y
# equipo en la misma línea.
#
# ### 6.4 Errata: «con una sola petición, vLLM es como Hugging Face»
#
# La clase 151 lo dice así. La idea de fondo es buena (sin compañeras de lote no hay batching que valga), pero «como» es
# una cifra, y las cifras se miden. Aquí están las dos, con una sola petición en curso:

# %%
if bases is None:
    print("transformers no está instalado: no se puede comprobar.")
else:
    suya, nuestra_sola = fichas["transformers", "una a una"], fichas["minillm", "una a una"]
    print("aquí, nuestro motor, una a una:", razon_honesta(suya, nuestra_sola)["frase"])
if None not in H100.values():
    razon = H100["vLLM, una sola"] / H100["transformers, una a una"]
    print(f"H100, llama3-8b (grabado), vLLM una sola: {razon:.1f}× contra transformers, una a una")

# %% [markdown]
# Con una petición no gana el batching: gana quien gasta menos tiempo **alrededor** de las multiplicaciones. El resultado
# depende del equipo, del modelo y de la versión: se mide.

# %% [markdown]
# ## 7 · Explica
#
# Responde en la celda siguiente con tus números delante (15 puntos, los lee tu docente):
#
# 1. En la sección 4, ¿por qué se alejan p50 y p95 del TTFT y no los de la ITL? (4)
# 2. Tu motor da dos razones distintas contra la misma biblioteca. ¿Cuál pondrías en un informe y qué datos irían al lado?
#    (5)
# 3. ¿En qué se equivocaron tus dos predicciones y por qué? (3)
# 4. Alguien mide una GPU sin esperar al dispositivo y le salen 2 ms por paso. ¿Qué ha medido? (3)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explica", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
#
# 1. Solo caben dos a la vez: las demás esperan turno y esa espera entra entera en su TTFT, más larga cuanto más atrás
#    están (2). La ITL se cuenta desde que la petición ya está dentro, donde todas van al mismo ritmo (2).
# 2. Las dos, cada una con su base. Se valora que nombre sistema y modo de la base (2), la carga: peticiones a la vez,
#    prompts y tokens nuevos (2), y el equipo con la precisión y las versiones (1).
# 3. Respuesta abierta. Se valora que compare los números escritos con los medidos (1) y nombre una causa concreta para
#    cada uno: leer los pesos una vez para todas; cargar, reservar y compilar la primera vez (2).
# 4. Lo que se tarda en encargar el trabajo, no en hacerlo (2). Falta esperar al dispositivo antes de cada lectura del
#    reloj (1).
#
# ### END SOLUTION

# %% [markdown]
# ## 8 · Autoevaluación
#
# Piensa tu respuesta y abre cada opción.
#
# **A. Una respuesta de 101 tokens tarda 6 s y su TTFT es de 1 s. ¿Cuál es su TPOT?**
#
# <details><summary>6 / 101 ≈ 0,059 s</summary>No. Eso reparte también la espera del principio entre los tokens.</details>
# <details><summary>5 / 100 = 0,05 s</summary>Correcto. Después del primero quedan 100 huecos y 5 segundos.</details>
# <details><summary>5 / 101 ≈ 0,0495 s</summary>Casi. Entre 101 tokens hay 100 huecos, no 101.</details>
#
# **B. Diez peticiones a la vez, 100 tokens cada una; todas acaban a los 5 s menos una, que acaba a los 10 s. ¿Throughput?**
#
# <details><summary>9 · 20 + 10 = 190 tok/s</summary>No. Eso suma velocidades: durante los últimos 5 s solo produce
# una.</details>
# <details><summary>1000 / 10 = 100 tok/s</summary>Correcto. Todos los tokens entre todo el tiempo de reloj.</details>
# <details><summary>1000 / 5 = 200 tok/s</summary>No. El sistema no ha terminado hasta que acaba la última.</details>
#
# **C. Añades una petición que espera mucho. La media del TTFT sube mucho y la mediana casi nada. ¿Qué enseñas?**
#
# <details><summary>La mediana: es más estable</summary>Incompleto. Es verdad para la petición típica, pero esconde
# justo a quien lo pasa mal.</details>
# <details><summary>La media: lo resume todo</summary>No. Una media así no describe a nadie: ni a la típica ni a la
# lenta.</details>
# <details><summary>p50 y p95</summary>Correcto. Uno dice lo típico y el otro dice la cola.</details>
#
# **D. «Nuestro servidor es 12× más rápido». ¿Qué preguntas primero?**
#
# <details><summary>Qué GPU usa</summary>Importa, pero no basta: con la misma GPU la razón cambia mucho según la
# base.</details>
# <details><summary>Contra qué base, con qué carga y en qué equipo</summary>Correcto. Sin eso, 12 no es una
# medida.</details>
# <details><summary>Cuántos usuarios tiene</summary>No. Los usuarios son la carga de producción, no la de la
# medida.</details>
