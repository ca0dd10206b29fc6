"""The one table of the server's flags: from it come ``minillm serve --help``, the settings, and FLAGS.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from minillm_serve.config import CHOICES, ConfigError, EngineConfig
from minillm_serve.serve.limits.keys import ApiKey, keys_from_environment
from minillm_serve.serve.listening import Place
from minillm_serve.serve.settings import ServerSettings
from minillm_serve.speculative import read_keys


@dataclass(frozen=True)
class Flag:
    """One flag. field: of EngineConfig or of ServerSettings, whichever has it; its default is the flag's.

    vllm, tgi: what the same thing is called there; None where there is no such thing. many: it takes several values.
    part: the key that it gives to the field's mapping, which other flags make too. short: its other name.
    """

    name: str
    field: str
    kind: Callable[[str], Any]
    what: str
    vllm: str | None = None
    tgi: str | None = None
    many: bool = False
    part: str | None = None
    short: str | None = None

    @property
    def dest(self) -> str:
        """Where argparse puts its value."""
        return self.field if self.part is None else f"{self.field}.{self.part}"


def same(name: str, field: str, kind: type, what: str, tgi: str | None = None) -> Flag:
    """A flag that vLLM has under the same name."""
    return Flag(name, field, kind, what, name, tgi)


ENGINE_FLAGS = (
    Flag("--device", "device", str, "where the model runs"),
    same("--dtype", "dtype", str, "weights and arithmetic; auto: float32 on a CPU, bfloat16 on a GPU", "--dtype"),
    same("--load-format", "load_format", str, "auto: read the checkpoint; dummy: random weights, to measure with"),
    same("--quantization", "quantization", str,
         "linear layers in int8 or fp8 (weights and activations) or int4 (weights); awq, gptq: as the checkpoint",
         "--quantize"),
    same("--max-model-len", "max_model_len", int, "longest prompt plus output, in tokens (default: the model's own)",
         "--max-total-tokens"),
    same("--max-num-seqs", "max_num_seqs", int, "requests computed in one step", "--max-batch-size"),
    same("--max-num-batched-tokens", "max_num_batched_tokens", int,
         "tokens computed in one step, prefill and decode (default: 512, on a GPU 8192)",
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
    same("--gpu-memory-utilization", "gpu_memory_utilization", float,
         "share of a GPU's memory that the engine may take, KV cache included (default: 0.9)",
         "--cuda-memory-fraction"),
    same("--async-scheduling", "async_scheduling", bool,
         "launch a step before the last one's tokens are back (default: on a GPU)"),
    same("--enforce-eager", "enforce_eager", bool, "launch every kernel by itself, without CUDA graphs"),
    Flag("--json-always-closes", "json_always_closes", bool, "constrained answers are complete within max_tokens"),
    Flag("--guided-jump-ahead", "guided_jump_ahead", bool, "append text that a constraint leaves no choice about"),
    Flag("--guided-cache-mib", "guided_cache_mib", int, "memory for compiled constraints, in MiB"),
    Flag("--num-threads", "num_threads", int, "CPU threads of the model (default: torch's choice)"),
    Flag("--speculative-config", "speculative_config", str,
         'how tokens are drafted, JSON: {"method": "ngram", "num_speculative_tokens": 4}; in short -sc',
         "--speculative-config", short="-sc"),
    Flag("--spec-method", "speculative_config", str,
         "the method of --speculative-config: ngram, suffix, draft_model or eagle",
         "--spec-method", part="method"),
    Flag("--spec-model", "speculative_config", str,
         "the model of --speculative-config: folder of a draft model or head",
         "--spec-model", part="model"),
    Flag("--spec-tokens", "speculative_config", int, "the num_speculative_tokens of --speculative-config",
         "--spec-tokens", part="num_speculative_tokens"),
)  # fmt: skip
LIFECYCLE_FLAGS = (
    same("--shutdown-timeout", "shutdown_timeout", int,
         "seconds that running requests get at the end; 0 aborts them"),
    Flag("--load", "load", str,
         "when the model is read: before the port answers (eager), while it says 503 (background), or when the first "
         "request comes (lazy)"),
    Flag("--keep-alive-on-engine-death", "keep_alive_on_engine_death", bool,
         "answer 503 when the engine has failed, rather than end the process", "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"),
    Flag("--step-timeout", "step_timeout", float, "seconds after which an engine step counts as hung; 0: never"),
    Flag("--dev", "dev", bool, "routes for experiments too: POST /reset_prefix_cache", "VLLM_SERVER_DEV_MODE"),
)  # fmt: skip
ANSWER_FLAGS = (
    Flag("--accept-legacy-guided", "accept_legacy_guided", bool,
         "take guided_json, guided_regex ... for structured_outputs, not refuse them"),
    Flag("--tgi", "tgi", bool, "TGI's API at the root too (POST /, /generate, /info ...), not under /tgi alone"),
    Flag("--max-n", "max_n", int, "n and best_of of a request, at most", "VLLM_MAX_N_SEQUENCES", "--max-best-of"),
    same("--max-logprobs", "max_logprobs", int, "logprobs and top_logprobs of a request, at most; -1: no bound",
         "--max-top-n-tokens"),
    Flag("--strict", "strict", bool, "unknown parameters get 400; otherwise a warning header"),
    same("--generation-config", "generation_config", str,
         "auto: sampling defaults of the model's generation_config.json; vllm: none"),
    same("--override-generation-config", "override_generation_config", str,
         "further sampling defaults, a JSON object"),
    same("--return-tokens-as-token-ids", "return_tokens_as_token_ids", bool,
         "logprobs name tokens token_id:ID, not by their text"),
    same("--stream-interval", "stream_interval", int, "tokens in each chunk of a stream"),
    same("--enable-prompt-tokens-details", "enable_prompt_tokens_details", bool,
         "usage tells how many prompt tokens the prefix cache spared"),
    same("--enable-per-request-metrics", "enable_per_request_metrics", bool,
         "answers hold a request's own times: queue, first token, between tokens"),
    same("--enable-force-include-usage", "enable_force_include_usage", bool,
         "usage in every chunk of every stream"),
)  # fmt: skip
PROMPT_FLAGS = (
    same("--chat-template", "chat_template", str, "a Jinja file, or the template itself, in place of the model's own"),
    same("--trust-request-chat-template", "trust_request_chat_template", bool,
         "requests may bring a chat_template; each is rendered in a process apart"),
    Flag("--chat-template-timeout", "chat_template_timeout", float, "seconds that a chat template may take"),
    same("--tool-call-parser", "tool_call_parser", str,
         "how models write tool calls: hermes (between tags) or json (nothing but calls)"),
    same("--enable-auto-tool-choice", "enable_auto_tool_choice", bool,
         "models may decide whether to call tools (in vLLM only if this is given)"),
    same("--exclude-tools-when-tool-choice-none", "exclude_tools_when_tool_choice_none", bool,
         "with tool_choice none the prompt does not mention the tools"),
)  # fmt: skip
LIMIT_FLAGS = (
    Flag("--max-request-body-bytes", "max_body_bytes", int, "larger request bodies get 413",
         None, "--payload-limit"),
    Flag("--api-key", "api_keys", ApiKey.from_text, "keys that clients may show; with none, everybody may call",
         "--api-key", "--api-key", many=True),
    Flag("--api-key-file", "api_key_file", str, "keys with names and quotas: JSON, or a line for each"),
    Flag("--open-metrics", "open_metrics", bool, "/metrics needs no key"),
    Flag("--isolate-cache", "isolate_cache", str, "key: clients share no cached prefixes"),
    same("--allowed-origins", "allowed_origins", str, "web pages that may call the server (CORS), a JSON list",
         "--cors-allow-origin"),
    Flag("--requests-per-minute", "requests_per_minute", int, "of each client; more get 429; 0: no limit"),
    Flag("--tokens-per-minute", "tokens_per_minute", int,
         "prompt and output tokens of each client; more get 429; 0: no limit"),
    same("--max-num-queued-reqs", "max_num_queued_reqs", int,
         "sequences waiting and running; more get 503; 0: no limit", "--max-concurrent-requests"),
    same("--max-num-queued-tokens", "max_num_queued_tokens", int,
         "prompt tokens in prefill; above, requests get 503; 0: no limit"),
    Flag("--queue-timeout", "queue_timeout", float, "seconds until a request's first step, then 503; 0: no limit"),
    Flag("--request-timeout", "request_timeout", float, "seconds for a whole request, then 504; 0: no limit"),
    Flag("--max-connections", "max_connections", int, "open at once; more get 503; 0: as the open files allow"),
    Flag("--keep-alive-timeout", "keep_alive_timeout", float, "seconds that a connection stays open unused",
         "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"),
    Flag("--header-timeout", "header_timeout", float, "seconds for a client to send a request's headers"),
    Flag("--body-timeout", "body_timeout", float, "seconds for a client to send a request's body"),
    Flag("--write-timeout", "write_timeout", float, "seconds without a client taking anything of its answer"),
    same("--h11-max-incomplete-event-size", "h11_max_incomplete_event_size", int,
         "bytes of a request's line and headers; more get 431"),
    same("--h11-max-header-count", "h11_max_header_count", int, "headers of a request; more get 431"),
)  # fmt: skip
OBSERVABILITY_FLAGS = (
    Flag("--metrics-prefix", "metrics_prefix", str, "before each metric's name; vllm: for dashboards made for vLLM"),
    Flag("--log-format", "log_format", str, "text|json: a line, or a JSON object, for each record", None,
         "--json-output"),
    same("--log-level", "log_level", str, "debug|info|warning|error: of the log on stderr"),
    same("--disable-uvicorn-access-log", "disable_access_log", bool, "no line in the log for each HTTP request"),
    same("--enable-log-requests", "enable_log_requests", bool,
         "log each request's parameters, at --log-level debug its prompt too"),
    same("--max-log-len", "max_log_len", int, "characters of a prompt that are logged (default: all)"),
    same("--otlp-traces-endpoint", "otlp_traces_endpoint", str,
         "URL that takes OpenTelemetry spans, such as http://localhost:4318/v1/traces", "--otlp-endpoint"),
)  # fmt: skip

PLACE_FLAGS = (
    same("--host", "host", str, "address to listen on", "--hostname"),
    same("--port", "port", int, "TCP port, 0 for a free one", "--port"),
    Flag("--served-model-name", "served_model_name", str,
         "what clients call the model; further names are aliases (default: MODEL)", "--served-model-name", None, True),
    Flag("--trace-file", "trace_file", str, "write every engine step to this JSON file at the end"),
)  # fmt: skip
# What --help and FLAGS.md show together: title, the dataclass that has the fields and their defaults, the flags.
GROUPS: tuple[tuple[str, type, tuple[Flag, ...]], ...] = (
    ("where", Place, PLACE_FLAGS),
    ("engine", EngineConfig, ENGINE_FLAGS),
    ("life cycle", ServerSettings, LIFECYCLE_FLAGS),
    ("requests and answers", ServerSettings, ANSWER_FLAGS),
    ("chat templates and tools", ServerSettings, PROMPT_FLAGS),
    ("limits", ServerSettings, LIMIT_FLAGS),
    ("metrics, logs, traces", ServerSettings, OBSERVABILITY_FLAGS),
)
SERVER_FLAGS = tuple(flag for _, owner, flags in GROUPS if owner is ServerSettings for flag in flags)
ALL_FLAGS = tuple(flag for _, _, flags in GROUPS for flag in flags)


def add_flags(parser: argparse._ActionsContainer, flags: Sequence[Flag], owner: type) -> None:
    """Declare ``flags``, whose fields and defaults are those of the dataclass ``owner``."""
    defaults = {field.name: field.default for field in fields(owner)}
    for flag in flags:
        default = defaults[flag.field]
        names = [flag.name] if flag.short is None else [flag.name, flag.short]
        how: dict[str, Any] = {"type": flag.kind}
        if flag.kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        else:
            choices = [choice for choice in CHOICES.get(flag.field, ()) if choice is not None]
            how["metavar"] = "|".join(choices) or {int: "N", float: "X"}.get(flag.kind, "TEXT")
        if flag.many:
            how |= {"nargs": "+", "action": "extend"}
            default = list(default)
        shown = "" if default in (None, []) else f" (default: {default})"
        parser.add_argument(*names, dest=flag.dest, default=default, help=flag.what + shown, **how)


def engine_config(model: str, args: argparse.Namespace) -> EngineConfig:
    """What the engine's flags say. Raises ConfigError."""
    given = {flag.field: getattr(args, flag.dest) for flag in ENGINE_FLAGS if flag.part is None}
    for flag in ENGINE_FLAGS:
        value = getattr(args, flag.dest)
        if flag.part is not None and value is not None:
            parts = read_keys(given[flag.field] or {})
            if flag.part in parts:
                raise ConfigError(f"{flag.name} and the key {flag.part} of --speculative-config say the same twice: "
                                  "give one of them")  # fmt: skip
            given[flag.field] = parts | {flag.part: value}
    return EngineConfig(model=model, **given)


def place(args: argparse.Namespace) -> Place:
    """Where to listen, as what. Raises ConfigError."""
    names = tuple(dict.fromkeys(args.served_model_name or (args.model,)))
    return Place(args.host, args.port, names, args.trace_file)


def server_settings(args: argparse.Namespace) -> ServerSettings:
    """What the server's flags say, and the environment of the keys that they do not name. Raises ConfigError."""
    given = {flag.field: getattr(args, flag.field) for flag in SERVER_FLAGS}
    if not (given["api_keys"] or given["api_key_file"]):
        given["api_keys"] = keys_from_environment()
    return ServerSettings(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
