# %% [markdown]
# # Lab 3 · PagedAttention: memoria por páginas
#
# La caché KV guarda una clave y un valor por cada token ya leído. Una petición crece token a token y nadie sabe de
# antemano cuánto crecerá. ¿Cuánta memoria le reservas? La respuesta de **PagedAttention** viene de los sistemas
# operativos: ninguna. Se le da memoria por páginas, según la va necesitando.
#
# En este lab escribes ese reparto, lo enchufas en el motor y luego lo rompes de tres maneras para aprender a
# reconocerlas.
#
# **Al terminar puedes…**
#
# | Resultado de aprendizaje | Comprobación |
# |---|---|
# | traducir una posición de la secuencia a su casilla de memoria con una tabla de bloques | `direccion` |
# | medir la fragmentación interna y la externa | `fragmentacion` |
# | repartir bloques con cuenta de referencias, sin fugas ni repetidos | `reparto` |
# | compartir bloques y copiar solo al escribir | `copia` |
# | decidir a quién se desaloja cuando falta memoria | `desalojo` |
# | diagnosticar un reparto roto sin leer su código | `auditoria`, `explica` |
#
# **Tiempo:** 105 minutos. **Puntos:** 100 (82 automáticos y 18 que lee tu docente).
#
# > El modelo es pequeño (SmolLM2, 135 millones de parámetros) y responde mejor en inglés: por eso los prompts están en
# > inglés. Aquí se estudia el motor, no el ingenio del modelo.

# %% [markdown]
# ## Preparación
#
# Ejecuta la celda y lee qué modelo te toca. Con el «modelo diminuto» todo funciona igual, pero ni los textos ni las
# velocidades dicen nada.

# %% nbgrader={"grade": false, "grade_id": "preparacion", "locked": true, "schema_version": 3, "solution": false, "task": false}
from collections import Counter

from minilab.bitacora import anota
from minilab.comparar import compara
from minilab.comprobar import comprobar
from minilab.cronometro import mide
from minilab.cuaderno import prepara
from minilab.graficas import barras
from minilab.motor import con, lado_a_lado, traza
from minilab.piezas import guarda
from minilab.vistas.cifras import cifra, cuenta
from minilab.widgets import ver_bloques, ver_gantt
from minillm_serve import LLM, SamplingParams
from minillm_serve.kv.block_pool import BlockPool

modelo = prepara("L03")
PAISES = ["France", "Spain", "Italy", "Peru", "Japan", "Egypt", "Chile", "Norway", "Kenya", "Greece", "Cuba", "India"]
preguntas = [f"What is the capital of {pais}?" for pais in PAISES]
NUEVOS = 8 if modelo.rapido else 24
VECES = 1 if modelo.rapido else 3
print(f"{len(preguntas)} preguntas, {NUEVOS} tokens nuevos por respuesta.")

# %% [markdown] tags=["cubre-D-fragmentacion"]
# ## 1 · Idea
#
# ### El desperdicio
#
# Un servidor guarda la caché KV en una zona grande de memoria que pide al arrancar. Imagina que caben **24 tokens** y
# que cada petición puede llegar a medir **12**. Lo más sencillo es la **reserva contigua**: cada petición recibe sus 12
# casillas seguidas desde el primer día. Llegan A (acabará midiendo 5), B (7) y C (4):
#
# ```text
#  casilla  0           11 12          23
#           AAAAA.......  BBBBBBB.....      C espera: no quedan 12 casillas seguidas
# ```
#
# Hay 12 casillas vacías y C, que solo necesita 4, no entra. Los puntos son **fragmentación interna**: memoria dada a
# alguien que no la usa.
#
# ¿Y si reservas a cada una lo justo? Nadie conoce la longitud de la respuesta hasta que acaba. Aunque la supieras, las
# peticiones acaban en desorden y dejan huecos:
#
# ```text
#           AAAAABBBBBBBCCCCDDDDDEEE     llena
#           AAAAA.......CCCC.....EEE     acaban B y D: 12 libres, pero el hueco mayor es de 7
# ```
#
# Una petición de 10 tokens no cabe, aunque sobren 12. Eso es **fragmentación externa**: memoria libre que no sirve
# porque está en trozos.
#
# El resultado de ambas es el mismo: **menos peticiones a la vez**, y con menos peticiones por paso cada lectura de los
# pesos produce menos tokens (lab 2).

# %% [markdown] tags=["cubre-B-paged", "cubre-D-origen"]
# ### La cura
#
# Un sistema operativo tiene el mismo problema con los programas, y lo resolvió hace décadas con la **memoria virtual**:
#
# | Sistema operativo | Motor de inferencia |
# |---|---|
# | página, de tamaño fijo | **bloque**: hueco para `tam` tokens (16 en nuestro motor) |
# | dirección virtual | posición del token en su secuencia |
# | dirección física | casilla de la caché KV |
# | tabla de páginas de un proceso | **tabla de bloques** de una petición |
# | páginas físicas libres | lista de bloques libres |
# | página compartida, copia al escribir | prefijo compartido |
# | expulsar una página | **desalojar** una petición |
#
# Una petición cree que su memoria es continua. Su tabla dice dónde está de verdad cada trozo:
#
# ```text
#  tabla de A = [5, 2]        bloques de 4 tokens
#  posición   0 1 2 3 | 4 5 6 .      →   bloque 5 | bloque 2
# ```
#
# - **Fragmentación externa: ninguna.** Todos los bloques son iguales, así que cualquiera libre sirve a cualquiera.
# - **Fragmentación interna: menos de un bloque por petición.** Solo sobra sitio al final del último.
#
# La idea se publicó en 2023 (Kwon y otros, *Efficient Memory Management for Large Language Model Serving with
# PagedAttention*, arXiv:2309.06180). De ese trabajo, hecho en la Universidad de California en Berkeley, nació **vLLM**.
#
# > **Ojo con los resúmenes.** «PagedAttention elimina la fragmentación» no es exacto: elimina la externa y acota la
# > interna. «Ya no hay falta de memoria» tampoco: el depósito de bloques sigue siendo finito. Lo que cambia es qué pasa
# > cuando se acaba, y eso lo decides tú en 3.5.

