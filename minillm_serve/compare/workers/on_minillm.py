"""This engine, through the step loop that the server runs."""

from __future__ import annotations

import time
from typing import Any

from worker import Answer

from minillm_serve import LLM, SamplingParams, __version__

KV_CACHE_BYTES = 2 << 30  # what vLLM is given here


class MiniLLM:
    """The offline engine; ``settings`` of the load command are fields of EngineConfig."""

    def __init__(self, command: dict[str, Any]):
        settings = {"num_threads": command["threads"], **command["settings"]}
        if "num_kv_blocks" not in settings:
            settings.setdefault("kv_cache_memory_bytes", KV_CACHE_BYTES)
        if command["dtype"] == "int8":
            settings = {"quantization": "int8", "kv_cache_dtype": "int8", **settings}
        else:
            settings.setdefault("dtype", command["dtype"])
        self._llm = LLM(command["model"], **settings)
        config = self._llm.config
        self.info = {
            "version": __version__,
            "max_num_batched_tokens": config.max_num_batched_tokens,
            "kernels": config.kernels,
            "quantization": config.quantization,
            "kv_cache_dtype": config.kv_cache_dtype,
            "weight_bytes": self._llm.core.runner.model.weights.step_bytes,
            "settings": command["settings"],
        }

    def answer(self, prompts: list[list[int]], max_tokens: int) -> list[Answer]:
        core = self._llm.core
        params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
        answers: dict[int, Answer] = {}
        start = time.perf_counter()
        for prompt in prompts:
            group = core.prepare(prompt, params)
            core.add(str(group.rid), group)
            answers[group.rid] = Answer()
        while core.has_work():
            outputs = core.step()
            now = time.perf_counter() - start
            for output in outputs:
                answer, tokens = answers[output.rid], output.outputs[0].token_ids
                answer.times += [now] * (len(tokens) - answer.count)
                answer.count = len(tokens)
                if output.finished:
                    answer.token_ids = list(tokens)
        return list(answers.values())

    def reset(self) -> None:
        self._llm.core.scheduler.reset_prefix_cache()


def load(command: dict[str, Any]) -> MiniLLM:
    return MiniLLM(command)
