"""One engine, in a process of its own: ``python -P worker.py``, a job on stdin; what is measured comes line by line.

It is run by its path and imports nothing of ours but for our own engine, so that an engine with a torch of its own can
be given it by PYTHONPATH. A job: ``{"backend", "folder", "device", "cells": {name: {"prompts", "new", "warm_up"}},
"repeats", "temperature", "max_model_len", "max_num_seqs", "gpu_memory_utilization", "settings", "tasks"}``. Tasks are
our own engine's: ``limits``, ``kernels``: ``{"shapes", "only"}``, ``speculation``: ``{"shape", "repeats", "scale"}``,
``profile``: ``{name: {"lengths"} or {"length"}}``. Lines of the answer are JSON objects with one key: ``info``,
``run``, ``limits``, ``kernel``, ``speculation``, ``profile``; at last ``done`` or ``error``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Job = dict[str, Any]
Say = Callable[[dict[str, Any]], None]
Call = Callable[[], list[int]]  # generates, and returns how many tokens each prompt got
WARM_UP_TOKENS = 4


class MiniLLM:
    """Our engine. Random weights, no tokenizer."""

    def __init__(self, job: Job):
        from minillm_serve import LLM, SamplingParams, __version__

        self._params = SamplingParams
        self._temperature = job["temperature"]
        settings = {
            "device": job["device"],
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            "enable_prefix_caching": False,
            "max_model_len": job["max_model_len"],
            "max_num_seqs": job["max_num_seqs"],
        }
        if job["device"] == "cuda":
            settings["gpu_memory_utilization"] = job["gpu_memory_utilization"]
        self.llm = LLM(job["folder"], **(settings | job["settings"]))
        self.info = {"version": __version__, "settings": job["settings"]}

    def ready(self, prompts: list[list[int]], new: list[int]) -> Call:
        params = [self._params(temperature=self._temperature, ignore_eos=True, max_tokens=count) for count in new]
        return lambda: [len(output.outputs[0].token_ids) for output in self.llm.generate(prompts, params)]


class VLLM:
    """vLLM's offline engine as it comes, with the settings that the others have."""

    def __init__(self, job: Job):
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")  # it would compile, with tools a machine may lack
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        from vllm import LLM, SamplingParams, __version__

        self._params = SamplingParams
        self._temperature = job["temperature"]
        self._llm = LLM(
            job["folder"],
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype="bfloat16",
            max_model_len=job["max_model_len"],
            max_num_seqs=job["max_num_seqs"],
            gpu_memory_utilization=job["gpu_memory_utilization"],
            enable_prefix_caching=False,
            disable_log_stats=True,
        )
        self.info = {"version": __version__}

    def ready(self, prompts: list[list[int]], new: list[int]) -> Call:
        params = [
            self._params(temperature=self._temperature, ignore_eos=True, max_tokens=count, detokenize=False)
            for count in new
        ]
        requests = [{"prompt_token_ids": prompt} for prompt in prompts]
        return lambda: [
            len(output.outputs[0].token_ids) for output in self._llm.generate(requests, params, use_tqdm=False)
        ]


class Transformers:
    """The loop of every tutorial: ``model.generate``, one prompt after another."""

    def __init__(self, job: Job):
        import torch
        import transformers

        self._torch, self._job = torch, job
        transformers.utils.logging.set_verbosity_error()
        config = transformers.AutoConfig.from_pretrained(job["folder"])
        dtype = torch.bfloat16 if job["device"] == "cuda" else torch.float32
        with torch.device(job["device"]):
            self._model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        self._generation = transformers.GenerationConfig
        self.info = {"version": transformers.__version__}

    def ready(self, prompts: list[list[int]], new: list[int]) -> Call:
        return lambda: [self._answer(prompt, count) for prompt, count in zip(prompts, new, strict=True)]

    def _answer(self, prompt: list[int], count: int) -> int:
        # No eos_token_id: nothing ends a text but its length. top_k 0: its default of 50 is not in the workload.
        self._model.generation_config = self._generation(
            do_sample=True, temperature=self._job["temperature"], top_k=0, max_new_tokens=count, pad_token_id=0
        )
        with self._torch.inference_mode():
            ids = self._torch.tensor([prompt], device=self._job["device"])
            answer = self._model.generate(ids, attention_mask=self._torch.ones_like(ids))
        return answer.shape[1] - len(prompt)


ENGINES: dict[str, Callable[[Job], Any]] = {"minillm": MiniLLM, "vllm": VLLM, "transformers": Transformers}


def measure(job: Job, say: Say) -> None:
    """The device, then every cell ``repeats`` times, then where a step's time goes.

    Before a cell counts, its first prompts are read and get a few new tokens: code is compiled, buffers grow.
    """
    tasks = job["tasks"]
    if "limits" in tasks:
        _measure_device(job, say)
    if "speculation" in tasks:
        from minillm_serve.bench.gpu.speculation import measure_speculation

        settings = {"device": job["device"], **job["settings"]}
        measure_speculation(
            job["folder"], settings=settings, say=lambda row: say({"speculation": row}), **tasks["speculation"]
        )
    if not job["cells"]:
        return
    begin = time.perf_counter()
    engine = ENGINES[job["backend"]](job)
    say({"info": engine.info | _versions() | {"load_s": time.perf_counter() - begin}})
    for name, cell in job["cells"].items():
        prompts, new = cell["prompts"], cell["new"]
        engine.ready(prompts[: cell["warm_up"]], [min(count, WARM_UP_TOKENS) for count in new[: cell["warm_up"]]])()
        call = engine.ready(prompts, new)
        for _ in range(job["repeats"]):
            start = time.perf_counter()
            counts = call()
            seconds = time.perf_counter() - start
            if counts != new:
                raise RuntimeError(f"{name}: {sum(counts)} tokens were generated, {sum(new)} were asked for")
            say({"run": {"cell": name, "seconds": seconds, "tokens": sum(new)}})
    if "profile" in tasks:
        _profile(engine.llm, job, say)


def _measure_device(job: Job, say: Say) -> None:
    """The limits, and kernels against them; what they took of the device's memory is free afterwards."""
    import gc
    from dataclasses import asdict

    import torch

    from minillm_serve.bench.gpu.kernels import measure_kernels
    from minillm_serve.bench.gpu.limits import measure_limits

    device = torch.device(job["device"])
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    limits = measure_limits(device)
    say({"limits": {"device": name, "versions": _versions(), **asdict(limits)}})
    if "kernels" in job["tasks"]:
        measure_kernels(device, limits, lambda row: say({"kernel": row}), **job["tasks"]["kernels"])
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _profile(llm: Any, job: Job, say: Say) -> None:
    from minillm_serve.bench.gpu.profile import profile_decode, profile_prompts

    for name, case in job["tasks"]["profile"].items():
        if "lengths" in case:
            profile = profile_decode(llm, case["lengths"], job["temperature"])
        else:
            profile = profile_prompts(llm, case["length"], job["temperature"])
        say({"profile": {"steps": name, **profile}})


def _versions() -> dict[str, Any]:
    import platform
    from importlib import metadata

    import torch

    triton = next((d.version for d in metadata.distributions(name="triton")), None)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton,
        "cuda": torch.version.cuda,
    }


def main() -> None:
    # What engines and their own child processes print goes to stderr: stdout carries only the protocol.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        measure(json.loads(sys.stdin.read()), say)
        say({"done": True})
    except Exception as error:
        import traceback

        traceback.print_exc()
        say({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
