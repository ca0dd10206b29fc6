"""The one table of the server's flags: from it come ``minillm serve --help``, the settings, and FLAGS.md."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from minillm_serve.config import CHOICES, EngineConfig
from minillm_serve.serve.settings import ServerSettings


@dataclass(frozen=True)
class Flag:
    """One flag. field: of EngineConfig or of ServerSettings, whichever has it; its default is the flag's.

    vllm, tgi: what the same thing is called there; None where there is no such thing.
    """

    name: str
    field: str
    kind: type
    what: str
    vllm: str | None = None
    tgi: str | None = None


def same(name: str, field: str, kind: type, what: str, tgi: str | None = None) -> Flag:
    """A flag that vLLM has under the same name."""
    return Flag(name, field, kind, what, name, tgi)


ENGINE_FLAGS = (
    same("--dtype", "dtype", str, "weights and arithmetic", "--dtype"),
    same("--quantization", "quantization", str, "arithmetic of the linear layers: int8 weights and activations",
         "--quantize"),
    same("--max-model-len", "max_model_len", int, "longest prompt plus output, in tokens (default: the model's own)",
         "--max-total-tokens"),
    same("--max-num-seqs", "max_num_seqs", int, "requests computed in one step", "--max-batch-size"),
    same("--max-num-batched-tokens", "max_num_batched_tokens", int, "tokens computed in one step, prefill and decode",
         "--max-batch-prefill-tokens"),
    same("--enable-chunked-prefill", "enable_chunked_prefill", bool, "read a long prompt over several steps"),
    same("--scheduling-policy", "scheduling_policy", str, "who goes first: who came first, or the lowest priority"),
    same("--enable-prefix-caching", "enable_prefix_caching", bool, "keep KV blocks for prompts that begin alike"),
    same("--kv-cache-dtype", "kv_cache_dtype", str, "numbers in the KV cache; auto: those of --dtype",
         "--kv-cache-dtype"),
    same("--block-size", "block_size", int, "tokens per KV cache block"),
    same("--num-gpu-blocks-override", "num_kv_blocks", int,
         "KV cache blocks (default: as many as the KV memory holds)"),
    same("--kv-cache-memory-bytes", "kv_cache_memory_bytes", int,
         "memory of the KV cache, in bytes (default: a share)"),
    Flag("--json-always-closes", "json_always_closes", bool, "constrained answers are complete within max_tokens"),
    Flag("--guided-jump-ahead", "guided_jump_ahead", bool, "append text that a constraint leaves no choice about"),
    Flag("--guided-cache-mib", "guided_cache_mib", int, "memory for compiled constraints, in MiB"),
    Flag("--num-threads", "num_threads", int, "CPU threads of the model (default: torch's choice)"),
)  # fmt: skip
SERVER_FLAGS = (
    Flag("--max-request-body-bytes", "max_body_bytes", int, "larger request bodies get 413",
         "VLLM_HTTP_MAX_REQUEST_BODY_SIZE", "--payload-limit"),
    Flag("--accept-legacy-guided", "accept_legacy_guided", bool,
         "take guided_json, guided_regex ... for structured_outputs, not refuse them"),
    Flag("--metrics-prefix", "metrics_prefix", str, "before each metric's name"),
    same("--shutdown-timeout", "shutdown_timeout", int,
         "seconds that running requests get at the end; 0 aborts them"),
)  # fmt: skip


def add_flags(parser: argparse.ArgumentParser, flags: Sequence[Flag], owner: type) -> None:
    """Declare ``flags``, whose fields and defaults are those of the dataclass ``owner``."""
    defaults = {field.name: field.default for field in fields(owner)}
    for flag in flags:
        default = defaults[flag.field]
        how: dict[str, Any] = {"type": flag.kind}
        if flag.kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        elif flag.field in CHOICES:
            how["metavar"] = "|".join(choice for choice in CHOICES[flag.field] if choice is not None)
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(flag.name, dest=flag.field, default=default, help=flag.what + shown, **how)


def engine_config(model: str, args: argparse.Namespace) -> EngineConfig:
    """What the engine's flags say. Raises ConfigError."""
    return EngineConfig(model=model, **{flag.field: getattr(args, flag.field) for flag in ENGINE_FLAGS})


def server_settings(args: argparse.Namespace) -> ServerSettings:
    """What the server's flags say. Raises ConfigError."""
    return ServerSettings(**{flag.field: getattr(args, flag.field) for flag in SERVER_FLAGS})
