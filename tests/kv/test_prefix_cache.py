"""What is shared, with whom, for how long: the prefix cache by itself and through the KV manager."""

from __future__ import annotations

import pytest

from minillm_serve.config import ConfigError
from minillm_serve.kv.block_pool import BlockPool
from minillm_serve.kv.manager import KVManager
from minillm_serve.kv.prefix_cache import HashChain, salt_key

SIZE = 4
PROMPT = list(range(10, 23))  # 13 tokens: three full blocks and one token


def admit(kv: KVManager, rid: int, tokens: list[int], salt: tuple[str, ...] | None = ()) -> int:
    """Admit and compute a whole prompt; returns how many of its tokens were found."""
    kv.begin_step()
    hit = kv.lookup(rid, tokens, salt)
    assert kv.admit(rid, hit, len(tokens)) is not None
    kv.publish(rid, tokens, len(tokens))
    kv.written()
    kv.check()
    return len(hit) * kv.block_size


def test_a_key_names_all_tokens_before_it_and_the_salt():
    def keys(tokens: list[int], salt: tuple[str, ...] = ()) -> list[bytes]:
        chain = HashChain(salt, 2)
        return [chain.key(index, tokens) for index in range(len(tokens) // 2)]

    first = keys([1, 2, 3, 4])
    assert keys([1, 2, 3, 4, 5]) == first, "a key depends on nothing that comes later"
    assert keys([9, 2, 3, 4])[1] != first[1], "the same block after another prefix is another block"
    assert keys([3, 4])[0] != first[1] and keys([1, 2, 1, 2])[1] != first[0]
    assert not set(keys([1, 2, 3, 4], ("user",))) & set(first)
    assert keys([258])[:1] == [] and keys([1, 2]) != keys([1, 513]), "tokens keep their bounds"


def test_salts_are_told_apart_part_by_part():
    salts = [(), ("",), ("", ""), ("ab",), ("a", "b"), ("b", "a"), ("ab", ""), ("é",), ("\ud800",)]
    assert len({salt_key(salt) for salt in salts}) == len(salts)


def test_a_prefix_is_found_again_after_its_request_has_ended():
    kv = KVManager(16, SIZE)
    assert admit(kv, 0, PROMPT) == 0
    blocks = kv.table(0)
    kv.free(0)
    kv.check()
    assert (kv.num_free_blocks, kv.num_cached_blocks) == (16, 3), "idle blocks count as free"
    assert admit(kv, 1, PROMPT[:8] + [99] * 5) == 8
    assert kv.table(1)[:2] == blocks[:2]


@pytest.mark.parametrize(("length", "found"), [(13, 12), (12, 8), (5, 4), (4, 0), (1, 0)])
def test_the_last_token_is_always_computed(length, found):
    """Its logits are needed, and the cache holds none: a hit ends at most one token before the end."""
    kv = KVManager(16, SIZE)
    admit(kv, 0, PROMPT)
    assert admit(kv, 1, PROMPT[:length]) == found == kv.peek(PROMPT[:length])


def test_generated_blocks_are_cached_like_prompts():
    """The next turn of a chat begins with the whole last one."""
    kv = KVManager(16, SIZE)
    tokens = PROMPT[:5]
    admit(kv, 0, tokens)
    for token in (70, 71, 72, 73):
        tokens.append(token)
        kv.begin_step()
        kv.grow(0, len(tokens))
        kv.publish(0, tokens, len(tokens))
        kv.written()
    kv.free(0)
    assert admit(kv, 1, [*tokens, 80, 81]) == 8


def test_tenants_share_nothing_and_none_is_a_tenant_of_its_own():
    kv = KVManager(32, SIZE)
    admit(kv, 0, PROMPT, ("alice",))
    assert admit(kv, 1, PROMPT, ("bob",)) == 0
    assert admit(kv, 2, PROMPT, ("alice",)) == 12
    assert admit(kv, 3, PROMPT, None) == 0
    assert admit(kv, 4, PROMPT, None) == 0
    assert kv.peek(PROMPT, ("bob",)) == 12 and kv.peek(PROMPT, ("carol",)) == 0 == kv.peek(PROMPT, None)


def test_the_least_recently_used_prefix_goes_first_and_its_tail_before_its_head():
    kv = KVManager(6, SIZE)
    old, young = list(range(8)), list(range(50, 58))
    for rid, tokens in enumerate((old, young)):
        admit(kv, rid, tokens)
        kv.free(rid)
    assert (kv.peek([*old, 0]), kv.peek([*young, 0])) == (8, 8)
    admit(kv, 2, list(range(90, 93)) * 4)  # three blocks; two are free
    assert (kv.peek([*old, 0]), kv.peek([*young, 0])) == (4, 8), "the tail of the older prefix was taken"
    assert kv.stats.evictions == 1
    kv.free(2)
    admit(kv, 3, [*old[:4], 7])  # used again: now younger than the other
    kv.free(3)
    admit(kv, 4, list(range(200, 212)))
    assert (kv.peek([*old, 0]), kv.peek([*young, 0])) == (4, 0)
    kv.check()


def test_a_block_in_use_is_never_evicted_and_a_refused_admission_takes_nothing():
    kv = KVManager(4, SIZE)
    admit(kv, 0, PROMPT[:9])
    hit = kv.lookup(1, PROMPT, ())
    assert len(hit) == 2
    refs = [kv.pool.refs(block) for block in range(4)]
    assert kv.admit(1, hit, 20) is None, "needs three blocks beside the two shared ones; one is free"
    assert refs == [kv.pool.refs(block) for block in range(4)] and kv.table(1) == ()
    kv.free(0)
    hit = kv.lookup(1, PROMPT, ())
    assert kv.admit(1, hit, 20) is None, "the blocks of the hit are idle, but they are not room for more"
    assert len(kv.admit(1, hit, 13)) == 4
    kv.check()


def test_equal_blocks_written_twice_are_cached_once_and_tables_stay_as_they_are():
    kv = KVManager(16, SIZE)
    for rid in (0, 1):  # side by side, before either has published
        kv.admit(rid, kv.lookup(rid, PROMPT, ()), len(PROMPT))
    tables = kv.tables()
    kv.begin_step()
    for rid in (0, 1):
        kv.publish(rid, PROMPT, len(PROMPT))
    kv.written()
    kv.check()
    assert kv.tables() == tables and kv.num_cached_blocks == 3
    kv.free(0)
    kv.free(1)
    kv.check()
    assert kv.pool.num_free == 13


def test_a_step_that_failed_published_nothing():
    kv = KVManager(16, SIZE)
    admit(kv, 0, PROMPT[:8])
    kv.begin_step()
    kv.admit(1, kv.lookup(1, PROMPT, ()), 13)
    kv.publish(1, PROMPT, 13)
    assert kv.peek(PROMPT) == 12, "found by a sibling of the same step"
    kv.withdraw_promised()
    assert kv.peek(PROMPT) == 8, "what earlier steps wrote stays"
    kv.free(1)
    kv.check()


def test_after_a_reset_nothing_old_is_found_and_what_still_runs_publishes_nothing():
    kv = KVManager(16, SIZE)
    admit(kv, 0, PROMPT)
    admit(kv, 1, PROMPT)
    kv.reset_prefix_cache()
    kv.check()
    assert kv.peek(PROMPT) == 0
    kv.grow(0, 20)
    kv.publish(0, PROMPT + [5] * 7, 20)
    assert kv.num_cached_blocks == 0
    kv.free(0)
    kv.free(1)
    assert kv.pool.num_free == 16


def test_with_caching_off_only_requests_alive_together_share():
    kv = KVManager(16, SIZE, enable_prefix_caching=False)
    admit(kv, 0, PROMPT, ("group", "1"))
    assert admit(kv, 1, PROMPT, ("group", "1")) == 12
    kv.free(0)
    assert admit(kv, 2, PROMPT, ("group", "1")) == 12
    for rid in (1, 2):
        kv.free(rid)
        kv.check()
    assert kv.pool.num_free == 16 and kv.num_cached_blocks == 0


class FourMethods:
    """A pool as a student may write it first: no ``share``."""

    def __init__(self, num_blocks: int):
        self._pool = BlockPool(num_blocks)
        self.allocate, self.free, self.refs = self._pool.allocate, self._pool.free, self._pool.refs

    @property
    def num_free(self) -> int:
        return self._pool.num_free


def test_a_pool_that_cannot_share_serves_with_caching_off_and_is_refused_with_it_on():
    kv = KVManager(8, SIZE, FourMethods, enable_prefix_caching=False)
    assert admit(kv, 0, PROMPT, ("group", "1")) == admit(kv, 1, PROMPT, ("group", "1")) == 0
    with pytest.raises(ConfigError, match=r"share\(blocks\).*FourMethods.*enable_prefix_caching=False"):
        KVManager(8, SIZE, FourMethods)
