"""The meter of ``reloj_real``: the student's scheduler on the real model against the pipeline, one prompt at a time.

Protocol. Baseline and student alternate in fresh processes, with the same prompts, threads and dtype; nothing is
repeated from run to run. A ratio compares tokens per second: the baseline answers one prompt, the student all of
them, alike in length. The student's time is the grader's: from the first call of the scheduler to the last token.
At least 9 pairs, at most 15, more than 9 only while the interval of the median leaves the target in doubt.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from random import Random
from typing import Any

from minilab.pruebas.casos import Remote
from minilab.reloj.mundo import RealTime
from minilab.reloj.reglas import Request
from minilab_grading.arnes.calificar import CheckMark, MeterJob
from minilab_grading.medidores.banco import Bank, MeterError
from minilab_grading.medidores.cargas import LIMITS, Chats, chats
from minilab_grading.medidores.estadistica import LEAST_PAIRS, MOST_PAIRS, enough, median, settled, target_for
from minilab_grading.medidores.juicio import ratios_of, with_summary
from minilab_grading.medidores.reloj_contado import engine_setup, planner_mark, play
from minillm_serve.bench.environment import available_cores, cpu_model, memory_gib
from minillm_serve.model.store import read_source, weights_name

CEILING_FILE = "techo_reloj_real.json"
CEILING_PAIRS = 5
LEAST_TARGET = 3.0  # below, one request at a time on the engine would already earn half
Opener = Callable[[], AbstractContextManager[Remote]]


class Misbehaved(Exception):
    """The student's scheduler broke a rule, raised or died; the message is for the student."""


