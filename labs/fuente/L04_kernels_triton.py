# %% [markdown]
# # Lab 4 · Kernels en Triton: atención paginada
#
# En el lab 3 decidiste en qué bloques vive la caché KV. Ahora escribes el código que la **lee**: un *kernel*, el
# pequeño programa que una GPU ejecuta miles de veces a la vez. Lo escribes en **Triton**, un lenguaje dentro de Python,
# y lo pruebas aquí mismo sin GPU: su intérprete ejecuta cada instrucción en la CPU, despacio y al pie de la letra.
#
# **Al terminar puedes…**
#
# | Resultado de aprendizaje | Comprobación |
# |---|---|
# | calcular un softmax por trozos, sin ver nunca la fila entera | `softmax_en_linea` |
# | escribir un kernel con máscara, pasos y tamaños que no son potencia de dos | `softmax_triton` |
# | leer memoria salteada siguiendo una tabla de bloques | `recoge` |
# | servir de verdad con tu atención paginada | `atencion_paginada` |
# | juntarlo todo en un kernel de decode | `decode_triton` |
# | decir con un roofline si manda la memoria o el cálculo | `roofline` |
# | contar qué ahorra fundir dos kernels | `fusion`, `explica` |
#
# **Tiempo:** 105 minutos. **Puntos:** 100 (82 automáticos y 18 que lee tu docente).
#
# > Necesitas saber qué es una tabla de bloques (lab 3) y qué hace la atención (lab 1): cada token nuevo compara su
# > **consulta** con las **claves** de todos los anteriores y mezcla sus **valores** según el parecido.

# %% [markdown]
# ## Preparación
#
# Ejecuta esta celda **antes que ninguna otra**: Triton decide al cargarse si sus kernels se interpretan, y no cambia de
# idea después. Triton solo existe para Linux; en otro sistema los ejercicios de torch funcionan y los demás lo dicen.

# %% nbgrader={"grade": false, "grade_id": "preparacion", "locked": true, "schema_version": 3, "solution": false, "task": false}
from minilab.bancos.con_triton import HAY_TRITON, SIN_TRITON, tl, triton  # isort: skip - antes que nada

import torch
from IPython.display import display

from minilab.bancos.accesos import ver_accesos
from minilab.bancos.en_gpu import en_gpu
from minilab.bancos.kernels_grabados import fusion_grabada, kernels_grabados, lanzamientos_grabados
from minilab.bitacora import anota
from minilab.comparar import compara
from minilab.comprobar import comprobar
from minilab.cronometro import mide
from minilab.cuaderno import prepara
from minilab.motor import con, lado_a_lado
from minilab.piezas import guarda
from minilab.vistas import Punto, Techo, gpu
from minilab.vistas import modelo as forma_de
from minilab.vistas.cifras import cifra
from minilab.widgets import ver_roofline
from minillm_kernels import resolve
from minillm_kernels.limits import measure_limits
from minillm_serve import LLM, SamplingParams

CENTINELA = -7.0  # lo que hay en una salida que nadie ha escrito

modelo = prepara("L04")
preguntas = [f"What is the capital of {pais}?" for pais in ("France", "Spain", "Italy", "Peru", "Japan", "Egypt")]
NUEVOS = 6 if modelo.rapido else 24
VECES = 1 if modelo.rapido else 3
print("Triton: intérprete en la CPU." if HAY_TRITON else f"Triton: {SIN_TRITON}.")

# %% [markdown]
# ## 1 · Idea
#
# ### Un kernel son muchos programas iguales
#
# Una CPU tiene unos pocos núcleos que hacen cosas distintas. Una GPU tiene miles de unidades que hacen **la misma**
# cosa con datos distintos. En Triton escribes un **programa** y dices cuántas copias quieres (la *rejilla*); cada copia
# sabe su número (`tl.program_id(0)`) y trabaja con un **trozo** de los datos, no con un número suelto:
#
# ```text
#  x, 10 números:        0 1 2 3 | 4 5 6 7 | 8 9 . .
#  programa                  0         1         2         trozos de 4
#  columna               0 1 2 3   4 5 6 7   8 9 10 11     10 y 11 no existen
# ```
#
# - `tl.arange(0, 4)` es el trozo `[0, 1, 2, 3]`. Su tamaño es siempre **potencia de dos**.
# - `tl.load(x + columna, mask=columna < 10, other=0.0)` lee esas posiciones. Un puntero de Triton **no sabe dónde
#   acaba** su tensor: leer la posición 10 no da error, da lo que haya ahí. La **máscara** es lo único que lo impide.
# - `tl.store(salida + columna, v, mask=…)` escribe. Sin máscara pisa la memoria de otro.
#
# ### Lo caro es mover datos
#
# El decode lee todos los pesos y toda la caché KV para producir un token por petición. Las cuentas son pocas: manda el
# **ancho de banda** de la memoria. Por eso los buenos kernels de atención no calculan menos: **mueven menos**. La
# atención escrita en pasos sueltos guarda en memoria una tabla de puntuaciones, la vuelve a leer para el softmax, la
# guarda otra vez y la lee para mezclar los valores. Si la haces **por trozos y de una pasada**, esa tabla no existe
# nunca. Es la idea de FlashAttention (Dao y otros, 2022, arXiv:2205.14135).

# %% [markdown]
# ## 2 · Predice
#
# Escribe tus números antes de medir. Cualquiera mayor que 0 vale.
#
# - `lote`: en una GPU H100 con un modelo de 8 mil millones de parámetros en 16 bits y contextos cortos, ¿a partir de
#   cuántas peticiones a la vez deja el decode de estar limitado por la memoria?
# - `torch`: nuestro motor usa en la CPU una atención compilada en C++. Si la cambias por la tuya, escrita en torch,
#   ¿qué parte de su velocidad conservas? (1 es la misma; 0,5, la mitad.)


# %% nbgrader={"grade": false, "grade_id": "prediccion", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mi_prediccion():
    """Devuelve {"lote": número, "torch": número}."""
    ### BEGIN SOLUTION
    return {"lote": 100.0, "torch": 0.5}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_prediccion", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
comprobar("prediccion_l04")

