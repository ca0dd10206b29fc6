"""``minillm compare setup|list|conformance``: other engines, each in an environment of its own in the user's cache."""

from __future__ import annotations

import argparse
import sys

from minillm_serve.compare import tools
from minillm_serve.compare.backend import KINDS, Backend
from minillm_serve.compare.conformance import command as conformance
from minillm_serve.compare.environments import RECIPES, set_up


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``setup`` and ``list`` on ``parser``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    setup = actions.add_parser("setup", help="install an engine into its own environment, or the tools (once)")
    names = sorted([*RECIPES, tools.NAME])
    setup.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    setup.add_argument("--python", default=sys.executable, help="interpreter to make it with (this one)")
    actions.add_parser("list", help="what can be compared here, and how to install what cannot")
    differential = actions.add_parser("conformance", help=conformance.SUMMARY, description=conformance.SUMMARY)
    conformance.add_arguments(differential)


def run(args: argparse.Namespace) -> int | None:
    """Raises ConfigError (one sentence) where something cannot be set up."""
    if args.action == "conformance":
        return conformance.run(args)
    if args.action == "setup" and args.name == tools.NAME:
        tools.set_up_tools(_say)
        return None
    if args.action == "setup":
        set_up(args.name, _say, args.python)
        return None
    for name, kind in KINDS.items():
        reason = Backend(name, kind.dtypes[0]).why_absent()
        print(f"{name}\t{kind.summary}\t{reason or 'ready'}")
    return None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
