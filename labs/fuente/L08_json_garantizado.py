# %% [markdown] tags=["corta", "cubre-B-objetivo"]
# # Lab 8 · Salida estructurada: JSON garantizado
#
# Una persona lee una respuesta; un programa la descompone en campos. Si pides a un modelo los datos de un pedido y contesta
# «¡Claro! Aquí tienes el JSON…», el programa se rompe. La clase promete cinco cosas (levantar un servidor, hablarle con el cliente de
# OpenAI, batching continuo, modelos cuantizados y **salida estructurada**); este laboratorio construye la quinta desde
# dentro: el motor que **no puede** escribir un JSON inválido, y los cuatro casos en los que eso no basta.
#
# **Al terminar puedes…**
#
# | Resultado de aprendizaje | Comprobación |
# |---|---|
# | recorrer un autómata y escribir uno a mano | `recorre` |
# | pasar de letras a tokens: qué tokens pueden venir | `permitidos` |
# | anular el resto en los logits y medir cuánta probabilidad quitas | `aplica_mascara` |
# | convertir un esquema en un autómata | `constructores` |
# | mover el motor real con tu máscara | `mascara_l08` |
# | juzgar una respuesta con rigor y acotar un esquema sin fin | `valida` |
# | pedir una llamada a función y leerla sin fiarte de ella | `herramienta` |
# | explicar por qué válido no es lo mismo que correcto | `explica` |
#
# **Tiempo:** 120 minutos. **Pista corta:** 20 minutos (las celdas con la etiqueta `corta`).
# **Puntos:** 100 (85 automáticos y 15 que lee tu docente).
#
# > El modelo es pequeño (SmolLM2, 135 millones de parámetros) y responde mejor en inglés: por eso los prompts están en
# > inglés. Aquí se estudia el motor, no el ingenio del modelo.

# %% [markdown] tags=["corta"]
# ## Preparación
#
# Ejecuta la celda y lee qué modelo te toca. Con el «modelo diminuto» todo funciona igual, pero las velocidades y los
# textos no significan nada.

# %% nbgrader={"grade": false, "grade_id": "preparacion", "locked": true, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import torch
from openai import BadRequestError, OpenAI

from minilab.bancos.guiado import MotorAbierto, mascaras_grabadas
from minilab.bitacora import anota
from minilab.comparar import compara
from minilab.comprobar import comprobar
from minilab.cronometro import mide
from minilab.cuaderno import prepara
from minilab.motor import lado_a_lado
from minilab.piezas import guarda
from minilab.servidor import Servidor
from minilab.vistas.cifras import cifra, porcentaje
from minilab.widgets import ver_mascara
from minillm_serve import SamplingParams
from minillm_serve.bench.prompts import guided_cases
from minillm_serve.params import StructuredOutputsParams

modelo = prepara("L08")
casos = guided_cases(5 if modelo.rapido else 20)
TOKENS = 128 if modelo.rapido else 256
print(f"{len(casos)} preguntas con esquema; hay {len({c.name for c in casos})} esquemas distintos.")

# %% [markdown] tags=["corta"]
# ## 1 · Idea
#
# Hay tres maneras de obtener JSON de un modelo:
#
# | Manera | Qué pasa cuando falla |
# |---|---|
# | pedirlo con buenas palabras | te enteras cuando `json.loads` falla |
# | reintentar, o recortar y reparar el texto | pagas cada intento entero, y puede fallar siempre |
# | **impedir** que salga otra cosa | no falla: el token que rompería el texto no se puede elegir |
#
# La tercera vive dentro del motor. En cada paso el modelo da una puntuación, un **logit**, a cada token de su
# vocabulario; *softmax* convierte los logits en probabilidades y se elige uno. Entre medias cabe una pieza más, la
# **máscara**: la lista de tokens que pueden venir. A los demás se les pone −∞, y su probabilidad es exactamente 0.
#
# Con números pequeños. El texto va por `{"ok":` y el esquema pide `true` o `false`:
#
# | token | `Sure` | `true` | `"yes"` | `fal` | `123` |
# |---|---|---|---|---|---|
# | probabilidad según el modelo | 0,50 | 0,20 | 0,20 | 0,05 | 0,05 |
# | ¿puede venir? | no | sí | no | sí (después, `se`) | no |
# | probabilidad con la máscara | 0 | **0,80** | 0 | **0,20** | 0 |
#
# La máscara ha quitado el 75 % de la probabilidad y ha repartido el resto **en la misma proporción**: 0,20 y 0,05 siguen
# siendo 4 a 1. Entre lo permitido decide el modelo.
#
# ¿Y quién sabe qué puede venir? Un **autómata**: un puñado de estados y, en cada uno, las letras que se admiten y el
# estado al que llevan. El camino completo, que es el de este cuaderno:
#
# ```text
# esquema ──→ autómata ──→ tokens permitidos ──→ máscara sobre los logits ──→ token
#   3.4         3.1              3.2                       3.3                 3.5
# ```

# %% [markdown] tags=["corta"]
# ## 2 · Predice
#
# Antes de medir, escribe tus números:
#
# - `validas_pct`: si pides JSON **solo con palabras** («…as JSON»), ¿qué porcentaje de las respuestas cumplirá su
#   esquema? De 0 a 100.
# - `velocidad`: el motor con **tu** máscara, en Python, ¿a qué parte de la velocidad del motor con la suya llegará?
#   1 es la misma; 0,5, la mitad.


# %% nbgrader={"grade": false, "grade_id": "prediccion", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
def mi_prediccion():
    """Devuelve {"validas_pct": de 0 a 100, "velocidad": número mayor que 0}."""
    ### BEGIN SOLUTION
    return {"validas_pct": 20.0, "velocidad": 0.5}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_prediccion", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("prediccion_l08")

# %% [markdown] tags=["corta"]
# ## 3 · Construye
#
# ### 3.1 Un autómata a mano
#
# Quieres que la respuesta sea un entero del 0 al 99, sin ceros a la izquierda: `0`, `7`, `42`; no `007`, ni `-1`, ni
# «unos 40». Este autómata lo dice:
#
# ```text
#              0
#    inicio ───────→ (cero)                    ( ) = estado final: aquí el texto
#       │                                            ya está completo
#       │ 1…9              0…9
#       └────────→ (una) ───────→ (dos)
# ```
#
# Desde `inicio`, un 0 lleva a `cero`, de donde no sale nada: `007` se atasca. Con `4` se llega a `una`, que es **final**
# (4 es un entero) y **además** puede seguir: `42`. Un texto es correcto si se recorre entero y se acaba en un estado
# final.
#
# En Python, un autómata será un diccionario. Los estados son cadenas:
#
# ```python
# {"inicio": "inicio",
#  "finales": ["cero", "una", "dos"],
#  "pasos": {"inicio": {"0": "cero", "1": "una", "2": "una", …},
#            "una": {"0": "dos", "1": "dos", …}}}
# ```
#
# Dentro de una cadena JSON cabe casi cualquier letra: en lugar de escribirlas todas, el paso `"cualquiera"` vale para toda
# letra que puede ir entre comillas y **no tiene paso propio**. Quedan fuera las comillas, la barra invertida y los
# caracteres de control. `siguiente` ya lo tiene en cuenta.
#
# **Tu tarea**, en la celda siguiente:
#
# - `recorre(automata, estado, texto)`: el estado al que lleva `texto` desde `estado`, o `None` en cuanto una letra no puede
#   venir. El texto vacío no se mueve del sitio.
# - `automata_mes()`: un autómata para el número de un mes, de `1` a `12`. Dibújalo antes: el `1` ya es un mes y además
#   puede seguir.


