"""Which drafts stand, by a rule that draws its own random numbers: rejection sampling, and acceptance made to measure.

The engine's default needs neither: its sampler is a pure function of (logits, seed, position), so it draws the target's
own token at every draft and keeps the drafts up to the first that differs. Rejection sampling keeps the target's
distribution, not its tokens (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318).

Its random numbers hang on (seed, position) too, where position is that of the token which they decide, in whatever step
that happens. They are salted: neither the sampler's noise nor that of the drafts tells anything about them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_kernels.noise import streams
from minillm_serve.sample.blocks import BlockedLogits
from minillm_serve.sample.sampler import SampleSettings
from minillm_serve.sample.truncate import truncate

Floats = NDArray[np.floating]
Verify = Callable[[Sequence[int], Floats | None, Floats, Floats], Sequence[int]]

ACCEPT_SALT, DRAW_SALT = 0x5BD1E9955BD1E995, 0x2545F4914F6CDD1D
LOTS_AT_ONCE = 256
SPANS_AT_ONCE = 16  # a position's probabilities are as wide as the vocabulary
SUM_TOLERANCE = 1e-3  # probabilities may come from a softmax in fp32


def probabilities(logits: Tensor, settings: SampleSettings) -> Tensor:
    """What :func:`minillm_serve.sample.sampler.sample` draws from: [S, vocab] fp64, on the device of ``logits``.

    logits: [S, vocab] fp32, edits applied, -inf where a token is forbidden. At temperature 0 the argmax has it all.
    A drawn row whose every token is forbidden is all zeros; one with a NaN or +inf is all or in part NaN.
    """
    blocked = BlockedLogits.of(logits)
    result = torch.zeros(logits.shape, dtype=torch.float64, device=logits.device)
    result.scatter_(1, blocked.argmax().unsqueeze(1), 1.0)
    rows = torch.nonzero(settings.temperature > 0).flatten()
    if len(rows):
        drawn = settings[rows]
        limits = drawn.min_p, drawn.top_k, drawn.top_p, drawn.typical_p
        kept, cut = truncate(blocked[rows], drawn.temperature, *limits)
        values = kept.values.flatten(1)[:, : logits.shape[1]].double()
        scaled = (values - values.amax(-1, keepdim=True)) / drawn.temperature.unsqueeze(1)
        weights = scaled.exp().masked_fill_(torch.isneginf(values) | (values < cut.unsqueeze(1)), 0.0)
        result[rows] = weights / weights.sum(-1, keepdim=True).clamp(min=1)  # the likeliest one weighs 1
    return result


def uniforms(seeds: Tensor, positions: Tensor) -> Floats:
    """float64 [N, 2] in [0, 1), from seeds and positions [N] int64: one that accepts, one that draws."""
    bits = torch.stack([streams(seeds ^ salt, positions) for salt in (ACCEPT_SALT, DRAW_SALT)], -1)
    return ((bits >> 11) & ((1 << 53) - 1)).double().mul_(2.0**-53).numpy(force=True)


def verify(drafts: Sequence[int], draft_probs: Floats | None, target_probs: Floats, uniforms: Floats) -> list[int]:
    """The drafts that stand and one token more: the default of seam ``spec.verify``.

    drafts: k token ids, in the text's order. draft_probs: [k, vocab], what each was drawn from; None: they were not
    drawn (n-grams), all of their probability is on the draft itself. target_probs: [k + 1, vocab], the target's at each
    draft and after the last. uniforms: [k + 1, 2] in [0, 1); row i decides the i-th token, the first number of it
    whether the draft is accepted, the second which token comes where none is.

    Draft d stands with probability min(1, p(d) / q(d)). The first that does not is replaced by a draw from
    max(p - q, 0), normalised, which never is that draft; when all stand, a draw from the last row follows them.

    Raises ValueError for shapes that do not fit, a draft outside the vocabulary, and rows that are no probabilities.
    """
    _check(drafts, draft_probs, target_probs, uniforms)
    tokens: list[int] = []
    for draft, p, (accepts, draws) in zip(drafts, target_probs, uniforms, strict=False):
        likelihood = 1.0 if draft_probs is None else draft_probs[len(tokens), draft]
        if accepts * likelihood >= p[draft]:
            residual = _residual(p, draft, None if draft_probs is None else draft_probs[len(tokens)])
            if residual.any():
                return [*tokens, _draw(residual, draws)]
        tokens.append(int(draft))
    return [*tokens, _draw(target_probs[-1], uniforms[-1, 1])]


def standard(
    sampled: Tensor,
    logits: Tensor,
    settings: SampleSettings,
    spans: Sequence[slice],
    drafts: Sequence[Sequence[int]],
    draft_probs: Sequence[Floats | None],
    verify_fn: Verify = verify,
) -> Tensor:
    """``sampled`` [S] int64 as rejection sampling has it: in each span the drafts that stand, then one token.

    That token differs from the draft it replaces, so the number of drafts that stand is the number of leading tokens
    that equal them. What follows it, and rows in no span, stay the sampler's own.

    sampled: drawn from ``logits`` [S, vocab] under ``settings``, all on one device. spans: the k + 1 rows that verify
    each request's k drafts; drafts: k ids each; draft_probs: [k, vocab] each, or None; see :func:`verify`. Whether
    a draft is made may hang on the text and the drafts before it, never on the draft itself: to leave out the unlikely
    ones would bend the distribution.

    Raises ValueError where ``verify_fn`` refuses its arguments, or returns what is no prefix of the drafts and a token.
    """
    settled = sampled.numpy(force=True).copy()
    noise = uniforms(settings.seeds, settings.positions)
    every_row = torch.arange(len(sampled), device=logits.device)
    for start in range(0, len(spans), SPANS_AT_ONCE):
        some = range(start, min(start + SPANS_AT_ONCE, len(spans)))
        rows = torch.cat([every_row[spans[index]] for index in some])
        target = _target(logits[rows], settings[rows], sampled[rows], [spans[index] for index in some])
        for index, probs in zip(some, target, strict=True):
            span, own = spans[index], drafts[index]
            tokens = verify_fn(own, draft_probs[index], probs, noise[span])
            settled[span][: len(tokens)] = _checked(tokens, own, logits.shape[1])
    return torch.from_numpy(settled).to(sampled.device)


def synthetic(
    sampled: NDArray[np.int64],
    spans: Sequence[slice],
    drafts: Sequence[Sequence[int]],
    rates: Sequence[float],
    seeds: NDArray[np.int64],
    positions: NDArray[np.int64],
    vocab: int,
) -> NDArray[np.int64]:
    """``sampled`` [S] as if draft i stood with probability rates[i] once those before it do. For benchmarks alone: the
    texts mean nothing, and masks are not looked at.

    spans, drafts: as in :func:`standard`; rates: one for each draft that a request may have; seeds, positions: [S];
    vocab: at least 2. A draft that falls is replaced by the target's own token, or by the next id if that is the draft.

    Raises ValueError for more drafts than rates.
    """
    settled = sampled.copy()
    accepts = np.array(
        [_lot(seed, position) for seed, position in zip(seeds.tolist(), positions.tolist(), strict=True)]
    )
    for span, own in zip(spans, drafts, strict=True):
        if len(own) > len(rates):
            raise ValueError(f"{len(own)} drafts, but {len(rates)} synthetic acceptance rates; give one for each draft")
        tokens = settled[span]
        for index, draft in enumerate(own):
            if accepts[span][index] >= rates[index]:
                if tokens[index] == draft:
                    tokens[index] = (draft + 1) % vocab
                break
            tokens[index] = draft
    return settled


def _lot(seed: int, position: int) -> float:
    """The number that accepts there."""
    return _lots(seed, position // LOTS_AT_ONCE)[position % LOTS_AT_ONCE]


@lru_cache(maxsize=1024)
def _lots(seed: int, part: int) -> Floats:
    """Of a stretch of positions: a few numbers at a time would cost a step more than all the rest of its host work."""
    positions = torch.arange(part * LOTS_AT_ONCE, (part + 1) * LOTS_AT_ONCE)
    return uniforms(torch.full_like(positions, seed), positions)[:, 0]


def _residual(p: Floats, draft: int, q: Floats | None) -> Floats:
    """What the target has left once the draft model's share is gone: max(p - q, 0).

    All zeros only where p is q but for rounding: then the draft stands after all, unless p has none of it either.
    """
    if q is None:
        residual = p.copy()
        residual[draft] = 0
        return residual
    residual = np.maximum(p - q, 0)
    return residual if residual.any() or p[draft] > 0 else p


def _draw(weights: Floats, uniform: float) -> int:
    """Inverse of the cumulative sum; a token without weight never comes."""
    tokens = np.flatnonzero(weights)
    mass = weights[tokens].cumsum(dtype=np.float64)
    return int(tokens[min(np.searchsorted(mass, uniform * mass[-1], side="right"), len(tokens) - 1)])


def _target(logits: Tensor, settings: SampleSettings, sampled: Tensor, spans: Sequence[slice]) -> list[Floats]:
    """Each span's target probabilities. Where nothing may be drawn the sampler's token has it all: its row's request
    is given up for that token's logit of -inf."""
    probs = probabilities(logits, settings)
    hopeless = torch.nonzero(torch.isneginf(logits.amax(-1))).flatten()
    probs[hopeless] = 0.0
    probs[hopeless, sampled[hopeless]] = 1.0
    lengths = [span.stop - span.start for span in spans]
    return np.split(probs.numpy(force=True), np.cumsum(lengths)[:-1])


