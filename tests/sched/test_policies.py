"""Who goes first: order, ageing, and the proof by example that nobody starves."""

from __future__ import annotations

import pytest
from random_traces import make_request
from simulator import Device

from minillm_serve.kv.manager import KVManager
from minillm_serve.request import Request
from minillm_serve.sched.policy import FCFS, POLICIES, Priority
from minillm_serve.sched.scheduler import Scheduler

SEATS, TOKENS = 2, 6


def served(scheduler: Scheduler, arrivals: dict[int, list[Request]], until: int) -> list[int]:
    """Request ids in the order of their first step; arrivals: step -> requests."""
    device, order = Device(4, vocab=64), []
    for step in range(until):
        for request in arrivals.get(step, ()):
            device.salts[request.rid] = ()
            scheduler.add(request)
        plan = scheduler.schedule()
        order += [init.rid for init in plan.new_requests if init.rid not in order]
        scheduler.update(plan, device.execute(plan))
        scheduler.check()
    return order


def scheduler_with(policy: FCFS | Priority, num_blocks: int = 64, seats: int = 1) -> Scheduler:
    return Scheduler(KVManager(num_blocks, 4), seats, 64, policy)


def test_priority_is_served_lowest_number_first_and_ties_by_arrival():
    requests = [make_request(i, [i], 1, priority=p) for i, p in enumerate([2, 0, 1, 0, -1])]
    assert served(scheduler_with(Priority()), {0: requests}, 8) == [4, 1, 3, 2, 0]
    requests = [make_request(i, [i], 1, priority=p) for i, p in enumerate([2, 0, 1, 0, -1])]
    assert served(scheduler_with(FCFS()), {0: requests}, 8) == [0, 1, 2, 3, 4]


def test_the_least_urgent_request_gives_way_whatever_came_first():
    requests = [make_request(i, [i] * 4, 12, True, priority=p) for i, p in enumerate([5, 0, 0])]
    scheduler = scheduler_with(Priority(), num_blocks=9, seats=3)
    served(scheduler, {0: requests[:1], 1: requests[1:]}, 60)
    assert [request.metrics.num_preemptions > 0 for request in requests] == [True, False, False]
    assert all(request.finished for request in requests)


def test_a_preempted_request_keeps_its_age():
    old, new = make_request(0, [1] * 4, 12, True), make_request(1, [2] * 4, 12, True)
    urgent = make_request(2, [3] * 4, 12, True, priority=-1)
    scheduler = scheduler_with(Priority(ageing_steps=50), num_blocks=5, seats=3)
    served(scheduler, {0: [old], 1: [urgent], 2: [new]}, 80)
    assert old.metrics.num_preemptions > 0
    assert urgent.metrics.finished < old.metrics.finished < new.metrics.finished


def hostile_stream(steps: int, first_rid: int = 1) -> dict[int, list[Request]]:
    """An urgent request each step, twice what the engine can serve: the queue of urgent ones only grows."""
    return {s: [make_request(first_rid + s, [1, 2], TOKENS, True, priority=0)] for s in range(steps)}


@pytest.mark.parametrize("ageing", [1, 7, 20])
@pytest.mark.parametrize("priority", [1, 3])
def test_nobody_starves_under_a_hostile_stream_of_urgent_requests(ageing, priority):
    """The bound of ``Priority``: who comes more than ageing * (p - q) steps later stays behind."""
    steps = 600
    poor = make_request(0, [7, 8], 2, True, priority=priority)
    arrivals = hostile_stream(steps)
    arrivals[5] = [poor, *arrivals[5]]
    scheduler = scheduler_with(Priority(ageing), seats=SEATS)
    order = served(scheduler, arrivals, steps)

    overtakers = [rid - 1 for rid in order[: order.index(0)]]  # a request of the stream came at step rid - 1
    assert max(overtakers) <= 5 + ageing * priority, "overtaken by somebody who came too late"
    window, longest = ageing * priority, 2 + TOKENS
    ahead = len([s for s in arrivals if s <= 5 + window])
    assert poor.metrics.waiting_steps <= window + (ahead + 1) * (SEATS + 1) * longest
    assert poor.finished
    assert len(scheduler.waiting) > 100, "the stream was not hostile: the engine kept up with it"


def test_without_ageing_the_same_request_would_starve():
    """The test above shows something: strict priorities leave the request waiting for as long as the stream lasts."""

    class Strict:
        def rank(self, request: Request) -> int:
            return request.priority

    poor = make_request(0, [7, 8], 2, True, priority=1)
    arrivals = hostile_stream(600)
    arrivals[5] = [poor, *arrivals[5]]
    assert 0 not in served(scheduler_with(Strict(), seats=SEATS), arrivals, 600)
    assert poor.num_generated == 0


def test_waiting_is_counted_in_steps_not_in_time():
    requests = [make_request(i, [i], 3, True) for i in range(3)]
    served(scheduler_with(FCFS()), {0: requests}, 12)
    assert [request.metrics.waiting_steps for request in requests] == [0, 3, 6]


def test_policies_go_by_their_configuration_names():
    assert {"fcfs": FCFS, "priority": Priority} == POLICIES
    with pytest.raises(ValueError, match="starve"):
        Priority(ageing_steps=0)
