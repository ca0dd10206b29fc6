"""The engine's story in eight stages: configurations of one engine, each with one more idea switched on.

Nothing here is a second engine (design rule 5): a stage is a set of EngineConfig fields, so that what changes between
two stages is the idea alone. Greedy fp32 tokens are the same in all of them. ``run_stage`` is what notebooks call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from minillm_serve.bench.child import Progress, child_main
from minillm_serve.bench.environment import peak_memory_mib
from minillm_serve.bench.stage_workload import Workload, build_workload
from minillm_serve.config import EngineConfig
from minillm_serve.engine.replay import replay
from minillm_serve.engine.trace import duration
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model
from minillm_serve.params import SamplingParams
from minillm_serve.plan import RequestInit, StepPlan

if TYPE_CHECKING:
    from minillm_serve.engine.core import EngineCore

MAX_MODEL_LEN = 1024
KV_TOKENS = 8 * MAX_MODEL_LEN


@dataclass(frozen=True)
class Stage:
    """One idea. settings: EngineConfig fields on top of those of the stage before; title, watch: for students."""

    name: str
    title: str
    switches: str
    settings: Mapping[str, Any]
    read: str
    watch: str


STAGES: tuple[Stage, ...] = (
    Stage(
        "no-cache",
        "Sin caché",
        "nothing: one request at a time, every step reads its whole sequence again",
        {
            "attention_backend": "none",
            "max_model_len": MAX_MODEL_LEN,
            "max_num_seqs": 1,
            "max_num_batched_tokens": MAX_MODEL_LEN,
            "enable_chunked_prefill": False,
            "enable_prefix_caching": False,
        },
        "attention/no_cache.py",
        "El tiempo de cada token crece con la longitud de la secuencia: todo se vuelve a calcular.",
    ),
    Stage(
        "contiguous",
        "Caché KV contigua",
        "a KV cache, reserved in one piece for the longest sequence possible",
        {
            "attention_backend": "paged",
            "block_size": MAX_MODEL_LEN,
            "num_kv_blocks": KV_TOKENS // MAX_MODEL_LEN,
        },
        "attention/backends.py",
        "El tiempo por token se vuelve constante; a cambio, casi toda la memoria reservada queda vacía.",
    ),
    Stage(
        "paged",
        "Caché KV paginada",
        "blocks of 16 tokens and a block table",
        {"block_size": 16, "num_kv_blocks": KV_TOKENS // 16},
        "kv/block_pool.py",
        "El desperdicio baja a medio bloque por secuencia, con los mismos tokens y la misma velocidad.",
    ),
    Stage(
        "static",
        "Lote estático",
        "many requests in one step; a new batch starts when the last one has ended whole",
        {"max_num_seqs": 32, "batching": "static"},
        "runner/batch.py",
        "Más tokens por segundo: los pesos se leen una vez por paso para todo el lote. Quien llega tarde espera.",
    ),
    Stage(
        "continuous",
        "Lote continuo",
        "requests join and leave the batch in any step",
        {"batching": "continuous"},
        "sched/scheduler.py",
        "La petición que llega tarde ya no espera al lote, pero leer su prompt largo detiene a las demás.",
    ),
    Stage(
        "chunked",
        "Prefill por trozos",
        "a token budget per step: long prompts are read over several steps",
        {"enable_chunked_prefill": True, "max_num_batched_tokens": 128},
        "engine/core.py",
        "La pausa más larga entre dos tokens se acorta: un prompt largo ya no ocupa un paso entero.",
    ),
    Stage(
        "prefix",
        "Caché de prefijos",
        "blocks of equal prefixes are shared",
        {"enable_prefix_caching": True},
        "kv/prefix_cache.py",
        "El primer token llega antes: el prefijo común se calcula una sola vez.",
    ),
    Stage(
        "int8",
        "Pesos y activaciones en int8",
        "8-bit weights and activations",
        {"quantization": "int8"},
        "quant/int8.py",
        "Más rápido y con menos memoria; ya no son exactamente los mismos tokens.",
    ),
)


def stage_named(name: str) -> Stage:
    """Raises KeyError with the names there are."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise KeyError(f"unknown stage {name!r}; the stages are {', '.join(stage.name for stage in STAGES)}")


def settings_of(stage: Stage) -> dict[str, Any]:
    """All EngineConfig fields of a stage: its own on top of those of every stage before it."""
    settings: dict[str, Any] = {}
    for earlier in STAGES[: STAGES.index(stage) + 1]:
        settings |= earlier.settings
    return settings


