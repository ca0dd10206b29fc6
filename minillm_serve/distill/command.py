"""``minillm distill data|train|card``: let a target write text, train a draft head on it, describe the head."""

from __future__ import annotations

import argparse
import shlex
import sys
import typing
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from minillm_serve.config import ConfigError
from minillm_serve.distill.card import write_card
from minillm_serve.distill.data import TOY_DATA, DataSettings, write
from minillm_serve.distill.parallel import write_in_processes
from minillm_serve.distill.train import TOY_TRAIN, TrainSettings, train
from minillm_serve.engine.llm import LLM
from minillm_serve.model.store import DEFAULT_MODEL
from minillm_serve.params import RequestError

say = partial(print, flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The three actions; every field of their settings is a flag."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    data = actions.add_parser("data", help="let the target write the training text")
    data.add_argument("--model", default=DEFAULT_MODEL, help="the target (default: %(default)s)")
    data.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    data.add_argument("--out", type=Path, required=True, help="folder for the text")
    _add_settings(data, DataSettings, TOY_DATA)
    data.set_defaults(act=_data)
    training = actions.add_parser("train", help="train a head on that text")
    training.add_argument("--data", type=Path, required=True, help="folder that the action data filled")
    training.add_argument("--out", type=Path, required=True, help="folder for the head")
    _add_settings(training, TrainSettings, TOY_TRAIN)
    training.set_defaults(act=_train)
    card = actions.add_parser("card", help="write the head's model card and the picture of its training")
    card.add_argument("--out", type=Path, required=True, help="the head's folder")
    card.set_defaults(act=lambda args: say(write_card(args.out)))


def run(args: argparse.Namespace) -> None:
    """Do the action that was asked for."""
    args.act(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m minillm_serve.distill ARGV``; returns the exit status, 2 for a clear refusal."""
    parser = argparse.ArgumentParser(prog="python -m minillm_serve.distill", description=__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        run(args)
    except (ConfigError, RequestError) as error:
        print(f"distill: {error}", file=sys.stderr)
        return 2
    return 0


def _add_settings(parser: argparse.ArgumentParser, settings: type, toy: Any) -> None:
    parser.add_argument("--toy", action="store_true", help="minutes on two cores of a CPU: to learn from, not to serve")
    hints = typing.get_type_hints(settings)
    for field in fields(settings):
        flag, default = "--" + field.name.replace("_", "-"), f"{field.default} (toy: {getattr(toy, field.name)})"
        kind = next(one for one in (*typing.get_args(hints[field.name]), hints[field.name]) if one is not type(None))
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=default)
        else:
            parser.add_argument(flag, type=kind, default=None, help=default)


def _settings(args: argparse.Namespace, settings: type, toy: Any) -> Any:
    given = {field.name: getattr(args, field.name) for field in fields(settings)}
    return replace(
        toy if args.toy else settings(), **{name: value for name, value in given.items() if value is not None}
    )


def _data(args: argparse.Namespace) -> None:
    settings = _settings(args, DataSettings, TOY_DATA)
    if settings.processes > 1:
        write_in_processes(args.model, args.device, args.out, settings, _command(args), say)
        return
    with LLM(args.model, device=args.device, max_num_seqs=settings.max_num_seqs) as llm:
        write(llm, args.out, settings, _command(args), say)


def _train(args: argparse.Namespace) -> None:
    settings = _settings(args, TrainSettings, TOY_TRAIN)
    if settings.device not in ("cpu", "cuda") or (settings.device == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"device must be cpu, or cuda where PyTorch sees a GPU, got {settings.device!r}")
    train(args.data, args.out, settings, _command(args), say)


def _command(args: argparse.Namespace) -> str:
    """The command that does this again, without this machine's folders."""
    given = {name: value for name, value in vars(args).items() if value not in (None, False)}
    words: list[str] = []
    for name, value in given.items():
        if name not in ("act", "run", "action", "command"):
            words.append("--" + name.replace("_", "-"))
            words += [] if value is True else [Path(value).name if "/" in str(value) else str(value)]
    return shlex.join(["minillm", "distill", args.action, *words])