# %% nbgrader={"grade": false, "grade_id": "recorre", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
CUALQUIERA = "cualquiera"


def siguiente(automata, estado, letra):
    """El estado al que lleva una letra desde `estado`, o None si no puede venir. Ya está escrita."""
    salidas = automata["pasos"].get(estado, {})
    if letra in salidas:
        return salidas[letra]
    return salidas.get(CUALQUIERA) if letra >= " " and letra not in '"\\' else None


def recorre(automata, estado, texto):
    """El estado después de todas las letras de `texto`, empezando en `estado`; None si alguna no puede venir."""
    ### BEGIN SOLUTION
    for letra in texto:
        estado = siguiente(automata, estado, letra)
        if estado is None:
            return None
    return estado
    ### END SOLUTION


def automata_mes():
    """El autómata de los enteros del 1 al 12: {"inicio": …, "finales": […], "pasos": {…}}."""
    ### BEGIN SOLUTION
    primera = {"1": "uno"} | dict.fromkeys("23456789", "hecho")
    return {
        "inicio": "inicio",
        "finales": ["uno", "hecho"],
        "pasos": {"inicio": primera, "uno": dict.fromkeys("012", "hecho")},
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_recorre", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("recorre")

# %% tags=["corta"]
MES = automata_mes()
for texto in ("7", "12", "1", "13", "07", "siete"):
    estado = recorre(MES, MES["inicio"], texto)
    print(f"{texto:>6}: " + ("se atasca" if estado is None else f"{estado}, completo: {estado in MES['finales']}"))

# %% [markdown] tags=["corta"]
# ### 3.2 De letras a tokens
#
# El modelo no escribe letras: escribe **tokens**, y un token trae una letra, media palabra o un trozo que **cruza una
# frontera** del JSON. `","` cierra una cadena, pone la coma y abre el nombre siguiente, todo en un token.
#
# La regla es una sola: **un token puede venir si todas sus letras, en orden, avanzan**. Con los meses, tras escribir `1`, en un
# autómata que llama `uno` a ese estado y `hecho` al de los meses que no pueden seguir:
#
# | token | recorrido | ¿puede venir? |
# |---|---|---|
# | `2` | `uno` → `hecho` | sí |
# | `23` | `uno` → `hecho` → nada | no, aunque empiece bien |
# | `7` | nada | no |
# | *fin* | el texto `1` ya es un mes | sí |
#
# *fin* es el token con el que el modelo termina. Puede venir **exactamente** en los estados finales: antes daría un
# documento a medias; prohibirlo allí no dejaría acabar nunca.
#
# **Tu tarea:** implementa `permitidos(automata, estado, vocabulario, fin)`. `vocabulario[i]` es el texto del token `i`;
# algunos no tienen texto propio (`None`, o la cadena vacía) y no valen nunca: no hacen avanzar nada. Devuelve la lista
# **ordenada** de ids; `fin` es un id más.


# %% nbgrader={"grade": false, "grade_id": "permitidos", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
def permitidos(automata, estado, vocabulario, fin):
    """Los ids de los tokens que pueden venir en `estado`, ordenados; `fin`, solo si el texto ya está completo."""
    ### BEGIN SOLUTION
    ids = [i for i, t in enumerate(vocabulario) if t and i != fin and recorre(automata, estado, t) is not None]
    return sorted([*ids, fin]) if estado in automata["finales"] else ids
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_permitidos", "locked": true, "points": 14, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("permitidos")

# %% [markdown] tags=["corta"]
# Con el vocabulario del modelo de verdad. `MotorAbierto` es nuestro motor con la elección de cada token abierta; de
# momento solo usamos su vocabulario.

# %% tags=["corta"]
motor = MotorAbierto(modelo)
print(f"El modelo tiene {len(motor.textos)} tokens; el de fin es el {motor.fin}.")
for texto in ("", "1", "12"):
    ids = permitidos(MES, recorre(MES, MES["inicio"], texto), motor.textos, motor.fin)
    nombres = ["fin" if i == motor.fin else motor.textos[i] for i in ids]
    print(f"tras «{texto}» pueden venir {len(ids)}: {' '.join(nombres)}")

# %% [markdown]
# ### 3.3 La máscara sobre los logits
#
# **Tu tarea:** implementa `aplica_mascara(logits, ids)`. `logits` es un tensor de PyTorch de forma `[V]`, un número por
# token del vocabulario; `ids`, los permitidos. Devuelve una pareja:
#
# 1. las **probabilidades** con la máscara, un tensor `[V]`: −∞ (`float("-inf")`) en todo lo prohibido y `torch.softmax`;
# 2. la **probabilidad quitada**, un número: la que sumaban los prohibidos **antes** de la máscara.
#
# Tres avisos:
#
# - no cambies el tensor que recibes: quien te llama puede necesitarlo;
# - multiplicar los logits por 0 **no** es anular: 0 es un logit como otro cualquiera;
# - con la lista vacía, todos serían −∞ y softmax daría `NaN`, que se propaga sin avisar. Lanza `ValueError`.


# %% nbgrader={"grade": false, "grade_id": "aplica_mascara", "locked": false, "schema_version": 3, "solution": true, "task": false}
def aplica_mascara(logits, ids):
    """(probabilidades con la máscara [V], probabilidad quitada). Lanza ValueError si no queda ningún token."""
    ### BEGIN SOLUTION
    if not ids:
        raise ValueError("la máscara no deja ningún token")
    antes = torch.softmax(logits, dim=-1)
    solo = torch.full_like(logits, float("-inf"))
    solo[ids] = logits[ids]
    return torch.softmax(solo, dim=-1), max(0.0, 1 - float(antes[ids].sum()))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_aplica_mascara", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
comprobar("aplica_mascara")

# %% [markdown]
# Ya tienes un decodificador guiado. `motor.escribe(pregunta, elige)` mueve el motor real y llama a `elige(logits)` en cada
# paso. Primero sin máscara, eligiendo siempre el token más probable; después con la de los meses:

# %%
pregunta = "Which month of the year is December? Answer with its number."
libre = motor.escribe(pregunta, lambda logits: int(logits.argmax()), max_tokens=24)
print(f"sin máscara: {libre.texto!r} ({libre.fin})")

estado, quitadas = MES["inicio"], []


def elige(logits):
    global estado
    probabilidades, quitada = aplica_mascara(logits, permitidos(MES, estado, motor.textos, motor.fin))
    token = int(probabilidades.argmax())
    quitadas.append(quitada)
    if token != motor.fin:
        estado = recorre(MES, estado, motor.textos[token])
    return token


guiado = motor.escribe(pregunta, elige)
print(f"con máscara: {guiado.texto!r} ({guiado.fin})")
print("probabilidad quitada en cada paso:", " · ".join(porcentaje(q, 1) for q in quitadas))

# %% [markdown]
# Fíjate en dos cosas. El texto **termina solo** (`stop`): en un estado final sin salidas, *fin* es lo único permitido. Y la
# máscara garantiza un mes, no que sea diciembre.
#
# ### 3.4 De esquema a autómata
#
# Nadie escribe autómatas a mano para cada esquema. Se construyen por piezas y se encadenan. Las piezas son tuyas:
#
# **`eleccion(textos)`**: exactamente esos textos. Cada **principio** de un texto es un estado; los textos enteros son los
# finales. Con `["a", "ab"]`:
#
# ```text
#   ""  ──a──→ ("a") ──b──→ ("ab")          «a» es final y además puede seguir
#
#   {"inicio": "", "finales": ["a", "ab"], "pasos": {"": {"a": "a"}, "a": {"b": "ab"}}}
# ```
#
# Un estado del que no sale nada, como `"ab"`, no necesita estar en `"pasos"`.
#
# Con `eleccion` salen gratis `enum` y `boolean` (`true`, `false`).
#
# **`entero(minimo, maximo)`**: los enteros entre los dos límites, ambos incluidos. Un entero acotado también es una
# elección entre textos. (Los motores de verdad lo hacen por cifras, para que un millón de valores no cueste un millón de
# estados.)
#
# **`cadena(minimo, maximo)`**: comillas, de `minimo` a `maximo` letras y comillas. Un estado por cada número de letras
# escritas; usa `CUALQUIERA` para una letra más. Con `cadena(1, 2)`:
#
# ```text
#            "           cualquiera        cualquiera
#   abre ───────→  0  ───────────→  1  ───────────→  2
#                                   │ "              │ "
#                                   └────→ (cierra) ←┘
# ```
#
# `secuencia` y `de_esquema_a_automata` ya están: ponen un autómata detrás de otro (los finales de uno heredan los pasos del
# inicio del siguiente) y leen el esquema. El texto será el de
# `json.dumps(dato, ensure_ascii=False, separators=(",", ":"))`, sin espacios, con todas las propiedades y en su orden.


# %% nbgrader={"grade": false, "grade_id": "constructores", "locked": false, "schema_version": 3, "solution": true, "task": false}
def eleccion(textos):
    """El autómata que admite exactamente esos textos. Los estados son sus principios."""
    ### BEGIN SOLUTION
    pasos = {}
    for texto in textos:
        for i, letra in enumerate(texto):
            pasos.setdefault(texto[:i], {})[letra] = texto[: i + 1]
    return {"inicio": "", "finales": sorted(set(textos)), "pasos": pasos}
    ### END SOLUTION


def entero(minimo, maximo):
    """Los enteros de minimo a maximo, ambos incluidos, escritos como los escribe str()."""
    ### BEGIN SOLUTION
    return eleccion([str(n) for n in range(minimo, maximo + 1)])
    ### END SOLUTION


def cadena(minimo, maximo):
    """Una cadena JSON de minimo a maximo letras, con sus comillas."""
    ### BEGIN SOLUTION
    pasos = {"abre": {'"': "0"}}
    for escritas in range(maximo + 1):
        salidas = pasos[str(escritas)] = {}
        if escritas < maximo:
            salidas[CUALQUIERA] = str(escritas + 1)
        if escritas >= minimo:
            salidas['"'] = "cierra"
    return {"inicio": "abre", "finales": ["cierra"], "pasos": pasos}
    ### END SOLUTION


def secuencia(partes):
    """Un autómata detrás de otro. partes: lista de (nombre, autómata); el nombre se ve en los estados."""
    pasos, finales = {}, []
    for i, (nombre, parte) in enumerate(partes):
        marca = f"{i}·{nombre}/"
        for estado, salidas in parte["pasos"].items():
            pasos[marca + estado] = {letra: marca + otro for letra, otro in salidas.items()}
        for final in finales:
            pasos.setdefault(final, {}).update(pasos[marca + parte["inicio"]])
        finales = [marca + final for final in parte["finales"]]
    nombre, parte = partes[0]
    return {"inicio": f"0·{nombre}/{parte['inicio']}", "finales": finales, "pasos": pasos}


def de_esquema_a_automata(esquema):
    """El autómata de un esquema: enum, boolean, integer y string con límites, y object con propiedades en su orden."""
    tipo = esquema.get("type")
    if "enum" in esquema or tipo == "boolean":
        datos = esquema.get("enum", [True, False])
        return eleccion([json.dumps(dato, ensure_ascii=False, separators=(",", ":")) for dato in datos])
    if tipo == "integer":
        return entero(esquema["minimum"], esquema["maximum"])
    if tipo == "string":
        return cadena(esquema.get("minLength", 0), esquema["maxLength"])
    partes, delante = [], "{"
    for nombre, forma in esquema["properties"].items():
        partes.append(("nombre", eleccion([delante + json.dumps(nombre, ensure_ascii=False) + ":"])))
        partes.append((nombre, de_esquema_a_automata(forma)))
        delante = ","
    return secuencia([*partes, ("cierre", eleccion(["}" if partes else "{}"]))])


# %% nbgrader={"grade": true, "grade_id": "prueba_constructores", "locked": true, "points": 14, "schema_version": 3, "solution": false, "task": false}
comprobar("constructores")

# %%
PERSONA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "student": {"type": "boolean"},
    },
    "required": ["name", "age", "student"],
    "additionalProperties": False,
}
automata = de_esquema_a_automata(PERSONA)
print(f"{len(automata['pasos'])} estados con salidas; inicio: {automata['inicio']}; finales: {automata['finales']}")
for texto in ('{"name":"Ana","age":30,"student":true}', '{"name":"Ana","age":7', '{"name":"Ana"}'):
    print(f"{texto}: {recorre(automata, automata['inicio'], texto)}")

