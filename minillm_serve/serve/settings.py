"""What one HTTP server accepts, offers and refuses; the engine's own settings are in EngineConfig."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf
from typing import Any

from minillm_serve.config import ConfigError
from minillm_serve.engine.defaults import RECOMMENDED, checked_fields
from minillm_serve.params import MAX_SEQUENCES
from minillm_serve.serve.limits.settings import LimitSettings
from minillm_serve.serve.observe.settings import ObservabilitySettings
from minillm_serve.serve.openai.settings import ConversationSettings

GENERATION_CONFIGS = ("auto", "vllm")
LOAD_CHOICES = ("eager", "background", "lazy")


@dataclass(frozen=True)
class ServerSettings(LimitSettings, ObservabilitySettings, ConversationSettings):
    """Frozen; each field, inherited ones too, is a flag of ``minillm serve`` (serve/flags.py).

    Raises :class:`ConfigError`.

    max_body_bytes: a longer request body is 413. accept_legacy_guided: vLLM's former ``guided_*`` fields are taken for
    what they meant, not refused. shutdown_timeout: seconds that requests under way get once the server is told to end;
    0 aborts them.

    load: when the model is read: before the port answers (eager), while it answers 503 (background), or when the first
    request comes (lazy). keep_alive_on_engine_death: go on answering 503 instead of ending the process. step_timeout:
    seconds after which a step counts as hung and the engine as dead; 0: never. dev: routes for experiments, too.
    tgi: TGI's API at the root as well, not under /tgi alone.

    Parameters. max_n: completions of one prompt at most, and sequences that best_of tries. max_logprobs: alternatives
    to each token that are told at most (-1: the whole vocabulary). strict: unknown parameters are 400, not ignored.
    generation_config: ``auto`` takes sampling defaults from the model's ``generation_config.json``, ``vllm`` does not;
    override_generation_config: more of them, as a JSON object. return_tokens_as_token_ids, stream_interval: for
    requests that do not say. enable_prompt_tokens_details, enable_per_request_metrics, enable_force_include_usage:
    what answers tell beside their text.
    """

    max_body_bytes: int = 4 * 2**20
    accept_legacy_guided: bool = False
    shutdown_timeout: int = 0
    load: str = "eager"
    keep_alive_on_engine_death: bool = False
    step_timeout: float = 0.0
    dev: bool = False
    tgi: bool = False
    max_n: int = 16
    max_logprobs: int = 20
    strict: bool = False
    generation_config: str = "auto"
    override_generation_config: str = "{}"
    return_tokens_as_token_ids: bool = False
    stream_interval: int = 1
    enable_prompt_tokens_details: bool = False
    enable_per_request_metrics: bool = False
    enable_force_include_usage: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_parameters()
        ObservabilitySettings.__post_init__(self)
        ConversationSettings.__post_init__(self)
        if self.max_body_bytes < 1:
            raise ConfigError(f"--max-request-body-bytes must be at least 1, got {self.max_body_bytes}")
        if self.shutdown_timeout < 0:
            raise ConfigError(f"--shutdown-timeout must be 0 or more seconds, got {self.shutdown_timeout}")
        if self.load not in LOAD_CHOICES:
            raise ConfigError(f"--load must be one of {', '.join(LOAD_CHOICES)}, got {self.load!r}")
        if not 0 <= self.step_timeout < inf:
            raise ConfigError(f"--step-timeout must be 0 or more seconds, got {self.step_timeout}")

    def _check_parameters(self) -> None:
        if not 1 <= self.max_n <= MAX_SEQUENCES:
            raise ConfigError(f"--max-n must be between 1 and {MAX_SEQUENCES}, got {self.max_n}")
        if self.max_logprobs < -1:
            raise ConfigError(f"--max-logprobs must be 0 or more, or -1 for no bound, got {self.max_logprobs}")
        if self.stream_interval < 1:
            raise ConfigError(f"--stream-interval must be at least 1 token, got {self.stream_interval}")
        if self.generation_config not in GENERATION_CONFIGS:
            known = ", ".join(GENERATION_CONFIGS)
            raise ConfigError(f"--generation-config must be one of {known}, got {self.generation_config!r}")
        _ = self.generation_override

    @property
    def generation_override(self) -> dict[str, Any]:
        """override_generation_config by the names of SamplingParams. Raises :class:`ConfigError`."""
        try:
            given = json.loads(self.override_generation_config)
            if not isinstance(given, dict):
                raise ValueError("it is no JSON object")
            if unknown := sorted(given.keys() - RECOMMENDED):
                raise ValueError(f"it may only hold {', '.join(RECOMMENDED)}, not {unknown[0]!r}")
            return checked_fields(given)
        except ValueError as error:
            raise ConfigError(f"--override-generation-config: {error}") from error
