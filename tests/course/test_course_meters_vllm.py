"""The check against vLLM: which commands are let near a server, and that only what was measured counts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from meter_jobs import job

from minilab.modelo import make_tiny_model
from minilab.pruebas.casos import Reply
from minilab.pruebas.orden import order_judge
from minilab_grading.arnes.calificar import CheckMark
from minilab_grading.casos.vllm import CLIENT, JSON, RATIO, SUMMARY, vllm_check
from minilab_grading.medidores.banco import MeterError
from minilab_grading.medidores.traza import SCHEMA, collect, load_trace, write_trace
from minilab_grading.medidores.vllm_traza import RecordedVllm
from minilab_grading.medidores.vllm_vivo import LiveVllm, server_arguments
from minillm_serve.bench.server_process import ServerProcess

ORDER = """
def orden_vllm(modelo, puerto, peticiones, contexto):
    return ["vllm", "serve", modelo, "--host", "127.0.0.1", "--port", str(puerto),
            "--max-num-seqs", str(peticiones), "--max-model-len", str(contexto)]
"""


GOOD = [
    "vllm",
    "serve",
    "/m/x",
    "--host",
    "127.0.0.1",
    "--port",
    "8001",
    "--max-num-seqs",
    "64",
    "--max-model-len",
    "2048",
]


@pytest.mark.parametrize(
    "argv",
    [
        GOOD,
        [*GOOD[:7], "--max-model-len=2K"],
        [*GOOD[:7], "--max_model_len", "4k", "--dtype", "float32", "--enforce-eager", "--no-enable-prefix-caching"],
        [*GOOD, "--gpu-memory-utilization", "0.85", "--seed", "0", "--served-model-name", "/m/x"],
        [*GOOD, "--structured-outputs-config", '{"backend": "xgrammar"}'],
    ],
)
def test_orders_that_serve_are_accepted(argv: list[str]) -> None:
    assert order_judge("/m/x", 8001, 50, 2048)(Reply(value=argv)) is None


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (" ".join(GOOD), "lista"),
        ([], "lista"),
        ([*GOOD[:5], 8001], "lista"),
        (["vllm serve", *GOOD[2:]], "propio elemento"),
        ([*GOOD, " "], "propio elemento"),
        (["python", "-m", "vllm.entrypoints.openai.api_server", "--model", "/m/x"], "api_server"),
        (["bash", "-c", "vllm"], "vllm serve"),
        (["vllm", "serve", "--model", "/m/x", *GOOD[3:]], "modelo"),
        (["vllm", "serve", "/m/otro", *GOOD[3:]], "modelo"),
        ([*GOOD, "--model", "/m/x"], "detrás"),
        ([*GOOD, "&&", "rm"], "no pertenece"),
        ([*GOOD, "--port", "8001"], "una sola vez"),
        ([*GOOD[:5], "--port", "8002", *GOOD[7:]], "--port 8001"),
        ([*GOOD[:5], *GOOD[7:]], "--port 8001"),
        ([*GOOD[:3], *GOOD[5:]], "--host"),
        ([*GOOD[:4], "0.0.0.0", *GOOD[5:]], "--host"),
        ([*GOOD[:8], "16", *GOOD[9:]], "--max-num-seqs"),
        ([*GOOD[:8], "muchas", *GOOD[9:]], "entero"),
        ([*GOOD[:10], "1024"], "--max-model-len"),
        (GOOD[:9], "--max-model-len"),
        (GOOD[:10], "un valor"),
        ([*GOOD, "--guided-decoding-backend", "outlines"], "se retiró"),
        ([*GOOD, "--disable-log-requests"], "se retiró"),
        ([*GOOD, "--api-key", "s3creto"], "secreto"),
        ([*GOOD, "--trust-remote-code"], "admitidas"),
        ([*GOOD, "--enforce-eager=1"], "sin valor"),
        ([*GOOD, "--gpu-memory-utilization", "90"], "fracción"),
        ([*GOOD, "--dtype", "int3"], "valores"),
        ([*GOOD, "--served-model-name", "otro"], "mismo nombre"),
        ([*GOOD, "--max-num-batched-tokens", "8"], "--max-num-batched-tokens"),
    ],
)
def test_orders_that_do_not_serve_or_could_do_harm_are_refused(argv, word: str) -> None:
    assert word in order_judge("/m/x", 8001, 50, 2048)(Reply(value=argv))


def test_the_grader_starts_the_server_on_its_own_terms(tmp_path: Path) -> None:
    model = tmp_path / "mini"
    assert server_arguments(GOOD, model, "cuda") == [
        str(model), "--max-num-seqs", "64", "--max-model-len", "2048", "--served-model-name", "mini",
    ]  # fmt: skip
    on_cpu = server_arguments([*GOOD, "--dtype=bfloat16", "--no-enable-prefix-caching"], model, "cpu")
    assert "bfloat16" in on_cpu and "float32" not in on_cpu and "--enforce-eager" in on_cpu


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("modelo") / "mini")


def small_trace(folder: Path, name: str = "prueba", rate: float = 20.0) -> None:
    """Five answers of six tokens, all within a second: 60 tokens per second."""
    answers = [
        {"uso": 6, "fin": 0.5, "trozos": [[0.1 + 0.01 * n, " uno"], [0.3, " dos"], [0.45, " tres"]]} for n in range(5)
    ]
    data = {
        "esquema": SCHEMA, "fecha": "2026-01-01", "entorno": {"cpu": "ninguna"}, "tokens_nuevos": 6,
        "pipeline": {"una_a_una": {"tok_s": rate}}, "respuestas": answers,
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")


@pytest.fixture
def cells(solutions: dict[str, str]) -> dict[str, str]:
    return {name: solutions.get(name, ORDER) for name in vllm_check(1).cells}


def credits(mark: CheckMark) -> dict[str, float]:
    return {r.name: r.credit for r in mark.results}


def test_an_honest_client_finds_the_throughput_of_the_trace(tmp_path: Path, cells) -> None:
    small_trace(tmp_path, rate=12.0)
    meter = RecordedVllm("prueba", tmp_path)
    mark = meter.measure(job(vllm_check(7), cells))
    assert mark.fraction == 1 and JSON not in credits(mark)
    assert next(r.note for r in mark.results if r.name == RATIO) == "5,0×"
    assert mark.measures["modo"] == "traza grabada" and len(mark.measures["sha256"]) == 64
    again = meter.measure(job(vllm_check(7), cells, measures=json.loads(json.dumps(mark.measures))))
    assert again == mark


def test_a_ratio_below_the_target_earns_its_part(tmp_path: Path, cells) -> None:
    small_trace(tmp_path)
    mark = RecordedVllm("prueba", tmp_path).measure(job(vllm_check(7), cells))
    assert credits(mark)[RATIO] == pytest.approx(0.6) and credits(mark)[CLIENT] == 1  # 60 / 20 = 3x


def test_wrong_parts_lose_their_own_points_and_the_ratio(tmp_path: Path, cells) -> None:
    small_trace(tmp_path, rate=6.0)
    meter = RecordedVllm("prueba", tmp_path)
    inflated = cells["resume"].replace('sum(p["tokens"] for p in peticiones) / reloj', "10**6")
    got = credits(meter.measure(job(vllm_check(7), {**cells, "resume": inflated})))
    assert (got[CLIENT], got[SUMMARY], got[RATIO]) == (1, 0, 0)
    slow = cells["cliente"].replace(
        "list(await asyncio.gather(*(mide_una(cliente, modelo, p, max_tokens, reloj) for p in prompts)))",
        "[await mide_una(cliente, modelo, p, max_tokens, reloj) for p in prompts]",
    )
    got = credits(meter.measure(job(vllm_check(7), {**cells, "cliente": slow})))
    assert (got[CLIENT], got[SUMMARY], got[RATIO]) == (0, 1, 0)
    shell = "def orden_vllm(*a):\n    return 'vllm serve modelo'\n"
    got = credits(meter.measure(job(vllm_check(7), {**cells, "orden_vllm": shell})))
    assert sum(got.values()) == 3 and got[RATIO] == 1
    exits = "import os\ndef orden_vllm(*a):\n    os._exit(1)\n"
    mark = meter.measure(job(vllm_check(7), {**cells, "orden_vllm": exits}))
    assert "terminó" in mark.notice and credits(mark)[RATIO] == 1


def test_a_trace_that_changed_is_not_used_for_an_old_record(tmp_path: Path, cells) -> None:
    small_trace(tmp_path)
    measures = RecordedVllm("prueba", tmp_path).measure(job(vllm_check(7), cells)).measures
    small_trace(tmp_path, rate=1.0)
    with pytest.raises(MeterError, match="ya no es la que se usó"):
        RecordedVllm("prueba", tmp_path).measure(job(vllm_check(7), cells, measures=measures))
    with pytest.raises(MeterError, match="hay: prueba"):
        load_trace("otra", tmp_path)


@contextmanager
def own_server(model: Path, log: Path) -> Iterator[ServerProcess]:
    with ServerProcess([str(model), "--served-model-name", "mini"], log) as server:
        yield server


def test_a_trace_is_recorded_from_a_server_and_replayed(tiny: Path, tmp_path: Path, cells) -> None:
    pytest.importorskip("transformers")
    path = tmp_path / "grabada.json"
    with own_server(tiny, tmp_path / "servidor.log") as server:
        collected = collect(server.base_url, "mini", tiny, clients=6, new_tokens=5)
    trace = write_trace(path, collected, tiny, ["minillm", "serve", "mini"], threads=1, busy_limit=1.0)
    assert [a.tokens for a in trace.answers] == [5] * 6
    assert set(trace.data["pipeline"]) == {"una_a_una", "en_lote"}
    got = credits(RecordedVllm("grabada", tmp_path).measure(job(vllm_check(7), cells)))
    assert (got[CLIENT], got[SUMMARY]) == (1, 1)


def test_live_measuring_starts_the_server_with_the_students_command(tiny: Path, tmp_path: Path, cells) -> None:
    """Against our own server, which takes the same flags; vLLM itself needs minutes."""
    pytest.importorskip("transformers")
    command = [sys.executable, "-m", "minillm_serve.cli"]
    meter = LiveVllm(tiny, threads=1, command=command, clients=4, new_tokens=5, json_cases=5)
    mark = meter.measure(job(vllm_check(7), cells))
    got = credits(mark)
    assert (got[CLIENT], got[SUMMARY], got[JSON]) == (1, 1, 1) and mark.measures["modo"] == "vLLM en vivo"
    recorded = job(vllm_check(7), cells, measures=json.loads(json.dumps(mark.measures)))
    small_trace(tmp_path)
    for judge in (meter, RecordedVllm("prueba", tmp_path)):  # the second is the one that regrades
        assert judge.measure(recorded) == mark
    assert str(tiny.parent) not in json.dumps(mark.measures)


def test_live_measuring_refuses_what_could_do_harm_before_it_starts_anything(tiny: Path, tmp_path: Path, cells) -> None:
    meter = LiveVllm(tiny, command=["/no/existe"], clients=3)
    bad = ORDER.replace('"--host"', '"--trust-remote-code", "--host"')
    mark = meter.measure(job(vllm_check(7), {**cells, "orden_vllm": bad}))
    assert mark.fraction == 0 and "trust-remote-code" in mark.notice
    recorded = job(vllm_check(7), {**cells, "orden_vllm": bad}, measures=mark.measures)
    small_trace(tmp_path)
    assert RecordedVllm("prueba", tmp_path).measure(recorded) == mark
    legacy = cells["cliente"].replace(
        'extra_body={"ignore_eos": True}', 'extra_headers={"x": "y"}, extra_body={"ignore_eos": True}'
    )
    mark = meter.measure(job(vllm_check(7), {**cells, "cliente": legacy}))
    assert "extra_headers" in mark.notice and credits(mark)["orden para un modelo local"] == 1
