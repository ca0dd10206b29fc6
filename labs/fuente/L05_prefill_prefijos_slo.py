# %% [markdown]
# # Lab 5 · Prefill troceado, caché de prefijos y SLO
#
# Un servidor con batching continuo (Lab 2) ya no espera a la respuesta más larga. Pero queda un abusón: el **prompt** más
# largo. Cuando entra, su prefill llena el paso entero y a todas las demás personas se les para el texto. Aquí lo troceas con
# un presupuesto, evitas calcular dos veces lo que ya se calculó, pones un límite a quien pide de más y aprendes a elegir los
# números con un objetivo escrito.
#
# Necesitas saber qué son el prefill, el decode, los bloques de la caché KV y el batching continuo (Labs 1 a 3). Si te
# saltaste alguno, el motor pone la pieza que falte.
#
# **Al terminar puedes…**
#
# | Resultado de aprendizaje | Comprobación |
# |---|---|
# | repartir un paso entre decode y prefill | `reparte_presupuesto` |
# | medir lo que sufre quien ya estaba escribiendo | `mayor_hueco` |
# | nombrar un bloque por todo su prefijo, sin que se pueda falsificar | `clave_de_bloque` |
# | predecir los aciertos de una caché de prefijos | `aciertos` |
# | limitar el ritmo de un cliente sin castigar sus ráfagas | `cubo_de_fichas` |
# | elegir `max_num_batched_tokens` con un SLO delante | `elige_presupuesto` |
#
# **Tiempo:** 80 minutos. **Puntos:** 100 (85 automáticos y 15 que lee tu docente).
#
# > El modelo es pequeño (SmolLM2, 135 millones de parámetros) y responde mejor en inglés: por eso los prompts están en
# > inglés. Aquí se estudia el motor, no el ingenio del modelo.

# %% [markdown]
# ## Preparación
#
# Ejecuta la celda y lee qué modelo te toca. Si dice «modelo diminuto», todo funciona igual, pero los textos no tienen
# sentido y las velocidades no sirven como medida.

# %% nbgrader={"grade": false, "grade_id": "preparacion", "locked": true, "schema_version": 3, "solution": false, "task": false}
import hashlib

from minilab.bancos.lotes import COSTES, curva
from minilab.bancos.slo import Llegada, Motor, colision, envenena, percentil, simula
from minilab.bitacora import anota
from minilab.comparar import compara
from minilab.comprobar import comprobar
from minilab.cuaderno import prepara
from minilab.motor import lado_a_lado
from minilab.piezas import costuras, guarda
from minilab.vistas.cifras import cifra, porcentaje
from minilab.widgets import ver_gantt
from minillm_serve.bench.prompts import PROMPTS

modelo = prepara("L05")
NUEVOS = 12 if modelo.rapido else 32
PALABRAS = 90 if modelo.rapido else 400
PRESUPUESTOS = (16, 256) if modelo.rapido else (16, 32, 64, 128, 256, 512, 1024)
TAM_BLOQUE = 16  # tokens por bloque de la caché KV en nuestro motor y en vLLM
TEXTO_LARGO = " ".join((" ".join(PROMPTS) * 2).split()[:PALABRAS])

# %% [markdown] tags=["cubre-A-metricas", "cubre-B-prefill"]
# ## 1 · Idea
#
# ### Dos esperas distintas
#
# - **TTFT**: desde que llega la petición hasta su primer token. Es la espera de quien acaba de preguntar, y la paga el
#   prefill.
# - **ITL**: entre un token y el siguiente. Es el ritmo de quien ya está leyendo, y la paga el decode.
#
# ### El desperdicio: un paso enorme
#
# Un paso tarda según los tokens que calcula: los pocos de las que están en decode y, si entra alguien, todo su prompt. Tres
# personas leen su respuesta, y en el paso 3 llega un prompt de 3000 tokens:
#
# ```text
#   paso             1    2    3 ───────────────────────────────┐   4    5
#   tres en decode   ▪    ▪    ▪                                     ▪    ▪       un token cada una
#   prompt largo               ██████████████████████████████        ▪    ▪       3000 tokens de prefill
#                              └── las otras tres, paradas ──┘
# ```
#
# Ese paso tarda muchas veces lo que los demás. A las tres se les para el texto: es un **hueco de decode**, una ITL
# enorme. La media casi no lo nota; las personas sí.
#
# ### La cura: un presupuesto
#
# Se pone un tope a los tokens de un paso, el **presupuesto** (`max_num_batched_tokens`). Primero se reparten los del decode y
# lo que sobra se gasta en **un trozo** del prompt. El resto, en los pasos siguientes. Eso es el **prefill troceado**.
#
# No es gratis: el prompt largo recibe su primer token más tarde. Un presupuesto pequeño protege la ITL y empeora el TTFT; uno
# grande hace lo contrario. No hay número bueno sin decir antes qué se promete: un **SLO** (objetivo de servicio), como «el
# p95 de la ITL, por debajo de 100 ms».
#
# ### El otro desperdicio: el mismo prefill otra vez
#
# Casi todos los prompts de un servicio empiezan igual: las mismas instrucciones, el mismo documento, la conversación de antes.
# Como nadie mira hacia delante (Lab 1), las claves y los valores de un comienzo igual son **idénticos**. Una **caché de
# prefijos** guarda los bloques llenos con un nombre, y si llega otro prompt con el mismo comienzo, usa los que hay. El mejor
# prefill es el que no se hace.

