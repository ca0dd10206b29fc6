"""Log-probabilities in their shapes, of answers and of prompts."""

from __future__ import annotations

from minillm_serve.compare.conformance.case import Case
from minillm_serve.compare.conformance.cases.making import chat, completion, streamed

EMOJI = "Repeat this: 🙂🙂"


def cases() -> list[Case]:
    """Whole answers, streams, and what exists for whole answers only."""
    both = [
        *(completion(f"logprobs-{count}", logprobs=count) for count in (0, 1, 3, 20)),
        completion("logprobs-several-prompts", ["One and one is", "The sun is"], logprobs=2),
        completion("logprobs-as-token-ids", logprobs=2, return_tokens_as_token_ids=True),
        completion("logprobs-echo", echo=True, logprobs=2),
        completion("logprobs-echo-alone", echo=True, logprobs=1, max_tokens=0),
        completion("logprobs-echo-0", echo=True, logprobs=0, max_tokens=2),
        completion("logprobs-echo-token-ids", echo=True, logprobs=1, max_tokens=2, return_token_ids=True),
        completion("logprobs-stop", logprobs=1, stop=["."], max_tokens=16),
        completion("logprobs-stop-included", logprobs=1, stop=["."], include_stop_str_in_output=True, max_tokens=16),
        completion("logprobs-eos", "2 + 2 = 4<|im_end|>", logprobs=1, max_tokens=4),
        completion("logprobs-bytes", EMOJI, logprobs=2, max_tokens=12, return_token_ids=True),
        completion("logprobs-penalty", logprobs=2, presence_penalty=1.0, max_tokens=10),
        completion("logprobs-logit-bias", logprobs=2, logit_bias={"253": 100}, max_tokens=3),
        completion("logprobs-allowed", logprobs=2, allowed_token_ids=[253, 282, 284, 28], max_tokens=3),
        completion("logprobs-temperature", logprobs=1, temperature=1e-9, max_tokens=3),
        completion("logprobs-regex", logprobs=1, structured_outputs={"regex": "[0-9]{3}"}),
        completion("logprob-token-ids", logprobs=1, logprob_token_ids=[253, 282], max_tokens=3, alone=True),
        chat("logprobs-without-top", logprobs=True),
        *(chat(f"logprobs-top-{count}", logprobs=True, top_logprobs=count) for count in (0, 1, 3, 20)),
        chat("logprobs-top-null", logprobs=True, top_logprobs=None),
        chat("logprobs-false", logprobs=False, top_logprobs=0),
        chat("logprobs-as-token-ids", logprobs=True, top_logprobs=2, return_tokens_as_token_ids=True),
        chat("logprobs-stop", logprobs=True, stop=["."], max_tokens=16),
        chat("logprobs-eos", "Say OK.", logprobs=True, top_logprobs=1, max_tokens=16),
        chat("logprobs-bytes", EMOJI, logprobs=True, top_logprobs=2, max_tokens=12),
        chat("logprobs-token-ids", logprobs=True, top_logprobs=1, return_token_ids=True),
        chat("logprob-token-ids", logprobs=True, logprob_token_ids=[253, 282], max_tokens=3, alone=True),
    ]
    whole = [
        *(completion(f"prompt-logprobs-{count}", prompt_logprobs=count, max_tokens=2) for count in (0, 1, 3)),
        completion("prompt-logprobs-and-logprobs", prompt_logprobs=1, logprobs=1, max_tokens=2),
        completion("prompt-logprobs-several", ["The sun is", "Water"], prompt_logprobs=0, max_tokens=1),
        *(chat(f"prompt-logprobs-{count}", "Hi", prompt_logprobs=count, max_tokens=2) for count in (0, 2)),
        chat("prompt-logprobs-and-logprobs", "Hi", prompt_logprobs=1, logprobs=True, top_logprobs=1, max_tokens=2),
        completion("prompt-logprobs-null", prompt_logprobs=None, max_tokens=2),
    ]
    return [*both, *whole, *streamed(both)]
