"""What the target is asked for its training text: tasks that a 135M model can do, filled from lists of words.

The lists are ours. The prompts that the engine is measured with (:mod:`minillm_serve.bench.prompts`) are held out:
:func:`is_reserved` knows them whatever their case and punctuation.
"""

from __future__ import annotations

import random
import re
from functools import cache

from minillm_serve.bench.copy_prompts import COPY_PROMPTS
from minillm_serve.bench.prompts import PROMPTS, SCHEMA_CASES

WORDS: dict[str, tuple[str, ...]] = {
    name: tuple(part.strip() for part in words.split(";" if ";" in words else ","))
    for name, words in {
        "animal": "cat, dog, horse, whale, owl, bear, fox, rabbit, elephant, lion, penguin, turtle, frog, snake, wolf,"
        " dolphin, eagle, duck, mouse, bee, ant, spider, shark, giraffe, monkey, camel, goat, sheep, crow, butterfly",
        "object": "lamp, key, map, clock, book, mirror, boat, bicycle, camera, hammer, kite, ladder, piano, guitar,"
        " telescope, umbrella, bottle, candle, compass, drum, engine, hat, knife, letter, radio, ring, rope, wheel,"
        " computer, printer, telephone, train, bridge, window, battery, pencil, basket, coin, blanket, bell",
        "place": "forest, city, village, desert, harbour, library, market, mountain, museum, island, kitchen, school,"
        " garden, hospital, station, castle, farm, valley, beach, cave, factory, theatre, park, airport, office",
        "topic": "photosynthesis, electricity, the water cycle, volcanoes, evolution, the Moon, the Sun, magnets,"
        " earthquakes, the internet, recycling, vaccines, the human heart, the brain, sleep, democracy, inflation,"
        " money, music, painting, football, chess, swimming, the Roman Empire, the Renaissance, engines, rainbows,"
        " sound, light, atoms, bacteria, dinosaurs, glaciers, tides, bread, coffee, tea, chocolate, cotton, glass,"
        " paper, solar energy, wind energy, climate, rivers, oceans, planets, comets, black holes, robots, databases,"
        " operating systems, machine learning, encryption, algorithms, fractions, prime numbers, triangles, ratios",
        "country": "Germany, Brazil, Mexico, India, China, Portugal, Greece, Sweden, Chile, Argentina, Poland, Turkey,"
        " Vietnam, Thailand, Morocco, Ghana, Finland, Ireland, Cuba, Iceland, South Korea, Indonesia, the Netherlands",
        "person": "Ana, Ben, Clara, David, Elena, Farid, Grace, Hugo, Irene, Jonas, Kira, Leo, Marta, Nadia, Omar,"
        " Paula, Quentin, Rosa, Samuel, Tara, Uma, Victor, Wendy, Yusuf, Zoe",
        "figure": "Isaac Newton, Marie Curie, Albert Einstein, Leonardo da Vinci, Cleopatra, Julius Caesar, Mozart,"
        " Galileo, Charles Darwin, Ada Lovelace, Nelson Mandela, Jane Austen, Aristotle, Napoleon, Gandhi, Frida Kahlo",
        "adjective": "brave, quiet, old, curious, lazy, clever, tiny, lonely, angry, gentle, strange, bright, slow,"
        " kind, nervous, proud, broken, golden, cheerful, tired, cold, dark, loud, strong, clean, simple, early",
        "group": "vegetables, birds, insects, musical instruments, sports, colours, countries in Europe, rivers,"
        " programming languages, tools, pieces of furniture, trees, flowers, mammals, reptiles, jobs, school subjects,"
        " hobbies, desserts, drinks, spices, kinds of weather, means of transport, parts of the body, board games",
        "activity": "learning a language, cooking at home, saving money, running a marathon, studying for an exam,"
        " writing an essay, growing tomatoes, working from home, moving to a new city, taking photographs, public"
        " speaking, keeping a diary, drawing, playing chess, training a dog, cleaning a room, travelling by train,"
        " planning a party, reading more, staying healthy, using less water, making friends, managing time",
        "dish": "pumpkin soup, a fruit salad, banana bread, lentil stew, scrambled eggs, tomato sauce, a potato gratin,"
        " chocolate cookies, lemonade, vegetable curry, a chicken sandwich, rice pudding, bean tacos, apple pie, tea",
        "receiver": "a colleague, your boss, a neighbour, a customer, a friend, your landlord, a professor, the team",
        "matter": "a broken heater, the new schedule, a birthday party, a delayed delivery, next week's trip, a lost"
        " key, a job opening, the monthly report, a change of address, a cancelled class, noise at night, an invoice",
        "language": "Spanish, French, German, Italian, Portuguese",
        "code": "reverses a string, counts the vowels of a text, returns the largest number of a list, checks whether"
        " a word is a palindrome, computes the factorial of a number, converts Celsius to Fahrenheit, removes"
        " duplicates from a list, sums the digits of a number, merges two dictionaries, sorts a list of names, reads a"
        " file line by line, counts the words of a text, tells whether a number is prime, prints the first n squares",
        "record": "name, age and job of a person; title, author and year of a book; name, price and colour of a"
        " product; city, country and population of a town; name, species and age of a pet; date, place and topic of"
        " a meeting; brand, model and year of a car; name, ingredients and minutes of a dish",
        "deed": "opened the door, painted the wall, carried the box, missed the bus, planted a tree, lost the map,"
        " fixed the engine, wrote a long letter, told a joke, bought three apples, waited for an hour, sang a song,"
        " found an old coin, closed the window, baked a cake, walked home in the rain, forgot the password",
        "fact": "It needs little water and much light, It was built by hand over many years, It is cheap and easy to"
        " repair, Many people visit it every summer, It saves time but costs more, Children learn about it at school,"
        " It helps cities to stay clean, It has changed very little since then, Experts do not agree about its origin,"
        " It is made of wood and iron, It works best when it is used every day, It can be dangerous without care",
    }.items()
}

