"""The two endpoints as such: forms of prompt and messages, several prompts, streaming options."""

from __future__ import annotations

from minillm_serve.compare.conformance.case import Case
from minillm_serve.compare.conformance.cases.making import LEAVE_OUT, chat, completion, streamed, user

TURNS = [
    {"role": "system", "content": "You answer in one word."},
    user("What colour is the sky?"),
    {"role": "assistant", "content": "Blue."},
    user("And grass?"),
]
PARTS = [{"type": "text", "text": "What is two"}, {"type": "text", "text": "plus two?"}]


def cases() -> list[Case]:
    """Whole answers and streams."""
    plain = [*_completions(), *_chats()]
    short = {"max_tokens": 3}
    options = [
        *streamed([chat("stream-without-usage", **short), completion("stream-without-usage", **short)],
                  include_usage=False),
        *streamed([chat("stream-usage-null", **short), completion("stream-usage-null", **short)], include_usage=None),
        *streamed([chat("stream-continuous-usage", **short), completion("stream-continuous-usage", **short)],
                  include_usage=True, continuous_usage_stats=True),
        *streamed([chat("stream-continuous-only", **short), completion("stream-continuous-only", **short)],
                  continuous_usage_stats=True),
        chat("stream-without-options", stream=True, **short),
        completion("stream-without-options", stream=True, **short),
        chat("stream-options-null", stream=True, stream_options=None, **short),
        completion("stream-options-empty", stream=True, stream_options={}, **short),
        chat("stream-false", stream=False, **short),
        completion("stream-null", stream=None, **short),
        *streamed([chat("stream-continuous-token-ids", return_token_ids=True, **short)],
                  include_usage=True, continuous_usage_stats=True),
    ]  # fmt: skip
    return [*plain, *streamed(plain), *options, *_headers()]


def _completions() -> list[Case]:
    return [
        completion("several-prompts", ["One and one is", "The sun is", "Water is"]),
        completion("several-prompts-token-ids", ["One and one is", "The sun is"], return_token_ids=True),
        completion("one-prompt-in-a-list", ["The sun is"]),
        completion("ids", [504, 3575, 282, 4649, 314]),
        completion("ids-in-a-list", [[504, 3575, 282, 4649, 314], [504, 5128]], return_token_ids=True),
        completion("control-token-in-text", "<|im_start|>user\nHi<|im_end|>\n", return_token_ids=True),
        completion("control-token-id", [1, 4093, 198, 26843, 2, 198], return_token_ids=True),
        completion("unicode", "El señor Ñandú dijo: «¡Hola, 你好 🙂!» y", return_token_ids=True),
        completion("newlines", "def add(a, b):\n    return", max_tokens=12),
        completion("one-letter", "A"),
        completion("space", " "),
        completion("no-special-tokens", add_special_tokens=False, return_token_ids=True),
        completion("special-tokens", add_special_tokens=True, return_token_ids=True),
        completion("echo", echo=True),
        completion("echo-token-ids", echo=True, return_token_ids=True),
        completion("echo-several-prompts", ["One and one is", "The sun is"], echo=True),
        completion("echo-ids", [504, 3575, 282, 4649, 314], echo=True),
        completion("echo-without-new-tokens", echo=True, max_tokens=0),
        completion("echo-with-stop", echo=True, stop=["."], max_tokens=16),
        completion("max-tokens-null", max_tokens=None),
        completion("max-tokens-more-than-fits", "word " * 2043, max_tokens=LEAVE_OUT),
        completion("suffix-null", suffix=None),
        completion("suffix-empty", suffix=""),
    ]


def _chats() -> list[Case]:
    said = [user("Tell me a colour."), {"role": "assistant", "content": "My favourite colour is"}]
    return [
        chat("several-turns", messages=TURNS),
        chat("parts", PARTS, return_token_ids=True),
        chat("parts-of-the-system", messages=[{"role": "system", "content": PARTS}, user("Hi")]),
        chat("one-part", [{"type": "text", "text": "Hi"}]),
        chat("bare-text-part", ["Hi there"]),
        chat("unicode", "Di «¡Hola, 你好 🙂!»", return_token_ids=True, max_tokens=16),
        chat("empty-content", "", return_token_ids=True),
        chat("null-content-of-assistant", messages=[user("Hi"), {"role": "assistant", "content": None}, user("Hm?")]),
        chat("developer", messages=[{"role": "developer", "content": "Be brief."}, user("Hi")], return_token_ids=True),
        chat("name", messages=[{"role": "user", "content": "Who am I?", "name": "ada"}], return_token_ids=True),
        chat("assistant-last", messages=said, return_token_ids=True),
        chat("continue-final-message", messages=said, continue_final_message=True, add_generation_prompt=False,
             return_token_ids=True),
        chat("continue-and-echo", messages=said, continue_final_message=True, add_generation_prompt=False, echo=True),
        chat("no-generation-prompt", add_generation_prompt=False, return_token_ids=True),
        chat("echo", messages=said, echo=True),
        chat("echo-of-a-user", echo=True),
        chat("add-special-tokens", add_special_tokens=True, return_token_ids=True),
        chat("template-kwargs", chat_template_kwargs={"colour": "blue"}, return_token_ids=True),
        chat("template-kwargs-empty", chat_template_kwargs={}),
        chat("documents", documents=[{"title": "A", "text": "B"}], return_token_ids=True),
        chat("prompt-text", return_prompt_text=True),
        chat("max-completion-tokens", max_tokens=LEAVE_OUT, max_completion_tokens=5),
        chat("max-completion-tokens-wins", max_tokens=9, max_completion_tokens=5),
        chat("reasoning-off", include_reasoning=False),
        chat("parallel-tool-calls-without-tools", parallel_tool_calls=False),
        chat("tool-choice-none-without-tools", tool_choice="none"),
        chat("tools-null", tools=None),
        chat("control-tokens-as-text", "a<|im_end|>b", max_tokens=4),
        chat("store-and-metadata", store=False, metadata={"a": "b"}, service_tier="auto"),
    ]  # fmt: skip


def _headers() -> list[Case]:
    named = (("X-Request-Id", "conformance-1"),)
    return [
        chat("request-id-header", headers=named, max_tokens=2),
        completion("request-id-header", headers=named, max_tokens=2),
        completion("charset", headers=(("Content-Type", "application/json; charset=utf-8"),), max_tokens=2),
        completion("suffixed-json", headers=(("Content-Type", "application/vnd.api+json"),), max_tokens=2),
        completion("content-type-in-capitals", headers=(("Content-Type", "Application/JSON"),), max_tokens=2),
        completion("accept-text", headers=(("Accept", "text/plain"),), max_tokens=2),
        completion("priority-header", headers=(("X-Vllm-Priority", "2"),), max_tokens=2),
        completion("session-header", headers=(("X-Session-ID", "abc"),), max_tokens=2),
    ]
