"""``minillm compare conformance``: the same requests to vLLM and to this server, and every difference."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from minillm_serve import __version__
from minillm_serve.compare.conformance.asking import ask_all
from minillm_serve.compare.conformance.case import Answer, Case
from minillm_serve.compare.conformance.cases import all_cases
from minillm_serve.compare.conformance.recording import COMMITTED, Recording, load
from minillm_serve.compare.conformance.reviewed import load_rules
from minillm_serve.compare.conformance.servers import SERVERS, minillm_server, vllm_flags, vllm_server, vllm_version
from minillm_serve.compare.conformance.verdict import Verdict, judge
from minillm_serve.config import ConfigError
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model

SUMMARY = "the same requests to vLLM and to this server; exit 1 on a difference that is not on the reviewed list"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--only", metavar="GLOB", action="append", help="cases by name, such as 'chat/tools-*'")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.add_argument(
        "--minillm-url",
        metavar="URL",
        help="ask this running server, started with servers.py's flags (default: start one)",
    )
    parser.add_argument(
        "--vllm-url",
        metavar="URL",
        help="ask this running vLLM, started with servers.py's flags, for what is generated",
    )
    parser.add_argument("--replay", nargs="?", type=Path, const=COMMITTED, metavar="FILE",
                        help="take vLLM's answers from a recording (default: the package's own)")  # fmt: skip
    parser.add_argument("--record", nargs="?", type=Path, const=COMMITTED, metavar="FILE",
                        help="ask vLLM alone, and write its answers to FILE")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the names of the cases and end")


def run(args: argparse.Namespace) -> int:
    """Returns 1 when something differs that nobody reviewed. Raises ConfigError where a server cannot be asked."""
    everything = all_cases()
    cases = [case for case in everything if not args.only or any(fnmatchcase(case.name, glob) for glob in args.only)]
    cases = _with_predecessors(cases, everything)
    if not cases:
        raise ConfigError(f"no case is called {' or '.join(args.only)}; --list prints the names")
    if args.list:
        print("\n".join(case.name for case in cases))
        return 0
    with tempfile.TemporaryDirectory(prefix="minillm-conformance-") as logs:
        if args.record is not None:
            _record(args, cases, Path(logs))
            return 0
        verdict = _compare(args, cases, Path(logs), whole=len(cases) == len(everything))
    _report(verdict)
    if args.json is not None:
        about = {
            "minillm": __version__,
            "vllm": load(args.replay).about if args.replay else {"version": vllm_version()},
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(about | verdict.as_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0 if verdict.sound else 1


def _compare(args: argparse.Namespace, cases: Sequence[Case], folder: Path, whole: bool) -> Verdict:
    theirs = _recorded(args.replay, cases) if args.replay is not None else _ask_vllm(args, cases, folder)
    with ExitStack() as stack:
        url = args.minillm_url or stack.enter_context(
            minillm_server(resolve_model(DEFAULT_MODEL), folder / "minillm.log")
        )
        _say(f"asking this server {len(cases)} times")
        ours = ask_all(url, cases, _say)
    return judge(cases, theirs, ours, load_rules(), whole)


def _with_predecessors(cases: Sequence[Case], everything: Sequence[Case]) -> list[Case]:
    """The chosen cases and those that must be asked before them, in their order."""
    wanted = {case.name for case in cases}
    for case in reversed(everything):
        if case.name in wanted and case.after is not None:
            wanted.add(case.after)
    return [case for case in everything if case.name in wanted]


def _recorded(path: Path, cases: Sequence[Case]) -> dict[str, Answer]:
    found, missing = load(path).split(cases)
    if missing:
        some = ", ".join(missing[:5])
        raise ConfigError(f"{path} has no answer to {len(missing)} of these requests ({some}): record them again")
    return found


def _record(args: argparse.Namespace, cases: Sequence[Case], folder: Path) -> None:
    flags = {server: vllm_flags(server) for server in SERVERS}
    about = {"version": vllm_version(), "model": DEFAULT_MODEL, "flags": flags}
    older = load(args.record) if args.record.exists() else Recording(about)
    kept = older if older.about == about and args.only else Recording(about)
    model = str(resolve_model(DEFAULT_MODEL))
    answers = _ask_vllm(args, cases, folder)
    # A recording says nothing of the machine it was made on.
    kept.add(
        cases, {name: replace(said, body=said.body.replace(model, DEFAULT_MODEL)) for name, said in answers.items()}
    )
    kept.save(args.record)
    _say(f"{len(cases)} answers of vLLM {about['version']} are in {args.record}")


def _ask_vllm(args: argparse.Namespace, cases: Sequence[Case], folder: Path) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for server in SERVERS:
        some = [case for case in cases if case.server == server]
        if not some:
            continue
        with ExitStack() as stack:
            url = args.vllm_url if server == "generate" else None
            if url is None:
                _say(f"starting vLLM ({server})")
                model = resolve_model(DEFAULT_MODEL)
                url = stack.enter_context(vllm_server(model, server, folder / f"vllm-{server}.log"))
            _say(f"asking vLLM {len(some)} times")
            answers |= ask_all(url, some, _say)
    return answers


def _report(verdict: Verdict) -> None:
    for name, differences in verdict.unexplained.items():
        print(name)
        for difference in differences:
            print(f"    {difference}")
    for reason in verdict.stale:
        print(f"no case needs this rule of the reviewed list any more: {reason}")
    print(verdict.summary())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
