"""Speculation leaves the distribution of the text as it is, and rules that are wrong in one thing do not.

The model is a table: logits of the next token given the last one. So the joint distribution of a text's first tokens is
known exactly, and counts over many seeds are held against it by a chi-squared test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
import torch
from asked import asked
from chi_squared import chi_squared
from numpy.typing import NDArray
from torch import Tensor

from minillm_serve.sample.edits import LogitEdits, Penalties
from minillm_serve.sample.rejection import probabilities, standard, uniforms, verify
from minillm_serve.sample.sampler import SampleSettings, sample

VOCAB, START, LENGTH = 8, 0, 3
DRAWS, FEW = 100_000, 20_000  # a rule that is right is held to many draws, one that is wrong fails with few
RIGHT, WRONG = 0.01, 1e-4
FIRST = 17  # the position of a text's first drawn token
ROWS_AT_ONCE = 4096  # their noise stays in the processor's cache

TARGET = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(1)) * 1.2
DRAFT = TARGET + torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(2))
LIKELIEST = DRAFT.argmax(-1)  # what a proposer that draws nothing says after each token


def law(table: NDArray[np.floating]) -> NDArray[np.floating]:
    """table: [vocab, vocab], the next token given the last -> joint probabilities of LENGTH tokens after START."""
    joint = table[START]
    for _ in range(LENGTH - 1):
        joint = joint[..., None] * table
    return joint


def counted(texts: NDArray[np.int64]) -> NDArray[np.integer]:
    """texts: [N, LENGTH] -> how often each occurs, [vocab ** LENGTH]."""
    cells = texts @ VOCAB ** np.arange(LENGTH)[::-1]
    return np.bincount(cells, minlength=VOCAB**LENGTH)


def p_value(texts: NDArray[np.int64], table: NDArray[np.floating]) -> float:
    return chi_squared(counted(texts), law(table)).p


def draw(table: Tensor, last: Tensor, seeds: Tensor, positions: Tensor | int) -> Tensor:
    """The sampler's next token of each text: last, seeds [N]; positions [N], or one for all."""
    columns = last, seeds, torch.as_tensor(positions).expand(len(last))
    parts = zip(*(column.split(ROWS_AT_ONCE) for column in columns), strict=True)
    return torch.cat([sample(table[some], asked(own, at)) for some, own, at in parts])


# ---- The engine's default: the target's own token at every draft


def drafted(last: Tensor, seeds: Tensor, position: int, coupled: bool) -> Tensor:
    """The next draft of each text: drawn with the noise that the target will use, or the same after the same token."""
    return draw(DRAFT, last, seeds, position) if coupled else LIKELIEST[last]


def follow_matches(count: int, k: int, coupled: bool, wrong: str = "") -> NDArray[np.int64]:
    """Texts [count, LENGTH], each written in as many steps of k drafts as it takes. wrong: what the rule gets wrong."""
    texts = torch.full((count, 1 + LENGTH + k), START)
    written = torch.zeros(count, dtype=torch.int64)
    for at in range(LENGTH):  # texts of one length go together: a text skips the lengths that its drafts jump over
        rows = torch.nonzero(written == at).flatten()
        if not len(rows):
            continue
        last, drafts = texts[rows, at], []
        for index in range(k):
            drafts.append(drafted(drafts[-1] if drafts else last, rows, FIRST + at + index, coupled))
        drafts = torch.stack(drafts, 1)
        noise = torch.arange(k + 1)
        if wrong == "the bonus is drawn with the last draft's noise":
            noise[k] = k - 1
        before = torch.cat([last[:, None], drafts], 1)
        positions = (FIRST + at + noise).expand_as(before).flatten()
        own = draw(TARGET, before.flatten(), rows.repeat_interleave(k + 1), positions).view(-1, k + 1)
        equal = drafts == (own[:, 1:] if wrong == "draft i is held against row i + 1" else own[:, :-1])
        accepted = (equal | (wrong == "every draft stands")).long().cumprod(1).sum(1)
        step = torch.where(torch.arange(k + 1) < accepted[:, None], torch.cat([drafts, drafts[:, :1]], 1), own)
        texts[rows, at + 1 : at + k + 2] = step
        written[rows] += accepted + 1
    return texts[:, 1 : 1 + LENGTH].numpy()


def plainly(count: int) -> NDArray[np.int64]:
    texts = [torch.full((count,), START)]
    for at in range(LENGTH):
        texts.append(draw(TARGET, texts[-1], torch.arange(count), FIRST + at))
    return torch.stack(texts[1:], 1).numpy()


@pytest.mark.parametrize(("k", "coupled"), [(3, False), (2, True)], ids=["deterministic drafts", "coupled drafts"])
def test_matching_the_targets_own_token_changes_neither_law_nor_text(k, coupled):
    texts = follow_matches(DRAWS, k, coupled)
    assert p_value(texts, TARGET.double().softmax(-1).numpy()) > RIGHT
    assert np.array_equal(texts[:FEW], plainly(FEW))


