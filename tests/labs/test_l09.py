"""Lab 9: its solution holds in every hidden case, each common wrong answer is caught, and real clients are served."""

from __future__ import annotations

import json
import time
from random import Random
from urllib.request import urlopen

import pytest
from mutants import (
    Mutant,
    assert_caught,
    assert_page_names_each,
    assert_solution_passes,
    hidden_check,
    names_of,
    results,
    solution_cells,
)

from minilab.asincrono import corre
from minilab.bancos.motor_por_pasos import EnHilo, MotorReal, PortTaken
from minilab.modelo import make_tiny_model
from minilab.pruebas.jueces_servidor import complete_prefix, sse_events
from minilab.pruebas.publicas import checks_of
from minillm_serve import LLM, SamplingParams

LAB = "L09_servidor_openai"
PUBLIC = checks_of("l09")

MUTANTS = [
    Mutant("trozo_sse", "pega el diccionario sin json.dumps", "json.dumps(evento)", "str(evento)"),
    Mutant("trozo_sse", "un solo salto de línea", '{dentro}\\n\\n"', '{dentro}\\n"'),
    Mutant("trozo_sse", "[DONE] entre comillas", '"[DONE]" if', '\'"[DONE]"\' if'),
    Mutant(
        "trozo_sse", "quita los saltos del texto",
        "json.dumps(evento)", "json.dumps(json.loads(json.dumps(evento).replace('\\\\n', ' ')))",
    ),
    Mutant("decodificador", "cada trozo por su cuenta", "- self.incompletos()", ""),
    Mutant("decodificador", "mira solo el último octeto", "self.pendiente[-3:]", "self.pendiente[-1:]"),
    Mutant("decodificador", "guarda también lo completo", "atras if atras < ocupa else 0", "atras"),
    Mutant("decodificador", "todo ocupa dos octetos", "4 if octeto >= 0xF0 else 3 if octeto >= 0xE0 else 2", "2"),
    Mutant("decodificador", "un carácter de tres, por uno de dos", "octeto >= 0xE0", "octeto > 0xE2"),
    Mutant("decodificador", "ignora lo que no se completó", 'return resto.decode("utf-8", "replace")', 'return ""'),
    Mutant(
        "decodificador", "se cae con un octeto raro",
        'completo.decode("utf-8", "replace")', 'completo.decode("utf-8")', hidden=True,
    ),
    Mutant("valida_peticion", "acepta True como entero", "type(maximo) is int", "isinstance(maximo, int)"),
    Mutant("valida_peticion", "ignora lo que no sabe hacer", "for campo in NO_SABEMOS)", "for campo in ())"),
    Mutant("valida_peticion", "modelo desconocido como 400", "modelo, 404,", "modelo, 400,"),
    Mutant("valida_peticion", "deja pasar un cero", "maximo > 0)", "maximo >= 0)", hidden=True),
    Mutant("valida_peticion", "no cuenta el prompt", "entrada + maximo > contexto", "maximo > contexto"),
    Mutant("valida_peticion", "el código como texto", '"code": estado', '"code": str(estado)'),
    Mutant("valida_peticion", "mira solo el primer mensaje",
           "all(map(es_mensaje, mensajes))", "es_mensaje(mensajes[0])", hidden=True),
    Mutant("valida_peticion", "rechaza el extremo", "0 <= calor <= 2", "0 < calor < 2", hidden=True),
    Mutant("valida_peticion", "no mira la temperatura", "calor is None or (", "True or ("),
    Mutant("valida_peticion", "acepta una lista vacía", "isinstance(mensajes, list) and mensajes and",
           "isinstance(mensajes, list) and"),
    Mutant("valida_peticion", "el prompt que llena el contexto, culpa de max_tokens",
           "entrada >= contexto", "entrada > contexto"),
    Mutant("valida_peticion", "rechaza un valor nulo", "(maximo is None or", "('max_tokens' not in peticion or",
           hidden=True),
    Mutant("valida_peticion", "no mira si es un diccionario", "not isinstance(peticion, dict)", "peticion is None",
           hidden=True),
    Mutant("puente", "el paso, en el hilo del bucle", "await asyncio.to_thread(self.motor.paso)", "self.motor.paso()"),
    Mutant("puente", "entra sin encargarlo", "self.encarga(lambda: self.motor.entra(id, prompt, max_tokens))",
           "self.motor.entra(id, prompt, max_tokens); self.despierta.set()"),
    Mutant("puente", "aborta sin encargarlo", "self.encarga(lambda: self.motor.aborta(id))", "self.motor.aborta(id)"),
    Mutant("puente", "no aborta", "self.encarga(lambda: self.motor.aborta(id))", "pass"),
    Mutant("puente", "aborta también a quien acabó", "if not fin:\n", "if True:\n"),
    Mutant("puente", "deja la cola abierta", "del self.colas[id]", "pass"),
    Mutant("puente", "supone que nadie se ha ido", "if id in self.colas:", "if True:"),
    Mutant("puente", "da vueltas sin trabajo",
           "self.despierta.clear()\n                await self.despierta.wait()", "await asyncio.sleep(0)"),
    Mutant("puente", "pregunta cada poco",
           "self.despierta.clear()\n                await self.despierta.wait()", "await asyncio.sleep(0.001)"),
    Mutant("puente", "olvida clear()", "self.despierta.clear()\n", "pass\n"),
    Mutant("puente", "acaba cuando no queda nada", "await self.despierta.wait()", "return"),
    Mutant("puente", "cumple un encargo por vuelta", "while self.encargos:", "if self.encargos:", hidden=True),
    Mutant("puente", "el mismo número para todos", "self.ultimo += 1", "self.ultimo = 1"),
    Mutant("expone_metricas", "cubos sin acumular", "sum(vista <= limite for vista in vistas)",
           "sum(vista <= limite for vista in vistas) - sum(vista <= limite / 5 for vista in vistas)"),
    Mutant("expone_metricas", "excluye el límite", "vista <= limite", "vista < limite"),
    Mutant("expone_metricas", "sin el cubo +Inf", '"le": "+Inf"}', '"le": 1e9}'),
    Mutant("expone_metricas", "no escapa las etiquetas", "escapa(texto)}", "texto}", hidden=True),
    Mutant("expone_metricas", "sin salto al final", '"\\n".join(lineas) + "\\n"', '"\\n".join(lineas)'),
    Mutant("crea_app", "un Decodificador por trozo", "texto.agrega(octetos)", "Decodificador().agrega(octetos)"),
    Mutant("crea_app", "siempre stop", '"length" if salida == maximo else "stop"', '"stop"'),
    Mutant("crea_app", "el error con código 200", "JSONResponse(error_openai(*error), error[0])",
           "JSONResponse(error_openai(*error))"),
    Mutant("crea_app", "sin streaming también transmite", 'if peticion.get("stream"):', "if True:"),
    Mutant("crea_app", "junta la respuesta antes de enviarla", "async for octetos in flujo:",
           "for octetos in [b''.join([o async for o in flujo])]:"),
    Mutant("crea_app", "un valor nulo se queda sin los 16 tokens", '.get("max_tokens") or 16', '.get("max_tokens", 16)',
           hidden=True),
    Mutant("crea_app", "manda solo el texto al puente",
           "puente.genera(mensajes,", 'puente.genera(mensajes[-1]["content"],'),
    Mutant("crea_app", "no mira la longitud", "    if not error:\n", "    if False:\n", hidden=True),
    Mutant("chat_arreglado", "decodifica cada trozo", 'b"".join(octetos).decode("utf-8", "replace")',
           '"".join(o.decode("utf-8", "replace") for o in octetos)'),
    Mutant("chat_arreglado", "se cae si acaba a medias", '.decode("utf-8", "replace")', ".decode()"),
    Mutant("chat_arreglado", "manda el texto y no la lista de mensajes", '[{"role": "user", "content": mensaje}]',
           "mensaje"),
]  # fmt: skip


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    folder = make_tiny_model(tmp_path_factory.mktemp("modelo") / "mini")
    return LLM(folder, max_model_len=512, enable_prefix_caching=False)


