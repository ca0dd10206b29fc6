"""Engines without a server in between: each in its worker process, given token ids, timed inside that process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from minilab.comparar.tarea import Row, Task, Unavailable, percentile, row
from minillm_serve.bench.cells import Prompt, chat_prompts, shared_prefix
from minillm_serve.bench.child import ChildError, run_child
from minillm_serve.bench.copy_prompts import COPY_PROMPTS
from minillm_serve.bench.environment import available_cores
from minillm_serve.bench.prompts import conversation, evenly_spaced
from minillm_serve.compare.backend import Backend, BackendError, WorkerProcess, parse_backend
from minillm_serve.model.store import DEFAULT_MODEL, KNOWN_MODELS, cache_root
from minillm_serve.model.tokenizer import Tokenizer

SYSTEMS = {"transformers": "transformers", "minillm": "minillm", "vllm": "vLLM", "llamacpp": "llama.cpp"}
ALONE, BATCH, TOGETHER = "una a una", "lote con relleno", "todas a la vez"
SLOTS = (1, 2, 4, 8, 16, 32)
DRAFTS = 4
SPECULATION = {
    "vllm": {"speculative_config": {"method": "ngram", "num_speculative_tokens": DRAFTS, "prompt_lookup_max": 4}},
    "minillm": {"speculative_config": {"method": "ngram", "num_speculative_tokens": DRAFTS}},
}


@contextmanager
def engine(name: str, what: str):
    """A worker for the kind ``name``; whatever goes wrong becomes one Spanish sentence. what: the case, for it."""
    backend = parse_backend(name)
    if (reason := backend.why_absent()) is not None:
        raise Unavailable(f"no está instalado ({reason})")
    try:
        with WorkerProcess.of(backend) as worker:
            yield backend, worker
    except BackendError as error:
        raise Unavailable(f"falló en «{what}»: {str(error).splitlines()[-1][:200]}") from error


def load(backend: Backend, worker: WorkerProcess, task: Task, slots: int, max_len: int, **settings: Any) -> str:
    """Load the engine; returns the detail that its rows carry: version, type, settings."""
    if backend.kind == "llamacpp" and task.folder.name != DEFAULT_MODEL:
        raise Unavailable("aquí solo se compara con el modelo real, del que hay un archivo GGUF")
    gguf = cache_root() / "downloads" / Path(KNOWN_MODELS[DEFAULT_MODEL].member).name
    loaded = worker.load(
        model=str(task.folder), gguf=str(gguf), dtype=backend.dtype, mode=backend.spec.mode, threads=available_cores(),
        slots=slots, max_len=max_len, settings=settings,
    )  # fmt: skip
    version = loaded["info"].get("version") or ""
    dtype = "GGUF Q4_1" if backend.dtype == "gguf" else backend.dtype
    flags = ", ".join(f"{key}={value}" for key, value in settings.items())
    return ", ".join(part for part in (f"{SYSTEMS[backend.kind.partition('-')[0]]} {version}", dtype, flags) if part)


def speed(worker: WorkerProcess, waves: Sequence[Sequence[Prompt]], new_tokens: int) -> dict[str, Any]:
    """Tokens a second over all waves, one after another, and the TTFT of each request."""
    seconds, count, first = 0.0, 0, []
    for wave in waves:
        result = worker.run([list(prompt) for prompt in wave], new_tokens)
        seconds += result["seconds"]
        count += new_tokens * len(wave)
        first += [answer["times"][0] for answer in result["answers"] if answer["times"]]
    values = {"peticiones": sum(map(len, waves)), "segundos": seconds, "tok_s": count / seconds}
    return values | ({"ttft_p50": percentile(first, 50), "ttft_p95": percentile(first, 95)} if first else {})


def throughput(kind: str, requests: int, task: Task) -> list[Row]:
    """One by one (on a sample) and all at once; for transformers, its padded batch."""
    count, new_tokens, sample = task.size((requests, 32, 6), (8, 16, 2))
    prompts = chat_prompts(task.folder, count)
    singles = [[prompts[i]] for i in evenly_spaced(sample, count)]
    case = BATCH if kind == "transformers" else TOGETHER
    rows = []
    with engine(kind, case) as (backend, worker):
        longest = max(map(len, prompts)) + new_tokens
        detail = load(backend, worker, task, count, longest)
        worker.run([list(prompts[0])], 4)
        rows.append(row(SYSTEMS[kind], ALONE, detail, **_only(speed(worker, singles, new_tokens))))
        if kind == "transformers":
            backend = parse_backend("transformers-batch")
            detail = load(backend, worker, task, count, longest)
        else:
            worker.reset()
        worker.run([list(p) for p in prompts], 4)
        worker.reset()
        rows.append(row(SYSTEMS[kind], case, detail, **_only(speed(worker, [prompts], new_tokens))))
    return rows


def sweep(kind: str, task: Task) -> list[Row]:
    """The same requests with more and more places in the batch."""
    count, new_tokens, slots = task.size((32, 24, SLOTS), (8, 8, (1, 8)))
    prompts = chat_prompts(task.folder, count)
    longest, rows = max(map(len, prompts)) + new_tokens, []
    for places in slots:
        batched = kind == "transformers"
        settings = {} if kind in ("transformers", "llamacpp") else {"max_num_seqs": places}
        with engine("transformers-batch" if batched else kind, f"{places} plazas") as (backend, worker):
            detail = load(backend, worker, task, places, longest, **settings)
            worker.run([list(p) for p in prompts[:places]], 4)
            worker.reset()
            waves = [prompts[i : i + places] for i in range(0, count, places)] if batched else [prompts]
            values = {"plazas": places, **_only(speed(worker, waves, new_tokens))}
            rows.append(row(SYSTEMS[kind], str(places), detail, **values))
    return rows


def prefixes(kind: str, task: Task) -> list[Row]:
    """Requests that begin alike, one after another; the first, which fills the cache, is not counted."""
    shared, requests = task.size((512, 9), (200, 4))
    cell, rows = shared_prefix(task.folder, shared, requests, 8), []
    setting = parse_backend(kind).spec.prefix_setting
    for case, on in (("sin caché de prefijos", False), ("con caché de prefijos", True)):
        with engine(kind, case) as (backend, worker):
            detail = load(backend, worker, task, 1, cell.max_len, **{str(setting): on})
            for wave in cell.waves:
                worker.run([list(p) for p in wave], 2)
            worker.reset()
            for wave in cell.waves[: cell.prepare]:
                worker.run([list(p) for p in wave], cell.max_tokens)
            values = speed(worker, cell.waves[cell.prepare :], cell.max_tokens)
            rows.append(row(SYSTEMS[kind], case, detail, **values))
    return rows


def copying(task: Task) -> tuple[list[Prompt], int]:
    """Prompts whose answers repeat them, as token ids, and how many new tokens each gets."""
    count, new_tokens = task.size((4, 48), (2, 24))
    tokenizer = Tokenizer.from_folder(task.folder)
    texts = [prompt.text for prompt in COPY_PROMPTS[:count]]
    return [tuple(tokenizer.apply_chat_template(conversation(text))) for text in texts], new_tokens


def drafting(kind: str, task: Task) -> list[Row]:
    """Copying prompts one at a time, without drafts and with them."""
    prompts, new_tokens = copying(task)
    longest, rows = max(map(len, prompts)) + new_tokens, []
    for case, settings in (("sin borrador", {}), ("con borrador", SPECULATION[kind])):
        with engine(kind, case) as (backend, worker):
            detail = load(backend, worker, task, 1, longest, **settings)
            worker.run([list(prompts[0])], 4)
            worker.reset()
            rows.append(row(SYSTEMS[kind], case, detail, **_only(speed(worker, [[p] for p in prompts], new_tokens))))
    return rows


def transformers_drafting(task: Task) -> list[Row]:
    """``generate`` with ``prompt_lookup_num_tokens``, and without."""
    prompts, new_tokens = copying(task)
    runs = [
        {"caso": "sin borrador", "prompts": prompts, "nuevos": new_tokens, "opciones": {}},
        {"caso": "con borrador", "prompts": prompts, "nuevos": new_tokens,
         "opciones": {"prompt_lookup_num_tokens": DRAFTS}},
    ]  # fmt: skip
    return [
        row("transformers", r["caso"], detail, peticiones=len(prompts), tok_s=r["tokens"] / r["segundos"])
        for r, detail in _generate(task, runs)
    ]


def without_and_with_cache(task: Task) -> list[Row]:
    """One prompt, answers of several lengths, ``use_cache`` off and on."""
    lengths = task.size((16, 32, 64), (8, 16, 32))
    prompt = chat_prompts(task.folder, 1)[0]
    cases = [(f"{name}, {n} tokens", n, use) for name, use in (("sin caché KV", False), ("con caché KV", True))
             for n in lengths]  # fmt: skip
    runs = [{"caso": c, "prompts": [prompt], "nuevos": n, "opciones": {"use_cache": use}} for c, n, use in cases]
    return [
        row("transformers", r["caso"], detail, nuevos=r["tokens"], segundos=r["segundos"],
            tok_s=r["tokens"] / r["segundos"])
        for r, detail in _generate(task, runs)
    ]  # fmt: skip


def _generate(task: Task, runs: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    backend = replace(parse_backend("transformers"))
    if (reason := backend.why_absent()) is not None:
        raise Unavailable(f"no está instalado ({reason})")
    job = {"model": str(task.folder), "threads": available_cores(), "runs": runs}
    try:
        answer = run_child("minilab.comparar.generar", job, lambda _: None)
    except ChildError as error:
        raise Unavailable(f"falló: {str(error).splitlines()[-1][:200]}") from error
    return [(run, f"transformers {answer['version']}, float32") for run in answer["runs"]]


def _only(values: dict[str, Any]) -> dict[str, Any]:
    """Throughput alone: where requests wait for one another, the TTFT tells the queue."""
    return {name: values[name] for name in ("peticiones", "tok_s")}
