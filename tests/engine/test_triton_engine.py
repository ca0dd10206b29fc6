"""The engine on Triton kernels says what it says on torch's: in the interpreter without a GPU, one step ahead."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minillm_serve import LLM, SamplingParams

pytest.importorskip("triton", reason="triton is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROMPTS = [[5, 6, 7], [9], [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6], [11, 12, 13, 14, 15, 16]]
MIXED = [
    SamplingParams(temperature=0, max_tokens=6),
    SamplingParams(temperature=0.8, seed=1, max_tokens=9),
    SamplingParams(temperature=1.0, seed=2, top_k=20, top_p=0.9, max_tokens=5),
    SamplingParams(temperature=1.1, seed=3, min_p=0.05, repetition_penalty=1.2, presence_penalty=0.3, max_tokens=7),
]


def engine(folder: Path, **more) -> LLM:
    settings = {"model": str(folder), "dtype": "float32", "max_num_seqs": 4, "max_model_len": 64, "num_kv_blocks": 40}
    return LLM(**(settings | more))


def triton_engine(folder: Path, **more) -> LLM:
    return engine(folder, device=DEVICE, kernels="triton", async_scheduling=True, **more)


def texts(llm: LLM, params) -> list[tuple[int, ...]]:
    return [tuple(output.outputs[0].token_ids) for output in llm.generate(PROMPTS, params)]


def test_same_tokens_as_the_cpu_engine_in_a_mixed_batch(tiny_model_dir: Path) -> None:
    expected = texts(engine(tiny_model_dir, kernels="torch"), MIXED)
    assert texts(triton_engine(tiny_model_dir), MIXED) == expected


@pytest.mark.parametrize("more", [{"block_size": 5}, {"num_kv_blocks": 6}, {"max_num_batched_tokens": 8}])
def test_same_tokens_in_odd_blocks_under_preemption_and_in_chunks(tiny_model_dir: Path, more: dict) -> None:
    params = SamplingParams(temperature=0.7, seed=5, max_tokens=8)
    expected = texts(engine(tiny_model_dir, kernels="torch"), params)
    assert texts(triton_engine(tiny_model_dir, **more), params) == expected


def test_log_probabilities_and_guided_rows_leave_the_graph_and_come_back(tiny_model_dir: Path) -> None:
    params = [
        SamplingParams(temperature=0, max_tokens=4, logprobs=2),
        SamplingParams(temperature=0, max_tokens=4, allowed_token_ids=[7, 8, 9]),
        SamplingParams(temperature=0, max_tokens=4, logit_bias={30: 50.0}),
        SamplingParams(temperature=0, max_tokens=4, bad_words=["a"], prompt_logprobs=1),
    ]
    expected = engine(tiny_model_dir, kernels="torch").generate(PROMPTS, params)
    got = triton_engine(tiny_model_dir).generate(PROMPTS, params)
    assert [o.outputs[0].token_ids for o in got] == [o.outputs[0].token_ids for o in expected]
    for ours, theirs in zip(got[0].outputs[0].logprobs, expected[0].outputs[0].logprobs, strict=True):
        assert ours.token == theirs.token
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)
    assert len(got[3].prompt_logprobs) == len(expected[3].prompt_logprobs)


def test_a_sampler_of_ones_own_is_never_part_of_the_graph(tiny_model_dir: Path) -> None:
    from minillm_serve.seams import SAMPLE, Seams

    def always_seven(logits: torch.Tensor, settings) -> torch.Tensor:
        return torch.full((len(logits),), 7, dtype=torch.int64, device=logits.device)

    llm = triton_engine(tiny_model_dir, seams=Seams({SAMPLE: always_seven}))
    assert texts(llm, SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)) == [(7, 7, 7)] * len(PROMPTS)
