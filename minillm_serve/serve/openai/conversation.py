"""The fields of a body that say what the chat template is given; chat completions and /tokenize have them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from minillm_serve.guided.tools import MAX_TOOLS, TOOL_NAME
from minillm_serve.model.chat_template import Conversation
from minillm_serve.params import RequestError
from minillm_serve.serve.openai import fields
from minillm_serve.serve.openai.messages import MESSAGES_SCHEMA, parse_messages
from minillm_serve.serve.service import Service
from minillm_serve.serve.settings import ServerSettings

MAX_DOCUMENTS = 1024
_TOOL_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": f"^{TOOL_NAME}$"},
                "description": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "parameters": {"anyOf": [{"type": "object"}, {"type": "null"}]},
                "strict": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            },
            "required": ["name"],
        },
    },
    "required": ["type", "function"],
}
_CHOICE_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
    "required": ["type", "function"],
}
TOOLS_SCHEMA = {
    "anyOf": [{"type": "array", "items": _TOOL_SCHEMA, "minItems": 1, "maxItems": MAX_TOOLS}, {"type": "null"}]
}
TOOL_CHOICE_SCHEMA = {"anyOf": [{"enum": ["none", "auto", "required"]}, _CHOICE_SCHEMA, {"type": "null"}]}


class ConversationBody(fields.Body):
    """Everything the prompt is made of, except the tools that a request hides from its model."""

    messages: Annotated[Any, AfterValidator(parse_messages), WithJsonSchema(MESSAGES_SCHEMA)]
    tools: Annotated[list[dict[str, Any]] | None, WithJsonSchema(TOOLS_SCHEMA)] = None
    documents: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    add_special_tokens: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def conversation(self, settings: ServerSettings, tools: list[dict[str, Any]] | None) -> Conversation:
        """What to render; ``tools`` as the template gets them. Raises :class:`RequestError`."""
        kwargs = self.chat_template_kwargs or {}
        if not settings.trust_request_chat_template:
            for name, given in (("chat_template", self.chat_template), ("chat_template_kwargs", kwargs)):
                if given is not None and (name == "chat_template" or "chat_template" in given):
                    raise RequestError(
                        "chat templates in requests are refused: the server runs without --trust-request-chat-template",
                        name,
                    )
        if len(self.documents or ()) > MAX_DOCUMENTS:
            raise RequestError(f"at most {MAX_DOCUMENTS} documents fit in one request", "documents")
        return Conversation(
            self.messages,
            tools=tools,
            documents=self.documents,
            add_generation_prompt=self.add_generation_prompt is not False,
            continue_final_message=bool(self.continue_final_message),
            variables=kwargs,
            tool_format=settings.tool_call_parser,
        )

    async def render(
        self, service: Service, tools: list[dict[str, Any]] | None, *, any_length: bool = False
    ) -> tuple[list[int], list[str]]:
        """The prompt's token ids, and the names of fields that its template does not look at.

        any_length: it may be longer than the context. Raises :class:`RequestError`.
        """
        conversation = self.conversation(service.settings, tools)
        unread = service.chat_prompts.unread(conversation, self.chat_template)
        if unread and service.settings.strict:
            raise RequestError(f"this server's chat template does not look at {unread[0][:100]}", unread[0])
        ids = await service.render_chat(conversation, self.chat_template, any_length=any_length)
        return (service.with_special_tokens(ids) if self.add_special_tokens else ids), unread