# %% [markdown]
# ## 2 · Predice
#
# Escribe tus números antes de medir. Cualquiera mayor que 0 vale.
#
# - `hueco`: tres charlas en marcha y llegan prompts largos. ¿Cuántas veces mayor es el peor hueco con el presupuesto más grande
#   de `PRESUPUESTOS` que con el más pequeño?
# - `aciertos_pct`: ocho preguntas cortas y distintas, todas con las mismas instrucciones delante (unos 75 tokens). ¿Qué
#   tanto por ciento de los tokens de prompt, en total, se encuentra ya calculado?


# %% nbgrader={"grade": false, "grade_id": "prediccion", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mi_prediccion():
    """Devuelve {"hueco": número, "aciertos_pct": número}."""
    ### BEGIN SOLUTION
    return {"hueco": 20.0, "aciertos_pct": 85.0}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_prediccion", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
comprobar("prediccion_l05")

# %% [markdown] tags=["cubre-D-avanzadas"]
# ## 3 · Construye
#
# ### 3.1 Reparte el presupuesto
#
# En un paso hay dos clases de peticiones, cada una con su número:
#
# - las **activas**, en decode: cada una necesita exactamente 1 token;
# - las que **esperan** su prefill, entero o lo que les quede: cada una con los tokens que le faltan.
#
# La regla: primero un token para cada activa, en orden; con lo que sobra, prefill de las que esperan, **en orden**, cada una
# todo lo que quepa. Con un presupuesto de 10, dos activas (la 4 y la 7) y dos que esperan (a la 9 le faltan 6 tokens; a la 2,
# 20):
#
# ```text
#   activas [4, 7]   esperan [[9, 6], [2, 20]]
#   → [[4, 1], [7, 1], [9, 6], [2, 2]]         1 + 1 + 6 + 2 = 10
# ```
#
# La 2 se queda con 18 tokens por calcular: seguirá en el paso siguiente. Si el presupuesto no da ni para las activas, avanzan
# las primeras.
#
# **Tu tarea:** implementa `reparte_presupuesto(activas, esperando, presupuesto)`. Devuelve parejas `[petición, tokens]`, solo
# de las que avanzan (con 1 token o más).


# %% nbgrader={"grade": false, "grade_id": "reparte_presupuesto", "locked": false, "schema_version": 3, "solution": true, "task": false}
def reparte_presupuesto(activas, esperando, presupuesto):
    """Cuántos tokens calcula cada petición en este paso.

    activas: los números de las peticiones en decode. esperando: lista de [número, tokens de prompt que le faltan].

    >>> reparte_presupuesto([4, 7], [[9, 6], [2, 20]], 10)
    [[4, 1], [7, 1], [9, 6], [2, 2]]
    """
    ### BEGIN SOLUTION
    reparto = [[peticion, 1] for peticion in activas[:presupuesto]]
    quedan = presupuesto - len(reparto)
    for peticion, faltan in esperando:
        if quedan == 0:
            break
        reparto.append([peticion, min(faltan, quedan)])
        quedan -= reparto[-1][1]
    return reparto
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_reparte_presupuesto", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false}
comprobar("reparte_presupuesto")

# %% [markdown]
# ### 3.2 El peor hueco
#
# De una ejecución solo hace falta saber **cuándo** salió cada token: un diccionario de cada petición a sus instantes, en
# segundos y en orden.
#
# ```text
#   {"A": [1.0, 1.5, 4.0], "B": [2.0]}  →  2.5         entre el segundo y el tercer token de A
# ```
#
# El tiempo hasta el primer token no cuenta: eso es TTFT.
#
# **Tu tarea:** implementa `mayor_hueco(momentos)`: la mayor ITL de todas las peticiones. Si nadie tiene dos tokens, 0.


# %% nbgrader={"grade": false, "grade_id": "mayor_hueco", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mayor_hueco(momentos):
    """La mayor espera entre dos tokens seguidos de una misma petición, en segundos."""
    ### BEGIN SOLUTION
    peor = 0.0
    for instantes in momentos.values():
        for i in range(1, len(instantes)):
            peor = max(peor, instantes[i] - instantes[i - 1])
    return peor
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_mayor_hueco", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("mayor_hueco")

# %% [markdown]
# Ya puedes ver el trato entero, en papel. `simula` ejecuta **tu** reparto: cada paso tarda `a + b · tokens`, con los costes de
# un modelo de 8 mil millones de parámetros en una GPU. Tres charlas en marcha y, en el paso 8, un prompt de 3000 tokens.

