"""vLLM's offline engine on the CPU: eager (its compilation takes minutes here), its step loop driven as ours is."""

from __future__ import annotations

import os
import time
from typing import Any

from worker import Answer

KV_CACHE_GIB = 2


class VLLM:
    """Further ``settings`` of the load command are arguments of ``vllm.LLM``."""

    def __init__(self, command: dict[str, Any]):
        threads = command["threads"]
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(KV_CACHE_GIB))
        # In one process the loop can be stepped and timed, and no step pays for a message to another process.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_NO_USAGE_STATS"] = "1"
        os.environ["VLLM_LOGGING_LEVEL"] = "WARNING"
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores(threads)))
        from vllm import LLM, SamplingParams, __version__

        settings = {"enforce_eager": True, "max_num_seqs": 128, **command["settings"]}
        self._llm = LLM(command["model"], dtype=command["dtype"], **settings)
        self._engine = self._llm.llm_engine
        self._params = SamplingParams
        self._next_id = 0
        self.info = {"version": __version__, "settings": settings}

    def answer(self, prompts: list[list[int]], max_tokens: int) -> list[Answer]:
        params = self._params(temperature=0.0, max_tokens=max_tokens, ignore_eos=True, detokenize=True)
        answers: dict[str, Answer] = {}
        start = time.perf_counter()
        for prompt in prompts:
            self._next_id += 1
            self._engine.add_request(str(self._next_id), {"prompt_token_ids": prompt}, params)
            answers[str(self._next_id)] = Answer()
        while self._engine.has_unfinished_requests():
            outputs = self._engine.step()
            now = time.perf_counter() - start
            for output in outputs:
                answer, tokens = answers[output.request_id], output.outputs[0].token_ids
                answer.times += [now] * (len(tokens) - answer.count)
                answer.count = len(tokens)
                if output.finished:
                    answer.token_ids = list(tokens)
        return list(answers.values())

    def reset(self) -> None:
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache")


def cores(threads: int) -> list[int]:
    """The first ``threads`` cores that this process may use."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if threads > len(mine):
        raise ValueError(f"{threads} threads were asked for, this process may use {len(mine)} cores")
    return mine[:threads]


def load(command: dict[str, Any]) -> VLLM:
    return VLLM(command)
