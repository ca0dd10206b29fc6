"""What the device can do at most, measured, and how fast a cell could run if nothing else counted.

A step computes T tokens, draws for S of them and reads the keys and values of C tokens. Its floor is

    max(weight bytes / bandwidth, (2 * layer weights * T + 2 * head weights * S + attention) / arithmetic)
    + KV bytes * C / bandwidth

since a matrix product hides its reading behind its arithmetic or the other way round, and attention comes after it.
weight bytes: every matrix once, the LM head with them; attention: the products of prompt tokens with those before them,
4 * heads * head_dim * layers each. A cell's floor is one step that reads all prompts and draws the first token of each,
then a step for each further token over the sequences that are not done: everyone fits in memory, nobody waits, and
norms, sampling, launches and the host cost nothing. The weights are bf16, as is the KV cache: a quantised engine's
share of this limit may be above 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BF16_BYTES = 2


@dataclass(frozen=True)
class Limits:
    """copy_gb_s: bytes read plus bytes written, 10^9 a second. matmul_tflop_s: bf16 (fp32 on a CPU). node_us: what one
    more tiny kernel adds to a CUDA graph; None on a CPU."""

    copy_gb_s: float
    matmul_tflop_s: float
    node_us: float | None = None


@dataclass(frozen=True)
class Work:
    """What a shape costs. layer_weights, head_weights: numbers in matrices; kv_bytes: of one token, all layers;
    attention_flops: of one query with one key and value, all layers and heads."""

    layer_weights: int
    head_weights: int
    kv_bytes: int
    attention_flops: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Work:
        """From a Hugging Face config.json."""
        hidden, dim, layers = config["hidden_size"], config["head_dim"], config["num_hidden_layers"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        projections = hidden * dim * (2 * heads + 2 * kv_heads) + 3 * hidden * config["intermediate_size"]
        return cls(
            layers * projections,
            config["vocab_size"] * hidden,
            2 * layers * kv_heads * dim * BF16_BYTES,
            4 * layers * heads * dim,
        )

    @property
    def weight_bytes(self) -> int:
        return (self.layer_weights + self.head_weights) * BF16_BYTES

    def step_seconds(self, limits: Limits, tokens: int, drawn: int, kv_tokens: int, scores: int = 0) -> float:
        """The floor of one step; scores: pairs of prompt token and token that it sees."""
        bandwidth, arithmetic = limits.copy_gb_s * 1e9, limits.matmul_tflop_s * 1e12
        flops = 2 * (self.layer_weights * tokens + self.head_weights * drawn) + self.attention_flops * scores
        return max(self.weight_bytes / bandwidth, flops / arithmetic) + self.kv_bytes * kv_tokens / bandwidth

    def cell_seconds(self, limits: Limits, prompts: Sequence[int], new: Sequence[int]) -> float:
        """The floor of a cell: ``prompts[i]`` tokens to read and ``new[i]`` to generate, all handed over at once."""
        scores = sum(length * (length + 1) // 2 for length in prompts)
        seconds = self.step_seconds(limits, sum(prompts), len(prompts), 0, scores)
        for step in range(1, max(new)):  # each step reads what it has written itself, too
            lengths = [prompt + step for prompt, count in zip(prompts, new, strict=True) if count > step]
            seconds += self.step_seconds(limits, len(lengths), len(lengths), sum(lengths))
        return seconds


def measure_limits(device: torch.device) -> Limits:
    """Takes about a second and, on a GPU, 4 GiB; on a CPU sizes are a test's."""
    import torch

    from minillm_serve.bench.gpu.timing import median_us

    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32

    def copy_gb_s(elements: int, copy: Any) -> float:
        source = torch.ones(elements, dtype=dtype, device=device)
        target = torch.empty_like(source)
        return 2 * source.nbytes / median_us(lambda: copy(source, target), device) / 1e3

    # The copy engine's kernel and an elementwise one: which is faster depends on the chip.
    copies = (lambda x, y: y.copy_(x), lambda x, y: torch.add(x, 1, out=y))
    sizes = (1 << 27, 1 << 30) if on_gpu else (1 << 16,)
    best = max(copy_gb_s(size, copy) for size in sizes for copy in copies)
    side = 8192 if on_gpu else 64
    a, b = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    matmul = 2 * side**3 / median_us(lambda: a @ b, device) / 1e6
    counter = torch.zeros(1024, device=device)

    def nodes(count: int) -> float:
        return median_us(lambda: [counter.add_(1) for _ in range(count)], device)

    return Limits(best, matmul, (nodes(500) - nodes(100)) / 400 if on_gpu else None)