# %% [markdown]
# ### 3.5 La pieza entera, en el motor
#
# El motor quiere un objeto por cada texto que se está escribiendo:
#
# | Método | Qué hace |
# |---|---|
# | `Mascara(esquema, vocabulario, fin)` | se pone al principio del texto |
# | `permitidos()` | la lista de ids que pueden venir ahora |
# | `acepta(id)` | el token elegido: avanza el estado. Si no podía venir, `ValueError`, y el estado no cambia |
#
# Guarda el estado en `self.estado`: la sección 4 lo enseña. Nadie llama a `acepta` con *fin*: ahí el texto ya acabó. Dentro de
# la clase, `permitidos(…)` sin `self.` es tu función de 3.2.
#
# Una cuenta antes de escribirla. Tu `permitidos` recorre el vocabulario **entero** (decenas de miles de tokens) en cada
# paso de cada petición. Pero la lista solo depende del **estado**: se calcula una vez y se guarda. `compila` te da el
# autómata y un diccionario `listas` (estado → ids), y son **los mismos** para todas las peticiones con el mismo esquema.
# Lo que **no** se comparte es el estado: dos personas con el mismo esquema van por sitios distintos de su texto.


# %% nbgrader={"grade": false, "grade_id": "mascara", "locked": false, "schema_version": 3, "solution": true, "task": false}
COMPILADOS = {}