@dataclass(frozen=True)
class StageResult:
    """What one stage did with the workload.

    ttft_ms, ttft_max_ms: median and longest time to the first token; pause_ms: longest wait between two tokens of one
    answer; kv_waste: share of the KV slots held by requests that have no token in them, mean over the steps (None
    without a cache); computed_tokens: those that went through the model; cached_tokens: those found in the prefix
    cache; peak_mib: of the whole process since it began; tokens: every answer.
    """

    stage: str
    ttft_ms: float
    ttft_max_ms: float
    pause_ms: float
    tok_s: float
    seconds: float
    steps: int
    computed_tokens: int
    cached_tokens: int
    kv_waste: float | None
    peak_mib: float
    tokens: tuple[tuple[int, ...], ...]
    trace: dict[str, Any] = field(repr=False)

    def record(self) -> dict[str, Any]:
        """The figures as JSON values, without the trace."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "trace"}


def run_stage(
    stage: Stage, workload: Workload, model: str = DEFAULT_MODEL, threads: int | None = None, **settings: Any
) -> StageResult:
    """Serve the workload in this process with the stage's engine. settings: further EngineConfig fields, which win."""
    from minillm_serve.engine.build import build_core  # torch: not for those who only read the story

    config = EngineConfig(**{"model": str(model), "num_threads": threads} | settings_of(stage) | settings)
    core = build_core(config, trace=True)
    warm_up(core, config.block_size)
    serve(core, workload)
    return measure(stage, core.trace.content())


def warm_up(core: EngineCore, block_size: int, tokens: int = 32) -> None:
    """Run the model once, past the scheduler: hand-made plans leave queues, prefix cache and trace as they were."""
    params = SamplingParams(temperature=0, max_tokens=2)
    new = RequestInit(rid=-1, token_ids=(1,) * tokens, num_prompt_tokens=tokens, params=params, seed=0)
    blocks = tuple(range(-(-(tokens + 1) // block_size)))
    core.runner.execute(StepPlan(0, {-1: tokens}, (new,), {-1: blocks}))
    core.runner.execute(StepPlan(0, {-1: 1}))
    core.runner.execute(StepPlan(0, {}, finished=(-1,)))


def serve(core: EngineCore, workload: Workload) -> None:
    """Answer every request. One arrives when so many tokens have been generated in all, which no clock disturbs."""
    ahead = sorted(enumerate(workload), key=lambda item: item[1].after_tokens)
    generated = 0
    while ahead or core.has_work():
        while ahead and (ahead[0][1].after_tokens <= generated or not core.has_work()):
            number, job = ahead.pop(0)
            params = SamplingParams(temperature=0, max_tokens=job.max_tokens, ignore_eos=True)
            core.add(str(number), core.prepare(job.prompt_ids, params))
        core.step()
        generated += sum(len(ids) for ids in core.trace.steps[-1]["tokens"].values())


def measure(stage: Stage, trace: dict[str, Any]) -> StageResult:
    """The figures of a run, all of them from its trace."""
    requests = sorted(trace["requests"].items(), key=lambda item: int(item[1]["id"]))
    steps = trace["steps"]
    moments: dict[str, list[float]] = {rid: [] for rid, _ in requests}
    tokens: dict[str, list[int]] = {rid: [] for rid, _ in requests}
    for step in steps:
        for rid, ids in step["tokens"].items():
            moments[rid] += [step["start"] + duration(step)] * len(ids)
            tokens[rid] += ids
    first = [moments[rid][0] - request["arrival"] for rid, request in requests]
    pauses = [after - before for own in moments.values() for before, after in pairwise(own)]
    seconds = max(own[-1] for own in moments.values()) - min(request["arrival"] for _, request in requests)
    hits = [cached for step in steps for _, cached in step.get("new_requests", {}).values()]
    return StageResult(
        stage=stage.name,
        ttft_ms=median(first) * 1e3,
        ttft_max_ms=max(first) * 1e3,
        pause_ms=max(pauses, default=0.0) * 1e3,
        tok_s=sum(map(len, tokens.values())) / seconds,
        seconds=seconds,
        steps=len(steps),
        computed_tokens=computed_tokens(trace),
        cached_tokens=sum(hits),
        kv_waste=None if trace["config"]["attention_backend"] == "none" else kv_waste(trace),
        peak_mib=peak_memory_mib(),
        tokens=tuple(tuple(ids) for ids in tokens.values()),
        trace=trace,
    )


def computed_tokens(trace: dict[str, Any]) -> int:
    """Tokens that went through the model; without a cache every step takes whole sequences."""
    whole = trace["config"]["attention_backend"] == "none"
    return sum(
        step.num_cached[rid] if whole else count
        for step in replay(trace)
        for rid, count in step.plan.num_tokens.items()
    )


def kv_waste(trace: dict[str, Any]) -> float:
    """Share of the KV slots held by requests that hold no token: mean over the steps (0 = every slot used)."""
    block_size = trace["config"]["block_size"]
    usage = [step.usage(block_size) for step in replay(trace)]
    return fmean(1 - filled / held for held, filled in usage if held)


def run_job(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """One stage in a process of its own. job: stage, model, threads, prompts, max_tokens."""
    from minillm_serve.model.source import open_model

    tokenizer = open_model(resolve_model(job["model"])).tokenizer
    workload = build_workload(tokenizer.encode, job["prompts"], job["max_tokens"])
    result = run_stage(stage_named(job["stage"]), workload, job["model"], job["threads"])
    return result.record() | {"trace": result.trace}


if __name__ == "__main__":
    child_main(run_job)
