"""What a speculative configuration builds: the proposer, its model and keys and values, the rule by which drafts stand.

It comes in two halves, because the memory that a draft model takes must be known before the KV blocks are counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minillm_kernels import Ops
from minillm_serve.attention.backends import KVCache
from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.model.draft_head import DraftModel, DraftNet, load_head, read_head_config
from minillm_serve.model.dummy import DummyCheckpoint
from minillm_serve.model.linear import LinearMethod, Unquantized
from minillm_serve.model.llama import LlamaModel
from minillm_serve.model.loader import Checkpoint
from minillm_serve.model.source import ModelSource, open_model
from minillm_serve.model.store import resolve_model, shipped_head
from minillm_serve.model.weights import load_weights
from minillm_serve.quant.int8 import Int8
from minillm_serve.runner.drafter import COUPLED, GREEDY, INDEPENDENT, Drafter
from minillm_serve.runner.runner import Runner
from minillm_serve.runner.speculation import Rule, Speculation
from minillm_serve.sample.rejection import verify
from minillm_serve.seams import SPEC_VERIFY, Seams
from minillm_serve.spec.length import DraftLength
from minillm_serve.spec.ngram import NgramProposer
from minillm_serve.spec.proposer import Proposer
from minillm_serve.spec.suffix import SuffixProposer
from minillm_serve.speculative import SpeculativeConfig

if TYPE_CHECKING:
    from minillm_serve.runner.gpu.drafter import GPUDrafter


def load_draft_net(config: EngineConfig, target: ModelSource, model: LlamaModel, max_model_len: int) -> DraftNet | None:
    """The small network that drafts, where the method has one. Raises :class:`ConfigError` on one that does not fit."""
    spec = config.speculative_config
    if spec is None or spec.model is None:
        return None
    if config.attention_backend == "none":
        raise ConfigError(f"speculation with {spec.method} keeps a KV cache: attention_backend must be paged, got none")
    device, dtype = model.weights.embedding.device, model.weights.dtype
    dummy = DummyCheckpoint(device, dtype) if config.load_format == "dummy" else None
    folder = shipped_head(spec.model) if spec.method == "eagle" else None
    folder = folder or resolve_model(spec.model)
    head = read_head_config(folder) if Path(folder).is_dir() else None
    if (head is not None) != (spec.method == "eagle"):
        kind = "a draft head: say method eagle" if head is not None else "a whole model: say method draft_model"
        raise ConfigError(f"speculation with {spec.method}: {spec.model} is {kind}")
    if head is not None:
        return load_head(head, dummy or Checkpoint(folder), model, head_method(model.ops), max_model_len)
    source = open_model(folder, dummy=dummy, tokenizer=not config.skip_tokenizer_init)
    _check_same_tokens(spec.model, source, target, max_model_len)
    weights = load_weights(source.checkpoint, source.config, Unquantized(model.ops), dtype, device)
    return DraftModel(LlamaModel(source.config, weights, model.ops, max_model_len))


def head_method(ops: Ops) -> LinearMethod:
    """How a head keeps its layers and LM head: in 8 bits where a compiled CPU kernel reads them, else as the target.

    Rounding changes a few drafts and with them a little of the acceptance, never a text. On the CPU a pass over one
    token is bound by the bytes of the matrices, and these are half of what bf16 values take.
    """
    return Int8(ops) if ops.name == "cpp" else Unquantized(ops)


def draft_bytes_per_token(net: DraftNet | None, model: LlamaModel, block_size: int) -> int:
    """What the draft network keeps of one token: keys and values, and its share of the features kept of each block."""
    if net is None:
        return 0
    dtype = model.weights.dtype
    return KVCache.bytes_per_token(net.config, model.ops, dtype) + -(-feature_width(net) * dtype.itemsize // block_size)


def feature_width(net: DraftNet | None) -> int:
    """Numbers that it reads of each token."""
    return 0 if net is None or net.aux_layers is None else (len(net.aux_layers) + 1) * net.config.hidden_size


def build_speculation(
    config: EngineConfig,
    net: DraftNet | None,
    runner: Runner,
    num_blocks: int,
    seams: Seams,
) -> Speculation | None:
    """None where the configuration does not speculate."""
    spec = config.speculative_config
    if spec is None:
        return None
    if net is None:
        return Speculation(_lookup(spec), DraftLength(spec, config.device), runner.batch, rule=_rule(spec, seams))
    on_gpu = runner.model.ops.name == "triton"  # a graph there makes a draft of the length that was asked for
    lengths = DraftLength(spec, config.device, _cost(net, runner.model), stops_early=not on_gpu)
    drafter = _drafter(config, spec, net, runner, num_blocks, lengths)
    return Speculation(drafter, lengths, runner.batch, drafter, _rule(spec, seams))


def _rule(spec: SpeculativeConfig, seams: Seams) -> Rule:
    """A student's rule takes the place of ours, also of the one that needs none; acceptance by lot stays what it is."""
    chosen = seams.get(SPEC_VERIFY, verify)
    if spec.rejection_sample_method == "synthetic":
        return Rule(rates=spec.conditional_rates)
    if spec.rejection_sample_method == "standard" or chosen is not verify:
        return Rule(verify=chosen)
    return Rule()


def _lookup(spec: SpeculativeConfig) -> Proposer:
    if spec.method == "ngram":
        return NgramProposer(spec.prompt_lookup_min, spec.prompt_lookup_max)
    return SuffixProposer(
        spec.suffix_decoding_max_tree_depth,
        spec.suffix_decoding_max_cached_requests,
        spec.suffix_decoding_max_spec_factor,
        spec.suffix_decoding_min_token_prob,
    )


def _drafter(
    config: EngineConfig,
    spec: SpeculativeConfig,
    net: DraftNet,
    runner: Runner,
    num_blocks: int,
    lengths: DraftLength,
) -> Drafter | GPUDrafter:
    dtype, ops, batch = runner.model.weights.dtype, runner.model.ops, runner.batch
    cache = KVCache(net.config, ops, num_blocks, config.block_size, dtype, device=runner.device)
    drawing = GREEDY
    if spec.draft_sample_method == "probabilistic":
        drawing = INDEPENDENT if spec.rejection_sample_method == "standard" else COUPLED
    if ops.name != "triton":
        return Drafter(net, cache, batch, num_blocks, drawing, lengths, dtype)
    from minillm_serve.runner.gpu.drafter import GPUDrafter  # triton is there only where it is used

    return GPUDrafter(net, cache, batch, runner, spec.num_speculative_tokens, drawing, config.enforce_eager)


def _cost(net: DraftNet, model: LlamaModel) -> float:
    """Of one more drafted token, in steps of the target over one token: both read their matrices once."""
    return net.step_bytes / model.weights.step_bytes


def _check_same_tokens(name: str, draft: ModelSource, target: ModelSource, max_model_len: int) -> None:
    if draft.config.vocab_size != target.config.vocab_size:
        raise ConfigError(
            f"draft model {name} has a vocabulary of {draft.config.vocab_size} tokens and the target one of "
            f"{target.config.vocab_size}: they must have the same"
        )
    if draft.tokenizer.backend.get_vocab() != target.tokenizer.backend.get_vocab():
        raise ConfigError(
            f"draft model {name} has another tokenizer than the target: their token ids mean other things"
        )
    if draft.config.max_position_embeddings < max_model_len:
        raise ConfigError(
            f"draft model {name} was trained for {draft.config.max_position_embeddings} positions, the engine serves "
            f"{max_model_len}: give a max_model_len within that"
        )
