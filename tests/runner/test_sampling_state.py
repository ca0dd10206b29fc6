"""What a request's parameters do to its logits, against their definitions written as loops over one row."""

from __future__ import annotations

from collections import Counter
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import NoBadWordsLogitsProcessor, RepetitionPenaltyLogitsProcessor

from minillm_serve.params import SamplingParams, StructuredOutputsParams
from minillm_serve.plan import RequestInit
from minillm_serve.runner.constraints import TokenCounts
from minillm_serve.runner.sampling_state import SamplingState

VOCAB = 40
EOS = (3, 4)
TOKEN = st.integers(0, VOCAB - 1)


def edited_by_definition(row: list[float], params: SamplingParams, prompt: list[int], generated: list[int]) -> list:
    """Allowed tokens, min_tokens, bias, bad words, penalties: in that order, token by token."""
    row = list(map(np.float32, row))
    for token in range(VOCAB):
        if params.allowed_token_ids is not None and token not in params.allowed_token_ids:
            row[token] = np.float32(-inf)
        if len(generated) < params.min_tokens and token in (*EOS, *params.stop_token_ids):
            row[token] = np.float32(-inf)
        row[token] += np.float32((params.logit_bias or {}).get(token, 0.0))
    for *start, last in params.bad_words_ids:
        if not start or generated[-len(start) :] == start:
            row[last] = np.float32(-inf)
    counts = Counter(generated)
    for token in {*prompt, *generated}:
        repetition = np.float32(params.repetition_penalty)
        row[token] = row[token] / repetition if row[token] > 0 else row[token] * repetition
        row[token] -= np.float32(params.frequency_penalty) * np.float32(counts[token])
        row[token] -= np.float32(params.presence_penalty) * np.float32(counts[token] > 0)
    return row


PARAMS = st.builds(
    SamplingParams,
    min_tokens=st.sampled_from([0, 0, 3, 8]),
    stop_token_ids=st.lists(TOKEN, max_size=2),
    logit_bias=st.none() | st.dictionaries(TOKEN, st.floats(-100, 100, width=32), max_size=5),
    allowed_token_ids=st.none() | st.lists(TOKEN, min_size=1, max_size=20),
    bad_words_ids=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), max_size=4),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.7, -1.5]),
    presence_penalty=st.sampled_from([0.0, 0.4, -2.0]),
)
FEW = st.integers(0, 5)  # a small alphabet, so that bad words and repetitions happen
SEQUENCE = st.tuples(PARAMS, st.lists(FEW, min_size=1, max_size=6), st.lists(FEW, max_size=10), st.integers(0, 10))


@settings(max_examples=150, deadline=None)
@given(sequences=st.lists(SEQUENCE, min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_a_batch_of_logits_is_edited_as_each_row_asks(sequences, seed):
    """Part of the generated tokens was there when the row came (a resume), the others are booked one by one."""
    state = SamplingState(8, eos_token_ids=EOS)
    rows = np.array([5, 0, 7, 2, 4][: len(sequences)])
    for row, (params, prompt, generated, cut) in zip(rows.tolist(), sequences, strict=True):
        state.insert(row, RequestInit(row, (*prompt, *generated[:cut]), len(prompt), params, seed=0))
        for token in generated[cut:]:
            assert state.draw(row, token) == ((token,), 0)
    logits = torch.randn(len(rows), VOCAB, generator=torch.Generator().manual_seed(seed)) * 5
    expected = [
        edited_by_definition(logits[at].tolist(), params, prompt, generated)
        for at, (params, prompt, generated, _) in enumerate(sequences)
    ]
    edits = state.edits(rows, VOCAB)
    if edits is not None:
        edits.apply(logits)
    assert torch.equal(logits, torch.tensor(np.array(expected)))


def edited(params: SamplingParams, prompt: list[int], generated: list[int], logits: torch.Tensor) -> torch.Tensor:
    state = SamplingState(1, eos_token_ids=EOS)
    state.insert(0, RequestInit(0, (*prompt, *generated), len(prompt), params, seed=0))
    logits = logits.clone()
    state.edits(np.array([0]), VOCAB).apply(logits)
    return logits


def test_repetition_penalty_and_bad_words_equal_transformers():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, VOCAB, generator=generator) * 3
    ids = torch.randint(0, VOCAB, (1, 30), generator=generator)
    penalty = RepetitionPenaltyLogitsProcessor(1.4)(ids, logits.clone())
    tokens = ids[0].tolist()
    assert torch.allclose(edited(SamplingParams(repetition_penalty=1.4), tokens[:10], tokens[10:], logits), penalty)

    words = [[7], [tokens[-1], 9], [*tokens[-3:], 11], [tokens[-2], 12]]
    banned = NoBadWordsLogitsProcessor([list(word) for word in words])(ids, logits.clone())
    assert torch.equal(edited(SamplingParams(bad_words_ids=words), [0], tokens, logits), banned)
    assert torch.isneginf(banned).nonzero()[:, 1].tolist() == sorted({7, 9, 11})


def test_a_bad_word_is_not_continued_from_the_prompt():
    """vLLM's rule: its beginning must have been generated."""
    logits = torch.zeros(1, VOCAB)
    params = SamplingParams(bad_words_ids=[[1, 2]])
    assert edited(params, [1], [], logits)[0, 2] == 0
    assert edited(params, [5], [1], logits)[0, 2] == -inf


def test_plain_requests_need_no_edits_even_beside_others():
    state = SamplingState(4)
    assert state.edits(np.array([0, 1]), VOCAB) is None
    state.insert(2, RequestInit(2, (1,), 1, SamplingParams(presence_penalty=1.0), seed=0))
    assert state.edits(np.array([0, 1]), VOCAB) is None
    state.remove(2)
    assert not state.constraints


def test_settings_and_flags_of_a_row_are_those_of_the_request_in_it_now():
    state = SamplingState(2)
    first = SamplingParams(temperature=0.5, top_k=3, top_p=0.5, min_p=0.25, typical_p=0.75, logprobs=2)
    state.insert(1, RequestInit(9, (1, 2), 2, first, seed=77))
    got = state.settings(np.array([1]), np.array([2]))
    assert [value.item() for value in vars(got).values()] == [0.5, 3, 0.5, 0.25, 0.75, 77, 2]
    state.remove(1)
    state.insert(1, RequestInit(10, (1, 2), 2, SamplingParams(temperature=0), seed=78))
    got = state.settings(np.array([1]), np.array([2]))
    assert [value.item() for value in vars(got).values()] == [0, 0, 1, 0, 1, 78, 2]
    assert not state.logprobs


@given(prompt=st.lists(TOKEN, max_size=200), generated=st.lists(st.integers(0, 500), max_size=300))
@settings(max_examples=50, deadline=None)
def test_counts_grow_with_every_token(prompt, generated):
    counts = TokenCounts(prompt, generated)
    assert dict(zip(counts.tokens.tolist(), counts.counts.tolist(), strict=True)) == {
        **dict.fromkeys(prompt, 0),
        **Counter(generated),
    }


def test_guided_rows_without_a_grammar_compiler_are_refused():
    params = SamplingParams(structured_outputs=StructuredOutputsParams(json={}))
    with pytest.raises(ValueError, match="without guided decoding"):
        SamplingState(1).insert(0, RequestInit(0, (1,), 1, params, seed=0))