def compila(esquema, vocabulario):
    """(autómata, listas) del esquema: siempre los mismos para el mismo esquema y el mismo vocabulario."""
    clave = (json.dumps(esquema), id(vocabulario))
    if clave not in COMPILADOS:
        # El vocabulario se guarda también: mientras esté aquí, nadie más puede tener su id().
        COMPILADOS[clave] = (de_esquema_a_automata(esquema), {}, vocabulario)
    return COMPILADOS[clave][:2]


class Mascara:
    """Qué tokens pueden venir en un texto que empieza."""

    def __init__(self, esquema, vocabulario, fin):
        """Al principio del texto. self.estado es el estado de ahora."""
        ### BEGIN SOLUTION
        self.automata, self.listas = compila(esquema, vocabulario)
        self.vocabulario, self.fin = vocabulario, fin
        self.estado = self.automata["inicio"]
        ### END SOLUTION

    def permitidos(self):
        """Lista ordenada de ids; se calcula una sola vez para cada estado."""
        ### BEGIN SOLUTION
        if self.estado not in self.listas:
            self.listas[self.estado] = permitidos(self.automata, self.estado, self.vocabulario, self.fin)
        return self.listas[self.estado]
        ### END SOLUTION

    def acepta(self, id):
        """Avanza con el texto del token elegido. Lanza ValueError si no podía venir."""
        ### BEGIN SOLUTION
        nuevo = recorre(self.automata, self.estado, self.vocabulario[id])
        if nuevo is None:
            raise ValueError(f"el token {id} no podía venir")
        self.estado = nuevo
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_mascara", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
comprobar("mascara_l08")

# %% [markdown]
# Ahora tu clase ocupa el sitio del compilador de esquemas del motor (`guided.compile`) y responde a varias peticiones a la
# vez, con batching continuo. A su lado, el motor tal como es. Las respuestas a la misma pregunta deberían salir con **los
# mismos tokens**: las dos máscaras dicen casi lo mismo con palabras distintas. Al final de 3.5 verás en qué no.

# %%
print(f"al principio pueden venir {len(Mascara(PERSONA, motor.textos, motor.fin).permitidos())} tokens")
ciudades = ["Paris", "Lima", "Tokyo", "Cairo", "Oslo", "Rome"][: 2 if modelo.rapido else 6]
preguntas = [
    f"Invent a person who lives in {c}. Answer with JSON: name, age and student (true or false)." for c in ciudades
]
con_esquema = SamplingParams(
    max_tokens=64,
    temperature=0.0,
    structured_outputs=StructuredOutputsParams(json=PERSONA, whitespace="compact"),
)
carrera = lado_a_lado(
    modelo,
    preguntas,
    {"guided.compile": Mascara},
    params=con_esquema,
    veces=1 if modelo.rapido else 3,
    guided_jump_ahead=False,
)
for ciudad, texto in zip(ciudades, carrera.tuya.textos, strict=True):
    print(f"{ciudad:>6}: {texto}")
carrera

# %%
anota("L08", "velocidad con tu máscara", mi_prediccion()["velocidad"], carrera.ratio, "×", modelo.nombre)
print(f"velocidad: esperabas {cifra(mi_prediccion()['velocidad'], 2)}×, mediste {cifra(carrera.ratio, 2)}×")
guarda("guided.compile", "Mascara")

# %% [markdown]
# La tanda de calentamiento, que no se cuenta, pagó las listas: después tu máscara solo busca en un diccionario. ¿Cuánto pagó?
# La celda recorre dos veces el mismo texto con un vocabulario «nuevo», del que no hay nada guardado:

# %%
vocabulario_nuevo = list(motor.textos)
ids = [i for i in carrera.tuya.tokens[0] if i != motor.fin]


def recorrido():
    mascara = Mascara(PERSONA, vocabulario_nuevo, motor.fin)
    for id in ids:
        mascara.permitidos()
        mascara.acepta(id)


for vez in ("primera", "segunda"):
    print(f"{vez} vez: {cifra(1000 * mide(recorrido, veces=1, calienta=0).mediana / len(ids), 2)} ms por token")

# %% [markdown]
# Por eso los motores **guardan** el esquema compilado entre peticiones, y un esquema distinto en cada petición es su peor caso.
#
# Si los tokens no coinciden (pasa con el modelo diminuto), mira dónde: la máscara del motor admite más textos que la tuya.
# Para JSON Schema `99.0` también es un entero, y una cadena puede llevar escapes como `\"`. La tuya es más estrecha: todo
# lo que permite es válido, pero no permite todo lo válido. `guided_jump_ahead=False` apaga un atajo del motor: cuando solo
# cabe un texto, lo escribe de golpe sin preguntar al modelo.
#
# **Para el proyecto P.** Allí escribirás la máscara completa: listas, propiedades optativas, `anyOf`, referencias. Lo nuevo
# es que un texto puede estar en **varios** sitios a la vez (¿viene otra propiedad o se cierra el objeto?): el estado pasa a
# ser un conjunto. Lo demás, la regla de 3.2 y la interfaz de `Mascara`, ya lo tienes.

# %% [markdown] tags=["corta", "errata-14"]
# ### 3.6 El juez, y los esquemas que no acaban
#
# La clase dice que con esquema el JSON sale válido **el 100 %** de las veces. Falta una condición: **si la respuesta
# acaba**. La máscara garantiza que cada token es un paso hacia un documento correcto, no que se llegue. Si `max_tokens` se
# agota antes, el servidor corta, lo dice en `finish_reason` (`length` en lugar de `stop`) y lo que tienes es medio
# documento.
#
# **Tu tarea, primera parte:** `valida(texto, esquema, fin)`, con `fin` el `finish_reason`, devuelve una de cuatro palabras.
# Mira en este orden:
#
# | Devuelve | Cuándo |
# |---|---|
# | `"cortada"` | `fin` no es `"stop"`: da igual lo que parezca el texto |
# | `"no es JSON"` | el texto **entero** no es JSON estricto. `NaN` e `Infinity` no son JSON, aunque `json.loads` los acepte: usa su argumento `parse_constant` |
# | `"no cumple"` | es JSON y no cumple el esquema (`jsonschema.Draft202012Validator(esquema).is_valid(dato)`) |
# | `"válida"` | todo lo anterior está bien |
#
# No recortes ni repares el texto: eso mediría tu reparador.
#
# **Segunda parte:** `acota(esquema, letras=40, elementos=5, tope=999)`. Un `{"type": "string"}` sin `maxLength` admite un
# documento infinito: ningún `max_tokens` basta. Devuelve **otro** esquema con los límites que falten, en todos los niveles
# (`properties` e `items`); los que ya están no se tocan:
#
# | Tipo | Se añade |
# |---|---|
# | `string` sin `enum` | `maxLength`: `letras`, o su `minLength` si es mayor |
# | `integer` sin `enum` | `minimum`: 0, o su `maximum` si es menor; después `maximum`: `tope`, o su `minimum` si es mayor |
# | `array` | `maxItems`: `elementos`, o su `minItems` si es mayor |
#
# Los «o… si es mayor» no son un adorno: un mínimo de 60 con un máximo de 40 es un esquema que **ningún** documento cumple.