# %% [markdown]
# ## 3 · Construye
#
# ### 3.1 El softmax, en línea
#
# El softmax convierte puntuaciones en pesos que suman 1: `pesos[i] = exp(x[i] − m) / s`, con `m = max(x)` y
# `s = suma de exp(x[i] − m)`. Restar el máximo no cambia el resultado y evita que `exp` se desborde.
#
# Parece que hace falta la fila entera para conocer `m`. No: basta un **resumen** `(m, s)` de lo visto hasta ahora. Dos
# resúmenes se unen así, con números pequeños:
#
# ```text
#  x = [1, 3 | 2, 5]        trozo 1: m = 3, s = e^(1−3) + e^0 = 1,135
#                           trozo 2: m = 5, s = e^(2−5) + e^0 = 1,050
#  unidos: m = 5,           s = 1,135 · e^(3−5) + 1,050 · e^0 = 1,203
# ```
#
# El trozo con el máximo menor **encoge**: sus exponenciales se calcularon contra un máximo que ya no lo es.
#
# **Tu tarea:** dos funciones en torch.
#
# - `une(a, b)`: `a` y `b` son tensores `[m, s]`; devuelve el tensor `[m, s]` de los dos juntos.
# - `softmax_en_linea(x, trozo)`: `x` es un tensor de `n` números. Recórrelo en trozos (`x.split(trozo)`), une sus
#   resúmenes y devuelve los `n` pesos.
#
# Un caso que llega de verdad: puntuaciones `−inf`, las de los tokens que no se pueden mirar. El resumen de «nada» es
# `[−inf, 0]`. Si **todo** es `−inf`, no hay a quién mirar: los pesos son ceros. Cuidado con `exp(−inf − (−inf))`, que
# es `nan`.


# %% nbgrader={"grade": false, "grade_id": "softmax_en_linea", "locked": false, "schema_version": 3, "solution": true, "task": false}
def une(a, b):
    """Une dos resúmenes [m, s] (máximo, suma de exponenciales); el de «nada» es [-inf, 0]."""
    ### BEGIN SOLUTION
    m = torch.maximum(a[0], b[0])
    if m == float("-inf"):
        return a
    return torch.stack((m, a[1] * torch.exp(a[0] - m) + b[1] * torch.exp(b[0] - m)))
    ### END SOLUTION


