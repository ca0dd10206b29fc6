"""The one copy of a step: every field arrives, at one address for ever, and steps under way keep their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minillm_serve.runner.gpu.graphs import DecodeGraphs, batch_sizes
from minillm_serve.runner.gpu.packed import ALIGNMENT, RING, PackedBuffer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FIELDS = {"rows": (np.int32, 5), "seeds": (np.int64, 3), "temperature": (np.float32, 7), "count": (np.int32, 1)}


def test_what_is_written_on_the_host_arrives_at_the_same_address_in_every_step() -> None:
    buffer = PackedBuffer(FIELDS, DEVICE)
    addresses = {name: field.data_ptr() for name, field in buffer.device.items()}
    for step in range(2 * RING):
        host = buffer.begin()
        for name, array in host.items():
            array[:] = np.arange(len(array)) + 100 * step + len(name)
        buffer.upload()
        for name, field in buffer.device.items():
            assert field.tolist() == (np.arange(len(field)) + 100 * step + len(name)).tolist(), name
    assert {name: field.data_ptr() for name, field in buffer.device.items()} == addresses
    assert all(address % ALIGNMENT == 0 for address in addresses.values())


def test_a_step_being_filled_does_not_touch_those_under_way() -> None:
    buffer = PackedBuffer(FIELDS, DEVICE)
    under_way = buffer.begin()
    under_way["rows"][:] = 1
    for _ in range(RING - 1):
        buffer.begin()["rows"][:] = 2
    assert under_way["rows"].tolist() == [1] * 5


@pytest.mark.parametrize("most", [1, 2, 3, 8, 100, 128, 256, 1000])
def test_every_number_of_sequences_has_a_graph_that_holds_it_and_is_not_much_larger(most: int) -> None:
    sizes = batch_sizes(most)
    graphs = DecodeGraphs(step=None, sizes=sizes, eager=True)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == most
    for count in range(1, most + 1):
        assert count <= graphs.size_for(count) <= max(8, 2 * count)
