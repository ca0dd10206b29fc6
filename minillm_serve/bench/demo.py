"""``minillm demo``: serve fifty clients, beat the pipeline by a factor anyone can check, prove the answers.

Server and load first, then, with the server stopped, the transformers baselines and the equality check, each in a
fresh process. Writes ``demo.json``, ``demo.html``, the engine's trace and the server's log to the output folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from minillm_serve.bench import gantt, result
from minillm_serve.bench.child import ChildError, run_child
from minillm_serve.bench.client import ChatJob, run_load
from minillm_serve.bench.contention import OtherPrograms
from minillm_serve.bench.environment import available_cores, describe_environment
from minillm_serve.bench.equality import DEFAULT_TOLERANCE
from minillm_serve.bench.prompts import GUIDED_MAX_TOKENS, PROMPTS, conversation, evenly_spaced, guided_cases
from minillm_serve.bench.report import build_report
from minillm_serve.bench.server_process import ServerError, ServerProcess
from minillm_serve.bench.stats import LoadResult, Timeline
from minillm_serve.bench.summary import print_summary
from minillm_serve.config import ConfigError
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model, weights_name

NEEDED = ("openai", "transformers", "jsonschema")


class DemoError(RuntimeError):
    """The demo cannot run or cannot go on: one sentence with what is missing and what to do."""


@dataclass(frozen=True)
class Settings:
    """What ``minillm demo`` was asked to do; counts are requests, ``max_tokens`` new tokens each."""

    model: str = DEFAULT_MODEL
    output_dir: Path = Path("reports")
    prompts: int = len(PROMPTS)
    max_tokens: int = 64
    runs: int = 3
    json_requests: int = 50
    baseline_sample: int = 6
    batch_runs: int = 1
    threads: int = 1
    tolerance: float = DEFAULT_TOLERANCE
    port: int = 0

    def __post_init__(self) -> None:
        limits = {
            "prompts": (1, len(PROMPTS)),
            "max_tokens": (2, 1024),
            "runs": (1, 100),
            "json_requests": (1, 50),
            "baseline_sample": (1, self.prompts),
            "batch_runs": (1, 100),
            "threads": (1, 1024),
            "port": (0, 65535),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                flag = name.replace("_", "-")
                raise DemoError(f"--{flag} must be between {low} and {high}, got {getattr(self, name)}")
        if not 0 < self.tolerance < 1:
            raise DemoError(f"--tolerance must be between 0 and 1 logits, got {self.tolerance}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``minillm demo`` on ``parser``."""
    default = Settings()
    parser.add_argument("--model", default=default.model, help="known model name or local folder (%(default)s)")
    parser.add_argument(
        "--output-dir", type=Path, default=default.output_dir, help="where the report goes (%(default)s)"
    )
    parser.add_argument("--prompts", type=int, default=default.prompts, help="clients at once, at most %(default)s")
    parser.add_argument("--max-tokens", type=int, default=default.max_tokens, help="new tokens each (%(default)s)")
    parser.add_argument(
        "--runs", type=int, default=default.runs, help="runs of the load; the median counts (%(default)s)"
    )
    parser.add_argument("--json-requests", type=int, default=default.json_requests, help="guided answers (%(default)s)")
    parser.add_argument(
        "--baseline-sample", type=int, default=default.baseline_sample, help="prompts answered one by one (%(default)s)"
    )
    parser.add_argument(
        "--batch-runs", type=int, default=default.batch_runs, help="runs of the padded batch (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of every engine (%(default)s)")
    parser.add_argument("--tolerance", type=float, default=default.tolerance, help="logit gap of a tie (%(default)s)")
    parser.add_argument("--port", type=int, default=default.port, help="port of the server (a free one)")


