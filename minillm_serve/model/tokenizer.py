"""Text to token ids and back, and the chat template: a thin layer over the ``tokenizers`` library.

Imports neither torch nor transformers, so it starts in milliseconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import tokenizers
from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from minillm_serve.config import ConfigError
from minillm_serve.params import RequestError


class Tokenizer:
    """The tokenizer of one model folder.

    Control tokens (``<|im_end|>``) written inside a user's text are encoded as plain text, so nobody can forge a
    role; only the chat template's own text produces them.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        eos_token_ids: Iterable[int],
        chat_template: str | None = None,
        template_tokens: dict[str, str | None] | None = None,
    ):
        self.backend = backend
        self.backend.encode_special_tokens = True
        self.eos_token_ids = frozenset(eos_token_ids)
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        self._control = {token.content: id for id, token in backend.get_added_tokens_decoder().items() if token.special}
        self._template_tokens = template_tokens or {}
        self._template = None
        if chat_template is not None:
            environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
            environment.globals["raise_exception"] = _raise_exception
            environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
            try:
                self._template = environment.from_string(chat_template)
            except TemplateError as error:
                raise ConfigError(f"the model's chat template does not compile: {error}") from error

    @classmethod
    def from_folder(cls, folder: str | Path, eos_token_ids: Iterable[int] = ()) -> Tokenizer:
        """Read ``tokenizer.json`` and ``tokenizer_config.json``. Raises :class:`ConfigError`.

        eos_token_ids: more ids that end a text, from the model's config.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ConfigError(f"{folder} has no tokenizer.json (a fast tokenizer is needed)")
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f"{path} is not a tokenizer: {error}") from error
        settings_path, template_path = folder / "tokenizer_config.json", folder / "chat_template.jinja"
        settings = json.loads(settings_path.read_text(encoding="utf-8")) if settings_path.is_file() else {}
        template = settings.get("chat_template")
        if template_path.is_file():
            template = template_path.read_text(encoding="utf-8")
        named = {name: _content(settings.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        eos = set(eos_token_ids)
        if named["eos_token"] is not None and (id := backend.token_to_id(named["eos_token"])) is not None:
            eos.add(id)
        return cls(backend, eos, template if isinstance(template, str) else None, named)

    @property
    def has_chat_template(self) -> bool:
        return self._template is not None

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens written in it count as text. Raises :class:`RequestError`."""
        return self._encode(text, add_special_tokens=False)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a whole prompt: :meth:`encode`, plus what the model expects around it (BOS, if it has one)."""
        return self._encode(text, add_special_tokens=True)

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        try:
            return self.backend.encode(text, add_special_tokens=add_special_tokens).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise RequestError("the text holds a lone surrogate, which no UTF-8 text can", "prompt") from error

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, control tokens left out."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def apply_chat_template(self, messages: Sequence[dict[str, Any]], add_generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation: ``[{"role": ..., "content": text}, ...]``. Raises :class:`RequestError`."""
        if self._template is None:
            raise RequestError("this model has no chat template: use plain completions", "messages")
        if not messages:
            raise RequestError("messages must hold at least one message", "messages")
        for index, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise RequestError("each message needs a role", f"messages.{index}.role")
            if not isinstance(message.get("content"), str):
                raise RequestError("each message needs a text content", f"messages.{index}.content")
        # A mark inside every control token that a user wrote keeps it apart from those the template writes.
        mark = _unused_character(messages)
        marked = [
            {key: self._mark(value, mark) if isinstance(value, str) else value for key, value in message.items()}
            for message in messages
        ]
        try:
            rendered = self._template.render(
                messages=marked, add_generation_prompt=add_generation_prompt, **self._template_tokens
            )
        except SecurityError as error:
            raise ConfigError(f"the model's chat template tries to leave its sandbox: {error}") from error
        except TemplateError as error:
            raise RequestError(f"the chat template refuses these messages: {error}", "messages") from error
        ids: list[int] = []
        for piece in self._split_control(rendered):
            if piece in self._control:
                ids.append(self._control[piece])
            elif piece:
                ids.extend(self.encode(piece.replace(mark, "")))
        return ids

    def _split_control(self, text: str) -> list[str]:
        if not self._control:
            return [text]
        longest_first = sorted(self._control, key=len, reverse=True)
        return re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)

    def _mark(self, text: str, mark: str) -> str:
        return "".join(p[0] + mark + p[1:] if p in self._control else p for p in self._split_control(text))


def _unused_character(messages: Sequence[dict[str, Any]]) -> str:
    """A private-use character that no message holds."""
    text = "".join(value for message in messages for value in message.values() if isinstance(value, str))
    return next(chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text)


def _content(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value


def _raise_exception(message: str) -> None:
    raise TemplateError(message)
