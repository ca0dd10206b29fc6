"""Servers to ask: ours, the vLLM of this machine, or one that runs elsewhere; all by the OpenAI client."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from minilab.comparar.tarea import Row, Task, Unavailable, row
from minillm_serve import __version__
from minillm_serve.bench.client import ChatJob, run_load
from minillm_serve.bench.judge import judge
from minillm_serve.bench.prompts import GUIDED_MAX_TOKENS, PROMPTS, conversation, guided_cases
from minillm_serve.bench.server_process import ServerError, ServerProcess
from minillm_serve.bench.stats import Timeline
from minillm_serve.compare.environments import how_to_install, installed_version, python_of

CLIENTS, NEW_TOKENS = 50, 32
STARTUP_S, REQUEST_S = 600.0, 600.0
BUDGETS = (64, 2048)
VLLM_FLAGS = ("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "64")
VLLM_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}
Serve = Callable[..., Any]  # a context manager: (url, detail)


@contextmanager
def our_server(task: Task, *flags: str) -> Iterator[tuple[str, str]]:
    """The ``minillm serve`` that runs already where nothing special is asked of it; else one of its own."""
    detail = " ".join([f"minillm {__version__}, minillm serve", *flags])
    if task.url and not flags:
        yield task.url, detail
        return
    with _started([str(task.folder), *flags]) as url:
        yield url, detail


@contextmanager
def vllm_server(task: Task, *flags: str) -> Iterator[tuple[str, str]]:
    """The vLLM of this machine, on its CPU."""
    if found := shutil.which("vllm"):
        program, version = found, "(la del sistema)"
    elif version := installed_version("vllm"):
        program = str(python_of("vllm").with_name("vllm"))
    else:
        raise Unavailable(f"no está instalado: {how_to_install('vllm')}")
    settings = [f"{name}={os.environ.get(name, value)}" for name, value in VLLM_SETTINGS.items()]
    flags = (*VLLM_FLAGS, *flags)
    with _started([str(task.folder), *flags], ["env", *settings, program, "serve"]) as url:
        yield url, " ".join([f"vLLM {version}, vllm serve", *flags])


@contextmanager
def _client(url: str) -> Iterator[Any]:
    """The official client; what it raises is Unavailable."""
    from openai import OpenAI, OpenAIError

    try:
        with OpenAI(base_url=url, api_key="sin-clave", max_retries=0, timeout=REQUEST_S) as client:
            yield client
    except OpenAIError as error:
        raise Unavailable(f"{url} dejó de responder ({error})") from error


@contextmanager
def _started(arguments: Sequence[str], command: Sequence[str] | None = None) -> Iterator[str]:
    options = {} if command is None else {"command": command, "startup_timeout_s": STARTUP_S}
    with tempfile.TemporaryDirectory(prefix="minilab-") as folder:
        try:
            with ServerProcess(arguments, Path(folder) / "servidor.log", **options) as server:
                yield server.base_url
        except ServerError as error:
            raise Unavailable(f"el servidor no arrancó o murió: {str(error).splitlines()[-1][:200]}") from error


def by_url(system: str, measure: Callable[..., list[Row]]) -> Callable[[Task, str, str], list[Row]]:
    """A measurement of a server elsewhere: ``measure(system, task, url, detail)``."""
    return lambda task, url, detail: measure(system, task, url, detail)


def here(system: str, serve: Serve, measure: Callable[..., list[Row]], *flags: str) -> Callable[[Task], list[Row]]:
    """The same measurement of a server that is started for it."""

    def measured(task: Task) -> list[Row]:
        with serve(task, *flags) as (url, detail):
            return measure(system, task, url, detail)

    return measured


def model_of(url: str) -> str:
    """What the server calls its model. Raises :class:`Unavailable` where nobody answers."""
    try:
        with urlopen(f"{url}/models", timeout=10) as answer:
            return json.load(answer)["data"][0]["id"]
    except (OSError, ValueError, LookupError) as error:
        raise Unavailable(f"{url} no responde como un servidor compatible con OpenAI ({error})") from error


def load_of(url: str, prompts: Sequence[str], new_tokens: int) -> dict[str, Any]:
    """All prompts at once through streaming clients: tokens a second and TTFT."""
    model = model_of(url)
    jobs = [ChatJob(str(i), conversation(prompt), new_tokens) for i, prompt in enumerate(prompts)]
    with ThreadPoolExecutor(1) as pool:  # a notebook's own event loop is running
        result = pool.submit(run_load, url, model, jobs).result()
    if result.failed:
        raise Unavailable(f"falló una petición: {result.failed[0].error}")
    summary = result.summary()
    first = summary["ttft_s"]
    return {"peticiones": len(prompts), "tok_s": summary["tok_s"], "ttft_p50": first["p50"], "ttft_p95": first["p95"]}


def clients(system: str, task: Task, url: str, detail: str) -> list[Row]:
    """Many streaming clients at once, after a warm-up."""
    count, new_tokens = task.size((CLIENTS, NEW_TOKENS), (8, 16))
    load_of(url, PROMPTS[-8:], 4)
    return [row(system, f"{count} clientes", detail, **load_of(url, PROMPTS[:count], new_tokens))]


def one_and_all(requests: int) -> Callable[..., list[Row]]:
    """One by one, then all at once, over HTTP."""

    def measure(system: str, task: Task, url: str, detail: str) -> list[Row]:
        count, new_tokens, sample = task.size((requests, NEW_TOKENS, 6), (8, 16, 2))
        prompts = [PROMPTS[i % len(PROMPTS)] for i in range(count)]
        load_of(url, prompts[:2], 4)
        start = time.perf_counter()
        for prompt in prompts[:sample]:
            load_of(url, [prompt], new_tokens)
        alone = {"peticiones": sample, "tok_s": sample * new_tokens / (time.perf_counter() - start)}
        together = load_of(url, prompts, new_tokens)
        together = {name: together[name] for name in alone}
        return [row(system, "una a una", detail, **alone), row(system, "todas a la vez", detail, **together)]

    return measure


def cache_use(system: str, task: Task, url: str, detail: str) -> list[Row]:
    """What /metrics says while many clients are served: the most blocks used, requests running and waiting."""
    names = {"max_uso_pct": ("kv_cache_usage_perc", 100), "max_en_curso": ("num_requests_running", 1),
             "max_en_espera": ("num_requests_waiting", 1)}  # fmt: skip
    most, done = dict.fromkeys(names, 0.0), threading.Event()

    def watch() -> None:
        while not done.is_set():
            now = metrics_of(url)
            for column, (name, scale) in names.items():
                most[column] = max(most[column], scale * now.get(name, 0.0))
            done.wait(0.1)

    count, new_tokens = task.size((CLIENTS, NEW_TOKENS), (8, 16))
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            load_of(url, PROMPTS[:count], new_tokens)
        finally:
            done.set()
        watching.result()
    return [row(system, f"{count} clientes", detail, **most)]


def metrics_of(url: str) -> dict[str, float]:
    """The gauges and counters of /metrics by their name without prefix; labelled ones are added up."""
    with urlopen(url.removesuffix("/v1") + "/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    totals: dict[str, float] = {}
    for line in lines:
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0].partition(":")[2]
            totals[name] = totals.get(name, 0.0) + float(value)
    return totals


def budgets(system: str, serve: Serve) -> Callable[[Task], list[Row]]:
    """A long prompt arrives while four requests decode, under a small and a large token budget."""

    def measure(task: Task) -> list[Row]:
        rows = []
        for budget in BUDGETS:
            # vLLM wants a budget of at least max-num-seqs, and of max-model-len where it does not chunk.
            with serve(task, "--max-num-batched-tokens", str(budget), "--no-enable-prefix-caching") as (url, detail):
                rows.append(row(system, f"presupuesto {budget}", detail, **_late_arrival(task, url)))
        return rows

    return measure


def _late_arrival(task: Task, url: str) -> dict[str, float]:
    words, new_tokens = task.size((1100, 64), (300, 24))
    model, text = model_of(url), " ".join(PROMPTS).split()
    long_prompt = " ".join((text * (words // len(text) + 1))[:words])
    decoding, late = threading.Semaphore(0), Timeline("largo", 0.0)
    short = [Timeline(str(i), 0.0) for i in range(4)]
    with _client(url) as client:
        ask = lambda *args: _stream(client, model, *args)  # noqa: E731
        ask(Timeline("calienta", 0.0), PROMPTS[-1], 4)
        with ThreadPoolExecutor(len(short)) as pool:
            running = [pool.submit(ask, t, PROMPTS[i], new_tokens, decoding) for i, t in enumerate(short)]
            for _ in short:
                decoding.acquire(timeout=REQUEST_S)
            ask(late, long_prompt, 4)
            for future in running:
                future.result()
    gaps = sorted(gap for t in short for gap in t.itl)
    return {"itl_p50": gaps[len(gaps) // 2], "itl_max": gaps[-1], "ttft_largo": late.ttft}


def _stream(
    client: Any, model: str, timeline: Timeline, prompt: str, new_tokens: int, fourth: threading.Semaphore | None = None
) -> None:
    """Read one streamed answer, stamping its chunks; ``fourth`` is released when the fourth has come."""
    timeline.sent = time.perf_counter()
    for chunk in client.chat.completions.create(
        model=model, messages=conversation(prompt), max_tokens=new_tokens, temperature=0, stream=True,
        extra_body={"ignore_eos": True},
    ):  # fmt: skip
        if chunk.choices:
            timeline.chunks.append(time.perf_counter())
            if fourth and len(timeline.chunks) == 4:
                fourth.release()


def guaranteed(system: str, task: Task, url: str, detail: str) -> list[Row]:
    """JSON asked for in words alone, and with a schema."""
    cases = guided_cases(task.size(25, 5))
    forms = [{"type": "json_schema", "json_schema": {"name": c.name, "schema": c.schema}} for c in cases]
    rows = []
    for case, extras in (("texto libre", [{}] * len(cases)), ("con esquema", [{"response_format": f} for f in forms])):
        start = time.perf_counter()
        answers = _ask(url, [c.prompt for c in cases], extras)
        seconds = time.perf_counter() - start
        valid = sum(judge(a["text"], c.schema, a["finish"]).valid for a, c in zip(answers, cases, strict=True))
        speed = sum(a["tokens"] for a in answers) / seconds
        values = {"peticiones": len(cases), "validas_pct": 100 * valid / len(cases), "tok_s": speed}
        rows.append(row(system, case, detail, **values))
    return rows


def old_field(system: str, task: Task, url: str, detail: str) -> list[Row]:
    """The removed ``guided_json`` beside ``response_format``, once each."""
    case = guided_cases(1)[0]
    form = {"type": "json_schema", "json_schema": {"name": case.name, "schema": case.schema}}
    fields = {"guided_json": {"extra_body": {"guided_json": case.schema}}, "response_format": {"response_format": form}}
    rows = []
    for name, extra in fields.items():
        answer = _ask(url, [case.prompt], [extra])[0]
        ok = answer["status"] == 200
        valid = "–" if not ok else "sí" if judge(answer["text"], case.schema, answer["finish"]).valid else "no"
        start = " ".join(answer["text"].split())[:70]
        rows.append(row(system, name, detail, http=answer["status"], valido=valid, respuesta=start))
    return rows


def _ask(url: str, prompts: Sequence[str], extras: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Chats at once, greedy: status, text, finish, tokens of each; a refused one has its message as the text."""
    from openai import APIStatusError

    model = model_of(url)
    with _client(url) as client:

        def ask(prompt: str, extra: dict[str, Any]) -> dict[str, Any]:
            try:
                answer = client.chat.completions.create(
                    model=model, messages=conversation(prompt), max_tokens=GUIDED_MAX_TOKENS, temperature=0, **extra
                )
            except APIStatusError as error:
                said = error.body.get("message", "") if isinstance(error.body, dict) else str(error.body)
                return {"status": error.status_code, "text": str(said), "finish": None, "tokens": 0}
            choice = answer.choices[0]
            count = answer.usage.completion_tokens
            return {
                "status": 200,
                "text": choice.message.content or "",
                "finish": choice.finish_reason,
                "tokens": count,
            }

        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(ask, prompts, extras))
