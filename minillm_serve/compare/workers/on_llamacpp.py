"""llama.cpp through xllamacpp: its own server inside this process, one slot for each request that runs at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from worker import Answer

CONTEXT_STEP = 256


class LlamaCpp:
    """``gguf``, ``slots`` and ``max_len`` (tokens per slot) come with the load command.

    settings: ``cache_prompt`` (off unless asked for) and fields of llama.cpp's ``common_params``.
    """

    def __init__(self, command: dict[str, Any]):
        import xllamacpp

        # Its prompt store in RAM would remember what the slots forget between runs.
        settings = {"cache_ram_mib": 0, **command["settings"]}
        self._cache_prompt = bool(settings.pop("cache_prompt", False))
        self._slots = command["slots"]
        params = xllamacpp.CommonParams()
        params.model.path = command["gguf"]
        params.n_parallel = self._slots
        params.n_ctx = self._slots * (-(-command["max_len"] // CONTEXT_STEP) * CONTEXT_STEP)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = command["threads"]
        params.cont_batching, params.fit_params, params.ui = True, False, False
        params.n_gpu_layers = 0
        for name, value in settings.items():
            if not hasattr(params, name):
                raise ValueError(f"llama.cpp has no setting {name!r}")
            setattr(params, name, value)
        self._server = xllamacpp.Server(params)
        self.info = {
            "version": getattr(xllamacpp, "__version__", None),
            "system": xllamacpp.get_system_info().strip(),
            "slots": self._slots,
            "settings": settings | {"cache_prompt": self._cache_prompt},
        }

    def answer(self, prompts: list[list[int]], max_tokens: int) -> list[Answer]:
        start = time.perf_counter()

        def ask(prompt: list[int]) -> Answer:
            answer = Answer()
            failures: list[str] = []

            def receive(chunk: dict[str, Any]) -> bool:
                if "error" in chunk or chunk.get("code", 200) != 200:
                    failures.append(str(chunk))
                elif any(choice.get("text") for choice in chunk.get("choices", ())):
                    answer.times.append(time.perf_counter() - start)
                if chunk.get("usage"):
                    answer.count = chunk["usage"]["completion_tokens"]
                return False

            self._server.handle_completions(self._body(prompt, max_tokens), receive)
            if failures:
                raise RuntimeError(f"llama.cpp refused the request: {failures[0]}")
            return answer

        with ThreadPoolExecutor(max_workers=len(prompts)) as pool:
            return list(pool.map(ask, prompts))

    def _body(self, prompt: list[int], max_tokens: int) -> dict[str, Any]:
        return {
            "prompt": prompt,
            "n_predict": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "cache_prompt": self._cache_prompt,
        }

    def reset(self) -> None:
        """Nothing to forget while ``cache_prompt`` is off; with it on, one unlike prompt takes the slots' place."""
        if self._cache_prompt:
            self.answer([[1, 2, 3]] * self._slots, 1)


def load(command: dict[str, Any]) -> LlamaCpp:
    return LlamaCpp(command)
