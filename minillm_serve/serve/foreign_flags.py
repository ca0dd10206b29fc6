"""Flags that people type out of habit with vLLM or TGI and that this server does not have: each gets a reason."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from minillm_serve.serve.flags import Flag

_ONE_PROCESS = "one process computes the whole model here"
_NO_LORA = "there are no LoRA adapters here; merge them into the weights"
_DRAFTS_MOVED = (
    'vLLM has removed it: it is --speculative-config \'{"method": "draft_model", "model": ..., '
    '"num_speculative_tokens": ...}\' now, here too'
)
_TLS = "end TLS in the proxy in front (see minillm_serve/deploy/nginx)"
_ONE_BACKEND = "constraints have one implementation here; `minillm guided explain` shows what it makes of them"
_SHARE = "the KV cache's memory is --kv-cache-memory-bytes, or --num-gpu-blocks-override blocks"
_SAFETENSORS = "models are safetensors folders or .gguf files; `minillm model get` fetches known ones"

# Flag -> (why not, values that ask for nothing else than what happens here).
FOREIGN: dict[str, tuple[str, tuple[str, ...]]] = {
    "--model": ("the model is given without a flag, as in `minillm serve MODEL`", ()),
    "--tokenizer": ("the model's own tokenizer is used", ()),
    "--revision": (_SAFETENSORS, ()),
    "--download-dir": (f"{_SAFETENSORS}; the environment variable MINILLM_CACHE says where to", ()),
    "--hf-token": (_SAFETENSORS, ()),
    "--trust-remote-code": ("code that comes with a model is never run", ()),
    "--tensor-parallel-size": (_ONE_PROCESS, ("1",)),
    "--pipeline-parallel-size": (_ONE_PROCESS, ("1",)),
    "--data-parallel-size": (f"{_ONE_PROCESS}; start several behind a proxy (see minillm_serve/deploy/nginx)", ("1",)),
    "--enable-expert-parallel": (_ONE_PROCESS, ()),
    "--api-server-count": (_ONE_PROCESS, ("1",)),
    "--distributed-executor-backend": (_ONE_PROCESS, ()),
    "--cpu-offload-gb": ("weights stay where they are computed with", ("0",)),
    "--swap-space": ("vLLM has removed it; preempted requests are computed again, here too", ("0",)),
    "--compilation-config": ("nothing is compiled here", ()),
    "--attention-backend": ("the kernels of the machine are found by themselves", ()),
    "--enable-lora": (_NO_LORA, ()),
    "--lora-modules": (_NO_LORA, ()),
    "--max-loras": (_NO_LORA, ()),
    "--max-lora-rank": (_NO_LORA, ()),
    "--per-request-spec-decode-metrics": ("drafts are counted for the whole server: see /metrics", ("none",)),
    "--speculative-model": (_DRAFTS_MOVED, ()),
    "--num-speculative-tokens": (_DRAFTS_MOVED, ()),
    "--structured-outputs-config": (_ONE_BACKEND, ()),
    "--structured-outputs-config.backend": (_ONE_BACKEND, ("auto",)),
    "--guided-decoding-backend": (f"vLLM has removed it: --structured-outputs-config.backend; {_ONE_BACKEND}", ()),
    "--reasoning-parser": ("reasoning is not told apart from the answer here", ()),
    "--limit-mm-per-prompt": ("models read text only here", ()),
    "--task": ("vLLM has removed it; every model here generates and embeds", ("generate", "auto")),
    "--runner": ("every model here generates and embeds", ("auto", "generate")),
    "--seed": ("requests without a seed differ from run to run; give requests a seed", ("0",)),
    "--uds": ("it listens on TCP only; put a proxy in front", ()),
    "--root-path": ("it knows no prefix; strip it in the proxy in front", ()),
    "--ssl-keyfile": (_TLS, ()),
    "--ssl-certfile": (_TLS, ()),
    "--ssl-ca-certs": (_TLS, ()),
    "--disable-log-requests": ("vLLM has removed it; requests are not logged unless one asks for it", ("",)),
    "--disable-log-stats": ("statistics are not logged here: they are at /metrics", ("",)),
    "--no-enable-log-requests": ("requests are not logged unless one asks for it", ("",)),
    "--config": ("flags are given on the command line only", ()),
    # TGI's, where nothing here does the same
    "--model-id": ("the model is given without a flag, as in `minillm serve MODEL`", ()),
    "--num-shard": (_ONE_PROCESS, ("1",)),
    "--sharded": (_ONE_PROCESS, ("false",)),
    "--max-input-tokens": ("prompt and output share --max-model-len", ()),
    "--max-input-length": ("prompt and output share --max-model-len", ()),
    "--max-batch-total-tokens": (_SHARE, ()),
    "--cuda-graphs": ("their sizes are not adjustable; --enforce-eager does without them", ()),
    "--speculate": (
        'N drafts of what stood in the text before are --speculative-config \'{"method": "ngram", '
        '"num_speculative_tokens": N}\'',
        ("0",),
    ),
    "--lora-adapters": (_NO_LORA, ()),
    "--rope-scaling": ("the model's own configuration decides", ()),
    "--rope-factor": ("the model's own configuration decides", ()),
    "--max-client-batch-size": ("a request may hold up to 1024 prompts", ()),
    "--validation-workers": (_ONE_PROCESS, ()),
    "--huggingface-hub-cache": (f"{_SAFETENSORS}; the environment variable MINILLM_CACHE says where to", ()),
    "--tokenizer-config-path": ("the model's own tokenizer is used; --chat-template replaces its template", ()),
    "--enable-prefill-logprobs": ("they are always possible", ("",)),
    "--usage-stats": ("nothing is ever reported to anybody", ("off",)),
    "--max-stop-sequences": ("it is not adjustable", ("4",)),
    "--max-waiting-tokens": ("each step takes in whoever fits", ()),
    "--waiting-served-ratio": ("each step takes in whoever fits", ()),
    "--disable-grammar-support": ("constraints cannot be turned off", ()),
}
SHORT = {"-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size", "-dp": "--data-parallel-size"}


class _Refuse(argparse.Action):
    """Ends the parsing with the reason, unless the value asks for what happens anyway."""

    def __init__(self, *args: Any, reason: str, neutral: tuple[str, ...], **options: Any):
        # A switch must not take the model's name for its value.
        super().__init__(*args, nargs=0 if "" in neutral else "?", **options)
        self._reason, self._neutral = reason, neutral

    def __call__(self, parser: argparse.ArgumentParser, args: Any, values: Any, option: str | None = None) -> None:
        if (values or "") not in self._neutral:
            parser.exit(2, f"minillm: {option} is not supported: {self._reason}\n")


def add_foreign_flags(parser: argparse.ArgumentParser, own: Sequence[Flag]) -> None:
    """Declare, hidden from --help, what would otherwise be an «unrecognized argument». ``own`` flags win."""
    taken = set(parser._option_string_actions)
    reasons = {name: why for name, why in FOREIGN.items() if name not in taken}
    for flag in own:
        for other, engine in ((flag.vllm, "vLLM"), (flag.tgi, "TGI")):
            if other is not None and other.startswith("--") and other not in taken:
                reasons.setdefault(other, (f"it is {engine}'s name for {flag.name}", ()))
    for name, (reason, neutral) in reasons.items():
        short = [letters for letters, long in SHORT.items() if long == name]
        parser.add_argument(
            name, *short, action=_Refuse, reason=reason, neutral=neutral, help=argparse.SUPPRESS,
            default=argparse.SUPPRESS, dest=f"refused {name}"
        )  # fmt: skip
