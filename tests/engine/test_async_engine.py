"""Streams, aborts and failures of the threaded engine."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys

import pytest

from minillm_serve import LLM, EngineConfig, RequestError, SamplingParams
from minillm_serve.engine.async_engine import (
    MAX_UNREAD,
    MAX_UNREAD_CHARS,
    AsyncEngine,
    EngineDeadError,
    _Mailbox,
)
from minillm_serve.request import CompletionOutput, RequestMetrics, RequestOutput

GREEDY = SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True)
LONG = SamplingParams(max_tokens=400, temperature=0.0, ignore_eos=True)


@contextlib.asynccontextmanager
async def running_engine(folder, **settings):
    engine = AsyncEngine.from_config(EngineConfig(model=str(folder), **{"num_kv_blocks": 200, **settings}))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def until(condition, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


LOAD_AND_COUNT = """
import os, sys, time
import torch
from minillm_serve import EngineConfig
from minillm_serve.engine.async_engine import AsyncEngine

def count():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(2)  # makes a thread of its own, for another pool
before = count()
engine = AsyncEngine.from_config(EngineConfig(model=sys.argv[1], num_kv_blocks=8, num_threads=2))
deadline = time.monotonic() + 10
while count() > before and time.monotonic() < deadline:  # a thread that has been told to end takes a moment
    time.sleep(0.01)
