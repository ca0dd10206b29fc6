"""How much of the GPU's memory is left for keys and values: measured by running the largest step that may come."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minillm_kernels import HeadNorms
from minillm_serve.config import EngineConfig
from minillm_serve.model.llama import LlamaModel
from minillm_serve.runner.gpu.graphs import batch_sizes

MISCELLANEOUS = 256 << 20  # graphs' own structures, libraries' workspaces, what the allocator cannot use
FEATURE_COPIES = 3  # of a prompt step's: each layer's, all of them joined, those that the draft head goes by


class _NoAttention:
    """Stands where attention stands and needs no cache: its output is the queries."""

    def __init__(self, heads: int):
        self._heads = heads

    def attend(self, layer: int, qkv: Tensor, norms: HeadNorms | None, angles: Any | None) -> Tensor:
        return qkv[:, : self._heads].contiguous()


def kv_bytes(config: EngineConfig, model: LlamaModel, max_model_len: int, features: int = 0) -> int:
    """Bytes for the KV cache: ``gpu_memory_utilization`` of the whole, without what is taken now and what a step takes.

    features: numbers that a draft head reads of each token, 0 without one. May be negative. Call it once all weights
    are on the device.
    """
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    num_tokens = config.max_num_batched_tokens
    step = step_bytes(model, num_tokens, min(config.max_num_seqs, num_tokens), max_model_len)
    torch.cuda.empty_cache()
    itemsize, spec = model.weights.dtype.itemsize, config.speculative_config
    num_drafts = 0 if spec is None else spec.num_speculative_tokens
    graphs = graph_logits(config.max_num_seqs, config.enforce_eager, num_drafts) * model.config.vocab_size * itemsize
    kept = feature_rows(config.max_num_seqs, num_drafts) + FEATURE_COPIES * num_tokens
    counts = config.max_num_seqs * model.config.vocab_size * 4  # of seen tokens: see penalties.py
    taken = step + graphs + counts + kept * features * itemsize + MISCELLANEOUS
    return int(total * config.gpu_memory_utilization) - (total - free) - taken


def graph_logits(max_num_seqs: int, eager: bool, num_drafts: int = 0) -> int:
    """Rows of logits that outlive a step. A graph's live as long as it does: the next one cannot take their place."""
    sizes = batch_sizes(max_num_seqs, num_drafts)
    return sizes[-1] if eager else sum(sizes)


def feature_rows(max_num_seqs: int, num_drafts: int) -> int:
    """Tokens whose features have a place of their own: see DecodeStep."""
    return batch_sizes(max_num_seqs, num_drafts)[-1] + max_num_seqs + 2


@torch.inference_mode()
def step_bytes(model: LlamaModel, num_tokens: int, num_seqs: int, max_model_len: int) -> int:
    """Peak memory of a step of ``num_tokens`` of which ``num_seqs`` sample, beyond what is there before it."""
    device = model.weights.embedding.device
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    every = torch.arange(num_tokens, device=device)
    ids = torch.zeros_like(every)
    logits = model.forward(ids, every % max_model_len, _NoAttention(model.config.num_heads), every[-num_seqs:])
    edited = logits.float()  # the sampler's copy, where logits are edited before the draw
    torch.cuda.synchronize()
    del logits, edited
    return torch.cuda.max_memory_allocated() - before
