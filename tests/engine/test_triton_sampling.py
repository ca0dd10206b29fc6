"""How tokens are drawn with steps under way: masks, biases, cuts and penalties, none of which waits for the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from one_layer import DEVICE, GUIDED, PROMPTS, finish, start, triton_core, truth

from minillm_serve import StructuredOutputsParams

pytestmark = pytest.mark.usefixtures("small_work_lists")
CUTS = [{"top_k": 3}, {"top_p": 0.2}, {"min_p": 0.7}, {"top_k": 9, "top_p": 0.5, "min_p": 0.1}]


def test_masks_and_biases_wait_for_no_token(one_layer_dir: Path, monkeypatch) -> None:
    """Only a guide that closes its text looks at what was drawn before the step is collected."""
    core = triton_core(one_layer_dir)
    looked = []
    monkeypatch.setattr(core.runner.batch.sampling, "narrowed", lambda *args: looked.append(args))
    start(core, PROMPTS[:1], logit_bias={50: 3.0}, max_tokens=3)
    start(core, PROMPTS[1:2], allowed_token_ids=[60, 61], presence_penalty=0.5, max_tokens=3)
    finish(core)
    assert not looked
    closing = StructuredOutputsParams(regex="[0-9]+", always_closes=True)
    start(core, PROMPTS[2:3], structured_outputs=closing, ignore_eos=False, max_tokens=3)
    finish(core)
    assert looked


def test_cuts_are_made_within_the_decode_step(one_layer_dir: Path) -> None:
    core = triton_core(one_layer_dir)
    hot = {"temperature": 1.5, "seed": 7, "max_tokens": 8}
    rids = [start(core, [prompt], **hot, **cut)[0] for prompt, cut in zip(PROMPTS, CUTS, strict=True)]
    done = finish(core)
    assert core.runner.batch.sampling.plain.all()
    for rid, prompt, cut in zip(rids, PROMPTS, CUTS, strict=True):
        assert [done[rid]] == truth(one_layer_dir, [prompt], **hot, **cut)
        assert [done[rid]] != truth(one_layer_dir, [prompt], **hot)


@pytest.mark.parametrize("jumps", [False, True])
def test_penalties_count_what_was_drawn_and_what_a_guide_went_on_with(one_layer_dir: Path, jumps: bool) -> None:
    """One row after another, on through preemptions; a free row does not hold up the step that follows its own."""
    penalties = {"repetition_penalty": 1.9, "frequency_penalty": 2.0, "presence_penalty": 2.0}
    written = StructuredOutputsParams(regex="(ab|ba){4}[0-9]{8}")
    few = {"temperature": 0, "max_tokens": 9, "allowed_token_ids": list(range(40, 46))}
    guided = {"temperature": 0, "max_tokens": 18, "structured_outputs": written, "ignore_eos": False}

    jobs = [(PROMPTS[0], few | penalties), (PROMPTS[2], few | {"frequency_penalty": 2.0})]
    later = [(PROMPTS[1], guided | penalties), (PROMPTS[0], few | penalties)]
    core = triton_core(one_layer_dir, num_kv_blocks=5, max_num_seqs=2, guided_jump_ahead=jumps)
    ahead = []
    runs_free = core.runner.runs_free
    core.runner.runs_free = lambda rids: ahead.append(runs_free(rids)) or ahead[-1]
    rids = [start(core, [prompt], **params)[0] for prompt, params in jobs]
    done = finish(core)
    assert all(ahead) and ahead
    rids += [start(core, [prompt], **params)[0] for prompt, params in later]
    done |= finish(core)
    assert core.stats().num_preemptions
    for rid, (prompt, params) in zip(rids, jobs + later, strict=True):
        free = {name: value for name, value in params.items() if not name.endswith("_penalty")}
        assert [done[rid]] == truth(one_layer_dir, [prompt], jumps, **params)
        assert [done[rid]] != truth(one_layer_dir, [prompt], jumps, **free)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs a CUDA device")
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0},
        {"top_k": 7, "top_p": 0.9, "min_p": 0.01},
        {"logit_bias": {50: 5.0}, "logprobs": 2},
        {"allowed_token_ids": list(range(40, 90)), "presence_penalty": 0.5, "min_tokens": 2},
        {"bad_words_ids": ((40,), (41, 42)), "repetition_penalty": 1.2},
        {"structured_outputs": GUIDED, "ignore_eos": False},
    ],
)
def test_submit_waits_for_nothing(one_layer_dir: Path, params: dict[str, Any]) -> None:
    core = triton_core(one_layer_dir)
    start(core, PROMPTS, max_tokens=4, **params)
    finish(core)  # kernels are compiled
    submit = core.runner.submit

    def watched(plan: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return submit(plan)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    core.runner.submit = watched
    start(core, PROMPTS, max_tokens=6, **params)
    finish(core)
