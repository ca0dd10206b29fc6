"""What the server tells of itself: names of metrics, the log, where spans go."""

from __future__ import annotations

import re
from dataclasses import dataclass

from minillm_serve.config import ConfigError
from minillm_serve.serve.observe.logs import FORMATS, LEVELS
from minillm_serve.serve.observe.tracing import check_endpoint

_PREFIX = re.compile(r"(?:[a-zA-Z_:][a-zA-Z0-9_:]*)?")


@dataclass(frozen=True)
class ObservabilitySettings:
    """Raises :class:`ConfigError`.

    metrics_prefix: before the name of each metric; a colon follows unless it ends in one or in _. log_format (text,
    json), log_level: of the log, which goes to stderr. disable_access_log: no line for each HTTP request.
    enable_log_requests: parameters of each request in the log, at level debug its prompt too, of which max_log_len
    characters and token ids. otlp_traces_endpoint: URL that takes OpenTelemetry spans.
    """

    metrics_prefix: str = "minillm"
    log_format: str = "text"
    log_level: str = "info"
    disable_access_log: bool = False
    enable_log_requests: bool = False
    max_log_len: int | None = None
    otlp_traces_endpoint: str | None = None

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.metrics_prefix):
            raise ConfigError(
                f"--metrics-prefix must be letters, digits, _ and :, not a digit first, got {self.metrics_prefix!r}"
            )
        for flag, value, known in (
            ("--log-format", self.log_format, FORMATS),
            ("--log-level", self.log_level, LEVELS),
        ):
            if value not in known:
                raise ConfigError(f"{flag} must be one of {', '.join(known)}, got {value!r}")
        if self.max_log_len is not None and self.max_log_len < 0:
            raise ConfigError(f"--max-log-len must be 0 or more, got {self.max_log_len}")
        if self.otlp_traces_endpoint is not None:
            check_endpoint(self.otlp_traces_endpoint)