# %% nbgrader={"grade": false, "grade_id": "valida", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["corta"]
def rechaza(constante):
    """Para parse_constant: json.loads la llama con "NaN", "Infinity" o "-Infinity"."""
    raise ValueError(f"{constante} no es JSON")


def valida(texto, esquema, fin):
    """«válida», «cortada», «no es JSON» o «no cumple»."""
    ### BEGIN SOLUTION
    if fin != "stop":
        return "cortada"
    try:
        dato = json.loads(texto, parse_constant=rechaza)
    except ValueError:
        return "no es JSON"
    return "válida" if jsonschema.Draft202012Validator(esquema).is_valid(dato) else "no cumple"
    ### END SOLUTION


def acota(esquema, letras=40, elementos=5, tope=999):
    """Otro esquema, con los límites que faltan."""
    ### BEGIN SOLUTION
    nuevo, tipo = dict(esquema), esquema.get("type")
    if tipo == "string" and "enum" not in nuevo:
        nuevo.setdefault("maxLength", max(letras, nuevo.get("minLength", 0)))
    if tipo == "integer" and "enum" not in nuevo:
        nuevo.setdefault("minimum", min(0, nuevo.get("maximum", 0)))
        nuevo.setdefault("maximum", max(tope, nuevo["minimum"]))
    if tipo == "array":
        nuevo.setdefault("maxItems", max(elementos, nuevo.get("minItems", 0)))
        nuevo["items"] = acota(nuevo["items"], letras, elementos, tope)
    if tipo == "object":
        formas = nuevo.get("properties", {}).items()
        nuevo["properties"] = {nombre: acota(forma, letras, elementos, tope) for nombre, forma in formas}
    return nuevo
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_valida", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false} tags=["corta"]
comprobar("valida")

# %% [markdown] tags=["corta"]
# Levanta el servidor: el mismo motor, detrás de una API compatible con la de OpenAI. Lo usaremos hasta el final.

# %% tags=["corta"]
servidor = Servidor(modelo.carpeta, "--served-model-name", modelo.nombre)
cliente = OpenAI(base_url=servidor.url, api_key="sin-clave", max_retries=0)
print(f"Listo: {servidor.url} sirve {modelo.nombre}")

# %% [markdown]
# ### 3.7 Llamadas a funciones
#
# Un modelo no puede consultar el tiempo, pero puede **pedir** que alguien lo haga. Eso es *function calling*: ofreces
# herramientas, cada una con nombre, descripción y el **esquema** de sus argumentos; la respuesta no es texto, sino
# `{"name": …, "arguments": …}`. Por dentro es lo que acabas de construir: otro esquema, otra máscara.
#
# ```text
# tú: pregunta + herramientas ──→ modelo: llama a weather con {"city": "Oslo"}
# tú ejecutas weather("Oslo") ──→ modelo: con el resultado, contesta a la persona
# ```
#
# El modelo **no ejecuta nada**: quien ejecuta eres tú, y lo que llega es texto que eligió un modelo.
#
# **Tu tarea:**
#
# - `cuerpo_herramienta(pregunta, nombre, descripcion, parametros)`: los argumentos de `chat.completions.create` (menos
#   `model`), en un diccionario. `messages`, que es `[{"role": "user", "content": pregunta}]`; el `max_tokens` que recibe; `tools`, una lista con
#   `{"type": "function", "function": {"name", "description", "parameters"}}`; y `tool_choice`, que nombra la función para que
#   el motor **obligue** a llamarla: `{"type": "function", "function": {"name": nombre}}`. (Con `"auto"` decide el modelo; los
#   campos `functions` y `function_call` de algunas guías están obsoletos.)
# - `lee_llamada(mensaje, ofrecidas)`: `mensaje` es el de la respuesta como diccionario y `ofrecidas`, un diccionario nombre →
#   esquema. Devuelve `(nombre, argumentos)` de la primera llamada de `tool_calls`, o `None` si no hay ninguna (`tool_calls`
#   falta, es `None` o está vacía). `arguments` es una **cadena** con JSON dentro; `argumentos`, lo que sale al leerla. Si el
#   nombre no está entre las ofrecidas, o los argumentos no son JSON que cumpla el esquema de esa función, lanza `ValueError`.
#   Tu `valida` te sirve. Un mensaje con una llamada:
#
# ```python
# {"role": "assistant", "content": None,
#  "tool_calls": [{"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]}
# ```


# %% nbgrader={"grade": false, "grade_id": "herramienta", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cuerpo_herramienta(pregunta, nombre, descripcion, parametros, max_tokens=256):
    """Los argumentos de una petición cuya respuesta es una llamada a esa función."""
    ### BEGIN SOLUTION
    funcion = {"name": nombre, "description": descripcion, "parameters": parametros}
    return {
        "messages": [{"role": "user", "content": pregunta}],
        "max_tokens": max_tokens,
        "tools": [{"type": "function", "function": funcion}],
        "tool_choice": {"type": "function", "function": {"name": nombre}},
    }
    ### END SOLUTION


def lee_llamada(mensaje, ofrecidas):
    """(nombre, argumentos) de la primera llamada, o None. Lanza ValueError si no te puedes fiar de ella."""
    ### BEGIN SOLUTION
    llamadas = mensaje.get("tool_calls") or []
    if not llamadas:
        return None
    funcion = llamadas[0]["function"]
    nombre, argumentos = funcion["name"], funcion["arguments"]
    if nombre not in ofrecidas or valida(argumentos, ofrecidas[nombre], "stop") != "válida":
        raise ValueError(f"no ofreciste {nombre}, o sus argumentos no cumplen el esquema")
    return nombre, json.loads(argumentos)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "prueba_herramienta", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
comprobar("herramienta")

# %%
TIEMPO = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1, "maxLength": 20},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
cuerpo = cuerpo_herramienta("What is the weather in Oslo, in celsius?", "weather", "Weather in a city now.", TIEMPO)
respuesta = cliente.chat.completions.create(model=modelo.nombre, temperature=0, **cuerpo).choices[0]
print("lo que llega:", respuesta.message.tool_calls[0].function)
print("lo que lees: ", lee_llamada(respuesta.message.model_dump(), {"weather": TIEMPO}))

# %% [markdown]
# ## 4 · Mira
#
# Tu máscara, por dentro y con los logits de verdad. `Guiado` hace en cada paso lo mismo que en 3.3, ahora con tu clase, y
# guarda lo que el modelo quería **antes** de la máscara.


