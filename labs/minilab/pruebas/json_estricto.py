"""Is a text strict JSON that meets a schema? The judge of every constrained answer, public and hidden."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

KEYWORDS = {
    "required": "falta una propiedad obligatoria",
    "additionalProperties": "sobra una propiedad",
    "enum": "un valor no está entre los de enum",
    "const": "un valor no es el de const",
    "type": "un valor es de otro tipo",
    "minLength": "una cadena es demasiado corta",
    "maxLength": "una cadena es demasiado larga",
    "minItems": "una lista tiene elementos de menos",
    "maxItems": "una lista tiene elementos de más",
    "minimum": "un número es demasiado pequeño",
    "maximum": "un número es demasiado grande",
    "anyOf": "un valor no encaja en ninguna forma de anyOf",
}


class NotStrict(ValueError):
    """The text is not strict JSON; the message says why, in Spanish."""


def parse_strict(text: str) -> Any:
    """The value of ``text`` under RFC 8259, with unique names in each object. Raises :class:`NotStrict`."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_names)
    except NotStrict:
        raise
    except json.JSONDecodeError as error:
        raise NotStrict("sobra texto después del JSON" if error.msg == "Extra data" else "no es JSON") from error
    except (ValueError, RecursionError) as error:
        raise NotStrict("tiene un número o un anidamiento demasiado grande") from error


def fault(text: str, schema: dict[str, Any]) -> str | None:
    """Why ``text`` is not a document of ``schema`` (JSON Schema 2020-12): one Spanish phrase, or None when it is."""
    try:
        error = best_match(Draft202012Validator(schema).iter_errors(parse_strict(text)))
    except NotStrict as reason:
        return f"el texto no vale: {reason}"
    except RecursionError:
        return "el texto no cumple el esquema: anida demasiados niveles"
    return None if error is None else f"el texto no cumple el esquema: {_describe(error)}"


def _describe(error: ValidationError) -> str:
    return KEYWORDS.get(error.validator, f"no se cumple {error.validator}")


def _refuse_constant(name: str) -> Any:
    raise NotStrict(f"{name} no es JSON")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise NotStrict("hay una propiedad repetida")
    return value