# %%
a, b = COSTES.step_s, COSTES.token_s  # Llama 3 8B en una H100: ajuste de los pasos medidos en reports/gpu-h100.json
EN_PAPEL = [Llegada(f"chat {i}", 0, 40, 60) for i in range(3)] + [Llegada("largo", 8, 3000, 4)]
print("presupuesto │ peor hueco │ cota a + b·presupuesto │  TTFT del largo")
planes = {}
for presupuesto in (32, 64, 256, 1024, 4096):
    s = simula(reparte_presupuesto, EN_PAPEL, presupuesto, a, b)
    planes[presupuesto] = s.filas
    hueco, cota = 1000 * mayor_hueco(s.momentos), 1000 * (a + b * presupuesto)
    print(
        f"{presupuesto:11} │ {cifra(hueco, 1):>7} ms │ {cifra(cota, 1):>19} ms │ {cifra(1000 * s.ttft('largo'), 1):>12} ms"
    )
ver_gantt({f"presupuesto {p}": planes[p] for p in (256, 4096)}, llegadas={"largo": 8})

# %% [markdown]
# Ningún hueco pasa de su **cota**: un paso no puede calcular más tokens que el presupuesto. Es una promesa que se puede firmar,
# llegue el prompt que llegue. Y la otra columna es su precio. (El eje del visor son pasos, no segundos: el prefill que en el
# segundo plan ocupa un paso tarda mucho más que los demás.)
#
# ### 3.3 El nombre de un bloque
#
# Para encontrar un bloque ya calculado hace falta un **nombre** que dependa de su contenido. ¿De qué depende lo que hay en él?
# De sus tokens **y de todos los anteriores**: cada clave y cada valor se calculó mirando hacia atrás. Así que los nombres van
# en **cadena**: el de un bloque se calcula con sus tokens y con el nombre del anterior.
#
# ```text
#   raíz ──► clave(raíz, bloque 0) ──► clave(clave 0, bloque 1) ──► clave(clave 1, bloque 2)
# ```
#
# Dos prompts comparten los bloques mientras sus claves coincidan; en cuanto un token cambia, cambian la de ese bloque y todas
# las de detrás. La **raíz** sirve para separar: con raíces distintas (una por cliente, por ejemplo) nada coincide.
#
# Si dos textos distintos dan la misma clave, el motor sirve a uno **la memoria del otro**, sin ningún error. Por eso la clave
# sale de un hash criptográfico de 256 bits (32 bytes): nadie sabe fabricar dos textos con el mismo. Un hash corriente (una
# suma, `hash()` de Python, 64 bits) se falsifica o se repite.
#
# **Tu tarea:** dos funciones.
#
# - `clave_de_bloque(padre, tokens)`: `padre` son bytes (la clave anterior o la raíz) y `tokens`, los enteros del bloque, cada
#   uno de 0 a 2³² − 1. Devuelve 32 bytes. Úsalos todos, en orden y **sin ambigüedad**: `[1, 23]` y `[12, 3]` se escriben igual
#   si juntas sus cifras. Un número fijo de bytes por token lo evita: `token.to_bytes(4, "little")`. `hashlib` ya está importado.
# - `claves(tokens, tam_bloque, raiz=b"")`: la lista de claves de los bloques **llenos**. Los tokens que sobran al final no
#   tienen clave: ese bloque aún va a cambiar.
#
# `en_hex` solo sirve para comprobarlo: no la cambies.


# %% nbgrader={"grade": false, "grade_id": "clave_de_bloque", "locked": false, "schema_version": 3, "solution": true, "task": false}
def clave_de_bloque(padre, tokens):
    """El nombre de un bloque lleno: 32 bytes que dependen de sus tokens y, a través de padre, de todos los anteriores."""
    ### BEGIN SOLUTION
    contenido = b"".join(token.to_bytes(4, "little") for token in tokens)
    return hashlib.sha256(len(padre).to_bytes(4, "little") + padre + contenido).digest()
    ### END SOLUTION


def claves(tokens, tam_bloque, raiz=b""):
    """Las claves de los bloques llenos de un texto, en orden."""
    ### BEGIN SOLUTION
    nombres = []
    for fin in range(tam_bloque, len(tokens) + 1, tam_bloque):
        padre = nombres[-1] if nombres else raiz
        nombres.append(clave_de_bloque(padre, tokens[fin - tam_bloque : fin]))
    return nombres
    ### END SOLUTION


def en_hex(tokens, tam_bloque, raiz=""):
    """Las claves como texto."""
    return [clave.hex() for clave in claves(tokens, tam_bloque, raiz.encode())]


# %% nbgrader={"grade": true, "grade_id": "prueba_clave_de_bloque", "locked": true, "points": 20, "schema_version": 3, "solution": false, "task": false}
comprobar("clave_de_bloque")

# %% [markdown]
# ### 3.4 ¿Cuánto se va a encontrar?
#
# Con las claves puedes predecir los aciertos de una caché sin encender el motor. Los prompts se sirven uno tras otro y la caché
# empieza vacía y le sobra memoria. De cada prompt:
#
# 1. se buscan sus bloques desde el primero, hasta el primero que **no** esté;
# 2. como mucho `(tokens − 1) // tam_bloque` bloques: el último token siempre se calcula, porque de él sale el primero de la
#    respuesta;
# 3. después, todos sus bloques llenos quedan en la caché.
#
# ```text
#   bloques de 2   [1 2 3 4 5]   encuentra 0          guarda (1 2) y (1 2 3 4): cada clave nombra todo su prefijo
#                  [1 2 3 9]     encuentra 2 tokens   guarda (1 2 3 9)
#                  [1 2]         encuentra 0: su único bloque lleno tiene el último token
#                                                       → 2 / (5 + 4 + 2)
# ```
#
# **Tu tarea:** implementa `aciertos(prompts, tam_bloque)`: los tokens encontrados entre los tokens de todos los prompts (de 0
# a 1). Sin tokens, 0. Usa `claves`.


