"""Text to token ids and back, and the chat template: a thin layer over the ``tokenizers`` library.

Imports neither torch nor transformers, so it starts in milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, KeysView, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import tokenizers

from minillm_serve.config import ConfigError
from minillm_serve.model.chat_template import ChatTemplate, Conversation
from minillm_serve.model.control_tokens import ControlTokens, unused_characters, without
from minillm_serve.model.template_bounds import Limits
from minillm_serve.model.template_process import render_apart
from minillm_serve.params import RequestError

# The library keeps the GIL while it encodes a single text: seconds for a long one, in which no other thread gets a
# turn. For a batch it lets go of it, but its own few threads do the work one after the other.
LONG_TEXT_CHARS = 2048


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
        added = backend.get_added_tokens_decoder()
        self._control = ControlTokens({token.content: id for id, token in added.items() if token.special})
        self.template_tokens = template_tokens or {}
        self.chat_template: ChatTemplate | None = None
        if chat_template is not None:
            self.chat_template = ChatTemplate(chat_template, self.template_tokens)

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
        template = _default_template(settings.get("chat_template"))
        if template_path.is_file():
            template = template_path.read_text(encoding="utf-8")
        named = {name: _content(settings.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        eos = set(eos_token_ids)
        if named["eos_token"] is not None and (id := backend.token_to_id(named["eos_token"])) is not None:
            eos.add(id)
        return cls(backend, eos, template, named)

    @property
    def control_tokens(self) -> KeysView[str]:
        """The texts of the tokens that only a template may write."""
        return self._control.ids.keys()

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens written in it count as text. Raises :class:`RequestError`."""
        return self._encode(text, add_special_tokens=False)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a whole prompt: :meth:`encode`, plus what the model expects around it (BOS, if it has one)."""
        return self._encode(text, add_special_tokens=True)

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        try:
            if len(text) <= LONG_TEXT_CHARS:
                return self.backend.encode(text, add_special_tokens=add_special_tokens).ids
            return self.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
        except (UnicodeEncodeError, TypeError) as error:
            raise RequestError("the text holds a lone surrogate, which no UTF-8 text can", "prompt") from error

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, control tokens left out."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def apply_chat_template(self, messages: Sequence[dict[str, Any]], add_generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation: ``[{"role": ..., "content": text}, ...]``. Raises :class:`RequestError`."""
        if not messages:
            raise RequestError("messages must hold at least one message", "messages")
        for index, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise RequestError("each message needs a role", f"messages.{index}.role")
            if not isinstance(message.get("content"), str):
                raise RequestError("each message needs a text content", f"messages.{index}.content")
        return self.render(Conversation(messages, add_generation_prompt=add_generation_prompt))

    def render(
        self, conversation: Conversation, template: ChatTemplate | str | None = None, limits: Limits | None = None
    ) -> list[int]:
        """Token ids of a conversation. Raises :class:`RequestError`.

        template: instead of the model's own; as text it is a stranger's, and runs in a process of its own.
        """
        template = template or self.chat_template
        if template is None:
            raise RequestError("this model has no chat template: use plain completions", "messages")
        strings = (conversation.messages, conversation.tools, conversation.documents, conversation.variables)
        mark, end_mark = islice(unused_characters(strings), 2)
        guarded = self._guarded(conversation, mark)
        limits = limits or Limits()
        if isinstance(template, str):
            text = render_apart(template, self.template_tokens, guarded, end_mark, limits)
        else:
            text = template.render(guarded, end_mark, limits)
        return self._encode_rendered(text, mark)

    def _guarded(self, conversation: Conversation, mark: str) -> Conversation:
        guard = self._control.guard
        return replace(
            conversation,
            messages=[self._control.guard_message(message, mark) for message in conversation.messages],
            tools=guard(conversation.tools, mark),
            documents=guard(conversation.documents, mark),
            variables=guard(conversation.variables, mark),
        )

    def _encode_rendered(self, text: str, mark: str) -> list[int]:
        ids: list[int] = []
        for piece in self._control.split(text):
            if (control := self._control.ids.get(piece)) is not None:
                ids.append(control)
            elif piece:
                ids.extend(self.encode(without(piece, mark)))
        return ids


def _default_template(found: Any) -> str | None:
    """Some models have several templates, each with a name."""
    if isinstance(found, list):
        named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _content(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value
