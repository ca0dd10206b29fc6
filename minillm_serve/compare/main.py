"""``minillm compare setup|list``: the other engines, each in an environment of its own in the user's cache."""

from __future__ import annotations

import argparse
import sys

from minillm_serve.compare.backend import KINDS, Backend
from minillm_serve.compare.environments import RECIPES, set_up


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``setup`` and ``list`` on ``parser``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    setup = actions.add_parser("setup", help="install an engine into its own environment (once)")
    setup.add_argument("name", choices=sorted(RECIPES), metavar="ENGINE", help=", ".join(sorted(RECIPES)))
    setup.add_argument("--python", default=sys.executable, help="interpreter to make it with (this one)")
    actions.add_parser("list", help="what can be compared here, and how to install what cannot")


def run(args: argparse.Namespace) -> None:
    """Raises ConfigError (one sentence) where something cannot be set up."""
    if args.action == "setup":
        set_up(args.name, lambda text: print(text, file=sys.stderr, flush=True), args.python)
        return
    for name, kind in KINDS.items():
        reason = Backend(name, kind.dtypes[0]).why_absent()
        print(f"{name}\t{kind.summary}\t{reason or 'ready'}")
