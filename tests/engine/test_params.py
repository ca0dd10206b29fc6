"""Every sampling parameter is checked when it is given, and the error names it."""

from __future__ import annotations

import pytest

from minillm_serve.params import RequestError, SamplingParams, StructuredOutputsParams

GUIDED = StructuredOutputsParams(json={})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n", [0, -1, 1.0, True, "2", 10**6]),
        ("best_of", [0, 2.0, True]),
        ("presence_penalty", [-2.01, 2.01, float("nan"), "1", None]),
        ("frequency_penalty", [-2.01, 2.01, float("inf"), True]),
        ("repetition_penalty", [0, -1.0, float("nan"), None]),
        ("min_p", [-0.01, 1.01, "0"]),
        ("typical_p", [0, 1.01, float("nan")]),
        ("top_p", [0, 1.01]),
        ("min_tokens", [-1, 1.5, 17]),
        ("logprobs", [-2, 1.5, True]),
        ("prompt_logprobs", [-2, "1", False]),
        ("logit_bias", [[1], "1", {1: 101}, {1: -101}, {1: "a"}, {1: True}, {-1: 1}, {"-1": 1}, {"x": 1}, {1.5: 1}]),
        ("allowed_token_ids", [[], 5, [-1], ["1"], [True]]),
        ("bad_words", [5, [""], ["  "], [7], ["a" * 4097]]),
        ("stop", [5, "", [""], [7], ["a"] * 5, "a" * 4097]),
        ("bad_words_ids", [5, [[]], [5], [["a"]], [[-1]]]),
        ("include_stop_str_in_output", [1, "yes", None]),
        ("skip_special_tokens", [0, None]),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(name, values):
    for value in values:
        with pytest.raises(RequestError) as caught:
            SamplingParams(**{name: value})
        assert caught.value.param == name
        assert name in str(caught.value) or name.startswith("bad_words")


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"best_of": 2, "temperature": 0}, "best_of"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
    ],
)
def test_what_contradicts_is_refused(given, param):
    with pytest.raises(RequestError) as caught:
        SamplingParams(**given)
    assert caught.value.param == param


def test_every_bound_itself_is_accepted():
    SamplingParams(presence_penalty=-2, frequency_penalty=2, repetition_penalty=1e-3, min_p=0, typical_p=1, top_p=1)
    SamplingParams(min_p=1, typical_p=1e-6, top_p=1e-6, logprobs=-1, prompt_logprobs=0, min_tokens=16, n=1, best_of=1)
    SamplingParams(n=5, best_of=5, max_tokens=None, min_tokens=1000)


def test_values_are_kept_in_one_form():
    params = SamplingParams(
        logit_bias={"7": 5, 8: -1.5}, allowed_token_ids=[1, 2], bad_words=["a"], bad_words_ids=[[1, 2], (3,)], stop="x"
    )
    assert params.logit_bias == {7: 5.0, 8: -1.5}
    assert (params.allowed_token_ids, params.bad_words, params.stop) == ((1, 2), ("a",), ("x",))
    assert params.bad_words_ids == ((1, 2), (3,))
    assert (SamplingParams(n=2, best_of=4).num_sequences, SamplingParams(n=2).num_sequences) == (4, 2)