@pytest.fixture
def student(solved):
    """All names of the solved lab, as the grader's worker would hold them."""
    return names_of(LAB, *solution_cells(solved(LAB)).values())


@pytest.fixture
def served(student, llm):
    """The solved app over the real engine, on a port."""

    def make():
        bridge = student["Puente"](MotorReal(llm))
        return bridge, student["crea_app"](bridge, "mini", bridge.motor.contexto)

    with EnHilo(make) as server:
        yield server


def in_a_hurry(*sources: str) -> dict:
    """Clients of a wrong bridge wait for what never comes."""
    return names_of(LAB, *sources) | {"REHEARSAL_S": 1.0}


def test_the_solution_passes_every_hidden_case(solved):
    assert_solution_passes(LAB, solution_cells(solved(LAB)), range(4))


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_common_wrong_answer_is_caught(solved, mutant):
    assert_caught(LAB, solution_cells(solved(LAB)), mutant, build=in_a_hurry)


def test_the_page_names_each_wrong_answer_and_what_catches_it():
    assert_page_names_each(LAB, MUTANTS)


def test_a_constant_and_the_public_answers_earn_nothing_hidden():
    forged = {
        "trozo_sse": "def trozo_sse(evento):\n    return 'data: {\"a\": 1}\\n\\n'\n",
        "expone_metricas": "def expone_metricas(metricas):\n    return ''\n",
        "decodificador": "class Decodificador:\n    agrega = lambda self, octetos: ''\n    termina = lambda self: ''\n",
    }
    for name, source in forged.items():
        found = results(hidden_check(LAB, name, 3), names_of(LAB, source))
        assert not any(r.passed for r in found), name