@pytest.mark.parametrize("coupled", [False, True], ids=["deterministic drafts", "coupled drafts"])
@pytest.mark.parametrize(
    "wrong",
    [
        "every draft stands",
        "draft i is held against row i + 1",
        "the bonus is drawn with the last draft's noise",
    ],
)
def test_a_wrong_match_bends_the_law(wrong, coupled):
    assert p_value(follow_matches(FEW, 2, coupled, wrong), TARGET.double().softmax(-1).numpy()) < WRONG


# ---- Rejection sampling, over the target that temperature, cuts and edits make of the table

Rule = Callable[..., Sequence[int]]
CUT = {"temperature": 0.8, "top_k": 6, "top_p": 0.93}
OTHER_CUT = {"temperature": 1.4, "min_p": 0.02, "typical_p": 0.97}


def edited() -> Tensor:
    """The target's logits after a ban, a bias, and penalties on the last token, which each row has seen once."""
    logits, every = TARGET.clone(), torch.arange(VOCAB)
    LogitEdits(
        bias=(every, (every + 2) % VOCAB, torch.full((VOCAB,), 0.7)),
        forbidden=(every, (every + 5) % VOCAB),
        penalties=Penalties(every, every, *(torch.full((VOCAB,), value) for value in (1.0, 1.3, 0.4, 0.2))),
    ).apply(logits)
    return logits


