"""``minillm bench fuzz``: odd bodies for every POST route and bytes that are not HTTP, against a server of its own.

A case fails if the answer is 5xx, if nothing comes for 10 s, or if an error is long, of another shape, or tells of
paths, addresses or code; if a sound request in between is not answered as it was at first; and if the server's memory
grows by more than 512 MiB. The same seed, cases
and version give the same cases. Needs hypothesis (the extra ``test``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console

from minillm_serve.bench.environment import available_cores, describe_environment
from minillm_serve.bench.random_model import build_random_model
from minillm_serve.bench.server_process import ServerError, ServerProcess
from minillm_serve.config import ConfigError
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model

if TYPE_CHECKING:
    from minillm_serve.bench.fuzz.campaign import Findings

RANDOM = "random"
# A short context keeps every answer short, whatever is asked for.
FLAGS = ("--max-model-len", "128", "--max-num-seqs", "64", "--num-threads", "1", "--num-gpu-blocks-override", "1024")
MAX_LISTED = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``minillm bench fuzz``."""
    parser.add_argument("--cases", type=int, default=50_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (default: %(default)s)")
    parser.add_argument("--model", default=RANDOM, help="what to serve: a model, or one of random weights (default)")
    parser.add_argument("--url", help="a server that runs already, as http://host:port, instead of one of its own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write counts, failures and environment there")


def run(args: argparse.Namespace) -> int:
    """0 if no case failed, else 1. Raises ConfigError."""
    from minillm_serve.bench.fuzz.campaign import Campaign

    if args.cases < 1:
        raise ConfigError(f"--cases must be at least 1, got {args.cases}")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise ConfigError(f"--json: the folder {args.json.parent} does not exist")
    if args.url:
        findings = Campaign(*_address(args.url), args.seed, say=_say).run(args.cases)
    else:
        findings = _against_own_server(args.model, args.cases, args.seed)
    show(findings, Console())
    if args.json is not None:
        document = findings.to_dict() | {"environment": describe_environment(available_cores(), "float32")}
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if findings.failures else 0


def _against_own_server(model: str, cases: int, seed: int) -> Findings:
    """A server's death is a finding too."""
    from minillm_serve.bench.fuzz.campaign import Campaign, Process

    findings: Findings | None = None
    with tempfile.TemporaryDirectory(prefix="minillm-fuzz-") as name:
        folder = Path(name)
        served = str(build_random_model(resolve_model(DEFAULT_MODEL), folder / "model")) if model == RANDOM else model
        try:
            with ServerProcess([served, "--served-model-name", "fuzz", *FLAGS], folder / "server.log") as server:
                campaign = Campaign("127.0.0.1", server.port, seed, Process(server.pid, server.exit_code), _say)
                findings = campaign.run(cases)
        except ServerError as error:
            if findings is None:
                raise
            findings.failures.append({"problem": str(error), "case": {}})
    return findings


def show(findings: Findings, console: Console) -> None:
    """Counts, and the first failures."""
    answers = ", ".join(f"{what}: {count}" for what, count in sorted(findings.answers.items()))
    console.print(f"{findings.cases} cases (seed {findings.seed}) in {findings.seconds:.0f} s; {answers}", markup=False)
    console.print(f"{len(findings.failures)} failures, {findings.hangs} hangs")
    for failure in findings.failures[:MAX_LISTED]:
        console.print(f"  {failure['problem']}", markup=False)
        console.print(f"    {json.dumps(failure['case'])[:2000]}", markup=False, style="dim")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"--url must look like http://host:port, got {url!r}")
    return parts.hostname, parts.port or 80
