"""A campaign: so many different cases from one seed, each judged; a sound request after every batch."""

from __future__ import annotations

import http.client
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from minillm_serve.bench.fuzz.bodies import BodyCase, body_cases
from minillm_serve.bench.fuzz.exchange import HangError, Poster, send_raw
from minillm_serve.bench.fuzz.judge import fault, fault_of_raw
from minillm_serve.bench.fuzz.seeds import GOOD
from minillm_serve.bench.fuzz.sockets import RawCase, raw_cases

BATCH = 50
ROUND = 1000  # hypothesis remembers all of one round
MAX_FAILURES = 20
MAX_GROWTH_BYTES = 512 * 2**20
RAW_SHARE = 5  # one case in so many is raw bytes
WRONG = (OSError, http.client.HTTPException, HangError)

Case = BodyCase | RawCase


class FaultFound(AssertionError):
    """Tells hypothesis that a case failed, so that it looks for a smaller one."""


@dataclass
class Findings:
    """What a campaign saw. answers: status or ending -> how often. failures: what was wrong, and with which case."""

    seed: int
    cases: int = 0
    hangs: int = 0
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"seed": self.seed, "cases": self.cases, "hangs": self.hangs, "seconds": round(self.seconds, 1)},
            **{"answers": dict(sorted(self.answers.items())), "failures": self.failures},
        }


class _Seen:
    """Which cases there were, in few bytes each."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, case: Case) -> None:
        self._digests.add(self._digest(case))

    def __contains__(self, case: Case) -> bool:
        return self._digest(case) in self._digests

    @staticmethod
    def _digest(case: Case) -> bytes:
        parts = (case.path, case.headers, case.body) if isinstance(case, BodyCase) else (case.ending, case.data)
        return blake2b(repr(parts[:-1]).encode() + parts[-1], digest_size=8).digest()


class Process:
    """The server's process, as far as one can look at it from outside."""

    def __init__(self, pid: int, exit_code: Callable[[float], int | None]):
        self._status = Path(f"/proc/{pid}/statm")
        self._exit_code = exit_code
        self._at_first = self._resident()

    @property
    def alive(self) -> bool:
        return self._exit_code(0) is None

    @property
    def grown(self) -> bool:
        """Its resident memory has grown beyond what requests may leave behind."""
        return self._resident() > self._at_first + MAX_GROWTH_BYTES

    def _resident(self) -> int:
        """Bytes; 0 where the system does not tell."""
        try:
            return int(self._status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0


class Campaign:
    """Against a server at an address. process: where it is ours; a dead one ends the campaign. say: how far it is."""

    def __init__(
        self,
        host: str,
        port: int,
        seed: int,
        process: Process | None = None,
        say: Callable[[str], None] = lambda text: None,
    ):
        self._host, self._port = host, port
        self._process = process
        self._say = say
        self._poster = Poster(host, port)
        self._expected: Any = None
        self._sent = _Seen()
        self._told: tuple[str, Case] | None = None
        self.findings = Findings(seed)

    def run(self, cases: int) -> Findings:
        """Raises ConnectionError when the server does not even answer a sound request at the beginning."""
        began = time.monotonic()
        self._expected = self._sound_answer()
        if self._expected is None:
            raise ConnectionError("the server does not answer a sound request")
        for strategy, count in (
            (body_cases(self._fields()), cases - cases // RAW_SHARE),
            (raw_cases(), cases // RAW_SHARE),
        ):
            self._explore(strategy, count)
        self._poster.close()
        self.findings.seconds = time.monotonic() - began
        return self.findings

    @property
    def _alive(self) -> bool:
        return self._process is None or self._process.alive

    def _fields(self) -> dict[str, list[str]]:
        """Every path that takes a POST, and the names that its body may have, as the server describes them."""
        found = {}
        for path, operations in self._poster.json("/openapi.json")["paths"].items():
            if "requestBody" in operations.get("post", {}):
                schema = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
                parts = [schema, *schema.get("anyOf", ())]
                found[path] = sorted({name for part in parts for name in part.get("properties", ())})
        return found

    def _explore(self, strategy: st.SearchStrategy[Case], count: int) -> None:
        """``count`` different cases, in as many rounds as that takes: each ends at a failure, or repeats itself."""
        wanted = self.findings.cases + count
        while self.findings.cases < wanted and self._alive and len(self.findings.failures) < MAX_FAILURES:
            before = self.findings.cases
            self._round(strategy, wanted)
            self._say(f"{self.findings.cases} cases, {len(self.findings.failures)} failures")
            if self.findings.cases == before:  # there are no more
                return

    def _round(self, strategy: st.SearchStrategy[Case], wanted: int) -> None:
        """Cases that were not sent before, until there are ``wanted``, or one fails, which is then made small."""
        self._told = None
        missing = wanted - self.findings.cases

        @seed(f"{self.findings.seed} {self.findings.cases}")
        @settings(
            max_examples=min(max(missing, BATCH), ROUND),
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(strategy)
        def explore(case: Case) -> None:
            if self._told is None and (self.findings.cases >= wanted or case in self._sent):
                return
            self._sent.add(case)
            if (problem := self._problem(case)) is not None:
                self._told = problem, case
                raise FaultFound(problem)

        try:
            explore()
        except Exception:
            if self._told is None:
                raise
            self._book(*self._told)

    def _book(self, problem: str, case: Case) -> None:
        self.findings.failures.append({"problem": problem, "case": case.describe()})

    def _problem(self, case: Case) -> str | None:
        findings = self.findings
        findings.cases += 1
        try:
            problem = self._judge(case)
        except HangError as error:
            findings.hangs += 1
            problem = f"a hang: {error}"
        except WRONG as error:
            problem = f"no answer: {type(error).__name__}: {error}"
        if not self._alive:
            return f"the server's process ended ({problem or 'it had answered'})"
        if problem is None and self._process is not None and self._process.grown:
            return f"the server's memory has grown by more than {MAX_GROWTH_BYTES // 2**20} MiB"
        if problem is None and findings.cases % BATCH == 0 and self._sound_answer() != self._expected:
            return "after this case, or one of the batch before it, a sound request is not answered as it was at first"
        return problem

    def _judge(self, case: Case) -> str | None:
        if isinstance(case, BodyCase):
            answer = self._poster.send(case)
            self.findings.answers[str(answer.status)] += 1
            return fault(answer, case.path)
        answers = send_raw(self._host, self._port, case)
        self.findings.answers.update(str(status) for status, _ in answers)
        self.findings.answers["raw, no answer"] += not answers
        return next((found for status, body in answers if (found := fault_of_raw(status, body)) is not None), None)

    def _sound_answer(self) -> Any:
        """The choices of a greedy completion, over a connection of its own; None where there is no such answer."""
        path, body = GOOD
        poster = Poster(self._host, self._port)
        try:
            answer = poster.json(path, body)
        except WRONG:
            return None
        finally:
            poster.close()
        return None if answer is None else answer["choices"]