def _check(drafts: Sequence[int], draft_probs: Floats | None, target_probs: Floats, uniforms: Floats) -> None:
    count, vocab = len(drafts), target_probs.shape[-1]
    if target_probs.shape != (count + 1, vocab):
        raise ValueError(f"target_probs is {target_probs.shape}; {count} drafts need [{count + 1}, vocab]")
    if draft_probs is not None and draft_probs.shape != (count, vocab):
        raise ValueError(f"draft_probs is {draft_probs.shape}; expected [{count}, {vocab}], or None")
    if uniforms.shape != (count + 1, 2) or not all(0 <= uniform < 1 for uniform in uniforms.ravel().tolist()):
        raise ValueError(f"uniforms is {uniforms.shape}; expected [{count + 1}, 2] numbers in [0, 1)")
    if count and not (min(drafts) >= 0 and max(drafts) < vocab):
        raise ValueError(f"drafts {list(drafts)} are not all in a vocabulary of {vocab}")
    for name, probs in (("target_probs", target_probs), ("draft_probs", draft_probs)):
        if probs is not None and len(probs):
            sums = probs.sum(-1).tolist()
            if not (probs.min() >= 0 and all(abs(total - 1) <= SUM_TOLERANCE for total in sums)):  # NaN is neither
                raise ValueError(f"{name} has a NaN, a negative number or a row that does not sum to 1")


def _checked(tokens: Sequence[int], drafts: Sequence[int], vocab: int) -> Sequence[int]:
    accepted = len(tokens) - 1
    stands = accepted >= 0 and list(tokens[:accepted]) == list(drafts[:accepted])
    if not (stands and 0 <= tokens[accepted] < vocab):
        raise ValueError(
            f"verify returned {list(tokens)} for the drafts {list(drafts)}; expected the first n of them and one token "
            f"below {vocab}"
        )
    return tokens
