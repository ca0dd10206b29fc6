"""``python tests/sched/run_traces.py 10000``: play many random traces, report how many broke an invariant."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from random_traces import play, random_case


def play_seed(seed: int) -> tuple[int, Counter[str] | str]:
    try:
        return seed, play(random_case(seed))
    except Exception as error:  # whatever went wrong in a trace is a finding, not the end of the run
        return seed, f"{type(error).__name__}: {error}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=int, nargs="?", default=10_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", help="write the summary to this file")
    args = parser.parse_args()
    start, totals, violations = time.monotonic(), Counter[str](), []
    seeds = range(args.first_seed, args.first_seed + args.traces)
    with contextlib.ExitStack() as stack:
        outcomes = map(play_seed, seeds)
        if args.processes > 1:
            outcomes = stack.enter_context(ProcessPoolExecutor(args.processes)).map(play_seed, seeds, chunksize=50)
        for seed, outcome in outcomes:
            if isinstance(outcome, str):
                violations.append({"seed": seed, "what": outcome})
                print(f"seed {seed}: {outcome}", file=sys.stderr)
            else:
                totals += outcome
    summary = {
        "traces": args.traces,
        "violations": len(violations),
        "examples": violations[:20],
        "totals": dict(totals),
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(summary, indent=2))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(summary, file, indent=2)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