def run(args: argparse.Namespace) -> int:
    """Run the demo. 0: every answer is correct; 1: some answer is not; 2: the demo could not run (one sentence)."""
    console = Console()
    try:
        settings = Settings(**{name: getattr(args, name) for name in Settings.__dataclass_fields__})
        outcome = run_demo(settings, console)
    except (DemoError, ConfigError, ServerError, ChildError, gantt.TraceError) as error:
        print(f"minillm demo: {error}", file=sys.stderr)
        return 2
    print_summary(outcome, settings.output_dir, console)
    return 0 if result.passed(outcome) else 1


def run_demo(settings: Settings, console: Console) -> dict[str, Any]:
    """Measure everything, write the report files, return the result (the content of ``demo.json``)."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(f'{", ".join(missing)} not installed: run `pip install -e ".[compare]"` and try again')
    folder = resolve_model(settings.model)
    settings.output_dir.mkdir(parents=True, exist_ok=True)
    return _Demo(settings, folder, console).run()


class _Demo:
    def __init__(self, settings: Settings, folder: Path, console: Console):
        self.settings = settings
        self.folder = folder
        self.start = time.monotonic()
        self.console = console
        self.conversations = [conversation(prompt) for prompt in PROMPTS[: settings.prompts]]
        self.cases = guided_cases(settings.json_requests)
        self.trace_file = settings.output_dir / "demo-trace.json"

    def run(self) -> dict[str, Any]:
        from minillm_serve.model.tokenizer import Tokenizer

        settings, prompts = self.settings, PROMPTS[: self.settings.prompts]
        runs, guided = self._serve()
        sample = evenly_spaced(settings.baseline_sample, settings.prompts)
        self._say("4/5", f"the transformers pipeline: {len(sample)} prompts one by one, then all in one padded batch")
        baselines = run_child("minillm_serve.bench.baseline", self._baseline_job(sample), self._progress)
        outcome = result.throughput(runs, baselines, sample)
        median_run = runs[outcome["minillm"]["median_run"]]
        self._say("5/5", "checking every greedy token against transformers")
        measured = run_child("minillm_serve.bench.equality", self._equality_job(median_run), self._progress)
        tokenizer = Tokenizer.from_folder(self.folder)

        def decode(ids: Sequence[int]) -> str:
            return tokenizer.backend.decode(list(ids), skip_special_tokens=False)

        outcome |= result.guided(self.cases, guided)
        outcome |= result.equality(prompts, measured, decode)
        outcome |= {
            "answers": result.answers(prompts, median_run, measured, decode, tokenizer.eos_token_ids),
            "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "weights": {"model": Path(settings.model).name, "name": weights_name(self.folder)},
            "settings": {
                name: getattr(settings, name)
                for name in ("prompts", "max_tokens", "runs", "json_requests", "baseline_sample", "batch_runs")
            },
            "elapsed_s": time.monotonic() - self.start,
            "environment": describe_environment(settings.threads, "float32"),
        }
        self._write(outcome, median_run, guided)
        return outcome

    def _serve(self) -> tuple[list[LoadResult], LoadResult]:
        settings = self.settings
        self.trace_file.unlink(missing_ok=True)
        arguments = [str(self.folder), "--served-model-name", "minillm-demo", "--dtype", "float32"]
        arguments += ["--num-threads", str(settings.threads), "--trace-file", str(self.trace_file)]
        arguments += ["--no-enable-prefix-caching"]  # the runs repeat their prompts: each must do all the work
        self._say("1/5", f"starting the server on {weights_name(self.folder)}")
        with ServerProcess(arguments, settings.output_dir / "demo-server.log", settings.port) as server:
            self._progress(f"ready at {server.base_url}")
            self._load(server, self._free_jobs("warmup", min(8, settings.max_tokens)), "warm-up (discarded)")
            self._load(server, self._guided_jobs("warmup-json")[:5], "grammar warm-up (discarded)")
            self._say(
                "2/5", f"{settings.prompts} clients at once, {settings.max_tokens} new tokens each, {settings.runs}×"
            )
            runs = []
            for number in range(1, settings.runs + 1):
                runs.append(self._load(server, self._free_jobs(f"run{number}", settings.max_tokens), f"run {number}"))
                self._refuse_incomplete(runs[-1])
            self._say("3/5", f"{len(self.cases)} JSON answers over five schemas")
            guided = self._load(server, self._guided_jobs("json"), "guided")
        return runs, guided

    def _load(self, server: ServerProcess, jobs: Sequence[ChatJob], label: str) -> LoadResult:
        with self.console.status(f"{label}: 0 of {len(jobs)} answered") as status:
            finished: list[Timeline] = []

            def count(timeline: Timeline) -> None:
                finished.append(timeline)
                status.update(f"{label}: {len(finished)} of {len(jobs)} answered")

            with OtherPrograms([server.pid]) as others:
                load = run_load(server.base_url, "minillm-demo", jobs, count)
        rate = f"{load.completion_tokens} tokens in {load.wall:.1f} s = {load.tokens_per_second:.0f} tok/s"
        self._progress(f"{label}: {rate}" + (f", {len(load.failed)} FAILED" if load.failed else ""))
        return replace(load, others_cpu=others.share)

    def _free_jobs(self, run_name: str, max_tokens: int) -> list[ChatJob]:
        return [ChatJob(f"{run_name}-{i:02d}", chat, max_tokens) for i, chat in enumerate(self.conversations)]

    def _guided_jobs(self, run_name: str) -> list[ChatJob]:
        return [
            ChatJob(f"{run_name}-{i:02d}", conversation(case.prompt), GUIDED_MAX_TOKENS, case.name, case.schema)
            for i, case in enumerate(self.cases)
        ]

    def _refuse_incomplete(self, load: LoadResult) -> None:
        """A throughput is only a figure if every request was answered in full, and its tokens can be checked."""
        expected = self.settings.max_tokens
        for timeline in load.timelines:
            if not timeline.ok:
                raise DemoError(
                    f"{len(load.failed)} of {len(load.timelines)} requests failed; "
                    f"{timeline.request_id}: {timeline.error}"
                )
            if timeline.completion_tokens != expected or len(timeline.token_ids) != expected:
                raise DemoError(
                    f"{timeline.request_id}: expected {expected} tokens with their ids, the server counted "
                    f"{timeline.completion_tokens} and sent {len(timeline.token_ids)} ids"
                )

    def _baseline_job(self, sample: Sequence[int]) -> dict[str, Any]:
        return {
            "model": str(self.folder),
            "dtype": "float32",
            "threads": self.settings.threads,
            "max_tokens": self.settings.max_tokens,
            "conversations": self.conversations,
            "sample": list(sample),
            "batch_runs": self.settings.batch_runs,
        }

    def _equality_job(self, load: LoadResult) -> dict[str, Any]:
        return {
            "model": str(self.folder),
            "threads": self.settings.threads,
            "tolerance": self.settings.tolerance,
            "conversations": self.conversations,
            "answers": [timeline.token_ids for timeline in load.timelines],
            "prompt_tokens": [timeline.prompt_tokens for timeline in load.timelines],
        }

    def _write(self, outcome: dict[str, Any], median_run: LoadResult, guided: LoadResult) -> None:
        if not self.trace_file.is_file():
            raise DemoError(f"the server ended without writing its trace to {self.trace_file}")
        trace = json.loads(self.trace_file.read_text(encoding="utf-8"))
        parts = [gantt.select(trace, [t.request_id for t in load.timelines if t.ok]) for load in (median_run, guided)]
        folder = self.settings.output_dir
        (folder / "demo.json").write_text(json.dumps(outcome, indent=1, ensure_ascii=False), encoding="utf-8")
        (folder / "demo.html").write_text(build_report(outcome, *parts), encoding="utf-8")

    def _say(self, step: str, what: str) -> None:
        elapsed = f"{time.monotonic() - self.start:4.0f} s"
        self.console.print(f"[dim]{elapsed}[/] [bold cyan]{step}[/] {what}", highlight=False, soft_wrap=True)

    def _progress(self, text: str) -> None:
        self.console.print(f"           {text}", style="dim", highlight=False, markup=False, soft_wrap=True)
