"""A conversation becomes the text that a model was trained to continue, by the model's Jinja template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from jinja2 import TemplateError, meta, nodes
from jinja2.exceptions import SecurityError

from minillm_serve.config import ConfigError
from minillm_serve.model.chat_adapt import adapted
from minillm_serve.model.template_bounds import BoundedEnvironment, Limits, TemplateLimitError, metered
from minillm_serve.params import RequestError

# What a template gets from the request's own fields, or from the server: not for chat_template_kwargs.
RESERVED = frozenset(
    {"messages", "conversation", "tools", "documents", "add_generation_prompt", "continue_final_message",
     "chat_template", "tokenize", "return_dict", "return_tensors", "return_assistant_tokens_mask", "padding",
     "truncation", "max_length", "tokenizer_kwargs", "bos_token", "eos_token", "pad_token", "unk_token",
     "raise_exception", "strftime_now", "range", "dict", "namespace", "cycler", "joiner", "self", "loop", "caller"}
)  # fmt: skip
CANNOT_CONTINUE = "continue_final_message: the chat template does not show the end of the final message"


@dataclass(frozen=True)
class Conversation:
    """What a chat request wants to have rendered.

    messages: ``role``, ``content`` (text, or a list of ``{"type": "text", "text": ...}``), and for roles that have
    them ``name``, ``tool_calls`` (``arguments`` an object), ``tool_call_id``, ``reasoning``. tools, documents: as in
    the request, None for none. tool_format: how calls are written where the template does not know of tools
    (:mod:`minillm_serve.guided.tools`). continue_final_message: the text ends inside the last message. variables: what
    else the template may read.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)
    tool_format: str = "hermes"

    def __post_init__(self) -> None:
        if self.continue_final_message and self.add_generation_prompt:
            raise RequestError(
                "continue_final_message cannot be had together with add_generation_prompt, which is true where it is "
                "not said to be false",
                "continue_final_message",
            )
        for name in self.variables:
            if name in RESERVED or name.startswith("_"):
                raise RequestError(f"{name[:40]} is not for chat_template_kwargs to set", "chat_template_kwargs")

    @property
    def num_chars(self) -> int:
        """Characters of the messages' contents."""
        contents = [message.get("content") or "" for message in self.messages]
        return sum(len(c) if isinstance(c, str) else sum(len(part["text"]) for part in c) for c in contents)


class ChatTemplate:
    """A template that compiles; safe to use from several threads. Raises :class:`ConfigError`.

    special_tokens: ``bos_token`` and the like, by name.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str | None] | None = None):
        self.source = source
        self.special_tokens = {name: text for name, text in (special_tokens or {}).items() if text is not None}
        try:
            environment = BoundedEnvironment()
            self._ast = environment.parse(source)
            with metered(Limits()):  # constant expressions are worked out now
                self._compiled = environment.from_string(source)
        except (TemplateError, RecursionError, ValueError, OverflowError, MemoryError) as error:
            raise ConfigError(f"the chat template does not compile: {error}") from error

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names that it reads."""
        return frozenset(meta.find_undeclared_variables(self._ast))

    @property
    def knows_tools(self) -> bool:
        """It describes tools to the model by itself."""
        return "tools" in self.variables

    @cached_property
    def knows_calls(self) -> bool:
        """It writes down earlier tool calls by itself."""
        return "tool_calls" in self.source

    @cached_property
    def knows_developers(self) -> bool:
        """It has a place for the role ``developer``."""
        return '"developer"' in self.source or "'developer'" in self.source

    @cached_property
    def walks_parts(self) -> bool:
        """It wants contents as lists of parts: some loop goes over a message's content."""
        names = {"content"}
        for assign in self._ast.find_all(nodes.Assign):
            if isinstance(assign.target, nodes.Name) and _is_content(assign.node, names):
                names.add(assign.target.name)
        return any(_is_content(loop.iter, names) for loop in self._ast.find_all(nodes.For))

    def render(self, conversation: Conversation, end_mark: str, limits: Limits) -> str:
        """The text. ``end_mark``: a character that occurs nowhere in the conversation. Raises :class:`RequestError`."""
        conversation = adapted(conversation, self)
        if conversation.continue_final_message:
            conversation = replace(conversation, messages=_with_end(conversation.messages, end_mark))
        try:
            text = self._rendered(conversation, limits)
        except TemplateLimitError as error:
            raise RequestError(f"the chat template is stopped: {error}", "messages") from error
        except SecurityError as error:
            raise RequestError(f"the chat template tries to leave its sandbox: {error}", "chat_template") from error
        except RecursionError as error:
            raise RequestError("the chat template calls itself too deeply", "messages") from error
        except Exception as error:  # whatever Python raises where a template and these messages do not fit
            raise RequestError(f"the chat template refuses these messages: {error}", "messages") from error
        return _cut(text, end_mark) if conversation.continue_final_message else text

    def _rendered(self, conversation: Conversation, limits: Limits) -> str:
        pieces, chars = [], 0
        with metered(limits) as meter:
            for piece in self._compiled.generate(
                **conversation.variables,
                **self.special_tokens,
                messages=list(conversation.messages),
                tools=conversation.tools,
                documents=conversation.documents,
                add_generation_prompt=conversation.add_generation_prompt,
            ):
                meter.spend()
                pieces.append(piece)
                chars += len(piece)
                if chars > limits.max_chars:
                    raise TemplateLimitError(f"it writes more than {limits.max_chars} characters")
        return "".join(pieces)


def _is_content(node: nodes.Node | None, names: set[str]) -> bool:
    """Is it a message's content, or a part of it, or a variable that holds it?"""
    while isinstance(node, (nodes.Filter, nodes.Test)) or (
        isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
    ):
        node = node.node
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    return isinstance(node, nodes.Name) and node.name in names


def _with_end(messages: Sequence[Mapping[str, Any]], end_mark: str) -> list[Mapping[str, Any]]:
    """The messages, the text of the last one followed by the mark and a space (which shows whether it is trimmed)."""
    content = messages[-1].get("content")
    if isinstance(content, str):
        marked: Any = content + end_mark + " "
    elif content:
        marked = [*content[:-1], {**content[-1], "text": content[-1]["text"] + end_mark + " "}]
    else:
        raise RequestError("continue_final_message: the final message has no content", "continue_final_message")
    return [*messages[:-1], {**messages[-1], "content": marked}]


def _cut(text: str, end_mark: str) -> str:
    at = text.rfind(end_mark)
    if at < 0:
        raise RequestError(CANNOT_CONTINUE, "continue_final_message")
    return text[:at] if text[at + 1 : at + 2] == " " else text[:at].rstrip()
