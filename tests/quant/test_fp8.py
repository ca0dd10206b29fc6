"""FP8 from the configuration down to the tokens, and the layers of checkpoints that hold FP8 already."""

from __future__ import annotations

import pytest
import torch

from minillm_kernels import resolve
from minillm_kernels.ref_fp8 import pack_linear_fp8
from minillm_serve import LLM, SamplingParams
from minillm_serve.config import ConfigError
from minillm_serve.model.linear import Unquantized, weight_bytes
from minillm_serve.model.loader import CheckpointError
from minillm_serve.quant.fp8 import Fp8, StoredFp8, check_fp8_format

PROMPTS = ["Once upon a time", "The scheduler gives every request its share", "What is the capital of France?"]
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(model, **settings) -> list[tuple[int, ...]]:
    with LLM(model, num_kv_blocks=64, quantization="fp8", **settings) as llm:
        return [tuple(output.outputs[0].token_ids) for output in llm.generate(PROMPTS, GREEDY)]


@pytest.mark.parametrize("per_tensor", [False, True], ids=["per output", "per tensor"])
def test_a_layer_holds_one_byte_a_weight_and_stays_near_the_fp32_one(per_tensor):
    ops, weight, bias, x = resolve(), random(96, 64), random(96, seed=1), random(10, 64, seed=2)
    whole, short = (method.make(weight, bias) for method in (Unquantized(ops), Fp8(ops, per_tensor)))
    assert (weight_bytes(whole), weight_bytes(short)) == (4 * weight.numel(), weight.numel() + 4 * len(weight))
    exact, rounded = whole(x), short(x)
    assert 0 < (rounded - exact).norm() / (exact - bias).norm() < 0.05


def test_fp8_tokens_do_not_depend_on_the_batch_or_on_chunks(tiny_model_dir):
    together = tokens(tiny_model_dir)
    assert tokens(tiny_model_dir, max_num_seqs=1) == together
    assert tokens(tiny_model_dir, max_num_batched_tokens=5, max_num_seqs=5) == together


def test_the_embedding_and_the_norms_keep_the_model_dtype(tiny_model_dir):
    with LLM(tiny_model_dir, num_kv_blocks=8, quantization="fp8") as llm:
        weights = llm.core.runner.model.weights
    assert weights.embedding.dtype == weights.final_norm.dtype == torch.float32
    assert weights.layers[0].down.packed.codes.dtype == weights.lm_head.packed.codes.dtype == torch.float8_e4m3fn


class Source(dict[str, torch.Tensor]):
    """A checkpoint of some tensors."""

    def names(self) -> list[str]:
        return sorted(self)

    def read(self, name: str, shape) -> torch.Tensor:
        assert self[name].shape == shape
        return self[name]

    def read_any(self, name: str) -> torch.Tensor:
        return self[name]


def stored(source: Source) -> StoredFp8:
    return StoredFp8(resolve("ref"), source, torch.float32, "cpu")


def test_a_stored_layer_keeps_its_codes_and_joins_projections_of_any_kind_of_scale():
    """Per output, one in a vector, one alone: joined, each output has the scale it had."""
    q, k, v = pack_linear_fp8(random(8, 32)), *(pack_linear_fp8(random(4, 32, seed=s), True) for s in (1, 2))
    bias = [random(8, seed=3), random(4, seed=4), random(4, seed=5)]
    source = Source({"v.input_scale": torch.ones(1), "norm.weight": torch.ones(32)})
    for name, packed, b in zip("qkv", (q, k, v), bias, strict=True):
        source |= {f"{name}.weight": packed.codes, f"{name}.bias": b}
    source |= {"q.weight_scale": q.scales.unsqueeze(1), "k.weight_scale": k.scales[:1], "v.weight_scale": v.scales[0]}
    layers = stored(Source(source))
    assert layers.tensors("v") == ["v.weight", "v.weight_scale", "v.input_scale", "v.bias"]
    assert layers.tensors("norm") == [], "stored whole"
    layer = layers.make({"q": 8, "k": 4, "v": 4}, 32, bias=True)
    x = random(3, 32, seed=6)
    expected = [resolve("ref").linear_fp8(x, packed, b) for packed, b in zip((q, k, v), bias, strict=True)]
    torch.testing.assert_close(layer(x), torch.cat(expected, 1), rtol=1e-6, atol=1e-6)


def test_a_stored_layer_that_is_not_fp8_or_has_odd_scales_is_refused():
    codes, one = random(8, 32).to(torch.float8_e4m3fn), torch.ones(1)
    with pytest.raises(CheckpointError, match=r"q.weight has a scale, but holds torch.float8_e5m2"):
        stored(Source({"q.weight": codes.to(torch.float8_e5m2), "q.weight_scale": one})).make({"q": 8}, 32, False)
    with pytest.raises(CheckpointError, match=r"q.weight_scale has shape \[8, 4\], expected one or 8 scales"):
        stored(Source({"q.weight": codes, "q.weight_scale": torch.ones(8, 4)})).make({"q": 8}, 32, False)


COMPRESSED = {"quant_method": "compressed-tensors", "format": "float-quantized"}


def test_both_ways_to_write_an_fp8_checkpoint_are_known_and_others_are_refused_by_name():
    check_fp8_format({"quant_method": "fp8", "activation_scheme": "static"})
    check_fp8_format(COMPRESSED | {"config_groups": {"group_0": {"weights": {"strategy": "channel"}}}})
    for raw, said in (
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "weight_block_size"),
        (COMPRESSED | {"config_groups": {"group_0": {"weights": {"strategy": "block"}}}}, "'block'"),
        (COMPRESSED | {"config_groups": None}, "None"),
        (COMPRESSED | {"format": "int-quantized"}, "int-quantized"),
        ({"quant_method": "awq"}, "awq"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_fp8_format(raw)