print(count() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the threads are counted in /proc")
def test_the_threads_that_loaded_the_model_do_not_stay(tiny_model_dir):
    """With more OpenMP threads than cores in the process, libgomp's sleep after each kernel (serve/LEDGER.md)."""
    command = [sys.executable, "-c", LOAD_AND_COUNT, str(tiny_model_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "0\n"


def test_streams_grow_and_end_as_the_offline_engine_does(tiny_model_dir):
    prompts = [f"prompt number {i}" for i in range(12)]
    expected = [o.outputs[0].text for o in LLM(tiny_model_dir, num_kv_blocks=200).generate(prompts, GREEDY)]

    async def one(engine, prompt):
        seen = ""
        async for output in engine.generate(prompt, GREEDY, "same-name"):
            assert output.outputs[0].text.startswith(seen)
            seen = output.outputs[0].text
        assert output.finished
        return seen

    async def main():
        async with running_engine(tiny_model_dir) as engine:
            return await asyncio.gather(*(one(engine, prompt) for prompt in prompts))

    assert run(main()) == expected


def test_leaving_a_stream_early_frees_its_blocks_and_harms_nobody(tiny_model_dir):
    async def main():
        async with running_engine(tiny_model_dir) as engine:
            stream = engine.generate("leaves early", LONG, "a")
            await anext(stream)
            other = asyncio.create_task(collect(engine, "stays"))
            cancelled = asyncio.create_task(collect(engine, "is cancelled", LONG))
            await until(lambda: engine.stats().running == 3)
            await stream.aclose()
            cancelled.cancel()
            output = await other
            await until(lambda: engine.stats().kv_blocks_used == 0)
            assert (engine.stats().running, engine.stats().waiting) == (0, 0)
            return len(output.outputs[0].token_ids)

    assert run(main()) == 20


async def collect(engine, prompt, params=GREEDY, **rest):
    async for output in engine.generate(prompt, params, prompt, **rest):
        last = output
    return last


def test_a_request_that_waits_in_the_queue_can_be_left_too(tiny_model_dir):
    async def main():
        async with running_engine(tiny_model_dir, max_num_seqs=1) as engine:
            first = asyncio.create_task(collect(engine, "runs", LONG))
            await until(lambda: engine.stats().running == 1)
            second = asyncio.create_task(collect(engine, "waits"))
            await until(lambda: engine.stats().waiting == 1)
            second.cancel()
            await until(lambda: engine.stats().waiting == 0)
            assert engine.stats().running == 1
            first.cancel()
            await until(lambda: engine.stats().kv_blocks_used == 0)

    run(main())


def test_refusals_come_before_scheduling_and_the_engine_goes_on(tiny_model_dir):
    async def main():
        async with running_engine(tiny_model_dir) as engine:
            for prompt, params in (("", GREEDY), ([10**9], GREEDY), ("x", SamplingParams(max_tokens=10**6))):
                with pytest.raises(RequestError):
                    await collect(engine, prompt, params)
            assert engine.stats().running == 0
            return await collect(engine, "a good one")

    assert run(main()).finished


def test_a_dead_step_thread_ends_every_stream_with_an_error(tiny_model_dir, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda args: None)

    async def main():
        async with running_engine(tiny_model_dir) as engine:
            streams = [asyncio.create_task(collect(engine, f"p{i}", LONG)) for i in range(3)]
            await until(lambda: engine.stats().running == 3)

            def explode(plan):
                raise RuntimeError("boom")

            engine.core.runner.submit = explode
            results = await asyncio.gather(*streams, return_exceptions=True)
            assert all(isinstance(result, EngineDeadError) for result in results)
            assert engine.errored
            with pytest.raises(EngineDeadError):
                await collect(engine, "too late")

    run(main())


def test_stop_ends_open_streams(tiny_model_dir):
    async def main():
        async with running_engine(tiny_model_dir) as engine:
            task = asyncio.create_task(collect(engine, "open", LONG))
            await until(lambda: engine.stats().running == 1)
            await engine.stop()
            with pytest.raises(EngineDeadError):
                await task
            assert not engine.errored

    run(main())


def test_every_step_is_reported(tiny_model_dir):
    """The steps add up to what was computed: all prompt tokens, and every new token but the last of each request."""
    steps, outputs = [], []

    async def main():
        async with running_engine(tiny_model_dir) as engine:
            engine.on_step = steps.append
            outputs.extend(await asyncio.gather(*(collect(engine, f"prompt {i}") for i in range(4))))

    run(main())
    prompt_tokens = sum(len(output.prompt_token_ids) for output in outputs)
    assert sum(step.num_tokens for step in steps) == prompt_tokens + 4 * (GREEDY.max_tokens - 1)
    assert max(step.running for step in steps) <= 4 and all(step.duration_s > 0 for step in steps)


def test_samples_stream_together_and_end_as_the_offline_ones_do(tiny_model_dir):
    params = SamplingParams(n=3, temperature=1.0, seed=5, max_tokens=15)
    [expected] = LLM(tiny_model_dir, num_kv_blocks=200).generate("several at once", params)

    async def main():
        async with running_engine(tiny_model_dir) as engine:
            seen = [""] * 3
            async for output in engine.generate("several at once", params, "n"):
                for index, sample in enumerate(output.outputs):
                    assert sample.index == index and sample.text.startswith(seen[index])
                    seen[index] = sample.text
            last = await collect(engine, "several at once", SamplingParams(n=2, best_of=3, seed=5, max_tokens=15))
            await until(lambda: engine.stats().kv_blocks_used == 0)
            return output, last

    output, best = run(main())
    assert output.finished and output.outputs == expected.outputs
    assert {sample.token_ids for sample in best.outputs} < {sample.token_ids for sample in expected.outputs}


def test_leaving_a_request_ends_all_its_samples(tiny_model_dir):
    async def main():
        async with running_engine(tiny_model_dir, max_num_seqs=2) as engine:
            params = SamplingParams(n=5, max_tokens=400, ignore_eos=True)
            stream = engine.generate("leaves with samples in the queue", params, "a")
            await anext(stream)
            assert (engine.stats().running, engine.stats().waiting) == (2, 3)
            await stream.aclose()
            await until(lambda: engine.stats().kv_blocks_used == 0)
            assert (engine.stats().running, engine.stats().waiting) == (0, 0)

    run(main())


def test_a_reader_that_does_not_read_costs_a_bounded_number_of_outputs(tiny_model_dir):
    """It misses outputs, but no text: the last one is there and tells all."""

    async def main():
        async with running_engine(tiny_model_dir) as engine:
            stream = engine.generate("reads late", LONG, "slow")
            first = await anext(stream)
            tokens = len(first.outputs[0].token_ids)
            unread = engine._streams[first.rid]._unread
            await until(lambda: unread and unread[-1].finished)
            assert len(unread) <= MAX_UNREAD
            rest = [output async for output in stream]
            assert len(rest) <= MAX_UNREAD and rest[-1].finished and len(rest[-1].outputs[0].token_ids) == 400
            assert len(first.outputs[0].token_ids) == tokens, "an output does not grow after it was given out"

    run(main())


@pytest.mark.parametrize("chars", [10, 700, MAX_UNREAD_CHARS // 3, 2 * MAX_UNREAD_CHARS])
def test_what_nobody_reads_is_bounded_in_characters_too(chars):
    """Each output has a copy of the whole text: 64 of a long one would be megabytes for one client."""
    mailbox = _Mailbox()
    completion = CompletionOutput(0, "x" * chars, ())
    sent = [RequestOutput(0, "r", None, (1,), (completion,), False, RequestMetrics()) for _ in range(3 * MAX_UNREAD)]
    for output in sent:
        mailbox.put(output)
    held = list(mailbox._unread)
    expected = [*sent[: len(held) - 1], sent[-1]]
    assert all(one is other for one, other in zip(held, expected, strict=True))
    assert len(held) == 1 or len(held) * chars <= MAX_UNREAD_CHARS
    assert len(held) == min(MAX_UNREAD, max(1, MAX_UNREAD_CHARS // chars))


def test_only_the_last_output_comes_if_no_more_are_wanted(tiny_model_dir):
    async def main():
        async with running_engine(tiny_model_dir) as engine:
            group = await engine.prepare("no stream", GREEDY)
            outputs = [output async for output in engine.stream(group, "final", final_only=True)]
            return outputs, await collect(engine, "no stream")

    outputs, streamed = run(main())
    assert len(outputs) == 1 and outputs[0].outputs == streamed.outputs


def test_priority_and_cache_salt_reach_the_scheduler(tiny_model_dir):
    prompt = "the same prompt of many, many tokens, so that there is a block to share " * 2

    async def main():
        async with running_engine(tiny_model_dir, scheduling_policy="priority", block_size=4) as engine:
            await collect(engine, prompt)
            for salt, hit in (("mine", False), ("mine", True), ("yours", False), (None, True)):
                output = await collect(engine, prompt, priority=3, cache_salt=salt)
                assert (output.num_cached_tokens > 0) == hit
            group = await engine.prepare(prompt, GREEDY, priority=-2)
            assert group.samples[0].request.priority == -2

    run(main())
