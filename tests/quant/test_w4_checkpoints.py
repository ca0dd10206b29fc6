"""AWQ and GPTQ layers: hand-made tensors of the two formats, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from minillm_kernels import ref_w4
from minillm_kernels.w4_layouts import from_awq, from_gptq, to_awq, to_gptq
from minillm_serve.config import ConfigError
from minillm_serve.model.linear import weight_bytes
from minillm_serve.model.loader import CheckpointError
from minillm_serve.quant.w4 import Int4, StoredW4, W4Format

OPS = SimpleNamespace(linear_w4=ref_w4.linear_w4, pack_linear_w4=ref_w4.pack_linear_w4)


class Layer:
    """Random codes of one layer, [out, in], with a scale and a zero point for each group of inputs."""

    def __init__(self, outputs: int, inputs: int, group: int, *, seed: int = 0, act_order: bool = False):
        generator = torch.Generator().manual_seed(seed)
        self.codes = torch.randint(0, 16, (outputs, inputs), generator=generator, dtype=torch.uint8)
        self.zeros = torch.randint(0, 16, (inputs // group, outputs), generator=generator, dtype=torch.uint8)
        self.scales = (0.1 + torch.rand(inputs // group, outputs, generator=generator)).half()
        self.g_idx = (torch.arange(inputs) // group).int()
        if act_order:
            self.g_idx = self.g_idx[torch.randperm(inputs, generator=generator)]

    @property
    def weight(self) -> Tensor:
        """[out, in] float64."""
        groups = self.g_idx.long()
        return (self.codes.double() - self.zeros.double()[groups].T) * self.scales.double()[groups].T

    def tensors(self, name: str, method: str, zeros_less_one: bool = True, g_idx: bool = True) -> dict[str, Tensor]:
        if method == "awq":
            qweight, qzeros = to_awq(self.codes, self.zeros)
        else:
            qweight, qzeros = to_gptq(self.codes, self.zeros, zeros_less_one)
        extra = {f"{name}.g_idx": self.g_idx} if method == "gptq" and g_idx else {}
        return {f"{name}.qweight": qweight, f"{name}.qzeros": qzeros, f"{name}.scales": self.scales} | extra


class Source:
    """A checkpoint in memory."""

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors

    def names(self) -> list[str]:
        return sorted(self.tensors)

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self.tensors or self.tensors[name].shape != shape:
            raise CheckpointError(f"no {name} of shape {shape}")
        return self.tensors[name]

    read_integers = read


def stored(tensors: dict[str, Tensor], method: str, layout: str, group: int) -> StoredW4:
    return StoredW4(OPS, Source(tensors), W4Format(method, layout, group), torch.float32, "cpu")


def test_a_word_of_gptq_holds_eight_inputs_of_one_output():
    """0x76543210: the first input in the lowest bits; zero point 8, stored as 7."""
    qweight = torch.tensor([[0x76543210, 0x01234567]] * 4, dtype=torch.int32)  # 32 inputs, 2 outputs
    qweight = torch.cat([qweight] * 4, 1)  # 8 outputs
    packed = from_gptq(qweight, torch.tensor([[0x77777777]], dtype=torch.int32), torch.full((1, 8), 0.5).half())
    weight = ref_w4.dequantize_w4(packed)
    assert weight.shape == (8, 32)
    assert weight[0, :8].tolist() == [(code - 8) / 2 for code in range(8)]
    assert weight[1, 24:].tolist() == [(code - 8) / 2 for code in reversed(range(8))]


def test_a_word_of_awq_holds_eight_outputs_of_one_input_interleaved():
    """The outputs 0 2 4 6 1 3 5 7 from the lowest bits on: here output n has code n and zero point 7 - n."""
    qweight = torch.tensor([[0x75316420]] * 32, dtype=torch.int32)
    qzeros = torch.tensor([[0x02461357]], dtype=torch.int32)
    weight = ref_w4.dequantize_w4(from_awq(qweight, qzeros, torch.ones(1, 8).half()))
    assert weight.shape == (8, 32)
    assert weight[:, 5].tolist() == [n - (7 - n) for n in range(8)]


def test_a_zero_point_of_0_is_stored_as_15_in_the_first_gptq_format():
    qweight = torch.zeros(4, 8, dtype=torch.int32)
    old, new = (
        from_gptq(qweight, torch.tensor([[word]], dtype=torch.int32), torch.ones(1, 8).half(), zeros_less_one=less)
        for word, less in ((-1, True), (0, False))
    )
    assert old.zeros.eq(0).all() and new.zeros.eq(0).all()


@pytest.mark.parametrize(
    ("method", "layout", "act_order"),
    [("awq", "gemm", False), ("gptq", "gptq", False), ("gptq", "gptq_v2", False), ("gptq", "gptq", True)],
)
@pytest.mark.parametrize(("group", "inputs"), [(128, 256), (64, 192), (32, 96), (256, 512), (-1, 96)])
def test_a_stored_layer_computes_what_its_codes_stand_for(method, layout, act_order, group, inputs):
    layer = Layer(16, inputs, inputs if group == -1 else group, act_order=act_order)
    source = stored(layer.tensors("proj", method, layout == "gptq"), method, layout, group)
    x = torch.randn(3, inputs, generator=torch.Generator().manual_seed(1))
    made = source.make({"proj": 16}, inputs, bias=False)
    assert made.bias is None and (made.packed.order is not None) == (act_order and group != -1)
    torch.testing.assert_close(made(x).double(), x.double() @ layer.weight.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_projections_of_the_same_inputs_become_one_layer(method):
    layers = {name: Layer(outputs, 128, 32, seed=seed) for seed, (name, outputs) in enumerate([("q", 24), ("k", 8)])}
    tensors = {key: x for name, layer in layers.items() for key, x in layer.tensors(name, method, g_idx=False).items()}
    made = stored(tensors, method, "gptq" if method == "gptq" else "gemm", 32).make({"q": 24, "k": 8}, 128, bias=False)
    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(1))
    expected = x.double() @ torch.cat([layer.weight for layer in layers.values()]).T
    torch.testing.assert_close(made(x).double(), expected, rtol=1e-5, atol=1e-5)
    assert weight_bytes(made) < 0.75 * 32 * 128  # bytes, at 4 bits and 3 bytes a group of 32


def test_projections_in_different_act_order_are_refused_by_name():
    tensors = {
        key: x
        for seed, name in enumerate(("q", "k"))
        for key, x in Layer(8, 128, 32, seed=seed, act_order=True).tensors(name, "gptq").items()
    }
    with pytest.raises(CheckpointError, match="q, k: layers that read the same inputs must group them alike"):
        stored(tensors, "gptq", "gptq", 32).make({"q": 8, "k": 8}, 128, bias=False)


def test_a_bias_that_the_file_has_is_added_and_one_of_zeros_is_dropped():
    tensors = Layer(8, 64, 32).tensors("o", "gptq") | {"o.bias": torch.arange(8.0)}
    x = torch.zeros(1, 64)
    assert stored(tensors, "gptq", "gptq", 32).make({"o": 8}, 64, bias=False)(x).tolist() == [list(range(8))]
    tensors["o.bias"] = torch.zeros(8)
    source = stored(tensors, "gptq", "gptq", 32)
    assert source.make({"o": 8}, 64, bias=False).bias is None
    assert source.tensors("o") == [f"o.{part}" for part in ("qweight", "qzeros", "scales", "g_idx", "bias")]
    assert source.tensors("lm_head") == []
    del tensors["o.bias"]
    with pytest.raises(CheckpointError, match=r"o\.bias"):
        stored(tensors, "gptq", "gptq", 32).make({"o": 8}, 64, bias=True)


def test_a_damaged_layer_is_refused():
    tensors = Layer(8, 64, 32).tensors("o", "gptq")
    with pytest.raises(CheckpointError, match="o has 64 inputs and 12 outputs"):
        stored(tensors, "gptq", "gptq", 32).make({"o": 12}, 64, bias=False)
    with pytest.raises(CheckpointError, match=r"o\.qweight"):
        stored(tensors, "gptq", "gptq", 32).make({"o": 8}, 128, bias=False)
    for g_idx in (torch.zeros(64, dtype=torch.int32), torch.arange(64, dtype=torch.int32)):
        with pytest.raises(CheckpointError, match="g_idx does not put 32 inputs into each of 2 groups"):
            stored(tensors | {"o.g_idx": g_idx}, "gptq", "gptq", 32).make({"o": 8}, 64, bias=False)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "GEMM"}, ("awq", "gemm", 128)),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, ("awq", "gemm", 64)),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, ("gptq", "gptq", -1)),
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2", "desc_act": True},
            ("gptq", "gptq_v2", 32),
        ),
    ],
)
def test_quantization_config_is_read(raw, expected):
    assert W4Format.from_hf(raw) == W4Format(*expected)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"quant_method": "bitsandbytes"}, "quant_method 'bitsandbytes'; supported: awq, gptq"),
        ({"quant_method": ["awq"]}, r"quant_method \[.awq.\]; supported"),
        ({"quant_method": "gptq", "bits": 8}, "gptq with 8 bits"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "awq with version 'gemv'"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format 'marlin'"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"-:.*down": {}}}, "layers that differ"),
        ({"quant_method": "awq", "bits": 4, "group_size": 16}, "group_size -1 or a multiple of 32, it has 16"),
        ({"quant_method": "awq", "bits": 4, "group_size": True}, "it has True"),
    ],
)
def test_what_we_would_read_wrongly_is_refused(raw, message):
    with pytest.raises(ConfigError, match=message):
        W4Format.from_hf(raw)


@pytest.mark.parametrize(("inputs", "group"), [(256, 128), (576, 64), (96, 32), (100, 32)])
def test_rounding_at_load_takes_the_largest_group_that_fits(inputs, group):
    weight, x = torch.randn(48, inputs), torch.randn(5, inputs)
    made = Int4(OPS).make(weight, torch.ones(48))
    assert made.packed.group == group
    exact = x @ weight.T + 1
    assert 0 < (made(x) - exact).norm() / exact.norm() < 0.12
