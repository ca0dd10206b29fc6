"""Several engines write training text side by side on one device, and their texts become one folder.

One engine leaves a GPU idle while its process prepares a step; others fill the gaps. They start one after the other: an
engine sizes its cache by what memory is free, which no other may be taking at the same time.
"""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minillm_serve.config import ConfigError
from minillm_serve.distill.data import DataSettings, refuse_filled, write
from minillm_serve.engine.llm import LLM

MEMORY_SHARE = 0.85  # of the GPU's memory, all engines together: the rest is their contexts and what a step takes
LAST_LINES = 12  # of a failed process's traceback


@dataclass(frozen=True)
class _Job:
    """What one process does. number: its own, of ``settings.processes``; out: its own folder."""

    number: int
    model: str
    out: Path
    settings: DataSettings
    engine: dict[str, Any]


def write_in_processes(
    model: str,
    device: str,
    out: str | Path,
    settings: DataSettings,
    command: str = "",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Let ``settings.processes`` engines write into ``out/process-N``, then merge; returns what ``data.json`` says.

    ``minutes`` holds for all of it, the engines' start included. When a process fails the others are ended, nothing is
    merged (the parts that they finished stay in their folders) and :class:`ConfigError` tells its last lines.
    """
    out, start = Path(out), time.monotonic()
    refuse_filled(out)
    jobs = [_job(number, model, device, out, settings) for number in range(settings.processes)]
    made = _Fleet(jobs, settings, say).run()
    result = merge([job.out for job in jobs], out)
    dropped = sum((Counter(one["dropped_prompts"]) for one in made), Counter(result["dropped_prompts"]))
    result = made[0] | result | {
        "dropped_prompts": dict(dropped),
        "seconds": round(time.monotonic() - start, 1),
        "settings": asdict(settings),
        "command": command,
    }  # fmt: skip
    (out / "data.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for job in jobs:
        shutil.rmtree(job.out)
    speed = result["answer_tokens"] / result["seconds"]
    say(f"data: {result['seconds']:6.0f} s  {result['texts']:,} texts, {result['tokens']:,} tokens of "
        f"{settings.processes} processes, {speed:,.0f} answer tokens/s")  # fmt: skip
    return result


def merge(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Copy the parts of ``folders`` into ``out``, every prompt once; returns the counts of ``data.json``.

    A prompt is its token ids. Of several texts with one prompt the first stays, as ``dropped_prompts`` counts.
    """
    seen: set[bytes] = set()
    counts: Counter[str] = Counter()
    dropped = 0
    for number, path in enumerate(path for folder in folders for path in sorted(folder.glob("part-*.npz"))):
        with np.load(path) as loaded:
            part = dict(loaded)
        starts = np.cumsum(part["lengths"]) - part["lengths"]
        kept = np.zeros(len(starts), bool)
        for i, (begin, size) in enumerate(zip(starts.tolist(), part["prompts"].tolist(), strict=True)):
            prompt = part["tokens"][begin : begin + size].tobytes()
            kept[i] = prompt not in seen
            seen.add(prompt)
        part["tokens"] = part["tokens"][np.repeat(kept, part["lengths"])]
        part |= {name: values[kept] for name, values in part.items() if name != "tokens"}
        np.savez_compressed(out / f"part-{number:03}.npz", **part)
        dropped += int((~kept).sum())
        counts.update(
            texts=int(kept.sum()), tokens=len(part["tokens"]), held_out_texts=int(part["held_out"].sum()),
            answer_tokens=len(part["tokens"]) - int(part["prompts"].sum()),
        )  # fmt: skip
    return {**counts, "dropped_prompts": {"seen by another process": dropped}}


def _job(number: int, model: str, device: str, out: Path, settings: DataSettings) -> _Job:
    count = settings.processes
    engine: dict[str, Any] = {"device": device, "max_num_seqs": settings.max_num_seqs}
    if device == "cuda":  # of the whole, with what the engines before it hold: so the shares add up
        engine["gpu_memory_utilization"] = MEMORY_SHARE * (number + 1) / count
    else:
        engine["num_threads"] = max(1, torch.get_num_threads() // count)
    mine = replace(settings, seed=settings.seed * count + number, num_tokens=-(-settings.num_tokens // count))
    return _Job(number, model, out / f"process-{number}", mine, engine)


class _Fleet:
    """The processes, one start at a time. Messages are (kind, value): ready, say, done or failed."""

    def __init__(self, jobs: Sequence[_Job], settings: DataSettings, say: Callable[[str], None]):
        self.jobs, self.minutes, self.say = jobs, settings.minutes, say
        self.made: dict[int, dict[str, Any]] = {}
        self.pipes: dict[Connection, int] = {}
        self.processes: list[BaseProcess] = []

    def run(self) -> list[dict[str, Any]]:
        """What each process says of its texts, in their order. Raises :class:`ConfigError` when one fails."""
        start = time.monotonic()
        waiting = [job.number for job in self.jobs]
        try:
            by_number = [self._spawn(job) for job in self.jobs]
            free = True
            while self.pipes:
                if free and waiting:
                    passed = (time.monotonic() - start) / 60
                    by_number[waiting.pop(0)].send(None if self.minutes is None else self.minutes - passed)
                    free = False
                for pipe in wait(list(self.pipes)):
                    free |= self._hear(pipe)
        finally:
            for process in self.processes:
                process.terminate()
                process.join()
        return [self.made[job.number] for job in self.jobs]

    def _spawn(self, job: _Job) -> Connection:
        context = get_context("spawn")  # CUDA cannot be used in a fork
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(job, theirs), daemon=True)
        process.start()
        theirs.close()  # so that its end is told when the process dies
        self.pipes[ours] = job.number
        self.processes.append(process)
        return ours

    def _hear(self, pipe: Any) -> bool:
        """Take one message; True when it says that an engine has started."""
        number = self.pipes[pipe]
        try:
            kind, value = pipe.recv()
        except (EOFError, ConnectionResetError):
            process = self.processes[number]
            process.join()
            kind, value = "failed", f"it ended with status {process.exitcode}"
        if kind == "failed":
            raise ConfigError(f"process {number} of {len(self.jobs)} failed, so nothing was merged:\n{value}")
        if kind == "say":
            self.say(f"[{number}] {value}")
        elif kind == "done":
            self.made[number] = value
            del self.pipes[pipe]
        return kind == "ready"


def _work(job: _Job, pipe: Connection) -> None:
    """What a process runs: wait for its turn, start an engine, write."""
    try:
        minutes, began = pipe.recv(), time.monotonic()
        with LLM(job.model, **job.engine) as llm:
            pipe.send(("ready", None))
            if minutes is not None:
                minutes -= (time.monotonic() - began) / 60
            settings = replace(job.settings, minutes=minutes)
            made = write(
                llm,
                job.out,
                settings,
                say=lambda text: pipe.send(("say", text)),
                share=(job.number, settings.processes),
            )
        pipe.send(("done", made))
    except (BrokenPipeError, KeyboardInterrupt):
        return  # the command itself was ended
    except Exception:
        lines = traceback.format_exc().strip().splitlines()
        pipe.send(("failed", "\n".join(lines[-LAST_LINES:])))
