"""The meter of ``vllm`` live: the grader starts a real vLLM with the student's command and asks what the client asks.

The student's client never leaves the sandbox: its request bodies come out, the trusted client forwards them all at
once, and the real times go back in as scripts. So neither the clock nor the network is the student's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from secrets import token_bytes
from typing import Any

from minilab.pruebas.casos import Case, Result
from minilab.pruebas.jueces import body_judge, client_judge
from minilab.pruebas.orden import order_complaint
from minilab.pruebas.servidor_simulado import script_of
from minilab_grading.arnes.calificar import CheckMark, MeterJob
from minilab_grading.casos.vllm import CLIENT, JSON, RATIO, SUMMARY
from minilab_grading.medidores.banco import MeterError
from minilab_grading.medidores.pipeline import measure_pipeline
from minilab_grading.medidores.preguntas import (
    Answer,
    ask_all,
    foreign_fields,
    free_body,
    hidden_questions,
    nonce_prompts,
    refuse_dishonest,
    server_version,
)
from minilab_grading.medidores.traza import CLIENTS, NEW_TOKENS, SAMPLE, WARM_UP, trace_environment
from minilab_grading.medidores.vllm_traza import LIVE, Load, call_in, judge_load, judge_orders, mark_of
from minillm_serve.bench.judge import judge
from minillm_serve.bench.prompts import GUIDED_MAX_TOKENS, GuidedCase
from minillm_serve.bench.server_process import ServerError, ServerProcess, free_port
from minillm_serve.compare.environments import how_to_install, installed_version, python_of

CONTEXT, JSON_CASES = 1024, 20
STARTUP_S = 600.0
SERVER_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}
# Without these vLLM compiles for minutes on a CPU, and computes in another dtype than the pipeline beside it.
ON_CPU = {"--dtype": "float32", "--enforce-eager": None}


def vllm_command() -> list[str]:
    """vLLM on the path, or the one in its own environment. Raises :class:`MeterError`."""
    if found := shutil.which("vllm"):
        return [found]
    if installed_version("vllm") is not None:
        return [str(python_of("vllm").with_name("vllm"))]
    raise MeterError(f"no hay vLLM en este equipo; instálalo una vez con: {how_to_install('vllm')}")


def server_command(program: Sequence[str]) -> list[str]:
    """``program serve`` with the environment that vLLM needs; what the instructor has set there already wins."""
    settings = [f"{name}={os.environ.get(name, value)}" for name, value in SERVER_ENVIRONMENT.items()]
    return ["env", *settings, *program, "serve"]


def server_arguments(argv: Sequence[str], model: Path, device: str) -> list[str]:
    """What follows ``vllm serve``: the student's flags, but the grader's own model folder, name, host and port."""
    flags: dict[str, str | None] = {}
    rest = list(argv[3:])
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        alone = not rest or rest[0].startswith("--")
        flags[name.replace("_", "-")] = value if equals else None if alone else rest.pop(0)
    for own in ("--host", "--port", "--served-model-name"):
        flags.pop(own, None)
    flags = {**(ON_CPU if device == "cpu" else {}), **flags, "--served-model-name": model.name}
    parts = [part for flag in flags.items() for part in flag if part is not None]
    return [str(model), *parts]


class LiveVllm:
    """Meter. model: a Hugging Face folder that both vLLM and the pipeline load. device: ``cpu`` or ``cuda``.

    command: the program that understands ``serve`` (None: the vLLM of this machine); versions: of it, for the record.
    Takes minutes a submission. Raises :class:`MeterError` for what is not the student's fault.
    """

    def __init__(
        self,
        model: Path,
        device: str = "cpu",
        threads: int | None = None,
        command: Sequence[str] | None = None,
        clients: int = CLIENTS,
        new_tokens: int = NEW_TOKENS,
        json_cases: int = JSON_CASES,
    ):
        if device not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, got {device!r}")
        self._model, self._device, self._threads = model, device, threads
        self._dtype = "float32" if device == "cpu" else "bfloat16"
        self._command = list(command) if command is not None else vllm_command()
        self._clients, self._new_tokens, self._json_cases = clients, new_tokens, json_cases

    def measure(self, job: MeterJob) -> CheckMark:
        return judge_live(job, job.measures or self._measure(job))

    def close(self) -> None:
        """Each measurement ends its own server."""

    def _measure(self, job: MeterJob) -> dict[str, Any]:
        rng, port = Random(token_bytes(16)), free_port()
        prompts = nonce_prompts(rng, self._clients)
        asked = hidden_questions(rng, self._json_cases)
        measures = {"modo": LIVE}
        try:
            argv = self._order(job, port)
            bodies = self._client_bodies(job, prompts)
        except Refused as error:
            return {**measures, "fallo": str(error)}
        json_bodies, json_notes = self._json_bodies(job, asked)
        version, answers, json_answers = self._ask(argv, port, bodies, [b for b in json_bodies if b is not None])
        if refused := next((a.error for a in answers if a.error), None):
            return {**measures, "fallo": f"vLLM rechazó tus peticiones: {refused}"}
        refuse_dishonest(answers, self._model, self._new_tokens, self._device)
        verdicts, left = [], iter(json_answers)
        for case, body, note in zip(asked, json_bodies, json_notes, strict=True):
            if body is not None:
                answer = next(left)
                note = answer.error or judge(answer.text, case.schema, answer.finish).reason or ""
            verdicts.append(note)
        pipeline = measure_pipeline(
            self._model, prompts, self._new_tokens, SAMPLE, self._device, self._dtype, self._threads
        )
        return {
            **measures,
            "entorno": trace_environment(self._device, self._threads, {"vllm": version}),
            "orden": argv,
            "servido": self._model.name,
            "prompts": prompts,
            "tokens_nuevos": self._new_tokens,
            "respuestas": [a.to_plain() for a in answers],
            "pipeline": pipeline,
            "json": verdicts,
        }

    def _order(self, job: MeterJob, port: int) -> list[str]:
        """The student's command for this very server, once nothing in it can do harm."""
        args = (self._model.name, port, self._clients, CONTEXT)
        with job.open_session() as session:
            reply = call_in(session, job.check.function, Case(name="orden", args=args, hint=""))
        if reply.error:
            raise Refused(f"orden_vllm falló: {reply.error}: {reply.message}")
        if complaint := order_complaint(reply.value, *args):
            raise Refused(f"con tu orden no se arranca vLLM; se esperaba {complaint}")
        return reply.value

    def _client_bodies(self, job: MeterJob, prompts: Sequence[str]) -> list[dict[str, Any]]:
        """The bodies that the student's client sends, all at once, in the order of the prompts."""
        case = next(c for c in job.check.cases if c.name == CLIENT)
        scripts = {p: script_of([" a"], 0.5, 0.1) for p in prompts}
        served = self._model.name
        trial = replace(case, args=(served, list(prompts), self._new_tokens), scripts=scripts)
        with job.open_session() as session:
            reply = call_in(session, "lanza_todas", trial)
        if reply.error:
            raise Refused(f"lanza_todas falló: {reply.error}: {reply.message}")
        if complaint := client_judge(served, list(prompts), self._new_tokens, scripts)(reply):
            raise Refused(f"no se enviaron tus peticiones a vLLM; se esperaba {complaint}")
        by_prompt = {body["messages"][-1]["content"]: body for body in reply.groups[0]}
        if foreign := {name for body in by_prompt.values() for name in foreign_fields(body)}:
            raise Refused(f"campos que no son de la petición: {', '.join(sorted(foreign))}")
        return [by_prompt[p] for p in prompts]

    def _json_bodies(self, job: MeterJob, asked: Sequence[GuidedCase]) -> tuple[list[dict[str, Any] | None], list[str]]:
        """One body for each question, None with the reason where the student's would guarantee nothing."""
        bodies: list[dict[str, Any] | None] = []
        notes: list[str] = []
        with job.open_session() as session:
            for case in asked:
                args = (case.prompt, case.schema, GUIDED_MAX_TOKENS)
                reply = call_in(session, "cuerpo_json", Case(name="json", args=args, hint=""))
                complaint = reply.error or body_judge(case.prompt, case.schema)(reply)
                if complaint is None and (foreign := foreign_fields(reply.value)):
                    complaint = f"campos que no son de la petición: {', '.join(foreign)}"
                bodies.append(None if complaint else {**reply.value, "model": self._model.name, "temperature": 0})
                notes.append(complaint or "")
        return bodies, notes

    def _ask(
        self, argv: Sequence[str], port: int, bodies: Sequence[dict[str, Any]], json_bodies: Sequence[dict[str, Any]]
    ) -> tuple[str, list[Answer], list[Answer]]:
        """The server's version and its answers to both groups, one group after the other."""
        arguments = server_arguments(argv, self._model, self._device)
        with tempfile.TemporaryDirectory(prefix="medidor-") as folder:
            log = Path(folder) / "servidor.log"
            try:
                with ServerProcess(arguments, log, port, server_command(self._command), STARTUP_S) as server:
                    warm = [free_body(self._model.name, p, 8) for p in nonce_prompts(Random(), WARM_UP)]
                    ask_all(server.base_url, warm)
                    answers = ask_all(server.base_url, bodies)
                    return server_version(server.base_url), answers, ask_all(server.base_url, json_bodies)
            except ServerError as error:
                raise MeterError(f"vLLM no arrancó o murió con la orden del estudiante: {error}") from error


