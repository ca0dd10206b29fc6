"""``python -m minilab_grading.medidores.bancos motor|pipeline FOLDER``: what a measuring process holds and answers.

Engine: set-up ``prompts`` (id -> tokens), ``max_new``, ``bloques``, ``tam_bloque``; question ``paso``. Pipeline:
questions ``tokens`` (a chat's ids) and ``genera`` (chats answered with exactly ``max_tokens`` tokens each).
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch

from minilab.reloj.reglas import Item
from minilab_grading.medidores.banco import Pipe

WARM_UP = ((list(range(5, 69)), 64), ([7], 65))


class Held(Protocol):
    """What is loaded once; a fork calls ``begin`` and then answers."""

    def begin(self, setup: dict[str, Any]) -> Any: ...

    def answer(self, question: dict[str, Any]) -> Any: ...


class Engine:
    def __init__(self, folder: Path):
        from minilab.reloj.motor_real import load_model

        self._model = load_model(folder)
        self.info = {"vocabulario": self._model.config.vocab_size}

    def begin(self, setup: dict[str, Any]) -> Any:
        from minilab.reloj.motor_real import RunnerBackend

        self._warm_up(RunnerBackend(self._model, {0: WARM_UP[0][0]}, 2, 8, 16))
        prompts = {int(ident): tokens for ident, tokens in setup["prompts"].items()}
        self._backend = RunnerBackend(self._model, prompts, setup["max_new"], setup["bloques"], setup["tam_bloque"])

    def _warm_up(self, backend: Any) -> None:
        """A prefill and a decode, discarded: threads, allocator and kernels are then in place."""
        for tokens, end in WARM_UP:
            backend.step([Item(0, end - len(tokens), tuple(tokens), tuple(range(-(-end // 16))), True)])

    def answer(self, question: dict[str, Any]) -> Any:
        items = [Item(i, start, tuple(t), tuple(b), draws) for i, start, t, b, draws in question["lote"]]
        return list(self._backend.step(items).items())


class Pipeline:
    def __init__(self, folder: Path):
        from minillm_serve.bench.baseline import PipelineBaseline

        self._baseline = PipelineBaseline(str(folder), "float32", threads=1)
        self.info = {"transformers": metadata.version("transformers")}

    def begin(self, setup: dict[str, Any]) -> Any:
        self._baseline.generate([setup["calienta"]], 2, 1)

    def answer(self, question: dict[str, Any]) -> Any:
        chats = question["charlas"]
        if question["op"] == "tokens":
            template = self._baseline.tokenizer.apply_chat_template
            return [list(template(c, add_generation_prompt=True, return_dict=False)) for c in chats]
        return self._baseline.generate(chats, question["max_tokens"], question["lote"])


def serve(held: Held, pipe: Pipe) -> None:
    """Answer in forks until the grader is gone; a fork that fails says why, and ends alone."""
    while (setup := pipe.read()) is not None:
        child = os.fork()
        if child == 0:
            _one_run(held, setup, pipe)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != 0:
            pipe.fail(f"murió con el código {status} en mitad de una medida")


def _one_run(held: Held, setup: dict[str, Any], pipe: Pipe) -> None:
    try:
        torch.set_num_threads(setup["hilos"])
        pipe.answer(held.begin(setup))
        while (question := pipe.read()) is not None and question["op"] != "fin":
            pipe.answer(held.answer(question))
        pipe.answer(None)
    except Exception as error:
        traceback.print_exc()
        pipe.fail(f"falló: {type(error).__name__}: {error}")


def main() -> None:
    kind, folder = sys.argv[1:]
    pipe = Pipe()
    torch.set_num_threads(1)
    held = {"motor": Engine, "pipeline": Pipeline}[kind](Path(folder))
    pipe.answer({"torch": torch.__version__, **held.info})
    serve(held, pipe)


if __name__ == "__main__":
    main()
