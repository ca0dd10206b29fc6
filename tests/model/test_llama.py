"""Our one decoder computes what transformers computes, for every architecture, on shapes that are not powers of two."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_model import FAMILIES, build_tiny_model
from transformers import AutoModelForCausalLM

from minillm_kernels import resolve
from minillm_kernels.cpu.build import library
from minillm_serve.attention.backends import KVCache
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.linear import Unquantized
from minillm_serve.model.llama import LlamaModel
from minillm_serve.model.loader import Checkpoint
from minillm_serve.model.weights import load_weights

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32, "rope_theta": 500.0}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 500.0}
SHAPES = {
    "smollm": {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 100},
    "mha-untied": {"num_key_value_heads": 4, "tie_word_embeddings": False, "num_hidden_layers": 3},
    "mqa-biases-theta": {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True, "rope_theta": 100000.0},
    "wide-heads-tied": {"head_dim": 24, "rms_norm_eps": 1e-3, "tie_word_embeddings": True},
    "gelu": {"hidden_act": "gelu_pytorch_tanh"},
    "rope-linear": {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 10000.0}},
    "rope-linear-old-spelling": {"rope_scaling": {"type": "linear", "factor": 3.0}},
    "rope-llama3": {"rope_parameters": LLAMA3},
    "rope-yarn": {"rope_parameters": YARN},
    "rope-yarn-mscale": {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 0.4, "beta_fast": 20.0}},
    "mistral": FAMILIES["mistral"],
    "mistral-whole": FAMILIES["mistral"] | {"sliding_window": None},
    "qwen2": FAMILIES["qwen2"],
    "qwen2-whole": FAMILIES["qwen2"] | {"use_sliding_window": False},
    "qwen3": FAMILIES["qwen3"],
    "smollm3": FAMILIES["smollm3"],
    "gemma": FAMILIES["gemma"],
    "gemma3": FAMILIES["gemma3"],
    "gemma3-scaled": FAMILIES["gemma3"] | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "layer_types": None,
                                           "sliding_window_pattern": 3},
}  # fmt: skip


@pytest.fixture(scope="module", params=SHAPES)
def folder(request, tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("llama") / request.param, seed=3, **SHAPES[request.param])


def make_model(folder, ops, dtype=torch.float32):
    config = ModelConfig.from_folder(folder)
    return LlamaModel(config, load_weights(Checkpoint(folder), config, Unquantized(ops), dtype), ops)


@pytest.mark.parametrize("backend", ["ref", "torch", "auto"])
def test_logits_equal_transformers(folder, backend):
    """A whole prompt at once, then the same prompt in three ragged chunks beside a second sequence."""
    ops = resolve(backend)
    model = make_model(folder, ops)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(0)
    first, second = (torch.randint(3, model.config.vocab_size, (count,)) for count in (23, 6))
    with torch.inference_mode():
        expected = [reference(ids.unsqueeze(0)).logits[0] for ids in (first, second)]
        step = stepper(
            model, KVCache(model.config, ops, num_blocks=12, block_size=4, dtype=torch.float32), first, second
        )
        close = {"rtol": 1e-4, "atol": 1e-4 * float(expected[0].abs().max())}
        torch.testing.assert_close(step([(0, 0, 23)]), expected[0], **close)
        got = step([(0, 0, 9), (1, 0, 5)])
        torch.testing.assert_close(got, torch.cat((expected[0][:9], expected[1][:5])), **close)
        got = step([(1, 5, 6), (0, 9, 22)])
        torch.testing.assert_close(got, torch.cat((expected[1][5:], expected[0][9:22])), **close)
        torch.testing.assert_close(step([(0, 22, 23)]), expected[0][22:], **close)


@pytest.mark.skipif(library() is None, reason="the C++ kernels do not compile here")
def test_a_tokens_logits_do_not_depend_on_what_is_computed_beside_it(folder):
    """Bit for bit: whole prompts, chunks, single tokens, alone or in company."""
    ops = resolve("cpp")
    model = make_model(folder, ops)
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randint(3, model.config.vocab_size, (count,), generator=generator) for count in (23, 8))
    with torch.inference_mode():
        step = stepper(model, KVCache(model.config, ops, 12, 4, torch.float32), first, second)
        whole = [step([(0, 0, 23)]), step([(1, 0, 8)])]
        single = [torch.cat([step([(row, p, p + 1)]) for p in range(len(whole[row]))]) for row in (0, 1)]
        assert all(map(torch.equal, single, whole))
        for parts in ([(0, 0, 9), (1, 0, 7)], [(1, 7, 8), (0, 9, 21)], [(0, 21, 23)]):
            assert torch.equal(step(parts), torch.cat([whole[row][start:stop] for row, start, stop in parts]))
        assert torch.equal(step([(0, 0, 23), (1, 0, 8)], last=[22, 30]), torch.stack((whole[0][22], whole[1][7])))


def stepper(model: LlamaModel, cache: KVCache, *sequences: torch.Tensor) -> Callable[..., torch.Tensor]:
    tables = torch.tensor([[5, 2, 9, 0, 7, 3], [1, 8, 0, 0, 0, 0]])

    def step(parts: list[tuple[int, int, int]], last: list[int] | None = None) -> torch.Tensor:
        """parts: (sequence, start, stop) -> logits of the rows ``last`` (default: every token) of the step."""
        ids = torch.cat([sequences[row][start:stop] for row, start, stop in parts])
        positions = torch.cat([torch.arange(start, stop) for _, start, stop in parts])
        slots = [int(tables[row, p // 4]) * 4 + p % 4 for row, start, stop in parts for p in range(start, stop)]
        attention = cache.plan(
            torch.tensor(slots),
            tables[[row for row, _, _ in parts]],
            [stop for *_, stop in parts],
            [stop - start for _, start, stop in parts],
        )
        return model.forward(ids, positions, attention, torch.tensor(last) if last else torch.arange(len(ids)))

    return step


def test_only_the_rows_asked_for_reach_the_head(tiny_model_dir):
    ops = resolve("ref")
    model = make_model(tiny_model_dir, ops)
    step = stepper(model, KVCache(model.config, ops, 12, 4, torch.float32), torch.arange(3, 26), torch.arange(9, 15))
    with torch.inference_mode():
        every = step([(0, 0, 9), (1, 0, 5)])
        torch.testing.assert_close(step([(0, 0, 9), (1, 0, 5)], last=[8, 13]), every[[8, 13]], rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_near_fp32(folder):
    ops = resolve("auto")
    ids, positions = torch.arange(3, 20), torch.arange(17)
    logits = []
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            model = make_model(folder, ops, dtype)
            cache = KVCache(model.config, ops, 2, 16, dtype)
            attention = cache.plan(torch.arange(17), torch.tensor([[0, 1]]), [17], [17])
            logits.append(model.forward(ids, positions, attention, torch.arange(17)))
    similarity = torch.nn.functional.cosine_similarity(*logits, dim=-1)
    assert similarity.min() > 0.97


def test_rotary_tables_are_only_as_long_as_the_engine_asks(tiny_model_dir):
    ops = resolve("ref")
    config = ModelConfig.from_folder(tiny_model_dir)
    weights = load_weights(Checkpoint(tiny_model_dir), config, Unquantized(ops), torch.float32)
    ((short, _),) = LlamaModel(config, weights, ops, max_model_len=40).tables
    ((whole, _),) = LlamaModel(config, weights, ops).tables
    assert short.shape == (40, 8) and whole.shape == (1024, 8)
    assert torch.equal(short, whole[:40])