# %% nbgrader={"grade": false, "grade_id": "aciertos", "locked": false, "schema_version": 3, "solution": true, "task": false}
def aciertos(prompts, tam_bloque):
    """La parte de los tokens de los prompts que la caché de prefijos ahorra."""
    ### BEGIN SOLUTION
    guardadas, hallados = set(), 0
    for tokens in prompts:
        nombres = claves(tokens, tam_bloque)
        for nombre in nombres[: (len(tokens) - 1) // tam_bloque]:
            if nombre not in guardadas:
                break
            hallados += tam_bloque
        guardadas.update(nombres)
    return hallados / max(1, sum(len(tokens) for tokens in prompts))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_aciertos", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false}
comprobar("aciertos")

# %% [markdown]
# Ahora, el motor de verdad con **tu** clave: `kv.block_key` es la pieza que nombra los bloques. Ocho preguntas con las mismas
# instrucciones delante. Si tu clave está bien, los tokens son idénticos y los aciertos son los que predijiste.

# %%
motor = Motor(modelo, {"kv.block_key": clave_de_bloque})
INSTRUCCIONES = (
    "You are a careful assistant of a small public library. Answer in one short sentence. If a question is about a book, "
    "name its author first. If you do not know something, say so and do not make anything up. Never give legal or medical "
    "advice. Be kind to children, and patient with everybody. Prices are in euros and the library closes at eight."
)
charla = [{"role": "system", "content": INSTRUCCIONES}]
ids = [
    list(motor.llm.tokenizer.apply_chat_template([*charla, {"role": "user", "content": pregunta}]))
    for pregunta in PROMPTS[:8]
]
esperados = aciertos(ids, TAM_BLOQUE)
con_mi_clave = lado_a_lado(
    modelo,
    ids,
    {"kv.block_key": clave_de_bloque},
    max_tokens=2 if modelo.rapido else 8,
    veces=1 if modelo.rapido else 3,
    chat=False,
    num_kv_blocks=512,
)
medidos = con_mi_clave.tuya.aciertos
escrito = cifra(mi_prediccion()["aciertos_pct"])
print(f"aciertos que predice tu función: {porcentaje(esperados, 1)}")
print(f"aciertos que mide el motor:      {porcentaje(medidos, 1)}   (tú habías escrito {escrito} %)")
anota("L05", "aciertos de la caché de prefijos", mi_prediccion()["aciertos_pct"], 100 * medidos, "%", modelo.nombre)
guarda("kv.block_key", "clave_de_bloque")
con_mi_clave

# %% [markdown]
# Falta para el 100 % por tres motivos: la primera petición no encuentra nada, lo último de cada prompt es distinto, y el bloque
# en el que se separan no está lleno de cosas iguales. Prueba a poner la pregunta **delante** de las instrucciones:

# %%
tokens_de = motor.llm.tokenizer.encode
detras = [list(tokens_de(INSTRUCCIONES + " " + pregunta)) for pregunta in PROMPTS[:8]]
delante = [list(tokens_de(pregunta + " " + INSTRUCCIONES)) for pregunta in PROMPTS[:8]]
print(f"instrucciones delante: {porcentaje(aciertos(detras, TAM_BLOQUE))}")
print(f"instrucciones detrás:  {porcentaje(aciertos(delante, TAM_BLOQUE))}")

# %% [markdown] tags=["cubre-A-receta", "cubre-E-pila"]
# Lo que cambia, siempre al final: es el consejo más barato de este lab.
#
# ### 3.5 El cubo de fichas
#
# Ningún presupuesto salva a un servidor al que le piden más de lo que puede: la cola crece sin fin. Delante del motor va un
# **límite de peticiones**, y quien lo pasa recibe un 429 («demasiadas peticiones») **enseguida**, en lugar de una espera sin
# fin.
#
# El límite más usado es el **cubo de fichas**. Cabe un número de fichas (`rafaga`), empieza lleno y se rellena a `ritmo` fichas
# por segundo, sin pasar de lo que cabe. Cada petición se lleva una ficha, o varias si es cara; si no las hay, no pasa. Así se
# permite una ráfaga corta y se sujeta el ritmo largo.
#
# ```text
#   ritmo 2, ráfaga 3      s 0: lleno, 3        toma(3) → sí, quedan 0
#                          s 0,25: hay 0,5      toma(1) → no      espera(1) → 0,25 s
#                          s 0,5: hay 1         toma(1) → sí
#                          s 60: hay 3, no 119
# ```
#
# **Tu tarea:** completa `CuboDeFichas`. El tiempo lo da `reloj()`, en segundos: no llames a ningún otro. No hace falta ningún
# hilo que rellene: calcula cuánto habría entrado desde la última vez.
#
# - `toma(fichas)`: si las hay, se las lleva y devuelve `True`; si no, no toca nada y devuelve `False`.
# - `espera(fichas)`: segundos que faltan para que las haya (0 si ya están). Si nunca cabrían, lanza `ValueError`.
#
# Una trampa real: un reloj puede **ir hacia atrás** (alguien lo ajusta). Entonces no entra ninguna ficha, ni al retroceder ni
# mientras vuelve a subir hasta donde ya había estado.


# %% nbgrader={"grade": false, "grade_id": "cubo_de_fichas", "locked": false, "schema_version": 3, "solution": true, "task": false}
class CuboDeFichas:
    """Un límite de ritmo que permite ráfagas."""

    def __init__(self, ritmo, rafaga, reloj):
        """ritmo: fichas por segundo (mayor que 0). rafaga: las que caben. reloj: función que da los segundos."""
        self.ritmo, self.rafaga, self.reloj = ritmo, rafaga, reloj
        ### BEGIN SOLUTION
        self.fichas, self.visto = rafaga, reloj()
        ### END SOLUTION

    def rellena(self):
        """Añade lo que entró desde la última vez."""
        ### BEGIN SOLUTION
        ahora = self.reloj()
        pasado = max(0, ahora - self.visto)
        self.fichas = min(self.rafaga, self.fichas + self.ritmo * pasado)
        self.visto = max(self.visto, ahora)
        ### END SOLUTION

    def toma(self, fichas=1):
        """True si las había: se las lleva."""
        ### BEGIN SOLUTION
        self.rellena()
        if self.fichas < fichas:
            return False
        self.fichas -= fichas
        return True
        ### END SOLUTION

    def espera(self, fichas=1):
        """Segundos hasta que las haya."""
        ### BEGIN SOLUTION
        if fichas > self.rafaga:
            raise ValueError(f"en el cubo caben {self.rafaga} fichas: nunca habrá {fichas}")
        self.rellena()
        return max(0, (fichas - self.fichas) / self.ritmo)
        ### END SOLUTION


def ensaya(ritmo, rafaga, guion):
    """Un cubo con un reloj de mentira. guion: [instante, "toma" o "espera", fichas]; el primero pone en marcha el cubo."""
    ahora = [guion[0][0]]
    cubo = CuboDeFichas(ritmo, rafaga, lambda: ahora[0])
    respuestas = []
    for instante, metodo, fichas in guion:
        ahora[0] = instante
        respuestas.append(getattr(cubo, metodo)(fichas))
    return respuestas


# %% nbgrader={"grade": true, "grade_id": "prueba_cubo_de_fichas", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false}
comprobar("cubo_de_fichas")

# %% [markdown]
# ¿Para qué sirve decir que no? Un servidor atiende 2 peticiones por segundo y le llegan 3, durante un minuto. Se compara la
# espera en la cola de las que entran, sin límite y con tu cubo delante.


# %%
def espera_en_cola(deja_pasar, por_segundo=3, duracion=60, atiende=2.0):
    """Esperas, en segundos, de las peticiones que pasan, y cuántas no pasan."""
    libre, esperas, rechazadas = 0.0, [], 0
    for i in range(por_segundo * duracion):
        llega = i / por_segundo
        if not deja_pasar(llega):
            rechazadas += 1
            continue
        empieza = max(llega, libre)
        libre = empieza + 1 / atiende
        esperas.append(empieza - llega)
    return esperas, rechazadas


ahora = [0.0]
cubo = CuboDeFichas(2.0, 4, lambda: ahora[0])


def con_cubo(segundo):
    ahora[0] = segundo
    return cubo.toma()


for nombre, puerta in (("sin límite", lambda segundo: True), ("con tu cubo", con_cubo)):
    lista, rechazadas = espera_en_cola(puerta)
    p50, p95 = (cifra(percentil(lista, p), 1) for p in (50, 95))
    print(f"{nombre:>11}: pasan {len(lista)}, reciben 429 {rechazadas}; espera p50 {p50} s, p95 {p95} s, "
          f"máxima {cifra(max(lista), 1)} s")  # fmt: skip

# %% [markdown]
# Sin límite **todas** acaban esperando, y más cuanto más dura. Con límite, la espera está acotada por la ráfaga.
#
# En una pila de servicio cada pieza tiene su sitio: un proxy delante (TLS, reparto), el límite por cliente, la **cola** con un
# largo máximo, el motor y, al lado, las métricas de las que sale el p95. Nuestro servidor trae el mismo cubo
# (`--requests-per-minute`, `--tokens-per-minute`): responde 429 y dice cuánto esperar en la cabecera `Retry-After`, que es tu
# `espera`.
#
# ### 3.6 Elegir con un SLO
#
# Ya tienes medidas de varios presupuestos. ¿Cuál se pone? El de **más throughput entre los que cumplen** lo prometido.
#
# **Tu tarea:** implementa `elige_presupuesto(medidas, slo)`.
#
# - `medidas`: lista de diccionarios como `{"presupuesto": 256, "tok_s": 900.0, "itl_p95": 0.04, "ttft_p95": 1.2}`.
# - `slo`: el límite de cada medida que importa, como `{"itl_p95": 0.05}`. Puede nombrar una o varias; se cumple si la medida
#   es **menor o igual**.
# - Devuelve el `presupuesto`. A igual `tok_s`, el menor. Si ninguno cumple, `None`: mejor saberlo que inventar.


# %% nbgrader={"grade": false, "grade_id": "elige_presupuesto", "locked": false, "schema_version": 3, "solution": true, "task": false}
def elige_presupuesto(medidas, slo):
    """El presupuesto de mayor throughput que cumple el SLO, o None."""
    ### BEGIN SOLUTION
    cumplen = [m for m in medidas if all(m[nombre] <= limite for nombre, limite in slo.items())]
    if not cumplen:
        return None
    return min(cumplen, key=lambda m: (-m["tok_s"], m["presupuesto"]))["presupuesto"]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_elige_presupuesto", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
comprobar("elige_presupuesto")

# %% [markdown] tags=["cubre-A-demo"]
# ## 4 · Mira
#
# Con el modelo de verdad: tres charlas en marcha y prompts largos que llegan por el camino. El motor lleva las piezas que
# guardaste en los labs anteriores; las que falten son las suyas.
#
# La demo de los apuntes pide exactamente esta tabla al ajustar `max_num_batched_tokens`: p50, p95, media y memoria.

# %%
motor = Motor(modelo, {**costuras("kv.block_pool", "sched.policy"), "kv.block_key": clave_de_bloque})
CHARLAS = [Llegada(f"chat {i}", 0, PROMPTS[i], NUEVOS) for i in range(3)]
LARGOS = [
    Llegada(f"largo {i}", paso, f"Summary number {i}, please: {TEXTO_LARGO}", 2)
    for i, paso in enumerate(range(4, NUEVOS - 4, max(4, NUEVOS // 3)))
]
tandas = {p: motor.sirve(CHARLAS + LARGOS, presupuesto=p) for p in PRESUPUESTOS}
medidas, huecos = [], {}
print(
    "presupuesto │   tok/s │ ITL media │  ITL p50 │  ITL p95 │ peor hueco │ TTFT p95 de los largos │ bloques de caché KV"
)
for p, tanda in tandas.items():
    itl = tanda.itl(*(c.nombre for c in CHARLAS))
    huecos[p] = mayor_hueco({c.nombre: tanda.momentos[c.nombre] for c in CHARLAS})
    ttft = percentil([tanda.ttft(largo.nombre) for largo in LARGOS], 95)
    medidas.append({"presupuesto": p, "tok_s": tanda.tok_s, "itl_p95": percentil(itl, 95), "ttft_p95": ttft})
    ms = [cifra(1000 * x) for x in (sum(itl) / len(itl), percentil(itl, 50), percentil(itl, 95), huecos[p])]
    print(
        f"{p:11} │ {cifra(tanda.tok_s, 1):>7} │ {ms[0]:>6} ms │ {ms[1]:>5} ms │ {ms[2]:>5} ms │ {ms[3]:>7} ms │ "
        f"{cifra(ttft, 2):>20} s │ {tanda.bloques:19}"
    )
razon = huecos[max(PRESUPUESTOS)] / huecos[min(PRESUPUESTOS)]
print(f"El peor hueco con {max(PRESUPUESTOS)} es {cifra(razon, 1)} veces el de {min(PRESUPUESTOS)}.")
anota("L05", "peor hueco: presupuesto grande contra pequeño", mi_prediccion()["hueco"], razon, "×", modelo.nombre)

# %%
curva(
    {
        "ITL p95 de las charlas": {m["presupuesto"]: 1000 * m["itl_p95"] for m in medidas},
        "TTFT p95 de los largos": {m["presupuesto"]: 1000 * m["ttft_p95"] for m in medidas},
    },
    "presupuesto (tokens por paso)",
    "ms",
    "Dos esperas que tiran en direcciones contrarias",
)

# %% [markdown]
# El peor hueco es **un** solo paso: si algo más ocupa tu equipo en ese momento, se nota. Ciérralo y repite la celda.
#
# Los huecos, dibujados. Mira las tres charlas mientras entra un prompt largo: con el presupuesto pequeño siguen escribiendo;
# con el grande se paran.

# %%
ver_gantt({f"presupuesto {p}": tandas[p].traza for p in (min(PRESUPUESTOS), max(PRESUPUESTOS))}, con_id=True)

# %% [markdown]
# Y la decisión. Un SLO se escribe antes de mirar la tabla; aquí el límite se pone según tu equipo: que el p95 de la ITL no pase
# de seis veces la ITL mediana de las charlas cuando nadie molesta.

# %%
tranquilas = motor.sirve(CHARLAS)
limite = 6 * percentil(tranquilas.itl(), 50)
elegido = elige_presupuesto(medidas, {"itl_p95": limite})
print(f"SLO: p95 de la ITL ≤ {cifra(1000 * limite)} ms → presupuesto {elegido}")
print(f"sin SLO, solo throughput → presupuesto {elige_presupuesto(medidas, {})}")
print(f"SLO imposible (ITL de 0,1 ms) → {elige_presupuesto(medidas, {'itl_p95': 0.0001})}")

# %% [markdown]
# ## 5 · Compara
#
# En vLLM las dos ideas vienen puestas: `--max-num-batched-tokens` y la caché de prefijos (`--no-enable-prefix-caching` la
# quita). Un prompt largo llega mientras otros escriben, con dos presupuestos:

# %%
compara("prefill_troceado", modelo)

# %% [markdown]
# Y peticiones que empiezan igual, una tras otra. Mira el TTFT: es el prefill que no se hizo.

# %%
compara("cache_de_prefijos", modelo)

# %% [markdown]
# ## 6 · Rompe
#
# ### 6.1 La memoria de otro
#
# Alguien pensó que con **sumar** los tokens bastaba para nombrar un bloque. Ana va a mandar un prompt con el código de una
# puerta. Eva manda antes otro casi igual: los mismos tokens, con las cifras cambiadas de sitio. La suma no cambia, así que los
# dos bloques se llaman igual… y cuando llega Ana, el motor le da la memoria de Eva. Míralo en el motor de verdad:


# %%
def suma(padre, tokens):
    return ((int.from_bytes(padre, "big") + sum(tokens)) % 2**256).to_bytes(32, "big")


def suma_sin_padre(padre, tokens):
    return sum(tokens).to_bytes(32, "big")


DE_ANA = "The code of the north door is 7391. Remember it well, please."
DE_EVA = "The code of the north door is 1937. Remember it well, please."
PREGUNTA = "\n\nQuestion: What is the code?\nAnswer: The code is"
print("Ana escribió 7391. El motor le responde «The code is…»")
for nombre, clave in (("suma", suma), ("suma sin padre", suma_sin_padre), ("tu clave", clave_de_bloque)):
    for sal in (False, True):
        texto, ajenos = envenena(modelo, clave, DE_ANA, DE_EVA, PREGUNTA, sal=sal)
        con_sal = "con sal" if sal else "sin sal"
        print(f"  {nombre:>14}, {con_sal}: {texto.strip()[:6]!r:9} {ajenos:3} tokens sacados de la caché")

# %% [markdown]
# Ni un error, ni un aviso: una respuesta normal, de otra conversación. Se llama **envenenar** la caché. (Con el modelo
# diminuto los textos no significan nada: mira solo cuántos tokens salen de la caché.) Los pocos tokens que comparte tu clave, si
# los hay, son un comienzo igual de verdad.
#
# La **sal** (`cache_salt`, un campo de la petición en vLLM y en nuestro motor) es la raíz de la cadena: una por cliente, y
# nadie comparte bloques con otro. Corta el ataque entre clientes incluso con una clave mala, **si** la clave usa al padre:
# `suma_sin_padre` la ignora y el ataque sigue. Sirve además contra quien mide TTFT para adivinar qué preguntaron los demás.
#
# ### 6.2 Un hash bueno, pero corto
#
# ¿Y un hash criptográfico recortado a 32 bits, para ahorrar memoria? No hace falta romperlo: basta con probar. Por la paradoja
# del cumpleaños, con `n` bits aparecen dos textos con la misma clave tras unas `2^(n/2)` pruebas.


# %%
def recortada(bits):
    return lambda padre, tokens: clave_de_bloque(padre, tokens)[: bits // 8]


for bits in (16, 24, 32):
    hallada = colision(recortada(bits), intentos=150_000 if modelo.rapido else 400_000)
    if hallada is None:
        print(f"{bits} bits: no apareció en esas pruebas")
    else:
        uno, otro, pruebas = hallada
        print(
            f"{bits} bits: tras {cifra(pruebas)} pruebas, {uno[:3]}… y {otro[:3]}… se llaman igual (2^{bits // 2} = {cifra(2 ** (bits // 2))})"
        )
print("256 bits: harían falta unas 2^128 pruebas, más de las que nadie podrá hacer nunca")

# %% [markdown] tags=["cubre-A-receta"]
# ### 6.3 Un SLO por cola
#
# Los apuntes recomiendan «un SLO por cola»: quien conversa no puede esperar; el trabajo de la noche, sí. Con una sola cola y
# dos lugares, unos resúmenes que llegaron antes dejan esperando a las charlas. Con `priority` (menor es más urgente) y la
# política `priority` del motor, pasan delante; y como la prioridad **envejece**, los resúmenes no mueren de hambre (Lab 2).

# %%
noche = [
    Llegada(f"noche {i}", 0, " ".join(TEXTO_LARGO.split()[:60]) + f" {i}", 6, prioridad=10)
    for i in range(4 if modelo.rapido else 8)
]
dia = [Llegada(f"día {i}", 3, PROMPTS[i], 4, prioridad=0) for i in range(3)]
print("política │ TTFT medio, día │ TTFT medio, noche │ tok/s")
for politica in ("fcfs", "priority"):
    tanda = Motor(modelo, max_num_seqs=2, scheduling_policy=politica).sirve(noche + dia)
    medias = [sum(tanda.ttft(r.nombre) for r in cola) / len(cola) for cola in (dia, noche)]
    print(f"{politica:>8} │ {cifra(medias[0], 2):>13} s │ {cifra(medias[1], 2):>15} s │ {cifra(tanda.tok_s, 1):>5}")

# %% [markdown]
# El throughput es casi el mismo: el trabajo no cambia, cambia quién espera. Un solo p95 para todos escondería las dos cosas.
#
# Con esto está entera la receta de los apuntes, y ya sabes qué espera ataca cada línea:
#
# | Receta | Qué mejora | Qué cuesta | Dónde |
# |---|---|---|---|
# | batching con streaming | el throughput, y el TTFT si hay cola | cada paso tarda algo más | Lab 2 |
# | presupuesto por paso | la ITL de quien ya escribe | el TTFT de los prompts largos | 3.1 |
# | caché de prefijos | el TTFT | memoria, y una clave que no se falsifique | 3.3, 6.1 |
# | límite y cola | el p95 de quien entra | alguien recibe un 429 | 3.5 |
# | SLO por cola | el TTFT de lo urgente | el de lo demás | 6.3 |
# | cuantización | lo que se lee en cada paso, y la memoria | precisión | Lab 6 |

# %% [markdown]
# ## 7 · Explica
#
# Responde en la celda siguiente con tus números delante (15 puntos, los lee tu docente):
#
# 1. Con tu tabla de la sección 4: ¿qué presupuesto pondrías en un chat y cuál en un trabajo de noche? ¿Por qué? (4)
# 2. ¿Por qué la clave de un bloque tiene que depender de los tokens **anteriores** y no solo de los suyos? Pon un ejemplo de dos
#    prompts en los que fallaría. (4)
# 3. Compara tus dos predicciones con lo medido y da una causa de cada diferencia. (3)
# 4. Un cliente dice: «el servidor responde 429 aunque la GPU va al 60 %». ¿Está mal? Di qué medirías antes de tocar nada. (4)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explica", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
#
# 1. En el chat, el mayor que cumpla el SLO de ITL: lo que se ve es el ritmo (2). De noche nadie mira la ITL: el de más
#    throughput, aunque haya huecos (1). Que use cifras de su tabla (1).
# 2. Las claves y los valores de un token se calcularon mirando a los anteriores, y con su posición: los mismos tokens tras otro
#    comienzo tienen otra memoria (2). Ejemplo: «Ana debe 5 euros. Paga mañana.» y «Luis debe 9 euros. Paga mañana.», si el
#    segundo bloque es «Paga mañana.» (2).
# 3. Respuesta abierta: que compare los dos pares de números (1) y dé una causa concreta de cada uno (2): olvidar la parte fija
#    de cada paso; olvidar el primer prompt, el final distinto o el bloque que no se llena.
# 4. No tiene por qué: el límite es por cliente y protege a los demás; puede haber GPU libre y un cliente que pide de más (2).
#    Mediría el ritmo y las ráfagas de ese cliente, el largo de la cola y el p95 de TTFT frente al SLO: si sobra margen, se sube
#    su ritmo o su ráfaga (2).
#
# ### END SOLUTION

# %% [markdown]
# ## 8 · Autoevaluación
#
# Piensa tu respuesta y abre cada opción.
#
# **A. Bajas `max_num_batched_tokens` de 2048 a 128. ¿Qué esperas?**
#
# <details><summary>TTFT y ITL mejoran: los pasos son más cortos</summary>No. Los pasos son más cortos, pero un prompt largo
# necesita muchos más: su TTFT empeora.</details>
# <details><summary>La ITL de quien escribe mejora y el TTFT de los prompts largos empeora</summary>Correcto. Es el trato: se
# elige con un SLO.</details>
# <details><summary>Nada, si los prompts son largos</summary>No. Justo con prompts largos es cuando cambia todo.</details>
#
# **B. Dos prompts tienen los mismos 16 tokens en su segundo bloque y el primero distinto. ¿Pueden compartir el segundo?**
#
# <details><summary>Sí: el contenido es el mismo</summary>No. Los tokens son los mismos, pero sus claves y valores se
# calcularon mirando a comienzos distintos.</details>
# <details><summary>No: lo que guarda un bloque depende de todo lo anterior</summary>Correcto. Por eso las claves van en
# cadena.</details>
# <details><summary>Solo si son del mismo cliente</summary>No. El cliente da igual: la memoria es distinta. La sal separa más,
# nunca junta.</details>
#
# **C. Un cubo de ritmo 5 y ráfaga 10 lleva una hora sin uso. ¿Cuántas peticiones de una ficha pasan en el instante siguiente?**
#
# <details><summary>18 000: una hora de fichas</summary>No. Lo que no cabe se pierde: en el cubo hay como mucho 10.</details>
# <details><summary>5</summary>No. 5 es lo que entra cada segundo, no lo que hay guardado.</details>
# <details><summary>10</summary>Correcto. La ráfaga es el tope, por mucho que descanse.</details>
#
# **D. Pones la fecha y la hora, con segundos, al principio de tus instrucciones. ¿Qué pasa con los aciertos de la caché?**
#
# <details><summary>Caen casi a cero</summary>Correcto. El primer bloque cambia cada segundo, y con él todas las claves de
# detrás. Ponla al final.</details>
# <details><summary>Bajan un poco: solo cambia un bloque</summary>No. Cambian ese bloque y todos los siguientes: van en
# cadena.</details>
# <details><summary>Nada: el resto de las instrucciones es igual</summary>No. Se busca desde el primer bloque y se para en el
# primero que no está.</details>
