"""/tokenize and /detokenize."""

from __future__ import annotations

from typing import Any

from minillm_serve.compare.conformance.case import MODEL, Case
from minillm_serve.compare.conformance.cases.making import user
from minillm_serve.compare.conformance.cases.tools import WEATHER

TALK = [user("Hi"), {"role": "assistant", "content": "Hello"}]
TOKENIZE: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": "The capital of France is"},
    "without-model": {"model": None, "prompt": "a"},
    "unicode": {"prompt": "¡Ñandú 你好 🙂!", "return_token_strs": True},
    "empty": {"prompt": ""},
    "strings": {"prompt": "The capital\n of France", "return_token_strs": True},
    "no-special-tokens": {"prompt": "a b", "add_special_tokens": False},
    "control-token": {"prompt": "<|im_start|>user", "return_token_strs": True},
    "messages": {"messages": TALK},
    "messages-open": {"messages": TALK[:1], "add_generation_prompt": False},
    "messages-continued": {"messages": TALK, "continue_final_message": True, "add_generation_prompt": False},
    "messages-strings": {"messages": TALK[:1], "return_token_strs": True},
    "messages-special-tokens": {"messages": TALK[:1], "add_special_tokens": True},
    "messages-tools": {"messages": TALK[:1], "tools": [WEATHER]},
    "messages-kwargs": {"messages": TALK[:1], "chat_template_kwargs": {"a": 1}},
    "messages-parts": {"messages": [user([{"type": "text", "text": "Hi"}])]},
    "longer-than-the-context": {"prompt": "word " * 2500},
    "unknown-model": {"model": "gpt-4", "prompt": "a"},
    "nothing": {},
    "prompt-is-a-number": {"prompt": 3},
    "prompt-is-null": {"prompt": None},
    "prompt-is-a-list": {"prompt": ["a"]},
    "messages-are-a-string": {"messages": "a"},
    "messages-empty": {"messages": []},
    "both": {"prompt": "a", "messages": TALK},
    "continued-and-generated": {"messages": TALK, "continue_final_message": True, "add_generation_prompt": True},
    "own-template": {"messages": TALK, "chat_template": "{{ messages }}"},
    "image": {"messages": [user([{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/a.png"}}])]},
}
DETOKENIZE: dict[str, dict[str, Any]] = {
    "tokens": {"tokens": [504, 3575, 282, 4649, 314]},
    "control-tokens": {"tokens": [1, 4093, 198, 26843, 2, 198]},
    "empty": {"tokens": []},
    "half-a-character": {"tokens": [172]},
    "out-of-vocabulary": {"tokens": [49152]},
    "huge": {"tokens": [2**63]},
    "negative": {"tokens": [-1]},
    "text": {"tokens": "The"},
    "texts": {"tokens": ["The"]},
    "fractions": {"tokens": [1.5]},
    "null": {"tokens": None},
    "missing": {},
    "unknown-model": {"model": "gpt-4", "tokens": [1]},
}


def cases() -> list[Case]:
    """All of them; bodies name the model unless they say otherwise."""
    made = [Case(f"tokenize/{name}", "/tokenize", {"model": MODEL} | body) for name, body in TOKENIZE.items()]
    made += [Case(f"detokenize/{name}", "/detokenize", {"model": MODEL} | body) for name, body in DETOKENIZE.items()]
    return [
        *made,
        Case("tokenize/no-body", "/tokenize"),
        Case("tokenize/bad-json", "/tokenize", raw="{"),
        Case("detokenize/bad-json", "/detokenize", raw="{"),
        Case("tokenize/wrong-method", "/tokenize", method="GET"),
    ]
