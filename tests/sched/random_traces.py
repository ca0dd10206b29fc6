"""Random workloads on random engines, played step by step with every invariant checked at every step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from simulator import EOS, Device, DeviceError

from minillm_serve.kv.manager import KVManager
from minillm_serve.params import SamplingParams
from minillm_serve.plan import StepPlan, StepResult
from minillm_serve.request import FinishReason, Request
from minillm_serve.sched.policy import FCFS, Priority
from minillm_serve.sched.scheduler import Scheduler

MAX_STEPS = 5_000


def make_request(rid: int, prompt: list[int], max_tokens: int, ignore_eos: bool = False, **fields: object) -> Request:
    return Request(
        rid=rid,
        token_ids=list(prompt),
        num_prompt_tokens=len(prompt),
        params=SamplingParams(max_tokens=max_tokens, ignore_eos=ignore_eos),
        max_total_tokens=len(prompt) + max_tokens,
        eos_token_ids=frozenset([EOS]),
        **({"seed": 0} | fields),
    )


@dataclass
class Case:
    """One trace: an engine, requests by arrival step, and what goes wrong on the way."""

    scheduler: Scheduler
    arrivals: dict[int, list[Request]]
    vocab: int
    aborts: dict[int, list[int]] = field(default_factory=dict)  # between steps: step -> request ids
    late_aborts: dict[int, list[int]] = field(default_factory=dict)  # while the step runs
    failures: dict[int, str] = field(default_factory=dict)  # step -> where the device fails
    abort_on_failure: bool = True
    jumps: bool = False
    drafts: bool = False
    ahead: frozenset[int] = frozenset()  # steps after which the next is planned before their tokens are booked
    resets: frozenset[int] = frozenset()

    @property
    def requests(self) -> list[Request]:
        return [request for group in self.arrivals.values() for request in group]


def random_case(seed: int) -> Case:
    """Everything that can collide does: few tokens, shared stems, tiny pools, small budgets."""
    random = Random(seed)
    block_size = random.choice([1, 2, 3, 4, 8])
    vocab = random.choice([2, 2, 3, 6])
    stems = [[random.randrange(vocab) for _ in range(random.randrange(1, 25))] for _ in range(random.randrange(1, 4))]
    salts: list[tuple[str, ...] | None] = random.choice(
        [[()], [()], [(), ("a",)], [(), None], [("a", "b"), ("ab",), None]]
    )
    arrivals: dict[int, list[Request]] = {}
    rid = 0
    for group in range(random.randrange(1, 9)):
        stem = random.choice(stems)
        tail = [random.randrange(vocab) for _ in range(random.randrange(6))]
        prompt = stem[: random.randrange(1, len(stem) + 1)] + tail if random.random() < 0.4 else stem + tail
        fields = {
            "priority": random.randrange(-1, 3),
            "cache_salt": random.choice(salts),
            "skip_prefix_hit": random.random() < 0.1,
        }
        samples = random.choice([1, 1, 1, 2, 3])
        step, max_tokens = random.randrange(20), random.randrange(1, 14)
        for sample in range(samples):
            fields |= {"group": group if samples > 1 else None, "seed": sample}
            arrivals.setdefault(step, []).append(make_request(rid, prompt, max_tokens, random.random() < 0.5, **fields))
            rid += 1
    requests = [request for requests in arrivals.values() for request in requests]
    longest = max(request.max_total_tokens for request in requests)
    chunked = random.random() < 0.7
    budget = random.randrange(1, 40) + (0 if chunked else max(request.num_prompt_tokens for request in requests))
    kv = KVManager(
        -(-longest // block_size) + random.choice([0, 0, 1, 2, 4, 10, 40]),
        block_size,
        enable_prefix_caching=random.random() < 0.75,
    )
    scheduler = Scheduler(
        kv,
        random.randrange(1, 7),
        budget,
        random.choice([FCFS(), Priority(ageing_steps=random.choice([1, 4, 100]))]),
        enable_chunked_prefill=chunked,
        batching=random.choice(["continuous", "continuous", "static"]),
        lookahead=random.choice([0, 0, 2, 6]),
    )
    return Case(
        scheduler,
        arrivals,
        vocab,
        aborts=_some(random, rid),
        late_aborts=_some(random, rid),
        failures={random.randrange(30): random.choice(["before", "applied", "written"]) for _ in range(_few(random))},
        abort_on_failure=random.random() < 0.5,
        resets=frozenset(random.randrange(40) for _ in range(_few(random))),
        **random.choice(
            [
                {},
                {"jumps": True},
                {"ahead": _ahead(random)},
                {"drafts": True},
                {"drafts": True, "ahead": _ahead(random)},
            ]
        ),
    )


def _ahead(random: Random) -> frozenset[int]:
    """Nearly always one step ahead, now and then not."""
    return frozenset(step for step in range(MAX_STEPS) if random.random() < 0.9)


def _few(random: Random) -> int:
    return random.choice([0, 0, 0, 1, 2])


def _some(random: Random, num_requests: int) -> dict[int, list[int]]:
    return {random.randrange(40): [random.randrange(num_requests)] for _ in range(random.choice([0, 0, 1, 3]))}


def play(case: Case) -> Counter[str]:
    """Run a case to its end. Raises AssertionError at the first violation; returns what happened, counted."""
    scheduler, kv = case.scheduler, case.scheduler.kv
    device = Device(kv.block_size, case.vocab, case.jumps, case.drafts)
    device.salts = {request.rid: _sharing(scheduler, request) for request in case.requests}
    alone = {request.rid: device.alone(request) for request in case.requests}
    watch = Watch(scheduler)
    counts: Counter[str] = Counter(requests=len(alone))
    in_flight: list[tuple[StepPlan, StepResult]] = []
    last_event = max([*case.arrivals, *case.aborts, *case.late_aborts, *case.failures, *case.resets])
    for step in range(MAX_STEPS):
        for request in case.arrivals.get(step, ()):
            scheduler.add(request)
        scheduler.finish(case.aborts.get(step, ()), FinishReason.ABORT)
        if step in case.resets:
            kv.reset_prefix_cache()
            device.epoch += 1
        scheduler.check()
        if not scheduler.has_work() and not in_flight and step > last_event:
            break
        watch.before()
        plan = scheduler.schedule(ahead=bool(in_flight))
        watch.after(plan)
        try:
            result = device.execute(plan, case.failures.get(step))
        except DeviceError:
            counts["failed steps"] += 1
            counts["lost steps"] += len(in_flight)
            in_flight.clear()
            if case.abort_on_failure:
                scheduler.finish([request.rid for request in case.requests], FinishReason.ABORT)
            continue
        counts["aborted"] += len(scheduler.finish(case.late_aborts.get(step, ()), FinishReason.ABORT))
        in_flight.append((plan, result))
        while len(in_flight) > (step in case.ahead and not plan.drafts):
            scheduler.update(*in_flight.pop(0))
        counts["steps ahead"] += len(in_flight)
        scheduler.check()
        for request in scheduler.running:
            sequence = device.sequences[request.rid]
            computed = request.num_computed + request.num_planned
            assert tuple(sequence.table) == kv.table(request.rid), "the runner's block table is out of step"
            assert sequence.computed == computed, "the runner's num_computed is out of step"
        counts["tokens"] += plan.total_tokens
    else:
        raise AssertionError("the scheduler never came to rest")

    assert kv.num_free_blocks == kv.num_blocks, "blocks leaked"
    assert kv.enable_prefix_caching or kv.pool.num_free == kv.num_blocks, "idle blocks were kept with caching off"
    for request in case.requests:
        expected = alone[request.rid]
        if request.finish_reason is FinishReason.ABORT:
            assert request.token_ids == expected[: request.num_tokens]
        else:
            assert request.token_ids == expected, f"request {request.rid} got other tokens than alone"
    hits = watch.hit_tokens
    return counts + Counter(
        {
            "steps": step,
            "reads": device.reads,
            "preemptions": scheduler.num_preemptions,
            "hit tokens": hits,
            "jumped tokens": device.jumped,
            "accepted drafts": device.accepted,
            "rejected drafts": device.rejected,
        }
    )


def _sharing(scheduler: Scheduler, request: Request) -> object:
    """Whose memory a request may read: requests with equal answers may share, no others."""
    if not scheduler.kv.enable_prefix_caching:
        return ("alone", request.rid) if request.group is None else ("group", request.group)
    return ("alone", request.rid) if request.cache_salt is None else ("salt", request.cache_salt)


class Watch:
    """Invariants of one plan, and those that tie it to the state before it."""

    def __init__(self, scheduler: Scheduler):
        self.scheduler = scheduler
        self.hit_tokens = 0
        self.batch_size = 0
        self.batch_closed = False

    def before(self) -> None:
        self.was_running = {request.rid: request.num_computed for request in self.scheduler.running}

    def after(self, plan: StepPlan) -> None:
        scheduler = self.scheduler
        scheduler.kv.check()
        assert plan.total_tokens <= scheduler.max_num_batched_tokens, "over the token budget"
        assert len(plan.num_tokens) <= len(scheduler.running) <= scheduler.max_num_seqs, "over max_num_seqs"
        assert all(count > 0 for count in plan.num_tokens.values()), "an empty entry in the plan"
        assert not set(plan.num_tokens) & set(plan.preempted), "planned and preempted in one step"
        assert not (plan.new_requests and plan.preempted), "somebody joined while others gave way"
        running = {request.rid: request for request in scheduler.running}
        assert plan.num_tokens.keys() <= running.keys(), "planned but not running"
        for rid in plan.num_tokens.keys() & self.was_running.keys() - {init.rid for init in plan.new_requests}:
            assert running[rid].num_computed == self.was_running[rid], "num_computed moved without a result"
        for rid in plan.num_tokens:
            self._drafts_and_blocks(running[rid], plan)
        for init in plan.new_requests:
            self._joined(running[init.rid], init.num_computed, plan)
        if plan.new_requests and scheduler.waiting:
            last = max(running[init.rid].rank for init in plan.new_requests)
            assert last < scheduler.waiting[0].rank, "a request was passed over"
        if scheduler.batching == "static":
            self._static(plan)

    def _drafts_and_blocks(self, request: Request, plan: StepPlan) -> None:
        kv, rid, known = self.scheduler.kv, request.rid, request.num_tokens
        if drafts := plan.drafts.get(rid):
            assert known + len(drafts) < request.max_total_tokens, "the last token is drawn, never computed"
        assert len(kv.table(rid)) <= kv.blocks_for(request.max_total_tokens), "blocks that nothing will fill"
        computed = min(request.num_computed + request.num_planned, known)
        assert kv._num_full[rid] == computed // kv.block_size, "a full block was kept from others, or half a one shown"

    def _joined(self, request: Request, cached: int, plan: StepPlan) -> None:
        assert cached == request.num_computed < request.num_tokens, "nothing left to compute after a hit"
        assert cached % self.scheduler.kv.block_size == 0, "a hit ends inside a block"
        self.hit_tokens += cached
        caching = self.scheduler.kv.enable_prefix_caching
        if request.skip_prefix_hit or (request.cache_salt is None if caching else request.group is None):
            assert cached == 0, "a request that shares nothing got a hit"
        if not self.scheduler.enable_chunked_prefill and request.num_generated == 0:
            assert plan.num_tokens[request.rid] == request.num_tokens - cached, "a prompt was split"

    def _static(self, plan: StepPlan) -> None:
        if not (self.was_running.keys() - set(plan.preempted) - set(plan.finished)):
            self.batch_size, self.batch_closed = 0, False
        assert not (self.batch_closed and plan.new_requests), "somebody joined a closed batch"
        self.batch_size += len(plan.new_requests)
        assert self.batch_size <= self.scheduler.max_num_seqs, "a static batch outgrew max_num_seqs"
        whole = self.scheduler.enable_chunked_prefill
        self.batch_closed |= whole and plan.total_tokens < self.scheduler.max_num_batched_tokens
