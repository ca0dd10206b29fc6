"""Prompts whose answers repeat their input: extract, rewrite, and write JSON again, by itself or under a schema.

Chosen by reading what SmolLM2-135M answers (before any speed was looked at): texts that it copies for the most part and
that end, rather than loops. It often does only half of what is asked (a word is not replaced, a comma is put in): what
counts here is that the answer stands in the prompt. Inputs have 60 to 250 tokens, chat template included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CopyPrompt:
    """kind: ``extract``, ``edit`` or ``json``. schema: what the answer is held to, if anything."""

    kind: str
    text: str
    schema: dict[str, Any] | None = None


TEXTS: dict[str, str] = {
    "lighthouse": "The lighthouse on Grey Point was built in 1874 by Thomas Hale. It stands thirty metres above "
    "the sea and can be seen from twenty miles away. For eighty years a keeper lived in the small "
    "house beside it. Today the lamp works without anyone's help, and the house is a museum. "
    "Visitors may climb the 142 steps to the top from May to September.",
    "bakery": "Our bakery opens at six every morning except Monday. We bake bread with flour from the mill in "
    "Ashford and salt from the coast. The rye loaf takes two days to make, because the dough must "
    "rest. On Saturdays we also sell apple cake, plum cake and cheese rolls. Orders for weddings "
    "should reach us at least three weeks before the day.",
    "train": "The night train to Vienna leaves from platform nine at 22:15. Passengers with a sleeper ticket "
    "may board from 21:40. Breakfast is served between six and seven in the dining car. The train "
    "stops in Linz at 05:50 and arrives in Vienna at 07:35. Bicycles travel in the last carriage and "
    "need a ticket of their own.",
    "garden": "A garden pond needs sunlight, clean water and a little patience. Dig the hole in spring, when "
    "the ground is soft, and line it with a strong sheet of rubber. Fill it with rain water if you "
    "can, because tap water contains chlorine. Plants such as water lilies give shade and keep the "
    "water clear. After two or three weeks the first frogs will find it by themselves.",
    "meeting": "The team met on Tuesday to discuss the new website. Maria reported that the first design is "
    "finished and that the photographs are ready. Peter said that the payment page is still too slow "
    "on older phones. The team agreed to fix the payment page before adding anything new. The next "
    "meeting will take place on Friday at ten o'clock in room 4.",
    "library": "The city library has moved to a new building on Market Street. It holds more than two hundred "
    "thousand books, and half of them can be borrowed for four weeks. The reading room on the third "
    "floor is open until midnight. Students can reserve small rooms for group work on the library's "
    "website. A card costs ten dollars a year and is free for children.",
    "bicycle": "Check the brakes of your bicycle before every ride. Squeeze both levers and push the bicycle "
    "forward: the wheels must not turn. Look at the tyres and press them with your thumb to feel "
    "whether they need air. Clean the chain once a month with a dry cloth and put a drop of oil on "
    "every link. If the gears make a noise, take the bicycle to the shop on Hill Road.",
    "river": "The river Arlen begins in the hills above Stone Village. In spring the river carries the melted "
    "snow down to the valley. Two old bridges cross the river in the town of Marlow. Fishermen say "
    "that the best place is where the river meets the lake. In August the river is so low that "
    "children can walk through it.",
}
REPLACED: dict[str, tuple[str, str]] = {
    "lighthouse": ("house", "cottage"),
    "bakery": ("bread", "pastry"),
    "train": ("Vienna", "Prague"),
    "garden": ("water", "milk"),
    "meeting": ("team", "group"),
    "library": ("library", "archive"),
    "bicycle": ("bicycle", "scooter"),
    "river": ("river", "stream"),
}
OBJECTS: tuple[dict[str, Any], ...] = (
    {
        "server": {"host": "127.0.0.1", "port": 8000, "workers": 4},
        "model": {"name": "small", "dtype": "float32", "max_length": 2048},
        "logging": {"level": "info", "file": "server.log"},
    },
    {
        "name": "Tomato soup",
        "servings": 4,
        "minutes": 35,
        "ingredients": ["tomatoes", "onion", "garlic", "olive oil"],
        "steps": ["Chop the onion", "Fry it in oil", "Add the tomatoes", "Cook for 25 minutes"],
    },
    {
        "course": "Systems for language models",
        "teacher": "L. Ortiz",
        "weeks": 12,
        "topics": ["batching", "caching", "quantization", "speculation"],
        "exam": {"date": "2026-06-18", "room": "B 204"},
    },
    {
        "station": "Marlow",
        "platforms": 3,
        "trains": [
            {"to": "Linz", "time": "07:35"},
            {"to": "Basel", "time": "08:10"},
            {"to": "Vienna", "time": "09:55"},
        ],
    },
)
LISTS: tuple[list[dict[str, Any]], ...] = (
    [
        {"name": "Ana Lopez", "age": 31, "city": "Lima"},
        {"name": "Ben Carter", "age": 45, "city": "Leeds"},
        {"name": "Chen Wei", "age": 28, "city": "Xian"},
        {"name": "Dora Novak", "age": 52, "city": "Brno"},
    ],
    [
        {"task": "Write the report", "owner": "Maria", "done": True},
        {"task": "Fix the payment page", "owner": "Peter", "done": False},
        {"task": "Order new chairs", "owner": "Lena", "done": False},
        {"task": "Call the printer", "owner": "Omar", "done": True},
    ],
    [
        {"city": "Lisbon", "country": "Portugal", "population": 545000},
        {"city": "Oslo", "country": "Norway", "population": 709000},
        {"city": "Quito", "country": "Ecuador", "population": 1763000},
        {"city": "Hanoi", "country": "Vietnam", "population": 8053000},
    ],
    [
        {"train": "IC 210", "from": "Basel", "to": "Zurich", "minutes": 53},
        {"train": "IC 514", "from": "Bern", "to": "Geneva", "minutes": 106},
        {"train": "RE 88", "from": "Lugano", "to": "Chur", "minutes": 171},
    ],
)

_EXTRACT = "Copy the first three sentences of this text word for word.\n\n{}"
_EDIT = 'Rewrite the following text with the word "{}" replaced by "{}". Change nothing else.\n\n{}'
_OBJECT = "Write this JSON object again, exactly as it is:\n\n```json\n{}\n```"
_LIST = "Copy this JSON list.\n\n{}"
_TYPES = {str: {"type": "string", "maxLength": 40}, int: {"type": "integer"}, bool: {"type": "boolean"}}


def _schema(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Lists of as many records of the same form."""
    properties = {name: _TYPES[type(value)] for name, value in records[0].items()}
    record = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "array", "minItems": len(records), "maxItems": len(records), "items": record}


COPY_PROMPTS: tuple[CopyPrompt, ...] = (
    *(CopyPrompt("extract", _EXTRACT.format(text)) for text in TEXTS.values()),
    *(CopyPrompt("edit", _EDIT.format(*REPLACED[name], text)) for name, text in TEXTS.items()),
    *(CopyPrompt("json", _OBJECT.format(json.dumps(thing, indent=2))) for thing in OBJECTS),
    *(CopyPrompt("json", _LIST.format(json.dumps(records)), _schema(records)) for records in LISTS),
)
