"""Where a text ends: stop strings and stop tokens, shown or not, and never before ``min_tokens``."""

from __future__ import annotations

import pytest

from minillm_serve import LLM, SamplingParams

PROMPT = "The quick brown"
LONG = {"max_tokens": 40, "temperature": 0.0, "ignore_eos": True}


@pytest.fixture(scope="module")
def llm(tiny_model_dir):
    return LLM(tiny_model_dir, block_size=4, num_kv_blocks=100)


@pytest.fixture(scope="module")
def whole(llm):
    return complete(llm)


def complete(llm, **fields):
    [output] = llm.generate(PROMPT, SamplingParams(**{**LONG, **fields}))
    assert llm.stats().kv_blocks_used == 0
    return output.outputs[0]


def text_of(llm, ids, skip_special_tokens=True):
    return llm.tokenizer.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)


@pytest.mark.parametrize("include", [False, True])
def test_the_text_ends_at_a_stop_string_and_the_tokens_where_it_was_seen(llm, whole, include):
    stop = whole.text[10:13]
    sample = complete(llm, stop=["never written", stop], include_stop_str_in_output=include)
    end = whole.text.index(stop)
    assert sample.text == whole.text[: end + len(stop) * include]
    assert (sample.finish_reason, sample.stop_reason) == ("stop", stop)
    assert tuple(sample.token_ids) == whole.token_ids[: len(sample.token_ids)] and len(sample.token_ids) < 40
    assert stop in text_of(llm, sample.token_ids) and stop not in text_of(llm, sample.token_ids[:-1])


def test_a_stop_string_within_the_first_min_tokens_does_not_count(llm, whole):
    early = whole.text[:3]
    assert complete(llm, stop=[early]).text == ""
    sample = complete(llm, stop=[early], min_tokens=20)
    border = len(text_of(llm, whole.token_ids[:20]))
    again = whole.text.find(early, border - len(early) + 1)
    assert sample.text == (whole.text[:again] if again >= 0 else whole.text)
    assert len(sample.token_ids) >= 20


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_token_is_among_the_tokens_but_not_in_the_text(llm, whole, include):
    """As in vLLM: its text stands there only where stop strings are to be shown."""
    stop = whole.token_ids[12]
    sample = complete(llm, stop_token_ids=[stop], include_stop_str_in_output=include)
    end = whole.token_ids.index(stop) + 1
    assert sample.token_ids == whole.token_ids[:end]
    assert sample.text == text_of(llm, whole.token_ids[: end - 1 + include])
    assert (sample.finish_reason, sample.stop_reason) == ("stop", stop)


def test_the_eos_token_shows_only_where_it_is_asked_for(llm):
    [eos] = llm.tokenizer.eos_token_ids
    asked = {"ignore_eos": False, "logit_bias": {eos: 100.0}, "min_tokens": 3}
    for include, skip, shown in ((False, False, ""), (True, True, ""), (True, False, "<|im_end|>")):
        sample = complete(llm, include_stop_str_in_output=include, skip_special_tokens=skip, **asked)
        assert len(sample.token_ids) == 4 and sample.token_ids[-1] == eos
        assert sample.text == text_of(llm, sample.token_ids[:-1]) + shown
        assert (sample.finish_reason, sample.stop_reason) == ("stop", None)


def test_special_tokens_in_the_midst_are_text_if_they_are_not_to_be_skipped(llm):
    [eos] = llm.tokenizer.eos_token_ids
    asked = {"allowed_token_ids": [eos], "max_tokens": 3}
    assert complete(llm, **asked).text == ""
    assert complete(llm, skip_special_tokens=False, **asked).text == "<|im_end|>" * 3


def test_the_last_token_may_complete_the_stop_string(llm, whole):
    """Length and stop string fall on one token: the text says why it ended."""
    texts = [text_of(llm, whole.token_ids[:count]) for count in range(41)]
    count = next(n for n in range(8, 40) if len(texts[n + 1]) > len(texts[n]) and "\ufffd" not in texts[n + 1][-4:])
    text = texts[count + 1]
    sample = complete(llm, max_tokens=count + 1, stop=[text[-4:]], min_tokens=count)
    assert (sample.finish_reason, sample.stop_reason, sample.text) == ("stop", text[-4:], text[:-4])


@pytest.mark.parametrize(
    "fields",
    [{}, {"stop": ["qu", "a "]}, {"skip_special_tokens": False}, {"stop": ["e"], "min_tokens": 9}],
    ids=["plain", "stop", "special", "min_tokens"],
)
def test_text_made_at_the_end_equals_text_made_on_the_way(llm, fields):
    """LLM.generate decodes a sequence once, a stream decodes token by token."""
    params = SamplingParams(**{**LONG, **fields})
    core, last = llm.core, None
    core.add("stream", core.prepare(PROMPT, params))
    while core.has_work():
        for output in core.step():
            last = output
    assert last.outputs[0] == complete(llm, **fields)
