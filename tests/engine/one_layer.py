"""A Triton engine so small that the interpreter can drive it, and what torch's kernels say to the same requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minillm_serve import LLM, SamplingParams, StructuredOutputsParams
from minillm_serve.engine.core import EngineCore

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MAX_MODEL_LEN = 40
MAX_STEPS = 400
GUIDED = StructuredOutputsParams(regex="[0-9]{1,3}(, [0-9]{1,3}){0,3}")
PROMPTS = [[5, 6, 7], [9, 10], [3, 1, 4, 1, 5], [11, 12, 13]]


def triton_core(folder: Path, **more: Any) -> EngineCore:
    settings = {
        "dtype": "float32", "device": DEVICE.type, "kernels": "triton", "async_scheduling": True,
        "max_num_seqs": 4, "max_model_len": MAX_MODEL_LEN, "num_kv_blocks": 60, "block_size": 4,
    }  # fmt: skip
    return LLM(folder, **(settings | more)).core


def answers(outputs: Any) -> list[tuple[int, ...]]:
    return [tuple(sample.token_ids) for sample in outputs.outputs]


def start(core: EngineCore, prompts: list[list[int]], **params: Any) -> list[int]:
    groups = [core.prepare(prompt, SamplingParams(**({"ignore_eos": True} | params))) for prompt in prompts]
    for group in groups:
        core.add(str(group.rid), group)
    return [group.rid for group in groups]


def finish(core: EngineCore) -> dict[int, list[tuple[int, ...]]]:
    done = {}
    for _ in range(MAX_STEPS):
        if not core.has_work():
            return done
        done |= {output.rid: answers(output) for output in core.step() if output.finished}
    raise AssertionError("the engine does not come to an end")


def truth(folder: Path, prompts: list[list[int]], jumps: bool = False, **params: Any) -> list[list[tuple[int, ...]]]:
    settings = {"max_model_len": MAX_MODEL_LEN, "num_kv_blocks": 100, "guided_jump_ahead": jumps}
    llm = LLM(folder, kernels="torch", dtype="float32", **settings)
    return [answers(output) for output in llm.generate(prompts, SamplingParams(**({"ignore_eos": True} | params)))]
