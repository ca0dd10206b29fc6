"""Bodies that a healthy server answers with 200: where every mutation begins."""

from __future__ import annotations

from typing import Any

Json = Any

_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 4}}},
    },
}
_HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
_PARTS = [{"role": "user", "content": [{"type": "text", "text": "Count"}, {"type": "text", "text": "to ten"}]}]
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

CHAT: tuple[dict[str, Json], ...] = (
    {"messages": _HELLO, "max_tokens": 2, "temperature": 0},
    {"messages": _PARTS, "max_completion_tokens": 3, "n": 2, "seed": 7, "top_p": 0.9, "top_k": 20, "min_p": 0.05},
    {"messages": _HELLO, "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}},
    {"messages": _HELLO, "max_tokens": 2, "logprobs": True, "top_logprobs": 2, "logit_bias": {"5": 1.5}},
    {"messages": _HELLO, "max_tokens": 3, "stop": ["a", "b"], "presence_penalty": 0.5, "frequency_penalty": 0.5},
    {"messages": _HELLO, "max_tokens": 8, "tools": [_WEATHER], "tool_choice": "none", "parallel_tool_calls": False},
    {"messages": _HELLO, "max_tokens": 40, "response_format": {"type": "json_object"}, "temperature": 0},
    {
        "messages": _HELLO,
        "max_tokens": 40,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA, "strict": True}},
    },
)
COMPLETIONS: tuple[dict[str, Json], ...] = (
    {"prompt": "Once upon", "max_tokens": 2, "temperature": 0},
    {"prompt": ["Once", "upon"], "max_tokens": 2, "logprobs": 2, "echo": True},
    {"prompt": [5, 6, 7], "max_tokens": 3, "stop_token_ids": [9], "ignore_eos": True, "min_tokens": 1},
    {"prompt": [[5, 6], [7]], "max_tokens": 2, "stream": True, "n": 2, "seed": 1},
    {"prompt": "Once", "max_tokens": 20, "structured_outputs": {"regex": "[a-c]{1,3}"}},
    {"prompt": "Once", "max_tokens": 20, "structured_outputs": {"choice": ["yes", "no"]}},
    {"prompt": "Once", "max_tokens": 20, "structured_outputs": {"grammar": 'root ::= "yes" | "no"'}},
    {
        "prompt": "Once",
        "max_tokens": 3,
        "bad_words": ["the"],
        "allowed_token_ids": [5, 6, 7],
        "repetition_penalty": 1.1,
    },
    {"prompt": "Once", "max_tokens": 2, "prompt_logprobs": 1, "truncate_prompt_tokens": 3, "cache_salt": "s"},
)
RERANK: tuple[dict[str, Json], ...] = (
    {"query": "What is it?", "documents": ["This.", "That."]},
    {"query": "What?", "documents": ["This."], "top_n": 1, "max_tokens_per_doc": 4, "return_documents": False},
)
SCORE: tuple[dict[str, Json], ...] = (
    {"text_1": "What?", "text_2": ["This.", "That."]},
    {"queries": ["What?", "Why?"], "documents": ["This.", "That."], "max_tokens_per_query": 2},
)
GENERATE: tuple[dict[str, Json], ...] = (
    {"inputs": "Once upon", "parameters": {"max_new_tokens": 2, "details": True}},
    {
        "inputs": "Once",
        "parameters": {
            **{"max_new_tokens": 3, "do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 3},
            **{"stop": ["a"], "top_n_tokens": 2, "repetition_penalty": 1.1, "return_full_text": True, "truncate": 4},
        },
    },
    {"inputs": "Once", "parameters": {"max_new_tokens": 20, "grammar": {"type": "regex", "value": "[a-c]{1,3}"}}},
)

SEEDS: dict[str, tuple[dict[str, Json], ...]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/embeddings": (
        {"input": ["Once", "upon"], "encoding_format": "base64", "use_activation": True},
        {"input": [5, 6], "truncate_prompt_tokens": 4, "truncation_side": "left", "add_special_tokens": False},
    ),
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), RERANK),
    **dict.fromkeys(("/score", "/v1/score"), SCORE),
    "/tokenize": (
        {"prompt": "Once upon", "add_special_tokens": True, "return_token_strs": True},
        {"messages": _HELLO, "add_generation_prompt": True},
    ),
    "/detokenize": ({"tokens": [5, 6, 7]},),
    "/tgi": (GENERATE[0] | {"stream": True}, *GENERATE),
    "/tgi/": (GENERATE[0] | {"stream": False}, *GENERATE),
    "/tgi/generate": GENERATE,
    "/tgi/generate_stream": GENERATE,
    "/tgi/tokenize": ({"inputs": "Once upon"},),
    "/tgi/chat_tokenize": ({"messages": _HELLO},),
    "/tgi/v1/chat/completions": CHAT,
    "/tgi/v1/completions": COMPLETIONS,
}
GOOD = "/v1/completions", COMPLETIONS[0]
