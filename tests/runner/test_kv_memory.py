"""The size of the KV pool: what was asked for, else a share of the free memory, never more than could be used."""

from __future__ import annotations

import pytest

from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.runner import memory


def blocks(bytes_per_token: int = 100, max_model_len: int = 1000, **settings: int | None) -> int:
    return memory.num_kv_blocks(
        EngineConfig(model="m", **settings), bytes_per_token, max_model_len, memory.spare_host_bytes
    )


def test_a_number_of_blocks_is_taken_as_it_is():
    assert blocks(num_kv_blocks=7, kv_cache_memory_bytes=10) == 7


def test_an_amount_of_memory_holds_whole_blocks_only():
    assert blocks(kv_cache_memory_bytes=16 * 100 * 5 + 1599) == 5


def test_free_memory_is_shared_with_the_rest_of_the_machine(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 16 * 100 * 50)
    assert blocks() == int(50 * memory.FREE_MEMORY_SHARE)


def test_no_more_than_all_sequences_at_full_length_could_use(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 50)
    assert blocks(max_model_len=33, max_num_seqs=4) == 4 * 3


@pytest.mark.parametrize("settings", [{"kv_cache_memory_bytes": 1599}, {}])
def test_memory_for_not_even_one_block_is_refused(monkeypatch, settings):
    monkeypatch.setattr(memory, "available_bytes", lambda: 3000)
    with pytest.raises(ConfigError, match="cannot hold one KV block of 1600 bytes"):
        blocks(**settings)


def test_this_machine_tells_a_plausible_amount():
    assert 1 << 20 < memory.available_bytes() < 1 << 50


def test_a_control_group_limit_counts(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available_bytes() == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() > 3000
