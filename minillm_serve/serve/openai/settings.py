"""How conversations become prompts, and which tools their answers may call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path

from minillm_serve.config import ConfigError
from minillm_serve.guided.tools import FORMATS
from minillm_serve.model.chat_template import ChatTemplate


@dataclass(frozen=True)
class ConversationSettings:
    """Raises :class:`ConfigError`.

    chat_template: a file, or the template itself, in place of the model's own. trust_request_chat_template: requests
    may bring their own, which is rendered in a process apart. chat_template_timeout: seconds that rendering one
    conversation may take.

    tool_call_parser: how calls are written, ``hermes`` (between tags) or ``json`` (nothing but them).
    enable_auto_tool_choice: the model may decide whether to call. exclude_tools_when_tool_choice_none: with
    tool_choice none the prompt does not mention the tools.
    """

    chat_template: str | None = None
    trust_request_chat_template: bool = False
    chat_template_timeout: float = 2.0
    tool_call_parser: str = "hermes"
    enable_auto_tool_choice: bool = True
    exclude_tools_when_tool_choice_none: bool = False

    def __post_init__(self) -> None:
        if self.tool_call_parser not in FORMATS:
            raise ConfigError(f"--tool-call-parser must be one of {', '.join(FORMATS)}, got {self.tool_call_parser!r}")
        if not isfinite(self.chat_template_timeout) or self.chat_template_timeout <= 0:
            raise ConfigError(f"--chat-template-timeout must be above 0 seconds, got {self.chat_template_timeout}")
        if self.own_template is not None:
            ChatTemplate(self.own_template)

    @cached_property
    def own_template(self) -> str | None:
        """The text of chat_template, None for the model's own. Raises :class:`ConfigError`."""
        given = self.chat_template
        if given is None or any(mark in given for mark in ("{", "}", "\n")):
            return given
        try:
            return Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--chat-template: {given} cannot be read: {error}") from error