# %%
class Guiado:
    """Un paso del motor: máscara, elegir, avanzar. Guarda las probabilidades de antes, lo quitado y el estado."""

    def __init__(self, esquema):
        self.mascara = Mascara(esquema, motor.textos, motor.fin)
        self.antes, self.quitadas, self.estados = [], [], []

    def __call__(self, logits):
        probabilidades, quitada = aplica_mascara(logits, self.mascara.permitidos())
        self.antes.append(torch.softmax(logits, dim=-1))
        self.quitadas.append(quitada)
        self.estados.append(self.mascara.estado)
        token = int(probabilidades.argmax())
        if token != motor.fin:
            self.mascara.acepta(token)
        return token


paso_a_paso = Guiado(PERSONA)
escrito = motor.escribe(preguntas[0], paso_a_paso)
print(escrito.texto)
trozos = [*(motor.textos[i] for i in escrito.ids), "fin"]
for trozo, quitada in zip(trozos, paso_a_paso.quitadas, strict=False):
    print(f"{trozo!r:>14}  quitada {porcentaje(quitada, 1):>7}  {'█' * round(20 * quitada)}")

# %% [markdown]
# Mueve el deslizador paso a paso y busca: un token que cruza una frontera (`","` o parecido); un paso en el que la máscara
# quita casi todo (el modelo quería otra cosa) y uno en el que casi no quita nada (ya estaba de acuerdo); y el último, en el
# que solo queda *fin*.

# %%
ver_mascara(
    Mascara(PERSONA, motor.textos, motor.fin),
    escrito.ids,
    motor.textos,
    probabilidades=paso_a_paso.antes,
    estado=lambda mascara: mascara.estado,
)

# %% [markdown] tags=["corta", "cubre-B-ej4"]
# ## 5 · Compara
#
# ### 5.1 Con palabras y con esquema
#
# Las mismas preguntas al mismo servidor, dos veces. Todas piden JSON en el prompt; la segunda vez va además el esquema, en
# el campo que entienden hoy OpenAI, vLLM y nuestro servidor:
#
# ```python
# response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": {…}}}
# ```
#
# En los apuntes el esquema viaja en `extra_body={"guided_json": …}`. Ese campo ya no existe: lo verás en 6.2. La forma propia
# de vLLM es hoy `extra_body={"structured_outputs": {"json": esquema}}`.


# %% tags=["corta"]
def pregunta_una(caso, **campos):
    """Una petición: el texto y su dictamen."""
    opcion = cliente.chat.completions.create(
        model=modelo.nombre,
        messages=[{"role": "user", "content": caso.prompt}],
        max_tokens=TOKENS,
        temperature=0,
        **campos,
    ).choices[0]
    texto = opcion.message.content or ""
    return texto, valida(texto, caso.schema, opcion.finish_reason)


def formato(caso):
    return {"type": "json_schema", "json_schema": {"name": caso.name, "schema": caso.schema}}


with ThreadPoolExecutor(len(casos)) as a_la_vez:
    libres = list(a_la_vez.map(pregunta_una, casos))
    guiadas = list(a_la_vez.map(lambda caso: pregunta_una(caso, response_format=formato(caso)), casos))
con_palabras, con_formato = (Counter(dictamen for _, dictamen in lote) for lote in (libres, guiadas))
validas_pct = 100 * con_palabras["válida"] / len(casos)
anota("L08", "JSON válido sin esquema", mi_prediccion()["validas_pct"], validas_pct, "%", modelo.nombre)
print(f"válidas con palabras: esperabas {mi_prediccion()['validas_pct']:.0f} %, mediste {validas_pct:.0f} %")
print("con palabras:", dict(con_palabras))
print("con esquema: ", dict(con_formato))
print("\nla primera pregunta:", casos[0].prompt)
print("con palabras:", repr(libres[0][0][:150]))
print("con esquema: ", repr(guiadas[0][0][:150]))

# %% [markdown]
# Si alguna «con esquema» sale `cortada`, no es un fallo de la máscara: es la condición de 3.6. Estos esquemas están
# acotados, pero el más largo admite más texto que `TOKENS` tokens si el modelo se empeña.
#
# ### 5.2 El mismo experimento en vLLM
#
# Cada fila dice su origen. Las grabadas llevan archivo, fecha y equipo: compáralas entre ellas, y no con las medidas ahora.

# %%
compara("json_garantizado", modelo, url=servidor.url)

# %% [markdown] tags=["errata-3", "cubre-B-faq-json"]
# ### 5.3 ¿Quién hace la máscara?
#
# «¿El JSON está garantizado?» «Sí, vLLM usa la biblioteca Outlines», dicen los apuntes. Fue así. Hoy la opción de vLLM es
# `--structured-outputs-config '{"backend": "auto"}'`, y `auto` prueba primero **xgrammar**; si el esquema usa algo que
# xgrammar no entiende, pasa a **guidance** (la biblioteca llguidance) y, en algún caso, a **outlines**. El nombre importa
# poco; importa que cada uno admite esquemas distintos y paga en momentos distintos:
#
# | Motor de máscaras | Idea | Cuándo paga |
# |---|---|---|
# | `outlines-core` | esquema → expresión regular → autómata finito, con la lista de tokens de **cada** estado calculada de antemano | al compilar |
# | xgrammar | gramática con pila; los tokens que no dependen del contexto, calculados de antemano | al compilar |
# | llguidance | autómata perezoso: calcula cuando el texto llega al estado | en cada paso |
# | el nuestro | perezoso también, con las partes comunes del vocabulario guardadas en disco | en cada paso |
# | **el tuyo** | un estado, una lista, guardada al llegar | en el primer paso por cada estado |
#
# La comparación de la celda siguiente se grabó con `minillm bench guided`: los mismos esquemas (reales, de MaskBench,
# una colección pública), el mismo vocabulario, cada motor en su proceso. Mira lo válido que **prohíbe** (le falta
# completitud), lo inválido que **permite** (le falta solidez), lo que rechaza o no termina de compilar, y dónde está
# el tiempo.
#
# Y TGI: su campo es `grammar`, dentro de `parameters`: `{"type": "json", "value": esquema}`. El *router*, en Rust, valida el
# esquema y lo convierte en expresión regular; el servidor, en Python, lleva el autómata de Outlines y pone los −∞. Es el mismo
# diseño que el tuyo, en dos procesos. (TGI está en mantenimiento desde el 11 de diciembre de 2025: se estudia, no se
# recomienda para empezar.) Nuestro servidor también entiende su petición, en
# `/tgi/generate`.

# %%
mascaras_grabadas()

# %%
peticion_tgi = {
    "inputs": "Answer with JSON. A person: ",
    "parameters": {"max_new_tokens": 64, "grammar": {"type": "json", "value": PERSONA}},
}
with OpenAI(base_url=servidor.url.removesuffix("/v1") + "/tgi", api_key="sin-clave", max_retries=0) as al_estilo_tgi:
    print(al_estilo_tgi.post("/generate", body=peticion_tgi, cast_to=object)["generated_text"])

