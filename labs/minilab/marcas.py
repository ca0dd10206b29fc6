"""When each token came: requests served by the engine in this process, with the clock of whoever measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from minillm_serve import LLM, SamplingParams


def sirve(
    llm: LLM,
    prompts: Sequence[str],
    nuevos: int,
    a_la_vez: bool = True,
    reloj: Callable[[], float] = time.perf_counter,
) -> list[dict[str, Any]]:
    """Serve ``prompts`` through the chat template, greedily, exactly ``nuevos`` tokens each; one dict per prompt.

    ``inicio``: when it was asked; ``tiempos``: when each new token was there; ``fin``: the last of them; ``tokens``.
    Seconds of ``reloj``. a_la_vez: all are asked at the start; else each one when the one before has ended, with an
    empty prefix cache: the chat template's opening is the same in all.
    """
    if a_la_vez:
        return _serve(llm, prompts, nuevos, reloj)
    return [measured for prompt in prompts for measured in _serve(llm, [prompt], nuevos, reloj)]


def _serve(llm: LLM, prompts: Sequence[str], nuevos: int, reloj: Callable[[], float]) -> list[dict[str, Any]]:
    llm.reset_prefix_cache()
    params = SamplingParams(temperature=0.0, max_tokens=nuevos, ignore_eos=True)
    start = reloj()
    groups = [
        llm.core.prepare(llm.tokenizer.apply_chat_template([{"role": "user", "content": p}]), params) for p in prompts
    ]
    for group in groups:
        llm.core.add(str(group.rid), group)
    times: dict[int, list[float]] = {group.rid: [] for group in groups}
    while llm.core.has_work():
        outputs = llm.core.step()
        now = reloj()
        for output in outputs:
            seen = times[output.rid]
            seen += [now] * (len(output.outputs[0].token_ids) - len(seen))
    return [{"inicio": start, "tiempos": t, "fin": t[-1], "tokens": len(t)} for t in (times[g.rid] for g in groups)]
