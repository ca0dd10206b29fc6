"""Fairness figures mean what their names say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_traces import make_request

from minillm_serve.request import Request, RequestMetrics
from minillm_serve.sched.fairness import Fairness, Service, fairness, jain_index

rates = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=20)


@given(rates, st.floats(0.01, 100))
def test_jains_index_is_between_one_nth_and_one_and_knows_no_units(values, scale):
    index = jain_index(values)
    assert 1 / len(values) - 1e-9 <= index <= 1 + 1e-9
    assert index == pytest.approx(jain_index([scale * value for value in values]))


@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 1), (10, 3)])
def test_k_of_n_sharing_everything_is_k_over_n(n, k):
    assert jain_index([5.0] * k + [0.0] * (n - k)) == pytest.approx(k / n)


def test_no_rates_and_zero_rates_are_even():
    assert jain_index([]) == jain_index([0.0, 0.0]) == 1.0


def ended(rid: int, tokens: int, waited: float, took: float, **fields: object) -> Request:
    request = make_request(rid, [1], max(1, tokens), **fields)
    request.token_ids += [2] * tokens
    request.metrics = RequestMetrics(arrival=100.0, finished=100.0 + took, waiting_s=waited, waiting_steps=int(waited))
    return request


def test_slowdown_is_response_over_service():
    assert Service.of(ended(0, 4, waited=3.0, took=4.0).metrics, 4).slowdown == pytest.approx(4.0)
    assert Service.of(ended(0, 4, waited=0.0, took=4.0).metrics, 4).slowdown == 1.0
    assert Service.of(ended(0, 0, waited=4.0, took=4.0).metrics, 0).slowdown == float("inf")


def test_the_report_tells_classes_apart():
    requests = [
        ended(0, 10, waited=0, took=1, priority=0),
        ended(1, 10, waited=0, took=1, priority=0),
        ended(2, 10, waited=9, took=10, priority=5),
    ]
    report = fairness(requests)
    assert report.overall.requests == 3 and report.overall.tokens == 30
    assert report.overall.max_waiting_steps == 9 and report.overall.max_slowdown == pytest.approx(10)
    assert report.classes[0].jain_index == pytest.approx(1.0) == report.classes[5].jain_index
    assert report.overall.jain_index == pytest.approx(21**2 / (3 * 201))
    assert report.between_classes == pytest.approx(11**2 / (2 * 101))
    assert fairness(requests, by=lambda request: request.rid).classes.keys() == {0, 1, 2}


def test_a_request_still_under_way_and_an_empty_report_are_refused():
    with pytest.raises(ValueError, match="ended"):
        fairness([make_request(0, [1], 4)])
    with pytest.raises(ValueError, match="at least one"):
        Fairness.of([])