def judge_live(job: MeterJob, measures: dict[str, Any]) -> CheckMark:
    """The verdict on what a live server answered: the same when it is measured and when a record is judged again."""
    orders = judge_orders(job)
    if complaint := measures.get("fallo"):
        names = (CLIENT, SUMMARY, RATIO, JSON)
        lost = [Result(c.name, False, complaint, hint=c.hint, weight=c.weight)
                for c in job.check.cases if c.name in names]  # fmt: skip
        return mark_of(job, measures, [orders, (lost, complaint)])
    answers = [Answer.from_plain(a) for a in measures["respuestas"]]
    rate = measures["pipeline"]["una_a_una"]["tok_s"]
    load = Load(measures["servido"], measures["prompts"], measures["tokens_nuevos"], answers, rate)
    return mark_of(job, measures, [orders, judge_load(job, load), (_judge_json(job, measures["json"]), "")])


def _judge_json(job: MeterJob, verdicts: Sequence[str]) -> list[Result]:
    """All or nothing: a guarantee that fails once is none. verdicts: empty, or what is wrong with the answer."""
    case = next(c for c in job.check.cases if c.name == JSON)
    valid = sum(not reason for reason in verdicts)
    note = f"{valid} de {len(verdicts)} válidas"
    if valid == len(verdicts):
        return [Result(case.name, True, note=note, credit=1.0, weight=case.weight)]
    reason = next(reason for reason in verdicts if reason)
    return [Result(case.name, False, f"todas válidas; la primera que falló: {reason}", "", case.hint, note,
                   weight=case.weight)]  # fmt: skip


class Refused(Exception):
    """What the student handed in cannot be used against a real server; the message is for the student."""