# %% [markdown]
# ## 6 · Rompe
#
# ### 6.1 El JSON cortado
#
# El mismo esquema con muy pocos tokens; y un cuento de 300 letras o más con 200 tokens: con `maxLength` le bastan; **sin** él,
# un modelo que no se calla sigue hasta que lo cortan.


# %%
def pide(pregunta, esquema, max_tokens, **campos):
    return cliente.chat.completions.create(
        model=modelo.nombre,
        messages=[{"role": "user", "content": pregunta}],
        max_tokens=max_tokens,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "r", "schema": esquema}},
        **campos,
    ).choices[0]


CUENTO = {"type": "object", "properties": {"story": {"type": "string", "minLength": 300}}, "required": ["story"]}
CUENTO["additionalProperties"] = False
CUENTO_ACOTADO = {**CUENTO, "properties": {"story": {**CUENTO["properties"]["story"], "maxLength": 400}}}
for nombre, esquema, tokens in (
    ("persona acotada, 8 tokens", PERSONA, 8),
    ("cuento acotado, 200 tokens", CUENTO_ACOTADO, 200),
    ("cuento sin acotar, 200 tokens", CUENTO, 200),
):
    corta = pide("Tell a very long story about a robot. Answer with JSON.", esquema, tokens)
    print(f"{nombre}: {corta.finish_reason}, {valida(corta.message.content, esquema, corta.finish_reason)}")
    print(f"   {corta.message.content[:90]!r}")

# %% [markdown]
# ¿Cuántos tokens bastan **siempre**? Con tu máscara, un token trae al menos una letra: basta con las letras del documento más
# largo y uno más para *fin*. En un autómata sin ciclos se calculan: son las del camino más largo.


# %%
def mas_largo(automata):
    """Letras del documento más largo: el camino más largo desde el inicio."""
    largo = {}

    def desde(estado):
        if estado not in largo:
            salidas = set(automata["pasos"].get(estado, {}).values())
            largo[estado] = max((1 + desde(otro) for otro in salidas), default=0)
        return largo[estado]

    return desde(automata["inicio"])


corto = acota({**CUENTO, "properties": {"story": {"type": "string"}}})
bastan = mas_largo(de_esquema_a_automata(corto)) + 1
print(f"acotado a {corto['properties']['story']['maxLength']} letras; bastan {bastan} tokens")
entera = motor.escribe("Tell a very long story about a robot. Answer with JSON.", Guiado(corto), max_tokens=bastan)
print(f"{entera.fin}, {len(entera.ids)} tokens: {valida(entera.texto, corto, entera.fin)}")
print(entera.texto)

# %% [markdown]
# Otra salida es que el motor vigile lo que queda. El nuestro, con `always_closes`, deja de permitir un token si después ya no
# cabría el cierre: una cadena sin acotar y solo 60 tokens acaban con las comillas y la llave en su sitio. Pide
# espacio para el documento más corto posible, y por eso aquí va sin `minLength`.

# %%
libre_de_largo = {**CUENTO, "properties": {"story": {"type": "string"}}}
cierra = cliente.chat.completions.create(
    model=modelo.nombre,
    messages=[{"role": "user", "content": "Tell a very long story about a robot. Answer with JSON."}],
    max_tokens=60,
    temperature=0,
    extra_body={"structured_outputs": {"json": libre_de_largo, "always_closes": True}},
).choices[0]
print(f"{cierra.finish_reason}: {valida(cierra.message.content, libre_de_largo, cierra.finish_reason)}")
print(f"…{cierra.message.content[-70:]!r}")

# %% [markdown] tags=["corta", "errata-2", "cubre-B-error-guided"]
# ### 6.2 El campo que ya no existe
#
# Entre los errores comunes de los apuntes está «la salida no cumple el formato»: su remedio es arreglar el esquema de
# `guided_json`. Hoy el fallo es otro: vLLM **retiró** ese campo en la versión 0.12 y desde entonces lo ignora **sin avisar**.
# Recibes HTTP 200 y texto libre. Con un esquema perfecto. Y si el modelo acierta a veces, puedes tardar semanas en verlo.
#
# Nuestro servidor prefiere romperse a la vista:

# %% tags=["corta"]
try:
    cliente.chat.completions.create(
        model=modelo.nombre,
        messages=[{"role": "user", "content": casos[0].prompt}],
        max_tokens=16,
        extra_body={"guided_json": casos[0].schema},
    )
    print("El servidor aceptó guided_json: revisa cómo lo arrancaste.")
except BadRequestError as error:
    print(f"HTTP {error.status_code}: {error.body['message']}")

# %% [markdown]
# Al lado, lo que contestó un vLLM de verdad a la misma petición (grabado), y lo que contesta con el campo de hoy. Antes de
# mirar la tabla, piensa qué corregirías en «con `guided_json` el JSON es válido al 100 %»; lo escribirás en Explica 2.

# %%
compara("guided_json", modelo, url=servidor.url)

# %% [markdown]
# ### 6.3 Válido y falso
#
# El esquema exige una capital y solo ofrece dos. La máscara no sabe geografía:

# %%
CAPITAL = {
    "type": "object",
    "properties": {"capital": {"enum": ["Madrid", "Lisbon"]}},
    "required": ["capital"],
    "additionalProperties": False,
}
CON_SALIDA = {**CAPITAL, "properties": {"capital": {"enum": ["Madrid", "Lisbon", "Paris", "other"]}}}
for nombre, esquema in (("sin salida", CAPITAL), ("con salida", CON_SALIDA)):
    quien = Guiado(esquema)
    dicho = motor.escribe("What is the capital of France? Answer with JSON: capital.", quien)
    print(f"{nombre}: {dicho.texto} → {valida(dicho.texto, esquema, dicho.fin)}")
    valor = next(i for i, estado in enumerate(quien.estados) if 'capital/"' in estado)
    queria = motor.textos[int(quien.antes[valor].argmax())]
    print(
        f"   al empezar el valor, el modelo quería {queria!r}; la máscara quitó el {porcentaje(quien.quitadas[valor], 1)}"
    )

# %% [markdown]
# La primera respuesta es válida y **no puede** ser correcta: el esquema obligó al modelo a mentir. Dos costumbres que ayudan:
#
# - deja una salida en el esquema (`"other"`, `null`, un campo `"unknown"`), para que decir «no lo sé» también sea válido;
# - mira la probabilidad quitada en los **valores**, no en las llaves ni en los nombres, y qué token quería el modelo: si era
#   otra palabra, quería decir otra cosa; si era un espacio, quizá solo quería escribirlo de otra manera.
#
# ### 6.4 Medio carácter
#
# Tu máscara trabaja con el **texto** de cada token. Pero muchos vocabularios trabajan con **bytes**: una letra frecuente como
# la ñ suele tener su token, y un carácter raro se parte en varios tokens que, sueltos, no son texto.

# %%
for caracter in ("ñ", "🙂", "日"):
    piezas = motor.trocea(caracter)
    print(
        f"{caracter}: {len(piezas)} tokens; como texto {[motor.textos[i] for i in piezas]}; como bytes {[motor.bytes[i] for i in piezas]}"
    )
