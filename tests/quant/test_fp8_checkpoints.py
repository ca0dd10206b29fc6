"""A folder that holds FP8 weights runs with exactly those, whatever way its scales are written."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from minillm_kernels.ref_fp8 import pack_linear_fp8
from minillm_serve import LLM, SamplingParams
from minillm_serve.config import ConfigError

PROMPTS = ["Once upon a time", "What is the capital of France?"]
GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "ignore": ["lm_head"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "strategy": "channel"}}},
}
VLLM = {"quant_method": "fp8", "activation_scheme": "static"}


@pytest.fixture(params=["channel", "tensor"])
def folders(request, tmp_path, tiny_model_dir):
    """The tiny model twice: in FP8, and with the same numbers written out."""
    short, whole = tmp_path / "fp8", tmp_path / "whole"
    for folder in (short, whole):
        shutil.copytree(tiny_model_dir, folder)
    tensors, codes = load_file(tiny_model_dir / "model.safetensors"), {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        packed = pack_linear_fp8(tensors[name], per_tensor=request.param == "tensor")
        tensors[name] = packed.codes.float() * packed.scales.unsqueeze(1)
        codes[name] = packed.codes
        codes[f"{name}_scale"] = packed.scales.unsqueeze(1) if request.param == "channel" else packed.scales[0].clone()
        if request.param == "tensor":
            codes[name.replace(".weight", ".input_scale")] = torch.ones(1)
    save_file(tensors, whole / "model.safetensors")
    save_file(tensors | codes, short / "model.safetensors")
    config = json.loads((short / "config.json").read_text()) | {
        "quantization_config": COMPRESSED if request.param == "channel" else VLLM
    }
    (short / "config.json").write_text(json.dumps(config))
    return short, whole


def test_an_fp8_checkpoint_keeps_its_codes_and_what_it_holds_whole(folders):
    with LLM(folders[0], num_kv_blocks=64) as llm, LLM(folders[1], num_kv_blocks=64, kernels="ref") as exact:
        weights, expected = (x.core.runner.model.weights for x in (llm, exact))
        assert [len(output.outputs[0].token_ids) for output in llm.generate(PROMPTS, GREEDY)] == [8, 8]
    for layer, other in zip(weights.layers, expected.layers, strict=True):
        for part in ("qkv", "output", "gate_up", "down"):
            packed = getattr(layer, part).packed
            assert packed.codes.dtype == torch.float8_e4m3fn
            assert torch.equal(packed.codes.float() * packed.scales.unsqueeze(1), getattr(other, part).packed)
    assert weights.embedding.dtype == torch.float32


def test_another_quantization_of_an_fp8_checkpoint_is_refused(folders):
    with pytest.raises(ConfigError, match="holds FP8 weights: quantization int8"):
        LLM(folders[0], num_kv_blocks=64, quantization="int8")
