"""The ``minillm`` command. Each subcommand is imported when it is asked for, so ``--help`` answers at once."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from minillm_serve import __version__
from minillm_serve.config import ConfigError
from minillm_serve.params import RequestError

USAGE_ERROR = 2
INTERRUPTED = 130

Run = Callable[[argparse.Namespace], int | None]
LAZY = {
    "serve": ("minillm_serve.serve.main", "serve a model over the OpenAI API"),
    "demo": ("minillm_serve.bench.demo", "serve the real model to fifty clients and measure it"),
    "stages": ("minillm_serve.bench.stage_table", "run the engine's story stage by stage and time each"),
    "bench": ("minillm_serve.bench.main", "measure throughput, latency, prefix cache or stages"),
    "compare": ("minillm_serve.compare.main", "install and list the engines that benchmarks compare with"),
    "guided": ("minillm_serve.bench.guided_command", "explain what a constraint becomes and what it allows"),
    "distill": ("minillm_serve.distill.command", "train a draft head on text that the model itself wrote"),
    "trace": ("minillm_serve.bench.trace_command", "replay, draw or anonymise a trace of the engine"),
}
EXTRAS = {
    "compare": ("transformers", "openai", "jsonschema", "matplotlib"),
    "course": ("jupyterlab", "ipywidgets", "nbgrader", "jupytext", "nbclient", "jsonschema", "filelock", "bleach"),
    "triton": ("triton",),
    "test": ("pytest", "pytest-xdist", "hypothesis", "ruff", "httpx", "simplemma"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``minillm ARGV``; returns the exit status: 0, 2 for a clear refusal, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = build_parser(arguments).parse_args(arguments)
        return args.run(args) or 0
    except (ConfigError, RequestError) as error:
        print(f"minillm: {error}", file=sys.stderr)
        return USAGE_ERROR
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("minillm_serve", "minillm_kernels"):
            raise
        print(f"minillm: {missing_package(error.name or '?')}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("minillm: interrupted", file=sys.stderr)
        return INTERRUPTED


def build_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; of the lazy subcommands only the one in ``arguments`` is imported."""
    parser = argparse.ArgumentParser(prog="minillm", description="A readable LLM serving engine.")
    parser.add_argument("--version", action="version", version=f"minillm-serve {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_model(commands.add_parser("model", help="fetch, find and list models"))
    _add_generate(commands.add_parser("generate", help="complete one prompt and print the text"))
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, (module, summary) in LAZY.items():
        subparser = commands.add_parser(name, help=summary, description=summary)
        if name == asked:
            implementation = importlib.import_module(module)
            implementation.add_arguments(subparser)
            subparser.set_defaults(run=implementation.run)
    return parser


def missing_package(name: str) -> str:
    """One sentence that says which package is missing and which extra brings it."""
    top = name.partition(".")[0]
    extra = next((extra for extra, packages in EXTRAS.items() if top in packages), None)
    target = f'"minillm-serve[{extra}]"' if extra else "minillm-serve"
    return f"this command needs the Python package {top}, which is not installed: python -m pip install {target}"


def _add_model(parser: argparse.ArgumentParser) -> None:
    from minillm_serve.model.store import DEFAULT_MODEL

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    get = actions.add_parser("get", help="put a model into the cache (downloads at most once)")
    get.add_argument("name", nargs="?", default=DEFAULT_MODEL, help="known model (default: %(default)s)")
    get.set_defaults(run=_model_get)
    path = actions.add_parser("path", help="print the folder of a model; never downloads")
    path.add_argument("name", nargs="?", default=DEFAULT_MODEL, help="known model or local folder")
    path.set_defaults(run=_model_path)
    actions.add_parser("list", help="known models and whether they are in the cache").set_defaults(run=_model_list)


def _model_get(args: argparse.Namespace) -> None:
    from minillm_serve.model.fetch import get_model

    print(get_model(args.name, say=lambda text: print(text, file=sys.stderr, flush=True)))


def _model_path(args: argparse.Namespace) -> None:
    from minillm_serve.model.store import resolve_model

    print(resolve_model(args.name))


def _model_list(args: argparse.Namespace) -> None:
    from minillm_serve.model.store import KNOWN_MODELS, is_complete, model_folder

    for model in KNOWN_MODELS.values():
        folder = model_folder(model.name)
        state = str(folder) if is_complete(folder) else f"not in the cache; minillm model get {model.name}"
        print(f"{model.name}\t{model.weights} ({model.license})\t{state}")


def _add_generate(parser: argparse.ArgumentParser) -> None:
    from minillm_serve.model.store import DEFAULT_MODEL

    parser.add_argument("prompt", help="text to answer")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="known model or local folder (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=64, help="new tokens at most (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="makes sampling repeatable")
    parser.add_argument("--quantization", default=None, help="int8: 8-bit weights and activations (default: none)")
    parser.add_argument("--raw", action="store_true", help="continue the text as it is, without the chat template")
    parser.add_argument("--trace-file", type=Path, default=None, help="write every engine step to this JSON file")
    parser.set_defaults(run=_generate)


def _generate(args: argparse.Namespace) -> None:
    from minillm_serve import LLM, SamplingParams

    params = SamplingParams(max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed)
    llm = LLM(model=args.model, quantization=args.quantization, trace_file=args.trace_file)
    try:
        if args.raw:
            [output] = llm.generate(args.prompt, params)
        else:
            [output] = llm.chat([{"role": "user", "content": args.prompt}], params)
    finally:
        llm.close()
    print(output.outputs[0].text)


if __name__ == "__main__":
    sys.exit(main())