NIHON = {"enum": ["日"]}
try:
    print(motor.escribe("How do you write «day» in Japanese?", Guiado(NIHON)).texto)
except ValueError as error:
    print(f"ValueError: {error}")

# %% [markdown]
# Tras la comilla no queda **ningún** token permitido: los trozos de 日 tienen texto `None`. Es el fallo del conjunto vacío, y tu
# `ValueError` de 3.3 lo ha hecho visible; sin él, softmax habría dado `NaN`. En una cadena libre el mismo hueco es más
# discreto: nada falla, pero el modelo no puede escribir emojis. Los motores de verdad hacen el autómata **sobre bytes**, y así
# el primer trozo de 日 es un paso como otro cualquiera:

# %%
emoji = pide("How do you write «day» in Japanese? Answer with JSON.", {"enum": ["日", "🙂"]}, 16)
print(f"{emoji.message.content}: {valida(emoji.message.content, {'enum': ['日', '🙂']}, emoji.finish_reason)}")

# %% tags=["corta"]
cliente.close()
servidor.para()
print("Servidor parado. Tus filas están en bitacora.csv.")

# %% [markdown]
# ## 7 · Explica
#
# Responde en la celda siguiente con tus números delante (15 puntos, los lee tu docente):
#
# 1. Una persona del equipo propone reintentar hasta que el JSON salga bien, en lugar de usar un esquema. Compáralo con la
#    máscara en tres cosas: garantía, coste en tokens y qué pasa con un modelo que casi nunca acierta. Usa tu porcentaje de
#    5.1. (4)
# 2. Alguien lee en los apuntes «con `guided_json` el JSON es válido al 100 %» y quiere usarlo con un vLLM actual. Escribe las
#    **dos** correcciones que hay que hacer a esa frase y cómo lo comprobarías en producción. (5)
# 3. Tu máscara es **sólida** (todo lo que permite es válido) y no es **completa** (no permite todo lo válido). Da dos ejemplos
#    de esto último vistos en el cuaderno y di qué le ocurre al modelo en cada uno. (3)
# 4. ¿Por qué la probabilidad quitada en un valor avisa de una posible respuesta falsa, y por qué no la demuestra? (3)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explica", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
#
# 1. (4) Garantía (1): reintentar no da ninguna, solo hace menos probable el fallo; la máscara la da por construcción si la
#    respuesta acaba. Coste (1): cada intento se paga entero; con una proporción p de aciertos hacen falta 1/p intentos de
#    media. Modelo que casi nunca acierta (1): 1/p se dispara y con p = 0 no acaba nunca. Usa el número medido en 5.1 (1).
# 2. (5) Primera (2): el campo se retiró en vLLM 0.12 y se ignora con HTTP 200; hoy es response_format con json_schema, o
#    structured_outputs. Segunda (2): aun con el campo bueno, no es válido si `finish_reason` es `length`; hay que acotar el
#    esquema y dar max_tokens suficientes. Comprobación (1): validar cada respuesta con finish_reason y jsonschema, y contar
#    los fallos; o una prueba que mande un prompt que el modelo nunca contestaría en JSON.
# 3. (3) Dos ejemplos (2), de entre: caracteres partidos en bytes (日, emoji), escapes dentro de cadenas, 99.0 como entero,
#    espacios entre piezas, propiedades en otro orden. Qué le ocurre (1): el modelo tiene que elegir otro token, a veces menos
#    adecuado, o no queda ninguno y la petición falla.
# 4. (3) Avisa (1,5): si casi toda la probabilidad estaba en lo prohibido, el modelo quería decir otra cosa y lo escrito es un
#    resto. No la demuestra (1,5): puede que quisiera lo mismo con otra forma (un espacio, una comilla, «Sure»), y también
#    puede equivocarse sin que se quite nada.
#
# ### END SOLUTION

# %% [markdown]
# ## 8 · Autoevaluación
#
# Piensa tu respuesta y abre cada opción.
#
# **A. El texto va por `{"n":4` y el esquema pide un entero de 0 a 99 y después `}`. ¿Cuál de estos tokens puede venir?**
#
# <details><summary><code>2}</code></summary>Correcto. 42 cabe y la llave cierra el objeto: todas sus letras avanzan, aunque
# crucen una frontera.</details>
# <details><summary><code>20</code></summary>No. 420 se sale del límite: la primera letra avanza y la segunda no.</details>
# <details><summary><em>fin</em></summary>No. El entero está completo, pero el documento no: falta la llave. fin solo vale en
# los estados finales del autómata entero.</details>
# <details><summary><code> 2</code> (con un espacio delante)</summary>No con nuestro autómata, que no admite espacios. Y en
# ningún JSON sirve un espacio dentro de un número.</details>
#
# **B. Un logit vale 0 tras «anular» un token prohibido multiplicando por 0. ¿Qué probabilidad tiene?**
#
# <details><summary>0</summary>No. softmax usa e elevado al logit, y e⁰ = 1: puede ser incluso el más probable si los demás
# logits son negativos.</details>
# <details><summary>Depende de los demás logits, y no es 0</summary>Correcto. Solo −∞ da probabilidad 0.</details>
# <details><summary>La misma que antes</summary>No: cambió su logit. Lo que no hizo fue anularlo.</details>
#
# **C. Dos peticiones usan el mismo esquema a la vez. ¿Qué pueden compartir?**
#
# <details><summary>El objeto <code>Mascara</code></summary>No. Su estado dice por dónde va un texto; con dos textos, uno movería el estado
# del otro.</details>
# <details><summary>El autómata y las listas de cada estado</summary>Correcto. Dependen solo del esquema y del
# vocabulario.</details>
# <details><summary>Nada</summary>No. Volver a compilar y a recorrer el vocabulario por cada petición es el coste que se
# ahorra guardando.</details>
#
# **D. El esquema pide un entero. Recibes HTTP 200, el texto `4` y `finish_reason` igual a `length`. ¿Qué haces?**
#
# <details><summary>Usarlo: cumple el esquema</summary>No. Se cortó: pudo cortarse en un punto que casualmente es válido, como
# un 4 que iba a ser 42.</details>
# <details><summary>Tratarlo como cortado</summary>Correcto. El primer filtro es cómo acabó; después, lo demás.</details>
# <details><summary>Cerrar las llaves que falten</summary>No. Inventas el final de un dato que no conoces.</details>
#
# **E. ¿Qué garantiza una llamada a función cuyos argumentos cumplen el esquema?**
#
# <details><summary>Que los datos son ciertos</summary>No. Válido no es correcto: la ciudad puede no ser la que pidió la
# persona.</details>
# <details><summary>Que la puedes ejecutar sin mirar</summary>No. El modelo eligió esos argumentos; comprueba el nombre, los
# permisos y los valores, como con cualquier dato que llega de fuera.</details>
# <details><summary>Solo lo que dice el esquema: nombres, tipos, opciones y límites</summary>Correcto. Es mucho (tu programa no se rompe al leerla) y no es
# todo.</details>
