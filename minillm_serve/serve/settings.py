"""What one HTTP server accepts, offers and refuses; the engine's own settings are in EngineConfig."""

from __future__ import annotations

from dataclasses import dataclass

from minillm_serve.config import ConfigError


@dataclass(frozen=True)
class ServerSettings:
    """Frozen; each field is a flag of ``minillm serve`` (serve/flags.py). Raises :class:`ConfigError`.

    max_body_bytes: a longer request body is 413. accept_legacy_guided: vLLM's former ``guided_*`` fields are taken for
    what they meant, not refused. metrics_prefix: before the name of each metric. shutdown_timeout: seconds that
    requests under way get once the server is told to end; 0 aborts them.
    """

    max_body_bytes: int = 4 * 2**20
    accept_legacy_guided: bool = False
    metrics_prefix: str = "minillm:"
    shutdown_timeout: int = 0

    def __post_init__(self) -> None:
        if self.max_body_bytes < 1:
            raise ConfigError(f"--max-request-body-bytes must be at least 1, got {self.max_body_bytes}")
        if self.shutdown_timeout < 0:
            raise ConfigError(f"--shutdown-timeout must be 0 or more seconds, got {self.shutdown_timeout}")