def test_the_decoder_agrees_with_python_on_bytes_of_any_kind(student):
    """Whatever the bytes and wherever they are cut, the total is what decoding them at once gives."""
    rng = Random(9)
    interesting = [
        0x00,
        0x41,
        0x7F,
        0x80,
        0x9F,
        0xA0,
        0xBF,
        0xC0,
        0xC3,
        0xDF,
        0xE0,
        0xE2,
        0xED,
        0xEF,
        0xF0,
        0xF4,
        0xF5,
        0xFF,
    ]
    for _ in range(3000):
        octets = bytes(rng.choice(interesting) for _ in range(rng.randrange(1, 9)))
        decoder, cut = student["Decodificador"](), rng.randrange(len(octets) + 1)
        got = decoder.agrega(octets[:cut]) + decoder.agrega(octets[cut:]) + decoder.termina()
        assert got == octets.decode("utf-8", "replace"), list(octets)


def test_the_judges_know_a_stream_and_a_character():
    assert sse_events("data: a\n\ndata: b\r\n\r\ndata: c\ndata: d\n\n: note\n\ndata: lost\n") == ["a", "b", "c\nd"]
    assert complete_prefix("a🙂".encode()[:4]) == "a" and complete_prefix("ñ".encode()) == "ñ"


def test_the_official_client_reads_what_the_engine_says(served, llm):
    from openai import APIStatusError, OpenAI

    messages = [{"role": "user", "content": "Say ñandú 🙂"}]
    [reference] = llm.chat([messages], SamplingParams(max_tokens=24, temperature=0.0))
    with OpenAI(base_url=served.url, api_key="x", max_retries=0) as client:
        assert [card.id for card in client.models.list()] == ["mini"]
        request = {"model": "mini", "messages": messages, "max_tokens": 24}
        chunks = list(client.chat.completions.create(**request, stream=True))
        text = "".join(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)
        whole = client.chat.completions.create(**request)
        assert text == whole.choices[0].message.content == reference.outputs[0].text
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        with pytest.raises(APIStatusError) as refused:
            client.chat.completions.create(**{**request, "max_tokens": 9999})
        assert (refused.value.status_code, refused.value.body["param"]) == (400, "max_tokens")


def test_fifty_clients_share_the_engine_and_one_that_hangs_up_frees_its_place(served, llm):
    from openai import AsyncOpenAI

    async def ask(client, place):
        stream = await client.chat.completions.create(
            model="mini", messages=[{"role": "user", "content": f"Question {place}"}], max_tokens=60, stream=True
        )
        texts = []
        async for chunk in stream:
            texts += [choice.delta.content for choice in chunk.choices]
            if place == 0:
                await stream.close()
                return None
        return "".join(texts)

    async def everybody():
        import asyncio

        async with AsyncOpenAI(base_url=served.url, api_key="x", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, place) for place in range(50)))

    answers = corre(everybody())
    chats = [[{"role": "user", "content": f"Question {place}"}] for place in range(1, 50)]
    expected = [o.outputs[0].text for o in llm.chat(chats, SamplingParams(max_tokens=60, temperature=0.0))]
    assert answers[1:] == expected
    deadline = time.monotonic() + 30
    while running(served) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running(served) == 0 and llm.core.stats().kv_blocks_used == 0


def running(served) -> int:
    lines = urlopen(served.url.replace("/v1", "/metrics")).read().decode().splitlines()
    return int(next(line for line in lines if line.startswith("aula:num_requests_running{")).rpartition(" ")[2])


def test_a_port_in_use_is_one_spanish_sentence(served):
    with pytest.raises(PortTaken, match="ya está en uso") as taken:
        EnHilo(lambda: (None, None), puerto=served.puerto)
    assert taken.value._render_traceback_() == [str(taken.value)]


def test_a_bridge_that_nobody_wrote_is_said_where_the_server_starts(student, llm):
    class Unwritten(student["Puente"]):
        async def bucle(self):
            raise NotImplementedError("Falta implementar")

    def make():
        bridge = Unwritten(MotorReal(llm))
        return bridge, student["crea_app"](bridge, "mini", bridge.motor.contexto)

    with pytest.raises(NotImplementedError, match="Falta implementar"):
        EnHilo(make)


def test_the_last_piece_tells_the_reason_and_events_stay_whole(served):
    from urllib.request import Request

    body = {"model": "mini", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "stream": True}
    request = Request(served.url + "/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    events = sse_events(urlopen(request).read().decode())
    assert events[-1] == "[DONE]" and len(events) == 5 + 1 + 1 + 1
    reasons = [json.loads(event)["choices"][0]["finish_reason"] for event in events[:-2]]
    assert reasons == [None] * 5 + ["length"]
