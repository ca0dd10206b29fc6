"""Conversations become prompts, away from the event loop: within a time, and to a length, that are known beforehand."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from minillm_serve.model.chat_template import ChatTemplate, Conversation
from minillm_serve.model.template_bounds import Limits
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.serve.settings import ServerSettings

STRANGERS_AT_ONCE = 2  # processes that render templates of requests; others wait


class ChatPrompts:
    """What one server does with chat templates: its own, the model's, and those that come with requests."""

    def __init__(self, tokenizer: Tokenizer, settings: ServerSettings):
        self._tokenizer = tokenizer
        self._seconds = settings.chat_template_timeout
        self._strangers = ThreadPoolExecutor(STRANGERS_AT_ONCE, "minillm-templates")
        self.template = tokenizer.chat_template
        if settings.own_template is not None:
            self.template = ChatTemplate(settings.own_template, tokenizer.template_tokens)

    async def render(self, conversation: Conversation, stranger: str | None, max_chars: int) -> list[int]:
        """Token ids. Raises :class:`RequestError`. stranger: a template that came with the request."""
        limits = Limits(seconds=self._seconds, max_chars=max_chars)
        if stranger is None:
            return await asyncio.to_thread(self._tokenizer.render, conversation, self.template, limits)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._strangers, self._tokenizer.render, conversation, stranger, limits)

    def unread(self, conversation: Conversation, stranger: str | None) -> list[str]:
        """Fields of the request that say something to the template, which does not ask for it."""
        if stranger is not None or self.template is None:
            return []
        said = {f"chat_template_kwargs.{name}": name for name in conversation.variables}
        if conversation.documents:
            said["documents"] = "documents"
        return [field for field, name in said.items() if name not in self.template.variables]
