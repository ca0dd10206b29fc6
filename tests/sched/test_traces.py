"""Random traces with every invariant checked at every step; and the checker itself: it finds the bugs put in.

More of them: ``python tests/sched/run_traces.py 10000``, or ``MINILLM_TRACES=10000 pytest tests/sched``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest
from random_traces import play, random_case

from minillm_serve.kv.block_pool import BlockPool
from minillm_serve.kv.manager import KVManager
from minillm_serve.kv.prefix_cache import HashChain, PrefixCache, block_key
from minillm_serve.sched.scheduler import Scheduler

TRACES = int(os.environ.get("MINILLM_TRACES", "1500"))
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_random_traces_keep_every_invariant(part):
    """Outputs equal those of a request alone; memory, queues, budget and batches are as they must be at every step."""
    totals: Counter[str] = Counter()
    for seed in range(part, TRACES, PARTS):
        try:
            totals += play(random_case(seed))
        except AssertionError as error:
            raise AssertionError(f"trace {seed}: {error}") from error
    for kind in (
        "preemptions",
        "hit tokens",
        "failed steps",
        "aborted",
        "jumped tokens",
        "accepted drafts",
        "rejected drafts",
    ):
        assert totals[kind] > 0, f"the traces hold no {kind}: they test less than they claim"


def unsalted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The salt is left out of the key."""
    original = HashChain.__init__
    monkeypatch.setattr(HashChain, "__init__", lambda self, salt, *rest: original(self, (), *rest))


def unchained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is named by its own tokens alone."""
    original = HashChain.__init__

    def begin(self: HashChain, salt: tuple[str, ...], size: int, name: object) -> None:
        original(self, salt, size, lambda parent, tokens: block_key(b"", tokens))

    monkeypatch.setattr(HashChain, "__init__", begin)


def whole_prompt_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hit may cover the last token too."""
    original = KVManager._longest_prefix
    monkeypatch.setattr(KVManager, "_longest_prefix", lambda self, chain, ids: original(self, chain, [*ids, 0]))


def published_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is published when its last token is still missing."""
    original = KVManager.publish

    def publish(self: KVManager, rid: int, ids: list[int], count: int) -> None:
        original(self, rid, [*ids, 0], count + 1 if (count + 1) // self.block_size <= len(self.table(rid)) else count)

    monkeypatch.setattr(KVManager, "publish", publish)


def failed_step_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failed step had published stays in the cache."""
    monkeypatch.setattr(KVManager, "withdraw_promised", KVManager.written)


def failed_step_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests of a failed step go on as if it had worked."""

    def recover(self: Scheduler) -> None:
        self.kv.withdraw_promised()
        self._in_flight.clear()

    monkeypatch.setattr(Scheduler, "_recover", recover)


def reset_forgets_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that run across a reset go on publishing what they computed before it."""

    def reset(self: KVManager) -> None:
        self.pool.free(self.cache.clear())
        for step in self._promised:
            step.clear()

    monkeypatch.setattr(KVManager, "reset_prefix_cache", reset)


def shared_without_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hit takes no references."""
    monkeypatch.setattr(BlockPool, "share", lambda self, blocks: None)


def idle_while_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that is found stays on the list of those to evict."""
    monkeypatch.setattr(PrefixCache, "claim", lambda self, blocks: None)


def evicted_but_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evicted block keeps its key."""

    def evict(self: PrefixCache, count: int) -> list[int]:
        return [self._idle.popitem(last=False)[0] for _ in range(count)]

    monkeypatch.setattr(PrefixCache, "evict", evict)


def leaking_preemption(monkeypatch: pytest.MonkeyPatch) -> None:
    """An aborted or preempted request leaves its last block behind."""
    original = KVManager.free

    def free(self: KVManager, rid: int) -> None:
        if len(self._tables.get(rid, ())) > 1:
            self._tables[rid].pop()
        original(self, rid)

    monkeypatch.setattr(KVManager, "free", free)


def oldest_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The running request of lowest rank gives way."""
    original = Scheduler._preempt_last

    def preempt(self: Scheduler) -> int:
        self.running.append(self.running.pop(0))
        return original(self)

    monkeypatch.setattr(Scheduler, "_preempt_last", preempt)


BUGS = [
    unsalted,
    unchained,
    whole_prompt_hit,
    published_early,
    failed_step_kept,
    failed_step_ignored,
    reset_forgets_running,
    shared_without_reference,
    idle_while_in_use,
    evicted_but_known,
    leaking_preemption,
    oldest_gives_way,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_traces_find_a_bug_that_is_put_in(bug: Callable[[pytest.MonkeyPatch], None], monkeypatch):
    bug(monkeypatch)
    for seed in range(1000):
        try:
            play(random_case(seed))
        except (AssertionError, ValueError, KeyError, IndexError):
            return
    pytest.fail(f"1000 traces did not notice: {bug.__doc__}")