TEMPLATES = (
    "What is {topic}?", "Explain {topic} in simple words.", "Explain {topic} to a child.", "Tell me about {topic}.",
    "Why is {topic} important?", "Give three facts about {topic}.", "Write a paragraph about {topic}.",
    "What is the difference between a {object} and a {object}?", "What is the capital of {country}?",
    "What is {country} known for?", "Which languages are spoken in {country}?", "Who was {figure}?",
    "Why is {figure} remembered?", "What does a {animal} eat?", "Where does a {animal} live?",
    "Describe a {animal} in two sentences.", "How does a {object} work?", "What can you do with a {object}?",
    "What happens in a {place} at night?", "What is {number} plus {number}?", "What is {number} times {digit}?",
    "Is a {animal} bigger than a {animal}?", "What jobs can you find in a {place}?",
    "Name {digit} {group}.", "List {digit} {group} with one sentence about each.", "Name {digit} things in a {place}.",
    "Give {digit} tips for {activity}.", "Give the advantages and disadvantages of {activity}.",
    "List the steps of {activity}.", "How do I begin with {activity}?", "Make a plan of {digit} days for {activity}.",
    "Continue the story: Once upon a time, a {adjective} {animal} found a {object} in the {place}.",
    "Continue the story: {person} {deed} while the {adjective} {animal} slept near the {place}.",
    "Continue the story: Nobody in the {place} had seen a {object} like that before. {person} {deed}.",
    "Write a short story about a {adjective} {animal} and a {object}.", "Tell a bedtime story about a {animal}.",
    "Write a short poem about a {adjective} {animal}.", "Write a haiku about a {place}.", "Joke about a {animal}.",
    "Write a short dialogue between {person} and {person} about {topic}.",
    "Continue this sentence: When {person} {deed}, the {adjective}", "Continue the list: {animal}, {animal}, {animal},",
    "Continue the sequence: {number}, {number}, {number},", "Count from {digit} to {number}.",
    "Copy this sentence {digit} times: {sentence}", "Repeat the word '{object}' {digit} times.", "Copy this: {text}",
    "Write this sentence in capital letters: {sentence}", "Rewrite this politely: Bring me the {object} now.",
    "Rewrite this sentence in the future tense: {sentence}", "Rewrite this as a question: {sentence}",
    "Rewrite this text in other words: {text}", "Correct the mistakes: {person} have {deed} and go to the {place}.",
    "Replace '{object}' by '{object}': The {adjective} {object} stood in the {place}.",
    "Summarise in one sentence: {text}", "Summarise this text: {text} {text}", "Give a title to this text: {text}",
    "Read this text and answer. {text} Question: Who is in the text?",
    "Translate to {language}: {sentence}", "Give three synonyms of the word '{adjective}'.",
    "Give the opposite of these words: {adjective}, {adjective}, {adjective}.", "Use '{object}' in a sentence.",
    "Write a simple recipe for {dish}.", "What do I need to cook {dish}?",
    "Write a short email to {receiver} about {matter}.", "Write a message to {receiver}: {person} {deed}.",
    "Write a thank-you note to {receiver}.", "Write a Python function that {code}.",
    "Explain how a program that {code} works.", "Give the {record} as JSON.",
    "Give {digit} examples with the {record}, as a JSON list.", "Write a JSON object that describes a {object}.",
    "Turn this into JSON: {person} is {number} years old and lives in {country}.",
    "Make a table of {digit} {group}.", "Write a slogan for a {adjective} {object}.",
    "Write a product description of a {adjective} {object}.", "Write a quiz question about {topic}, with its answer.",
)  # fmt: skip


@cache
def _reserved() -> frozenset[str]:
    guided = (prompt for case in SCHEMA_CASES for prompt in case.prompts)
    return frozenset(map(key, (*PROMPTS, *guided, *(prompt.text for prompt in COPY_PROMPTS))))


def key(prompt: str) -> str:
    """What two prompts share when they differ in case, spaces and punctuation only."""
    return " ".join(re.findall(r"\w+", prompt.casefold()))


def is_reserved(prompt: str) -> bool:
    """True for a prompt that the engine is measured with: nothing is trained on its answers."""
    return key(prompt) in _reserved()


def ask(rng: random.Random) -> str:
    """One filled template."""
    return _fill(rng.choice(TEMPLATES), rng)


def _fill(template: str, rng: random.Random) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: _word(match[1], rng), template)


def _word(kind: str, rng: random.Random) -> str:
    if kind == "digit":
        return str(rng.randint(2, 9))
    if kind == "number":
        return str(rng.randint(10, 99))
    if kind == "sentence":
        return _fill("{person} {deed} near the {adjective} {place}.", rng)
    if kind == "text":
        return _fill("{person} saw a {adjective} {object} in the {place}. {fact}. {fact}. Then {person} {deed}.", rng)
    return rng.choice(WORDS[kind])