class RealClock:
    """Meter. model: a Hugging Face folder. threads: of both sides (None: every core). course: keeps the ceiling.

    least, most: pairs of runs. make_chats: what one run asks for, from a generator that is never the same.
    Raises :class:`MeterError` where this machine cannot measure.
    """

    def __init__(
        self,
        model: Path,
        threads: int | None = None,
        course: Path | None = None,
        least: int = LEAST_PAIRS,
        most: int = MOST_PAIRS,
        make_chats: Callable[[Random], Chats] = chats,
    ):
        self._model, self._course, self._make_chats = model, course, make_chats
        self._threads = threads or available_cores()
        self._least, self._most = least, most
        self._pipeline, self._engine = Bank("pipeline", model), Bank("motor", model)
        self._ceiling: float | None = None
        self._padded: dict[str, float] | None = None
        self._ceiling_known = False

    def measure(self, job: MeterJob) -> CheckMark:
        @contextmanager
        def opener() -> Iterator[Remote]:
            with job.open_session() as session:
                yield session.remote()

        return planner_mark(job, lambda: self._measure(opener))

    def close(self) -> None:
        self._pipeline.close()
        self._engine.close()

    def _measure(self, opener: Opener) -> dict[str, Any]:
        ceiling = self.ceiling()
        measures = {"modo": "reloj real", "entorno": self.environment(), "techo": ceiling}
        try:
            pairs, tokens = self._pairs(opener, lambda r: enough(r, target_for(ceiling), self._least, self._most))
        except Misbehaved as error:
            return {**measures, "fallo": str(error)}
        if self._padded is None:
            self._padded = self._padded_batch()
        return with_summary({**measures, "pares": pairs, "tokens": tokens, "lote_con_relleno": self._padded})

    def ceiling(self) -> float | None:
        """What the reference scheduler reaches here; measured once for a course, a machine and a set of versions.

        None where the machine was too busy to tell: then nothing is asked less of anybody.
        """
        if not self._ceiling_known:
            key = self.environment()
            self._ceiling = self._stored_ceiling(key) or self._measure_ceiling(key)
            self._ceiling_known = True
        if target_for(self._ceiling) < LEAST_TARGET:
            raise MeterError(
                f"en este equipo el planificador de referencia solo llega a {self._ceiling:.1f} veces la pipeline: no "
                "sirve para medir. Cierra otros programas o califica con --medir contado"
            )
        return self._ceiling

    def environment(self) -> dict[str, Any]:
        return {
            "cpu": cpu_model(),
            "nucleos": available_cores(),
            "hilos": self._threads,
            "memoria_gib": memory_gib(),
            "torch": metadata.version("torch"),
            "transformers": metadata.version("transformers"),
            "modelo": weights_name(self._model),
            "modelo_sha256": _model_sha(self._model),
        }

    def _pairs(self, opener: Opener, stop: Callable[[Sequence[float]], bool]) -> tuple[list[list[float]], list[int]]:
        """[seconds of the baseline, of the student] of each pair, and the tokens that each side makes in a run."""
        pairs: list[list[float]] = []
        while True:
            asked = self._make_chats(Random(secrets.token_bytes(16)))
            base_s, prompts = self._baseline(asked)
            pairs.append([base_s, self._scheduler(opener, prompts, asked.max_new)])
            tokens = [asked.max_new, len(asked.texts) * asked.max_new]
            if stop(ratios_of({"pares": pairs, "tokens": tokens})):
                return pairs, tokens

    def _baseline(self, asked: Chats) -> tuple[float, list[list[int]]]:
        """Seconds for the first prompt alone; and all prompts as the pipeline's tokenizer writes them."""
        talks = asked.conversations
        with self._pipeline.run(self._threads, calienta=self._make_chats(Random()).conversations[0]) as run:
            prompts = run.ask("tokens", charlas=talks)
            _, taken = run.ask("genera", charlas=talks[:1], max_tokens=asked.max_new, lote=1)
        return taken, prompts

    def _scheduler(self, opener: Opener, prompts: list[list[int]], max_new: int) -> float:
        requests = [Request(ident, 0.0, tuple(prompt), max_new) for ident, prompt in enumerate(prompts)]
        with opener() as remote, self._engine.run(self._threads, **engine_setup(requests, LIMITS)) as run:
            clock = RealTime()
            complaint = play(remote, requests, LIMITS, run, clock)
            taken = clock.now()
        if complaint:
            raise Misbehaved(complaint)
        return taken

    def _padded_batch(self) -> dict[str, float]:
        """The demanding baseline, all prompts in one padded batch: once a session, shown beside, never marked."""
        asked = self._make_chats(Random(secrets.token_bytes(16)))
        talks = asked.conversations
        with self._pipeline.run(self._threads, calienta=talks[0]) as run:
            run.ask("genera", charlas=talks, max_tokens=2, lote=len(talks))
            tokens, seconds = run.ask("genera", charlas=talks, max_tokens=asked.max_new, lote=len(talks))
        return {"tokens": tokens, "segundos": seconds, "tok_s": tokens / seconds}

    def _measure_ceiling(self, key: dict[str, Any]) -> float | None:
        from minilab.pruebas.remoto import LocalRemote
        from minilab_grading.medidores.planificador_referencia import Planificador

        def opener() -> AbstractContextManager[Remote]:
            return nullcontext(LocalRemote({"Planificador": Planificador}))

        least = min(CEILING_PAIRS, self._most)
        pairs, tokens = self._pairs(opener, lambda r: len(r) >= self._most or (len(r) >= least and settled(r)))
        ratios = ratios_of({"pares": pairs, "tokens": tokens})
        if not settled(ratios):
            return None
        ceiling = median(ratios)
        if self._course is not None:
            record = json.dumps({"entorno": key, "techo": ceiling}, ensure_ascii=False, indent=1)
            part = self._course / (CEILING_FILE + ".parte")
            part.write_text(record + "\n", encoding="utf-8")
            os.replace(part, self._course / CEILING_FILE)
        return ceiling

    def _stored_ceiling(self, key: dict[str, Any]) -> float | None:
        if self._course is None:
            return None
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads((self._course / CEILING_FILE).read_text(encoding="utf-8"))
            return float(record["techo"]) if record["entorno"] == key else None
        return None


def _model_sha(folder: Path) -> str:
    source = read_source(folder)
    if source is not None and "model.safetensors" in source["files"]:
        return source["files"]["model.safetensors"]["sha256"]
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
