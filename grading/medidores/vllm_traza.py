"""The meter of ``vllm`` by a recorded trace: the student's client talks to what a real vLLM once answered.

The answers come through the simulated server in virtual time, under prompts of their own, so the student's client and
summary must find the throughput that the trace holds; nothing is timed, and the same trace gives the same verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from minilab.pruebas.casos import Case, Reply, Result, judge_case, missed
from minilab.pruebas.jueces import client_judge
from minilab_grading.arnes.calificar import CheckMark, MeterJob
from minilab_grading.arnes.sesion import Session, WorkerDied
from minilab_grading.casos.p_sirve_y_demuestralo import percentile
from minilab_grading.casos.vllm import CLIENT, RATIO, SUMMARY
from minilab_grading.medidores.banco import MeterError
from minilab_grading.medidores.estadistica import target_for
from minilab_grading.medidores.juicio import graded
from minilab_grading.medidores.preguntas import Answer, nonce_prompts
from minilab_grading.medidores.traza import FOLDER, Trace, load_trace, script_of_answer, throughput

LIVE = "vLLM en vivo"  # the mode of measures that a server took, see :mod:`.vllm_vivo`
FIRST_THINGS_FIRST = "que antes el cliente y el resumen sean correctos: la razón sale de ellos"


@dataclass(frozen=True)
class Load:
    """What the student's client is asked to send, and what comes back. prompts and answers in the same order."""

    model: str
    prompts: Sequence[str]
    max_tokens: int
    answers: Sequence[Answer]
    pipeline_tok_s: float

    def client_case(self, case: Case) -> Case:
        scripts = {p: script_of_answer(a) for p, a in zip(self.prompts, self.answers, strict=True)}
        judge = client_judge(self.model, list(self.prompts), self.max_tokens, scripts)
        args = (self.model, list(self.prompts), self.max_tokens)
        return replace(case, args=args, scripts=scripts, judge=judge)

    def summary_case(self, case: Case) -> Case:
        """The summary of what an honest client measures, whatever the student's own client did."""
        measured = [
            {"inicio": 0.0, "primer_token": a.chunks[0][0], "fin": a.end, "tokens": a.tokens, "texto": a.text}
            for a in self.answers
        ]
        first = [a.chunks[0][0] for a in self.answers]
        expected = {
            "tok_s": throughput(self.answers),
            "ttft_p50": percentile(first, 50),
            "ttft_p95": percentile(first, 95),
        }
        return replace(case, args=(measured,), expected=expected)

    def ratio_result(self, case: Case, earned: bool) -> Result:
        if not earned:
            return Result(case.name, False, FIRST_THINGS_FIRST, hint=case.hint, weight=case.weight)
        return graded(case, throughput(self.answers) / self.pipeline_tok_s, target_for(None))


def judge_orders(job: MeterJob) -> tuple[list[Result], str]:
    """The cases that are complete in the check, in a session of their own; and what killed it, if anything did."""
    return _calls(job, [(job.check.function, case) for case in job.check.cases if case.judge is not None])


def judge_load(job: MeterJob, load: Load) -> tuple[list[Result], str]:
    """Client, summary and ratio, in a fresh session."""
    by_name = {case.name: case for case in job.check.cases}
    calls = [
        ("lanza_todas", load.client_case(by_name[CLIENT])),
        ("resume", load.summary_case(by_name[SUMMARY])),
    ]
    results, notice = _calls(job, calls)
    return [*results, load.ratio_result(by_name[RATIO], all(r.passed for r in results))], notice


def _calls(job: MeterJob, calls: Sequence[tuple[str, Case]]) -> tuple[list[Result], str]:
    results: list[Result] = []
    with job.open_session() as session:
        try:
            for function, case in calls:
                results.append(judge_case(case, session.call(function, case)))
        except WorkerDied as error:
            return results + [missed(case) for _, case in calls[len(results) :]], str(error)
    return results, ""


def call_in(session: Session, function: str, case: Case) -> Reply:
    """A call whose failure is the student's reply, too."""
    try:
        return session.call(function, case)
    except WorkerDied as error:
        return Reply(error="WorkerDied", message=str(error))


def mark_of(job: MeterJob, measures: dict[str, Any], parts: Sequence[tuple[list[Result], str]]) -> CheckMark:
    results = [result for part, _ in parts for result in part]
    notices = dict.fromkeys(notice for _, notice in parts if notice)
    return CheckMark(tuple(results), "; ".join(notices), measures)


class RecordedVllm:
    """Meter. trace: its name; folder: where traces lie. ``JSON`` needs a server and is left out.

    A record is judged again by what it rests on: its own trace, or the answers of the server that was live then.

    Raises :class:`MeterError` when a record to be judged again rests on a trace that is no longer there.
    """

    def __init__(self, trace: str, folder: Path = FOLDER):
        self._trace, self._folder = load_trace(trace, folder), folder

    def measure(self, job: MeterJob) -> CheckMark:
        if job.measures is not None and job.measures.get("modo") == LIVE:
            from minilab_grading.medidores.vllm_vivo import judge_live

            return judge_live(job, job.measures)
        trace = self._trace if job.measures is None else self._recorded(job.measures)
        rng, answers = Random(job.seed), trace.answers
        model = f"modelo-{rng.randrange(10**6)}"
        prompts = nonce_prompts(rng, len(answers))
        load = Load(model, prompts, trace.data["tokens_nuevos"], answers, trace.pipeline_tok_s)
        return mark_of(job, trace.stamp(), [judge_orders(job), judge_load(job, load)])

    def close(self) -> None:
        """It holds nothing."""

    def _recorded(self, measures: dict[str, Any]) -> Trace:
        if measures.get("sha256") == self._trace.sha256:
            return self._trace
        trace = load_trace(str(measures.get("traza")), self._folder)
        if trace.sha256 != measures.get("sha256"):
            raise MeterError(f"la traza «{trace.name}» ya no es la que se usó en esta nota (cambió su sha256)")
        return trace
