"""The wrong answers of lab 8's instructor page, each as a change of the solution."""

from __future__ import annotations

from mutants import Mutant

ENDING = 'sorted([*ids, fin]) if estado in automata["finales"] else ids'
STEP = "pasos.setdefault(texto[:i], {})[letra] = texto[: i + 1]"

MUTANTS = [
    Mutant(
        "recorre",
        "empieza siempre en el inicio",
        "for letra in texto:",
        'estado = automata["inicio"]\n    for letra in texto:',
    ),
    Mutant("recorre", "mira solo la primera letra", "for letra in texto:", "for letra in texto[:1]:"),
    Mutant("recorre", "mira solo la última letra", "for letra in texto:", "for letra in texto[-1:]:"),
    Mutant(
        "recorre",
        "se salta la letra que no puede venir",
        "estado = siguiente(automata, estado, letra)",
        "estado = siguiente(automata, estado, letra) or estado",
    ),
    Mutant("recorre", "deja escribir el mes 0", '"23456789"', '"023456789"'),
    Mutant("recorre", "olvida que 1 ya es un mes", '["uno", "hecho"]', '["hecho"]'),
    Mutant("recorre", "deja escribir el mes 13", 'dict.fromkeys("012", "hecho")', 'dict.fromkeys("0123", "hecho")'),
    Mutant(
        "permitidos", "mira solo el primer carácter", "recorre(automata, estado, t)", "recorre(automata, estado, t[0])"
    ),
    Mutant(
        "permitidos",
        "empieza siempre en el inicio",
        "recorre(automata, estado, t)",
        'recorre(automata, automata["inicio"], t)',
    ),
    Mutant("permitidos", "no permite fin nunca", ENDING, "ids"),
    Mutant("permitidos", "permite fin siempre", ENDING, "sorted([*ids, fin])"),
    Mutant("permitidos", "en un estado final, solo fin", ENDING, '[fin] if estado in automata["finales"] else ids'),
    Mutant("permitidos", "un token vacío vale", "if t and i != fin", "if t is not None and i != fin"),
    Mutant("permitidos", "pone fin al final de la lista", "sorted([*ids, fin])", "[*ids, fin]", hidden=True),
    Mutant(
        "permitidos",
        "de dos tokens iguales, solo uno",
        "enumerate(vocabulario)",
        "((vocabulario.index(t), t) for t in dict.fromkeys(vocabulario))",
        hidden=True,
    ),
    Mutant(
        "aplica_mascara", "pone 0 en lugar de −∞", 'torch.full_like(logits, float("-inf"))', "torch.zeros_like(logits)"
    ),
    Mutant(
        "aplica_mascara",
        "no reparte lo que quita",
        "return torch.softmax(solo, dim=-1)",
        "return antes * (solo > -1e30)",
    ),
    Mutant("aplica_mascara", "reparte por igual", "solo[ids] = logits[ids]", "solo[ids] = 0.0"),
    Mutant(
        "aplica_mascara",
        "da la probabilidad que queda",
        "max(0.0, 1 - float(antes[ids].sum()))",
        "float(antes[ids].sum())",
    ),
    Mutant("aplica_mascara", "cuenta tokens, no probabilidad", "float(antes[ids].sum())", "len(ids) / len(logits)"),
    Mutant("aplica_mascara", "no mira si la lista está vacía", "if not ids:", "if False:"),
    Mutant(
        "aplica_mascara",
        "escribe en los logits que recibe",
        'solo = torch.full_like(logits, float("-inf"))\n    solo[ids] = logits[ids]',
        'dejados = logits[ids]\n    solo = logits.fill_(float("-inf"))\n    solo[ids] = dejados',
        hidden=True,
    ),
    Mutant(
        "aplica_mascara",
        "hace el softmax a mano",
        "return torch.softmax(solo, dim=-1)",
        "return torch.exp(solo) / torch.exp(solo).sum()",
        hidden=True,
    ),
    Mutant(
        "constructores", "el estado es la última letra", STEP, "pasos.setdefault(texto[i - 1 : i], {})[letra] = letra"
    ),
    Mutant("constructores", "cada texto borra el anterior", STEP, "pasos[texto[:i]] = {letra: texto[: i + 1]}"),
    Mutant(
        "constructores",
        "lo que puede seguir no es final",
        "sorted(set(textos))",
        "sorted(t for t in set(textos) if t not in pasos)",
    ),
    Mutant("constructores", "deja fuera el máximo", "range(minimo, maximo + 1)", "range(minimo, maximo)"),
    Mutant("constructores", "cierra antes del mínimo", "if escritas >= minimo:", "if True:"),
    Mutant("constructores", "no cierra al llegar al mínimo", "escritas >= minimo", "escritas > minimo"),
    Mutant("constructores", "deja una letra de más", "if escritas < maximo:", "if escritas <= maximo:"),
    Mutant("constructores", "olvida las comillas de abrir", '"inicio": "abre"', '"inicio": "0"'),
    Mutant("mascara_l08", "no mueve el estado", "self.estado = nuevo", "pass"),
    Mutant("mascara_l08", "un estado para todos los textos", "self.estado", "Mascara.estado"),
    Mutant("mascara_l08", "guarda una sola lista", "if self.estado not in self.listas:", "if not self.listas:"),
    Mutant("mascara_l08", "acepta lo que no podía venir", "if nuevo is None:", "if False:"),
    Mutant("mascara_l08", "mueve el estado antes de comprobar", "nuevo = recorre(", "nuevo = self.estado = recorre("),
    Mutant(
        "mascara_l08",
        "cada token vuelve al principio",
        "recorre(self.automata, self.estado,",
        'recorre(self.automata, self.automata["inicio"],',
    ),
    Mutant("valida", "no mira cómo acabó", 'if fin != "stop":', "if False:"),
    Mutant(
        "valida",
        "recorta el texto antes de juzgar",
        "json.loads(texto,",
        'json.loads(texto[texto.find("{") : texto.rfind("}") + 1],',
    ),
    Mutant("valida", "no mira el esquema", "if jsonschema.Draft202012Validator(esquema).is_valid(dato)", "if True"),
    Mutant("valida", "solo el límite es un corte", 'if fin != "stop":', 'if fin == "length":', hidden=True),
    Mutant("valida", "acepta NaN", ", parse_constant=rechaza", "", hidden=True),
    Mutant("valida", "acota solo el primer nivel", 'if tipo == "object":', "if False:"),
    Mutant(
        "valida",
        "no entra en las listas",
        'nuevo["items"] = acota(nuevo["items"], letras, elementos, tope)',
        "pass",
        hidden=True,
    ),
    Mutant(
        "valida",
        "pisa el límite que ya había",
        'nuevo.setdefault("maxLength", max(letras, nuevo.get("minLength", 0)))',
        'nuevo["maxLength"] = max(letras, nuevo.get("minLength", 0))',
        hidden=True,
    ),
    Mutant("valida", "un máximo menor que el mínimo", 'max(letras, nuevo.get("minLength", 0))', "letras", hidden=True),
    Mutant(
        "valida", "olvida los límites al entrar", "acota(forma, letras, elementos, tope)", "acota(forma)", hidden=True
    ),
    Mutant("valida", "cambia el esquema que recibe", "dict(esquema)", "esquema", hidden=True),
    Mutant(
        "herramienta",
        "la herramienta no va en una lista",
        '[{"type": "function", "function": funcion}]',
        '{"type": "function", "function": funcion}',
    ),
    Mutant("herramienta", "deja elegir al modelo", '{"type": "function", "function": {"name": nombre}}', '"auto"'),
    Mutant(
        "herramienta",
        "no lee la cadena de argumentos",
        "return nombre, json.loads(argumentos)",
        "return nombre, argumentos",
    ),
    Mutant("herramienta", "no comprueba el nombre", "nombre not in ofrecidas or ", ""),
    Mutant("herramienta", "supone que siempre hay llamada", "if not llamadas:", "if False:"),
    Mutant(
        "herramienta",
        "no comprueba los argumentos",
        'valida(argumentos, ofrecidas[nombre], "stop") != "válida"',
        "False",
        hidden=True,
    ),
    Mutant(
        "herramienta",
        "usa el esquema de la primera",
        "valida(argumentos, ofrecidas[nombre]",
        "valida(argumentos, next(iter(ofrecidas.values()))",
        hidden=True,
    ),
]
