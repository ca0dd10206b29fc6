"""The engine without a server: the same prompts through ``LLM.generate``, in a process of its own."""

from __future__ import annotations

import time
from typing import Any

from minillm_serve.bench.child import Progress, child_main


def measure(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """job: model, engine (fields of EngineConfig), prompts (token ids), max_tokens. Seconds of one timed run."""
    from minillm_serve.engine.llm import LLM
    from minillm_serve.params import SamplingParams

    llm = LLM(job["model"], **job["engine"])
    prompts = [tuple(prompt) for prompt in job["prompts"]]
    llm.generate(prompts, SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))
    params = SamplingParams(temperature=0, max_tokens=job["max_tokens"], ignore_eos=True)
    started = time.perf_counter()
    outputs = llm.generate(prompts, params)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "tokens": sum(len(output.outputs[0].token_ids) for output in outputs)}


if __name__ == "__main__":
    child_main(measure)
