"""4-bit weights from the configuration, or from an AWQ or GPTQ folder, down to the tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minillm_kernels.ref_w4 import pack_linear_w4, unpack_words
from minillm_kernels.w4_layouts import to_awq, to_gptq
from minillm_serve import LLM, SamplingParams
from minillm_serve.config import ConfigError

PROMPTS = ["Once upon a time", "What is the capital of France?"]
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
GROUP = 32
CONFIGS = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True, "sym": False},
}


def tokens(model: Path, **settings) -> list[tuple[int, ...]]:
    with LLM(model, num_kv_blocks=64, **settings) as llm:
        return [tuple(output.outputs[0].token_ids) for output in llm.generate(PROMPTS, GREEDY)]


@pytest.fixture(params=["awq", "gptq"])
def folders(request, tmp_path, tiny_model_dir) -> tuple[str, Path, Path]:
    """The format, the tiny model in it, and a folder with the same numbers written out."""
    short, whole = tmp_path / request.param, tmp_path / "whole"
    for folder in (short, whole):
        shutil.copytree(tiny_model_dir, folder)
    tensors, stored = load_file(tiny_model_dir / "model.safetensors"), {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        layer, weight = name.removesuffix(".weight"), tensors[name]
        inputs = weight.shape[1]
        order = torch.arange(inputs) if request.param == "awq" else torch.randperm(inputs, generator=_seeded(inputs))
        g_idx = torch.empty(inputs, dtype=torch.int32)
        g_idx[order] = (torch.arange(inputs) // GROUP).int()
        codes, scales, zeros = _rounded(weight[:, order])
        codes = codes[:, order.argsort()]  # as the file has them: in the inputs' own order
        groups = g_idx.long()
        tensors[name] = (codes.float() - zeros.float()[groups].T) * scales.float()[groups].T
        to_words = to_awq if request.param == "awq" else to_gptq
        stored[f"{layer}.qweight"], stored[f"{layer}.qzeros"] = to_words(codes, zeros)
        stored[f"{layer}.scales"] = scales
        if request.param == "gptq":
            stored[f"{layer}.g_idx"] = g_idx
            stored[f"{layer}.bias"] = torch.zeros(len(weight)).half()  # as AutoGPTQ writes it
    save_file(tensors, whole / "model.safetensors")
    rest = {name: x for name, x in tensors.items() if not name.endswith("_proj.weight")}
    save_file(rest | stored, short / "model.safetensors")
    config = json.loads((short / "config.json").read_text()) | {"quantization_config": CONFIGS[request.param]}
    (short / "config.json").write_text(json.dumps(config))
    return request.param, short, whole


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """codes [out, in], scales and zeros [in / 32, out]."""
    rows, inputs = weight.shape
    low = weight.unflatten(1, (-1, GROUP)).amin(2).clamp_max(0)
    scales = ((weight.unflatten(1, (-1, GROUP)).amax(2).clamp_min(0) - low) / 15).half()
    zeros = (-low / scales.float()).round().clamp(0, 15)
    codes = (weight.unflatten(1, (-1, GROUP)) / scales.float().unsqueeze(2)).round() + zeros.unsqueeze(2)
    return (
        codes.clamp(0, 15).view(rows, inputs).to(torch.uint8),
        scales.T.contiguous(),
        zeros.T.contiguous().to(torch.uint8),
    )


def test_a_4_bit_folder_says_what_its_numbers_written_out_say(folders):
    method, short, whole = folders
    expected = tokens(whole, kernels="ref")
    assert tokens(short, kernels="ref") == expected
    assert tokens(short, kernels="ref", quantization=method) == expected


def test_what_the_folder_does_not_hold_cannot_be_had_from_it(folders):
    method, short, _ = folders
    with pytest.raises(
        ConfigError, match=f"the checkpoint holds {method.upper()} weights: quantization int8 cannot be had"
    ):
        LLM(short, quantization="int8")


def test_awq_is_refused_where_the_folder_is_whole(tiny_model_dir):
    with pytest.raises(ConfigError, match="the checkpoint holds no awq weights; quantization int4 rounds any model"):
        LLM(tiny_model_dir, quantization="awq")


def test_int4_rounds_the_layers_and_leaves_head_and_embedding_whole(tiny_model_dir):
    assert [len(ids) for ids in tokens(tiny_model_dir, quantization="int4")] == [12, 12]
    with LLM(tiny_model_dir, num_kv_blocks=8, quantization="int4", kernels="ref") as llm:
        weights = llm.core.runner.model.weights
    tensors = load_file(tiny_model_dir / "model.safetensors")
    expected = pack_linear_w4(tensors["model.layers.1.mlp.down_proj.weight"])
    assert torch.equal(unpack_words(weights.layers[1].down.packed.codes), unpack_words(expected.codes))
    assert weights.embedding.dtype == torch.float32
    assert torch.equal(weights.lm_head.packed, tensors["lm_head.weight"])


def test_int4_tokens_do_not_depend_on_the_batch_or_on_chunks(tiny_model_dir):
    together = tokens(tiny_model_dir, quantization="int4")
    assert tokens(tiny_model_dir, quantization="int4", max_num_seqs=1) == together
    assert tokens(tiny_model_dir, quantization="int4", max_num_batched_tokens=5, max_num_seqs=5) == together


def test_the_triton_engine_says_the_same(folders):
    """Prompt and decode steps, fp32, in the interpreter where there is no GPU."""
    pytest.importorskip("triton", reason="triton is not installed")
    _, short, _ = folders
    device = "cuda" if torch.cuda.is_available() else "cpu"
    texts = []
    for settings in ({"kernels": "ref"}, {"kernels": "triton", "device": device, "dtype": "float32"}):
        with LLM(short, num_kv_blocks=16, max_num_seqs=2, max_model_len=64, **settings) as llm:
            params = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
            texts.append([output.outputs[0].token_ids for output in llm.generate(["One", "Two or three"], params)])
    assert texts[0] == texts[1]
