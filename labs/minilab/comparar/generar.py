"""``transformers`` in a process of its own: ``generate`` with the options of each run, timed."""

from __future__ import annotations

import time
from typing import Any

from minillm_serve.bench.child import Progress, child_main


def measure(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """job: model, threads, runs [{caso, prompts (token ids), nuevos, opciones}]; each run gains tokens and segundos.

    Greedy, one prompt at a time, EOS ignored, so that every run produces exactly ``nuevos`` tokens a prompt.
    """
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    done = []
    for run in job["runs"]:
        _answer(model, run["prompts"][0], 4, run["opciones"])
        start = time.perf_counter()
        count = sum(_answer(model, prompt, run["nuevos"], run["opciones"]) for prompt in run["prompts"])
        seconds = time.perf_counter() - start
        if count != run["nuevos"] * len(run["prompts"]):
            raise RuntimeError(f"{run['caso']}: {count} tokens")
        done.append({"caso": run["caso"], "tokens": count, "segundos": seconds})
    return {"version": transformers.__version__, "runs": done}


def _answer(model: Any, prompt: list[int], new_tokens: int, options: dict[str, Any]) -> int:
    import torch

    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False, **options
    )
    return output.shape[1] - len(prompt)


if __name__ == "__main__":
    child_main(measure)