# %% [markdown]
# ## 2 · Predice
#
# Con la **misma memoria** para la caché KV, comparas reserva contigua (256 casillas por petición) y bloques de 16. Las
# peticiones son las preguntas de la preparación: entre pregunta y respuesta, unas pocas decenas de tokens. Antes de medir,
# escribe tus números; cualquiera mayor que 0 vale.
#
# - `a_la_vez`: ¿cuántas veces más peticiones avanzan a la vez con bloques?
# - `aciertos`: doce peticiones empiezan con el mismo texto largo y acaban con una pregunta distinta. ¿Qué tanto por
#   ciento de los tokens de prompt no hace falta calcular, porque otra petición ya los tiene en bloques?


# %% nbgrader={"grade": false, "grade_id": "prediccion", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mi_prediccion():
    """Devuelve {"a_la_vez": número de veces, "aciertos": tanto por ciento}."""
    ### BEGIN SOLUTION
    return {"a_la_vez": 4.0, "aciertos": 80.0}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_prediccion", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
comprobar("prediccion_l03")

# %% [markdown]
# ## 3 · Construye
#
# ### 3.1 De posición a casilla
#
# Con bloques de `tam` tokens, la posición `pos` cae en el bloque **lógico** `pos // tam`, en el hueco `pos % tam`. La
# tabla dice qué bloque **físico** es. Si la memoria es una fila larga de casillas, el bloque físico `b` ocupa desde
# `b · tam` hasta `b · tam + tam − 1`.
#
# En papel, con `tabla = [5, 2]` y `tam = 4`: la posición 6 está en el bloque lógico 1, hueco 2; el físico es el 2; la
# casilla, `2 · 4 + 2 = 10`.
#
# **Tu tarea:** escribe `direccion(pos, tabla, tam)`. Una posición sin bloque (negativa, o más allá del último) es un
# error: lanza `ValueError`. Cuidado: en Python `tabla[-1]` no falla, devuelve el último. En un motor eso sería leer la
# memoria de otro token sin que nadie se entere.