@cache
def tables(cuts: str) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The target's and the draft model's next-token probabilities."""
    target, draft = {
        "plain": (probabilities(TARGET, asked(torch.arange(VOCAB))), {"temperature": 1.0}),
        "edits, top-k, top-p": (probabilities(edited(), asked(torch.arange(VOCAB), **CUT)), {"temperature": 0.8}),
        "min-p, typical-p": (probabilities(edited(), asked(torch.arange(VOCAB), **OTHER_CUT)), OTHER_CUT),
    }[cuts]
    return target.numpy(), probabilities(DRAFT, asked(torch.arange(VOCAB), **draft)).numpy()


def inverse(table: NDArray[np.floating], uniform: NDArray[np.floating]) -> NDArray[np.int64]:
    """A draw from each row: table [N, vocab], uniform [N]."""
    return (table.cumsum(-1) <= (uniform * table.sum(-1))[:, None]).sum(-1)


def follow_rejections(count: int, cuts: str, rule: Rule, wrong: str = "", drawn: bool = True) -> NDArray[np.int64]:
    """Texts [count, LENGTH]: one step of two drafts, then steps without drafts. drawn: the drafts are samples."""
    p, q = tables(cuts)
    seeds, positions = torch.arange(count).repeat_interleave(LENGTH), torch.arange(LENGTH).repeat(count) + FIRST
    noise = uniforms(seeds, positions).reshape(count, LENGTH, 2)
    made_of = np.random.default_rng(3).random((count, 2))
    drafts = np.empty((count, 2), np.int64)
    last = np.full(count, START)
    for index in range(2):
        last = drafts[:, index] = inverse(q[last], made_of[:, index]) if drawn else LIKELIEST.numpy()[last]
    used = noise.copy()
    if wrong == "the bonus is drawn with the last draft's noise":
        used[:, 2, 1] = made_of[:, 1]
    elif wrong == "the residual is drawn with its draft's noise":
        used[:, :2, 1] = made_of
    elif wrong == "the last token's noise is that of the last position":
        used[:, :, 1] = noise[:, 2:, 1]
    before = np.column_stack([np.full(count, START), drafts])
    target, share = p[before], q[before[:, :2]]
    texts, written = np.zeros((count, LENGTH), np.int64), np.empty(count, np.int64)
    for row, pair in enumerate(drafts.tolist()):
        text = rule(pair, share[row] if drawn else None, target[row], used[row])
        texts[row, : len(text)], written[row] = text, len(text)
    for at in range(1, LENGTH):
        rows = np.flatnonzero(written <= at)
        texts[rows, at] = inverse(p[texts[rows, at - 1]], noise[rows, at, 1])
    return texts


def naive(
    drafts: Sequence[int],
    q: NDArray[np.floating] | None,
    p: NDArray[np.floating],
    noise: NDArray[np.floating],
    wrong: str = "",
) -> list[int]:
    """Rejection sampling as the papers state it, with one thing wrong in it, or none."""
    tokens = []
    if q is None:
        q = np.eye(p.shape[1])[list(drafts)]
    for index, draft in enumerate(drafts):
        held = p[index + 1] if wrong == "draft i is held against row i + 1" else p[index]
        chance = held[draft] / (1.0 if wrong == "a draft stands if u < p" else q[index, draft])
        if wrong != "every draft stands" and noise[index, 0] >= chance:
            left = held if wrong == "the residual is the target" else np.maximum(held - q[index], 0)
            return [*tokens, int(inverse(left[None], noise[index, 1:])[0])]
        tokens.append(draft)
    return [*tokens, int(inverse(p[-1:], noise[-1, 1:])[0])]


@pytest.mark.parametrize(
    ("cuts", "drawn"),
    [("edits, top-k, top-p", True), ("min-p, typical-p", False)],
    ids=["drawn drafts", "deterministic drafts"],
)
def test_rejection_sampling_keeps_the_law(cuts, drawn):
    assert p_value(follow_rejections(DRAWS, cuts, verify, drawn=drawn), tables(cuts)[0]) > RIGHT


@pytest.mark.parametrize("cuts", ["plain", "edits, top-k, top-p"])
@pytest.mark.parametrize(
    "wrong",
    [
        "every draft stands",
        "a draft stands if u < p",
        "the residual is the target",
        "draft i is held against row i + 1",
        "the bonus is drawn with the last draft's noise",
        "the residual is drawn with its draft's noise",
        "the last token's noise is that of the last position",
    ],
)
def test_a_wrong_rejection_bends_the_law(wrong, cuts):
    def rule(*arguments):
        return naive(*arguments, wrong)

    assert p_value(follow_rejections(FEW, cuts, rule, wrong), tables(cuts)[0]) < WRONG


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("cuts", ["plain", "edits, top-k, top-p", "min-p, typical-p"])
def test_verify_is_the_naive_rule_with_nothing_wrong_in_it(cuts, drawn):
    texts = follow_rejections(2000, cuts, verify, drawn=drawn)
    assert np.array_equal(texts, follow_rejections(2000, cuts, naive, drawn=drawn))


def test_a_batch_settled_by_rejection_keeps_the_law_beside_the_engines_noise():
    """Drafts drawn with the noise that the sampler uses at the same positions, texts completed by the sampler: the
    numbers that accept and replace have nothing to do with it."""
    count, k = DRAWS // 2, 2  # three tokens each
    seeds = torch.arange(count)
    last, drafts = torch.full((count,), START), []
    for index in range(k):
        drafts.append(draw(DRAFT, drafts[-1] if drafts else last, seeds, FIRST + index))
    before = torch.stack([last, *drafts], 1)
    settings = asked(seeds.repeat_interleave(k + 1), torch.arange(FIRST, FIRST + k + 1).repeat(count))
    logits = TARGET[before.flatten()]
    q = tables("plain")[1][before[:, :k].numpy()]
    spans = [slice(start, start + k + 1) for start in range(0, len(logits), k + 1)]
    sampled = draw(TARGET, before.flatten(), settings.seeds, settings.positions)
    texts = standard(sampled, logits, settings, spans, before[:, 1:].tolist(), list(q)).view(-1, k + 1)
    accepted = (texts[:, :k] == before[:, 1:]).long().cumprod(1).sum(1)
    for at in (1, 2):
        rows = torch.nonzero(accepted < at).flatten()
        texts[rows, at] = draw(TARGET, texts[rows, at - 1], rows, FIRST + at)
    assert p_value(texts.numpy(), tables("plain")[0]) > RIGHT


# ---- The sampler, and the test itself


def test_probabilities_are_what_the_sampler_draws_from():
    """Five settings in turn, each a fifth of the draws."""
    settings = [{"temperature": 0.6}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {**CUT, "typical_p": 0.9}]
    each = [asked(torch.arange(len(settings)), FIRST, **one) for one in settings]
    fields = {name: torch.stack([getattr(one, name)[0] for one in each]) for name in vars(each[0])}
    count, logits = DRAWS // len(settings), edited()[3]
    p = probabilities(logits.expand(len(settings), -1), SampleSettings(**fields)).numpy()
    rows = {name: values.repeat(count) for name, values in fields.items()} | {"seeds": torch.arange(DRAWS)}
    ids = sample(logits.expand(DRAWS, -1), SampleSettings(**rows)).view(count, -1).numpy()
    for column, row in enumerate(p):
        assert chi_squared(np.bincount(ids[:, column], minlength=VOCAB), row).p > RIGHT


def test_the_p_value_is_that_of_the_tables():
    """7 degrees of freedom: 14.067 is the 5 % point, 24.322 the 0.1 % point."""
    for statistic, p in ((14.067, 0.05), (24.322, 0.001)):
        shift = (statistic * 1000 / 2) ** 0.5
        found = chi_squared(np.array([1000 + shift, 1000 - shift, *[1000.0] * 6]), np.full(8, 0.125))
        assert (found.degrees, found.statistic) == (7, pytest.approx(statistic))
        assert found.p == pytest.approx(p, rel=1e-3)


def test_small_cells_are_pooled_and_an_impossible_count_refutes():
    probabilities = np.array([0.5, 0.0, 0.46, 0.03, 0.01])
    pooled = chi_squared(np.array([50, 0, 46, 2, 2]), probabilities)
    assert (pooled.degrees, pooled.statistic, pooled.p) == (1, pytest.approx(0.0), pytest.approx(1.0))
    assert chi_squared(np.array([50, 1, 45, 2, 2]), probabilities).p == 0
