"""What the demo asks: fifty English prompts a 135M model can answer, and five JSON Schemas with ten prompts each.

The engine is the subject, not the model's wit: short facts, sentences to continue, text to copy, small lists.
Every schema is bounded (string lengths, array sizes, integer ranges), so a constrained answer always ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Message = dict[str, str]
Conversation = list[Message]

PROMPTS: tuple[str, ...] = (
    "What is the capital of France?",
    "What is the capital of Japan, and what is it known for?",
    "Name the planets of the solar system in order.",
    "How many days are there in a week? List them.",
    "List the twelve months of the year.",
    "What do bees make, and how do they make it?",
    "Why is the sky blue? Answer in two sentences.",
    "What is water made of?",
    "Name five animals that live in the ocean.",
    "Name five fruits and the colour of each one.",
    "What is the largest animal on Earth?",
    "Who wrote the play Romeo and Juliet?",
    "What is the boiling point of water at sea level?",
    "Explain in simple words what gravity is.",
    "Explain what a computer program is to a child.",
    "What is the difference between a lake and a river?",
    "What do plants need in order to grow?",
    "Describe the four seasons in one sentence each.",
    "What is the function of the heart?",
    "Why do birds migrate in winter?",
    "Continue the story: Once upon a time, a small robot found a door in the forest.",
    "Continue the story: The old lighthouse had been dark for ten years, until one night",
    "Continue the story: Maria opened the letter and could not believe her eyes.",
    "Continue this sentence: The best thing about summer is",
    "Continue this sentence: When I learned to ride a bicycle,",
    "Continue the dialogue.\nA: Good morning! How can I help you?\nB: I would like a cup of tea, please.\nA:",
    "Continue the list: red, orange, yellow,",
    "Continue counting: one, two, three, four,",
    "Continue the sequence: 2, 4, 6, 8, 10,",
    "Continue the alphabet: A, B, C, D, E, F,",
    "Copy this sentence three times: The quick brown fox jumps over the lazy dog.",
    "Copy this line five times: I will serve every request.",
    "Repeat the word 'token' ten times.",
    "Write the sentence 'Batching saves time' in capital letters, then explain it.",
    "Rewrite this politely: Give me the report now.",
    "Rewrite this sentence in the past tense: She walks to school every day.",
    "Give three synonyms of the word 'happy'.",
    "Give the opposite of these words: hot, tall, fast, light.",
    "Write a haiku about the sea.",
    "Write a four-line poem about the moon.",
    "Write a short thank-you note to a teacher.",
    "Write a short email to say that you will be late for a meeting.",
    "Write a simple recipe for a tomato salad.",
    "Write three tips for sleeping better.",
    "Write three tips for a first job interview.",
    "Write a Python function that adds two numbers.",
    "Write a Python function that says whether a number is even.",
    "Summarise in one sentence: Trains carry many people at once, use little energy and leave the roads free.",
    "Give the advantages of reading books, as a list of four points.",
    "Translate to French: Good evening, my friend.",
)


@dataclass(frozen=True)
class SchemaCase:
    """One JSON Schema and the prompts whose answers must validate against it."""

    name: str
    schema: dict[str, Any]
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class GuidedCase:
    """One guided request: a prompt and the schema its answer is judged by."""

    name: str
    schema: dict[str, Any]
    prompt: str


def _text(max_length: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": max_length}


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


_PERSON = _object(
    {
        "name": _text(30),
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "city": _text(30),
        "student": {"type": "boolean"},
    }
)

_REVIEW = _object(
    {
        "sentiment": {"enum": ["positive", "neutral", "negative"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "reason": _text(60),
    }
)

_RECIPE = _object(
    {
        "dish": _text(30),
        "minutes": {"type": "integer", "minimum": 5, "maximum": 120},
        "ingredients": {"type": "array", "items": _text(20), "minItems": 2, "maxItems": 4},
    }
)

_COUNTRY = _object(
    {
        "country": _text(30),
        "capital": _object({"name": _text(30), "coastal": {"type": "boolean"}}),
        "languages": {"type": "array", "items": _text(20), "minItems": 1, "maxItems": 3},
    }
)

_TICKET = _object(
    {
        "kind": {"const": "ticket"},
        "title": _text(50),
        "priority": {"$ref": "#/$defs/level"},
        "assignee": {"anyOf": [_text(20), {"type": "null"}]},
    },
    **{"$defs": {"level": {"type": "string", "enum": ["low", "medium", "high"]}}},
)

_CITIES = ("Paris", "Lima", "Tokyo", "Cairo", "Madrid", "Oslo", "Toronto", "Nairobi", "Sydney", "Rome")
_OPINIONS = (
    "The phone is fast and the screen is beautiful.",
    "The soup was cold and the waiter was rude.",
    "It is a chair. It does what a chair does.",
    "I loved every page of this book.",
    "The film was too long and I fell asleep.",
    "The hotel was clean, quiet and close to the beach.",
    "The battery died after two days.",
    "The class was fine, nothing special.",
    "Best coffee in town, and friendly people too.",
    "The shoes broke the first time I wore them.",
)
_DISHES = (
    "a tomato salad",
    "an omelette",
    "pancakes",
    "vegetable soup",
    "fried rice",
    "guacamole",
    "a fruit smoothie",
    "pasta with garlic",
    "a cheese sandwich",
    "roasted potatoes",
)
_COUNTRIES = ("France", "Peru", "Japan", "Egypt", "Spain", "Norway", "Canada", "Kenya", "Australia", "Italy")
_PROBLEMS = (
    "The login page shows an error.",
    "The printer on the second floor has no paper.",
    "The report takes ten minutes to load.",
    "A user cannot reset her password.",
    "The logo on the home page is blurred.",
    "All payments fail since this morning.",
    "The search box ignores accents.",
    "The backup did not run last night.",
    "There is a typo in the welcome email.",
    "The app closes when the phone is rotated.",
)

_PERSON_PROMPT = "Invent a person who lives in {}. Give name, age, city and student (true or false) as JSON."
_REVIEW_PROMPT = 'Review: "{}" Give its sentiment, its stars from 1 to 5, and a short reason, as JSON.'
_RECIPE_PROMPT = "Give the dish, the minutes it takes and the ingredients of {}, as JSON."
_COUNTRY_PROMPT = "Give the country, its capital and the languages spoken in {}, as JSON."
_TICKET_PROMPT = "Write a support ticket in JSON for: {}"

SCHEMA_CASES: tuple[SchemaCase, ...] = (
    SchemaCase("person", _PERSON, tuple(map(_PERSON_PROMPT.format, _CITIES))),
    SchemaCase("review", _REVIEW, tuple(map(_REVIEW_PROMPT.format, _OPINIONS))),
    SchemaCase("recipe", _RECIPE, tuple(map(_RECIPE_PROMPT.format, _DISHES))),
    SchemaCase("country", _COUNTRY, tuple(map(_COUNTRY_PROMPT.format, _COUNTRIES))),
    SchemaCase("ticket", _TICKET, tuple(map(_TICKET_PROMPT.format, _PROBLEMS))),
)

# The longest schema admits some 130 characters of free text. An answer that has not ended within this many tokens is
# cut by the server and judged invalid like any other.
GUIDED_MAX_TOKENS = 512


def conversation(prompt: str) -> Conversation:
    """The chat both sides see: one user message (the model's template adds its own system prompt)."""
    return [{"role": "user", "content": prompt}]


def guided_cases(count: int) -> list[GuidedCase]:
    """The first ``count`` guided requests, schemas taking turns so that any count covers them evenly."""
    rounds = max(len(case.prompts) for case in SCHEMA_CASES)
    cases = [
        GuidedCase(case.name, case.schema, case.prompts[i])
        for i in range(rounds)
        for case in SCHEMA_CASES
        if i < len(case.prompts)
    ]
    if not 0 <= count <= len(cases):
        raise ValueError(f"there are {len(cases)} guided requests, {count} were asked for")
    return cases[:count]


def evenly_spaced(count: int, total: int) -> list[int]:
    """``count`` indices spread over ``range(total)``: a sample nobody picked by hand."""
    if not 1 <= count <= total:
        raise ValueError(f"a sample must hold between 1 and {total} prompts, got {count}")
    return [i * total // count for i in range(count)]