# %% nbgrader={"grade": false, "grade_id": "direccion", "locked": false, "schema_version": 3, "solution": true, "task": false}
def direccion(pos, tabla, tam):
    """Casilla física de la posición pos de una secuencia.

    tabla: bloque físico de cada bloque lógico. tam: tokens por bloque. Lanza ValueError si pos no está en la tabla.

    >>> direccion(6, [5, 2], 4)
    10
    """
    ### BEGIN SOLUTION
    if not 0 <= pos < len(tabla) * tam:
        raise ValueError(f"la posición {pos} no tiene bloque")
    return tabla[pos // tam] * tam + pos % tam
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_direccion", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
comprobar("direccion")

# %% [markdown]
# ### 3.2 Medir el desperdicio
#
# **Tu tarea:** dos funciones.
#
# `fragmentacion(longitudes, tam, max_len)` recibe cuántos tokens ocupa **ahora** cada petición y devuelve qué parte de
# la memoria **reservada**, la de todas sumada, está vacía, de 0 a 1, con cada método:
#
# - `"contigua"`: cada petición tiene reservadas `max_len` casillas;
# - `"paginada"`: cada petición tiene los bloques enteros que necesita. Una de 0 tokens no tiene ninguno.
#
# Con longitudes `[5, 7]`, `tam = 4` y `max_len = 12`: la contigua reserva 24 y usa 12, así que devuelve 0,5; la paginada
# reserva 2 + 2 bloques, 16 casillas, y devuelve `4 / 16 = 0,25`. Si no hay nada reservado, no hay desperdicio: 0.
#
# `externa(mapa)` recibe la memoria como una cadena, con `"."` en cada casilla libre, y devuelve qué parte de lo **libre**
# queda fuera del hueco más largo. `"AA..B."` tiene 3 libres y un hueco mayor de 2: devuelve `1/3`. Sin casillas libres, 0.


# %% nbgrader={"grade": false, "grade_id": "fragmentacion", "locked": false, "schema_version": 3, "solution": true, "task": false}
def fragmentacion(longitudes, tam, max_len):
    """Parte vacía de lo reservado: {"contigua": de 0 a 1, "paginada": de 0 a 1}."""
    ### BEGIN SOLUTION
    usadas = sum(longitudes)
    reservadas = {
        "contigua": len(longitudes) * max_len,
        "paginada": sum(-(-n // tam) * tam for n in longitudes),
    }
    return {metodo: 1 - usadas / r if r else 0.0 for metodo, r in reservadas.items()}
    ### END SOLUTION


def externa(mapa):
    """Parte de las casillas libres (".") que no está en el hueco más largo, de 0 a 1."""
    ### BEGIN SOLUTION
    mayor = actual = 0
    for casilla in mapa:
        actual = actual + 1 if casilla == "." else 0
        mayor = max(mayor, actual)
    libres = mapa.count(".")
    return 1 - mayor / libres if libres else 0.0
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_fragmentacion", "locked": true, "points": 13, "schema_version": 3, "solution": false, "task": false}
comprobar("fragmentacion")

# %% [markdown]
# El tamaño del bloque es un compromiso: pequeño, se desperdicia menos; grande, las tablas son más cortas y cada lectura
# de memoria más larga. Mira qué dice tu función:

# %%
medidas_de_hoy = [37, 41, 18, 63, 25, 40, 52, 33]
vacio = {f"bloques de {tam}": 100 * fragmentacion(medidas_de_hoy, tam, 256)["paginada"] for tam in (1, 16, 64)}
vacio["contigua, 256 por petición"] = 100 * fragmentacion(medidas_de_hoy, 16, 256)["contigua"]
barras(vacio, "% de lo reservado, vacío", "Ocho peticiones de 18 a 63 tokens")

# %% [markdown]
# ### 3.3 El reparto de bloques
#
# Ahora la pieza central: quién tiene cada bloque. Un bloque puede estar en **varias** tablas a la vez (dos prompts con
# el mismo principio), así que no basta con «libre» u «ocupado»: hace falta una **cuenta de referencias**.
#
# ```text
#  allocate(2)   → (0, 1)     cuentas 1 1 0 0     libres 2
#  share([0])                 cuentas 2 1 0 0     libres 2      otra petición usa el bloque 0
#  free([0, 1])               cuentas 1 0 0 0     libres 3      el 1 queda libre; el 0 aún tiene dueño
#  free([0])                  cuentas 0 0 0 0     libres 4
# ```
#
# **Tu tarea:** completa la clase `Bloques`. Los métodos se llaman en inglés porque son los que **llama el motor**: al
# acabar, tu clase reparte su memoria de verdad.
#
# | Miembro | Qué hace |
# |---|---|
# | `num_free` | cuántos bloques tienen la cuenta a 0 (es una propiedad: se lee sin paréntesis) |
# | `refs(block)` | la cuenta de ese bloque |
# | `allocate(count)` | da `count` bloques libres distintos, los que sean, como **tupla** y pone su cuenta a 1. Si no hay bastantes devuelve `None` y no toca nada |
# | `share(blocks)` | suma 1 a la cuenta de cada bloque |
# | `free(blocks)` | resta 1 a la cuenta de cada bloque; el que llega a 0 vuelve a estar libre |
#
# `share` y `free` rechazan con `ValueError`, **antes de cambiar nada**, una lista que nombra un bloque que nadie tiene,
# un número que no existe (los negativos tampoco existen) o el mismo bloque dos veces. Para eso está `revisa`, que
# escribes una vez y llamas desde las dos.
#
# ¿Por qué «antes de cambiar nada»? Porque quien llama puede atrapar el error y seguir. Si la mitad de la lista ya se
# soltó, la cuenta queda mal para siempre.


# %% nbgrader={"grade": false, "grade_id": "reparto", "locked": false, "schema_version": 3, "solution": true, "task": false}
class Bloques:
    """Quién tiene cada bloque, por cuenta de referencias. No sabe nada de tokens."""

    def __init__(self, num_blocks):
        self.num_blocks = num_blocks
        ### BEGIN SOLUTION
        self.libres = list(range(num_blocks))
        self.cuentas = [0] * num_blocks
        ### END SOLUTION

    @property
    def num_free(self):
        """Cuántos bloques están libres."""
        ### BEGIN SOLUTION
        return len(self.libres)
        ### END SOLUTION

    def refs(self, block):
        """Cuántas referencias tiene ese bloque."""
        ### BEGIN SOLUTION
        return self.cuentas[block]
        ### END SOLUTION

    def allocate(self, count):
        """Una tupla con count bloques libres, o None (y nada cambia) si no hay bastantes."""
        ### BEGIN SOLUTION
        if count > len(self.libres):
            return None
        tomados = tuple(self.libres.pop() for _ in range(count))
        for bloque in tomados:
            self.cuentas[bloque] = 1
        return tomados
        ### END SOLUTION

    def revisa(self, blocks):
        """Lanza ValueError si hay un bloque repetido, que no existe o que nadie tiene."""
        ### BEGIN SOLUTION
        if len(set(blocks)) != len(blocks):
            raise ValueError("un bloque está repetido")
        for bloque in blocks:
            if not 0 <= bloque < self.num_blocks or self.cuentas[bloque] == 0:
                raise ValueError(f"nadie tiene el bloque {bloque}")
        ### END SOLUTION

    def share(self, blocks):
        """Una referencia más a cada bloque de la lista."""
        ### BEGIN SOLUTION
        self.revisa(blocks)
        for bloque in blocks:
            self.cuentas[bloque] += 1
        ### END SOLUTION

    def free(self, blocks):
        """Una referencia menos a cada bloque de la lista; el que llega a 0 queda libre."""
        ### BEGIN SOLUTION
        self.revisa(blocks)
        for bloque in blocks:
            self.cuentas[bloque] -= 1
            if self.cuentas[bloque] == 0:
                self.libres.append(bloque)
        ### END SOLUTION


def tipo_del_reparto():
    """El tipo de lo que devuelve allocate. El motor une tablas con +, y eso exige una tupla. (Ya está escrita.)"""
    return type(Bloques(3).allocate(2)).__name__


# %% nbgrader={"grade": true, "grade_id": "prueba_reparto", "locked": true, "points": 24, "schema_version": 3, "solution": false, "task": false}
comprobar("reparto")

# %% [markdown]
# **Tu clase en el motor.** `lado_a_lado` sirve las mismas peticiones con dos motores por turnos: uno con tu `Bloques` y
# otro con el de referencia. Las doce peticiones empiezan igual: el motor guarda los bloques **llenos** de ese principio
# y los comparte (*prefix sharing*). Mira tres cosas: que los tokens sean idénticos, la velocidad y los aciertos de
# prefijo.

# %%
REGLAS = (
    "You are a careful assistant in a small travel agency. Answer in one short sentence. Never invent a fact. If you do "
    "not know, say that you do not know. Use plain words, be polite, and do not repeat the question. The agency is open "
    "from nine to five, from Monday to Friday, and it sells train tickets, bus tickets and maps of every city.\n\n"
)
con_prefijo = [f"{REGLAS}Question: {pregunta}\nAnswer:" for pregunta in preguntas]
resultado = lado_a_lado(
    modelo, con_prefijo, {"kv.block_pool": Bloques}, max_tokens=NUEVOS, veces=VECES, chat=False, num_kv_blocks=256
)
resultado

# %% [markdown]
# Repartir bloques es una parte diminuta del trabajo de un paso: tu clase en Python puro no debería notarse. En modo rápido
# hay una sola medida, y el ruido de tu equipo puede ser mayor que la diferencia. Guárdala: los labs siguientes la usarán.

# %%
guarda("kv.block_pool", "Bloques")
anota("L03", "aciertos de prefijo", mi_prediccion()["aciertos"], 100 * resultado.tuya.aciertos, "%", modelo.nombre)
print(f"predijiste {mi_prediccion()['aciertos']:.0f} % de aciertos y fueron {100 * resultado.tuya.aciertos:.0f} %")

# %% [markdown]
# ### 3.4 Copiar al escribir
#
# Pides al motor **dos** continuaciones del mismo prompt. Las dos empiezan con los mismos bloques, y el último puede estar
# a medias:
#
# ```text
#  bloques de 4     A = [0, 1]   the sky is very | blue  .  .  .
#  bifurca A → B    B = [0, 1]   los dos bloques, con cuenta 2: ni un byte copiado
#  A escribe «and»  el bloque 1 tiene dos dueños: A toma el 2, copia «blue» y escribe ahí
#                   A = [0, 2]   B = [0, 1]      cuentas 2 1 1
#  B escribe «but»  el bloque 1 ya solo es suyo: escribe en él
# ```
#
# Es la **copia al escribir** (*copy-on-write*) de los sistemas operativos: se comparte todo, y se copia un bloque solo
# cuando alguien va a escribir en uno que no es solo suyo.
#
# > **Nuestro motor no la necesita.** Comparte únicamente bloques **llenos**, y en un bloque lleno ya no escribe nadie.
# > Paga a cambio calcular otra vez, por cada rama, los tokens del último bloque a medias: menos de 16. vLLM hace hoy lo
# > mismo. La regla es tan corta que se demuestra leyendo el código: por eso gana. Tú la escribes en una memoria de
# > juguete para saber qué se evita.
#
# **Tu tarea:** dos funciones. La clase `Juguete`, ya escrita, las usa.
#
# - `bifurca(tabla, bloques)`: devuelve una **lista nueva** con los mismos bloques y suma una referencia a cada uno.
# - `escribe(tabla, pos, valor, memoria, bloques)`: guarda `valor` en la posición `pos`, que puede estar ya escrita, y
#   devuelve `True`. `memoria[b]` es el bloque físico `b`, una lista de `tam` huecos; `bloques` es un `Bloques` de los tuyos.
#   1. si la posición cae justo después del último bloque de la tabla, pide uno y añádelo;
#   2. si cae en un bloque con más de una referencia, pide uno, copia ahí el contenido, suelta el viejo y cambia la tabla;
#   3. escribe.
#
#   Si hace falta un bloque y no queda ninguno, devuelve `False` sin cambiar nada.


# %% nbgrader={"grade": false, "grade_id": "copia", "locked": false, "schema_version": 3, "solution": true, "task": false}
def bifurca(tabla, bloques):
    """La tabla de una rama nueva, con todos los bloques compartidos."""
    ### BEGIN SOLUTION
    bloques.share(tabla)
    return list(tabla)
    ### END SOLUTION


def escribe(tabla, pos, valor, memoria, bloques):
    """Guarda valor en la posición pos de la secuencia; copia antes el bloque si es de varios.

    tabla: lista de bloques, que puede cambiar. memoria: lista de bloques, cada uno una lista de huecos. bloques: un
    Bloques. Devuelve True, o False (y nada cambia) si falta memoria.
    """
    ### BEGIN SOLUTION
    tam = len(memoria[0])
    i = pos // tam
    if i == len(tabla) or bloques.refs(tabla[i]) > 1:
        nuevo = bloques.allocate(1)
        if nuevo is None:
            return False
        if i == len(tabla):
            tabla.append(nuevo[0])
        else:
            memoria[nuevo[0]][:] = memoria[tabla[i]]
            bloques.free([tabla[i]])
            tabla[i] = nuevo[0]
    memoria[tabla[i]][pos % tam] = valor
    return True
    ### END SOLUTION


class Juguete:
    """Una caché KV de juguete: en vez de claves y valores, cada hueco guarda una palabra. (Ya está escrita.)"""

    def __init__(self, num_blocks, tam):
        self.tam, self.bloques = tam, Bloques(num_blocks)
        self.memoria = [[None] * tam for _ in range(num_blocks)]
        self.tablas, self.largos = {}, {}

    def nueva(self, nombre):
        self.tablas[nombre], self.largos[nombre] = [], 0

    def bifurca(self, nombre, hija):
        self.tablas[hija], self.largos[hija] = bifurca(self.tablas[nombre], self.bloques), self.largos[nombre]

    def pon(self, nombre, pos, valor):
        hecho = escribe(self.tablas[nombre], pos, valor, self.memoria, self.bloques)
        if hecho:
            self.largos[nombre] = max(self.largos[nombre], pos + 1)
        return hecho

    def termina(self, nombre):
        self.bloques.free(self.tablas.pop(nombre))
        del self.largos[nombre]

    def lee(self, nombre):
        tabla, tam = self.tablas[nombre], self.tam
        return [self.memoria[tabla[i // tam]][i % tam] for i in range(self.largos[nombre])]

    def estado(self):
        cuentas = [self.bloques.refs(b) for b in range(len(self.memoria))]
        return {
            "libres": self.bloques.num_free,
            "cuentas": cuentas,
            "tablas": {n: list(t) for n, t in self.tablas.items()},
        }

    def foto(self, nota):
        return {"tablas": {n: list(t) for n, t in self.tablas.items()}, "tokens": dict(self.largos), "nota": nota}


# %% nbgrader={"grade": true, "grade_id": "prueba_copia", "locked": true, "points": 14, "schema_version": 3, "solution": false, "task": false}
comprobar("copia")

# %% [markdown]
# El ejemplo de arriba, con tu código. Mueve el paso y mira las cuentas:

# %%
juguete = Juguete(num_blocks=6, tam=4)
juguete.nueva("A")
for lugar, palabra in enumerate(["the", "sky", "is", "very", "blue"]):
    juguete.pon("A", lugar, palabra)
fotos = [juguete.foto("A ha escrito cinco palabras")]
juguete.bifurca("A", "B")
fotos.append(juguete.foto("B nace de A: comparten todo"))
juguete.pon("A", 5, "and")
fotos.append(juguete.foto("A escribe: copia el bloque a medias"))
juguete.pon("B", 5, "but")
fotos.append(juguete.foto("B escribe: el bloque ya era solo suyo"))
print(" ".join(juguete.lee("A")), "|", " ".join(juguete.lee("B")))
ver_bloques(fotogramas=fotos, num_bloques=6, tam_bloque=4)

# %% [markdown]
# ### 3.5 Cuando no queda memoria
#
# Todas las peticiones crecen un token por paso. Tarde o temprano alguna necesita un bloque y no hay. Esperar no sirve:
# si todas esperan, nadie acaba y nadie suelta nada. Hay que **desalojar** a alguien: se le quitan sus bloques y vuelve a
# la cola. Más tarde se calculan otra vez sus tokens, todos de golpe, como un prompt (**recálculo**); la otra salida,
# copiar sus bloques a otra memoria y traerlos de vuelta (*swap*), rara vez compensa.
#
# ¿A quién? Al **último que llegó**: es el que menos trabajo pierde, y así el más antiguo siempre avanza. Con esa regla
# el motor no se bloquea nunca.
#
# Hay una trampa: un bloque compartido **no queda libre** al desalojar a uno de sus dueños.
#
# ```text
#  llegada  bloques           faltan 2 bloques
#     1     [0, 1, 2]
#     2     [0, 3]
#     3     [0, 4]            desalojar a la 3 libera solo el 4; hace falta también la 2, que libera el 3
# ```
#
# **Tu tarea:** escribe `victimas(peticiones, faltan)`, que devuelve los `id` de las desalojadas, en orden: primero la
# última en llegar, luego la anterior, y **se para en cuanto hay bastantes** (pueden sobrar). No se salta a nadie: si al
# desalojar a una no queda libre ningún bloque, sale igual, porque quien llegó antes va después. La más antigua no se
# desaloja nunca. Si ni con todas las demás se llega a `faltan`, devuelve `None`: no sirve de nada echar a nadie. Si faltan
# 0, devuelve `[]`.


# %% nbgrader={"grade": false, "grade_id": "desalojo", "locked": false, "schema_version": 3, "solution": true, "task": false}
def victimas(peticiones, faltan):
    """Ids de las peticiones que se desalojan para que queden libres `faltan` bloques más, o None si no se puede.

    peticiones: [{"id": 7, "llegada": 3, "bloques": [0, 4]}, …], en cualquier orden; un bloque puede estar en varias.
    """
    ### BEGIN SOLUTION
    usos = Counter(bloque for p in peticiones for bloque in p["bloques"])
    fuera, libres = [], 0
    for p in sorted(peticiones, key=lambda p: p["llegada"], reverse=True)[:-1]:
        if libres >= faltan:
            break
        fuera.append(p["id"])
        usos.subtract(p["bloques"])
        libres += sum(usos[bloque] == 0 for bloque in p["bloques"])
    return fuera if libres >= faltan else None
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_desalojo", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
comprobar("desalojo")

# %% [markdown]
# ### 3.6 La auditoría
#
# Un error en el reparto de memoria no avisa: el servidor responde bien durante horas y luego mezcla conversaciones. Por
# eso se vigila una **invariante**, algo que debe ser cierto en todo momento:
#
# - la cuenta de un bloque es el número de tablas en las que está, más 1 si la caché de prefijos lo guarda;
# - los bloques libres y los que tienen algún dueño suman todos los que hay.
#
# **Tu tarea:** escribe `audita(cuentas, libres, tablas, guardados)`. No mira el código del reparto: solo lo que dice.
#
# | Argumento | Qué es |
# |---|---|
# | `cuentas` | lista: lo que responde `refs(b)` para cada bloque |
# | `libres` | lo que responde `num_free` |
# | `tablas` | lista de tablas de bloques, una por petición |
# | `guardados` | lista de bloques que la caché de prefijos conserva |
#
# Un bloque tiene **dueño** si alguna tabla lo nombra o si la caché lo guarda, diga lo que diga su cuenta: la cuenta es lo
# que se audita. Devuelve `{"mal_contados": [bloque, …], "perdidos": número}`:
#
# - `mal_contados`, de menor a mayor: los bloques cuya cuenta no es la que pide la invariante;
# - `perdidos`: el total menos los libres y menos los que tienen dueño. Es 0 si todo va bien, positivo si hay una **fuga**
#   y negativo si algún bloque se cuenta como libre y **también** tiene dueño.


# %% nbgrader={"grade": false, "grade_id": "auditoria", "locked": false, "schema_version": 3, "solution": true, "task": false}
def audita(cuentas, libres, tablas, guardados):
    """Qué no cuadra en un reparto: {"mal_contados": [bloque, …], "perdidos": número}."""
    ### BEGIN SOLUTION
    duenos = Counter(bloque for tabla in tablas for bloque in tabla)
    duenos.update(guardados)
    mal_contados = [bloque for bloque, cuenta in enumerate(cuentas) if cuenta != duenos[bloque]]
    return {"mal_contados": mal_contados, "perdidos": len(cuentas) - libres - len(+duenos)}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_auditoria", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
comprobar("auditoria")

# %% [markdown]
# ## 4 · Mira
#
# La traza que grabó el motor **con tu clase** en 3.3. Mueve el paso: las primeras filas comparten los bloques del texto
# común (cuenta mayor que 1) y cada petición tiene su final propio. Aquí todas acaban en el mismo paso; después, la caché
# de prefijos conserva los bloques llenos por si vuelve alguien con el mismo principio.

# %%
ver_bloques(resultado.traza, costuras=con({"kv.block_pool": Bloques}))

# %% [markdown]
# Ahora con poca memoria: las doce preguntas, sin caché de prefijos y con bloques para unas pocas peticiones. Las barras
# de **recálculo** son peticiones desalojadas que vuelven. La cuenta de desalojos está en la traza.

# %%
apretada = traza(
    modelo,
    preguntas,
    {"kv.block_pool": Bloques},
    max_tokens=3 * NUEVOS,
    num_kv_blocks=16,
    max_model_len=128,
    enable_prefix_caching=False,
    **({} if modelo.real else {"block_size": 32}),
)
desalojos = sum(peticion["preemptions"] for peticion in apretada["requests"].values())
print(f"{cuenta(desalojos, 'desalojo')} para servir {len(preguntas)} peticiones con {apretada['num_blocks']} bloques.")
ver_gantt(apretada)

# %% [markdown]
# ## 5 · Compara
#
# ### 5.1 La misma memoria, contigua o por bloques
#
# La reserva contigua es un caso particular de la paginada: **un bloque tan largo como la petición más larga**. Así que
# nuestro motor puede hacer las dos cosas, y se comparan de verdad. Las dos tienen 1024 casillas: 4 bloques de 256, o 64
# de 16.

# %%
CASILLAS, LARGO = 1024, 256
muchas = preguntas * (1 if modelo.rapido else 3)
parametros = SamplingParams(max_tokens=NUEVOS, temperature=0.0, ignore_eos=True)
opciones = {"max_model_len": LARGO, "enable_prefix_caching": False}
filas = {}
for nombre, tam in (("contigua", LARGO), ("por bloques", 16)):
    opciones |= {"block_size": tam, "num_kv_blocks": CASILLAS // tam}
    pasos = traza(modelo, muchas, max_tokens=NUEVOS, chat=False, **opciones)["steps"]
    with LLM(modelo.carpeta, **opciones) as llm:
        tiempo = mide(lambda llm=llm: llm.generate(muchas, parametros), veces=VECES)
    filas[nombre] = {
        "a la vez": max(paso["running"] for paso in pasos),
        "pasos": len(pasos),
        "tok/s": len(muchas) * NUEVOS / tiempo.mediana,
    }
for nombre, fila in filas.items():
    print(f"{nombre:12}" + " · ".join(f"{clave} {valor:.0f}" for clave, valor in fila.items()))
veces_mas = filas["por bloques"]["a la vez"] / filas["contigua"]["a la vez"]
anota("L03", "peticiones a la vez", mi_prediccion()["a_la_vez"], veces_mas, "×", modelo.nombre)
print(f"predijiste {cifra(mi_prediccion()['a_la_vez'], 1)} veces más a la vez y fueron {cifra(veces_mas, 1)}")

# %% [markdown]
# Fíjate en que los **pasos** bajan mucho más de lo que sube la velocidad. Un paso con más peticiones cuesta más; en una
# CPU, que se queda pronto sin cálculo, bastante más. En una GPU el paso apenas se encarece y la ganancia es mayor.
#
# Dos avisos para el modo rápido: la velocidad sale de una sola medida, y con ruido puede hasta bajar; y solo hay doce
# peticiones, así que por bloques entran todas y «a la vez» lo limita la carga, no la memoria.

# %% [markdown] tags=["cubre-A-vllm"]
# ### 5.2 vLLM
#
# El reparto de vLLM está en un solo archivo, `vllm/v1/core/block_pool.py`, y ya sabes leerlo:
#
# | Tu `Bloques` | `BlockPool` de vLLM |
# |---|---|
# | `allocate(n)` | `get_new_blocks(n)`; si no hay bastantes lanza `ValueError`, y quien llama mira antes |
# | `share(bloques)` | `touch(bloques)` |
# | `free(bloques)` | `free_blocks(bloques)` |
# | `refs(b)` | el campo `ref_cnt` de cada bloque |
# | `num_free` | `get_num_free_blocks()` |
#
# Una diferencia: en vLLM un bloque de la caché de prefijos que nadie usa tiene cuenta 0 y **está** en la lista de libres,
# de donde se rescata si alguien lo pide. En el nuestro la caché tiene su propia referencia. Cuánta caché KV está ocupada
# lo publica en la métrica `vllm:kv_cache_usage_perc`.
#
# vLLM junta sobre esta base lo que ves en otros labs: una API compatible con la de OpenAI (lab 9), pesos y activaciones
# de 8 bits (W8A8) y contextos largos, que caben porque la memoria se da según se usa.

# %%
compara("uso_de_cache_kv", modelo)

# %% [markdown]
# ## 6 · Rompe
#
# ### 6.1 Tres repartos rotos en el motor de verdad
#
# Cada uno tiene un solo error. Antes de ejecutar, decide qué verás con cada uno: ¿un error, un texto malo o nada?
#
# - `Olvida`: resta la cuenta, pero no devuelve el bloque a los libres.
# - `SueltaDosVeces`: no mira la cuenta; lo que una petición suelta queda libre aunque otra lo use. Es también lo que
#   ocurre si alguien llama dos veces a `free` y nadie lo impide.
# - `Repite`: da bloques sin quitarlos de los libres.


# %%
class Olvida(BlockPool):
    """Fuga: un bloque que llega a 0 no vuelve a los libres."""

    def free(self, blocks):
        for bloque in blocks:
            self._refs[bloque] -= 1


class SueltaDosVeces(BlockPool):
    """Todo lo que se suelta queda libre, aunque aún tenga dueño."""

    def share(self, blocks):
        for bloque in blocks:
            self._refs[bloque] += 1

    def free(self, blocks):
        for bloque in blocks:
            self._refs[bloque] = max(0, self._refs[bloque] - 1)
            if bloque not in self._free:
                self._free.append(bloque)


class Repite(BlockPool):
    """Da los mismos bloques a todo el mundo."""

    def allocate(self, count):
        for bloque in self._free[:count]:
            self._refs[bloque] += 1
        return tuple(self._free[:count])

    def free(self, blocks):
        for bloque in blocks:
            self._refs[bloque] -= 1


def audita_motor(llm):
    """Tu audita sobre un motor parado: nadie tiene tabla, y la caché de prefijos guarda lo suyo."""
    kv = llm.core.scheduler.kv
    cuentas = [kv.pool.refs(b) for b in range(kv.num_blocks)]
    return audita(cuentas, kv.pool.num_free, list(kv.tables().values()), list(kv.cache.blocks()))


charlas = [[{"role": "user", "content": pregunta}] for pregunta in preguntas[:4]]
with LLM(modelo.carpeta) as llm:
    buenos = [salida.outputs[0].text for salida in llm.chat(charlas, parametros)]


def prueba_reparto_roto(clase, rondas):
    """Sirve las mismas cuatro preguntas varias veces con un reparto y cuenta qué pasa en cada ronda."""
    print(f"— {clase.__name__}")
    llm = LLM(modelo.carpeta, seams=con({"kv.block_pool": clase}), num_kv_blocks=32 if modelo.real else 64)
    for ronda in range(1, rondas + 1):
        try:
            textos = [salida.outputs[0].text for salida in llm.chat(charlas, parametros)]
        except Exception as error:
            print(f"  ronda {ronda}: el motor se para con {type(error).__name__}: {error}")
            break
        iguales = sum(a == b for a, b in zip(textos, buenos, strict=True))
        kv, hallazgo = llm.core.scheduler.kv, audita_motor(llm)
        print(
            f"  ronda {ronda}: {iguales} de {len(textos)} textos correctos, {kv.pool.num_free} libres, "
            f"perdidos {hallazgo['perdidos']}, mal contados {len(hallazgo['mal_contados'])}"
        )


for clase in (Olvida, SueltaDosVeces, Repite):
    prueba_reparto_roto(clase, rondas=3 if modelo.rapido else 8)

# %% [markdown]
# Lee cada fila con su diagnóstico:
#
# | Reparto | Síntoma | Cómo lo ve la auditoría |
# |---|---|---|
# | `Olvida` | los textos son correctos y la memoria baja ronda a ronda, hasta que un día falla algo que no tiene la culpa | `perdidos` positivo y creciente |
# | `SueltaDosVeces` | al principio todo va bien; después, respuestas a preguntas que nadie hizo: una petición lee lo que otra escribió | `perdidos` negativo |
# | `Repite` | disparates desde el primer paso, porque todas escriben en los mismos bloques; a menudo el motor acaba por pararse | `perdidos` negativo |
#
# El peor es el segundo. Nada falla, y un cliente recibe trozos de la conversación de otro. En un servidor compartido eso
# es una **fuga de datos**, no un fallo de memoria. Por eso `free` lanza `ValueError` en vez de ser amable.

# %% [markdown]
# ### 6.2 Soltar dos veces, con tu clase

# %%
reparto = Bloques(4)
tabla = reparto.allocate(2)
reparto.free(tabla)
try:
    reparto.free(tabla)
    print("Tu clase aceptó soltar dos veces: repasa `revisa`.")
except ValueError as error:
    print(f"ValueError: {str(error) or '(sin mensaje)'}. Quedan {reparto.num_free} libres: no ha cambiado nada.")

# %% [markdown]
# ### 6.3 Bloques demasiado grandes
#
# «Con PagedAttention no hay desperdicio.» Depende del bloque. Mismas peticiones, tres tamaños, con tu `fragmentacion` y
# el tope de lo que puede perder cada una:

# %%
for tam in (16, 64, 256):
    vacia = fragmentacion(medidas_de_hoy, tam, 256)["paginada"]
    print(f"bloques de {tam:3}: {100 * vacia:3.0f} % vacío; cada petición puede perder hasta {tam - 1} casillas")

# %% [markdown]
# ## 7 · Explica
#
# Responde en la celda siguiente con tus números delante (18 puntos, los lee tu docente):
#
# 1. En 5.1, ¿por qué los pasos bajan más de lo que sube la velocidad? ¿Y en qué se equivocó tu predicción de
#    `a_la_vez`? (6)
# 2. Nuestro motor comparte solo bloques llenos y por eso nunca copia al escribir. ¿Qué gana y qué paga? Pon un ejemplo
#    con números: un prompt de 50 tokens, bloques de 16, cuatro continuaciones. (6)
# 3. Un servidor va bien dos días; al tercero, una persona recibe una frase de la conversación de otra. ¿Qué error del
#    reparto buscarías primero, qué invariante lo habría detectado y por qué no lo detectó ninguna prueba corta? (6)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explica", "locked": false, "points": 18, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
#
# 1. Un paso con más peticiones calcula más tokens y dura más: los pesos se leen una sola vez, pero el cálculo crece con
#    el lote, y en una CPU se nota pronto. Además, el prefill cuesta lo mismo de las dos maneras. Respuesta abierta en la
#    segunda parte: se valora comparar el número escrito con el medido y nombrar la causa (longitud real frente a 256, el
#    redondeo al bloque, o que había menos peticiones que sitios).
# 2. Gana una regla simple: en un bloque compartido no escribe nadie, así que no hay copias, ni carreras, ni tablas que
#    cambian; la tabla solo crece. Paga repetir el final a medias: 50 = 3 · 16 + 2, se comparten 3 bloques (48 tokens) y
#    cada rama calcula y guarda por su cuenta los 2 restantes: cuatro bloques a medias en vez de uno.
# 3. Un bloque que queda libre mientras alguien lo usa (soltado dos veces o sin mirar la cuenta) y se da a otra petición.
#    Invariante: la cuenta de cada bloque es el número de tablas que lo nombran más la caché, y libres + con dueño =
#    total. En una prueba corta la lista de libres es larga y el bloque soltado de más no se vuelve a dar; con el servidor
#    lleno sí.
#
# ### END SOLUTION

# %% [markdown]
# ## 8 · Autoevaluación
#
# Piensa tu respuesta y abre cada opción.
#
# **A. Bloques de 16 tokens y peticiones de 1000. ¿Cuánto se pierde como mucho por fragmentación interna?**
#
# <details><summary>16 de cada 1000 casillas en cada bloque</summary>No. Los bloques intermedios están llenos. Solo el
# último puede tener huecos.</details>
# <details><summary>15 casillas por petición</summary>Correcto. El último bloque tiene al menos un token: sobran como
# mucho 15, cerca del 1,5 %.</details>
# <details><summary>Nada: la paginación elimina la fragmentación</summary>No. Elimina la externa. La interna queda
# acotada, no eliminada.</details>
#
# **B. Un bloque tiene cuenta 3 y se desaloja a una de las peticiones que lo usan. ¿Qué pasa con él?**
#
# <details><summary>Queda libre</summary>No. Otras dos referencias siguen vivas: darlo a otra petición mezclaría
# textos.</details>
# <details><summary>Se copia antes de soltarlo</summary>No. Copiar hace falta al escribir en un bloque compartido, no al
# soltarlo.</details>
# <details><summary>Su cuenta pasa a 2 y sigue ocupado</summary>Correcto. Por eso desalojar a quien solo tiene bloques
# compartidos no libera nada.</details>
#
# **C. ¿Por qué el motor desaloja a la última que llegó y no a la que más bloques tiene?**
#
# <details><summary>Porque libera más memoria</summary>No: a menudo libera menos. La que más tiene suele ser la que más
# trabajo perdería.</details>
# <details><summary>Porque así la más antigua siempre avanza y acaba</summary>Correcto. Con otra regla, dos peticiones
# grandes podrían desalojarse una a otra sin fin.</details>
# <details><summary>Porque es la que menos prioridad paga</summary>No. En este motor la prioridad es otra regla (lab 2);
# aquí decide la llegada.</details>
#
# **D. Tu servidor reserva para la caché KV la mitad de la memoria que antes. Con PagedAttention, ¿qué ves?**
#
# <details><summary>Un error de falta de memoria en cuanto llega mucha gente</summary>No. El depósito es finito, pero al
# agotarse se desaloja y se recalcula.</details>
# <details><summary>Lo mismo, porque ya no hay desperdicio</summary>No. Caben menos tokens, así que caben menos
# peticiones a la vez.</details>
# <details><summary>Menos peticiones a la vez, más desalojos y menos throughput</summary>Correcto. Nadie se cae, pero se
# calcula dos veces lo que se desaloja.</details>
