"""What could go wrong with steps under way: aborts, failures, rows and blocks in other hands. Tokens must be those of
torch's kernels, one request after another. In the interpreter where there is no GPU."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import FAMILIES, build_tiny_model

from minillm_serve import LLM, PoolingParams, SamplingParams, StructuredOutputsParams
from minillm_serve.bench.gpu.cells import write_shape
from minillm_serve.config import ConfigError
from minillm_serve.engine.core import EngineCore

pytest.importorskip("triton", reason="triton is not installed")

from one_layer import (
    DEVICE,
    GUIDED,
    MAX_MODEL_LEN,
    MAX_STEPS,
    PROMPTS,
    answers,
    finish,
    start,
    triton_core,
    truth,
)

from minillm_serve.runner.gpu import decode
from minillm_serve.runner.gpu.graphs import DecodeGraphs
from minillm_serve.runner.gpu.memory import graph_logits
from minillm_serve.runner.gpu.packed import RING, PackedBuffer

pytestmark = pytest.mark.usefixtures("small_work_lists")
OUTPUTS = 8  # tokens at most

FEATURES: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0},
    {"temperature": 1.1},
    {"temperature": 0.8, "top_k": 7},
    {"top_p": 0.8, "min_p": 0.01},
    {"typical_p": 0.7},
    {"temperature": 0, "repetition_penalty": 1.3, "presence_penalty": 0.4},
    {"frequency_penalty": 0.9, "allowed_token_ids": tuple(range(40, 48))},
    {"allowed_token_ids": tuple(range(40, 90)), "top_k": 3},
    {"logit_bias": {50: 5.0, 51: -100.0}},
    {"temperature": 0, "bad_words_ids": ((40,), (41, 42)), "allowed_token_ids": tuple(range(40, 46))},
    {"min_tokens": 5, "ignore_eos": False, "logit_bias": {2: 9.0}},
    {"stop_token_ids": tuple(range(100, 220))},
    {"stop": ("e", " t"), "allowed_token_ids": tuple(range(40, 120))},
    {"logprobs": 2},
    {"prompt_logprobs": 1},
    {"n": 2},
    {"n": 2, "best_of": 3, "top_k": 20},
    {"structured_outputs": GUIDED, "ignore_eos": False},
    {"structured_outputs": GUIDED, "ignore_eos": False, "repetition_penalty": 1.5, "frequency_penalty": -0.8},
    {"structured_outputs": StructuredOutputsParams(regex="(abc|abd)[0-9]", always_closes=True), "ignore_eos": False},
]


def requests(rng: random.Random, count: int) -> list[tuple[list[int], SamplingParams | PoolingParams]]:
    """Prompts that often begin alike, each with another feature."""
    shared = [rng.randrange(3, 500) for _ in range(12)]
    made: list[tuple[list[int], SamplingParams | PoolingParams]] = []
    for feature in rng.choices([*FEATURES, None], k=count):
        prompt = shared[: rng.choice((0, 4, 8, 12))] + [rng.randrange(3, 500) for _ in range(rng.choice((1, 1, 3, 9)))]
        if feature is None:
            made.append((prompt, PoolingParams()))
            continue
        common = {"temperature": 1.0, "seed": rng.randrange(1000), "max_tokens": rng.randint(1, OUTPUTS)}
        if "structured_outputs" in feature:
            common["max_tokens"] = OUTPUTS
        if feature.get("min_tokens", 0) > common["max_tokens"]:
            common["max_tokens"] = OUTPUTS
        made.append((prompt, SamplingParams(**({"ignore_eos": True} | common | feature))))
    return made


def drive(core: EngineCore, asked: Any, rng: random.Random, failing: float = 0.0) -> Iterator[tuple[int, Any, bool]]:
    """Requests come while others run, some are aborted, some steps fail. Yields number, last output, whether it was
    aborted."""
    waiting, groups, last = list(range(len(asked))), {}, {}
    for name in ("submit", "collect") if failing else ():
        setattr(core.runner, name, flaky(getattr(core.runner, name), rng, failing))
    for _ in range(MAX_STEPS):
        while waiting and (not core.has_work() or rng.random() < 0.4):
            number = waiting.pop(0)
            group = core.prepare(*asked[number])
            core.add(str(number), group)
            groups[group.rid] = number
        if not core.has_work() and not waiting:
            break
        outputs = []
        with contextlib.suppress(InjectedError):
            outputs = core.step()
        if groups and rng.random() < 0.1:
            outputs += core.abort([rng.choice(list(groups))])
        core.scheduler.check()
        for output in outputs:
            last[output.rid] = output
            if output.finished:
                aborted = any(sample.finish_reason == "abort" for sample in output.outputs)
                yield groups.pop(output.rid), output, aborted
    assert not groups and not waiting, f"requests without an end: {groups}, {waiting}"
    kv = core.scheduler.kv
    assert kv.num_free_blocks == kv.num_blocks, "blocks were lost"


class InjectedError(RuntimeError):
    """The device is said to be lost."""


def flaky(call: Any, rng: random.Random, failing: float) -> Any:
    def fails_now_and_then(*args: Any) -> Any:
        if rng.random() < failing:
            raise InjectedError
        result = call(*args)
        if rng.random() < failing:  # all was launched, and nobody hears of it
            raise InjectedError
        return result

    return fails_now_and_then


def check_against_torch(folder: Path, seed: int, count: int, failing: float = 0.0, **more: Any) -> None:
    rng = random.Random(seed)
    asked = requests(rng, count)
    whole_pool = LLM(folder, kernels="torch", dtype="float32", num_kv_blocks=200, max_model_len=MAX_MODEL_LEN)
    expected = [whole_pool.generate([prompt], params)[0] for prompt, params in asked]
    told = f"seed {seed}, {more}"
    for number, output, aborted in drive(triton_core(folder, **more), asked, rng, failing):
        ours, theirs = answers(output), answers(expected[number])
        if aborted:
            best_of = getattr(asked[number][1], "best_of", None)
            for mine, whole in zip(ours, theirs, strict=True) if best_of is None else ():
                assert mine == whole[: len(mine)], f"{told}: request {number}, {asked[number]}"
            continue
        assert ours == theirs, f"{told}: request {number}, {asked[number]}"
        assert [s.finish_reason for s in output.outputs] == [s.finish_reason for s in expected[number].outputs], told
        if output.embedding is not None:
            assert np.allclose(output.embedding, expected[number].embedding, atol=1e-4), told
        for sample, their in zip(output.outputs, expected[number].outputs, strict=True):
            for entry, other in zip(sample.logprobs or (), their.logprobs or (), strict=True):
                assert entry.token == other.token and entry.logprob == pytest.approx(other.logprob, abs=1e-4), told
        prompt, other_prompt = (o.prompt_logprobs or () for o in (output, expected[number]))
        for entry, other in zip(prompt[1:], other_prompt[1:], strict=True):
            assert entry.logprob == pytest.approx(other.logprob, abs=1e-4), told


ENGINES = [
    {"num_kv_blocks": 12, "max_num_batched_tokens": 9, "max_num_seqs": 3},
    {"num_kv_blocks": 14, "block_size": 3, "enable_prefix_caching": False, "scheduling_policy": "priority"},
    {"num_kv_blocks": 41, "block_size": 1, "max_num_batched_tokens": 3, "max_num_seqs": 5},
    {"num_kv_blocks": 3, "block_size": 16, "batching": "static", "max_num_seqs": 1},
]


@pytest.mark.parametrize("seed", range(len(ENGINES)))
def test_random_requests_with_aborts_in_few_blocks(one_layer_dir: Path, seed: int) -> None:
    check_against_torch(one_layer_dir, seed, 8, **ENGINES[seed])


def test_random_requests_while_steps_fail(one_layer_dir: Path) -> None:
    check_against_torch(one_layer_dir, 10, 6, failing=0.06, num_kv_blocks=12, max_num_batched_tokens=16)


def test_windows_with_steps_under_way(tmp_path: Path) -> None:
    mistral = build_tiny_model(tmp_path / "mistral", **FAMILIES["mistral"] | {"num_hidden_layers": 1})
    check_against_torch(mistral, 20, 4, num_kv_blocks=14, block_size=3)


def test_tables_that_grow_by_more_than_travels_with_a_step(one_layer_dir: Path, monkeypatch) -> None:
    monkeypatch.setattr(decode, "MAX_GROWTH", 1)
    core = triton_core(one_layer_dir, block_size=1)
    rids = start(core, PROMPTS, temperature=0.9, seed=3, max_tokens=6)
    done = finish(core)
    assert [done[rid] for rid in rids] == truth(one_layer_dir, PROMPTS, temperature=0.9, seed=3, max_tokens=6)


def test_a_row_that_changes_hands_while_its_step_is_under_way(one_layer_dir: Path) -> None:
    """The prompt that moves in is still being read where the one that left would have its next token."""
    core = triton_core(one_layer_dir, max_num_seqs=1, num_kv_blocks=10, max_num_batched_tokens=4)
    [first] = start(core, PROMPTS[:1], temperature=1, seed=1, max_tokens=20)
    for _ in range(4):
        core.step()
    long = [list(range(100, 114))]
    [second] = start(core, long, temperature=1, seed=2, max_tokens=4)
    [gone] = core.abort([first])
    assert gone.finished
    assert finish(core) == {second: truth(one_layer_dir, long, temperature=1, seed=2, max_tokens=4)[0]}


@pytest.mark.parametrize("place", ["fill", "launch"])
def test_steps_that_fail_in_a_row_and_leave_their_copies_under_way(one_layer_dir: Path, place: str) -> None:
    core = triton_core(one_layer_dir)
    rids = start(core, PROMPTS, temperature=0.9, seed=4, max_tokens=6)
    owner, name = (core.runner.step, "fill") if place == "fill" else (core.runner.graphs, "run")
    works, left = getattr(owner, name), 2 * RING

    def fails_at_first(*args: Any) -> Any:
        nonlocal left
        result = works(*args)
        if left and len(core.scheduler.running) > 2:
            left -= 1
            raise InjectedError
        return result

    setattr(owner, name, fails_at_first)
    done: dict[int, list[tuple[int, ...]]] = {}
    for _ in range(MAX_STEPS):
        try:
            done |= finish(core)
            break
        except InjectedError:
            core.scheduler.check()
    assert not left
    assert [done[rid] for rid in rids] == truth(one_layer_dir, PROMPTS, temperature=0.9, seed=4, max_tokens=6)


def test_what_cannot_run_is_refused(one_layer_dir: Path) -> None:
    with pytest.raises(ConfigError, match="attention_backend none"):
        LLM(one_layer_dir, kernels="triton", device=DEVICE.type, attention_backend="none")
    if DEVICE.type == "cpu":
        with pytest.raises(ConfigError, match="CUDA GPU"):
            LLM(one_layer_dir, device="cuda")
        with pytest.raises(ConfigError, match="fp8 needs device cuda"):
            LLM(one_layer_dir, kernels="triton", kv_cache_dtype="fp8")
    else:
        with pytest.raises(ConfigError, match="for the CPU"):
            LLM(one_layer_dir, device="cuda", kernels="torch")


@pytest.mark.parametrize(
    "more",
    [
        {"quantization": "int8"},
        {"quantization": "int4", "kv_cache_dtype": "int8"},
        {"dtype": "bfloat16", "enforce_eager": True},
        {"async_scheduling": False, "max_num_seqs": 9, "block_size": 64},
    ],
)
def test_settings_that_go_together(one_layer_dir: Path, more: dict[str, Any]) -> None:
    """With steps in which no token is drawn: the prompt is longer than a step."""
    core = triton_core(one_layer_dir, max_num_batched_tokens=2, **more)
    [rid] = start(core, [PROMPTS[2]], temperature=0, max_tokens=3)
    [tokens] = finish(core)[rid]
    assert len(tokens) == 3


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs a CUDA device")
def test_a_copy_that_waits_for_the_device_is_not_overwritten() -> None:
    buffer = PackedBuffer({"number": (np.int32, 4)}, DEVICE)
    torch.cuda._sleep(400_000_000)  # some 0.2 s: all copies are behind it
    arrived = []
    for number in range(3 * RING):
        buffer.begin()["number"][:] = number
        buffer.upload()
        arrived.append(buffer.device["number"].clone())
    assert [values.tolist() for values in arrived] == [[number] * 4 for number in range(3 * RING)]


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs a CUDA device")
def test_graphs_take_no_more_memory_than_was_set_aside(tmp_path: Path) -> None:
    made_up = {"load_format": "dummy", "skip_tokenizer_init": True}
    core = triton_core(write_shape("tiny", tmp_path / "wide"), enforce_eager=True, max_num_seqs=256, **made_up)
    eager, vocab_size = core.runner.graphs, core.runner.model.config.vocab_size
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    graphs = DecodeGraphs(eager.step, eager.sizes, False)
    graphs.capture()
    torch.cuda.empty_cache()
    logits = vocab_size * graph_logits(256, eager=False) * torch.float32.itemsize  # 173 MB, most of it
    assert torch.cuda.memory_reserved() - before <= logits + (128 << 20)
