"""Our histogram of many equal observations is prometheus_client's, faster."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from minillm_serve.serve.observe import buckets
from minillm_serve.serve.observe.distribution import Distribution

BOUNDS = (0.25, 0.5, 1, 2.5)
observations = st.lists(
    st.tuples(st.sampled_from((0, 0.25, 0.3, 0.5, 1, 1.0000001, 2.5, 3, 1e9)) | st.floats(0, 5), st.integers(1, 60))
)


def page(registry: CollectorRegistry) -> dict[str, float]:
    """Series and value; a sum of fractions depends on the order of adding in its last digits."""
    lines = generate_latest(registry).decode().splitlines()
    series = [line.rsplit(" ", 1) for line in lines if not line.startswith("#") and "_created" not in line]
    return {name: float(f"{float(value):.6g}") for name, value in series}


@given(observations)
def test_it_says_what_the_librarys_says(observed: list[tuple[float, int]]):
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("seconds", "What.", ("model",), buckets=BOUNDS, registry=theirs).labels("m")
    distribution = Distribution("seconds", "What.", BOUNDS, ("model",), ("m",))
    ours.register(distribution)
    for value, times in observed:
        distribution.observe(value, times)
        for _ in range(times):
            histogram.observe(value)
    assert page(ours) == page(theirs)


def test_a_reader_never_sees_half_an_observation():
    registry, distribution = CollectorRegistry(), Distribution("d", "What.", BOUNDS, ("model",), ("m",))
    registry.register(distribution)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            distribution.observe(1, 3)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            counts, total = distribution.snapshot()
            assert sum(counts) == total and sum(counts) % 3 == 0
    finally:
        stop.set()
        writer.join()


def test_every_bucket_of_vllms_is_there_and_finer_ones_only_below():
    vllm_requests = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
    vllm_tokens = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
    for ours, theirs in ((buckets.REQUEST_SECONDS, vllm_requests), (buckets.TOKEN_SECONDS, vllm_tokens)):
        assert tuple(bound for bound in ours if bound >= theirs[0]) == theirs
        assert list(ours) == sorted(ours) and ours[0] < theirs[0]
    assert buckets.STEP_TOKENS == (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
    assert buckets.TOKEN_COUNTS[:5] == (1, 2, 5, 10, 20)