def softmax_en_linea(x, trozo):
    """Los pesos de x, un tensor [n], calculados por trozos de `trozo` números con `une`. Todo -inf: ceros."""
    ### BEGIN SOLUTION
    resumen = torch.tensor([float("-inf"), 0.0])
    for parte in x.split(trozo):
        m = parte.max()
        if m > float("-inf"):
            resumen = une(resumen, torch.stack((m, torch.exp(parte - m).sum())))
    if resumen[1] == 0:
        return torch.zeros_like(x)
    return torch.exp(x - resumen[0]) / resumen[1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_softmax_en_linea", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("softmax_en_linea")

# %% [markdown]
# ### 3.2 Tu primer kernel: softmax por filas
#
# Una matriz en memoria es una fila larga de números. Entre el principio de una fila y el de la siguiente hay un
# **paso** (*stride*), que puede ser mayor que la fila: a menudo se deja relleno al final para que cada fila empiece
# alineada.
#
# ```text
#  n = 3, paso = 4:     a a a · b b b · c c c ·       «·» es relleno: no se lee ni se escribe
#  la fila f empieza en la posición f · paso
# ```
#
# **Tu tarea:** completa `kernel_softmax`. Cada programa calcula **una fila**:
#
# 1. su número de fila es `tl.program_id(0)`; sus columnas, `tl.arange(0, BLOQUE)`, con `BLOQUE` la potencia de dos que
#    cubre `n`;
# 2. lee la fila con máscara; fuera de ella pon `−inf`, que pesa 0;
# 3. resta el máximo (`tl.max(v, 0)`), haz `tl.exp`, divide entre la suma (`tl.sum(v, 0)`);
# 4. escribe con la misma máscara.
#
# Una fila entera de `−inf` da ceros, como en 3.1. En Triton no hay `if` por elemento: `tl.where(condición, a, b)`
# elige.
#
# La función que lo lanza ya está escrita: entre corchetes va la rejilla, aquí un programa por fila.


# %% nbgrader={"grade": false, "grade_id": "softmax_triton", "locked": false, "schema_version": 3, "solution": true, "task": false}
@triton.jit
def kernel_softmax(x, salida, n, paso, BLOQUE: tl.constexpr):
    """Softmax de las n primeras columnas de una fila. x, salida: punteros; paso: de una fila a la siguiente."""
    ### BEGIN SOLUTION
    columna = tl.arange(0, BLOQUE)
    donde = tl.program_id(0) * paso + columna
    v = tl.load(x + donde, mask=columna < n, other=float("-inf"))
    maximo = tl.max(v, 0)
    pesos = tl.exp(v - tl.where(maximo == float("-inf"), 0.0, maximo))
    suma = tl.sum(pesos, 0)
    tl.store(salida + donde, pesos / tl.where(suma == 0.0, 1.0, suma), mask=columna < n)
    ### END SOLUTION


def softmax_filas(x, n):
    """x: [filas, ancho], de las que cuentan n columnas. Devuelve lo mismo, con el relleno sin tocar. (Ya está escrita.)"""
    salida = torch.full_like(x, -7.0)
    kernel_softmax[(x.shape[0],)](x, salida, n, x.stride(0), BLOQUE=triton.next_power_of_2(n))
    return salida


# %% nbgrader={"grade": true, "grade_id": "prueba_softmax_triton", "locked": true, "points": 11, "schema_version": 3, "solution": false, "task": false}
comprobar("softmax_triton")

# %% [markdown]
# Mira qué posiciones toca cada programa de **tu** kernel: el intérprete apunta cada lectura y cada escritura. Las cajas
# con línea de puntos son relleno, y deben quedar vacías.

# %%
matriz = torch.randn(4, 8)
if HAY_TRITON:
    display(ver_accesos(lambda: softmax_filas(matriz, 5), x=matriz))
else:
    print(SIN_TRITON)

# %% [markdown]
# ### 3.3 Recoger páginas
#
# Las claves de una petición están repartidas por los bloques de su tabla. Recogerlas en orden es una lectura
# **indirecta**: primero lees de la tabla en qué bloque está, luego lees el dato.
#
# ```text
#  tabla = [5, 2], bloques de 4:   token 6 → bloque lógico 6 // 4 = 1 → físico 2 → casilla 2 · 4 + 6 % 4 = 10
# ```
#
# Es tu `direccion` del lab 3, para muchos tokens a la vez.
#
# **Tu tarea:** completa `kernel_recoge`. `memoria` es `[bloques, TAM, DIM]` sin relleno, `tabla` son enteros y `salida`
# es `[tokens, DIM]`. Cada programa copia `TOKENS` tokens; los que pasan de `largo` no se leen ni se escriben.
#
# - Un trozo de dos dimensiones se hace con `fila[:, None] * DIM + columna[None, :]`.
# - Lee la tabla **con máscara** (`other=0`): más allá de `largo` dice cualquier cosa.
# - Pasa el bloque a 64 bits antes de multiplicar, con `.to(tl.int64)`. Una caché de verdad tiene más de 2³¹ números y
#   en 32 bits la cuenta daría la vuelta. Ninguna prueba pequeña lo nota.


# %% nbgrader={"grade": false, "grade_id": "recoge", "locked": false, "schema_version": 3, "solution": true, "task": false}
@triton.jit
def kernel_recoge(memoria, tabla, salida, largo, TAM: tl.constexpr, DIM: tl.constexpr, TOKENS: tl.constexpr):
    """Copia en orden los tokens de una secuencia: salida[t] = memoria[tabla[t // TAM], t % TAM], para t < largo."""
    ### BEGIN SOLUTION
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    columna = tl.arange(0, DIM)
    vivo = token < largo
    bloque = tl.load(tabla + token // TAM, mask=vivo, other=0).to(tl.int64)
    casilla = bloque * TAM + token % TAM
    fila = tl.load(memoria + casilla[:, None] * DIM + columna[None, :], mask=vivo[:, None], other=0.0)
    tl.store(salida + token[:, None] * DIM + columna[None, :], fila, mask=vivo[:, None])
    ### END SOLUTION


def recoge(memoria, tabla, largo):
    """memoria: [bloques, TAM, DIM]; tabla: enteros. Devuelve las filas, y centinelas detrás. (Ya está escrita.)"""
    programas = triton.cdiv(largo, 8)
    salida = torch.full((programas * 8, memoria.shape[2]), -7.0, device=memoria.device)
    kernel_recoge[(programas,)](memoria, tabla, salida, largo, TAM=memoria.shape[1], DIM=memoria.shape[2], TOKENS=8)
    return salida


# %% nbgrader={"grade": true, "grade_id": "prueba_recoge", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
comprobar("recoge")

# %%
paginas = torch.arange(6 * 4 * 2, dtype=torch.float32).reshape(6, 4, 2)
if HAY_TRITON:
    tabla = torch.tensor([5, 2, 0], dtype=torch.int32)
    display(ver_accesos(lambda: recoge(paginas, tabla, 10), memoria=paginas.view(6, 8), tabla=tabla))
else:
    print(SIN_TRITON)

# %% [markdown]
# Cada fila de `memoria` es aquí un bloque. Fíjate en la columna «tramos seguidos» de la tabla: en cuántos pedazos está
# repartido lo que toca cada programa. Una GPU lee memoria por líneas; cuanto más largo el tramo, menos se desperdicia.
# Dentro de un bloque todo va seguido: por eso los bloques no son de uno.

# %% [markdown]
# ### 3.4 Atención paginada, en torch y de verdad
#
# Antes del kernel completo, la misma cuenta en torch. Esta pieza **mueve el motor**: en cada capa recibe las consultas
# de todas las peticiones del paso y toda la caché KV de esa capa.
#
# | Argumento | Forma | Qué es |
# |---|---|---|
# | `consultas` | `[T, H, D]` | las de todas las secuencias, una detrás de otra |
# | `claves`, `valores` | `[bloques, tam, G, D]` | la caché KV entera de la capa |
# | `tablas` | lista de listas | los bloques de cada secuencia |
# | `longitudes` | lista | cuántos tokens tiene ya cada secuencia, con los nuevos |
# | `nuevas` | lista | cuántos de ellos son nuevos: los **últimos**, y los únicos con consulta |
# | `escala` | número | multiplica cada producto consulta · clave |
#
# `H` consultas comparten `G` cabezas de claves y valores, en grupos seguidos de `H // G` (lab 1). En prefill `nuevas`
# es el prompt, o un trozo; en decode es 1.
#
# Con una secuencia de 5 tokens y 2 nuevos, las consultas son las de los tokens 3 y 4:
#
# ```text
#  clave →      0  1  2  3  4
#  token 3      ✓  ✓  ✓  ✓  −      nadie mira al futuro
#  token 4      ✓  ✓  ✓  ✓  ✓
# ```
#
# **Tu tarea:** escribe `atencion_paginada`. Por cada secuencia:
#
# 1. junta sus bloques con `claves[tabla].flatten(0, 1)` y **corta** en su longitud: los últimos huecos tienen restos de
#    otra petición;
# 2. repite las cabezas con `repeat_interleave(H // G, 1)`;
# 3. puntúa, tapa el futuro con `−inf`, `softmax`, mezcla. `torch.einsum("qhd,khd->hqk", q, k)` da `[H, nuevas, largo]`;
# 4. guarda el resultado en sus filas de la salida `[T, H, D]`.
#
# Pista: `torch.ones(n, largo, dtype=torch.bool).tril(largo - n)` es exactamente el dibujo de arriba.


# %% nbgrader={"grade": false, "grade_id": "atencion_paginada", "locked": false, "schema_version": 3, "solution": true, "task": false}
def atencion_paginada(consultas, claves, valores, tablas, longitudes, nuevas, escala):
    """Atención causal sobre bloques: [T, H, D] → [T, H, D]. Los argumentos están en la tabla del enunciado."""
    ### BEGIN SOLUTION
    salida, inicio = torch.empty_like(consultas), 0
    grupo = consultas.shape[1] // claves.shape[2]
    for tabla, largo, n in zip(tablas, longitudes, nuevas, strict=True):
        k, v = (x[tabla].flatten(0, 1)[:largo].repeat_interleave(grupo, 1) for x in (claves, valores))
        puntos = torch.einsum("qhd,khd->hqk", consultas[inicio : inicio + n], k) * escala
        visible = torch.ones(n, largo, dtype=torch.bool).tril(largo - n)
        pesos = puntos.masked_fill(~visible, float("-inf")).softmax(-1)
        salida[inicio : inicio + n] = torch.einsum("hqk,khd->qhd", pesos, v)
        inicio += n
    return salida
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_atencion_paginada", "locked": true, "points": 14, "schema_version": 3, "solution": false, "task": false}
comprobar("atencion_paginada")

# %% [markdown]
# En el motor. La referencia usa su atención compilada; lo demás es igual en los dos. Mira primero que los tokens sean
# idénticos: sin eso la velocidad no significa nada.

# %%
resultado = lado_a_lado(modelo, preguntas, {"attention.paged": atencion_paginada}, max_tokens=NUEVOS, veces=VECES)
resultado

# %%
anota("L04", "tu atención en torch", mi_prediccion()["torch"], resultado.ratio, "× la de C++", modelo.nombre)
guarda("attention.paged", "atencion_paginada")

# %% [markdown]
# ### 3.5 El kernel de decode
#
# Ahora todo junto: recorrer las páginas de una petición **de una pasada**, sin guardar puntuaciones. Es el caso del
# decode: una consulta por secuencia. Al resumen `(m, s)` de 3.1 se le suma un tercer dato: `acc`, la mezcla de valores
# que llevamos, sin dividir todavía entre `s`. Cuando el máximo crece, `acc` encoge igual que `s`.
#
# Cada programa calcula **una cabeza de una secuencia**: la rejilla es `(H, secuencias)`. En cada vuelta lee una página.
#
# **Tu tarea:** tres funciones cortas.
#
# - `actualiza(m, s, acc, puntos, v)`: añade una página. `puntos` es `[TAM]` (con `−inf` en lo que no cuenta) y `v`,
#   `[TAM, DIM]`. Devuelve `m, s, acc` nuevos. Cada vuelta tiene al menos un token vivo, así que el máximo nuevo nunca
#   es `−inf`.
# - `lee_pagina(base, bloque, cabeza, cabezas, vivo, TAM, DIM)`: las filas `[TAM, DIM]` de una cabeza de claves (o de
#   valores) en un bloque. La memoria es `[bloques, TAM, cabezas, DIM]`: el hueco `t` de ese bloque y esa cabeza es la
#   fila `(bloque · TAM + t) · cabezas + cabeza`. Donde `vivo` es falso, ceros: **0 · nan es nan**, así que no basta con
#   que el peso sea 0.
# - `kernel_decode`: empieza en `m = −inf`, `s = 0`, `acc = 0`; recorre las páginas de `largos[secuencia]` tokens; al
#   final escribe `acc / s`. Una secuencia de 0 tokens da ceros.
#
# `TAM` y `DIM` son potencias de dos. La cabeza `h` usa la cabeza de claves `h // GRUPO`.


# %% nbgrader={"grade": false, "grade_id": "decode_triton", "locked": false, "schema_version": 3, "solution": true, "task": false}
@triton.jit
def actualiza(m, s, acc, puntos, v):
    """Añade una página al resumen: puntos [TAM], v [TAM, DIM]; m y s son números, acc es [DIM]."""
    ### BEGIN SOLUTION
    m_nuevo = tl.maximum(m, tl.max(puntos, 0))
    encoge = tl.exp(m - m_nuevo)
    pesos = tl.exp(puntos - m_nuevo)
    return m_nuevo, s * encoge + tl.sum(pesos, 0), acc * encoge + tl.sum(pesos[:, None] * v, 0)
    ### END SOLUTION


@triton.jit
def lee_pagina(base, bloque, cabeza, cabezas, vivo, TAM: tl.constexpr, DIM: tl.constexpr):
    """Las filas [TAM, DIM] de una cabeza en un bloque; ceros donde vivo [TAM] es falso."""
    ### BEGIN SOLUTION
    fila = (bloque * TAM + tl.arange(0, TAM)) * cabezas + cabeza
    return tl.load(base + fila[:, None] * DIM + tl.arange(0, DIM)[None, :], mask=vivo[:, None], other=0.0)
    ### END SOLUTION


@triton.jit
def kernel_decode(
    q, claves, valores, tablas, largos, salida, escala, paso_tabla,
    GRUPO: tl.constexpr, TAM: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """Una consulta por secuencia. q, salida: [secuencias, H, DIM]; tablas: [secuencias, paso_tabla] enteros."""
    ### BEGIN SOLUTION
    cabeza, secuencia, cabezas = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    donde = (secuencia * cabezas + cabeza) * DIM + tl.arange(0, DIM)
    consulta = tl.load(q + donde) * escala
    largo = tl.load(largos + secuencia)
    m, s = tl.full((), float("-inf"), tl.float32), tl.zeros((), tl.float32)
    acc = tl.zeros((DIM,), tl.float32)
    for pagina in range(0, tl.cdiv(largo, TAM)):
        bloque = tl.load(tablas + secuencia * paso_tabla + pagina).to(tl.int64)
        vivo = pagina * TAM + tl.arange(0, TAM) < largo
        k = lee_pagina(claves, bloque, cabeza // GRUPO, cabezas // GRUPO, vivo, TAM, DIM)
        v = lee_pagina(valores, bloque, cabeza // GRUPO, cabezas // GRUPO, vivo, TAM, DIM)
        puntos = tl.where(vivo, tl.sum(k * consulta[None, :], 1), float("-inf"))
        m, s, acc = actualiza(m, s, acc, puntos, v)
    tl.store(salida + donde, acc / tl.where(s == 0.0, 1.0, s))
    ### END SOLUTION


def decode_paginado(consultas, claves, valores, tablas, largos, escala):
    """consultas: [secuencias, H, D]; claves, valores: [bloques, TAM, G, D]; tablas y largos, int32. (Ya está escrita.)"""
    secuencias, cabezas, dim = consultas.shape
    salida = torch.full((secuencias, cabezas, dim), -7.0, device=consultas.device)
    kernel_decode[(cabezas, secuencias)](
        consultas.contiguous(), claves, valores, tablas, largos, salida, escala, tablas.stride(0),
        GRUPO=cabezas // claves.shape[2], TAM=claves.shape[1], DIM=dim,
    )  # fmt: skip
    return salida


# %% nbgrader={"grade": true, "grade_id": "prueba_decode_triton", "locked": true, "points": 16, "schema_version": 3, "solution": false, "task": false}
comprobar("decode_triton")

# %% [markdown]
# **Tu kernel, en el motor.** El prefill lo hace tu atención en torch; cada paso de decode, tu kernel, en todas las
# capas y cabezas. El intérprete es lentísimo, así que bastan dos tokens: lo que se comprueba es que son **los mismos**.


# %%
def atencion_mixta(consultas, claves, valores, tablas, longitudes, nuevas, escala):
    """Decode con tu kernel de Triton; lo demás, con tu atención en torch."""
    if any(n != 1 for n in nuevas):
        return atencion_paginada(consultas, claves, valores, tablas, longitudes, nuevas, escala)
    ancho = max(len(tabla) for tabla in tablas)
    rectas = torch.tensor([tabla + [0] * (ancho - len(tabla)) for tabla in tablas], dtype=torch.int32)
    return decode_paginado(consultas, claves, valores, rectas, torch.tensor(longitudes, dtype=torch.int32), escala)


pocos = SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True)
if HAY_TRITON:
    respuestas = []
    for piezas in ({"attention.paged": atencion_mixta}, {}):
        with LLM(modelo.carpeta, seams=con(piezas)) as llm:
            respuestas.append(llm.generate("The capital of France is", pocos)[0].outputs[0])
    iguales = respuestas[0].token_ids == respuestas[1].token_ids
    print(f"con tu kernel: {respuestas[0].text!r} · de referencia: {respuestas[1].text!r} · iguales: {iguales}")
else:
    print(SIN_TRITON)

# %% [markdown]
# ¿Quieres más? El paquete `minillm_kernels.puzzles` trae diez ejercicios de Triton, de sumar dos vectores a la atención
# paginada con el trabajo de una secuencia repartido entre varios programas (*split-K*). Cada uno trae enunciado, un
# juez que reconoce los errores conocidos y una valla de `nan` alrededor de cada tensor. Empieza por `python -m
# minillm_kernels.puzzles`.

# %% [markdown] tags=["cubre-A-metricas"]
# ### 3.6 ¿Memoria o cálculo? El roofline
#
# Una máquina hace como mucho `tflops` billones de operaciones por segundo y lee como mucho `gb_s` miles de millones de
# bytes por segundo. Un kernel hace cierto número de operaciones **por cada byte que lee**: su **intensidad aritmética**
# (FLOP por byte). Su velocidad no puede pasar de
#
# ```text
#  techo = el menor de:   pico de cálculo        y      intensidad · ancho de banda
#                         (línea horizontal)            (línea inclinada)
# ```
#
# Dibujado parece un tejado (*roofline*; Williams y otros, 2009). A la izquierda de la esquina manda la memoria; a la
# derecha, el cálculo.
#
# En un paso de decode con `lote` peticiones, cada una con `contexto` tokens en la caché KV:
#
# | Qué | Cuánto |
# |---|---|
# | operaciones de los pesos | 2 por parámetro y petición (multiplicar y sumar) |
# | operaciones de la atención | 4 · capas · cabezas · `dim` por token de contexto y petición |
# | bytes de los pesos | `bytes_peso` por parámetro, **una vez para todo el lote** |
# | bytes de la caché KV | 2 · capas · cabezas_kv · `dim` · `bytes_kv` por token de contexto y petición |
#
# **Tu tarea:** escribe `intensidad(lote, contexto, forma)`, en FLOP por byte, y `techo(intensidad, tflops, gb_s)`, en
# **GFLOP/s**. `forma` es un diccionario con `parametros`, `capas`, `cabezas`, `cabezas_kv`, `dim`, `bytes_peso` y
# `bytes_kv`.


# %% nbgrader={"grade": false, "grade_id": "roofline", "locked": false, "schema_version": 3, "solution": true, "task": false}
def intensidad(lote, contexto, forma):
    """FLOP por byte leído en un paso de decode."""
    ### BEGIN SOLUTION
    cabeza = forma["capas"] * forma["dim"] * contexto
    flop = lote * (2 * forma["parametros"] + 4 * cabeza * forma["cabezas"])
    leidos = forma["parametros"] * forma["bytes_peso"] + lote * 2 * cabeza * forma["cabezas_kv"] * forma["bytes_kv"]
    return flop / leidos
    ### END SOLUTION


def techo(intensidad, tflops, gb_s):
    """GFLOP/s que se pueden alcanzar como mucho con esa intensidad."""
    ### BEGIN SOLUTION
    return min(tflops * 1000, intensidad * gb_s)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_roofline", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
comprobar("roofline")

# %%
grande, h100 = forma_de("Llama 3.1 8B"), gpu("H100 SXM")
LLAMA = {
    "parametros": grande.parametros,
    "capas": grande.capas,
    "cabezas": grande.cabezas,
    "cabezas_kv": grande.cabezas_kv,
    "dim": grande.dim_cabeza,
    "bytes_peso": 2,
    "bytes_kv": 2,
}


def limitado_por_memoria(lote, contexto):
    return techo(intensidad(lote, contexto, LLAMA), h100.tflops, h100.gb_s) < h100.tflops * 1000


for contexto in (1, 512, 8192):
    filas = {lote: intensidad(lote, contexto, LLAMA) for lote in (1, 8, 64, 512)}
    print(f"contexto {contexto:5}, FLOP/byte: " + " · ".join(f"lote {n}, {cifra(i, 1)}" for n, i in filas.items()))
frontera = next(lote for lote in range(1, 4096) if not limitado_por_memoria(lote, 1))
anota("L04", "lote en que manda el cálculo", mi_prediccion()["lote"], frontera, "peticiones", modelo.nombre)
print(f"predijiste {cifra(mi_prediccion()['lote'])}; con contexto 1, deja de mandar la memoria en el lote {frontera}")

# %% [markdown]
# Compara la primera fila con la última. Con contexto largo, agrandar el lote **casi no sube la intensidad**: los pesos
# se comparten entre peticiones; la caché KV, no. Cada petición lee la suya. Ahí un lote mayor ya no ayuda, y ayudan
# leer menos bytes por token (caché KV en 8 bits) o que más cabezas compartan claves.

# %% [markdown] tags=["cubre-E-motores"]
# ### 3.7 Fundir kernels
#
# Entre dos capas el modelo hace dos cosas muy baratas: sumar (`t = x + r`) y normalizar (`y = norma(t) · w`). Como
# kernels separados:
#
# ```text
#  suma:      lee x, r         escribe t
#  norma:     lee t, w         escribe y          t se acaba de escribir y se vuelve a leer
#  fundidos:  lee x, r, w      escribe t, y       t no sale del chip para volver
# ```
#
# `t` hay que escribirlo, porque lo necesita la capa siguiente; lo que sobra es **releerlo**. Además se lanza un kernel
# en vez de dos. Eso hace, de forma automática y en muchos sitios, TensorRT-LLM, y también lo hacen a mano vLLM y
# nuestro motor. Que un motor «funda kernels» es una ventaja real, pero acotada, y la acotas tú contando bytes.
#
# **Tu tarea:** un kernel se describe con `{"lee": [nombres], "escribe": [nombres]}`.
#
# - `bytes_movidos(kernels, tamanos)`: la suma de los tamaños de todo lo que leen y escriben.
# - `fusiona(kernels, utiles)`: **un** kernel que hace lo mismo que esa lista, en ese orden. Lee lo que algún kernel lee
#   y ningún kernel **anterior** ha escrito; escribe lo que se escribe y está en `utiles`, los nombres que alguien
#   necesita después. Sin repetir nombres, en el orden en que aparecen.


# %% nbgrader={"grade": false, "grade_id": "fusion", "locked": false, "schema_version": 3, "solution": true, "task": false}
def bytes_movidos(kernels, tamanos):
    """Bytes que leen y escriben esos kernels; tamanos: nombre → bytes."""
    ### BEGIN SOLUTION
    return sum(tamanos[nombre] for kernel in kernels for nombre in [*kernel["lee"], *kernel["escribe"]])
    ### END SOLUTION


def fusiona(kernels, utiles):
    """El kernel {"lee": […], "escribe": […]} que equivale a todos, uno detrás de otro."""
    ### BEGIN SOLUTION
    lee, escrito = [], []
    for kernel in kernels:
        lee += [n for n in kernel["lee"] if n not in escrito]
        escrito += kernel["escribe"]
    salen = [n for n in escrito if n in utiles]
    return {"lee": list(dict.fromkeys(lee)), "escribe": list(dict.fromkeys(salen))}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_fusion", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
comprobar("fusion")

# %%
FILAS, ANCHO = (2048, 2048) if modelo.rapido else (8192, 2048)
suma, norma = {"lee": ["x", "r"], "escribe": ["t"]}, {"lee": ["t", "w"], "escribe": ["y"]}
tamanos = {nombre: 4 * FILAS * ANCHO for nombre in "xrty"} | {"w": 4 * ANCHO}
separados, juntos = [suma, norma], [fusiona([suma, norma], ["t", "y"])]
previsto = bytes_movidos(separados, tamanos) / bytes_movidos(juntos, tamanos)
x, r, w = torch.randn(FILAS, ANCHO), torch.randn(FILAS, ANCHO), torch.ones(ANCHO)
ops = resolve("auto")
dos = mide(lambda: ops.rms_norm(x + r, w, 1e-5), veces=5)
uno = mide(lambda: ops.add_rms_norm(x, r, w, 1e-5), veces=5)
print(f"bytes: {cifra(previsto, 2)} veces más por separado")
print(f"aquí, con las operaciones de nuestro motor: {dos} por separado, {uno} juntas")
print(f"en tiempo: {cifra(dos.mediana / uno.mediana, 2)} veces más por separado")
fusion_grabada()

# %% [markdown]
# En la GPU grabada mira los dos extremos. Con **pocas** filas la ganancia es mucho mayor que la de los bytes: lo que se
# ahorra es un lanzamiento. Con **muchas**, la ganancia se acerca a la cuenta de los bytes. La base también importa: ahí
# se compara con dos llamadas de torch.

# %% [markdown]
# ## 4 · Mira
#
# El roofline, con controles. Mueve **lote** y mira subir el punto del decode por la cuesta; sube el **contexto** y mira
# cómo se queda. El prefill no se mueve: muchos tokens comparten cada lectura de pesos aunque haya una sola petición.
# (Sus cifras salen algo menores que las tuyas: descuenta la tabla de entrada, que se consulta y no se multiplica.)

# %%
ver_roofline("H100 SXM", "Llama 3.1 8B")

# %% [markdown]
# El tuyo: se miden ahora los límites de este equipo, con el modelo de este cuaderno y 32 bits por número. El rombo es
# lo que tu atención alcanzó de verdad en una llamada de decode de ocho secuencias.

# %%
limites = measure_limits()
aqui = Techo("este equipo", limites.fp32_gflop_s / 1000, limites.read_gb_s)
LOTE, CONTEXTO, CABEZAS, GRUPOS, DIM = 8, 512, 9, 3, 64
caches = [torch.randn(LOTE * CONTEXTO // 16, 16, GRUPOS, DIM) for _ in "kv"]
tablas = [list(range(i * CONTEXTO // 16, (i + 1) * CONTEXTO // 16)) for i in range(LOTE)]
consultas = torch.randn(LOTE, CABEZAS, DIM)
llamada = (consultas, *caches, tablas, [CONTEXTO] * LOTE, [1] * LOTE, DIM**-0.5)
tarda = mide(lambda: atencion_paginada(*llamada), veces=5)
flop, leidos = 4 * LOTE * CONTEXTO * CABEZAS * DIM, 2 * 4 * LOTE * CONTEXTO * GRUPOS * DIM
mio = Punto("tu atención en torch", flop / leidos, flop / tarda.mediana / 1e9)
print(f"este equipo: {cifra(limites.read_gb_s, 1)} GB/s leyendo, {cifra(limites.fp32_gflop_s)} GFLOP/s en 32 bits")
print(f"tu atención: {tarda}, {cifra(leidos / tarda.mediana / 1e9, 2)} GB/s útiles")
ver_roofline(aqui, "SmolLM2 135M", bits=32, medidos=[mio])

# %% [markdown]
# ## 5 · Compara
#
# ### 5.1 Con torch
#
# `scaled_dot_product_attention` (SDPA) es la atención de torch. No sabe de bloques: necesita las claves seguidas, y
# aquí se las damos ya recogidas, fuera del reloj. Tampoco hace falta repetirlas: en decode hay una consulta por cabeza,
# así que las que comparten cabeza de claves se le dan juntas, como si fueran varias consultas. Las dos hacen la misma
# cuenta. Recoger, repetir y dar una vuelta de Python por secuencia es lo que tú pagas de más; un kernel paginado lee
# los bloques en su sitio.

# %%
k, v = (cache.reshape(LOTE, CONTEXTO, GRUPOS, DIM).transpose(1, 2) for cache in caches)
k, v = k.contiguous(), v.contiguous()
juntas = consultas.unflatten(1, (GRUPOS, -1))  # [secuencias, G, H / G, D]
sdpa = torch.nn.functional.scaled_dot_product_attention
seguida = mide(lambda: sdpa(juntas, k, v), veces=5)
diferencia = (sdpa(juntas, k, v).flatten(1, 2) - atencion_paginada(*llamada)).abs().max()
print(f"tuya, por bloques: {tarda} · SDPA, seguida: {seguida}")
print(f"mayor diferencia: {cifra(1e6 * diferencia.item(), 2)} millonésimas")

# %% [markdown]
# ### 5.2 En una GPU
#
# Las mismas cuentas con los kernels de Triton de nuestro motor, grabadas en una H100. Son cifras **grabadas**: la
# última línea dice de qué archivo, equipo y día. El caso del decode se lee «secuencias × tokens de contexto de cada
# una».

# %%
kernels_grabados("decode attention", "prefill attention")

# %%
compara("gpu", modelo)

# %% [markdown]
# ¿Tienes una GPU de NVIDIA? La celda compila **tus** kernels para ella, en otro proceso, y los compara con SDPA, que
# recibe otra vez las claves seguidas y las consultas juntas. Los GB/s cuentan cada clave y cada valor una sola vez; tu
# kernel las pide una vez por cabeza.

# %%
en_gpu(actualiza, lee_pagina, kernel_decode, decode_paginado)

# %% [markdown] tags=["cubre-D-kernels"]
# ### 5.3 FlashAttention, FlashInfer y los grafos CUDA
#
# Tres nombres que verás en la presentación de cualquier motor. Ya tienes con qué leerlos:
#
# - **FlashAttention** es el softmax en línea de 3.1 dentro de un kernel, como en 3.5. Da el mismo resultado que la
#   atención de siempre: no es una aproximación. Gana porque no escribe la tabla de puntuaciones.
# - **FlashInfer** es una biblioteca de kernels de atención para servir: páginas, prefijos compartidos, lotes de
#   longitudes distintas. Lo que has escrito en 3.5 es su caso más sencillo. vLLM puede usar uno u otro.
# - **Grafos CUDA** (en AMD, HIP): la CPU tarda unos microsegundos en **lanzar** cada kernel, y un paso de decode lanza
#   cientos. Un grafo graba la lista una vez y la repite con una sola orden. No acelera ningún kernel: quita la espera
#   entre uno y otro. Exige que nada cambie de forma entre repeticiones, y por eso los motores graban uno por tamaño de
#   lote.
#
# ¿Cuándo importa el grafo? Cuando los kernels son cortos: modelos pequeños y lotes pequeños. La celda divide, en
# nuestro motor, el tiempo que la CPU dedica a mandar el paso entre los kernels que lanza, con grafo y sin él. Sin grafo
# la cifra es mayor que un lanzamiento: entre kernel y kernel corre también el Python del motor, y el grafo se ahorra
# las dos cosas.

# %%
lanzamientos_grabados()

# %% [markdown]
# ## 6 · Rompe
#
# ### 6.1 Softmax sin restar el máximo
#
# «Matemáticamente es lo mismo.» En papel, sí. En 32 bits `exp(89)` ya es infinito:

# %%
for mayor in (10.0, 80.0, 100.0):
    puntos = torch.tensor([mayor, mayor - 1, 0.0])
    a_pelo = puntos.exp() / puntos.exp().sum()
    sin, bien = (" ".join(cifra(p, 3) for p in pesos.tolist()) for pesos in (a_pelo, softmax_en_linea(puntos, 2)))
    print(f"máximo {mayor:3.0f}: sin restar, {sin} · bien, {bien}")

# %% [markdown]
# **Diagnóstico:** `nan` en la salida. Lo peligroso es que con puntuaciones pequeñas, las de casi todas las pruebas,
# funciona.
#
# ### 6.2 Sin máscara y con el paso equivocado
#
# Dos versiones rotas del kernel de 3.2. La primera lee las `BLOQUE` columnas sin máscara; la segunda cree que las filas
# están pegadas. El relleno vale 0, como en mucha memoria recién pedida.


# %%
@triton.jit
def kernel_sin_mascara(x, salida, n, paso, BLOQUE: tl.constexpr):
    columna = tl.arange(0, BLOQUE)
    v = tl.load(x + tl.program_id(0) * paso + columna)
    pesos = tl.exp(v - tl.max(v, 0))
    tl.store(salida + tl.program_id(0) * paso + columna, pesos / tl.sum(pesos, 0), mask=columna < n)


filas = torch.zeros(3, 8)
filas[:, :5] = torch.tensor([[1.0, 2, 3, 4, 5], [0, 0, 0, 0, 9], [2, 2, 2, 2, 2]])


def con_mascara_y_paso(paso):
    salida = torch.full_like(filas, CENTINELA)
    kernel_softmax[(3,)](filas, salida, 5, paso, BLOQUE=8)
    return salida


def sin_mascara():
    salida = torch.full_like(filas, CENTINELA)
    kernel_sin_mascara[(3,)](filas, salida, 5, 8, BLOQUE=8)
    return salida


if HAY_TRITON:
    variantes = {
        "bien": con_mascara_y_paso(8),
        "sin máscara": sin_mascara(),
        "paso 5 en vez de 8": con_mascara_y_paso(5),
    }
    bien = filas[:, :5].softmax(1)
    for nombre, salida in variantes.items():
        sumas, errores = salida[:, :5].sum(1), (salida[:, :5] - bien).abs().amax(1)
        vistas = (" ".join(f"{cifra(n, 3):>6}" for n in numeros.tolist()) for numeros in (sumas, errores))
        print(f"{nombre:19} suma de cada fila: {next(vistas)} · mayor error: {next(vistas)}")
    display(ver_accesos(lambda: con_mascara_y_paso(5), x=filas))
else:
    print(SIN_TRITON)

# %% [markdown]
# **Diagnóstico.** Sin máscara, los pesos no suman 1: el relleno se ha llevado una parte. Y el error depende de los
# datos: en la fila del 9 casi no se nota. Con el paso equivocado, la **primera fila sale bien** y las demás no (la suma
# negativa es de centinelas: nadie escribió esa fila): si tu prueba solo mira la primera, o usa filas sin relleno, pasa.
# El mapa de accesos lo enseña de un vistazo.
#
# ### 6.3 Dos descuidos en el motor de verdad
#
# La misma atención que enchufaste en 3.4 con una línea menos. `mira_al_futuro` no tapa el futuro; `sin_cortar` no corta
# en la longitud y lee los huecos del último bloque. ¿Cuál crees que se nota antes?


# %%
def mira_al_futuro(consultas, claves, valores, tablas, longitudes, nuevas, escala):
    """Sin máscara causal: cada token del prompt ve también los que vienen detrás."""
    salidas, inicio = [], 0
    for tabla, largo, n in zip(tablas, longitudes, nuevas, strict=True):
        una_a_una = [consultas[i : i + 1] for i in range(inicio, inicio + n)]
        salidas += [atencion_paginada(q, claves, valores, [tabla], [largo], [1], escala) for q in una_a_una]
        inicio += n
    return torch.cat(salidas)


def sin_cortar(consultas, claves, valores, tablas, longitudes, nuevas, escala):
    """En decode mira el último bloque entero, también los huecos que nadie de esta petición ha escrito."""
    enteras = [
        len(t) * claves.shape[1] if n == 1 else largo for t, largo, n in zip(tablas, longitudes, nuevas, strict=True)
    ]
    return atencion_paginada(consultas, claves, valores, tablas, enteras, nuevas, escala)


def textos_con(pieza, antes=()):
    """Sirve tres preguntas con esa atención; antes, otras peticiones dejan sus restos en los bloques."""
    parametros = SamplingParams(max_tokens=NUEVOS, temperature=0.0, ignore_eos=True)
    with LLM(
        modelo.carpeta, seams=con({"attention.paged": pieza}), num_kv_blocks=64, enable_prefix_caching=False
    ) as llm:
        for otras in (antes, preguntas[:3]):
            charlas = [[{"role": "user", "content": texto}] for texto in otras]
            salidas = llm.chat(charlas, parametros) if charlas else []
    return [salida.outputs[0].text for salida in salidas]


largas = [30 * "red blue green " for _ in range(3)] if modelo.real else [10 * "abcdefgh" for _ in range(3)]
for nombre, pieza, antes in (
    ("mira al futuro", mira_al_futuro, ()),
    ("sin cortar, memoria sin estrenar", sin_cortar, ()),
    ("sin cortar, tras otras peticiones", sin_cortar, largas),
):
    textos = textos_con(pieza, antes)
    buenos = sum(a == b for a, b in zip(textos, resultado.referencia.textos, strict=False))
    print(f"{nombre}: {buenos} de {len(textos)} textos correctos; el primero: {textos[0]!r}")

# %% [markdown]
# **Diagnóstico.** `mira_al_futuro` estropea el prompt entero: en el entrenamiento ningún token vio lo que venía detrás.
# `sin_cortar` es peor, porque puede parecer correcto: los huecos del último bloque tienen ceros, que quitan un poco de
# peso a los demás, o **restos de otra petición**. El resultado depende de quién usó antes ese bloque. Por eso las
# comprobaciones de este lab llenan de `nan` todo lo que no es tuyo.

# %% [markdown]
# ## 7 · Explica
#
# Responde en la celda siguiente con tus números delante (18 puntos, los lee tu docente):
#
# 1. ¿En qué se equivocó tu predicción de `lote`, y por qué con contextos de 8192 tokens el decode sigue limitado por la
#    memoria aunque el lote sea enorme? (6)
# 2. Tu kernel de 3.5 no guarda nunca las puntuaciones. Con `H` cabezas y un contexto de `c` tokens, ¿cuántos números se
#    ahorra escribir y releer por petición y capa? ¿Por qué el resultado es el mismo? (6)
# 3. Una compañera prueba su kernel de softmax con filas de 64 números, sin relleno y entre −1 y 1. Pasa. Nombra tres
#    errores que esa prueba no puede ver y, para cada uno, el dato que lo enseñaría. (6)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explica", "locked": false, "points": 18, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
#
# 1. Respuesta abierta en la primera parte: se valora compararla con la frontera calculada y dar la causa (la intensidad
#    con contexto corto es casi igual al lote, y la esquina del tejado es el pico entre el ancho de banda). Con contexto
#    largo, los bytes los pone la caché KV, que crece con el lote igual que las operaciones: la intensidad tiende a las
#    operaciones de una petición entre los bytes de su caché KV, un número que no depende del lote y queda muy a la
#    izquierda de la esquina.
# 2. H · c puntuaciones que se escriben y se leen para el softmax, y otros H · c pesos que se escriben y se leen para
#    mezclar. El resultado es el mismo porque `(m, s, acc)` basta: al crecer el máximo, lo acumulado se multiplica por
#    exp(m viejo − m nuevo), que es exactamente lo que habría salido restando el máximo final desde el principio.
# 3. Tres de estos: la máscara (64 es potencia de dos: un n como 50), el paso (filas con relleno), no restar el máximo
#    (valores de 100), filas enteras de −inf, escribir fuera (centinelas o nan alrededor), más de una fila si solo se
#    mira la primera.
#
# ### END SOLUTION

# %% [markdown]
# ## 8 · Autoevaluación
#
# Piensa tu respuesta y abre cada opción.
#
# **A. Un kernel lee fuera de su tensor. ¿Qué ocurre?**
#
# <details><summary>Triton lanza un error de índice</summary>No. Un puntero no conoce su tensor. En torch habría error; en
# un kernel no.</details>
# <details><summary>Lee lo que haya ahí, y puede no notarse</summary>Correcto. A veces es un cero y el resultado parece
# bueno. Solo la máscara lo impide.</details>
# <details><summary>Lee siempre ceros</summary>No. `other=0.0` da ceros donde la máscara es falsa; sin máscara no hay
# promesa ninguna.</details>
#
# **B. Quieres acelerar el decode de una sola petición con contexto corto. ¿Qué ayuda más?**
#
# <details><summary>Una GPU con el doble de TFLOP/s y el mismo ancho de banda</summary>No. Con lote 1 manda la memoria:
# las unidades de cálculo ya esperan.</details>
# <details><summary>Pesos de 8 bits en vez de 16</summary>Correcto. La mitad de bytes por paso, y los bytes son lo que se
# paga (lab 6).</details>
# <details><summary>Un kernel de atención más rápido</summary>Poco. Con contexto corto casi todo lo que se lee son
# pesos.</details>
#
# **C. ¿Por qué hay que anular los valores de los huecos muertos si su peso ya es 0?**
#
# <details><summary>Porque 0 · nan es nan</summary>Correcto. La memoria que nadie escribió puede tener cualquier cosa,
# también `nan`.</details>
# <details><summary>Porque el peso no es exactamente 0</summary>No. `exp(−inf)` es exactamente 0.</details>
# <details><summary>No hace falta</summary>No falla mientras ahí haya números normales. Un `nan` en un solo hueco contamina
# la fila entera.</details>
#
# **D. Tu GPU grande sirve un modelo de 0,6 mil millones a una sola persona, y va muy por debajo del roofline. ¿Qué
# mirarías primero?**
#
# <details><summary>Los lanzamientos: kernels cortísimos y la CPU sin dar abasto</summary>Correcto. Es el caso de los
# grafos CUDA y de fundir kernels.</details>
# <details><summary>El ancho de banda de la memoria</summary>No es lo primero: el roofline ya lo cuenta, y estás por
# debajo.</details>
# <details><summary>La fragmentación de la caché KV</summary>No. Limita cuántas peticiones caben, no lo que tarda
# una.</details>
